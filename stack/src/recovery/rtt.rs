//! Round-trip time and the retransmission timeout (RFC 6298).

/// Timeout before the first measurement, microseconds (RFC 6298 2.1).
pub const RTO_INITIAL_US: u64 = 1_000_000;
/// Least timeout, microseconds. RFC 6298 2.4 says 1 s; Linux (`TCP_RTO_MIN`) and everyone who answers it live with 200 ms.
/// As Linux has it, this is what the timeout adds to the round trip at least: a peer may hold an acknowledgement back for
/// as long at any distance.
pub const RTO_MIN_US: u64 = 200_000;
/// Longest timeout and longest wait between probes, microseconds (RFC 6298 2.5).
pub const RTO_MAX_US: u64 = 60_000_000;

/// The estimator. All times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    srtt: u32,
    variation: u32,
    rto: u32,
}

impl Rtt {
    pub(super) const fn new() -> Self {
        Rtt { srtt: 0, variation: 0, rto: RTO_INITIAL_US as u32 }
    }

    /// The smoothed round-trip time; `None` before the first measurement.
    pub(super) fn srtt(&self) -> Option<u64> {
        (self.srtt > 0).then_some(u64::from(self.srtt))
    }

    /// The timeout, before any backoff.
    pub(super) fn rto(&self) -> u64 {
        u64::from(self.rto)
    }

    /// The timeout after `backoffs` doublings.
    pub(super) fn backed_off(&self, backoffs: u8) -> u64 {
        (self.rto() << backoffs.min(16)).min(RTO_MAX_US)
    }

    /// The first timeout was too short for the handshake (RFC 6298 5.7).
    pub(super) fn handshake_was_lost(&mut self) {
        if self.srtt == 0 {
            self.rto = 3 * RTO_INITIAL_US as u32;
        }
    }

    /// One measurement of a segment that was sent once (Karn).
    pub(super) fn sample(&mut self, rtt_us: u64) {
        let rtt = rtt_us.clamp(1, RTO_MAX_US) as u32;
        if self.srtt == 0 {
            self.srtt = rtt;
            self.variation = rtt / 2;
        } else {
            // RFC 6298 2.3: beta = 1/4, alpha = 1/8. No value exceeds 60 s: the sums fit.
            self.variation = (3 * self.variation + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = ((7 * u64::from(self.srtt) + u64::from(rtt)) / 8).max(1) as u32;
        }
        let rto = u64::from(self.srtt) + u64::from(4 * self.variation).max(RTO_MIN_US);
        self.rto = rto.min(RTO_MAX_US) as u32;
    }
}
