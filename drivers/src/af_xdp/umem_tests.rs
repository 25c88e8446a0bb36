//! Chunks and frames with a test in the kernel's part: no socket, plain memory.

use super::*;
use crate::af_xdp::ring::memory::{Kept as Keep, ring};
use proptest::prelude::*;

/// The kernel's halves of the four rings.
struct Kernel {
    fill: Consumer<u64, Keep>,
    completion: Producer<u64, Keep>,
    rx: Producer<xdp_desc, Keep>,
    tx: Consumer<xdp_desc, Keep>,
}

const CHUNK: u32 = 2048;
const NOTHING: xdp_desc = xdp_desc { addr: 0, len: 0, options: 0 };

/// Rings start shortly before their indices wrap.
const START: u32 = u32::MAX - 5;

fn umem(chunks: u32, fill_target: u32, size: u32) -> (Umem<Keep>, Kernel) {
    let (fill, kernel_fill, _) = ring(size, 0u64, START, 0);
    let (kernel_completion, completion, _) = ring(size, 0u64, START, 0);
    let (kernel_rx, rx, _) = ring(size, NOTHING, START, 0);
    let (tx, kernel_tx, _) = ring(size, NOTHING, START, 0);
    let kernel = Kernel { fill: kernel_fill, completion: kernel_completion, rx: kernel_rx, tx: kernel_tx };
    (
        Umem::over_memory(chunks, CHUNK, Supply::fixed(fill_target.min(chunks)), Rings { fill, completion, rx, tx }),
        kernel,
    )
}

impl Kernel {
    /// Receives one frame of `len` bytes into a chunk of the fill ring; false when there is none.
    fn receive(&mut self, len: u32) -> bool {
        self.fill.available();
        let Some(addr) = self.fill.pop() else { return false };
        self.fill.release();
        assert!(self.rx.push(xdp_desc { addr: addr + u64::from(RX_HEADROOM), len, options: 0 }));
        self.rx.publish();
        true
    }

    /// Sends and completes everything on the TX ring.
    fn send(&mut self) -> Vec<xdp_desc> {
        self.tx.available();
        let sent: Vec<_> = core::iter::from_fn(|| self.tx.pop()).collect();
        self.tx.release();
        for desc in &sent {
            assert!(self.completion.push(desc.addr / u64::from(CHUNK) * u64::from(CHUNK)));
        }
        self.completion.publish();
        sent
    }

    /// Puts any descriptor on the RX ring.
    fn forge(&mut self, addr: u64, len: u32, options: u32) {
        assert!(self.rx.push(xdp_desc { addr, len, options }));
        self.rx.publish();
    }
}

fn one(umem: &mut Umem<Keep>) -> Received {
    umem.rings.rx.available();
    let received = umem.receive();
    umem.rings.rx.release();
    received
}

fn frame(umem: &mut Umem<Keep>) -> UmemFrame {
    match one(umem) {
        Received::Frame(frame) => frame,
        _ => panic!("a frame is there"),
    }
}

fn total(counts: ChunkCounts) -> u32 {
    counts.free + counts.fill + counts.stack + counts.tx + counts.lost
}

#[test]
fn a_frame_travels_from_fill_to_completion() {
    let (mut umem, mut kernel) = umem(16, 4, 8);
    umem.refill();
    assert_eq!(umem.counts(), ChunkCounts { free: 12, fill: 4, ..Default::default() });
    assert!(kernel.receive(60));
    let mut received = frame(&mut umem);
    assert_eq!((received.bytes().len(), received.capacity()), (60, 1792));
    received.bytes_mut()[59] = 7;
    received.set_len(61);
    assert!(umem.transmit(received));
    umem.rings.tx.publish();
    assert_eq!(umem.counts(), ChunkCounts { free: 12, fill: 3, tx: 1, ..Default::default() });
    let sent = kernel.send();
    assert_eq!((sent.len(), sent[0].len, sent[0].addr % u64::from(CHUNK)), (1, 61, u64::from(RX_HEADROOM)));
    umem.reap();
    umem.refill();
    assert_eq!(umem.counts(), ChunkCounts { free: 12, fill: 4, ..Default::default() });
}

#[test]
fn length_is_cut_to_the_chunk() {
    let (mut umem, _kernel) = umem(8, 2, 8);
    let mut frame = umem.alloc().unwrap();
    assert_eq!(frame.bytes().len(), 0);
    frame.set_len(usize::MAX);
    assert_eq!((frame.bytes().len(), frame.capacity()), (2048, 2048));
    frame.bytes_mut().fill(1);
    umem.recycle(frame);
}

#[test]
fn sending_never_takes_what_the_fill_ring_is_due() {
    let (mut umem, mut kernel) = umem(16, 8, 16);
    umem.refill();
    let mut out: Vec<_> = core::iter::from_fn(|| umem.alloc()).collect();
    assert_eq!(out.len(), 8, "half of the chunks are for receiving");
    for _ in 0..8 {
        assert!(kernel.receive(64));
    }
    let received: Vec<_> = (0..8).map(|_| frame(&mut umem)).collect();
    assert!(umem.alloc().is_none());
    received.into_iter().for_each(|f| umem.recycle(f));
    assert!(umem.alloc().is_none(), "eight are free and eight are due");
    umem.recycle(out.pop().unwrap());
    out.push(umem.alloc().expect("one more than due"));
    umem.refill();
    assert_eq!(umem.counts().fill, 8);
    out.into_iter().for_each(|f| umem.recycle(f));
    assert_eq!(umem.counts().stack, 0);
}

#[test]
fn what_cannot_be_sent_is_free_again() {
    let (mut umem, _kernel) = umem(16, 2, 2);
    let with = |umem: &mut Umem<Keep>, len| {
        let mut frame = umem.alloc().unwrap();
        frame.set_len(len);
        umem.transmit(frame)
    };
    assert!(!with(&mut umem, 0) && !with(&mut umem, 13), "shorter than an Ethernet header");
    assert!(with(&mut umem, 14) && with(&mut umem, 1514));
    assert!(!with(&mut umem, 60), "the ring holds two");
    assert_eq!(umem.counts(), ChunkCounts { free: 14, tx: 2, ..Default::default() });
}

#[test]
fn descriptors_outside_the_memory_are_counted_and_never_become_frames() {
    let (mut umem, mut kernel) = umem(4, 4, 8);
    umem.refill();
    kernel.forge(4 * 2048, 60, 0);
    kernel.forge(u64::MAX, 60, 0);
    assert!(matches!(one(&mut umem), Received::Invalid));
    assert!(matches!(one(&mut umem), Received::Invalid));
    assert_eq!((umem.invalid, umem.counts().lost), (2, 2));
    assert!(matches!(one(&mut umem), Received::Empty));
}

#[test]
fn descriptors_across_a_chunk_or_in_pieces_are_counted_and_recycled() {
    let (mut umem, mut kernel) = umem(4, 4, 8);
    umem.refill();
    kernel.forge(256, 1793, 0);
    kernel.forge(2048 + 256, u32::MAX, 0);
    kernel.forge(4096 + 256, 60, 1);
    for _ in 0..3 {
        assert!(matches!(one(&mut umem), Received::Invalid));
    }
    assert_eq!(umem.invalid, 3);
    assert_eq!(umem.counts(), ChunkCounts { free: 3, fill: 1, ..Default::default() });
}

#[test]
fn completions_outside_the_memory_are_counted() {
    let (mut umem, mut kernel) = umem(4, 1, 8);
    let mut frame = umem.alloc().unwrap();
    frame.set_len(60);
    assert!(umem.transmit(frame));
    assert!(kernel.completion.push(1 << 40));
    kernel.completion.publish();
    umem.reap();
    assert_eq!((umem.invalid, umem.counts()), (1, ChunkCounts { free: 3, lost: 1, ..Default::default() }));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "goes from Stack to Stack")]
fn debug_builds_notice_a_descriptor_that_comes_twice() {
    let (mut umem, mut kernel) = umem(4, 4, 8);
    umem.refill();
    assert!(kernel.receive(60));
    let first = frame(&mut umem);
    kernel.forge(first.data.as_ptr() as u64 - umem.memory.base().as_ptr() as u64, 60, 0);
    let _second = frame(&mut umem);
}

#[test]
fn a_frame_of_another_queue_is_refused() {
    let (mut ours, _k) = umem(4, 1, 8);
    let (mut other, _l) = umem(4, 1, 8);
    let mut stranger = other.alloc().unwrap();
    stranger.set_len(60);
    assert!(!ours.transmit(stranger));
    ours.recycle(other.alloc().unwrap());
    assert_eq!((ours.invalid, ours.counts().free, other.counts().stack), (2, 4, 2));
}

#[test]
fn a_frame_may_outlive_its_queue() {
    let (mut umem, mut kernel) = umem(4, 4, 8);
    umem.refill();
    assert!(kernel.receive(60));
    let mut frame = frame(&mut umem);
    drop(umem);
    frame.bytes_mut().fill(3);
    assert_eq!(frame.bytes(), [3; 60]);
}

proptest! {
    /// Any order of events: every chunk is in one place, and all come home.
    #[test]
    fn chunks_are_conserved(events in proptest::collection::vec((0..7u8, any::<u8>()), 1..400)) {
        let (mut umem, mut kernel) = umem(32, 8, 8);
        let mut held: Vec<UmemFrame> = Vec::new();
        for (event, n) in events {
            match event {
                0 => umem.refill(),
                1 => { for _ in 0..n % 9 { if !kernel.receive(60 + u32::from(n)) { break } } }
                2 => { for _ in 0..umem.rings.rx.available().min(u32::from(n % 9)) {
                    if let Received::Frame(f) = umem.receive() { held.push(f) }
                } umem.rings.rx.release() }
                3 => held.extend(umem.alloc()),
                4 => if let Some(mut f) = held.pop() { f.set_len(usize::from(n)); umem.transmit(f); umem.rings.tx.publish() },
                5 => if !held.is_empty() { umem.recycle(held.swap_remove(usize::from(n) % held.len())) },
                _ => { kernel.send(); umem.reap() }
            }
            prop_assert_eq!(total(umem.counts()), 32);
            prop_assert_eq!(umem.counts().stack as usize, held.len());
        }
        held.drain(..).for_each(|f| umem.recycle(f));
        kernel.send();
        umem.reap();
        while kernel.receive(60) {}
        while let Received::Frame(f) = one(&mut umem) { umem.recycle(f) }
        prop_assert_eq!(umem.counts(), ChunkCounts { free: 32, ..Default::default() });
        prop_assert_eq!(umem.invalid, 0);
    }
}
