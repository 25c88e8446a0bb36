//! One connection's socket: what was read and not consumed, what is to be written, what epoll was asked for.

use super::outbox::{Outbox, OutboxPool};
use khamsin_stack::limits::{KEEP_ALIVE_GAP_US, KEEP_ALIVE_PROBES};
use khamsin_stack::wheel::Wheel;
use khamsin_stack::{CloseReason, Counters, Instant, Patience};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown, sockopt};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The read buffer that all connections of a host share, in bytes.
const INPUT: usize = 64 * 1024;
/// Unread bytes from which on nothing more is read for a connection. What one read brought may lie above it.
const UNREAD_MAX: usize = 16 * 1024;
/// Bytes read for one connection before the others have their turn.
pub(super) const READ_BUDGET: usize = 4 * INPUT;
/// Bytes written for one connection before the others have their turn.
const WRITE_BUDGET: usize = 1 << 20;

/// What the connections of one host share.
pub(super) struct Shared {
    pub(super) pool: OutboxPool,
    pub(super) wheel: Wheel,
    pub(super) counters: Counters,
    /// Bytes just read, for the connection that is being visited.
    input: Box<[u8]>,
    input_start: usize,
    input_end: usize,
}

impl Shared {
    pub(super) fn new(pool: OutboxPool, wheel: Wheel) -> Self {
        let input = vec![0; INPUT].into_boxed_slice();
        Shared { pool, wheel, counters: Counters::default(), input, input_start: 0, input_end: 0 }
    }

    /// Forgets what a connection that is over has left.
    pub(super) fn forget_input(&mut self) {
        self.input_start = 0;
        self.input_end = 0;
    }
}

/// Keep-alive probes and the time between them, as the bypass stack has them.
const KEEP_ALIVE_GAP: Duration = Duration::from_micros(KEEP_ALIVE_GAP_US);

/// What an attempt to read gave.
pub(super) enum Received {
    /// Nothing new, or nothing wanted.
    Nothing,
    /// Bytes, or the end of input.
    News,
    /// More may be there, but others have their turn first.
    BudgetUsed,
}

/// The callback that a connection is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// None, as long as nothing new is read.
    Nothing,
    /// `App::ready`.
    Ready,
    /// `App::expired`.
    Expired,
}

/// One connection without its session.
pub(super) struct Link {
    pub(super) fd: OwnedFd,
    pub(super) outbox: Outbox,
    /// Left over by the application, from `unread_start` on. Empty for nearly every connection, so it holds no memory.
    unread: Vec<u8>,
    unread_start: usize,
    /// Events that epoll was asked for.
    pub(super) interest: EventFlags,
    /// Whether epoll watches the socket at all.
    pub(super) watched: bool,
    /// The socket may have input that was not read yet.
    pub(super) readable: bool,
    /// A short read does not prove that all is read: the end, an error or an urgent mark lies behind it.
    pub(super) read_to_end: bool,
    /// The last write fell short: wait for EPOLLOUT.
    pub(super) blocked: bool,
    /// The peer has ended its stream, and all of it was read.
    pub(super) input_ended: bool,
    /// The application has ended our stream.
    pub(super) ending: bool,
    /// Our FIN has been sent.
    pub(super) ended: bool,
    /// The application has asked for a reset.
    pub(super) aborted: bool,
    /// The application found less room than it may have wanted.
    pub(super) wants_room: bool,
    /// Is on the host's list of those that wait for blocks of the pool with nothing of their own in flight.
    pub(super) starved: bool,
    /// Is on the host's list of those that go on in the next turn, with this call.
    pub(super) queued: Option<Call>,
    /// When the application wants to be called.
    pub(super) wake_at: Instant,
    /// When the peer must have ended its stream, or sent more of it, after ours has ended.
    pub(super) linger_until: Instant,
}

impl Link {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Link {
            fd,
            outbox: Outbox::default(),
            unread: Vec::new(),
            unread_start: 0,
            interest: EventFlags::empty(),
            watched: true,
            readable: false,
            read_to_end: false,
            blocked: false,
            input_ended: false,
            ending: false,
            ended: false,
            aborted: false,
            wants_room: false,
            starved: false,
            queued: None,
            wake_at: Instant::FAR_FUTURE,
            linger_until: Instant::FAR_FUTURE,
        }
    }

    /// Has the kernel watch over a silent peer. The options cannot fail on a TCP socket; if they did, the connection would
    /// merely wait longer.
    pub(super) fn wait_for_peer(&self, patience: &Patience) {
        if let Some(idle) = patience.keep_alive {
            let idle = idle.max(Duration::from_secs(1));
            let _ = sockopt::set_tcp_keepidle(&self.fd, idle)
                .and_then(|()| sockopt::set_tcp_keepintvl(&self.fd, idle.min(KEEP_ALIVE_GAP)))
                .and_then(|()| sockopt::set_tcp_keepcnt(&self.fd, u32::from(KEEP_ALIVE_PROBES)))
                .and_then(|()| sockopt::set_socket_keepalive(&self.fd, true));
        }
        if let Some(limit) = patience.user_timeout {
            let millis = limit.as_millis().clamp(1, u128::from(u32::MAX)) as u32;
            let _ = sockopt::set_tcp_user_timeout(&self.fd, millis);
        }
    }

    /// Unread bytes, in one piece.
    pub(super) fn unread<'a>(&'a self, shared: &'a Shared) -> &'a [u8] {
        if self.unread.is_empty() {
            &shared.input[shared.input_start..shared.input_end]
        } else {
            &self.unread[self.unread_start..]
        }
    }

    /// Takes `len` unread bytes away.
    pub(super) fn consume(&mut self, shared: &mut Shared, len: usize) {
        if self.unread.is_empty() {
            shared.input_start += len;
            return;
        }
        self.unread_start += len;
        if self.unread_start == self.unread.len() {
            self.unread = Vec::new();
            self.unread_start = 0;
        }
    }

    /// Whether the end of input has been reached.
    pub(super) fn finished(&self, shared: &Shared) -> bool {
        self.input_ended && self.unread(shared).is_empty()
    }

    /// Moves what is unread out of the shared buffer, which the next connection needs.
    pub(super) fn keep_unread(&mut self, shared: &mut Shared) {
        let left = &shared.input[shared.input_start..shared.input_end];
        if !left.is_empty() {
            self.unread.drain(..self.unread_start);
            self.unread_start = 0;
            self.unread.extend_from_slice(left);
        }
        shared.input_start = 0;
        shared.input_end = 0;
    }

    /// Bytes that may be read now without holding too much that the application does not want.
    fn wanted(&self) -> usize {
        match self.unread.len() - self.unread_start {
            _ if self.input_ended => 0,
            0 => INPUT,
            kept => UNREAD_MAX.saturating_sub(kept),
        }
    }

    /// Reads once, unless nothing is to be had or wanted, or `budget` bytes are used up. Nothing may be unread in the
    /// shared buffer. `Err`: the connection is over.
    pub(super) fn receive(&mut self, shared: &mut Shared, budget: &mut usize) -> Result<Received, CloseReason> {
        let wanted = self.wanted();
        if !self.readable || wanted == 0 {
            return Ok(Received::Nothing);
        }
        if *budget == 0 {
            return Ok(Received::BudgetUsed);
        }
        match recv(&self.fd, &mut shared.input[..wanted], RecvFlags::empty()) {
            Ok((0, _)) => {
                self.input_ended = true;
                self.readable = false;
                Ok(Received::News)
            }
            Ok((len, _)) => {
                // epoll(7): a stream socket whose read fell short is empty, and what comes later is an event again.
                self.readable = len == wanted || self.read_to_end;
                self.linger_until = Instant::FAR_FUTURE;
                *budget = budget.saturating_sub(len);
                shared.counters.rx_payload_bytes += len as u64;
                shared.input_start = 0;
                shared.input_end = len;
                if !self.unread.is_empty() {
                    self.keep_unread(shared);
                }
                Ok(Received::News)
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                self.read_to_end = false;
                Ok(Received::Nothing)
            }
            Err(Errno::INTR) => Ok(Received::BudgetUsed),
            Err(e) => Err(reason(e)),
        }
    }

    /// Writes what waits, as far as the kernel takes it, then our FIN if the application has ended its stream. Returns the
    /// bytes that left. `Err`: the connection is over, [`CloseReason::Finished`] among the reasons.
    pub(super) fn flush(&mut self, shared: &mut Shared) -> Result<usize, CloseReason> {
        let mut left = 0;
        while !self.blocked && !self.outbox.is_empty() && left < WRITE_BUDGET {
            match self.outbox.write_to(&mut shared.pool, &self.fd) {
                Ok((len, all)) => {
                    left += len;
                    self.blocked = !all;
                }
                Err(Errno::AGAIN) => self.blocked = true,
                Err(Errno::INTR) => {}
                Err(e) => return Err(reason(e)),
            }
        }
        shared.counters.tx_payload_bytes += left as u64;
        if self.ending && !self.ended && self.outbox.is_empty() {
            shutdown(&self.fd, Shutdown::Write).map_err(reason)?;
            self.ended = true;
        }
        if self.ended && self.input_ended {
            return Err(CloseReason::Finished);
        }
        Ok(left)
    }

    /// What level-triggered epoll is to watch for: exactly what would be acted on.
    pub(super) fn level_interest(&self) -> EventFlags {
        let mut events = EventFlags::empty();
        if self.wanted() > 0 {
            events |= EventFlags::IN | EventFlags::RDHUP;
        }
        if !self.outbox.is_empty() {
            events |= EventFlags::OUT;
        }
        events
    }

    /// Takes an event to note; `Err`: the connection is over.
    pub(super) fn note(&mut self, events: EventFlags) -> Result<(), CloseReason> {
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR | EventFlags::PRI;
        if events.intersects(EventFlags::IN | ends) {
            self.readable = !self.input_ended;
        }
        if events.intersects(ends) {
            self.read_to_end = true;
        }
        if events.contains(EventFlags::OUT) {
            self.blocked = false;
        }
        // With input wanted, the next read returns what came before the error, and then the error.
        if events.contains(EventFlags::ERR) && self.wanted() == 0 {
            return Err(match sockopt::socket_error(&self.fd) {
                Ok(Err(e)) => reason(e),
                _ => CloseReason::PeerReset,
            });
        }
        Ok(())
    }

    /// Whether something waits that the kernel would take, and no event will say so in edge-triggered mode.
    pub(super) fn has_more_to_write(&self) -> bool {
        !self.blocked && !self.outbox.is_empty()
    }
}

/// What an error of a connected socket says about the connection.
fn reason(e: Errno) -> CloseReason {
    match e {
        // Retransmissions or keep-alives unanswered, or routers say that there is no way.
        Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN => {
            CloseReason::TimedOut
        }
        _ => CloseReason::PeerReset,
    }
}
