//! How many new connections the XDP program lets in: the word between a worker and the program on its queue.
//!
//! Whoever cannot serve all that come must say no before it costs anything. A SYN that waits in the ring has cost a receive
//! already and keeps a segment of a connection from being received: a ring that is full of SYNs drops the acknowledgements and
//! the requests of those who were let in, and then nobody is served (receive livelock, Mogul and Ramakrishnan 1996). So the
//! worker grants its queue, once a burst, as many SYNs as there is room for in front of what waits already, and the program
//! drops those beyond, where a frame is cheapest. Nothing but SYNs is ever dropped. One at least is granted with every burst,
//! so that a server that its old connections keep busy still accepts new ones. Grants do not add up: what was granted in
//! quiet times would let in, on the day, more than the ring holds.
//!
//! This file contains `unsafe` code: the map's memory is shared with the kernel.
#![allow(unsafe_code)]

use super::bpf;
use super::socket::Mapping;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// A queue's place in the map: a cache line, which nothing else is on.
#[repr(C, align(64))]
pub(super) struct Entry {
    /// SYNs that may still pass. The program takes one away for each that does.
    granted: AtomicI32,
    /// SYNs that it has dropped.
    refused: AtomicU64,
}

/// Most that are granted at a time: far more than any ring holds, and far from where a count would wrap.
const GRANT_MAX: u32 = 1 << 24;

/// Where the program finds the parts, bytes from the start of a value.
pub(super) const GRANTED: i16 = offset_of!(Entry, granted) as i16;
pub(super) const REFUSED: i16 = offset_of!(Entry, refused) as i16;

/// The map: a value for each receive queue.
pub(super) struct Admissions {
    map: OwnedFd,
    memory: Arc<Mapping>,
    queues: u32,
}

impl Admissions {
    /// A map for so many queues, each of which lets nobody in yet.
    pub(super) fn new(queues: u32) -> Result<Self, Errno> {
        let map = bpf::shared_array(size_of::<Entry>() as u32, queues)?;
        let memory = Arc::new(Mapping::shared(map.as_fd(), size_of::<Entry>() * queues as usize, 0)?);
        Ok(Admissions { map, memory, queues })
    }

    /// The descriptor of the map, for the program.
    pub(super) fn raw_fd(&self) -> i32 {
        self.map.as_raw_fd()
    }

    /// The part of `queue`, one of those that were made.
    pub(super) fn of(&self, queue: u32) -> Admission {
        assert!(queue < self.queues, "queue {queue} of {}", self.queues);
        // SAFETY: the mapping has `queues` entries, one after the other from its first byte on.
        let entry = unsafe { self.memory.base().cast::<Entry>().add(queue as usize) };
        // SAFETY: the mapping begins at the start of a page, so that each entry is aligned; the kernel made it of zeros; and the
        // program, like everybody here, touches it by atomic operations only.
        unsafe { Admission::new(entry, self.memory.clone()) }
    }
}

/// What one queue lets in. `M` keeps the entry where it is; it is never looked at.
pub(super) struct Admission<M = Arc<Mapping>> {
    entry: NonNull<Entry>,
    /// What `granted` was when it was last looked at, or granted.
    left: i32,
    /// SYNs refused by then.
    refused: u64,
    _memory: M,
}

/// SYNs since the last look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Came {
    /// Those that were let in.
    pub(super) admitted: u32,
    /// All of them.
    pub(super) all: u32,
}

// SAFETY: an entry is made of atomics, and what keeps its memory alive must itself be allowed to move.
unsafe impl<M: Send> Send for Admission<M> {}

impl<M> Admission<M> {
    /// # Safety
    /// `entry` is aligned, initialised, and valid for as long as `memory` lives; whoever else has it uses it as shared atomics.
    unsafe fn new(entry: NonNull<Entry>, memory: M) -> Self {
        Admission { entry, left: 0, refused: 0, _memory: memory }
    }

    fn entry(&self) -> &Entry {
        // SAFETY: the contract of `new`, and `_memory` is there.
        unsafe { self.entry.as_ref() }
    }

    /// The SYNs that have come since the last look. Relaxed, as everything here: counts, which nothing else is read after.
    #[inline]
    pub(super) fn came(&mut self) -> Came {
        let left = self.entry().granted.load(Ordering::Relaxed);
        let refused = self.entry().refused.load(Ordering::Relaxed);
        let admitted = self.left.saturating_sub(left).max(0) as u32;
        let all = admitted.saturating_add((refused - self.refused).min(u64::from(u32::MAX)) as u32);
        (self.left, self.refused) = (left, refused);
        Came { admitted, all }
    }

    /// So many SYNs may pass, [those seen last](Self::came) not counted, whatever was left of the grant before.
    #[inline]
    pub(super) fn grant(&mut self, syns: u32) {
        let syns = syns.min(GRANT_MAX) as i32;
        if syns != self.left {
            self.entry().granted.fetch_add(syns - self.left, Ordering::Relaxed);
            self.left = syns;
        }
    }

    /// SYNs that were dropped so far.
    pub(super) fn refused(&self) -> u64 {
        self.entry().refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_takes_the_place_of_the_one_before() {
        let entry = Arc::new(Entry { granted: AtomicI32::new(0), refused: AtomicU64::new(0) });
        // SAFETY: the reference-counted entry lives as long as its clone in there, and is nothing but atomics.
        let mut admission = unsafe { Admission::new(NonNull::from(&*entry), entry.clone()) };
        for (syns, granted) in [(1, 1), (60, 60), (1, 1), (u32::MAX, GRANT_MAX as i32), (60, 60)] {
            admission.grant(syns);
            assert_eq!(entry.granted.load(Ordering::Relaxed), granted);
        }
        assert_eq!(admission.came(), Came { admitted: 0, all: 0 });
        entry.granted.fetch_sub(7, Ordering::Relaxed);
        entry.refused.fetch_add(3, Ordering::Relaxed);
        assert_eq!(admission.came(), Came { admitted: 7, all: 10 });
        // One that comes between the look and the grant takes its place in the new one, and is seen the next time.
        entry.granted.fetch_sub(1, Ordering::Relaxed);
        admission.grant(20);
        assert_eq!(entry.granted.load(Ordering::Relaxed), 19);
        assert_eq!(admission.came(), Came { admitted: 1, all: 1 });
        // Two cores at once can take one more than there is.
        entry.granted.store(-1, Ordering::Relaxed);
        assert_eq!(admission.came(), Came { admitted: 20, all: 20 });
        admission.grant(1);
        assert_eq!(entry.granted.load(Ordering::Relaxed), 1);
        assert_eq!(admission.refused(), 3);
    }
}
