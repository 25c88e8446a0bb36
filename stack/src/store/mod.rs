//! Bytes are kept, not frames: what a connection has accepted and its peer has not acknowledged.
//!
//! A [`Store`] is a queue of pieces in the order of the stream: runs of owned bytes in blocks of a [`BlockPool`], and
//! references into prebuilt [`Content`]. A segment, first or again, is cut from it by its stream offset, at whatever size
//! suits today. Offsets count from 0, the first byte after our SYN.
//!
//! Small writes share a block, one after the other, so that an echo of 64 bytes does not take 4 KiB; a store whose bytes
//! are all acknowledged holds no block.

mod pieces;
mod pool;

pub use pool::BlockPool;

use crate::Content;
use crate::limits::{STORE_BLOCK, STORE_MAX, STORE_PIECES};
use core::cell::Cell;
use core::ops::Range;
use pieces::Pieces;

/// A run of bytes that lie together in memory. Its length is where the next one starts, or the end of the store.
struct Piece {
    /// Stream offset of its first byte. A piece acknowledged in part keeps it.
    at: u64,
    source: Source,
}

enum Source {
    Owned { block: pool::Block, from: u16 },
    Shared { content: Content, from: usize },
}

/// The block that the next owned bytes go to.
#[derive(Clone, Copy)]
struct Open {
    block: pool::Block,
    used: u16,
}

/// Sent and unsent bytes of one connection; see the [module](self).
///
/// It must be [cleared](Self::clear) into its pool before it is dropped, and always be given the same pool.
pub struct Store {
    pieces: Pieces,
    start: u64,
    end: u64,
    open: Option<Open>,
    /// Owned bytes between `start` and `end`.
    owned: u32,
    /// Blocks held.
    held: u32,
    /// Pieces released since the last `clear`, wrapping: names pieces across releases.
    released: u32,
    /// The piece that the last read ended in, by that name: the next read mostly starts there.
    cursor: Cell<u32>,
}

impl Default for Store {
    fn default() -> Self {
        Store::new()
    }
}

impl Store {
    /// Bytes of a list of pieces: each store that keeps more than one has one.
    pub(crate) const PIECES: usize = STORE_PIECES * size_of::<Piece>();

    /// An empty store: without a list, which comes from its pool with the second piece and goes back when one is left.
    pub fn new() -> Self {
        Store {
            pieces: Pieces::default(),
            start: 0,
            end: 0,
            open: None,
            owned: 0,
            held: 0,
            released: 0,
            cursor: Cell::new(0),
        }
    }

    /// Stream offset of the first byte kept: everything below is acknowledged.
    #[inline]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Stream offset behind the last byte accepted.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes kept.
    #[inline]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether nothing is kept.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Blocks held: 0 when nothing is kept.
    #[inline]
    pub fn blocks(&self) -> usize {
        self.held as usize
    }

    /// Bytes that [`write`](Self::write) would take now, over several calls, if no other store takes blocks in between.
    pub fn room(&self, pool: &BlockPool) -> usize {
        let allowed = STORE_MAX - self.owned as usize;
        let pieces = STORE_PIECES - self.pieces.len();
        let open = self.open.map_or(0, |open| STORE_BLOCK - usize::from(open.used));
        // Writing on in the open block takes a piece only when something else was appended after the last write.
        let taken = (open > 0 && !self.continues()) as usize;
        if taken > pieces {
            return 0;
        }
        let fresh = (pieces - taken).min(pool.grant(self.blocks()));
        allowed.min(open + fresh * STORE_BLOCK)
    }

    /// Lets `fill` write into room that lies in one piece (the rest of the current block, or a fresh one) and appends as
    /// many bytes as it says it wrote; returns that. The slice is empty when there is no room now; it is never longer
    /// than a block. What stands in it before is left over from some former use.
    pub fn write(&mut self, pool: &mut BlockPool, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let Some((open, room)) = self.open_room(pool) else {
            fill(&mut []);
            return 0;
        };
        let written = fill(pool.rest_mut(open.block, usize::from(open.used), room));
        debug_assert!(written <= room, "wrote more than there was room for");
        let written = written.min(room);
        if written == 0 {
            if self.is_empty() {
                self.close(pool);
            }
            return 0;
        }
        if !self.continues() {
            pool.hold(open.block);
            self.push(pool, Source::Owned { block: open.block, from: open.used });
        }
        self.open = Some(Open { used: open.used + written as u16, ..open });
        self.end += written as u64;
        self.owned += written as u32;
        written
    }

    /// Appends `content[range]` by reference. False, and nothing appended, when the range is not inside the content or
    /// [`STORE_PIECES`] pieces wait already.
    pub fn share(&mut self, pool: &mut BlockPool, content: &Content, range: Range<usize>) -> bool {
        if range.start > range.end || range.end > content.len() {
            return false;
        }
        if range.is_empty() {
            return true;
        }
        if self.pieces.len() >= STORE_PIECES {
            return false;
        }
        self.push(pool, Source::Shared { content: content.clone(), from: range.start });
        self.end += range.len() as u64;
        true
    }

    /// Appends a piece, for which there is room.
    #[inline]
    fn push(&mut self, pool: &mut BlockPool, source: Source) {
        self.pieces.push_back(pool, Piece { at: self.end, source });
    }

    /// Copies bytes from stream offset `offset` on to `out`, as many as there are and fit; returns how many. 0 outside of
    /// what is kept. Reading on where the last read ended takes no search, anything else a binary one.
    #[inline]
    pub fn read_at(&self, pool: &BlockPool, offset: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() {
            let chunk = self.chunk_at(pool, offset + done as u64);
            if chunk.is_empty() {
                break;
            }
            let n = chunk.len().min(out.len() - done);
            out[done..done + n].copy_from_slice(&chunk[..n]);
            done += n;
        }
        done
    }

    /// The bytes from stream offset `offset` on that lie in one piece; empty outside of what is kept.
    #[inline]
    pub fn chunk_at<'a>(&'a self, pool: &'a BlockPool, offset: u64) -> &'a [u8] {
        if offset < self.start || offset >= self.end {
            return &[];
        }
        let index = self.piece_at(offset);
        self.cursor.set(self.released.wrapping_add(index as u32));
        let piece = &self.pieces[index];
        let skip = (offset - piece.at) as usize;
        let len = (self.piece_end(index) - offset) as usize;
        match &piece.source {
            Source::Owned { block, from } => pool.bytes(*block, usize::from(*from) + skip, len),
            Source::Shared { content, from } => &content.bytes()[from + skip..from + skip + len],
        }
    }

    /// Forgets everything below stream offset `offset` (at most [`end`](Self::end)): it is acknowledged.
    pub fn release_to(&mut self, pool: &mut BlockPool, offset: u64) {
        debug_assert!(offset <= self.end, "acknowledged beyond what was accepted");
        let offset = offset.min(self.end);
        while self.start < offset {
            let end = self.piece_end(0);
            let gone = end.min(offset) - self.start;
            if let Source::Owned { block, .. } = self.pieces[0].source {
                self.owned -= gone as u32;
                if end <= offset {
                    self.held -= pool.release(block) as u32;
                }
            }
            if end <= offset {
                self.pieces.pop_front(pool);
                self.released = self.released.wrapping_add(1);
            }
            self.start += gone;
        }
        if self.is_empty() {
            self.close(pool);
        } else if let Some(open) = &mut self.open
            && pool.uses(open.block) == 1
        {
            // All that was written to it is acknowledged while references still wait: it can be filled anew.
            open.used = 0;
        }
    }

    /// Empties the store for the next connection: blocks go back, references are dropped, offsets start at 0.
    pub fn clear(&mut self, pool: &mut BlockPool) {
        self.release_to(pool, self.end);
        debug_assert_eq!(self.held, 0, "an empty store holds no block");
        self.start = 0;
        self.end = 0;
        self.released = 0;
        self.cursor.set(0);
    }

    /// The block to write to and how many bytes of it; `None` without room. Takes a fresh block when the open one is full.
    fn open_room(&mut self, pool: &mut BlockPool) -> Option<(Open, usize)> {
        let allowed = STORE_MAX - self.owned as usize;
        if allowed == 0 {
            return None;
        }
        if let Some(open) = self.open {
            let left = STORE_BLOCK - usize::from(open.used);
            if left > 0 {
                let piece = self.continues() || self.pieces.len() < STORE_PIECES;
                return piece.then_some((open, left.min(allowed)));
            }
        }
        if self.pieces.len() >= STORE_PIECES || pool.grant(self.blocks()) == 0 {
            return None;
        }
        let block = pool.take()?;
        self.close(pool);
        self.held += 1;
        let open = Open { block, used: 0 };
        self.open = Some(open);
        Some((open, STORE_BLOCK.min(allowed)))
    }

    /// Stops writing to the open block.
    fn close(&mut self, pool: &mut BlockPool) {
        if let Some(open) = self.open.take() {
            self.held -= pool.release(open.block) as u32;
        }
    }

    /// Whether the last piece ends where the open block is filled to.
    #[inline]
    fn continues(&self) -> bool {
        match (self.open, self.pieces.back()) {
            (Some(open), Some(Piece { source: Source::Owned { block, .. }, .. })) => open.block == *block,
            _ => false,
        }
    }

    #[inline]
    fn piece_end(&self, index: usize) -> u64 {
        self.pieces.get(index + 1).map_or(self.end, |next| next.at)
    }

    /// Which piece holds `offset`, which is kept.
    #[inline]
    fn piece_at(&self, offset: u64) -> usize {
        let near = self.cursor.get().wrapping_sub(self.released) as usize;
        for index in [near, near.wrapping_add(1)] {
            if self.pieces.get(index).is_some_and(|piece| piece.at <= offset) && offset < self.piece_end(index) {
                return index;
            }
        }
        self.pieces.holding(offset)
    }
}

#[cfg(test)]
mod tests;
