//! Who gives way when the memory for text behind holes is all held.
//!
//! Nothing obliges a peer to fill a hole: a few thousand connections that leave one each could keep all others from putting
//! theirs together for as long as they live. So whoever has less than a fair part, and is refused, makes another one let go of
//! what was never acknowledged, as Linux does with a socket's own (`tcp_prune_ofo_queue`). A hand goes round over all
//! connections: the first whose hole has stayed for longer than it takes to send again, or else, of those that it passes, the
//! one that holds most. Who is refused has nothing yet, and finds room when its peer sends again.

use super::Shard;
use crate::app::App;
use crate::limits::PRUNE_LOOKS;
use crate::{Instant, Queue};

impl<A: App, Q: Queue> Shard<A, Q> {
    /// One connection gives up what it holds behind holes.
    #[cold]
    pub(super) fn prune(&mut self, now: Instant) {
        let (span, fair) = (self.live.span(), self.world.hold.fair_part());
        let mut most = None;
        for _ in 0..PRUNE_LOOKS.min(span) {
            self.hand = (self.hand + 1) % span;
            let Some(connection) = self.live.get(self.hand) else { continue };
            let (blocks, stale) = connection.holding(now);
            if stale && blocks > 0 && self.prune_one(self.hand) {
                return;
            }
            if blocks >= fair && most.is_none_or(|(before, _)| blocks > before) {
                most = Some((blocks, self.hand));
            }
        }
        if let Some((_, id)) = most {
            self.prune_one(id);
        }
    }

    fn prune_one(&mut self, id: u32) -> bool {
        let gave = self.live.get_mut(id).is_some_and(|connection| connection.give_up_held(&mut self.world));
        self.world.counters.rx_pruned += u64::from(gave);
        gave
    }
}
