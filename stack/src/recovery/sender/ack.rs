//! What an acknowledgement does to a sender.

use super::{AckOutcome, Mode, Sender, clamp_window};
use crate::Instant;

/// An acceptable acknowledgement, as the gate has read it. All numbers are stream offsets, bytes or microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ack<'a> {
    /// It acknowledges everything below this offset. The caller has made sure that it is at most
    /// [`nxt`](Sender::nxt); an older one than [`una`](Sender::una) is fine.
    pub ack: u64,
    /// The peer's window, bytes, scaled; `None` when SND.WL1 and SND.WL2 say that the segment is too old to update it.
    pub window: Option<u64>,
    /// The segment has no payload, no SYN and no FIN.
    pub pure: bool,
    /// The blocks of the SACK option (RFC 2018) in their order, as offsets: left edge and the first offset behind the
    /// block. A duplicate report (RFC 2883) is recognized here, and so is what makes no sense. Blocks that began before
    /// offset 0 are left out.
    pub sack: &'a [(u64, u64)],
    /// When the segment was sent whose timestamp this one echoes (TSecr, RFC 7323), on our clock and rounded down to
    /// [`ECHO_GRAIN_US`]. `None` without timestamps.
    pub echoed: Option<Instant>,
    /// The ECE flag was set, on a connection that negotiated ECN (RFC 3168).
    pub ece: bool,
}

/// Grain of the timestamps that we send, microseconds: [`Ack::echoed`] is a whole multiple of it, counted from our clock's
/// epoch. RFC 7323 5.4 wants 1 ms to 1 s.
pub const ECHO_GRAIN_US: u64 = 1000;

/// Duplicate ACKs that mean loss (RFC 5681 3.2).
const DUP_ACKS: u8 = 3;

impl Sender {
    /// An acceptable acknowledgement came.
    pub fn on_ack(&mut self, now: Instant, news: &Ack<'_>) -> AckOutcome {
        let Ack { ack, window, pure, .. } = *news;
        debug_assert!(ack <= self.nxt, "acknowledges what was never sent");
        let ack = ack.min(self.nxt);
        if let Some(window) = window
            && pure
            && ack == self.una
            && news.sack.iter().any(|(_, right)| *right > ack)
        {
            // What reports a hole is a duplicate whatever its window says (RFC 6675 2).
            self.take_window(window);
        }
        let mut outcome = AckOutcome::default();
        if ack < self.una {
            return outcome;
        }
        outcome.newly_acked = ack - self.una;
        let known = self.window;
        if let Some(window) = window {
            self.take_window(window);
            outcome.window_changed = self.window != known || outcome.newly_acked > 0;
        }
        outcome.duplicate = outcome.newly_acked == 0
            && pure
            && window.is_some()
            && self.window == known
            && self.window > 0
            && !self.is_idle()
            && !self.probing;
        if outcome.newly_acked > 0 {
            self.advance(now, ack, outcome.newly_acked);
        } else if outcome.duplicate {
            outcome.fast_retransmit = self.duplicate(now);
        }
        if self.probing || self.window == 0 {
            // Whoever answers probes may keep its window closed for as long as it likes (RFC 1122 4.2.2.17).
            self.unanswered = 0;
        }
        if self.window > 0 && self.probing {
            self.window_opened(now);
        }
        if news.ece {
            self.on_ece();
        }
        outcome
    }

    /// RFC 3168 6.1.2: a mark halves the window like a loss, but at most once for each window of data.
    #[cold]
    fn on_ece(&mut self) {
        if self.mode != Mode::Open || self.una < self.marked_to {
            return;
        }
        self.congestion.on_loss(self.in_flight(), self.mss());
        self.marked_to = self.nxt;
        self.cwr = true;
    }

    /// Whether the next new segment must carry CWR (RFC 3168 6.1.2); asking takes the wish back.
    #[inline]
    pub fn take_cwr(&mut self) -> bool {
        core::mem::take(&mut self.cwr)
    }

    /// The peer's window, bytes, learnt from something else than an acknowledgement.
    pub fn take_window(&mut self, window: u64) {
        self.window = clamp_window(window);
        self.window_max = self.window_max.max(self.window);
    }

    /// `una` moves to `ack`, `acked` bytes further.
    fn advance(&mut self, now: Instant, ack: u64, acked: u64) {
        let mss = self.mss();
        let limited = self.una < self.limited_to;
        self.una = ack;
        self.probes = 0;
        self.dup_acks = 0;
        if self.timed_end != 0 && ack >= self.timed_end {
            self.rtt.sample(now.micros_since(self.timed_at));
            self.timed_end = 0;
            self.backoffs = 0;
            self.forgiven = false;
        } else if self.unanswered > 0 && self.backoffs > 0 {
            self.forgive();
        }
        self.unanswered = 0;
        self.resend = self.resend.max(ack);
        let mut restart = true;
        match self.mode {
            Mode::Open => {
                self.left = 0;
                if limited {
                    self.congestion.on_ack(acked, mss, false);
                }
            }
            Mode::Loss => {
                self.congestion.on_ack(acked, mss, true);
                if ack >= self.recover {
                    self.mode = Mode::Open;
                }
            }
            Mode::Recovery if ack >= self.recover => {
                self.left = 0;
                self.mode = Mode::Open;
                self.congestion.on_recovered(self.in_flight(), mss);
            }
            Mode::Recovery => {
                // A partial acknowledgement: the next segment was lost too. Of what it covers, one segment was the one
                // sent again; the others had been counted by duplicate ACKs.
                self.left = self.left.saturating_sub(clamp_window(acked).saturating_sub(mss));
                self.resend = ack;
                self.lost_to = self.nxt.min(ack + u64::from(mss));
                // RFC 6582 4, impatient: only the first one restarts the timer, so that many losses end in slow start.
                restart = !self.partial_seen;
                self.partial_seen = true;
            }
        }
        if self.is_idle() {
            self.deadline = Instant::FAR_FUTURE;
        } else if restart {
            self.deadline = now.plus_micros(self.rto_us());
        }
    }

    /// Progress after a timeout, which measures nothing: the ACK may be that of the first copy (Karn). If it is, the round
    /// trip has outgrown the timeout, and only a doubled timeout lets a segment live long enough to be measured. If it
    /// is not, a lossy path would crawl from one doubled timeout to the next. So the doublings are taken back once; from
    /// then on they stay, and grow, until there is a measurement.
    fn forgive(&mut self) {
        if !self.forgiven {
            self.forgiven = true;
            self.backoffs = 0;
        }
    }

    /// A duplicate ACK; says whether it starts a fast retransmit.
    fn duplicate(&mut self, now: Instant) -> bool {
        let mss = self.mss();
        self.dup_acks = self.dup_acks.saturating_add(1);
        // One segment at least has not left: the one that is missing.
        let most = clamp_window(self.in_flight().saturating_sub(u64::from(mss)));
        match self.mode {
            Mode::Loss => return false,
            Mode::Recovery => {
                self.left = (self.left + mss).min(most);
                return false;
            }
            Mode::Open => {}
        }
        if self.dup_acks == 1 {
            self.flight_at_dup = clamp_window(self.in_flight());
        }
        // RFC 6582 3.2 step 2: duplicates of what was sent again in the last recovery say nothing new.
        if self.dup_acks < DUP_ACKS || (self.recover != 0 && self.una <= self.recover) {
            // RFC 3042: each of the first two lets one new segment go.
            self.left = (self.left + mss).min(2 * mss).min(most);
            return false;
        }
        self.congestion.on_loss(u64::from(self.flight_at_dup), mss);
        self.mode = Mode::Recovery;
        self.recover = self.nxt;
        self.left = (u32::from(DUP_ACKS) * mss).min(most);
        self.resend = self.una;
        self.lost_to = self.nxt.min(self.una + u64::from(mss));
        self.partial_seen = false;
        self.timed_end = 0;
        self.deadline = now.plus_micros(self.rto_us());
        true
    }

    /// The window is open after probes: what they carried was mostly refused and must go again.
    fn window_opened(&mut self, now: Instant) {
        self.probing = false;
        self.waiting = false;
        self.probes = 0;
        self.deadline = Instant::FAR_FUTURE;
        if !self.is_idle() {
            self.resend = self.una;
            self.lost_to = self.nxt;
            self.start_timer(now);
        }
    }
}
