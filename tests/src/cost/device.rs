//! The simulated device, taken out of the count.

use khamsin_drivers::sim::{SimFrame, SimQueue};
use khamsin_stack::{Caps, Queue, QueueStats, TxOffload};
use std::time::Duration;

/// A simulated queue whose work is not collected: callgrind switches over whenever it enters or leaves a function whose name
/// has `uncounted_` in it. That would switch collection on where it is off, so such functions are called only while
/// `counting`.
pub struct Device {
    /// What does the work.
    pub queue: SimQueue,
    /// Within what is counted.
    pub counting: bool,
}

#[inline(never)]
fn uncounted_begin(queue: &mut SimQueue) {
    queue.begin();
}

#[inline(never)]
fn uncounted_rx_burst(queue: &mut SimQueue, burst: &mut Vec<SimFrame>, limit: usize) -> usize {
    queue.rx_burst(burst, limit)
}

#[inline(never)]
fn uncounted_alloc_tx(queue: &mut SimQueue) -> Option<SimFrame> {
    queue.alloc_tx()
}

#[inline(never)]
fn uncounted_tx(queue: &mut SimQueue, frame: SimFrame, offload: TxOffload) {
    queue.tx(frame, offload);
}

#[inline(never)]
fn uncounted_release(queue: &mut SimQueue, frame: SimFrame) {
    queue.release(frame);
}

impl Queue for Device {
    type Frame = SimFrame;

    fn begin(&mut self) {
        if self.counting { uncounted_begin(&mut self.queue) } else { self.queue.begin() }
    }

    fn rx_burst(&mut self, burst: &mut Vec<SimFrame>, limit: usize) -> usize {
        if self.counting {
            uncounted_rx_burst(&mut self.queue, burst, limit)
        } else {
            self.queue.rx_burst(burst, limit)
        }
    }

    fn alloc_tx(&mut self) -> Option<SimFrame> {
        if self.counting { uncounted_alloc_tx(&mut self.queue) } else { self.queue.alloc_tx() }
    }

    fn tx(&mut self, frame: SimFrame, offload: TxOffload) {
        if self.counting { uncounted_tx(&mut self.queue, frame, offload) } else { self.queue.tx(frame, offload) }
    }

    fn release(&mut self, frame: SimFrame) {
        if self.counting { uncounted_release(&mut self.queue, frame) } else { self.queue.release(frame) }
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
