//! One AF_XDP socket with its rings as a [`Queue`] of frames.

use super::admission::Admission;
use super::balance::Balance;
use super::pace::Pace;
use super::socket::{Mapping, Socket};
use super::umem::{ChunkCounts, Received, Umem, UmemFrame};
use crate::clock::Clock;
use crate::doorbell::Doorbell;
use core::time::Duration;
use khamsin_stack::queue::BURST;
use khamsin_stack::{Caps, Frame, Instant, Queue, QueueStats, TxOffload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The longest sleep without looking whether the interface still exists: poll() says nothing when it goes.
const ALIVE_CHECK: Duration = Duration::from_secs(1);
/// The longest sleep while the kernel still has frames of ours that it could not send, or all of them.
const BACKLOG_SLEEP: Duration = Duration::from_millis(1);
/// Most system calls of one turn that drop a frame (peer down) instead of sending it.
const REFUSALS_MAX: u32 = 64;

/// One receive and one transmit queue of an interface, through an AF_XDP socket.
pub struct XdpQueue {
    pub(super) umem: Umem<Mapping>,
    pub(super) socket: Socket,
    admission: Admission,
    pace: Pace,
    balance: Balance,
    pub(super) interface: String,
    pub(super) queue: u32,
    pub(super) caps: Caps,
    pub(super) zero_copy: bool,
    doorbell: Option<Doorbell>,
    stats: QueueStats,
    /// The kernel said that the interface is gone.
    gone: bool,
    /// `alloc_tx` had nothing to give in this turn.
    starved: bool,
    /// When the interface was last known to exist.
    alive_at: Instant,
}

impl XdpQueue {
    pub(super) fn new(
        umem: Umem<Mapping>,
        socket: Socket,
        admission: Admission,
        interface: String,
        queue: u32,
        caps: Caps,
    ) -> Self {
        let zero_copy = sockopt::xdp_options(&socket)
            .is_ok_and(|o| o.contains(rustix::net::xdp::XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY));
        XdpQueue {
            umem,
            socket,
            admission,
            pace: Pace::new(),
            balance: Balance::new(),
            interface,
            queue,
            caps,
            zero_copy,
            doorbell: None,
            stats: QueueStats::default(),
            gone: false,
            starved: false,
            alive_at: Instant::ZERO,
        }
    }

    /// The bell that ends [`wait`](Queue::wait).
    pub fn set_doorbell(&mut self, doorbell: Doorbell) {
        self.doorbell = Some(doorbell);
    }

    /// Whether the device reads and writes our frames itself.
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Which queue of the interface this is.
    pub fn queue_id(&self) -> u32 {
        self.queue
    }

    /// Where the frames of this queue are.
    pub fn chunks(&self) -> ChunkCounts {
        self.umem.counts()
    }

    /// Wakes the kernel until it has taken the whole TX ring, or does not want to.
    fn flush(&mut self) {
        let (mut backlog, mut stalls, mut refusals) = (self.umem.rings.tx.backlog(), 0, 0);
        while backlog > 0 && self.umem.rings.tx.needs_wakeup() {
            self.stats.kicks += 1;
            match self.socket.kick_tx() {
                Ok(()) => return,
                // In copy mode a call sends its budget of frames and says EAGAIN when some are left; it says the same
                // when the send buffer, the completion ring or the device's queue is full.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::NXIO) => {
                    self.gone = true;
                    return;
                }
                // Link down: what waits goes when it is up again.
                Err(Errno::NETDOWN) => return,
                // EBUSY and stranger things: one frame was taken and dropped, because the other end of a veth is down
                // or a queueing discipline is full.
                Err(_) => {
                    self.stats.tx_errors += 1;
                    refusals += 1;
                }
            }
            let left = self.umem.rings.tx.backlog();
            if left == backlog {
                stalls += 1;
                self.umem.reap();
            }
            if stalls > 1 || refusals > REFUSALS_MAX {
                return;
            }
            backlog = left;
        }
    }

    /// Err when the interface is gone. A send on a socket whose interface was unregistered says ENXIO; nothing else does,
    /// and the answer holds whichever network namespace the caller is in.
    fn prove_alive(&mut self) -> io::Result<()> {
        if !self.gone {
            self.stats.kicks += 1;
            self.gone = self.socket.kick_tx() == Err(Errno::NXIO);
        }
        if self.gone {
            let what = format!(
                "interface {} was removed: nothing more will come of its queue {}; start khamsin again when it is back",
                self.interface, self.queue
            );
            return Err(io::Error::new(io::ErrorKind::NotConnected, what));
        }
        Ok(())
    }

    /// Sleeps for `longest` at most; says whether something happened.
    fn sleep(&self, longest: Duration) -> io::Result<bool> {
        let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
        // Without a bell the second place waits for nothing.
        let (bell, events) = match &self.doorbell {
            Some(bell) => (bell.as_fd(), PollFlags::IN),
            None => (self.socket.as_fd(), PollFlags::empty()),
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::from_borrowed_fd(bell, events)];
        let woken = poll(&mut fds, Some(&timeout));
        if let Some(bell) = self.doorbell.as_ref().filter(|_| fds[1].revents().contains(PollFlags::IN)) {
            bell.answer();
        }
        match woken {
            Ok(n) => Ok(n > 0),
            // A signal: the caller looks at what it means.
            Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Queue for XdpQueue {
    type Frame = UmemFrame;

    #[inline]
    fn begin(&mut self) {
        self.starved = false;
        self.umem.reap();
    }

    #[inline]
    fn on_turn(&mut self, now: Instant, ended: u32) {
        self.pace.on_turn(now);
        self.balance.left(ended);
    }

    #[inline]
    fn rx_burst(&mut self, burst: &mut Vec<UmemFrame>, limit: usize) -> usize {
        let available = self.umem.rings.rx.available() as usize;
        self.balance.came(self.admission.came());
        let in_time = self.umem.supply.syns(available as u32, self.pace.frames_in_time());
        self.admission.grant(self.balance.grant(in_time));
        if available == 0 {
            return 0;
        }
        self.umem.supply.found(available as u32);
        let (mut frames, mut bytes) = (0, 0);
        for _ in 0..available.min(limit).min(BURST) {
            match self.umem.receive() {
                Received::Frame(frame) => {
                    frames += 1;
                    bytes += frame.bytes().len();
                    burst.push(frame);
                }
                Received::Invalid => {}
                Received::Empty => break,
            }
        }
        self.umem.rings.rx.release();
        self.pace.on_burst(frames);
        self.stats.rx_frames += frames as u64;
        self.stats.rx_bytes += bytes as u64;
        frames
    }

    #[inline]
    fn alloc_tx(&mut self) -> Option<UmemFrame> {
        let frame = self.umem.alloc();
        if frame.is_none() {
            self.starved = true;
            self.stats.tx_exhausted += 1;
        }
        frame
    }

    /// Frames that find the TX ring full, or are shorter than an Ethernet header, or want an offload, are dropped and
    /// counted in [`QueueStats::tx_errors`].
    #[inline]
    fn tx(&mut self, frame: UmemFrame, offload: TxOffload) {
        debug_assert_eq!(offload, TxOffload::NONE, "caps() offers none");
        if offload != TxOffload::NONE {
            self.stats.tx_errors += 1;
            return self.umem.recycle(frame);
        }
        let bytes = frame.bytes().len();
        if self.umem.transmit(frame) {
            self.stats.tx_frames += 1;
            self.stats.tx_bytes += bytes as u64;
        } else {
            self.stats.tx_errors += 1;
        }
    }

    #[inline]
    fn release(&mut self, frame: UmemFrame) {
        self.umem.recycle(frame);
    }

    #[inline]
    fn end(&mut self) {
        self.umem.refill();
        self.umem.rings.tx.publish();
        if self.umem.rings.fill.needs_wakeup() {
            self.stats.kicks += 1;
            self.gone |= self.socket.kick_rx() == Err(Errno::NXIO);
        }
        self.flush();
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.umem.rings.rx.available() > 0 {
            return Ok(());
        }
        self.end();
        let mut now = Clock.now();
        let deadline = timeout.map_or(Instant::FAR_FUTURE, |t| now + t);
        loop {
            if self.gone || now.since(self.alive_at) >= ALIVE_CHECK {
                self.prove_alive()?;
                self.alive_at = now;
            }
            let check_in = ALIVE_CHECK.saturating_sub(now.since(self.alive_at));
            let backlog = self.starved || self.umem.rings.tx.backlog() > 0;
            let longest = deadline.since(now).min(if backlog { BACKLOG_SLEEP } else { check_in });
            let woken = self.sleep(longest)?;
            now = Clock.now();
            if woken || backlog || now >= deadline {
                return Ok(());
            }
        }
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    /// Asks the kernel for its share of the figures: one system call.
    fn stats(&self) -> QueueStats {
        let mut stats = self.stats;
        stats.invalid_descs += self.umem.invalid;
        stats.rx_syns_refused += self.admission.refused();
        if let Ok(kernel) = sockopt::xdp_statistics(&self.socket) {
            let ring_full = kernel.rx_ring_full.unwrap_or(0);
            stats.rx_dropped += kernel.rx_dropped + ring_full;
            stats.rx_ring_starved += kernel.rx_fill_ring_empty_descs.unwrap_or(0) + ring_full;
            stats.invalid_descs += kernel.rx_invalid_descs + kernel.tx_invalid_descs;
        }
        stats
    }
}

impl AsFd for XdpQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
