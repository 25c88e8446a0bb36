//! Cookies that have made a connection: one each, however often its ACK comes.
//!
//! A cookie stays good for a minute or two, and a connection may be over in a second. A late copy of the segment that brought
//! it back, or of the first text, would begin it once more, with a peer that is in TIME-WAIT at best. So what was taken is
//! remembered as long as it is good: in sets of a few entries, chosen by a keyed hash. A full set forgets its oldest, so
//! that whoever spends many cookies of his own makes room at the cost of what others spent before, and of no connection.

use super::{entry, is_alive, tag};
use crate::Instant;

/// Entries of a set.
const WAYS: usize = 8;
/// The least that are remembered.
const LEAST: usize = 1024;

/// A bounded memory of cookies. A cookie is known by a keyed hash of 64 bits that only we can make.
pub(super) struct Spent {
    /// Part of the hash, then when it was spent; 0: free.
    sets: Box<[[u64; WAYS]]>,
}

impl Spent {
    /// Bytes that a memory of `count` cookies takes.
    pub(super) fn bytes_for(count: usize) -> usize {
        sets_for(count) * size_of::<[u64; WAYS]>()
    }

    pub(super) fn new(count: usize) -> Self {
        // Zeroed memory from the system: where no cookie is ever needed, no page is touched.
        Spent { sets: vec![[0; WAYS]; sets_for(count)].into() }
    }

    /// Remembers a cookie from `now` on.
    pub(super) fn add(&mut self, now: Instant, hash: u64) {
        let at = self.set_of(hash);
        let set = &mut self.sets[at];
        let oldest = (0..WAYS).min_by_key(|&i| set[i] as u32).unwrap_or(0);
        set[oldest] = entry(hash, now);
    }

    /// Whether it was spent, and might still be good if it were not.
    pub(super) fn holds(&self, now: Instant, hash: u64) -> bool {
        self.sets[self.set_of(hash)].iter().any(|&e| e >> 32 == tag(hash) && is_alive(now, e))
    }

    fn set_of(&self, hash: u64) -> usize {
        hash as usize % self.sets.len()
    }
}

fn sets_for(count: usize) -> usize {
    count.max(LEAST).div_ceil(WAYS).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::super::LIFE_US;
    use super::*;

    #[test]
    fn what_was_spent_is_known_for_as_long_as_it_is_good_and_the_oldest_goes_first() {
        let mut spent = Spent::new(0);
        assert_eq!(Spent::bytes_for(0), 8 * LEAST);
        let t = Instant::from_millis(1_000_000);
        let hash = |n: u64| n << 40 | 5;
        assert!(!spent.holds(Instant::ZERO, 0) && !spent.holds(t, hash(0)));
        for n in 0..WAYS as u64 {
            spent.add(t.plus_micros(n * 1_000_000), hash(n));
        }
        assert!((0..WAYS as u64).all(|n| spent.holds(t.plus_micros(9_000_000), hash(n))));
        assert!(spent.holds(t.plus_micros(LIFE_US - 1_000_000), hash(0)));
        assert!(!spent.holds(t.plus_micros(LIFE_US + 1_000_000), hash(0)));
        spent.add(t.plus_micros(9_000_000), hash(100));
        let left: Vec<bool> = (0..WAYS as u64).map(|n| spent.holds(t.plus_micros(9_000_000), hash(n))).collect();
        assert_eq!(left, [false, true, true, true, true, true, true, true]);
        assert!(!spent.holds(t.plus_micros(9_000_000), hash(100) + 1), "in another set");
    }
}
