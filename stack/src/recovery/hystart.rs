//! HyStart++ (RFC 9406): slow start ends when round trips grow, before the queue overflows.

/// Round trips of a round that are needed before it is judged.
const SAMPLES: u8 = 8;
/// A round trip counts as longer when it exceeds the last round's least by an eighth, within these bounds, microseconds.
const LONGER_MIN_US: u32 = 4_000;
const LONGER_MAX_US: u32 = 16_000;
/// Growth in conservative slow start is divided by this.
const CONSERVATIVE_DIVISOR: u32 = 4;
/// Rounds of conservative slow start before it ends.
const CONSERVATIVE_ROUNDS: u8 = 5;

/// State of one slow start. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    /// The round ends when this is acknowledged.
    round_end: u64,
    last_least: u32,
    least: u32,
    /// In conservative slow start: the least of the round that led there; `u32::MAX` otherwise.
    baseline: u32,
    samples: u8,
    rounds: u8,
}

impl Default for HyStart {
    fn default() -> Self {
        HyStart { round_end: 0, last_least: u32::MAX, least: u32::MAX, baseline: u32::MAX, samples: 0, rounds: 0 }
    }
}

impl HyStart {
    /// What `bytes` acknowledged add to the window.
    pub(super) fn growth(&self, bytes: u32) -> u32 {
        if self.baseline == u32::MAX { bytes } else { bytes / CONSERVATIVE_DIVISOR }
    }

    /// A round trip; says whether slow start is over.
    pub(super) fn sample(&mut self, rtt_us: u32, una: u64, nxt: u64) -> bool {
        self.least = self.least.min(rtt_us);
        self.samples = self.samples.saturating_add(1);
        if self.samples >= SAMPLES {
            self.judge();
        }
        if una < self.round_end {
            return false;
        }
        self.round_end = nxt;
        self.last_least = self.least;
        self.least = u32::MAX;
        self.samples = 0;
        if self.baseline != u32::MAX {
            self.rounds += 1;
        }
        self.rounds >= CONSERVATIVE_ROUNDS
    }

    fn judge(&mut self) {
        if self.baseline != u32::MAX {
            if self.least < self.baseline {
                // It was jitter.
                self.baseline = u32::MAX;
                self.rounds = 0;
            }
            return;
        }
        let longer = (self.last_least / 8).clamp(LONGER_MIN_US, LONGER_MAX_US);
        if self.last_least != u32::MAX && self.least >= self.last_least.saturating_add(longer) {
            self.baseline = self.least;
            self.rounds = 0;
        }
    }
}
