//! How much may be on its way: the congestion window.

use super::cubic::Cubic;
use super::hystart::HyStart;
use crate::Instant;

/// Which algorithm moves the congestion window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681 with RFC 6582.
    NewReno,
}

/// The congestion window and the algorithm that moves it, with its state. Slow start is the same for both (RFC 5681 with
/// HyStart++, RFC 9406); they differ in congestion avoidance and in what a loss costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Congestion {
    cwnd: u32,
    ssthresh: u32,
    start: HyStart,
    law: Law,
}

#[derive(Clone, Copy, Debug)]
enum Law {
    Cubic(Cubic),
    /// Bytes acknowledged in congestion avoidance and not yet turned into growth.
    NewReno {
        acked: u32,
    },
}

/// No window is larger, bytes: RFC 7323 cannot express more, and no sum overflows.
const WINDOW_MAX: u32 = 1 << 30;

/// Initial window, bytes (RFC 6928).
pub fn initial_window(mss: u32) -> u32 {
    (10 * mss).min((2 * mss).max(14_600))
}

impl Congestion {
    pub(super) fn new(algorithm: Algorithm, mss: u32) -> Self {
        let law = match algorithm {
            Algorithm::Cubic => Law::Cubic(Cubic::default()),
            Algorithm::NewReno => Law::NewReno { acked: 0 },
        };
        Congestion { cwnd: initial_window(mss), ssthresh: u32::MAX, start: HyStart::default(), law }
    }

    /// Congestion window, bytes.
    #[inline]
    pub(super) fn cwnd(&self) -> u32 {
        self.cwnd
    }

    /// Slow start threshold, bytes; `u32::MAX` until the first loss.
    #[inline]
    pub(super) fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    /// Which algorithm moves the window.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self.law {
            Law::Cubic(_) => Algorithm::Cubic,
            Law::NewReno { .. } => Algorithm::NewReno,
        }
    }

    /// Goes on with the window and the threshold that a connection had; a curve begins anew.
    pub(super) fn restore(&mut self, cwnd: u32, ssthresh: u32, mss: u32) {
        (self.cwnd, self.ssthresh) = (cwnd.clamp(mss, WINDOW_MAX), ssthresh);
    }

    /// Whether the window doubles each round trip.
    #[inline]
    pub(super) fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Whether round trips decide where slow start ends.
    #[inline]
    pub(super) fn watches_round_trips(&self) -> bool {
        self.ssthresh == u32::MAX
    }

    /// A round trip was measured while the window was used; `paths_least` is the least that the path has shown, `una`..`nxt`
    /// is in flight after it.
    pub(super) fn on_round_trip(&mut self, now: Instant, rtt_us: u32, paths_least: u32, una: u64, nxt: u64) {
        if self.start.sample(now, rtt_us, paths_least, una, nxt) {
            self.ssthresh = self.cwnd;
        }
    }

    /// `delivered` bytes arrived while the window was what held the sender back. Byte counting without a limit per ACK
    /// (RFC 9406 4.2, L = infinity): what a long window lets go at once is held by pacing, and receivers that merge
    /// segments acknowledge 64 KiB at a time.
    pub(super) fn on_delivered(&mut self, now: Instant, delivered: u64, mss: u32, srtt_us: u32) {
        let mut bytes = delivered.min(u64::from(WINDOW_MAX)) as u32;
        if self.cwnd < self.ssthresh {
            let growth = self.start.growth(bytes).min(self.ssthresh - self.cwnd);
            self.cwnd = (self.cwnd + growth).min(WINDOW_MAX);
            bytes = bytes.saturating_sub(growth);
            if self.cwnd < self.ssthresh || bytes == 0 {
                return;
            }
        }
        self.cwnd = match &mut self.law {
            Law::Cubic(cubic) => cubic.grow(now, self.cwnd, bytes, mss, srtt_us),
            Law::NewReno { acked } => {
                *acked = acked.saturating_add(bytes);
                if *acked >= self.cwnd {
                    *acked -= self.cwnd;
                    self.cwnd + mss
                } else {
                    self.cwnd
                }
            }
        }
        .min(WINDOW_MAX);
    }

    /// Congestion: `ssthresh` is set, the window itself is brought there by the caller. `flight`: bytes on their
    /// way; what exceeds the window was let go by duplicates and is no measure of the path.
    pub(super) fn reduce(&mut self, flight: u64, mss: u32) {
        let target = match &mut self.law {
            Law::Cubic(cubic) => cubic.reduce(self.cwnd),
            Law::NewReno { acked } => {
                *acked = 0;
                (flight.min(u64::from(self.cwnd)) / 2) as u32
            }
        };
        self.ssthresh = target.max(2 * mss);
    }

    /// The retransmission timer expired: congestion avoidance starts from nothing (RFC 9438 4.8).
    pub(super) fn after_timeout(&mut self) {
        if let Law::Cubic(cubic) = &mut self.law {
            cubic.forget();
        }
    }

    /// The window as something else than growth determines it, bytes; never below one segment.
    pub(super) fn set_cwnd(&mut self, cwnd: u64, mss: u32) {
        self.cwnd = (cwnd.min(u64::from(WINDOW_MAX)) as u32).max(mss);
    }

    /// The reduction since `before` was wrong (RFC 4015 3.2, RFC 9438 4.9).
    pub(super) fn undo(&mut self, before: &Congestion) {
        let cwnd = self.cwnd.max(before.cwnd);
        let ssthresh = self.ssthresh.max(before.ssthresh);
        *self = Congestion { cwnd, ssthresh, ..*before };
    }

    /// The reduction since `before` was wrong, and another one has followed it: that one should have begun from there.
    pub(super) fn undo_earlier(&mut self, before: &Congestion, mss: u32) {
        let mut meant = *before;
        meant.reduce(u64::from(before.cwnd), mss);
        self.ssthresh = self.ssthresh.max(meant.ssthresh);
        self.law = meant.law;
    }

    /// Nothing was sent for `timeouts` retransmission timeouts: the window halves for each (RFC 5681 4.1 as RFC 2861 and
    /// Linux soften it) down to the initial one; three quarters of it are remembered.
    pub(super) fn after_idle(&mut self, timeouts: u64, mss: u32) {
        let least = initial_window(mss).min(self.cwnd);
        if self.ssthresh != u32::MAX {
            self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        }
        self.cwnd = (self.cwnd >> timeouts.min(31)).max(least);
    }

    /// The handshake's own segment was lost: start with one segment (RFC 5681 3.1).
    pub(super) fn after_lost_handshake(&mut self, mss: u32) {
        self.cwnd = mss;
    }

    /// The segment size changed: the window never falls below one segment.
    pub(super) fn at_least(&mut self, mss: u32) {
        self.cwnd = self.cwnd.max(mss);
        self.ssthresh = self.ssthresh.max(2 * mss);
    }
}
