//! An end of the wire as a stack drives it.

use super::wire::{ETHERNET_MAX, State};
use super::{Rings, Side};
use khamsin_stack::{Caps, Frame, Instant, Queue, QueueStats, RxChecksum, TxOffload};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// A frame of a [`SimQueue`].
pub struct SimFrame {
    /// As long as the frame may become.
    buffer: Vec<u8>,
    len: usize,
    transmit: bool,
}

impl Frame for SimFrame {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    fn capacity(&self) -> usize {
        self.buffer.len()
    }

    fn set_len(&mut self, len: usize) {
        self.len = len.min(self.buffer.len());
    }

    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Unknown
    }
}

/// One end of a [`Wire`](super::Wire) as a [`Queue`]. A transmitted frame's buffer is free again at the next `begin`, as with
/// a ring whose completions are reaped there, or as much later as [`Rings`] says.
pub struct SimQueue {
    state: Rc<RefCell<State>>,
    side: Side,
    /// Which of the side's queues.
    number: usize,
    rings: Rings,
    /// Buffers still to be made, and how long they are.
    unmade: usize,
    capacity: usize,
    free: Vec<Vec<u8>>,
    /// Buffers on their way out, and when they complete.
    sent: VecDeque<(Instant, Vec<u8>)>,
    /// Frames sent in this turn.
    burst: usize,
    /// Frames that the stack holds; received ones among them.
    held: usize,
    held_rx: usize,
    stats: QueueStats,
}

impl SimQueue {
    pub(super) fn new(state: Rc<RefCell<State>>, side: Side, number: usize) -> Self {
        let (frames, capacity, rings) = {
            let config = &state.borrow().config;
            (config.tx_frames, config.tx_segment_max.max(config.mtu + ETHERNET_MAX), config.rings.clone())
        };
        SimQueue {
            state,
            side,
            number,
            rings,
            unmade: frames,
            capacity,
            free: Vec::with_capacity(frames),
            sent: VecDeque::with_capacity(frames),
            burst: 0,
            held: 0,
            held_rx: 0,
            stats: QueueStats::default(),
        }
    }

    /// Frames, received or allocated, that were neither transmitted nor released. One that stays is a leak.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Buffers that are out: held by the stack, or sent and not completed.
    pub fn tx_out(&self) -> usize {
        self.held - self.held_rx + self.sent.len()
    }

    /// When the device has done with everything sent; `None`: it has.
    pub fn completes_at(&self) -> Option<Instant> {
        self.sent.back().map(|&(at, _)| at)
    }
}

impl Queue for SimQueue {
    type Frame = SimFrame;

    fn begin(&mut self) {
        self.burst = 0;
        let now = self.state.borrow().now();
        while self.sent.front().is_some_and(|&(at, _)| at <= now) {
            self.free.extend(self.sent.pop_front().map(|(_, buffer)| buffer));
        }
    }

    fn rx_burst(&mut self, burst: &mut Vec<SimFrame>, limit: usize) -> usize {
        let mut state = self.state.borrow_mut();
        let limit = limit.min(self.rings.rx_burst_max);
        for count in 0..limit {
            let Some(buffer) = state.receive(self.side, self.number) else { return count };
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += buffer.len() as u64;
            self.held += 1;
            self.held_rx += 1;
            burst.push(SimFrame { len: buffer.len(), buffer, transmit: false });
        }
        limit
    }

    fn alloc_tx(&mut self) -> Option<SimFrame> {
        let full = !self.rings.tx_full.is_empty() && self.rings.tx_full.contain(self.state.borrow().now());
        if full {
            self.stats.tx_exhausted += 1;
            return None;
        }
        let buffer = match self.free.pop() {
            Some(buffer) => buffer,
            None if self.unmade > 0 => {
                self.unmade -= 1;
                vec![0; self.capacity]
            }
            None => {
                self.stats.tx_exhausted += 1;
                return None;
            }
        };
        self.held += 1;
        Some(SimFrame { buffer, len: 0, transmit: true })
    }

    fn tx(&mut self, mut frame: SimFrame, offload: TxOffload) {
        self.held -= 1;
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += frame.len as u64;
        let mut state = self.state.borrow_mut();
        // What the device does not take at once waits in the ring.
        let waits_us = (self.burst / self.rings.tx_burst_max) as u64 * self.rings.tx_retry_us;
        self.burst += 1;
        if !state.transmit(self.side, frame.bytes_mut(), offload, waits_us) {
            self.stats.tx_errors += 1;
        }
        match frame.transmit {
            true => {
                let completes = state.now().plus_micros(waits_us + self.rings.completion_us);
                self.sent.push_back((completes, frame.buffer));
            }
            // A received frame turned around.
            false => {
                self.held_rx -= 1;
                state.recycle(frame.buffer);
            }
        }
    }

    fn release(&mut self, frame: SimFrame) {
        self.held -= 1;
        match frame.transmit {
            true => self.free.push(frame.buffer),
            false => {
                self.held_rx -= 1;
                self.state.borrow_mut().recycle(frame.buffer);
            }
        }
    }

    fn end(&mut self) {}

    /// Returns at once: whoever drives the wire decides what time it is.
    fn wait(&mut self, _: Option<Duration>) -> std::io::Result<()> {
        Ok(())
    }

    fn caps(&self) -> Caps {
        let config = &self.state.borrow().config;
        Caps {
            mac: self.side.mac(),
            mtu: config.mtu,
            rx_partial_checksums: config.rx_partial_checksums,
            tx_checksum: config.tx_checksum,
            tx_segment_max: config.tx_segment_max,
        }
    }

    fn stats(&self) -> QueueStats {
        let rx_dropped = self.state.borrow().starved(self.side, self.number);
        QueueStats { rx_dropped, rx_ring_starved: rx_dropped, ..self.stats }
    }
}
