//! One configured gateway: where it is, and when to ask again.

use super::is_v4;
use crate::time::Instant;

/// Between two questions to a gateway that answers, microseconds.
const REFRESH_US: u64 = 30_000_000;
/// The first wait for an answer, microseconds; it doubles up to [`REFRESH_US`].
const RETRY_US: u64 = 1_000_000;
/// Unanswered questions after which a known MAC is forgotten.
const TRIES_MAX: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct Gateway {
    pub(super) ip: u128,
    /// Our address that asks.
    pub(super) source: u128,
    /// Where it is, as far as it has told us.
    pub(super) mac: Option<[u8; 6]>,
    /// When to ask (again).
    pub(super) due: Instant,
    asked_at: Instant,
    /// Questions since the last answer.
    unanswered: u32,
}

impl Gateway {
    pub(super) fn new(ip: u128, source: u128) -> Gateway {
        Gateway { ip, source, mac: None, due: Instant::ZERO, asked_at: Instant::ZERO, unanswered: 0 }
    }

    pub(super) fn is_v4(&self) -> bool {
        is_v4(self.ip)
    }

    /// A question goes out.
    pub(super) fn asked(&mut self, now: Instant) {
        if self.unanswered >= TRIES_MAX {
            self.mac = None;
        }
        let wait = (RETRY_US << self.unanswered.min(8)).min(REFRESH_US);
        self.unanswered = self.unanswered.saturating_add(1);
        self.asked_at = now;
        self.due = now.plus_micros(wait);
    }

    /// The gateway, or somebody in its name, says where it is. Only an answer to an open question is believed; an
    /// unasked word of another place brings the next question forward. Returns whether it was believed.
    pub(super) fn heard(&mut self, now: Instant, mac: [u8; 6], solicited: bool) -> bool {
        if solicited && self.unanswered > 0 {
            self.mac = Some(mac);
            self.unanswered = 0;
            self.due = now.plus_micros(REFRESH_US);
            return true;
        }
        if self.mac.is_some_and(|known| known != mac) && self.unanswered == 0 {
            self.due = self.due.min(self.asked_at.plus_micros(RETRY_US).max(now));
        }
        false
    }
}
