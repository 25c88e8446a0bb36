//! When something must be looked at again: a lazy hierarchical timing wheel.
//!
//! Each id has at most one entry. [`arm`](Wheel::arm) only ever moves an entry forward in time: pushing a deadline back
//! costs one comparison, and whoever is woken too early by it looks at its true deadline and arms again. So a
//! connection that postpones its retransmission timer with every ACK touches the lists once per timeout, not per ACK.
//!
//! Time is counted in ticks of 1024 microseconds. A level has 64 slots, one for each value of six bits of a tick; nine
//! levels cover all of [`Instant`]. An entry stands at the level of the highest six bits in which its tick differs from the
//! wheel's own: it comes down at most once for each level, and a lower level is always sooner than a higher one.

use crate::Instant;
use core::ops::Range;

/// Microseconds of a tick, as a power of two.
const TICK_SHIFT: u32 = 10;
/// Bits of a tick that one level sorts by.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// 64 - [`TICK_SHIFT`] = 54 bits of tick in all.
const LEVELS: usize = (64 - TICK_SHIFT).div_ceil(LEVEL_BITS) as usize;
const TICK_MAX: u64 = (1 << (64 - TICK_SHIFT)) - 1;
/// The list of entries whose tick has come; it follows the lists of the slots.
const DUE: usize = LEVELS * SLOTS;

/// Wake-ups for ids below a fixed capacity; see the [module](self).
///
/// # Guarantees
/// With time that does not run backwards, an entry armed for `t` comes out of [`pop_expired`](Self::pop_expired) in the
/// first call (budget permitting) whose `now` is at or after `t` rounded up to a tick: never before `t`, and always when
/// `now >= t + 1.024 ms`. (`t` within one tick of the end of all time counts as that last tick.)
pub struct Wheel {
    /// Of each id, then of the head of each list.
    entries: Box<[Entry]>,
    capacity: usize,
    /// Occupied slots of each level.
    occupied: [u64; LEVELS],
    /// Levels that have an occupied slot.
    levels: u16,
    /// The list being taken apart: a slot of a higher level whose time has come.
    opened: Option<u16>,
    /// Everything at or before this tick is in the due list or in `opened`.
    current: u64,
    len: usize,
}

/// An id's time and its place in a list, in one cache line: they are looked at together.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// 0, or its tick + 1.
    tick: u64,
    /// `[next, previous]`. Rings through their head.
    links: [u32; 2],
}

const NEXT: usize = 0;
const PREVIOUS: usize = 1;

impl Wheel {
    /// A wheel for the ids `0..capacity`, at time zero. `capacity` is at most `u32::MAX - 1024`.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity <= (u32::MAX - 1024) as usize, "ids are 32 bits wide");
        let mut entries = vec![Entry::default(); capacity + DUE + 1].into_boxed_slice();
        for (i, head) in entries.iter_mut().enumerate().skip(capacity) {
            head.links = [i as u32; 2];
        }
        Wheel { entries, capacity, occupied: [0; LEVELS], levels: 0, opened: None, current: 0, len: 0 }
    }

    /// Bytes of an id.
    pub const BYTES_EACH: usize = size_of::<Entry>();

    /// Where the entries lie.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let Range { start, end } = self.entries.as_ptr_range();
        start as usize..end as usize
    }

    /// Ids this wheel was made for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Entries armed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asks for what [`arm`](Self::arm) will look at.
    #[inline]
    pub(crate) fn prefetch(&self, id: u32) {
        if let Some(entry) = self.entries.get(id as usize) {
            crate::prefetch::line(core::ptr::from_ref(entry) as usize);
        }
    }

    /// Makes sure that `id` comes up no later than the tick after `at`. If it is armed for that time or sooner already,
    /// nothing happens: an entry never moves back.
    #[inline]
    pub fn arm(&mut self, id: u32, at: Instant) {
        let tick = tick_after(at);
        let armed = self.entries[id as usize].tick;
        if armed != 0 && armed <= tick + 1 {
            return;
        }
        self.rearm(id, tick, armed != 0);
    }

    /// Takes the entry of `id` out, if it has one.
    #[inline]
    pub fn disarm(&mut self, id: u32) {
        if self.entries[id as usize].tick != 0 {
            self.unlink(id as usize);
            self.entries[id as usize].tick = 0;
            self.len -= 1;
        }
    }

    /// When `id` comes up: the instant it was armed for, rounded up to a tick. `None`: not armed.
    #[inline]
    pub fn armed(&self, id: u32) -> Option<Instant> {
        let tick = self.entries[id as usize].tick.checked_sub(1)?;
        Some(Instant::from_micros(tick << TICK_SHIFT))
    }

    /// Takes out one id whose time has come; it is disarmed by that. In a loop, until `None`, it gives all of them, in no
    /// promised order except that an id armed again for the past waits behind those that are due.
    ///
    /// Each id handed out, and each one moved on the way, takes 1 from `budget`; at 0 the answer is `None` and
    /// [`next_deadline`](Self::next_deadline) lies in the past as long as something is left to do. So a jump of hours costs
    /// no call more than its budget.
    #[inline]
    pub fn pop_expired(&mut self, now: Instant, budget: &mut u32) -> Option<u32> {
        let target = now.micros() >> TICK_SHIFT;
        loop {
            if *budget == 0 {
                return None;
            }
            let first = self.first(DUE);
            if first < self.capacity {
                *budget -= 1;
                self.disarm(first as u32);
                return Some(first as u32);
            }
            if !self.advance(target, budget) {
                return None;
            }
        }
    }

    /// When to call [`pop_expired`](Self::pop_expired) next: never later than the tick of the first entry, and earlier only
    /// by the levels that this entry still has to come down (at most one call for each of them). `None`: nothing is armed.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let tick = if self.first(DUE) < self.capacity || self.opened.is_some() {
            self.current
        } else {
            self.next_slot().map_or(self.current, |(_, start)| start)
        };
        Some(Instant::from_micros(tick << TICK_SHIFT))
    }

    /// One step towards `target`, with the due list empty. False: there is nothing due.
    fn advance(&mut self, target: u64, budget: &mut u32) -> bool {
        if let Some(list) = self.opened {
            let first = self.first(list as usize);
            if first < self.capacity {
                *budget -= 1;
                self.unlink(first);
                self.link(first);
            } else {
                self.opened = None;
            }
            return true;
        }
        match self.next_slot() {
            Some((list, start)) if start <= target => {
                // No list has an entry sooner than this one's start, so moving there breaks no list's place.
                self.current = start;
                if list < SLOTS {
                    self.splice_due(list);
                } else {
                    self.opened = Some(list as u16);
                }
                true
            }
            _ => {
                self.current = self.current.max(target);
                false
            }
        }
    }

    /// The soonest occupied slot and the tick it starts at.
    #[inline]
    fn next_slot(&self) -> Option<(usize, u64)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let slot = self.occupied[level as usize].trailing_zeros();
        let shift = level * LEVEL_BITS;
        let above = self.current >> shift & !(SLOTS as u64 - 1);
        Some((level as usize * SLOTS + slot as usize, (above | u64::from(slot)) << shift))
    }

    fn rearm(&mut self, id: u32, tick: u64, linked: bool) {
        if linked {
            self.unlink(id as usize);
        } else {
            self.len += 1;
        }
        self.entries[id as usize].tick = tick + 1;
        self.link(id as usize);
    }

    /// The list that a tick belongs to, seen from the current one.
    #[inline]
    fn list_of(&self, tick: u64) -> usize {
        if tick <= self.current {
            return DUE;
        }
        let level = (63 - (tick ^ self.current).leading_zeros()) / LEVEL_BITS;
        let slot = tick >> (level * LEVEL_BITS) & (SLOTS as u64 - 1);
        level as usize * SLOTS + slot as usize
    }

    #[inline]
    fn first(&self, list: usize) -> usize {
        self.entries[self.capacity + list].links[NEXT] as usize
    }

    /// Appends `id` to the list of its tick.
    fn link(&mut self, id: usize) {
        let list = self.list_of(self.entries[id].tick - 1);
        let head = self.capacity + list;
        let last = self.entries[head].links[PREVIOUS];
        self.entries[id].links = [head as u32, last];
        self.entries[last as usize].links[NEXT] = id as u32;
        self.entries[head].links[PREVIOUS] = id as u32;
        if list != DUE {
            self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
            self.levels |= 1 << (list / SLOTS);
        }
    }

    fn unlink(&mut self, id: usize) {
        let [next, previous] = self.entries[id].links;
        self.entries[previous as usize].links[NEXT] = next;
        self.entries[next as usize].links[PREVIOUS] = previous;
        // Only a head is its own neighbour on both sides of the one taken out.
        if next == previous {
            self.mark_empty(next as usize);
        }
    }

    /// Moves a slot of the lowest level to the empty due list, in one piece.
    fn splice_due(&mut self, list: usize) {
        let (from, to) = (self.capacity + list, self.capacity + DUE);
        let [first, last] = self.entries[from].links;
        self.entries[to].links = [first, last];
        self.entries[first as usize].links[PREVIOUS] = to as u32;
        self.entries[last as usize].links[NEXT] = to as u32;
        self.entries[from].links = [from as u32; 2];
        self.mark_empty(from);
    }

    fn mark_empty(&mut self, head: usize) {
        let Some(list) = head.checked_sub(self.capacity).filter(|list| *list != DUE) else { return };
        self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        if self.occupied[list / SLOTS] == 0 {
            self.levels &= !(1 << (list / SLOTS));
        }
    }
}

#[inline]
fn tick_after(at: Instant) -> u64 {
    let micros = at.micros();
    let tick = micros >> TICK_SHIFT;
    (tick + u64::from(micros & ((1 << TICK_SHIFT) - 1) != 0)).min(TICK_MAX)
}

#[cfg(test)]
mod tests;
