//! One connection's sender: its state, and what may be asked of it.

mod ack;
mod loss;
mod path;
mod rest;
mod send;
mod timer;

pub use ack::{Ack, AckOutcome, ECHO_GRAIN_US};
pub use rest::History;
pub use timer::{GIVE_UP_AFTER, Timeout};

use super::congestion::{Algorithm, Congestion};
use super::pacing::Pacer;
use super::repair::Repair;
use super::rtt::{RTO_MAX_US, Rtt};
use super::scoreboard::{Scoreboard, State};
use crate::Instant;

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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Nothing is believed lost.
    Open,
    /// The window comes down because of a mark (RFC 3168), until everything sent before it is acknowledged.
    Reduction,
    /// Fast recovery: the same because of a loss.
    Recovery,
    /// From a retransmission timeout until everything sent before it is acknowledged.
    Loss,
}

/// A tail loss probe (RFC 8985 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tail {
    /// None is out.
    Quiet,
    /// One new segment may go, whatever the window says.
    MaySendNew,
    /// These bytes are to be sent again.
    Resend(u64, u32),
    /// A probe went out; it is judged when this is acknowledged. With whether it had been sent before.
    Out(u64, bool),
}

/// What was sent last of all that was delivered (RFC 8985 6.1: RACK.xmit_ts, end_seq, rtt).
#[derive(Clone, Copy, Debug)]
struct Newest {
    sent: Instant,
    end: u64,
    rtt_us: u32,
}

/// Loss and rate control of one connection's sending side; see the [module](super).
#[derive(Clone, Debug)]
pub struct Sender {
    una: u64,
    nxt: u64,
    board: Scoreboard,
    /// The congestion window was fully used by something sent below this.
    limited_to: u64,
    last_sent: Instant,
    /// The retransmission timer counts from here.
    base: Instant,
    /// `una` last moved, or something went out when nothing was in flight.
    progress_at: Instant,
    /// Of the retransmission, tail probe or window probe timer; `FAR_FUTURE`: off. So the next two.
    timer: Instant,
    /// When what is late counts as lost.
    reorder_at: Instant,
    /// When pacing lets the next bytes go.
    release_at: Instant,
    newest: Newest,
    congestion: Congestion,
    rtt: Rtt,
    pacer: Pacer,
    tail: Tail,
    repair: Option<Box<Repair>>,
    /// The peer's window, from `una` on.
    window: u32,
    window_max: u32,
    /// Without SACK: bytes above `una` that have left the network, judging by duplicate ACKs.
    left: u32,
    mss: u16,
    mode: Mode,
    dup_acks: u8,
    /// Doublings of the retransmission timeout.
    backoffs: u8,
    /// Doublings of the probe interval, until the window opens.
    probes: u8,
    /// Timeouts since the peer last answered.
    unanswered: u8,
    sack: bool,
    /// How often doublings were taken back since the last measurement.
    forgiven: u8,
    /// The timer is that of a tail loss probe.
    tail_timer: bool,
    /// The probe timer has expired and the window has not opened since.
    probing: bool,
    /// Bytes wait that neither the window nor anything in flight will move.
    waiting: bool,
    /// Bytes waited when the caller last stopped sending.
    more: bool,
    /// The next new segment says that the window was reduced for a mark.
    cwr: bool,
}

impl Sender {
    /// A sender at the end of the handshake.
    pub fn new(setup: &Setup) -> Self {
        let mss = clamp_mss(setup.mss);
        let window = clamp_window(setup.window);
        Sender {
            una: 0,
            nxt: 0,
            board: Scoreboard::new(),
            limited_to: 0,
            last_sent: Instant::ZERO,
            base: Instant::ZERO,
            progress_at: Instant::ZERO,
            timer: Instant::FAR_FUTURE,
            reorder_at: Instant::FAR_FUTURE,
            release_at: Instant::FAR_FUTURE,
            newest: Newest { sent: Instant::ZERO, end: 0, rtt_us: 0 },
            congestion: Congestion::new(setup.algorithm, u32::from(mss)),
            rtt: Rtt::new(),
            pacer: Pacer::new(),
            tail: Tail::Quiet,
            repair: None,
            window,
            window_max: window,
            left: 0,
            mss,
            mode: Mode::Open,
            dup_acks: 0,
            backoffs: 0,
            probes: 0,
            unanswered: 0,
            sack: setup.sack,
            forgiven: 0,
            tail_timer: false,
            probing: false,
            waiting: false,
            more: false,
            cwr: false,
        }
    }

    /// The handshake's round trip, microseconds: a first measurement. Only of a SYN|ACK that was sent once (Karn).
    pub fn seed_rtt(&mut self, now: Instant, rtt_us: u64) {
        self.rtt.sample(rtt_us);
        self.rtt.note_least(now, rtt_us.min(RTO_MAX_US) as u32);
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
    #[inline]
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
        matches!(self.mode, Mode::Recovery | Mode::Loss)
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

    /// The segment size changed: bytes of payload, clamped like in [`new`](Self::new). What is in flight stays there as
    /// it was cut; what goes again is cut afresh.
    pub fn set_mss(&mut self, mss: usize) {
        self.mss = clamp_mss(mss);
        self.congestion.at_least(self.mss());
    }

    /// Whether the next new segment must carry CWR (RFC 3168 6.1.2); asking takes the wish back.
    #[inline]
    pub fn take_cwr(&mut self) -> bool {
        core::mem::take(&mut self.cwr)
    }

    /// The peer's window, bytes.
    #[inline]
    pub fn take_window(&mut self, window: u64) {
        self.window = clamp_window(window);
        self.window_max = self.window_max.max(self.window);
    }

    /// Bytes estimated to be in the network (RFC 6675 4): in flight, less what has arrived, less what is lost and not yet
    /// sent again.
    #[inline]
    pub(super) fn pipe(&self) -> u64 {
        let gone = u64::from(self.board.sacked()) + u64::from(self.board.lost()) + u64::from(self.left);
        self.in_flight().saturating_sub(gone)
    }

    #[inline]
    fn usable_window(&self) -> u64 {
        (self.una + u64::from(self.window)).saturating_sub(self.nxt)
    }

    /// Whether new data waits that the peer's window lets go whatever silly window avoidance says.
    #[inline]
    fn has_new(&self) -> bool {
        self.more && self.usable_window() >= u64::from(self.mss)
    }

    fn repair(&mut self) -> &mut Repair {
        self.repair.get_or_insert_with(|| Repair::new(self.una))
    }

    /// Moves the start of the search for lost bytes up to the first of them.
    fn seek_lost(&mut self) {
        if let Some(repair) = self.repair.as_deref_mut() {
            let from = repair.lost_from.max(self.una);
            repair.lost_from = self.board.first_lost(from).map_or(self.nxt, |run| run.start);
        }
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        u64::from(self.left)
    }

    #[cfg(test)]
    pub(super) fn last_sent(&self) -> Instant {
        self.last_sent
    }

    #[cfg(test)]
    pub(super) fn board(&self) -> &Scoreboard {
        &self.board
    }
}

fn clamp_mss(mss: usize) -> u16 {
    mss.clamp(1, usize::from(u16::MAX)) as u16
}

/// Largest window that RFC 7323 can express, 2^30 bytes; no arithmetic above overflows with it.
#[inline]
fn clamp_window(window: u64) -> u32 {
    window.min(1 << 30) as u32
}
