//! Proportional rate reduction (RFC 9937): what goes out while the window comes down.

/// One reduction, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prr {
    delivered: u64,
    out: u64,
    /// RecoverFS: what was in flight when it began.
    flight: u64,
}

impl Prr {
    /// A reduction begins with `flight` bytes that were neither acknowledged nor reported before this acknowledgement.
    pub(super) fn new(flight: u64) -> Self {
        Prr { delivered: 0, out: 0, flight: flight.max(1) }
    }

    /// Something went out, new or again.
    pub(super) fn sent(&mut self, len: u64) {
        self.out += len;
    }

    /// An acknowledgement delivered bytes; returns the congestion window. `safe`: it moved `una` and reported no further
    /// loss, so that slow start may be afforded below `ssthresh` (SSRB), else no more goes out than arrived (CRB).
    pub(super) fn window(&mut self, delivered: u64, pipe: u64, ssthresh: u64, safe: bool, mss: u64) -> u64 {
        self.delivered += delivered;
        let more = if pipe > ssthresh {
            (self.delivered * ssthresh).div_ceil(self.flight).saturating_sub(self.out)
        } else {
            let bound = self.delivered.saturating_sub(self.out).max(delivered);
            (bound + if safe { mss } else { 0 }).min(ssthresh - pipe)
        };
        // The first lost segment goes at once.
        pipe + if self.out == 0 { more.max(mss) } else { more }
    }
}
