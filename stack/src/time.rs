//! Time as an argument: microseconds since an epoch that the caller chose.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A point in time, in microseconds since an epoch that the owner of the clock chose.
///
/// Only differences mean anything. The stack never makes one out of nothing: every entry point takes `now`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The epoch itself.
    pub const ZERO: Instant = Instant(0);
    /// Later than every other instant; stands for "never" where an `Option` would cost a branch.
    pub const FAR_FUTURE: Instant = Instant(u64::MAX);

    /// The instant `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Instant(micros)
    }

    /// The instant `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Instant(millis * 1000)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Microseconds since `earlier`, or 0 when `earlier` lies in the future.
    pub const fn micros_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Time since `earlier`, or zero when `earlier` lies in the future.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }

    /// This instant moved by `micros` microseconds; stops at [`Instant::FAR_FUTURE`].
    pub const fn plus_micros(self, micros: u64) -> Instant {
        Instant(self.0.saturating_add(micros))
    }
}

/// An instant in four bytes: a multiple of 65,536 microseconds, up to almost nine years from the epoch. For what must be
/// remembered of very many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Coarse(u32);

/// Microseconds of a step, as a power of two.
const COARSE_SHIFT: u32 = 16;

impl Coarse {
    /// Later than every other; comes back as [`Instant::FAR_FUTURE`].
    pub const NEVER: Coarse = Coarse(u32::MAX);

    /// The last one that is not after `at`.
    pub const fn before(at: Instant) -> Self {
        let steps = at.0 >> COARSE_SHIFT;
        Coarse(if steps > u32::MAX as u64 { u32::MAX } else { steps as u32 })
    }

    /// The first one that is not before `at`.
    pub const fn after(at: Instant) -> Self {
        Coarse::before(at.plus_micros((1 << COARSE_SHIFT) - 1))
    }

    /// The instant that it stands for.
    pub const fn instant(self) -> Instant {
        if self.0 == u32::MAX { Instant::FAR_FUTURE } else { Instant((self.0 as u64) << COARSE_SHIFT) }
    }

    /// As a number, for storing.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What [`bits`](Self::bits) gave.
    pub const fn from_bits(bits: u32) -> Self {
        Coarse(bits)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        self.plus_micros(d.as_micros() as u64)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_instants_lie_on_the_side_they_are_asked_for() {
        for micros in [0, 1, 65_535, 65_536, 65_537, 3_600_000_000, 1 << 47] {
            let at = Instant::from_micros(micros);
            let (before, after) = (Coarse::before(at).instant(), Coarse::after(at).instant());
            assert!(before <= at && at <= after, "{micros}");
            assert!(after.micros() - before.micros() <= 65_536);
            assert_eq!(Coarse::from_bits(Coarse::after(after).bits()).instant(), after, "what is whole stays");
        }
        assert_eq!(Coarse::after(Instant::FAR_FUTURE), Coarse::NEVER);
        assert_eq!(Coarse::NEVER.instant(), Instant::FAR_FUTURE);
    }
}
