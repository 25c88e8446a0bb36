//! The end of a run: everybody is gone, time passes, and nothing may be left.

use super::World;
use crate::sim::scenario::Weather;
use crate::sim::verdict::{self, Failure};
use khamsin_drivers::sim::Side;

/// Time after which nothing that has an end of its own may be left, microseconds: fifteen retransmissions with back-off,
/// then TIME-WAIT.
const REST_US: u64 = 3_000_000_000;
/// Time for what is left when the server has been told to end everything, microseconds.
const TIME_WAIT_US: u64 = 300_000_000;

impl World {
    /// Waits until the server holds nothing, and looks at what it leaves.
    pub(super) fn come_to_rest(&mut self) -> Option<Failure> {
        let limit = self.now.plus_micros(REST_US);
        let rested = self.run_until(limit, World::is_at_rest);
        if self.failure.is_some() {
            return self.failure.take();
        }
        if !rested && self.somebody_just_left() {
            // Their connections have nothing to wait for: the server ends them as an operator would.
            let now = self.now.plus_micros(self.ahead_us);
            for core in &mut self.cores {
                core.shard.abort_all(now, &mut core.queue, &mut core.app);
            }
            self.run_until(self.now.plus_micros(TIME_WAIT_US), World::is_at_rest);
        }
        self.failure.take().or_else(|| verdict::at_rest(self))
    }

    fn is_at_rest(&mut self) -> bool {
        let held = |core: &super::Core| core.shard.live() + core.shard.half_open() + core.shard.time_wait();
        self.cores.iter().all(|core| held(core) == 0 && core.turn.deadline.is_none() && !core.turn.busy)
            && self.wire.next_arrival().is_none()
            && !self.wire.has_arrived(Side::Left)
    }

    /// Whether there are peers that went without a word.
    fn somebody_just_left(&self) -> bool {
        let silent = self.scenario.weather == Weather::Storm || self.scenario.impatient;
        silent || !self.hostiles.is_empty() || self.drivers.iter().any(|driver| driver.plan.gives_up())
    }
}
