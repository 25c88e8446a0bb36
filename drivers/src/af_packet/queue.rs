//! One AF_PACKET ring as a [`Queue`].

use super::frame::{PacketFrame, Place};
use super::ring::{Next, RxRing};
use super::socket::{PacketSocket, SEND_BURST};
use crate::doorbell::Doorbell;
use crate::pool::Pool;
use crate::vnet;
use core::cell::Cell;
use core::time::Duration;
use khamsin_stack::{Caps, Frame, Queue, QueueStats, TxOffload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// A receive ring and a way to send on one interface.
pub struct PacketQueue {
    // The ring before the socket: it is unmapped first.
    ring: RxRing,
    socket: PacketSocket,
    pool: Pool,
    /// Frames to send, in order. Never more than there are buffers and slots, for which it has room.
    pending: Vec<PacketFrame>,
    doorbell: Option<Doorbell>,
    interface: String,
    index: u32,
    gone: bool,
    caps: Caps,
    stats: QueueStats,
    /// Kept apart because the kernel forgets its own count when it is read.
    dropped: Cell<u64>,
}

/// What a queue is made of.
pub(super) struct Parts {
    pub(super) ring: RxRing,
    pub(super) socket: PacketSocket,
    pub(super) pool: Pool,
    pub(super) frames_max: usize,
    pub(super) interface: String,
    pub(super) index: u32,
    pub(super) caps: Caps,
}

impl PacketQueue {
    pub(super) fn new(parts: Parts) -> Self {
        PacketQueue {
            ring: parts.ring,
            socket: parts.socket,
            pool: parts.pool,
            pending: Vec::with_capacity(parts.frames_max),
            doorbell: None,
            interface: parts.interface,
            index: parts.index,
            gone: false,
            caps: parts.caps,
            stats: QueueStats::default(),
            dropped: Cell::new(0),
        }
    }

    /// The bell that ends a [`Queue::wait`] of this queue.
    pub fn set_doorbell(&mut self, doorbell: Doorbell) {
        self.doorbell = Some(doorbell);
    }

    /// Sends what is pending until the kernel takes no more; what is left goes first the next time.
    fn flush(&mut self) {
        let mut done = 0;
        while done < self.pending.len() {
            self.stats.kicks += 1;
            match self.socket.send(&self.pending[done..]) {
                // A call of some frames that took none and says no error does not exist; it must not spin either.
                Ok(0) => break,
                Ok(sent) => {
                    for frame in &self.pending[done..done + sent] {
                        self.stats.tx_frames += 1;
                        self.stats.tx_bytes += frame.bytes().len() as u64;
                    }
                    done += sent;
                }
                Err(e) => match e.raw_os_error() {
                    Some(libc::EAGAIN) => break,
                    Some(libc::EINTR) => {}
                    // The queueing discipline dropped it, it does not suit the device, memory is short, or the link is
                    // down: one frame is lost, as on any wire.
                    error => {
                        self.gone |= error == Some(libc::ENXIO);
                        self.stats.tx_errors += 1;
                        self.stats.invalid_descs += u64::from(matches!(error, Some(libc::EINVAL | libc::EMSGSIZE)));
                        done += 1;
                    }
                },
            }
        }
        for frame in self.pending.drain(..done) {
            match frame.0 {
                Place::Ring(slot) => self.ring.release(slot),
                Place::Pool(frame) => self.pool.give(frame),
            }
        }
    }

    /// Whether the interface is still there, asked after the socket told an error.
    fn check_interface(&mut self) -> io::Result<()> {
        // Reading the error clears it; ENETDOWN alone passes when the link comes up again.
        let _ = rustix::net::sockopt::socket_error(&self.socket);
        self.gone |= rustix::net::netdevice::index_to_name(&self.socket, self.index).is_err();
        self.still_there()
    }

    fn still_there(&self) -> io::Result<()> {
        if !self.gone {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::NotConnected,
            format!(
                "interface {} is gone (removed, or moved to another network namespace): make it again and restart",
                self.interface
            ),
        ))
    }
}

impl Queue for PacketQueue {
    type Frame = PacketFrame;

    fn begin(&mut self) {}

    fn rx_burst(&mut self, burst: &mut Vec<PacketFrame>, limit: usize) -> usize {
        let mut taken = 0;
        while taken < limit.min(khamsin_stack::queue::BURST) {
            match self.ring.take() {
                Next::Frame(slot) => {
                    self.stats.rx_frames += 1;
                    self.stats.rx_bytes += slot.bytes().len() as u64;
                    burst.push(PacketFrame(Place::Ring(slot)));
                    taken += 1;
                }
                Next::Unusable => self.stats.rx_dropped += 1,
                Next::Empty => break,
            }
        }
        taken
    }

    fn alloc_tx(&mut self) -> Option<PacketFrame> {
        let mut frame = self.pool.take();
        if frame.is_none() && !self.pending.is_empty() {
            self.flush();
            frame = self.pool.take();
        }
        self.stats.tx_exhausted += u64::from(frame.is_none());
        frame.map(|frame| PacketFrame(Place::Pool(frame)))
    }

    fn tx(&mut self, mut frame: PacketFrame, offload: TxOffload) {
        frame.set_vnet(vnet::encode(frame.bytes(), offload));
        // Only a frame of another queue can make it one too many.
        if self.pending.len() == self.pending.capacity() {
            self.stats.tx_errors += 1;
            return;
        }
        self.pending.push(frame);
        if self.pending.len().is_multiple_of(SEND_BURST) {
            self.flush();
        }
    }

    fn release(&mut self, frame: PacketFrame) {
        match frame.0 {
            Place::Ring(slot) => self.ring.release(slot),
            Place::Pool(frame) => self.pool.give(frame),
        }
    }

    fn end(&mut self) {
        if !self.pending.is_empty() {
            self.flush();
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.still_there()?;
        if self.ring.ready() {
            return Ok(());
        }
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, !self.pending.is_empty());
        let socket = PollFd::new(&self.socket, events);
        self.stats.kicks += 1;
        let (polled, heard) = match &self.doorbell {
            Some(bell) => {
                let mut fds = [socket, PollFd::new(bell, PollFlags::IN)];
                let polled = poll(&mut fds, timeout.as_ref());
                if !fds[1].revents().is_empty() {
                    bell.answer();
                }
                (polled, fds[0].revents())
            }
            None => {
                let mut fds = [socket];
                (poll(&mut fds, timeout.as_ref()), fds[0].revents())
            }
        };
        match polled {
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
            Ok(_) if heard.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) => self.check_interface(),
            Ok(_) => Ok(()),
        }
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn stats(&self) -> QueueStats {
        self.dropped.set(self.dropped.get() + self.socket.take_drops());
        QueueStats {
            rx_dropped: self.stats.rx_dropped + self.dropped.get(),
            rx_ring_starved: self.dropped.get(),
            ..self.stats
        }
    }
}

impl AsFd for PacketQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl core::fmt::Debug for PacketQueue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PacketQueue")
            .field("interface", &self.interface)
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}
