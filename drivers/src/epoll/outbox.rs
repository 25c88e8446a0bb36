//! What a connection has accepted from its application and the kernel has not taken yet.
//!
//! The same byte store as on the bypass stack, so that `send` and `send_shared` take, refuse and cut alike on both. Here a
//! byte leaves it when the kernel has copied it, there when the peer has acknowledged it. It is therefore empty nearly
//! always, and an empty outbox holds no store: a few stores, warm in the cache, go from hand to hand.

use khamsin_stack::Content;
use khamsin_stack::store::{BlockPool, Store};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::AsFd;

/// Pieces that one system call writes at most: header, body and a good deal of pipelining.
const PIECES: usize = 32;
/// Bytes that one system call is given at most.
const WRITE_MAX: usize = 1 << 20;
/// Stores kept for the next connection that sends.
const STORES_KEPT: usize = 256;

/// Blocks and stores of one host.
pub(super) struct OutboxPool {
    blocks: BlockPool,
    // Boxed, so that an idle connection has room for a pointer only.
    #[allow(clippy::vec_box)]
    stores: Vec<Box<Store>>,
    /// Stands for every outbox without a store.
    empty: Store,
}

impl OutboxPool {
    pub(super) fn new(blocks: usize) -> Self {
        OutboxPool { blocks: BlockPool::new(blocks), stores: Vec::with_capacity(STORES_KEPT), empty: Store::new() }
    }

    pub(super) fn free_blocks(&self) -> usize {
        self.blocks.free()
    }

    fn take(&mut self) -> Box<Store> {
        self.stores.pop().unwrap_or_else(|| Box::new(Store::new()))
    }

    fn give_back(&mut self, mut store: Box<Store>) {
        store.clear(&mut self.blocks);
        if self.stores.len() < STORES_KEPT {
            self.stores.push(store);
        }
    }
}

/// Bytes on their way to the kernel.
#[derive(Default)]
pub(super) struct Outbox(Option<Box<Store>>);

impl Outbox {
    pub(super) fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |store| store.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn room(&self, pool: &OutboxPool) -> usize {
        self.0.as_deref().unwrap_or(&pool.empty).room(&pool.blocks)
    }

    pub(super) fn write(&mut self, pool: &mut OutboxPool, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let store = self.0.get_or_insert_with(|| pool.take());
        store.write(&mut pool.blocks, write)
    }

    pub(super) fn share(&mut self, pool: &mut OutboxPool, content: &Content, range: Range<usize>) -> bool {
        let store = self.0.get_or_insert_with(|| pool.take());
        store.share(&mut pool.blocks, content, range)
    }

    /// Gives the store and all that is in it back.
    pub(super) fn clear(&mut self, pool: &mut OutboxPool) {
        if let Some(store) = self.0.take() {
            pool.give_back(store);
        }
    }

    /// Writes once. Returns the bytes that the kernel took and whether it took all it was given.
    pub(super) fn write_to(&mut self, pool: &mut OutboxPool, fd: impl AsFd) -> Result<(usize, bool), Errno> {
        let Some(store) = &mut self.0 else { return Ok((0, true)) };
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let (mut count, mut given) = (0, 0);
        while count < PIECES && given < WRITE_MAX && (given as u64) < store.len() {
            let piece = store.chunk_at(&pool.blocks, store.start() + given as u64);
            let piece = &piece[..piece.len().min(WRITE_MAX - given)];
            pieces[count] = IoSlice::new(piece);
            count += 1;
            given += piece.len();
        }
        let taken = match &pieces[..count] {
            [] => 0,
            [only] => send(fd, only, SendFlags::NOSIGNAL)?,
            several => sendmsg(fd, several, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?,
        };
        store.release_to(&mut pool.blocks, store.start() + taken as u64);
        if store.is_empty() {
            self.clear(pool);
        }
        Ok((taken, taken == given))
    }
}
