//! The memory that held text lies in, shared by the connections of one shard.

use super::{INDEX, RANGES, RECENT};
use crate::limits::HOLD_BLOCK;

/// A block's number, or a tracker's.
pub(super) type Number = u32;

const NONE: Number = u32::MAX;

/// Numbers below a bound that are handed out and come back. The one that came back last goes out first: it is the warmest,
/// and what was never needed is never touched.
struct Numbers {
    /// Of a free number: the next free one.
    links: Box<[Number]>,
    first: Number,
    /// Numbers below this have been out at some time.
    touched: Number,
    free: usize,
}

impl Numbers {
    fn new(count: usize) -> Self {
        assert!(count < NONE as usize, "numbers are 32 bits wide");
        Numbers { links: vec![0; count].into_boxed_slice(), first: NONE, touched: 0, free: count }
    }

    fn take(&mut self) -> Option<Number> {
        let number = if self.first != NONE {
            let number = self.first;
            self.first = self.links[number as usize];
            number
        } else if (self.touched as usize) < self.links.len() {
            self.touched += 1;
            self.touched - 1
        } else {
            return None;
        };
        self.free -= 1;
        Some(number)
    }

    fn give(&mut self, number: Number) {
        self.links[number as usize] = self.first;
        self.first = number;
        self.free += 1;
    }
}

/// Blocks of [`HOLD_BLOCK`] bytes, and for every connection that holds any a tracker: which ranges, in which blocks. All of
/// it is set aside at start and touched only when it is used.
///
/// A connection may hold no more blocks than are free (the dynamic threshold of Choudhury and Hahne, 1998, with a factor of
/// one): a lone one gets half of the pool, `n` greedy ones leave one part of `n + 1` for whoever comes next. Whoever is refused
/// with less than that part makes another one [give way](Self::take_want).
pub struct HoldPool {
    bytes: Box<[u8]>,
    blocks: Numbers,
    trackers: Numbers,
    ranges: Box<[[u64; 2]]>,
    /// Block numbers plus one; 0: none. All 0 in a tracker that nobody has.
    index: Box<[Number]>,
    /// Offsets inside the ranges that changed last, the latest first; 0: none.
    recent: Box<[[u64; RECENT]]>,
    /// Somebody with less than a fair part was refused.
    want: bool,
}

impl HoldPool {
    /// Bytes of a block, with the tracker that comes with it.
    pub(crate) const BYTES_EACH: usize = HOLD_BLOCK
        + 2 * size_of::<Number>()
        + RANGES * size_of::<[u64; 2]>()
        + INDEX * size_of::<Number>()
        + RECENT * size_of::<u64>();

    /// A pool of `blocks` blocks, all free.
    pub fn new(blocks: usize) -> Self {
        HoldPool {
            bytes: vec![0; blocks * HOLD_BLOCK].into_boxed_slice(),
            blocks: Numbers::new(blocks),
            // Whoever holds something holds a block: these never run out before the blocks do.
            trackers: Numbers::new(blocks),
            ranges: vec![[0; 2]; blocks * RANGES].into_boxed_slice(),
            index: vec![0; blocks * INDEX].into_boxed_slice(),
            recent: vec![[0; RECENT]; blocks].into_boxed_slice(),
            want: false,
        }
    }

    /// Free blocks.
    pub fn free(&self) -> usize {
        self.blocks.free
    }

    /// How many bytes a connection that holds `held` blocks could hold in all if it took what it may.
    pub fn share(&self, held: usize) -> usize {
        (self.free() + held) / 2 * HOLD_BLOCK
    }

    /// A block for a connection that holds `held`.
    pub(super) fn take_block(&mut self, held: usize) -> Option<Number> {
        if held < self.free() {
            return self.blocks.take();
        }
        self.want |= held < self.fair_part();
        None
    }

    /// Blocks for each of those that hold some, and for one more.
    pub fn fair_part(&self) -> usize {
        let (all, holders) = (self.blocks.links.len(), self.trackers.links.len() - self.trackers.free);
        (all / (holders + 1)).max(1)
    }

    /// Whether somebody was refused with less than a fair part since this was last asked.
    #[inline]
    pub fn take_want(&mut self) -> bool {
        core::mem::take(&mut self.want)
    }

    pub(super) fn give_block(&mut self, block: Number) {
        self.blocks.give(block);
    }

    pub(super) fn take_tracker(&mut self) -> Option<Number> {
        let tracker = self.trackers.take();
        self.want |= tracker.is_none();
        tracker
    }

    pub(super) fn give_tracker(&mut self, tracker: Number) {
        self.recent[tracker as usize] = [0; RECENT];
        self.trackers.give(tracker);
    }

    #[inline]
    pub(super) fn ranges(&self, tracker: Number) -> &[[u64; 2]] {
        &self.ranges[tracker as usize * RANGES..][..RANGES]
    }

    #[inline]
    pub(super) fn ranges_mut(&mut self, tracker: Number) -> &mut [[u64; 2]] {
        &mut self.ranges[tracker as usize * RANGES..][..RANGES]
    }

    #[inline]
    pub(super) fn recent(&self, tracker: Number) -> &[u64; RECENT] {
        &self.recent[tracker as usize]
    }

    #[inline]
    pub(super) fn recent_mut(&mut self, tracker: Number) -> &mut [u64; RECENT] {
        &mut self.recent[tracker as usize]
    }

    /// Where a tracker keeps the number of the block in which stream offset `at` lies.
    #[inline]
    pub(super) fn entry_mut(&mut self, tracker: Number, at: u64) -> &mut Number {
        let place = (at / HOLD_BLOCK as u64 % INDEX as u64) as usize;
        &mut self.index[tracker as usize * INDEX + place]
    }

    /// The block in which stream offset `at` lies, if the tracker has it.
    #[inline]
    pub(super) fn block_at(&self, tracker: Number, at: u64) -> Option<Number> {
        let place = (at / HOLD_BLOCK as u64 % INDEX as u64) as usize;
        self.index[tracker as usize * INDEX + place].checked_sub(1)
    }

    #[inline]
    pub(super) fn bytes(&self, block: Number, from: usize, len: usize) -> &[u8] {
        &self.bytes[block as usize * HOLD_BLOCK + from..][..len]
    }

    #[inline]
    pub(super) fn bytes_mut(&mut self, block: Number, from: usize, len: usize) -> &mut [u8] {
        &mut self.bytes[block as usize * HOLD_BLOCK + from..][..len]
    }
}
