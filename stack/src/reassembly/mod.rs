//! Text that has arrived and cannot be delivered yet: it lies behind a hole, or the application has not made room.
//!
//! A [`Reassembly`] is a set of byte ranges of one stream, by stream offset, over blocks of a [`HoldPool`]. Bytes that came
//! twice are kept as they came first. Ranges are sorted and never touch, at most [`RANGES`] of them: a search is binary, an
//! insertion moves at most 4 KiB, whatever a peer sends. A connection that holds nothing has no part of the pool.

mod pool;

pub use pool::HoldPool;

use crate::limits::{HOLD_BLOCK, RX_WINDOW_MAX};
use arrayvec::ArrayVec;
use core::ops::Range;
use pool::Number;

/// Ranges that one connection may hold. An honest path makes a few dozen; past this, text behind yet another hole is
/// refused.
pub const RANGES: usize = 256;
/// Blocks that one connection may hold: the largest window, and what lies around it for rounding.
const INDEX: usize = RX_WINDOW_MAX / HOLD_BLOCK + 64;
/// Ranges remembered as the latest: as many as a SACK option names.
const RECENT: usize = 4;

/// What of one connection's stream is held; see the [module](self).
///
/// It must be [cleared](Self::clear) into its pool before it is dropped, and always be given the same pool.
#[derive(Default)]
pub struct Reassembly {
    /// Meaningful while `ranges` is not 0.
    tracker: Number,
    ranges: u16,
    blocks: u16,
}

/// What became of a piece of text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inserted {
    /// It is held up to this stream offset, exclusive; where it began if nothing is.
    pub end: u64,
    /// The first part of it that was held before.
    pub duplicate: Option<(u64, u64)>,
    /// The range that it is in now is another than that of the news before: one hole more, or less.
    pub elsewhere: bool,
    /// Why the rest is not held.
    pub refused: Option<Refused>,
}

/// Why text is not held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The pool gives this connection no more blocks.
    Memory,
    /// It would be one range more than [`RANGES`].
    Ranges,
}

impl Reassembly {
    /// Whether nothing is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges == 0
    }

    /// Blocks held.
    #[inline]
    pub fn blocks(&self) -> usize {
        usize::from(self.blocks)
    }

    /// What is held: stream offsets, start inclusive, end exclusive; sorted.
    #[inline]
    pub fn ranges<'p>(&self, pool: &'p HoldPool) -> &'p [[u64; 2]] {
        if self.is_empty() {
            return &[];
        }
        &pool.ranges(self.tracker)[..usize::from(self.ranges)]
    }

    /// Where the text that begins at stream offset `at` ends; `at` when nothing is held there.
    #[inline]
    pub fn end_of_run(&self, pool: &HoldPool, at: u64) -> u64 {
        match self.ranges(pool).first() {
            Some(&[start, end]) if start <= at && at < end => end,
            _ => at,
        }
    }

    /// Holds `bytes`, which begin at stream offset `at`. Nothing below `floor` is held or ever will be again; what lies
    /// further from it than blocks can be numbered is refused.
    pub fn insert(&mut self, pool: &mut HoldPool, floor: u64, at: u64, bytes: &[u8]) -> Inserted {
        debug_assert!(at >= floor, "below the floor");
        let limit = (floor / HOLD_BLOCK as u64 + INDEX as u64) * HOLD_BLOCK as u64;
        let end = (at + bytes.len() as u64).min(limit).max(at);
        let first = self.ranges(pool).partition_point(|range| range[1] < at);
        let touches = self.ranges(pool).get(first).is_some_and(|range| range[0] <= end);
        let nothing = |refused| Inserted { end: at, duplicate: None, elsewhere: false, refused };
        if end == at {
            return nothing((!bytes.is_empty()).then_some(Refused::Memory));
        }
        if !touches && usize::from(self.ranges) == RANGES {
            return nothing(Some(Refused::Ranges));
        }
        if self.is_empty() {
            let Some(tracker) = pool.take_tracker() else { return nothing(Some(Refused::Memory)) };
            self.tracker = tracker;
        }
        let (reached, duplicate) = self.fill(pool, first, at, end, bytes);
        let elsewhere = reached > at && self.join(pool, first, at, reached);
        if self.is_empty() {
            pool.give_tracker(self.tracker);
        }
        let short = reached < at + bytes.len() as u64;
        Inserted { end: reached, duplicate, elsewhere, refused: short.then_some(Refused::Memory) }
    }

    /// Copies what of `at..end` is not held, as far as there are blocks; returns how far everything is held then, and the
    /// first part that was before. `first` is the first range that ends at `at` or later.
    fn fill(
        &mut self,
        pool: &mut HoldPool,
        first: usize,
        at: u64,
        end: u64,
        bytes: &[u8],
    ) -> (u64, Option<(u64, u64)>) {
        let mut duplicate = None;
        let mut reached = at;
        let mut index = first;
        while reached < end {
            let [from, to] = match self.ranges(pool).get(index) {
                Some(&[from, to]) if from < end => [from.max(reached), to.min(end)],
                _ => [end, end],
            };
            let gap = &bytes[(reached - at) as usize..(from - at) as usize];
            let copied = self.copy_in(pool, reached, gap);
            reached += copied as u64;
            if copied < gap.len() {
                break;
            }
            if from < to {
                duplicate.get_or_insert((from, to));
            }
            reached = to.max(reached);
            index += 1;
        }
        (reached, duplicate)
    }

    /// Copies `bytes` to where stream offset `at` lies, and says how many there were blocks for.
    fn copy_in(&mut self, pool: &mut HoldPool, at: u64, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let at = at + done as u64;
            let inside = (at % HOLD_BLOCK as u64) as usize;
            let n = (bytes.len() - done).min(HOLD_BLOCK - inside);
            let block = match pool.block_at(self.tracker, at) {
                Some(block) => block,
                None => {
                    let Some(block) = pool.take_block(self.blocks()) else { break };
                    *pool.entry_mut(self.tracker, at) = block + 1;
                    self.blocks += 1;
                    block
                }
            };
            pool.bytes_mut(block, inside, n).copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
        done
    }

    /// Notes that `at..end` is held: one range with all that it touches, from number `first` on. Says whether that range is
    /// another than that of the news before.
    fn join(&mut self, pool: &mut HoldPool, first: usize, at: u64, end: u64) -> bool {
        let n = usize::from(self.ranges);
        let ranges = pool.ranges_mut(self.tracker);
        let last = first + ranges[first..n].iter().take_while(|range| range[0] <= end).count();
        let mut joined = [at, end];
        if last > first {
            joined = [at.min(ranges[first][0]), end.max(ranges[last - 1][1])];
            ranges.copy_within(last..n, first + 1);
        } else {
            ranges.copy_within(first..n, first + 1);
        }
        ranges[first] = joined;
        self.ranges = (n + 1 - (last - first)) as u16;
        self.remember(pool, at, joined)
    }

    /// `at`, inside `range`, is the latest news. Says whether those before it were of another range.
    fn remember(&mut self, pool: &mut HoldPool, at: u64, range: [u64; 2]) -> bool {
        let recent = pool.recent_mut(self.tracker);
        let inside = |old: u64| range[0] <= old && old < range[1];
        let elsewhere = recent[0] == 0 || !inside(recent[0]);
        let mut news = at;
        for place in recent {
            let old = core::mem::replace(place, news);
            if old == 0 || inside(old) {
                break;
            }
            news = old;
        }
        elsewhere
    }

    /// The ranges beyond stream offset `next` for a SACK option with room for `room` more (RFC 2018 4): the latest first,
    /// and when these are told, those nearest to `next`.
    pub fn sack(&self, pool: &HoldPool, next: u64, room: usize, out: &mut ArrayVec<(u64, u64), 4>) {
        let ranges = self.ranges(pool);
        if ranges.is_empty() {
            return;
        }
        let room = (out.len() + room).min(RECENT);
        let told = out.len();
        let beyond = ranges.partition_point(|range| range[0] <= next);
        let latest = pool.recent(self.tracker).iter().filter(|&&at| at != 0).filter_map(|&at| {
            let range = ranges.get(ranges.partition_point(|range| range[1] <= at))?;
            (range[0] <= at && range[0] > next).then_some(range)
        });
        for &[left, right] in latest.chain(ranges[beyond..].iter().take(2 * RECENT)) {
            if out.len() >= room {
                return;
            }
            if !out[told..].contains(&(left, right)) {
                out.push((left, right));
            }
        }
    }

    /// The bytes from stream offset `at` on that lie in one piece, at most `most`; empty where nothing is held.
    pub fn chunk_at<'p>(&self, pool: &'p HoldPool, at: u64, most: usize) -> &'p [u8] {
        let left = (self.end_of_run(pool, at) - at).min(most as u64) as usize;
        let inside = (at % HOLD_BLOCK as u64) as usize;
        match pool.block_at(self.tracker, at) {
            Some(block) if left > 0 => pool.bytes(block, inside, left.min(HOLD_BLOCK - inside)),
            _ => &[],
        }
    }

    /// Lets go of everything below stream offset `to`, which lies in the first range or at its end.
    pub fn release_to(&mut self, pool: &mut HoldPool, to: u64) {
        let Some(&[start, end]) = self.ranges(pool).first() else { return };
        if to <= start {
            return;
        }
        debug_assert!(to <= end, "beyond the first range");
        let n = usize::from(self.ranges);
        let ranges = pool.ranges_mut(self.tracker);
        if to < end {
            ranges[0][0] = to;
        } else {
            ranges.copy_within(1..n, 0);
            self.ranges -= 1;
        }
        let needed = self.ranges(pool).first().map_or(u64::MAX, |range| range[0] / HOLD_BLOCK as u64);
        let behind = (to.min(end) - 1) / HOLD_BLOCK as u64 + 1;
        self.free_blocks(pool, start / HOLD_BLOCK as u64..behind.min(needed));
    }

    /// Drops the range that is furthest from being needed, unless nothing of it lies beyond stream offset `next`; says
    /// whether it did. RFC 2018 8 allows it for what is not acknowledged.
    pub fn drop_furthest(&mut self, pool: &mut HoldPool, next: u64) -> bool {
        let Some((&[start, end], before)) = self.ranges(pool).split_last() else { return false };
        if start <= next {
            return false;
        }
        let from = before.last().map_or(0, |range| (range[1] - 1) / HOLD_BLOCK as u64 + 1);
        self.ranges -= 1;
        self.free_blocks(pool, (start / HOLD_BLOCK as u64).max(from)..(end - 1) / HOLD_BLOCK as u64 + 1);
        true
    }

    /// Lets go of everything.
    pub fn clear(&mut self, pool: &mut HoldPool) {
        while let Some(&[_, end]) = self.ranges(pool).first() {
            self.release_to(pool, end);
        }
        debug_assert_eq!(self.blocks, 0, "who holds nothing has no block");
    }

    /// Frees the blocks with these numbers of the stream, and the tracker with the last range.
    fn free_blocks(&mut self, pool: &mut HoldPool, numbers: Range<u64>) {
        for number in numbers {
            let entry = pool.entry_mut(self.tracker, number * HOLD_BLOCK as u64);
            if let Some(block) = core::mem::take(entry).checked_sub(1) {
                pool.give_block(block);
                self.blocks -= 1;
            }
        }
        if self.ranges == 0 {
            pool.give_tracker(self.tracker);
        }
    }
}

#[cfg(test)]
mod tests;
