//! One connection's sender.

mod ack;
mod path;

pub use ack::{Ack, ECHO_GRAIN_US};

use super::congestion::{Algorithm, Congestion};
use super::rtt::Rtt;
use crate::Instant;

/// Timeouts without an answer after which the next one gives up. With timeouts that start at 200 ms and stop doubling at
/// 60 s this is 8.7 minutes after the first transmission, at most 16 minutes (Linux: `tcp_retries2` = 15, about 15 minutes).
pub const GIVE_UP_AFTER: u8 = 15;

/// What a sender is told at the end of the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Payload bytes of a full segment, options taken off (clamped to 1..=65,535).
    pub mss: usize,
    /// The peer's window, bytes, scaled.
    pub window: u64,
    /// The peer understands SACK.
    pub sack: bool,
    /// What moves the congestion window.
    pub algorithm: Algorithm,
}

/// What an acknowledgement did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AckOutcome {
    /// Bytes (our FIN counts as one) that it acknowledged for the first time.
    pub newly_acked: u64,
    /// It is a duplicate in the sense of RFC 5681 2.
    pub duplicate: bool,
    /// It made the sender enter fast retransmit.
    pub fast_retransmit: bool,
    /// The peer's window, as far as it reaches into the stream, is not the one known before.
    pub window_changed: bool,
}

/// What a deadline asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// Nothing: it has not come yet, or there is nothing to wait for.
    None,
    /// The retransmission timer expired: ask [`Sender::next_retransmission`].
    Retransmit,
    /// The peer's window holds us up: send [`Sender::probe`].
    Probe,
    /// The peer has not answered for too long: end the connection.
    GiveUp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Nothing is believed lost.
    Open,
    /// Fast recovery: from the third duplicate ACK until everything sent before it is acknowledged.
    Recovery,
    /// From a retransmission timeout until everything sent before it is acknowledged.
    Loss,
}

/// Loss and rate control of one connection's sending side; see the [module](super).
#[derive(Clone, Debug)]
pub struct Sender {
    una: u64,
    nxt: u64,
    /// `resend..lost_to` is believed lost and not yet sent again; empty when `resend >= lost_to`.
    resend: u64,
    lost_to: u64,
    /// End of what was sent when the last recovery began; 0 before the first.
    recover: u64,
    /// An ACK that reaches this measures the round trip that began at `timed_at`; 0: none does.
    timed_end: u64,
    timed_at: Instant,
    /// The congestion window was fully used by something sent below this.
    limited_to: u64,
    last_sent: Instant,
    /// Of the retransmission or the probe timer; `FAR_FUTURE`: off.
    deadline: Instant,
    congestion: Congestion,
    rtt: Rtt,
    /// The peer's window, from `una` on.
    window: u32,
    window_max: u32,
    /// Bytes above `una` that have left the network, judging by duplicate ACKs.
    left: u32,
    /// In flight when the first duplicate ACK came, before limited transmit added to it.
    flight_at_dup: u32,
    mss: u16,
    mode: Mode,
    dup_acks: u8,
    /// Doublings of the retransmission timeout.
    backoffs: u8,
    /// Doublings were taken back once since the last measurement.
    forgiven: bool,
    /// Doublings of the probe interval, until the window opens.
    probes: u8,
    /// Timeouts since the peer last answered.
    unanswered: u8,
    /// The probe timer has expired and the window has not opened since.
    probing: bool,
    /// Bytes wait that neither the window nor anything in flight will move.
    waiting: bool,
    /// The timer was restarted by a partial acknowledgement of this recovery.
    partial_seen: bool,
    /// The next new segment says that the window was reduced for a mark.
    cwr: bool,
    /// Marks count again when this is acknowledged (RFC 3168).
    marked_to: u64,
}

impl Sender {
    /// A sender at the end of the handshake.
    pub fn new(setup: &Setup) -> Self {
        let mss = clamp_mss(setup.mss);
        let window = clamp_window(setup.window);
        Sender {
            una: 0,
            nxt: 0,
            resend: 0,
            lost_to: 0,
            recover: 0,
            timed_end: 0,
            timed_at: Instant::ZERO,
            limited_to: 0,
            last_sent: Instant::ZERO,
            deadline: Instant::FAR_FUTURE,
            congestion: Congestion::new(setup.algorithm, u32::from(mss)),
            rtt: Rtt::new(),
            window,
            window_max: window,
            left: 0,
            flight_at_dup: 0,
            mss,
            mode: Mode::Open,
            dup_acks: 0,
            backoffs: 0,
            forgiven: false,
            probes: 0,
            unanswered: 0,
            probing: false,
            waiting: false,
            partial_seen: false,
            cwr: false,
            marked_to: 0,
        }
    }

    /// The handshake's round trip, microseconds: a first measurement. Only of a SYN|ACK that was sent once (Karn).
    pub fn seed_rtt(&mut self, rtt_us: u64) {
        self.rtt.sample(rtt_us);
    }

    /// The SYN|ACK had to be sent again: start with a window of one segment (RFC 5681 3.1) and a timeout of three seconds
    /// (RFC 6298 5.7).
    pub fn handshake_was_lost(&mut self) {
        self.rtt.handshake_was_lost();
        self.congestion.after_lost_handshake(self.mss());
    }

    /// Oldest offset not acknowledged.
    #[inline]
    pub fn una(&self) -> u64 {
        self.una
    }

    /// Next offset to send for the first time.
    #[inline]
    pub fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Bytes sent and not acknowledged.
    #[inline]
    pub fn in_flight(&self) -> u64 {
        self.nxt - self.una
    }

    /// Whether everything sent is acknowledged.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.una == self.nxt
    }

    /// Congestion window, bytes.
    pub fn cwnd(&self) -> u32 {
        self.congestion.cwnd()
    }

    /// Slow start threshold, bytes; `u32::MAX` until the first loss.
    pub fn ssthresh(&self) -> u32 {
        self.congestion.ssthresh()
    }

    /// The peer's window, bytes from [`una`](Self::una) on.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// Smoothed round-trip time, microseconds; `None` before the first measurement.
    pub fn srtt_us(&self) -> Option<u64> {
        self.rtt.srtt()
    }

    /// Retransmission timeout as it stands, backoff included, microseconds.
    pub fn rto_us(&self) -> u64 {
        self.rtt.backed_off(self.backoffs)
    }

    /// Whether a loss is being repaired (fast recovery or after a timeout).
    pub fn in_recovery(&self) -> bool {
        self.mode != Mode::Open
    }

    /// Whether the peer's closed window is being probed.
    pub fn is_probing(&self) -> bool {
        self.probing
    }

    /// Payload bytes of a full segment.
    #[inline]
    pub fn mss(&self) -> u32 {
        u32::from(self.mss)
    }

    /// The segment size changed (path MTU): bytes of payload, clamped like in [`new`](Self::new).
    pub fn set_mss(&mut self, mss: usize) {
        self.mss = clamp_mss(mss);
        self.congestion.at_least(self.mss());
    }

    /// When [`on_timeout`](Self::on_timeout) must be called. Changes in every method that takes `now`.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        (self.deadline != Instant::FAR_FUTURE).then_some(self.deadline)
    }

    /// Bytes of new data that congestion window and peer window let go now. `unsent`: payload bytes that wait behind
    /// [`nxt`](Self::nxt); `fin`: our FIN waits behind them, and it counts as one byte in the answer, after the payload.
    ///
    /// Silly window avoidance (RFC 9293 3.8.6.2.1, without Nagle): a segment shorter than the MSS goes only if it is all
    /// there is, or is at least half of the largest window the peer ever offered. 0 as long as something lost must be
    /// sent again first.
    pub fn allowance(&mut self, now: Instant, unsent: u64, fin: bool) -> u64 {
        let all = unsent + u64::from(fin);
        if all == 0 || self.resend < self.lost_to {
            return 0;
        }
        if self.is_idle() && now.micros_since(self.last_sent) > self.rtt.rto() {
            self.congestion.after_idle(self.mss());
        }
        let window = self.usable_window();
        let cwnd = u64::from(self.cwnd()).saturating_sub(self.pipe());
        // A FIN alone is not held by the congestion window: it is one byte, and it ends the connection's hold on both.
        let usable = if unsent == 0 { window } else { window.min(cwnd) };
        if usable >= unsent {
            return usable.min(all);
        }
        let mss = u64::from(self.mss);
        if usable >= mss {
            usable - usable % mss
        } else if usable > 0 && usable >= u64::from(self.window_max / 2) {
            usable
        } else {
            0
        }
    }

    /// New data went out: `len` bytes (FIN included) from `offset`, which is [`nxt`](Self::nxt).
    pub fn sent(&mut self, now: Instant, offset: u64, len: u64) {
        debug_assert_eq!(offset, self.nxt, "new data starts at nxt");
        debug_assert!(len > 0, "something was sent");
        self.nxt += len;
        self.last_sent = now;
        if self.timed_end == 0 && !self.probing {
            self.timed_end = self.nxt;
            self.timed_at = now;
        }
        let (cwnd, flight) = (u64::from(self.cwnd()), self.in_flight());
        let limited =
            if self.congestion.in_slow_start() { 2 * flight > cwnd } else { flight + u64::from(self.mss) > cwnd };
        if limited {
            self.limited_to = self.nxt;
        }
        if self.waiting && !self.probing {
            // The window opened by itself: the probe timer makes room for the retransmission timer.
            self.deadline = Instant::FAR_FUTURE;
        }
        self.waiting = false;
        self.start_timer(now);
    }

    /// What to send again now, as offset and length (at most one segment). The same answer until
    /// [`retransmitted`](Self::retransmitted) is told of it.
    #[inline]
    pub fn next_retransmission(&self) -> Option<(u64, u32)> {
        if self.resend >= self.lost_to {
            return None;
        }
        let len = (self.lost_to - self.resend).min(u64::from(self.mss));
        // The oldest segment always goes: it is what the peer waits for, and it probes a window that shrank.
        let edge = self.una + u64::from(self.window);
        let fits = self.pipe() + len <= u64::from(self.cwnd()) && self.resend + len <= edge;
        (self.resend == self.una || fits).then_some((self.resend, len as u32))
    }

    /// `len` bytes from `offset` went out again.
    pub fn retransmitted(&mut self, now: Instant, offset: u64, len: u64) {
        debug_assert!(offset >= self.una && offset + len <= self.nxt, "sent again what was not in flight");
        if offset <= self.resend && offset + len > self.resend {
            self.resend = (offset + len).min(self.nxt);
        }
        self.timed_end = 0;
        self.last_sent = now;
        self.start_timer(now);
    }

    /// After sending: `unsent` bytes (FIN included) still wait. When nothing is in flight and the window lets none of them
    /// go, this starts the probe timer; else it sees to it that none runs. What waits for another reason (no free frame)
    /// has no timer here.
    pub fn blocked(&mut self, now: Instant, unsent: u64) {
        if !self.is_idle() {
            return;
        }
        let waiting = unsent > 0 && self.window_blocks(unsent);
        if waiting && !self.waiting {
            self.deadline = now.plus_micros(self.rtt.backed_off(self.probes.max(self.backoffs)));
        } else if !waiting {
            self.deadline = Instant::FAR_FUTURE;
        }
        self.waiting = waiting;
    }

    /// What to send on [`Timeout::Probe`]: offset and length. From [`una`](Self::una), one byte, when something is in
    /// flight: report it with [`retransmitted`](Self::retransmitted). Else from [`nxt`](Self::nxt), what the window takes
    /// but at least one byte: cut it to what waits (a FIN counts) and report it with [`sent`](Self::sent).
    pub fn probe(&self) -> (u64, u32) {
        if self.is_idle() { (self.nxt, self.window.clamp(1, self.mss())) } else { (self.una, 1) }
    }

    /// Looks at the clock: what [`deadline`](Self::deadline) was set for, if it has come. Calling it early does nothing.
    pub fn on_timeout(&mut self, now: Instant) -> Timeout {
        if now < self.deadline {
            return Timeout::None;
        }
        self.deadline = Instant::FAR_FUTURE;
        if self.is_idle() && !self.waiting {
            return Timeout::None;
        }
        if self.unanswered >= GIVE_UP_AFTER {
            return Timeout::GiveUp;
        }
        self.unanswered += 1;
        if self.is_idle() || self.window == 0 {
            self.probing = true;
            self.probes = self.probes.saturating_add(1);
            self.deadline = now.plus_micros(self.rtt.backed_off(self.probes.max(self.backoffs)));
            return Timeout::Probe;
        }
        // Fast recovery has halved already, and what it kept in flight by duplicate ACKs is no measure of the path.
        let again = self.unanswered > 1 || self.mode == Mode::Recovery;
        self.congestion.on_rto(self.pipe(), self.mss(), again);
        self.mode = Mode::Loss;
        self.recover = self.nxt;
        self.resend = self.una;
        self.lost_to = self.nxt;
        self.left = 0;
        self.dup_acks = 0;
        self.timed_end = 0;
        self.backoffs = self.backoffs.saturating_add(1);
        self.deadline = now.plus_micros(self.rto_us());
        Timeout::Retransmit
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        u64::from(self.left)
    }

    #[cfg(test)]
    pub(super) fn last_sent(&self) -> Instant {
        self.last_sent
    }

    /// Bytes estimated to be in the network (RFC 6675 4): in flight, less what has arrived, less what is lost and not yet
    /// sent again.
    #[inline]
    fn pipe(&self) -> u64 {
        let lost = self.lost_to.saturating_sub(self.resend);
        self.in_flight().saturating_sub(u64::from(self.left)).saturating_sub(lost)
    }

    #[inline]
    fn usable_window(&self) -> u64 {
        (self.una + u64::from(self.window)).saturating_sub(self.nxt)
    }

    /// With nothing in flight: whether the peer's window, and not ours, holds `unsent` bytes back.
    fn window_blocks(&self, unsent: u64) -> bool {
        let window = self.usable_window();
        window < unsent && window < u64::from(self.mss) && (window == 0 || window < u64::from(self.window_max / 2))
    }

    fn start_timer(&mut self, now: Instant) {
        if self.deadline == Instant::FAR_FUTURE {
            self.deadline = now.plus_micros(self.rto_us());
        }
    }
}

fn clamp_mss(mss: usize) -> u16 {
    mss.clamp(1, usize::from(u16::MAX)) as u16
}

/// Largest window that RFC 7323 can express, 2^30 bytes; no arithmetic above overflows with it.
fn clamp_window(window: u64) -> u32 {
    window.min(1 << 30) as u32
}
