//! Ends of connections, told to whoever watches.

use crate::{App, CloseReason, FlowKey, Queue, Shard};

/// Ends that are remembered between two looks; a turn of whole bursts in a row cannot bring more than a few hundred.
const ENDS_MAX: usize = 4096;

impl<A: App, Q: Queue> Shard<A, Q> {
    /// From now on remembers which connections ended, and why, until [`ends`](Self::ends) takes them; the newest are left
    /// out beyond 4,096, but for those that the end of the server takes with it, all at once.
    pub fn watch_ends(&mut self) {
        self.ends = Some(Vec::with_capacity(ENDS_MAX));
    }

    /// The connections that ended since the last look, in order.
    pub fn ends(&mut self) -> impl Iterator<Item = (FlowKey, CloseReason)> + '_ {
        self.ends.iter_mut().flat_map(|ends| ends.drain(..))
    }

    /// A connection is over: counted by reason.
    pub(super) fn count_end(&mut self, key: &FlowKey, reason: CloseReason) {
        let counters = &mut self.world.counters;
        match reason {
            CloseReason::Finished => counters.closed_finished += 1,
            CloseReason::PeerReset => counters.closed_reset += 1,
            CloseReason::Aborted => counters.closed_aborted += 1,
            CloseReason::TimedOut => counters.closed_timed_out += 1,
            CloseReason::Drained => counters.closed_drained += 1,
            CloseReason::Panicked => counters.closed_panicked += 1,
        }
        self.ended += 1;
        if let Some(ends) = &mut self.ends
            && (ends.len() < ENDS_MAX || reason == CloseReason::Drained)
        {
            ends.push((*key, reason));
        }
    }
}
