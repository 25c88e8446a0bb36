//! The one place where time is read.

use khamsin_stack::Instant;

/// The monotonic clock of this machine, as the stack's [`Instant`]; the epoch is the boot of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Reads `CLOCK_MONOTONIC`.
    #[inline]
    pub fn now(self) -> Instant {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Instant::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000)
    }

    /// Wall-clock time, for what users read (the `Date` header, logs).
    #[allow(clippy::disallowed_methods)]
    pub fn wall(self) -> std::time::SystemTime {
        std::time::SystemTime::now()
    }
}
