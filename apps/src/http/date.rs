//! The `Date` field, written once a second.

use khamsin_stack::Instant;
use std::time::{Duration, UNIX_EPOCH};

/// Seconds since 1970 as an HTTP date (RFC 9110 5.6.7).
pub(crate) fn http_date(unix_seconds: u64) -> String {
    // 9999-12-31T23:59:59Z, the last date that the format can express.
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_seconds.min(253_402_300_799)))
}

/// An HTTP date in any of its three formats, in seconds since 1970.
pub(crate) fn parse_http_date(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(core::str::from_utf8(value).ok()?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Turns the monotonic `now` into dates.
#[derive(Debug)]
pub(crate) struct Calendar {
    unix_at_zero_us: u64,
    next_second: Instant,
    unix_seconds: u64,
}

impl Calendar {
    pub(crate) fn new(unix_at_zero_us: u64) -> Self {
        Calendar { unix_at_zero_us, next_second: Instant::ZERO, unix_seconds: 0 }
    }

    /// Moves on to `now`; true when the date changed.
    #[inline]
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        if now < self.next_second {
            return false;
        }
        let unix_us = self.unix_at_zero_us.saturating_add(now.micros());
        self.unix_seconds = unix_us / 1_000_000;
        self.next_second = now.plus_micros(1_000_000 - unix_us % 1_000_000);
        true
    }

    /// Seconds since 1970 at the last tick.
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_changes_on_the_second() {
        let mut calendar = Calendar::new(784_111_777_400_000);
        assert!(calendar.tick(Instant::ZERO));
        assert_eq!(http_date(calendar.unix_seconds()), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(!calendar.tick(Instant::from_micros(599_999)));
        assert!(calendar.tick(Instant::from_micros(600_000)));
        assert_eq!(http_date(calendar.unix_seconds()), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert!(calendar.tick(Instant::from_millis(10_000)));
    }

    #[test]
    fn all_three_formats_are_read() {
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse_http_date(date.as_bytes()), Some(784_111_777), "{date}");
        }
        for date in ["", "yesterday", "Sun, 06 Nov 1894 08:49:37 GMT", "\u{fffd}"] {
            assert_eq!(parse_http_date(date.as_bytes()), None, "{date}");
        }
    }

    #[test]
    fn a_clock_gone_mad_does_not_panic() {
        let mut calendar = Calendar::new(u64::MAX);
        assert!(calendar.tick(Instant::FAR_FUTURE));
        assert!(http_date(calendar.unix_seconds()).ends_with("9999 23:59:59 GMT"));
    }
}
