//! How many chunks the kernel is kept supplied with to receive into.
//!
//! The fill ring is a queue: a frame goes to the chunk that has waited longest. So a deep supply is one long walk through memory
//! in which each frame finds a chunk that the caches have forgotten, and the TLB too, because the kernel reaches it through pages
//! of 4 KiB whatever ours are. A shallow one stays where it is warm, but ends when a burst comes while the program is kept from
//! its core. Hence: shallow as long as at most half of it was ever found used, twice as deep at once when more was, and
//! less again after a long time in which that was far from needed.

/// Chunks of a shallow supply: 10 ms of 100,000 frames a second.
const SHALLOW: u32 = 1024;
/// Bursts after which a supply that was not needed becomes shallower: seconds of a busy server.
const WINDOW: u32 = 1 << 14;

/// The depth of one queue's supply.
pub(super) struct Supply {
    target: u32,
    least: u32,
    most: u32,
    /// Most frames found waiting since the depth last changed, or was last looked at, and the bursts since then.
    peak: u32,
    bursts: u32,
}

impl Supply {
    /// A supply of up to `most` chunks, as deep as it has to be.
    pub(super) fn adaptive(most: u32) -> Self {
        Supply::between(most.min(SHALLOW), most)
    }

    /// Always `depth` chunks: for a device that takes them out of the ring beforehand, all it can get.
    pub(super) fn fixed(depth: u32) -> Self {
        Supply::between(depth, depth)
    }

    fn between(least: u32, most: u32) -> Self {
        Supply { target: least, least, most, peak: 0, bursts: 0 }
    }

    /// Chunks that the kernel is to have.
    #[inline]
    pub(super) fn target(&self) -> u32 {
        self.target
    }

    /// New connections that may come while `waiting` frames wait, if `in_time` are dealt with in good time: as many as make it
    /// that, or three eighths of what can wait, so that the rest of it is for segments of those that have come already, of which
    /// each brings a few; and one, whatever else there is to do. A thousand clients who all come at once, as those of load
    /// generators do, are let in.
    #[inline]
    pub(super) fn syns(&self, waiting: u32, in_time: u32) -> u32 {
        (self.most / 8 * 3).min(in_time).saturating_sub(waiting).max(1)
    }

    /// A burst was found, and behind it all in all `waiting` frames.
    #[inline]
    pub(super) fn found(&mut self, waiting: u32) {
        self.peak = self.peak.max(waiting);
        self.bursts += 1;
        if waiting > self.target / 2 || self.bursts == WINDOW {
            self.look();
        }
    }

    #[cold]
    fn look(&mut self) {
        self.target = if self.peak > self.target / 2 {
            self.target.saturating_mul(2).min(self.most)
        } else if self.peak < self.target / 8 {
            (self.target / 2).max(self.least)
        } else {
            self.target
        };
        (self.peak, self.bursts) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deepens_at_once_and_comes_back_slowly() {
        let mut supply = Supply::adaptive(4096);
        (0..10 * WINDOW).for_each(|_| supply.found(SHALLOW / 2));
        assert_eq!(supply.target(), SHALLOW);
        for (waiting, target) in [(513, 2048), (1024, 2048), (1025, 4096), (4096, 4096)] {
            supply.found(waiting);
            assert_eq!(supply.target(), target, "{waiting}");
        }
        // What is needed now and then stays.
        for _ in 0..10 {
            supply.found(512);
            (1..WINDOW).for_each(|_| supply.found(1));
        }
        assert_eq!(supply.target(), 4096);
        for target in [4096, 2048, 1024, 1024] {
            (1..WINDOW).for_each(|_| supply.found(127));
            assert_eq!(supply.target(), target);
            supply.found(1);
        }
    }

    #[test]
    fn lets_in_what_there_is_room_for_and_always_one() {
        let supply = Supply::adaptive(4096);
        assert_eq!([0, 64, 1535, 1536, 4096].map(|waiting| supply.syns(waiting, 2000)), [1536, 1472, 1, 1, 1]);
        assert_eq!([0, 64, 499, 500, 4096].map(|waiting| supply.syns(waiting, 500)), [500, 436, 1, 1, 1]);
    }

    #[test]
    fn has_no_more_than_there_is_and_a_fixed_one_stays() {
        let mut small = Supply::adaptive(64);
        (0..3).for_each(|_| small.found(64));
        assert_eq!(small.target(), 64);
        let mut fixed = Supply::fixed(4096);
        (0..2 * WINDOW).for_each(|_| fixed.found(1));
        assert_eq!(fixed.target(), 4096);
    }
}
