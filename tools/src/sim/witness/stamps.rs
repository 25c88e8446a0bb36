//! The timestamps of what we send (RFC 7323 3.2): they never run backwards, but for text that goes again.

use std::collections::VecDeque;

/// First copies of which the timestamp is remembered; an honest peer's window holds fewer.
const FIRSTS_MAX: usize = 65_536;

/// What we have sent in a connection, as timestamps.
#[derive(Clone, Debug)]
pub(super) struct Stamps {
    newest: u32,
    /// Where the text of each first copy ends, and its timestamp; in both orders at once.
    firsts: VecDeque<(u64, u32)>,
}

impl Stamps {
    /// Those of a connection whose SYN|ACK bore `first`.
    pub(super) fn new(first: u32) -> Self {
        Stamps { newest: first, firsts: VecDeque::new() }
    }

    /// A segment from position `seq` to below `last` bears `value`; what lies before `furthest` has been sent before.
    pub(super) fn take(&mut self, value: u32, (seq, last): (u64, u64), furthest: u64) -> Result<(), String> {
        if (value.wrapping_sub(self.newest) as i32) < 0 {
            // The time of its first copy is allowed to it: the network may bring that one as late. Anything older would be
            // older than what the peer has taken in front of it, and PAWS drops that.
            let first = self.firsts.get(self.firsts.partition_point(|&(end, _)| end <= seq)).map(|&(_, stamp)| stamp);
            let repeats = seq < last && last <= furthest;
            return match first.filter(|_| repeats) {
                Some(first) if value.wrapping_sub(first) as i32 >= 0 => Ok(()),
                _ => Err("a timestamp that runs backwards".to_owned()),
            };
        }
        self.newest = value;
        if last > furthest {
            self.firsts.push_back((last, value));
            if self.firsts.len() > FIRSTS_MAX {
                self.firsts.pop_front();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_that_goes_again_may_bear_the_time_of_its_first_copy() {
        let mut stamps = Stamps::new(10);
        assert!(stamps.take(20, (1, 101), 1).is_ok());
        assert!(stamps.take(30, (101, 201), 101).is_ok());
        assert!(stamps.take(40, (201, 301), 201).is_ok());
        // Again, as at first; then older than that, and newer.
        assert!(stamps.take(30, (101, 201), 301).is_ok());
        assert!(stamps.take(29, (101, 201), 301).is_err());
        assert!(stamps.take(40, (101, 201), 301).is_ok());
        // No text, new text, text both old and new.
        for place in [(301, 301), (301, 401), (201, 401)] {
            assert!(stamps.take(39, place, 301).is_err(), "{place:?}");
        }
        assert!(stamps.take(20, (1, 101), 301).is_ok());
    }
}
