//! The memory that frames live in, and which chunk of it is whose.
//!
//! A chunk is in exactly one state: *free* (our list), *fill* (given to the kernel to receive into, until its descriptor
//! is taken from the RX ring), *stack* (a [`UmemFrame`] exists), *tx* (given to the kernel to send, until its completion is
//! reaped). [`Umem`] owns the memory and all four rings, so every change of state is one of its methods, and counts the
//! chunks in each; debug builds keep the state of every chunk and assert each change.
//!
//! A `UmemFrame` may outlive its queue: dropping the `Umem` while frames are out leaks the mapping instead of unmapping it,
//! so that a frame is never a dangling pointer. The pages go when the process does.
//!
//! This file contains `unsafe` code: frames are pointers into the shared memory.
#![allow(unsafe_code)]

use super::ring::{Consumer, Producer};
use super::socket::Mapping;
use super::supply::Supply;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use khamsin_stack::{Frame, RxChecksum};
use libc::xdp_desc;

/// Bytes that the kernel leaves free before a received frame (`XDP_PACKET_HEADROOM`).
pub(super) const RX_HEADROOM: u32 = 256;
/// Shortest frame that is handed to the device: an Ethernet header. The kernel would never complete an empty one.
const TX_LENGTH_MIN: u32 = 14;

/// The move-only right to one chunk of a queue's memory and the frame in it.
///
/// It can be neither copied nor cloned, and giving it to the queue consumes it, so using a frame twice does not compile:
///
/// ```compile_fail,E0382
/// fn twice(queue: &mut khamsin_drivers::af_xdp::XdpQueue, frame: khamsin_drivers::af_xdp::UmemFrame) {
///     use khamsin_stack::Queue;
///     queue.release(frame);
///     queue.release(frame);
/// }
/// ```
#[must_use = "a frame that is dropped without `release` or `tx` takes its chunk with it"]
pub struct UmemFrame {
    /// First byte of the frame.
    data: NonNull<u8>,
    /// Bytes of the frame; at most `capacity`.
    len: u32,
    /// Bytes from `data` to the end of the chunk.
    capacity: u32,
}

// SAFETY: the frame is the only right to its chunk: no other code of this process reads or writes those bytes while it
// exists, and the memory stays mapped (module doc). Such a right can move between threads like a `Box<[u8]>`.
unsafe impl Send for UmemFrame {}

impl Frame for UmemFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `data..data + len` lies inside one chunk (`len <= capacity` is kept by `set_len` and by `Umem`, which
        // checked both against the chunk), the memory is mapped as long as frames exist, was zeroed by mmap and so is
        // initialised, and nobody else touches the chunk: the kernel holds no descriptor of it.
        unsafe { core::slice::from_raw_parts(self.data.as_ptr(), self.len as usize) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only access.
        unsafe { core::slice::from_raw_parts_mut(self.data.as_ptr(), self.len as usize) }
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.capacity as usize
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity as usize) as u32;
    }

    /// AF_XDP carries no word about checksums: [`Caps::rx_partial_checksums`](khamsin_stack::Caps) says what to expect.
    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Unknown
    }
}

impl core::fmt::Debug for UmemFrame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "UmemFrame({} of {} bytes)", self.len, self.capacity)
    }
}

/// How many chunks are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChunkCounts {
    /// On our free list.
    pub free: u32,
    /// With the kernel for receiving: fill ring, driver, RX ring.
    pub fill: u32,
    /// With the stack, as frames.
    pub stack: u32,
    /// With the kernel for sending: TX ring, device, completion ring.
    pub tx: u32,
    /// Gone: the kernel returned a descriptor that names no chunk of ours.
    pub lost: u32,
}

#[cfg(debug_assertions)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Fill,
    Stack,
    Tx,
}

/// The four rings of one socket.
pub(super) struct Rings<M> {
    pub(super) fill: Producer<u64, M>,
    pub(super) completion: Consumer<u64, M>,
    pub(super) rx: Consumer<xdp_desc, M>,
    pub(super) tx: Producer<xdp_desc, M>,
}

/// What [`Umem::receive`] found in the RX ring.
pub(super) enum Received {
    Frame(UmemFrame),
    /// A descriptor that points outside its chunk or the memory; counted, its chunk recycled where it has one.
    Invalid,
    Empty,
}

/// The memory of one queue, its rings and the whereabouts of its chunks.
pub(super) struct Umem<M> {
    memory: ManuallyDrop<Mapping>,
    chunk_log: u32,
    pub(super) rings: Rings<M>,
    free: Vec<u32>,
    /// Chunks that the receive side is kept supplied with.
    pub(super) supply: Supply,
    counts: ChunkCounts,
    /// Descriptors from the kernel that named no frame of ours, and frames of other queues given to this one.
    pub(super) invalid: u64,
    #[cfg(debug_assertions)]
    states: Vec<State>,
}

impl<M> Umem<M> {
    /// Divides `memory` into chunks of `chunk_size` bytes, a power of two; all are free.
    ///
    /// # Safety
    /// The rings' other side is a kernel socket with which `memory` is registered in chunks of this size (or a test that
    /// plays its part): it accesses a chunk only between taking its descriptor from fill or TX ring and returning it in
    /// RX or completion ring, and returns each descriptor once.
    pub(super) unsafe fn new(memory: Mapping, chunk_size: u32, supply: Supply, rings: Rings<M>) -> Self {
        debug_assert!(chunk_size.is_power_of_two() && memory.len().is_multiple_of(chunk_size as usize));
        let chunks = (memory.len() / chunk_size as usize) as u32;
        Umem {
            memory: ManuallyDrop::new(memory),
            chunk_log: chunk_size.trailing_zeros(),
            rings,
            free: (0..chunks).rev().collect(),
            supply,
            counts: ChunkCounts::default(),
            invalid: 0,
            #[cfg(debug_assertions)]
            states: vec![State::Free; chunks as usize],
        }
    }

    /// For tests that play the kernel's part over plain memory.
    #[cfg(test)]
    fn over_memory(chunks: u32, chunk_size: u32, supply: Supply, rings: Rings<M>) -> Self {
        let memory = Mapping::anonymous((chunks * chunk_size) as usize).expect("memory for a test");
        // SAFETY: no kernel knows this memory, so that nobody but the frames touches it; tests return each descriptor
        // once, but for those that are about what happens when it comes twice, which debug builds stop.
        unsafe { Umem::new(memory, chunk_size, supply, rings) }
    }

    /// Takes sent frames back from the completion ring.
    #[inline]
    pub(super) fn reap(&mut self) {
        if self.rings.completion.available() == 0 {
            return;
        }
        while let Some(addr) = self.rings.completion.pop() {
            self.counts.tx = self.counts.tx.saturating_sub(1);
            match self.chunk(addr) {
                Some(chunk) => self.put_free(chunk),
                None => self.lose(),
            }
        }
        self.rings.completion.release();
    }

    /// Takes one received frame from those that `rings.rx.available()` told of.
    #[inline]
    pub(super) fn receive(&mut self) -> Received {
        let Some(desc) = self.rings.rx.pop() else { return Received::Empty };
        self.counts.fill = self.counts.fill.saturating_sub(1);
        let Some(chunk) = self.chunk(desc.addr) else {
            self.lose();
            return Received::Invalid;
        };
        let offset = (desc.addr & self.offset_mask()) as u32;
        let capacity = (1 << self.chunk_log) - offset;
        // `options` tells of frames in several pieces, which we never ask for.
        if desc.len > capacity || desc.options != 0 {
            self.invalid += 1;
            self.put_free(chunk);
            return Received::Invalid;
        }
        self.change(chunk, &[STATE_FILL], STATE_STACK);
        self.counts.stack += 1;
        let frame = self.frame(desc.addr as usize, desc.len, capacity);
        prefetch(frame.data);
        Received::Frame(frame)
    }

    /// A free chunk as a frame of length 0. `None` when none is left beyond what the fill ring is due.
    #[inline]
    pub(super) fn alloc(&mut self) -> Option<UmemFrame> {
        if self.free.len() as u32 <= self.supply.target().saturating_sub(self.counts.fill) {
            return None;
        }
        let chunk = self.free.pop()?;
        self.change(chunk, &[STATE_FREE], STATE_STACK);
        self.counts.stack += 1;
        Some(self.frame((chunk as usize) << self.chunk_log, 0, 1 << self.chunk_log))
    }

    /// Puts a frame on the TX ring. False, and the chunk free again, when the ring is full or the frame shorter than an
    /// Ethernet header.
    #[inline]
    pub(super) fn transmit(&mut self, frame: UmemFrame) -> bool {
        let Some(addr) = self.address(&frame) else { return false };
        let desc = xdp_desc { addr, len: frame.len, options: 0 };
        self.counts.stack -= 1;
        let chunk = (addr >> self.chunk_log) as u32;
        if frame.len < TX_LENGTH_MIN || !self.rings.tx.push(desc) {
            self.put_free(chunk);
            return false;
        }
        self.change(chunk, &[STATE_STACK], STATE_TX);
        self.counts.tx += 1;
        true
    }

    /// Takes a frame back unsent.
    #[inline]
    pub(super) fn recycle(&mut self, frame: UmemFrame) {
        if let Some(addr) = self.address(&frame) {
            self.counts.stack -= 1;
            self.put_free((addr >> self.chunk_log) as u32);
        }
    }

    /// Supplies the receive side up to its target and shows it to the kernel.
    #[inline]
    pub(super) fn refill(&mut self) {
        let due = self.supply.target().saturating_sub(self.counts.fill).min(self.free.len() as u32);
        for _ in 0..due {
            let Some(chunk) = self.free.pop() else { break };
            if !self.rings.fill.push(u64::from(chunk) << self.chunk_log) {
                self.free.push(chunk);
                break;
            }
            self.change(chunk, &[STATE_FREE], STATE_FILL);
            self.counts.fill += 1;
        }
        self.rings.fill.publish();
    }

    /// How many chunks are in which state; the sum never changes.
    pub(super) fn counts(&self) -> ChunkCounts {
        ChunkCounts { free: self.free.len() as u32, ..self.counts }
    }

    /// The chunk that a descriptor of the kernel names.
    #[inline]
    fn chunk(&self, addr: u64) -> Option<u32> {
        (addr < self.memory.len() as u64).then_some((addr >> self.chunk_log) as u32)
    }

    /// Where a frame starts, counted from the start of the memory. A frame of another queue is counted and `None`; its
    /// chunk stays out, so that the other queue keeps its memory mapped.
    #[inline]
    fn address(&mut self, frame: &UmemFrame) -> Option<u64> {
        let addr = (frame.data.as_ptr() as usize).wrapping_sub(self.memory.base().as_ptr() as usize);
        if addr < self.memory.len() {
            return Some(addr as u64);
        }
        self.invalid += 1;
        None
    }

    fn frame(&self, addr: usize, len: u32, capacity: u32) -> UmemFrame {
        debug_assert!(addr + capacity as usize <= self.memory.len() && len <= capacity);
        // SAFETY: `addr` was checked against the length of the memory by the caller, so the sum stays inside the mapping.
        UmemFrame { data: unsafe { self.memory.base().add(addr) }, len, capacity }
    }

    fn offset_mask(&self) -> u64 {
        (1 << self.chunk_log) - 1
    }

    #[inline]
    fn put_free(&mut self, chunk: u32) {
        self.change(chunk, &[STATE_FILL, STATE_STACK, STATE_TX], STATE_FREE);
        // Never grows: the list was made with room for every chunk.
        self.free.push(chunk);
    }

    #[cold]
    fn lose(&mut self) {
        self.invalid += 1;
        self.counts.lost += 1;
    }

    #[cfg(debug_assertions)]
    fn change(&mut self, chunk: u32, from: &[State], to: State) {
        let state = &mut self.states[chunk as usize];
        assert!(from.contains(state), "chunk {chunk} goes from {state:?} to {to:?}");
        *state = to;
    }

    #[cfg(not(debug_assertions))]
    #[inline(always)]
    fn change(&mut self, _: u32, _: &[State], _: State) {}
}

/// Starts loading the headers of a received frame: another core wrote them, and by the time that the last descriptor of
/// a burst is read the first frame is here.
#[inline(always)]
fn prefetch(data: NonNull<u8>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch accesses nothing, whatever the address; SSE is part of the architecture.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(data.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

#[cfg(debug_assertions)]
use State::{Fill as STATE_FILL, Free as STATE_FREE, Stack as STATE_STACK, Tx as STATE_TX};
#[cfg(not(debug_assertions))]
type State = ();
#[cfg(not(debug_assertions))]
const STATE_FREE: State = ();
#[cfg(not(debug_assertions))]
const STATE_FILL: State = ();
#[cfg(not(debug_assertions))]
const STATE_STACK: State = ();
#[cfg(not(debug_assertions))]
const STATE_TX: State = ();

impl<M> Drop for Umem<M> {
    fn drop(&mut self) {
        if self.counts.stack == 0 {
            // SAFETY: dropped once, here. No frame exists: `counts.stack` counts them all, and those given to a foreign
            // queue stay counted.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        } else {
            tracing::debug!(frames = self.counts.stack, "frames outlive their AF_XDP queue: its memory stays mapped");
        }
    }
}

#[cfg(test)]
#[path = "umem_tests.rs"]
mod tests;
