//! Heads that were answered with a file, remembered with the answer.
//!
//! Clients, proxies and probes ask the same things again, in the same bytes. What a head is answered with depends on
//! nothing but its bytes and the snapshot; so a head that starts with the very bytes of a remembered one, its empty line
//! included, has the same answer, and needs no parsing. Emptied when the snapshot changes or the drain begins.

use super::conditional::Part;
use super::reply::Conn;

/// Heads that are remembered. A power of two.
const SLOTS: usize = 32;
/// Longest head that is remembered, in bytes.
const HEAD_MAX: usize = 1024;
/// Bytes that choose the slot of a head; shorter ones are not remembered.
const CHOOSING: usize = 32;

/// A file, what of it, and what becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) index: u32,
    pub(super) part: Part,
    pub(super) conn: Conn,
}

/// A table of heads. Each has one slot; of those that want the same the last one keeps it.
#[derive(Debug)]
pub(super) struct Repeats(Box<[(Vec<u8>, Answer)]>);

impl Repeats {
    pub(super) fn new() -> Self {
        let nothing = Answer { index: 0, part: Part::Whole, conn: Conn::Close };
        Repeats((0..SLOTS).map(|_| (Vec::with_capacity(HEAD_MAX), nothing)).collect())
    }

    /// The answer to the head that `bytes` start with, and its length.
    #[inline]
    pub(super) fn find(&self, bytes: &[u8]) -> Option<(usize, Answer)> {
        let (head, answer) = self.0.get(slot(bytes)?)?;
        (!head.is_empty() && bytes.starts_with(head)).then_some((head.len(), *answer))
    }

    /// Remembers a whole head, its empty line included.
    pub(super) fn remember(&mut self, head: &[u8], answer: Answer) {
        if head.len() <= HEAD_MAX
            && let Some(slot) = slot(head).and_then(|slot| self.0.get_mut(slot))
        {
            slot.0.clear();
            slot.0.extend_from_slice(head);
            slot.1 = answer;
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.iter_mut().for_each(|slot| slot.0.clear());
    }
}

/// The slot of a head, by its first bytes: method, path, and what they leave room for.
#[inline]
fn slot(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.first_chunk::<CHOOSING>()?.as_chunks::<8>();
    let mix = words
        .iter()
        .fold(0u64, |mix, word| (mix ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
    Some((mix >> 32) as usize % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_bytes_are_found_again() {
        let answer = Answer { index: 7, part: Part::Whole, conn: Conn::Stay };
        let head = b"GET /some/path HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut repeats = Repeats::new();
        assert_eq!(repeats.find(head), None);
        assert_eq!(repeats.find(b""), None);
        repeats.remember(head, answer);
        assert_eq!(repeats.find(head), Some((head.len(), answer)));
        assert_eq!(repeats.find(&[&head[..], b"GET /"].concat()), Some((head.len(), answer)));
        for at in 0..head.len() {
            let mut other = head.to_vec();
            other[at] ^= 1;
            assert_eq!(repeats.find(&other), None, "byte {at}");
            assert_eq!(repeats.find(&head[..at]), None, "cut at {at}");
        }
        repeats.clear();
        assert_eq!(repeats.find(head), None);
    }

    #[test]
    fn heads_that_are_too_short_or_too_long_are_not_kept() {
        let answer = Answer { index: 7, part: Part::Whole, conn: Conn::Stay };
        let mut repeats = Repeats::new();
        for head in [vec![b'x'; CHOOSING - 1], vec![b'x'; HEAD_MAX + 1]] {
            repeats.remember(&head, answer);
            assert_eq!(repeats.find(&head), None);
        }
        let mut kept = 0;
        for i in 0..200u32 {
            let head = format!("GET /file-{i} HTTP/1.1\r\nHost: h\r\n\r\n");
            repeats.remember(head.as_bytes(), Answer { index: i, ..answer });
            assert_eq!(repeats.find(head.as_bytes()).map(|found| found.1.index), Some(i));
        }
        for i in 0..200u32 {
            let head = format!("GET /file-{i} HTTP/1.1\r\nHost: h\r\n\r\n");
            kept += u32::from(repeats.find(head.as_bytes()).is_some_and(|found| found.1.index == i));
        }
        assert!((SLOTS as u32 / 2..=SLOTS as u32).contains(&kept), "{kept} slots of {SLOTS} are in use");
    }
}
