//! How long a connection waits for its peer: keep-alive probes (RFC 9293 3.8.4), the user timeout (RFC 9293 3.8.3), and an
//! end for orphans, whose application has let go of them.

use super::{Connection, Env, Fate};
use crate::app::Patience;
use crate::limits::{KEEP_ALIVE_GAP_US, KEEP_ALIVE_PROBES, ORPHAN_US};
use crate::{CloseReason, Instant, Queue};

/// The clocks of one connection. Durations in microseconds; 0: never.
pub(super) struct Waiting {
    keep_alive_us: u64,
    user_timeout_us: u64,
    /// When the last acceptable segment came.
    heard_at: Instant,
    /// Keep-alive probes since then.
    probes: u8,
    /// When the peer last took something, or when it was first given something to take.
    progress_at: Instant,
    /// Something is unacknowledged, or waits for the peer's window.
    waits: bool,
}

impl Waiting {
    pub(super) fn new(now: Instant, patience: &Patience) -> Self {
        let micros = |d: Option<core::time::Duration>| d.map_or(0, |d| (d.as_micros() as u64).max(1));
        Waiting {
            keep_alive_us: micros(patience.keep_alive),
            user_timeout_us: micros(patience.user_timeout),
            heard_at: now,
            probes: 0,
            progress_at: now,
            waits: false,
        }
    }

    /// An acceptable segment came.
    #[inline]
    pub(super) fn heard(&mut self, now: Instant) {
        (self.heard_at, self.probes) = (now, 0);
    }

    /// The peer has taken something.
    #[inline]
    pub(super) fn progressed(&mut self, now: Instant) {
        self.progress_at = now;
    }

    /// Takes note of whether the peer owes an acknowledgement or a window.
    #[inline]
    pub(super) fn note(&mut self, now: Instant, waits: bool) {
        if waits && !self.waits {
            self.progress_at = now;
        }
        self.waits = waits;
    }

    /// When the peer's silence becomes too long, or is to be asked about.
    #[inline]
    pub(super) fn deadline(&self, orphan: bool) -> Instant {
        let limit = |us: u64| if us == 0 { u64::MAX } else { us };
        if self.waits {
            let orphan_us = if orphan { ORPHAN_US } else { 0 };
            self.progress_at.plus_micros(limit(self.user_timeout_us).min(limit(orphan_us)))
        } else {
            let gap = KEEP_ALIVE_GAP_US.min(self.keep_alive_us);
            self.heard_at.plus_micros(limit(self.keep_alive_us).saturating_add(u64::from(self.probes) * gap))
        }
    }
}

impl<S> Connection<S> {
    /// Nobody will read an answer, and nothing is left to say but what is on its way: an orphan in Linux' terms.
    #[inline]
    pub(super) fn is_orphan(&self) -> bool {
        self.tx.shutdown
    }

    /// The peer has been silent for too long, or is to be asked whether it lives.
    pub(super) fn on_silence<Q: Queue>(&mut self, env: &mut Env<'_, Q>) -> Fate {
        if self.waiting.waits || self.waiting.probes >= KEEP_ALIVE_PROBES {
            self.send_reset(env);
            return Fate::Over(CloseReason::TimedOut);
        }
        self.waiting.probes += 1;
        env.world.counters.keep_alives += 1;
        self.send_keep_alive(env);
        Fate::Live
    }
}
