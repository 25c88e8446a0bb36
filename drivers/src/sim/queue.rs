//! An end of the wire as a stack drives it.

use super::Side;
use super::wire::{ETHERNET_MAX, State};
use khamsin_stack::{Caps, Frame, Queue, QueueStats, RxChecksum, TxOffload};
use std::cell::RefCell;
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
/// a ring whose completions are reaped there.
pub struct SimQueue {
    state: Rc<RefCell<State>>,
    side: Side,
    /// Buffers still to be made, and how long they are.
    unmade: usize,
    capacity: usize,
    free: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    /// Frames that the stack holds.
    held: usize,
    stats: QueueStats,
}

impl SimQueue {
    pub(super) fn new(state: Rc<RefCell<State>>, side: Side) -> Self {
        let (frames, capacity) = {
            let config = &state.borrow().config;
            (config.tx_frames, config.tx_segment_max.max(config.mtu + ETHERNET_MAX))
        };
        SimQueue {
            state,
            side,
            unmade: frames,
            capacity,
            free: Vec::with_capacity(frames),
            sent: Vec::with_capacity(frames),
            held: 0,
            stats: QueueStats::default(),
        }
    }

    /// Frames, received or allocated, that were neither transmitted nor released. One that stays is a leak.
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Queue for SimQueue {
    type Frame = SimFrame;

    fn begin(&mut self) {
        self.free.append(&mut self.sent);
    }

    fn rx_burst(&mut self, burst: &mut Vec<SimFrame>, limit: usize) -> usize {
        let mut state = self.state.borrow_mut();
        for count in 0..limit {
            let Some(buffer) = state.receive(self.side) else { return count };
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += buffer.len() as u64;
            self.held += 1;
            burst.push(SimFrame { len: buffer.len(), buffer, transmit: false });
        }
        limit
    }

    fn alloc_tx(&mut self) -> Option<SimFrame> {
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
        if !state.transmit(self.side, frame.bytes_mut(), offload) {
            self.stats.tx_errors += 1;
        }
        match frame.transmit {
            true => self.sent.push(frame.buffer),
            // A received frame turned around.
            false => state.recycle(frame.buffer),
        }
    }

    fn release(&mut self, frame: SimFrame) {
        self.held -= 1;
        match frame.transmit {
            true => self.free.push(frame.buffer),
            false => self.state.borrow_mut().recycle(frame.buffer),
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
        self.stats
    }
}
