//! Pacing: a window that is not clocked by acknowledgements goes out over a part of the round trip.
//!
//! Rates are Linux's (`tcp_update_pacing_rate`): twice the window per round trip in slow start, 1.2 times afterwards.
//! Everything here asks for a window in use: below half of it nothing is held back or even counted, so that answers that
//! fit go out at once, and the pacer costs a comparison.

use crate::Instant;

/// What may go out ahead of the rate, microseconds of it: the grain of the timers that release the rest.
const AHEAD_US: u64 = 1_000;
/// Round trips below this are not paced, microseconds: the timers are too coarse to do better than the acknowledgements.
const ROUND_TRIP_MIN_US: u32 = 5_000;
/// Windows below this are not paced, segments: their bursts fit into any queue, and what is short should be over soon.
const WINDOW_MIN: u32 = 64;

/// When what was sent is paid for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacer {
    paid_at: Instant,
}

/// The rate, as the window that is spread over a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    window: u64,
    over_us: u64,
}

impl Rate {
    /// `None`: not paced.
    #[inline]
    pub(super) fn new(cwnd: u32, mss: u32, srtt_us: u32, slow_start: bool) -> Option<Rate> {
        if srtt_us < ROUND_TRIP_MIN_US || cwnd < WINDOW_MIN * mss {
            return None;
        }
        let over_us = u64::from(srtt_us) * 10 / if slow_start { 20 } else { 12 };
        Some(Rate { window: u64::from(cwnd), over_us })
    }
}

impl Pacer {
    pub(super) const fn new() -> Self {
        Pacer { paid_at: Instant::ZERO }
    }

    /// `len` bytes go out now.
    pub(super) fn sent(&mut self, now: Instant, len: u64, rate: Rate) {
        self.paid_at = self.paid_at.max(now).plus_micros(len * rate.over_us / rate.window);
    }

    /// Bytes that may go out now, or when some may again.
    pub(super) fn room(&self, now: Instant, rate: Rate) -> Result<u64, Instant> {
        let debt_us = self.paid_at.micros_since(now);
        if debt_us >= AHEAD_US {
            return Err(self.paid_at);
        }
        Ok((AHEAD_US - debt_us) * rate.window / rate.over_us)
    }
}
