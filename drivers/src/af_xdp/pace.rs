//! How long a frame that comes now will wait for its turn.
//!
//! Measured over whole bursts alone, and only as long as one follows the other: how a turn with a few frames spends its time says
//! little, and whoever has caught up has time for everybody, however long something once held him up.

use core::time::Duration;
use khamsin_stack::Instant;
use khamsin_stack::queue::BURST;

/// Longest that a new connection's first segment is to wait. An exchange passes the ring a few times, and all who are in it
/// wait as long each time: with this the whole takes tens of milliseconds where clients wait for hundreds. What comes in
/// shorter bursts than this is no overload.
const GOOD_TIME: Duration = Duration::from_millis(4);
/// What a frame takes as far as nobody has measured it, nanoseconds.
const FRAME_NS: u32 = 2_000;
/// A new measurement moves the figure by one part in so many.
const GAIN_SHIFT: u32 = 3;

/// What a frame takes.
pub(super) struct Pace {
    turn_at: Instant,
    /// The turn before this one took a whole burst.
    whole: bool,
    /// Moving average, nanoseconds.
    frame_ns: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace { turn_at: Instant::ZERO, whole: false, frame_ns: FRAME_NS }
    }

    /// A turn begins.
    #[inline]
    pub(super) fn on_turn(&mut self, now: Instant) {
        if core::mem::take(&mut self.whole) {
            // A thread that was kept from its core for a second has a say, but not the last one.
            let took_us = now.micros_since(self.turn_at).min(1_000_000) as i64;
            let frame_ns = took_us * 1000 / BURST as i64;
            self.frame_ns = (i64::from(self.frame_ns) + ((frame_ns - i64::from(self.frame_ns)) >> GAIN_SHIFT)) as u32;
        } else {
            self.frame_ns = FRAME_NS;
        }
        self.turn_at = now;
    }

    /// So many frames were taken in this turn.
    #[inline]
    pub(super) fn on_burst(&mut self, frames: usize) {
        self.whole = frames == BURST;
    }

    /// Frames that can wait in front of one that still has its turn in good time.
    #[inline]
    pub(super) fn frames_in_time(&self) -> u32 {
        GOOD_TIME.as_nanos() as u32 / self.frame_ns.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_from_whole_bursts_alone() {
        let mut pace = Pace::new();
        assert_eq!(pace.frames_in_time(), 2000);
        let mut now = Instant::from_micros(1_000_000);
        let mut turns = |pace: &mut Pace, frames, us| {
            for _ in 0..100 {
                pace.on_turn(now);
                pace.on_burst(frames);
                now = now.plus_micros(us);
            }
        };
        turns(&mut pace, BURST - 1, 6400);
        assert_eq!(pace.frames_in_time(), 2000, "nothing was learnt");
        turns(&mut pace, BURST, 640);
        assert!((395..=405).contains(&pace.frames_in_time()), "10 us each: {}", pace.frames_in_time());
        turns(&mut pace, BURST, 64);
        assert!((3900..=4100).contains(&pace.frames_in_time()), "1 us each: {}", pace.frames_in_time());
        // The clock's grain is a microsecond.
        turns(&mut pace, BURST, 0);
        assert!(pace.frames_in_time() > 100_000);
        turns(&mut pace, BURST, 3_600_000_000);
        assert_eq!(pace.frames_in_time(), 0);
        turns(&mut pace, 0, 10);
        assert_eq!(pace.frames_in_time(), 2000, "it has caught up");
    }
}
