//! The delay line: frames on the way, and the memory they lie in.

use khamsin_drivers::sim::Side;
use khamsin_stack::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bytes for a frame: a full one with two VLAN tags, rounded up.
const FRAME_MAX: usize = 2048;
/// Frames on the way at most: 50 ms of full frames both ways at 1 Gbit/s, and as many small ones.
const FRAMES: usize = 16_384;

/// A frame that lies in a [`Line`]. Not `Clone`: it is freed once.
pub(super) struct Slot {
    index: u32,
    len: u32,
}

/// A frame that is due.
pub(super) struct Flight {
    /// When it was.
    pub(super) at: Instant,
    /// Where it goes.
    pub(super) to: Side,
    /// Where it lies.
    pub(super) frame: Slot,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    at: Instant,
    // Frames that are due at the same time keep their order.
    order: u64,
    to_left: bool,
    index: u32,
    len: u32,
}

/// Frames in the order in which they are due. Nothing is allocated after it is made.
pub(super) struct Line {
    frames: Box<[[u8; FRAME_MAX]]>,
    free: Vec<u32>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    order: u64,
    /// Where the next frame is read to: always a frame of its own, so that one can be read when the line is full.
    current: u32,
}

impl Line {
    /// An empty line.
    pub(super) fn new() -> Self {
        Line {
            frames: vec![[0; FRAME_MAX]; FRAMES].into_boxed_slice(),
            free: (1..FRAMES as u32).rev().collect(),
            waiting: BinaryHeap::with_capacity(FRAMES),
            order: 0,
            current: 0,
        }
    }

    /// Where to read the next frame to; until it is pushed, the next frame again.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.frames[self.current as usize]
    }

    /// Puts the first `len` bytes of [`room`](Line::room) on the way. False: the line is full, and they are not.
    pub(super) fn push(&mut self, at: Instant, to: Side, len: usize, flipped_bit: Option<usize>) -> bool {
        let Some(next) = self.free.pop() else { return false };
        let index = std::mem::replace(&mut self.current, next);
        if let Some(byte) = flipped_bit.and_then(|bit| self.frames[index as usize][..len].get_mut(bit / 8)) {
            *byte ^= 1 << (flipped_bit.unwrap_or(0) % 8);
        }
        self.wait(at, to, index, len);
        true
    }

    /// Puts a copy of them on the way. False: the line is full.
    pub(super) fn push_copy(&mut self, at: Instant, to: Side, len: usize) -> bool {
        let Some(index) = self.free.pop() else { return false };
        self.frames.copy_within(self.current as usize..=self.current as usize, index as usize);
        self.wait(at, to, index, len);
        true
    }

    fn wait(&mut self, at: Instant, to: Side, index: u32, len: usize) {
        self.order += 1;
        let to_left = to == Side::Left;
        self.waiting.push(Reverse(Waiting { at, order: self.order, to_left, index, len: len.min(FRAME_MAX) as u32 }));
    }

    /// When the next frame is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|waiting| waiting.0.at)
    }

    /// Takes out a frame that is due at `now`; give it back with [`free`](Line::free).
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Flight> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(Waiting { at, to_left, index, len, .. }) = self.waiting.pop()?;
        let to = if to_left { Side::Left } else { Side::Right };
        Some(Flight { at, to, frame: Slot { index, len } })
    }

    /// The bytes of a frame.
    pub(super) fn bytes(&self, frame: &Slot) -> &[u8] {
        &self.frames[frame.index as usize][..frame.len as usize]
    }

    /// Ends a frame.
    pub(super) fn free(&mut self, frame: Slot) {
        self.free.push(frame.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn frames_come_out_when_they_are_due_in_order() {
        let mut line = Line::new();
        for (byte, at) in [(1, 30), (2, 20), (3, 30)] {
            line.room()[..2].fill(byte);
            assert!(line.push(us(at), Side::Left, 2, (byte == 3).then_some(8)));
        }
        line.room()[..2].fill(4);
        assert!(line.push_copy(us(25), Side::Right, 2));
        assert_eq!(line.next_due(), Some(us(20)));
        assert!(line.pop_due(us(19)).is_none());
        let mut out = Vec::new();
        while let Some(flight) = line.pop_due(us(30)) {
            out.push((line.bytes(&flight.frame).to_vec(), flight.at, flight.to));
            line.free(flight.frame);
        }
        let want =
            [([2, 2], 20, Side::Left), ([4, 4], 25, Side::Right), ([1, 1], 30, Side::Left), ([3, 2], 30, Side::Left)];
        assert_eq!(out, want.map(|(bytes, at, to)| (bytes.to_vec(), us(at), to)));
    }

    #[test]
    fn a_full_line_takes_nothing_and_recovers() {
        let mut line = Line::new();
        let mut taken = 0;
        while line.push(us(1), Side::Left, 60, None) {
            taken += 1;
        }
        assert_eq!(taken, FRAMES - 1);
        assert!(!line.push_copy(us(1), Side::Left, 60));
        let flight = line.pop_due(us(1)).unwrap();
        line.free(flight.frame);
        assert!(line.push(us(1), Side::Left, 60, None));
    }
}
