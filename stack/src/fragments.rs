//! Packets that came in parts, put together again (RFC 791 3.2, RFC 8200 4.5, RFC 1122 3.3.2).
//!
//! A fixed number of places, each as large as an IP packet may be, all set aside at start: a stranger who sends beginnings
//! without ends pushes out the oldest of them, nothing more. Two parts that claim the same octet end the packet, and what
//! else belongs to it is dropped until its time is over (RFC 5722, for IPv4 too; Linux does so for IPv6 and, since 4.18,
//! IPv4); a part that merely came twice is ignored.

use crate::limits::{FRAGMENT_LIFE_V4_US, FRAGMENT_LIFE_V6_US, FRAGMENT_SLOTS};
use crate::wire::{self, Fragment, HEADERS_MAX, LinkView};
use crate::{Counters, Instant};
use core::ops::Range;

/// Longest content of an IP packet, bytes.
const CONTENT_MAX: usize = 65_535;
/// Parts begin at multiples of this, bytes.
const UNIT: usize = 8;
const WORDS: usize = (CONTENT_MAX + 1) / UNIT / 64;

/// What the parts of a packet have in common. Over IPv6 the protocol does not count: each part may name another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    peer: [u8; 16],
    local: [u8; 16],
    id: u32,
    protocol: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Collecting,
    /// Its parts contradicted each other.
    Spoiled,
}

struct Slot {
    name: Name,
    state: State,
    since: Instant,
    expires: Instant,
    /// The first part, and how it came.
    first: Option<(LinkView, Fragment)>,
    /// Length of the whole, once the last part is there, bytes.
    total: Option<usize>,
    /// What is there, bytes.
    filled: usize,
    /// End of what is there, bytes.
    reach: usize,
    /// A bit for each value of the ECN field that was seen.
    ecn_seen: u8,
    /// A bit for each unit that is there.
    have: [u64; WORDS],
    /// Room for headers, then the content. Elsewhere while the whole is being dealt with.
    buffer: Box<[u8]>,
}

/// A packet that is whole.
#[derive(Debug)]
pub(crate) struct Whole {
    slot: usize,
    /// Where in the buffer the frame is.
    pub(crate) frame: Range<usize>,
}

/// The places where one shard puts parts together.
pub(crate) struct Fragments {
    slots: Vec<Slot>,
    used: usize,
    /// Where an answer lies that must go in parts, and the number of the last one.
    answer: Box<[u8]>,
    answers: u32,
}

impl Fragments {
    /// Nothing yet. `first` is where the numbers of our own packets in parts begin: a stranger should not know.
    pub(crate) fn new(first: u32) -> Self {
        let name = Name { peer: [0; 16], local: [0; 16], id: 0, protocol: 0 };
        let slot = || Slot {
            name,
            state: State::Free,
            since: Instant::ZERO,
            expires: Instant::ZERO,
            first: None,
            total: None,
            filled: 0,
            reach: 0,
            ecn_seen: 0,
            have: [0; WORDS],
            // Zeroed by the kernel when it is first touched, which is never on most machines.
            buffer: vec![0; HEADERS_MAX + CONTENT_MAX].into(),
        };
        let answer = vec![0; HEADERS_MAX + CONTENT_MAX].into();
        Fragments { slots: (0..FRAGMENT_SLOTS).map(|_| slot()).collect(), used: 0, answer, answers: first }
    }

    /// Takes in a part of a packet to us, which came in `frame` over `link`; returns the packet if that makes it whole.
    #[cold]
    pub(crate) fn take(
        &mut self,
        now: Instant,
        link: &LinkView,
        part: &Fragment,
        frame: &[u8],
        counters: &mut Counters,
    ) -> Option<Whole> {
        counters.frag_received += 1;
        let at = self.slot_for(now, part, counters);
        let slot = &mut self.slots[at];
        if slot.state == State::Spoiled {
            counters.drop_fragment += 1;
            return None;
        }
        match slot.add(link, part, part.bytes(frame)) {
            Added::More => None,
            Added::Twice => {
                counters.frag_duplicates += 1;
                None
            }
            Added::Contradiction => {
                slot.state = State::Spoiled;
                counters.frag_overlaps += 1;
                None
            }
            Added::All(frame) => {
                slot.state = State::Free;
                self.used -= 1;
                counters.frag_reassembled += 1;
                Some(Whole { slot: at, frame })
            }
        }
    }

    /// The buffer of a whole packet, until [`give_back`](Self::give_back).
    pub(crate) fn lend(&mut self, whole: &Whole) -> Box<[u8]> {
        core::mem::take(&mut self.slots[whole.slot].buffer)
    }

    pub(crate) fn give_back(&mut self, whole: &Whole, buffer: Box<[u8]>) {
        self.slots[whole.slot].buffer = buffer;
    }

    /// Room for a whole packet of ours and the number of its parts, until [`keep_answer`](Self::keep_answer).
    pub(crate) fn lend_answer(&mut self) -> (Box<[u8]>, u32) {
        self.answers = self.answers.wrapping_add(1);
        (core::mem::take(&mut self.answer), self.answers)
    }

    pub(crate) fn keep_answer(&mut self, answer: Box<[u8]>) {
        self.answer = answer;
    }

    /// When [`expire`](Self::expire) has something to do.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.used == 0 { None } else { self.used_slots().map(|s| s.expires).min() }
    }

    /// Gives up what is not whole in time and returns how many packets that was. `tell` hears of those whose first part is
    /// there: how it came, what it was and its bytes.
    pub(crate) fn expire(&mut self, now: Instant, mut tell: impl FnMut(&LinkView, &Fragment, &[u8])) -> u64 {
        let mut given_up = 0;
        if self.used == 0 {
            return given_up;
        }
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.state == State::Free || slot.expires > now {
                continue;
            }
            if slot.state == State::Collecting {
                given_up += 1;
                if let Some((link, first)) = &slot.first {
                    let len = first.end as usize - usize::from(first.at);
                    tell(link, first, slot.buffer.get(HEADERS_MAX..HEADERS_MAX + len).unwrap_or(&[]));
                }
            }
            self.free(at);
        }
        given_up
    }

    /// The place of the packet that `part` belongs to: its own, a free one, or the oldest.
    fn slot_for(&mut self, now: Instant, part: &Fragment, counters: &mut Counters) -> usize {
        let v4 = wire::is_v4(&part.peer);
        let name =
            Name { peer: part.peer, local: part.local, id: part.id, protocol: if v4 { part.protocol } else { 0 } };
        let known = self.slots.iter().position(|s| s.state != State::Free && s.name == name);
        if let Some(known) = known {
            if self.slots[known].expires > now {
                return known;
            }
            counters.frag_expired += u64::from(self.slots[known].state == State::Collecting);
            self.free(known);
        }
        let free = self.slots.iter().position(|s| s.state == State::Free);
        let at = free.unwrap_or_else(|| {
            let oldest = (0..self.slots.len()).min_by_key(|&at| self.slots[at].since).unwrap_or(0);
            counters.frag_evicted += u64::from(self.slots[oldest].state == State::Collecting);
            self.free(oldest);
            oldest
        });
        let life_us = if v4 { FRAGMENT_LIFE_V4_US } else { FRAGMENT_LIFE_V6_US };
        self.slots[at].begin(name, now, now.plus_micros(life_us));
        self.used += 1;
        at
    }

    fn free(&mut self, at: usize) {
        self.slots[at].state = State::Free;
        self.used -= 1;
    }

    fn used_slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|s| s.state != State::Free)
    }
}

/// What a part did.
enum Added {
    /// Others are still missing.
    More,
    /// It was there already.
    Twice,
    /// It says something else than the others.
    Contradiction,
    /// It was the last that was missing: the frame lies there.
    All(Range<usize>),
}

impl Slot {
    fn begin(&mut self, name: Name, since: Instant, expires: Instant) {
        (self.name, self.state, self.since, self.expires) = (name, State::Collecting, since, expires);
        (self.first, self.total, self.filled, self.reach, self.ecn_seen) = (None, None, 0, 0, 0);
        self.have.fill(0);
    }

    fn add(&mut self, link: &LinkView, part: &Fragment, bytes: &[u8]) -> Added {
        let start = usize::from(part.offset);
        let end = start + bytes.len();
        let Some(room) = self.buffer.get_mut(HEADERS_MAX + start..HEADERS_MAX + end) else {
            return Added::Contradiction;
        };
        // All agree on where the packet ends.
        let ends = (!part.more).then_some(end).or(self.total);
        if self.total.is_some_and(|total| ends != Some(total)) || ends.is_some_and(|ends| self.reach.max(end) > ends) {
            return Added::Contradiction;
        }
        let units = start / UNIT..end.div_ceil(UNIT);
        match count(&self.have, units.clone()) {
            0 => {}
            n if n == units.len() && *room == *bytes => return Added::Twice,
            _ => return Added::Contradiction,
        }
        room.copy_from_slice(bytes);
        set(&mut self.have, units);
        self.total = ends;
        self.filled += bytes.len();
        self.reach = self.reach.max(end);
        self.ecn_seen |= 1 << (part.ecn & 3);
        if start == 0 {
            self.first = Some((*link, *part));
        }
        match (self.total, &self.first) {
            (Some(total), Some((link, first))) if total == self.filled => {
                let Some(ecn) = together(self.ecn_seen, first.ecn) else { return Added::Contradiction };
                let first = Fragment { ecn, ..*first };
                let begin = wire::whole_headers(link, &first, total, &mut self.buffer);
                Added::All(begin..HEADERS_MAX + total)
            }
            _ => Added::More,
        }
    }
}

/// The ECN field of a packet whose parts had those of `seen` (RFC 3168 5.3): one mark marks the whole, and must not be set
/// where the others do not allow marks.
fn together(seen: u8, first: u8) -> Option<u8> {
    const MARKED: u8 = 1 << 3;
    match seen {
        _ if seen & MARKED == 0 => Some(first),
        _ if seen & 1 == 0 => Some(3),
        _ => None,
    }
}

/// The words that hold bits `range`, each with the bits of it that count.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let words = if range.is_empty() { 0..0 } else { range.start / 64..range.end.div_ceil(64) };
    words.map(move |word| {
        let from = range.start.saturating_sub(word * 64).min(63);
        let to = (range.end - word * 64).min(64);
        (word, (u64::MAX << from) & (u64::MAX >> (64 - to)))
    })
}

fn count(bits: &[u64; WORDS], range: Range<usize>) -> usize {
    masks(range).map(|(word, mask)| (bits[word] & mask).count_ones() as usize).sum()
}

fn set(bits: &mut [u64; WORDS], range: Range<usize>) {
    masks(range).for_each(|(word, mask)| bits[word] |= mask);
}

#[cfg(test)]
mod tests;
