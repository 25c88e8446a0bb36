//! Round-trip time, the retransmission timeout (RFC 6298) and the probe timeout (RFC 8985 7.2).

use crate::Instant;

/// Timeout before the first measurement, microseconds (RFC 6298 2.1).
pub const RTO_INITIAL_US: u64 = 1_000_000;
/// Least timeout, microseconds. RFC 6298 2.4 says 1 s; Linux (`TCP_RTO_MIN`) and everyone who answers it live with 200 ms.
/// As Linux has it, this is what the timeout adds to the round trip at least: a peer may hold an acknowledgement back for
/// as long at any distance.
pub const RTO_MIN_US: u64 = 200_000;
/// Longest timeout and longest wait between probes, microseconds (RFC 6298 2.5).
pub const RTO_MAX_US: u64 = 60_000_000;
/// How long the least round trip is remembered, microseconds: paths change (Linux: `tcp_min_rtt_wlen`, 300 s).
const LEAST_FOR_US: u64 = 300_000_000;
/// What a probe waits for beyond two round trips, microseconds: a timer's grain, and for a lone segment the peer's
/// delayed acknowledgement (Linux: `TCP_TIMEOUT_MIN`, `TCP_RTO_MIN`).
const PROBE_SLACK_US: u32 = 2_000;
const PROBE_ALONE_US: u32 = 200_000;

/// The estimator. All times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    srtt: u32,
    variation: u32,
    rto: u32,
    least: u32,
    least_at: Instant,
}

impl Rtt {
    pub(super) const fn new() -> Self {
        Rtt { srtt: 0, variation: 0, rto: RTO_INITIAL_US as u32, least: u32::MAX, least_at: Instant::ZERO }
    }

    /// The smoothed round-trip time; `None` before the first measurement.
    #[inline]
    pub(super) fn srtt(&self) -> Option<u64> {
        (self.srtt > 0).then_some(u64::from(self.srtt))
    }

    /// The least round trip of the last minutes; `u32::MAX` before the first measurement.
    #[inline]
    pub(super) fn least(&self) -> u32 {
        self.least
    }

    /// The timeout, before any backoff.
    #[inline]
    pub(super) fn rto(&self) -> u64 {
        u64::from(self.rto)
    }

    /// The timeout after `backoffs` doublings.
    #[inline]
    pub(super) fn backed_off(&self, backoffs: u8) -> u64 {
        (self.rto() << backoffs.min(16)).min(RTO_MAX_US)
    }

    /// How long to wait for news of the tail of what was sent; `alone`: it is a single segment.
    #[inline]
    pub(super) fn probe(&self, alone: bool) -> u64 {
        if self.srtt == 0 {
            return RTO_INITIAL_US;
        }
        u64::from(2 * self.srtt + if alone { PROBE_ALONE_US } else { PROBE_SLACK_US })
    }

    /// The first timeout was too short for the handshake (RFC 6298 5.7).
    pub(super) fn handshake_was_lost(&mut self) {
        if self.srtt == 0 {
            self.rto = 3 * RTO_INITIAL_US as u32;
        }
    }

    /// What is remembered of a connection that rests: round trip, variation, and whether the handshake was lost.
    pub(super) fn parts(&self) -> (u32, u32, bool) {
        (self.srtt, self.variation, self.srtt == 0 && self.rto > RTO_INITIAL_US as u32)
    }

    /// Goes on from [`parts`](Self::parts), as they were at `since`.
    pub(super) fn restore(&mut self, since: Instant, srtt: u32, variation: u32, handshake_lost: bool) {
        if srtt > 0 {
            (self.srtt, self.variation) = (srtt.min(RTO_MAX_US as u32), variation.min(RTO_MAX_US as u32));
            self.take_timeout();
            // The least itself is not remembered; this much it was at most.
            (self.least, self.least_at) = (self.srtt, since);
        } else if handshake_lost {
            self.handshake_was_lost();
        }
    }

    /// The round trip of the newest segment that an ACK delivered: it tells best how short the path is.
    #[inline]
    pub(super) fn note_least(&mut self, now: Instant, rtt_us: u32) {
        if rtt_us <= self.least || now.micros_since(self.least_at) > LEAST_FOR_US {
            self.least = rtt_us.max(1);
            self.least_at = now;
        }
    }

    /// One measurement of a segment that was sent once, or whose timestamp tells which copy was acknowledged (Karn).
    #[inline]
    pub(super) fn sample(&mut self, rtt_us: u64) {
        let rtt = rtt_us.clamp(1, RTO_MAX_US) as u32;
        if self.srtt == 0 {
            self.srtt = rtt;
            self.variation = rtt / 2;
        } else {
            // RFC 6298 2.3: beta = 1/4, alpha = 1/8. No value exceeds 60 s: the sums fit.
            self.variation = (3 * self.variation + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = ((7 * self.srtt + rtt) / 8).max(1);
        }
        self.take_timeout();
    }

    #[inline]
    fn take_timeout(&mut self) {
        let rto = self.srtt + (4 * self.variation).max(RTO_MIN_US as u32);
        self.rto = rto.min(RTO_MAX_US as u32);
    }
}
