//! The single-producer single-consumer rings that a program shares with the kernel, as two halves over plain pointers.
//!
//! Each half keeps its own index in private and a cached bound of the other side's, so that a burst costs one acquire
//! load and one release store however long it is. Indices are free-running `u32`s and wrap; positions are `index & mask`.
//! The layout follows `struct xdp_ring` in the kernel's net/xdp/xsk_queue.h. Nothing here needs a kernel: the tests build
//! both halves over memory of their own.
//!
//! This file contains `unsafe` code: ring entries are reached through pointers into memory shared with the kernel.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

/// `XDP_RING_NEED_WAKEUP` of linux/if_xdp.h.
const NEED_WAKEUP: u32 = 1;

/// Where the parts of one ring lie.
pub(super) struct Parts<T> {
    /// The producer's index.
    pub(super) producer: NonNull<AtomicU32>,
    /// The consumer's index.
    pub(super) consumer: NonNull<AtomicU32>,
    /// Flags that the kernel sets (fill and transmit rings only).
    pub(super) flags: NonNull<AtomicU32>,
    /// The first of `size` entries.
    pub(super) entries: NonNull<T>,
    /// Number of entries, a power of two.
    pub(super) size: u32,
}

/// The half that writes entries: fill and transmit rings.
///
/// `M` keeps the ring's memory alive; it is never looked at.
pub(super) struct Producer<T, M> {
    parts: Parts<T>,
    /// Index of the next entry to write; entries before it but not yet published are invisible to the other side.
    next: u32,
    /// `next` may go up to here: the consumer's index when last looked at, plus the size.
    limit: u32,
    /// The index that was last published.
    published: u32,
    _memory: M,
}

/// The half that reads entries: receive and completion rings.
pub(super) struct Consumer<T, M> {
    parts: Parts<T>,
    /// Index of the next entry to read.
    next: u32,
    /// The producer's index when last looked at.
    limit: u32,
    _memory: M,
}

// SAFETY: a half is the only user of its side of the ring (contract of `new`) and holds no thread-bound state; the
// atomics are made for sharing. What keeps the memory alive must itself be allowed to move.
unsafe impl<T: Copy + Send, M: Send> Send for Producer<T, M> {}
// SAFETY: as above.
unsafe impl<T: Copy + Send, M: Send> Send for Consumer<T, M> {}

impl<T: Copy, M> Producer<T, M> {
    /// The producing half of the ring at `parts`.
    ///
    /// # Safety
    /// - all pointers of `parts` are aligned and valid, `entries` for `size` values, for as long as `memory` lives;
    /// - `size` is a power of two;
    /// - nobody else writes the producer index or the entries between the two indices while this value lives.
    pub(super) unsafe fn new(parts: Parts<T>, memory: M) -> Self {
        debug_assert!(parts.size.is_power_of_two());
        // SAFETY: both indices are valid by the contract of this function.
        let (next, consumer) = unsafe {
            (parts.producer.as_ref().load(Ordering::Relaxed), parts.consumer.as_ref().load(Ordering::Acquire))
        };
        Producer { limit: consumer.wrapping_add(parts.size), next, published: next, parts, _memory: memory }
    }

    /// How many entries can be written now. Looks at the consumer's index only when fewer than `want` are known of.
    #[inline]
    pub(super) fn room(&mut self, want: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.next);
        if known >= want {
            return known;
        }
        // A consumer that claims to be ahead of us would make the difference huge: never more than the ring holds.
        let room = self.consumer().wrapping_add(self.parts.size).wrapping_sub(self.next).min(self.parts.size);
        self.limit = self.next.wrapping_add(room);
        room
    }

    /// Writes `entry`, to be seen by the consumer after the next [`publish`](Self::publish). False, and nothing
    /// written, when the ring is full.
    #[inline]
    #[must_use]
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.next == self.limit && self.room(1) == 0 {
            return false;
        }
        let position = (self.next & (self.parts.size - 1)) as usize;
        // SAFETY: `position` is below `size` because of the mask, so the entry lies inside the ring (contract of `new`).
        // It is ours to write: `next` has not reached `limit`, hence the consumer is done with the entry that was there
        // before (the acquire load in `consumer` orders its reads before this write), and it reads none past the
        // published index.
        unsafe { self.parts.entries.add(position).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows all entries written so far to the consumer.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.published != self.next {
            // SAFETY: valid by the contract of `new`.
            unsafe { self.parts.producer.as_ref().store(self.next, Ordering::Release) };
            self.published = self.next;
        }
    }

    /// Published entries that the consumer has not taken yet.
    #[inline]
    pub(super) fn backlog(&self) -> u32 {
        self.published.wrapping_sub(self.consumer())
    }

    /// Whether the kernel asks to be woken for this ring.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        // SAFETY: valid by the contract of `new`. Relaxed: the flag is a hint; the indices carry the ordering.
        unsafe { self.parts.flags.as_ref().load(Ordering::Relaxed) & NEED_WAKEUP != 0 }
    }

    fn consumer(&self) -> u32 {
        // SAFETY: valid by the contract of `new`. Acquire: what the consumer read before it moved its index has been
        // read before we overwrite it.
        unsafe { self.parts.consumer.as_ref().load(Ordering::Acquire) }
    }
}

impl<T: Copy, M> Consumer<T, M> {
    /// The consuming half of the ring at `parts`.
    ///
    /// # Safety
    /// - all pointers of `parts` are aligned and valid, `entries` for `size` values, for as long as `memory` lives;
    /// - `size` is a power of two, and every bit pattern is a valid `T`;
    /// - nobody else writes the consumer index while this value lives.
    pub(super) unsafe fn new(parts: Parts<T>, memory: M) -> Self {
        debug_assert!(parts.size.is_power_of_two());
        // SAFETY: valid by the contract of this function.
        let next = unsafe { parts.consumer.as_ref().load(Ordering::Relaxed) };
        Consumer { limit: next, next, parts, _memory: memory }
    }

    /// How many entries can be read now. Looks at the producer's index only when none is known of.
    #[inline]
    pub(super) fn available(&mut self) -> u32 {
        let known = self.limit.wrapping_sub(self.next);
        if known != 0 {
            return known;
        }
        // SAFETY: valid by the contract of `new`. Acquire: the entries before this index are visible once it is.
        let producer = unsafe { self.parts.producer.as_ref().load(Ordering::Acquire) };
        // A producer that claims more than the ring holds is not believed.
        let available = producer.wrapping_sub(self.next).min(self.parts.size);
        self.limit = self.next.wrapping_add(available);
        available
    }

    /// Reads one entry of those that [`available`](Self::available) told of. The slot stays taken until
    /// [`release`](Self::release).
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.limit {
            return None;
        }
        let position = (self.next & (self.parts.size - 1)) as usize;
        // SAFETY: `position` is below `size` because of the mask, so the entry lies inside the ring. The producer wrote
        // it before it moved its index beyond it (acquire load in `available`) and does not touch it again before
        // `release`. Every bit pattern is a `T` (contract of `new`).
        let entry = unsafe { self.parts.entries.add(position).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of all entries read so far back to the producer.
    #[inline]
    pub(super) fn release(&mut self) {
        // SAFETY: valid by the contract of `new`. Release: our reads of the entries come before the producer's writes.
        unsafe { self.parts.consumer.as_ref().store(self.next, Ordering::Release) };
    }
}

/// Rings over plain memory, for tests: both halves, and the memory itself.
#[cfg(test)]
pub(super) mod memory {
    use super::{AtomicU32, Consumer, NonNull, Parts, Producer};
    use core::any::Any;
    use core::cell::UnsafeCell;
    use std::sync::Arc;

    pub(in super::super) struct Memory<T> {
        pub(in super::super) producer: AtomicU32,
        pub(in super::super) consumer: AtomicU32,
        pub(in super::super) flags: AtomicU32,
        entries: Box<[UnsafeCell<T>]>,
    }

    // SAFETY: the entries are reached through the two halves alone, which synchronise through the indices.
    unsafe impl<T: Send> Sync for Memory<T> {}

    /// Keeps the memory of a ring of any type alive.
    pub(in super::super) type Kept = Arc<dyn Any + Send + Sync>;
    pub(in super::super) type Halves<T> = (Producer<T, Kept>, Consumer<T, Kept>, Arc<Memory<T>>);

    impl<T: Copy> Memory<T> {
        fn parts(&self) -> Parts<T> {
            Parts {
                producer: NonNull::from(&self.producer),
                consumer: NonNull::from(&self.consumer),
                flags: NonNull::from(&self.flags),
                entries: NonNull::new(UnsafeCell::raw_get(self.entries.as_ptr())).unwrap(),
                size: self.entries.len() as u32,
            }
        }
    }

    /// A ring of `size` entries, each `zero`, whose indices start at `start`, with `ahead` entries already produced.
    pub(in super::super) fn ring<T>(size: u32, zero: T, start: u32, ahead: u32) -> Halves<T>
    where
        T: Copy + Send + 'static,
    {
        let memory = Arc::new(Memory {
            producer: AtomicU32::new(start.wrapping_add(ahead)),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            entries: (0..size).map(|_| UnsafeCell::new(zero)).collect(),
        });
        // SAFETY: the pointers are into `memory`, which each half keeps alive; each half is made once.
        let producer = unsafe { Producer::new(memory.parts(), memory.clone() as Kept) };
        // SAFETY: as above; the types that tests use take every bit pattern.
        let consumer = unsafe { Consumer::new(memory.parts(), memory.clone() as Kept) };
        (producer, consumer, memory)
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
