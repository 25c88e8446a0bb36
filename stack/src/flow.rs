//! Which connection a segment belongs to: an open-addressed table of 8-byte slots.
//!
//! A slot holds 32 bits of the hash (the tag) and a 32-bit value (whatever the shard calls its connections by). The keys
//! themselves stay where the connections are, so that eight slots share a cache line and a miss seldom touches anything
//! else. Linear probing from the home slot; a removal shifts later entries back instead of leaving a tombstone, so a
//! table that has seen a billion connections probes like a fresh one.
//!
//! The hash is keyed by 128 random bits for each shard: whoever chooses addresses and ports without knowing the key
//! cannot choose where they land. It is no message authentication code; its values must never leave the machine.

use crate::FlowKey;
use core::ops::Range;

/// The table holds as many flows as it was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("wanted to remember one more flow, but the flow table is full; raise --connections")]
pub struct Full;

/// Flows by their hash; see the [module](self).
///
/// One slot is `tag << 32 | value`. The lowest bit of a tag is always set, so an occupied slot is never 0 and fresh memory
/// is an empty table. The home slot is the tag's highest bits: it can be told from the slot alone, which is all that a
/// removal needs to know of the entries behind it.
pub struct FlowTable {
    slots: Box<[u64]>,
    len: usize,
    key: [u64; 4],
}

/// Slots of a table for `capacity` flows: twice as many, whatever power of two lies near.
fn slots_for(capacity: usize) -> usize {
    capacity.clamp(4, CAPACITY_MAX) * 2
}

/// Bytes of a table for `capacity` flows.
pub fn bytes_for(capacity: usize) -> usize {
    slots_for(capacity) * size_of::<u64>()
}

/// Flows that one table can be made for at most.
pub const CAPACITY_MAX: usize = 1 << 29;

impl FlowTable {
    /// A table for at least `capacity` flows (clamped to 4..=[`CAPACITY_MAX`]), never more than half full. `key` is the
    /// secret of the hash: random, and another one for every shard.
    pub fn new(capacity: usize, key: [u64; 2]) -> Self {
        let slots = slots_for(capacity);
        // Two more words from the two given; odd constants of wyhash's kind (half of the bits set).
        let more =
            [fold(key[0] ^ 0xa076_1d64_78bd_642f, key[1] ^ 0xe703_7ed1_a0b4_28db), key[0].rotate_left(32) ^ key[1]];
        FlowTable {
            slots: vec![0; slots].into_boxed_slice(),
            len: 0,
            key: [key[0], key[1], more[0], more[1] ^ 0x8ebc_6af0_9c88_c6e3],
        }
    }

    /// Where its slots lie.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.slots.as_ptr() as usize;
        start..start + size_of_val::<[u64]>(&self.slots)
    }

    /// Flows that fit.
    pub fn capacity(&self) -> usize {
        self.slots.len() / 2
    }

    /// Flows in the table.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The keyed hash of a flow: three multiplications for the 36 bytes and one to finish.
    #[inline]
    pub fn hash(&self, flow: &FlowKey) -> u64 {
        let [k0, k1, k2, k3] = self.key;
        let (p0, p1) = halves(&flow.peer);
        let (l0, l1) = halves(&flow.local);
        let ports = u64::from(flow.peer_port) << 16 | u64::from(flow.local_port);
        let peer = fold(p0 ^ k0, p1 ^ k1);
        let local = fold(l0 ^ k2, l1 ^ k3);
        let both = fold(peer ^ ports ^ k2, local ^ k0);
        fold(both ^ k1, 0x9e37_79b9_7f4a_7c15)
    }

    /// Asks for the cache line in which [`find`](Self::find) will look first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        crate::prefetch::line(core::ptr::from_ref(&self.slots[self.home(tag(hash))]) as usize);
    }

    /// The value stored under `hash` for which `same` says that it is the flow looked for. `same` is asked only about
    /// values whose 31 tag bits agree.
    // Once for each segment; the compiler would call it where two callers share a closure.
    #[inline(always)]
    pub fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut at = self.home(tag);
        // At most half of the slots are taken: an empty one ends every probe.
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == tag && same(slot as u32) {
                return Some(slot as u32);
            }
            at = self.after(at);
        }
    }

    /// Remembers `value` under `hash`. The caller has made sure, by [`find`](Self::find), that its flow is not there yet.
    ///
    /// # Errors
    /// [`Full`] when [`capacity`](Self::capacity) flows are in.
    #[inline]
    pub fn insert(&mut self, hash: u64, value: u32) -> Result<(), Full> {
        if self.len == self.capacity() {
            return Err(Full);
        }
        let tag = tag(hash);
        let mut at = self.home(tag);
        while self.slots[at] != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot(tag, value);
        self.len += 1;
        Ok(())
    }

    /// Forgets `value` under `hash`; says whether it was there.
    pub fn remove(&mut self, hash: u64, value: u32) -> bool {
        let Some(mut hole) = self.position(hash, value) else { return false };
        let mut at = hole;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            // An entry may move back into the hole unless its home lies behind the hole: then a probe from there would
            // never come past the hole. Distances count around the end of the table.
            let home = self.home((slot >> 32) as u32);
            if self.distance(home, at) >= self.distance(hole, at) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = 0;
        self.len -= 1;
        true
    }

    /// Puts `new` in the place of `old` under `hash`; says whether `old` was there.
    pub fn replace(&mut self, hash: u64, old: u32, new: u32) -> bool {
        let Some(at) = self.position(hash, old) else { return false };
        self.slots[at] = slot(tag(hash), new);
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.fill(0);
        self.len = 0;
    }

    fn position(&self, hash: u64, value: u32) -> Option<usize> {
        let wanted = slot(tag(hash), value);
        let mut at = self.home(tag(hash));
        while self.slots[at] != 0 {
            if self.slots[at] == wanted {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        // The tag as a fraction of the table: its highest bits decide, for any number of slots.
        ((u64::from(tag) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Steps forward from one slot to another.
    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

#[inline]
fn slot(tag: u32, value: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(value)
}

/// The two halves of the 128-bit product, folded: every bit of either factor reaches every bit of the result.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn halves(address: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*address);
    (both as u64, (both >> 64) as u64)
}

#[cfg(test)]
mod tests;
