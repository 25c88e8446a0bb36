//! HyStart++ (RFC 9406): slow start ends when round trips grow, before the queue overflows.
//!
//! Beside it the acknowledgement train of the first HyStart (Ha and Rhee 2011; Linux: `hystart_update`), which sees the end
//! half a window earlier: acknowledgements that come one after another for half a round trip say that the window fills the
//! path. Linux must not pace for that to mean something; here what was sent is compared with what came back, and only a
//! train that the path has stretched counts.

use crate::Instant;

/// Round trips of a round that are needed before it is judged.
const SAMPLES: u8 = 8;
/// A round trip counts as longer when it exceeds the last round's least by an eighth, within these bounds, microseconds.
const LONGER_MIN_US: u32 = 4_000;
const LONGER_MAX_US: u32 = 16_000;
/// Growth in conservative slow start is divided by this.
const CONSERVATIVE_DIVISOR: u32 = 4;
/// Rounds of conservative slow start before it ends.
const CONSERVATIVE_ROUNDS: u8 = 5;
/// Acknowledgements further apart than this are not of one train, microseconds (Linux: `hystart_ack_delta_us`).
const TRAIN_GAP_US: u64 = 2_000;
/// Acknowledgements in a row that must say that the path has stretched their train: single ones may have been delayed.
const TRAIN_SAMPLES: u8 = 8;

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
    train: Train,
}

/// The acknowledgements of a round, as long as they come one after another.
#[derive(Clone, Copy, Debug, Default)]
struct Train {
    began: Instant,
    last: Instant,
    /// Round trip of the first.
    first_rtt: u32,
    stretched: u8,
    broken: bool,
}

impl Default for HyStart {
    fn default() -> Self {
        HyStart {
            round_end: 0,
            last_least: u32::MAX,
            least: u32::MAX,
            baseline: u32::MAX,
            samples: 0,
            rounds: 0,
            train: Train::default(),
        }
    }
}

impl HyStart {
    /// What `bytes` acknowledged add to the window.
    pub(super) fn growth(&self, bytes: u32) -> u32 {
        if self.baseline == u32::MAX { bytes } else { bytes / CONSERVATIVE_DIVISOR }
    }

    /// A round trip, beside the least that the path has shown; says whether slow start is over.
    pub(super) fn sample(&mut self, now: Instant, rtt_us: u32, paths_least: u32, una: u64, nxt: u64) -> bool {
        let filled = self.train.sample(now, rtt_us, paths_least);
        self.least = self.least.min(rtt_us);
        self.samples = self.samples.saturating_add(1);
        if self.samples >= SAMPLES {
            self.judge();
        }
        if una < self.round_end {
            return filled;
        }
        self.round_end = nxt;
        self.train = Train { began: now, last: now, first_rtt: rtt_us, ..Train::default() };
        self.last_least = self.least;
        self.least = u32::MAX;
        self.samples = 0;
        if self.baseline != u32::MAX {
            self.rounds += 1;
        }
        filled || self.rounds >= CONSERVATIVE_ROUNDS
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

impl Train {
    /// One more; says whether the path is full.
    fn sample(&mut self, now: Instant, rtt_us: u32, paths_least: u32) -> bool {
        self.broken |= now.micros_since(self.last) > TRAIN_GAP_US;
        self.last = now;
        let came_over = now.micros_since(self.began);
        if self.broken || came_over < u64::from(paths_least / 2) {
            return false;
        }
        // What round trips have grown by is what the train has: it left in so much less time than it came back in.
        let grown = u64::from(rtt_us.saturating_sub(self.first_rtt));
        self.stretched = if 5 * grown >= came_over { self.stretched.saturating_add(1) } else { 0 };
        self.stretched >= TRAIN_SAMPLES
    }
}
