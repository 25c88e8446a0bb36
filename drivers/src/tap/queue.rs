//! One queue of a TAP as a [`Queue`].

use crate::doorbell::Doorbell;
use crate::link;
use crate::pool::{Pool, PoolFrame};
use crate::vnet;
use core::time::Duration;
use khamsin_stack::{Caps, Frame, Queue, QueueStats, TxOffload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Buffers that receiving leaves for sending.
const TX_RESERVE: usize = super::BUFFERS / 4;
/// Shortest frame that is one: two addresses and a type.
const FRAME_MIN: usize = 14;

/// One queue of a TAP. The interface vanishes with the last of them.
pub struct TapQueue {
    fd: OwnedFd,
    pool: Pool,
    doorbell: Option<Doorbell>,
    interface: String,
    /// The first queue reports what the interface dropped, which is not counted apart for each.
    reports_drops: bool,
    gone: bool,
    caps: Caps,
    stats: QueueStats,
}

impl TapQueue {
    pub(super) fn new(fd: OwnedFd, pool: Pool, interface: String, reports_drops: bool, caps: Caps) -> Self {
        let stats = QueueStats::default();
        TapQueue { fd, pool, doorbell: None, interface, reports_drops, gone: false, caps, stats }
    }

    /// Name of the interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The bell that ends a [`Queue::wait`] of this queue.
    pub fn set_doorbell(&mut self, doorbell: Doorbell) {
        self.doorbell = Some(doorbell);
    }

    /// Reads one frame; `None` when there is none, or what came is none.
    fn receive(&mut self, frame: &mut PoolFrame) -> Option<()> {
        self.stats.kicks += 1;
        match rustix::io::read(&self.fd, frame.wire_room()) {
            Ok(n) if n >= vnet::LEN + FRAME_MIN => {
                frame.set_len(n - vnet::LEN);
                frame.set_rx_checksum(vnet::rx_checksum(frame.vnet()));
                self.stats.rx_frames += 1;
                self.stats.rx_bytes += frame.bytes().len() as u64;
                Some(())
            }
            Ok(_) => {
                self.stats.rx_dropped += 1;
                None
            }
            Err(error) => {
                // EBADFD: the interface was deleted under us. EIO: it is down; that passes.
                self.gone |= error == Errno::BADFD;
                None
            }
        }
    }

    fn still_there(&self) -> io::Result<()> {
        if !self.gone {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::NotConnected,
            format!("TAP {} is gone (removed by somebody): restart to make it again", self.interface),
        ))
    }
}

impl Queue for TapQueue {
    type Frame = PoolFrame;

    fn begin(&mut self) {}

    fn rx_burst(&mut self, burst: &mut Vec<PoolFrame>, limit: usize) -> usize {
        let mut taken = 0;
        while taken < limit.min(khamsin_stack::queue::BURST) && self.pool.free() > TX_RESERVE {
            let Some(mut frame) = self.pool.take() else { break };
            if self.receive(&mut frame).is_none() {
                self.pool.give(frame);
                break;
            }
            burst.push(frame);
            taken += 1;
        }
        taken
    }

    fn alloc_tx(&mut self) -> Option<PoolFrame> {
        let frame = self.pool.take();
        self.stats.tx_exhausted += u64::from(frame.is_none());
        frame
    }

    fn tx(&mut self, mut frame: PoolFrame, offload: TxOffload) {
        let len = frame.bytes().len() as u64;
        frame.set_vnet(vnet::encode(frame.bytes(), offload));
        self.stats.kicks += 1;
        match rustix::io::write(&self.fd, frame.wire()) {
            Ok(_) => {
                self.stats.tx_frames += 1;
                self.stats.tx_bytes += len;
            }
            Err(error) => {
                self.gone |= error == Errno::BADFD;
                self.stats.invalid_descs += u64::from(error == Errno::INVAL);
                self.stats.tx_errors += 1;
            }
        }
        self.pool.give(frame);
    }

    fn release(&mut self, frame: PoolFrame) {
        self.pool.give(frame);
    }

    fn end(&mut self) {}

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.still_there()?;
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let device = PollFd::new(&self.fd, PollFlags::IN);
        self.stats.kicks += 1;
        let (polled, heard) = match &self.doorbell {
            Some(bell) => {
                let mut fds = [device, PollFd::new(bell, PollFlags::IN)];
                let polled = poll(&mut fds, timeout.as_ref());
                if !fds[1].revents().is_empty() {
                    bell.answer();
                }
                (polled, fds[0].revents())
            }
            None => {
                let mut fds = [device];
                (poll(&mut fds, timeout.as_ref()), fds[0].revents())
            }
        };
        match polled {
            Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
            Ok(_) => {
                // poll() on a TAP tells an error for one reason only: the interface is no more.
                self.gone |= heard.intersects(PollFlags::ERR | PollFlags::NVAL);
                self.still_there()
            }
        }
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn stats(&self) -> QueueStats {
        let mut stats = self.stats;
        if self.reports_drops && !self.gone {
            // What the kernel sends to the TAP and cannot queue is a drop of its transmit side.
            let dropped = link::dropped(&self.interface).map_or(0, |dropped| dropped.tx);
            stats.rx_dropped += dropped;
            stats.rx_ring_starved += dropped;
        }
        stats
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl core::fmt::Debug for TapQueue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TapQueue").field("interface", &self.interface).field("caps", &self.caps).finish_non_exhaustive()
    }
}
