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
    /// Times since then that it should have been parked and could not.
    refusals: u8,
    /// Silence after which it is parked, and when it is tried at the soonest.
    park_after_us: u64,
    not_before: Instant,
    /// When the peer last took something, or when it was first given something to take.
    progress_at: Instant,
    /// Something is unacknowledged, or waits for the peer's window.
    waits: bool,
}

impl Waiting {
    pub(super) fn new(now: Instant, patience: &Patience, park_after_us: Option<u64>) -> Self {
        let micros = |d: Option<core::time::Duration>| d.map_or(0, |d| (d.as_micros() as u64).max(1));
        Waiting {
            keep_alive_us: micros(patience.keep_alive),
            user_timeout_us: micros(patience.user_timeout),
            heard_at: now,
            probes: 0,
            refusals: 0,
            not_before: Instant::ZERO,
            park_after_us: park_after_us.unwrap_or(u64::MAX),
            progress_at: now,
            waits: false,
        }
    }

    /// An acceptable segment came.
    #[inline]
    pub(super) fn heard(&mut self, now: Instant) {
        (self.heard_at, self.probes, self.refusals, self.not_before) = (now, 0, 0, Instant::ZERO);
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

impl Waiting {
    /// When the connection has been silent for long enough to be parked; `FAR_FUTURE`: it waits for its peer, or never is.
    #[inline]
    pub(super) fn quiet_at(&self) -> Instant {
        if self.waits || self.probes > 0 {
            return Instant::FAR_FUTURE;
        }
        self.heard_at.plus_micros(self.park_after_us).max(self.not_before)
    }

    /// It could not be parked at `now`: it is tried again after twice as long each time.
    pub(super) fn refuse_to_park(&mut self, now: Instant) {
        self.refusals = (self.refusals + 1).min(REFUSALS_MAX);
        let pause_us = self.park_after_us.max(REFUSED_US).saturating_mul(1 << self.refusals);
        self.not_before = now.plus_micros(pause_us);
    }

    /// When the last acceptable segment came.
    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Whether the peer owes nothing, and is not being asked whether it lives.
    pub(super) fn is_calm(&self) -> bool {
        !self.waits && self.probes == 0
    }

    /// When the peer is to be asked whether it lives, if ever, after a silence of so many microseconds.
    pub(super) fn asks_at(&self) -> Option<(Instant, u64)> {
        (self.keep_alive_us > 0).then(|| (self.heard_at.plus_micros(self.keep_alive_us), self.keep_alive_us))
    }
}

/// Doublings of the silence after which a connection that could not be parked is tried again.
const REFUSALS_MAX: u8 = 12;
/// The least of that silence, microseconds.
const REFUSED_US: u64 = 1_000;

impl<S> Connection<S> {
    /// Nobody will read an answer, and nothing is left to say but what is on its way: an orphan in Linux' terms.
    #[inline]
    pub(super) fn is_orphan(&self) -> bool {
        self.tx.shutdown
    }

    /// An orphan whose peer has said nothing for `silence_us`: most likely it is gone.
    pub(crate) fn is_forsaken(&self, now: Instant, silence_us: u64) -> bool {
        let Waiting { heard_at, progress_at, .. } = self.waiting;
        self.is_orphan() && now.micros_since(heard_at.max(progress_at)) >= silence_us
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
