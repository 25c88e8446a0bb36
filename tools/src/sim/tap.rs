//! A queue that shows its frames to the witness.

use super::witness::Witness;
use core::time::Duration;
use khamsin_drivers::sim::{SimFrame, SimQueue};
use khamsin_stack::{Caps, Frame, Instant, Queue, QueueStats, TxOffload};
use std::cell::RefCell;
use std::rc::Rc;

/// A [`SimQueue`], watched.
pub struct Tapped {
    /// The queue itself.
    pub queue: SimQueue,
    witness: Rc<RefCell<Witness>>,
    /// The world's time, which need not be what the server believes.
    pub now: Instant,
    /// Frames sent since it was last set to 0.
    pub sent: u64,
}

impl Tapped {
    /// Watches `queue`.
    pub fn new(queue: SimQueue, witness: Rc<RefCell<Witness>>) -> Self {
        Tapped { queue, witness, now: Instant::ZERO, sent: 0 }
    }
}

impl Queue for Tapped {
    type Frame = SimFrame;

    fn begin(&mut self) {
        self.queue.begin();
    }

    fn rx_burst(&mut self, burst: &mut Vec<SimFrame>, limit: usize) -> usize {
        let before = burst.len();
        let count = self.queue.rx_burst(burst, limit);
        let mut witness = self.witness.borrow_mut();
        for frame in &burst[before..] {
            witness.takes(self.now, frame.bytes());
        }
        count
    }

    fn alloc_tx(&mut self) -> Option<SimFrame> {
        self.queue.alloc_tx()
    }

    fn tx(&mut self, frame: SimFrame, offload: TxOffload) {
        self.sent += 1;
        self.witness.borrow_mut().gives(self.now, frame.bytes(), offload);
        self.queue.tx(frame, offload);
    }

    fn release(&mut self, frame: SimFrame) {
        self.queue.release(frame);
    }

    fn end(&mut self) {
        self.queue.end();
    }

    fn wait(&mut self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.queue.wait(timeout)
    }

    fn caps(&self) -> Caps {
        self.queue.caps()
    }

    fn stats(&self) -> QueueStats {
        self.queue.stats()
    }
}
