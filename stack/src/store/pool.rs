//! The blocks that owned bytes lie in, shared by the connections of one shard.

use super::Piece;
use crate::limits::{STORE_BLOCK, STORE_PIECES};
use std::collections::VecDeque;

/// A block's number; which store holds it, and how much of it, is the store's knowledge.
pub(super) type Block = u32;

const NONE: Block = u32::MAX;

/// Lists kept for the stores to come: more are in use only while more connections have something unacknowledged.
const LISTS_KEPT: usize = 4096;

/// Blocks of [`STORE_BLOCK`] bytes in one allocation. Memory is touched as blocks are first used, and the block given back
/// last (the warmest in the cache) is the first to be given out.
///
/// Half of them are kept for the first block of each store: with two blocks for each store there is one for everybody,
/// whatever slow readers hold.
pub struct BlockPool {
    bytes: Box<[u8]>,
    /// Of a block in use: how many pieces lie in it, one more while it is open for writing. Of a free one: the next free.
    links: Box<[u32]>,
    first_free: Block,
    /// Blocks below this have been in use at some time.
    pub(super) touched: u32,
    free: usize,
    /// Empty lists of pieces.
    lists: Vec<VecDeque<Piece>>,
}

impl BlockPool {
    /// A pool of `blocks` blocks, all free.
    pub fn new(blocks: usize) -> Self {
        assert!(blocks < NONE as usize, "block numbers are 32 bits wide");
        BlockPool {
            bytes: vec![0; blocks * STORE_BLOCK].into_boxed_slice(),
            links: vec![0; blocks].into_boxed_slice(),
            first_free: NONE,
            touched: 0,
            free: blocks,
            lists: Vec::with_capacity(LISTS_KEPT),
        }
    }

    /// Blocks in all.
    pub fn blocks(&self) -> usize {
        self.links.len()
    }

    /// Free blocks.
    pub fn free(&self) -> usize {
        self.free
    }

    /// How many blocks a store that holds `held` may still take.
    #[inline]
    pub(super) fn grant(&self, held: usize) -> usize {
        let kept = self.links.len() / 2;
        self.free.saturating_sub(kept).max((held == 0 && self.free > 0) as usize)
    }

    /// An empty list with room for [`STORE_PIECES`] pieces: the one that came back last, or else a new one.
    #[inline]
    pub(super) fn take_list(&mut self) -> VecDeque<Piece> {
        self.lists.pop().unwrap_or_else(|| VecDeque::with_capacity(STORE_PIECES))
    }

    /// Takes a list back that is empty.
    #[inline]
    pub(super) fn give_list(&mut self, mut list: VecDeque<Piece>) {
        if list.capacity() > 0 && self.lists.len() < LISTS_KEPT {
            // Back to its front, where it is warm.
            list.clear();
            self.lists.push(list);
        }
    }

    /// Takes a block, with one use counted.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Block> {
        let block = if self.first_free != NONE {
            let block = self.first_free;
            self.first_free = self.links[block as usize];
            block
        } else if (self.touched as usize) < self.links.len() {
            self.touched += 1;
            self.touched - 1
        } else {
            return None;
        };
        self.free -= 1;
        self.links[block as usize] = 1;
        Some(block)
    }

    /// Counts one more use of a block.
    #[inline]
    pub(super) fn hold(&mut self, block: Block) {
        self.links[block as usize] += 1;
    }

    /// Counts one use less; the last one frees the block. True when it did.
    #[inline]
    pub(super) fn release(&mut self, block: Block) -> bool {
        let uses = &mut self.links[block as usize];
        debug_assert!(*uses > 0, "a block given back twice");
        *uses -= 1;
        if *uses > 0 {
            return false;
        }
        *uses = self.first_free;
        self.first_free = block;
        self.free += 1;
        true
    }

    /// How many uses of a block are counted.
    #[inline]
    pub(super) fn uses(&self, block: Block) -> u32 {
        self.links[block as usize]
    }

    #[inline]
    pub(super) fn bytes(&self, block: Block, from: usize, len: usize) -> &[u8] {
        let at = block as usize * STORE_BLOCK + from;
        &self.bytes[at..at + len]
    }

    #[inline]
    pub(super) fn rest_mut(&mut self, block: Block, from: usize, len: usize) -> &mut [u8] {
        let at = block as usize * STORE_BLOCK + from;
        &mut self.bytes[at..at + len]
    }
}
