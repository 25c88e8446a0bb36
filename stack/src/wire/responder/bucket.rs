//! A token bucket that counts in microseconds.

use crate::time::Instant;

/// Lets so many things a second pass, and as many at once after a quiet second.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate_per_s: u64,
    /// Millionths of a token.
    level: u64,
    filled_at: Instant,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    pub(super) fn new(rate_per_s: u32) -> Bucket {
        let rate_per_s = u64::from(rate_per_s);
        Bucket { rate_per_s, level: rate_per_s * TOKEN, filled_at: Instant::ZERO }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let gained = now.micros_since(self.filled_at).saturating_mul(self.rate_per_s);
        self.level = self.level.saturating_add(gained).min(self.rate_per_s * TOKEN);
        self.filled_at = self.filled_at.max(now);
        let passes = self.level >= TOKEN;
        if passes {
            self.level -= TOKEN;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(10);
        let start = Instant::from_millis(5000);
        assert_eq!((0..50).filter(|_| bucket.take(start)).count(), 10);
        let passed = (0..2000).filter(|ms| bucket.take(Instant::from_millis(5000 + ms))).count();
        assert_eq!(passed, 19);
    }

    #[test]
    fn nothing_passes_at_rate_zero() {
        let mut bucket = Bucket::new(0);
        assert!(!bucket.take(Instant::from_millis(100_000)));
        assert!(!bucket.take(Instant::FAR_FUTURE));
    }

    #[test]
    fn time_that_steps_back_fills_nothing() {
        let mut bucket = Bucket::new(1);
        assert!(bucket.take(Instant::from_millis(9000)));
        assert!(!bucket.take(Instant::from_millis(1000)));
        assert!(!bucket.take(Instant::from_millis(9500)));
        assert!(bucket.take(Instant::from_millis(10_000)));
    }
}
