//! How often something may be sent that a stranger's packet asks for.

use crate::Instant;
use core::hash::Hasher;
use siphasher::sip::SipHasher13;

/// Allows `per_s` events a second on average; how many in each second is a secret.
///
/// All strangers share one limit. Were it a known number, one who counts his own answers could tell whether a segment that he
/// sent under another's address drew one as well, and so whether there is such a flow (CVE-2016-5696). Each second has
/// between half and one and a half times as many, as Linux had it from 4.7 on (`tcp_challenge_ack_limit`): a single one is
/// lost in that.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    per_s: u32,
    /// Events left in the current second.
    left: u32,
    since: Instant,
    secret: u64,
    seconds: u64,
}

const SECOND_US: u64 = 1_000_000;

impl Limiter {
    /// `secret` is known to nobody else, and another one for each limiter.
    pub fn new(per_s: u32, secret: u64) -> Self {
        let mut limiter = Limiter { per_s, left: 0, since: Instant::ZERO, secret, seconds: 0 };
        limiter.begin(Instant::ZERO);
        limiter
    }

    /// Whether one more may go.
    #[inline]
    pub fn allow(&mut self, now: Instant) -> bool {
        if now.micros_since(self.since) >= SECOND_US || now < self.since {
            self.begin(now);
        }
        let enough = self.left > 0;
        self.left = self.left.saturating_sub(1);
        enough
    }

    fn begin(&mut self, now: Instant) {
        let mut hash = SipHasher13::new_with_keys(self.secret, u64::from(self.per_s));
        hash.write_u64(self.seconds);
        self.seconds += 1;
        self.since = now;
        self.left = self.per_s / 2 + (hash.finish() % (u64::from(self.per_s) + 1)) as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limiter: &mut Limiter, now: Instant) -> usize {
        (0..1000).filter(|_| limiter.allow(now)).count()
    }

    #[test]
    fn a_second_has_about_as_many_and_the_next_one_has_others() {
        let mut limiter = Limiter::new(100, 7);
        let t = Instant::from_millis(5000);
        let first = allowed(&mut limiter, t);
        assert!((50..=150).contains(&first), "{first}");
        assert_eq!(allowed(&mut limiter, t.plus_micros(999_999)), 0);
        assert!(allowed(&mut limiter, t.plus_micros(1_000_000)) >= 50);
        assert!(allowed(&mut limiter, Instant::from_millis(1)) >= 50, "a clock that went back locks nobody out");
    }

    #[test]
    fn how_many_is_spread_evenly_and_not_the_same_for_another_secret() {
        let counts = |secret| -> Vec<usize> {
            let mut limiter = Limiter::new(100, secret);
            (1..=1000).map(|s| allowed(&mut limiter, Instant::from_millis(1000 * s))).collect()
        };
        let one = counts(1);
        let mean = one.iter().sum::<usize>() / one.len();
        assert!((95..=105).contains(&mean), "{mean}");
        assert!(one.iter().min() < Some(&55) && one.iter().max() > Some(&145));
        assert_ne!(one, counts(2));
    }
}
