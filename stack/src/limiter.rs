//! A token bucket: how often something may be sent that a stranger's packet asks for.

use crate::Instant;

/// Allows `per_s` events a second on average, and as many at once after a quiet second.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    per_s: u32,
    /// Tokens in the bucket, in millionths.
    micro_tokens: u64,
    refilled: Instant,
}

impl Limiter {
    /// A full bucket.
    pub fn new(per_s: u32) -> Self {
        Limiter { per_s, micro_tokens: u64::from(per_s) * 1_000_000, refilled: Instant::ZERO }
    }

    /// Takes a token if there is one.
    #[inline]
    pub fn allow(&mut self, now: Instant) -> bool {
        let full = u64::from(self.per_s) * 1_000_000;
        let passed_us = now.micros_since(self.refilled).min(1_000_000);
        self.refilled = now;
        self.micro_tokens = (self.micro_tokens + passed_us * u64::from(self.per_s)).min(full);
        let enough = self.micro_tokens >= 1_000_000;
        if enough {
            self.micro_tokens -= 1_000_000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_bounded_and_the_bucket_refills_with_time() {
        let mut limiter = Limiter::new(10);
        let t = Instant::from_millis(5000);
        assert_eq!((0..100).filter(|_| limiter.allow(t)).count(), 10);
        assert_eq!((0..100).filter(|_| limiter.allow(Instant::from_millis(5500))).count(), 5);
        assert_eq!((0..100).filter(|_| limiter.allow(Instant::from_millis(500_000))).count(), 10);
    }
}
