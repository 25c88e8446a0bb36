//! How late a request body may be, so that one which drips cannot hold a connection for ever.
//!
//! As Apache's `RequestReadTimeout body=SECONDS,MinRate=BYTES`, but for the bound: whoever was quick at first cannot be slow for
//! hours on the strength of it.

use core::time::Duration;
use khamsin_stack::Instant;

/// The time that a peer has left for its body. It runs only while it is the peer's turn to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pace {
    left: Duration,
    /// Since when it has been the peer's turn.
    turn: Option<Instant>,
    /// Bytes that came since it was looked at.
    came: u64,
}

impl Pace {
    pub(crate) fn new(timeout: Duration) -> Self {
        Pace { left: timeout, turn: None, came: 0 }
    }

    /// `n` bytes came.
    pub(crate) fn credit(&mut self, n: usize) {
        self.came += n as u64;
    }

    /// Settles for the time until `now`, after which it is, or is not, the peer's turn; how many bytes came in it.
    pub(crate) fn settle(&mut self, now: Instant, turn: bool, timeout: Duration, rate_min: u32) -> u64 {
        let spent = self.turn.map_or(Duration::ZERO, |since| now.since(since));
        let came = core::mem::take(&mut self.came);
        let earned = match came {
            0 => Duration::ZERO,
            _ => (came * 1_000_000).checked_div(u64::from(rate_min)).map_or(timeout, Duration::from_micros),
        };
        self.left = self.left.saturating_sub(spent).saturating_add(earned).min(timeout);
        self.turn = turn.then_some(now);
        came
    }

    /// When the body is too late, if nothing more comes of it; only where it is the peer's turn.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(self.turn? + self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_buy_time_up_to_the_timeout_and_the_servers_own_time_is_free() {
        let (timeout, at) = (Duration::from_secs(30), |s: u64| Instant::from_millis(s * 1000));
        let mut pace = Pace::new(timeout);
        assert_eq!(pace.deadline(), None);
        pace.settle(at(1), true, timeout, 100);
        assert_eq!(pace.deadline(), Some(at(31)));
        pace.credit(500);
        pace.settle(at(11), true, timeout, 100);
        assert_eq!(pace.deadline(), Some(at(11 + 25)));
        pace.credit(1_000_000);
        pace.settle(at(12), false, timeout, 100);
        assert_eq!(pace.deadline(), None, "ours to send");
        pace.settle(at(500), true, timeout, 100);
        assert_eq!(pace.deadline(), Some(at(530)), "never more than the timeout, and our own turn does not count");
        pace.settle(at(600), true, timeout, 100);
        pace.credit(1);
        pace.settle(at(600), true, timeout, 0);
        assert_eq!(pace.deadline(), Some(at(630)), "without a rate a byte is enough");
    }
}
