//! A queue with a tap on it.

use super::ring::{Kind, Tap};
use khamsin_stack::{Caps, CloseReason, FlowKey, Frame, Instant, Queue, QueueStats, TxOffload};
use std::io;
use std::time::Duration;

/// A [`Queue`] whose frames are captured; without a tap it is the queue itself and one branch for each burst and frame.
pub struct Tapped<Q: Queue> {
    pub(super) queue: Q,
    pub(super) tap: Option<Box<Tap>>,
}

impl<Q: Queue> Tapped<Q> {
    /// `queue`, and where copies of its frames go.
    pub fn new(queue: Q, tap: Option<Tap>) -> Self {
        Tapped { queue, tap: tap.map(Box::new) }
    }

    /// Whether frames are captured, so that ends of connections are wanted.
    #[inline]
    pub fn captures(&self) -> bool {
        self.tap.is_some()
    }

    /// A connection is over.
    pub fn note_end(&mut self, key: &FlowKey, reason: CloseReason) {
        if let Some(tap) = &mut self.tap {
            tap.ended(key, reason);
        }
    }

    /// The queue's own figures, for the end of the file.
    fn note_stats(&self) {
        if let Some(tap) = &self.tap {
            tap.note(&self.queue.stats());
        }
    }

    /// Frames handed to the capture, and their bytes.
    pub fn taken(&self) -> (u64, u64) {
        self.tap.as_ref().map_or((0, 0), |tap| tap.taken())
    }

    /// Frames missing from the capture.
    pub fn missed(&self) -> u64 {
        self.tap.as_ref().map_or(0, |tap| tap.missed())
    }
}

impl<Q: Queue> Drop for Tapped<Q> {
    fn drop(&mut self) {
        self.note_stats();
    }
}

impl<Q: Queue> Queue for Tapped<Q> {
    type Frame = Q::Frame;

    #[inline]
    fn begin(&mut self) {
        self.queue.begin();
        if let Some(tap) = &mut self.tap {
            tap.begin();
        }
    }

    #[inline]
    fn on_turn(&mut self, now: Instant, ended: u32) {
        self.queue.on_turn(now, ended);
    }

    #[inline]
    fn rx_burst(&mut self, burst: &mut Vec<Self::Frame>, limit: usize) -> usize {
        let before = burst.len();
        let count = self.queue.rx_burst(burst, limit);
        if let Some(tap) = &mut self.tap {
            for frame in &burst[before..] {
                tap.frame(Kind::Received, frame.bytes());
            }
        }
        count
    }

    #[inline]
    fn alloc_tx(&mut self) -> Option<Self::Frame> {
        self.queue.alloc_tx()
    }

    #[inline]
    fn tx(&mut self, frame: Self::Frame, offload: TxOffload) {
        if let Some(tap) = &mut self.tap {
            tap.frame(Kind::Sent, frame.bytes());
        }
        self.queue.tx(frame, offload);
    }

    #[inline]
    fn release(&mut self, frame: Self::Frame) {
        self.queue.release(frame);
    }

    #[inline]
    fn end(&mut self) {
        self.queue.end();
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.note_stats();
        self.queue.wait(timeout)
    }

    fn caps(&self) -> Caps {
        self.queue.caps()
    }

    fn stats(&self) -> QueueStats {
        self.queue.stats()
    }
}
