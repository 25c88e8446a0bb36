//! What the clock asks for.

use super::super::repair::Frto;
use super::{Mode, Sender, Tail};
use crate::Instant;

/// Timeouts without an answer after which the next one gives up (R2, RFC 9293 3.8.3). With timeouts that start at 200 ms
/// and stop doubling at 60 s this is 8.7 minutes after the first transmission, at most 16 minutes (Linux:
/// `tcp_retries2` = 15, about 15 minutes).
pub const GIVE_UP_AFTER: u8 = 15;

/// What a deadline asks for. All but `None` and `GiveUp`: send what may be sent, as after any event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// Nothing: it has not come yet, or there is nothing to wait for.
    None,
    /// Pacing lets more go.
    Resume,
    /// What was late counts as lost now (RFC 8985 6.3).
    Late,
    /// No news of the last segments: one is sent again, or a new one (RFC 8985 7).
    TailLoss,
    /// The retransmission timer expired: [`Sender::next_retransmission`] names what.
    Retransmit,
    /// The peer's window holds us up: send [`Sender::probe`].
    Probe,
    /// The peer has not answered for too long: end the connection.
    GiveUp,
}

impl Sender {
    /// When [`on_timeout`](Self::on_timeout) must be called. Changes in every method that takes `now`.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        let at = self.timer.min(self.reorder_at).min(self.release_at);
        (at != Instant::FAR_FUTURE).then_some(at)
    }

    /// Looks at the clock: what [`deadline`](Self::deadline) was set for, if it has come. Calling it early does nothing.
    pub fn on_timeout(&mut self, now: Instant) -> Timeout {
        if now >= self.timer && now < self.reorder_at {
            return self.on_timer(now);
        }
        if now >= self.reorder_at {
            self.board.settle();
            return if self.find_late(now) { Timeout::Late } else { Timeout::Resume };
        }
        if now >= self.release_at {
            self.release_at = Instant::FAR_FUTURE;
            return Timeout::Resume;
        }
        Timeout::None
    }

    fn give_up(&mut self) -> Timeout {
        (self.timer, self.reorder_at, self.release_at) =
            (Instant::FAR_FUTURE, Instant::FAR_FUTURE, Instant::FAR_FUTURE);
        Timeout::GiveUp
    }

    fn on_timer(&mut self, now: Instant) -> Timeout {
        self.timer = Instant::FAR_FUTURE;
        let tail = core::mem::take(&mut self.tail_timer);
        if self.is_idle() && !self.waiting {
            return Timeout::None;
        }
        if tail && self.window > 0 {
            self.probe_tail(now);
            return Timeout::TailLoss;
        }
        if self.unanswered >= GIVE_UP_AFTER {
            return self.give_up();
        }
        self.unanswered += 1;
        self.release_at = Instant::FAR_FUTURE;
        if self.is_idle() || self.window == 0 {
            self.probing = true;
            self.probes = self.probes.saturating_add(1);
            self.timer = now.plus_micros(self.rtt.backed_off(self.probes.max(self.backoffs)));
            return Timeout::Probe;
        }
        self.on_rto(now);
        Timeout::Retransmit
    }

    /// RFC 8985 7.3: a new segment if there is one, else the last one again; either draws an acknowledgement that tells
    /// what is missing before it.
    fn probe_tail(&mut self, now: Instant) {
        self.tail = match self.board.last_missing() {
            _ if self.has_new() => Tail::MaySendNew,
            Some((offset, len)) => Tail::Resend(offset, len),
            None => Tail::Quiet,
        };
        self.base = now;
        self.timer = now.plus_micros(self.rto_us());
    }

    /// RFC 6298 5.4 to 5.6, RFC 5681 3.1.
    fn on_rto(&mut self, now: Instant) {
        let mss = self.mss();
        // Fast recovery has reduced already. One loss reduces ssthresh once, however often it takes to repair it.
        let again = self.unanswered > 1 || self.mode == Mode::Recovery;
        let watch = self.mode != Mode::Recovery;
        self.board.settle();
        if !again {
            self.begin_undo();
            self.congestion.reduce(self.pipe(), mss);
            // RFC 3168 6.1.2: said of any reduction.
            self.cwr = true;
        }
        self.congestion.after_timeout();
        self.left = 0;
        self.dup_acks = 0;
        self.tail = Tail::Quiet;
        self.reorder_at = Instant::FAR_FUTURE;
        self.mode = Mode::Loss;
        self.lose_after_timeout(now);
        self.congestion.set_cwnd(self.pipe() + u64::from(mss), mss);
        let nxt = self.nxt;
        let repair = self.repair();
        repair.recover = nxt;
        repair.guard = nxt;
        repair.frto = if watch { Frto::Watching } else { Frto::Off };
        self.backoffs = self.backoffs.saturating_add(1);
        self.base = now;
        self.timer = now.plus_micros(self.rto_us());
    }

    /// Sets the timer after something went out or came in: that of a tail loss probe (RFC 8985 7.2), but never later than
    /// the retransmission timer.
    #[inline]
    pub(super) fn arm(&mut self, now: Instant) {
        let rto_at = self.base.plus_micros(self.rtt.backed_off(self.backoffs));
        let repairs = self.mode == Mode::Loss || self.mode == Mode::Recovery;
        self.tail_timer =
            self.sack && !repairs && self.backoffs == 0 && self.tail == Tail::Quiet && self.board.is_plain();
        self.timer = if self.tail_timer {
            let alone = self.in_flight() <= u64::from(self.mss);
            rto_at.min(now.plus_micros(self.rtt.probe(alone)))
        } else {
            rto_at
        };
    }

    pub(super) fn start_timer(&mut self, now: Instant) {
        if self.timer == Instant::FAR_FUTURE {
            self.base = now;
            self.tail_timer = false;
            self.timer = now.plus_micros(self.rto_us());
        }
    }
}
