//! ICMP errors: which connection they are about.

use super::ingress::Travel;
use super::{Flow, Shard};
use crate::app::App;
use crate::connection::Fate;
use crate::stray::Stray;
use crate::wire::{DropReason, IcmpError, LinkView, Trouble};
use crate::{Instant, Queue, RxChecksum};

impl<A: App, Q: Queue> Shard<A, Q> {
    /// A router or host says what became of a segment of ours, or of one that somebody says we sent.
    #[cold]
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn on_icmp(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        link: &LinkView,
        error: &IcmpError,
        bytes: &[u8],
        travel: Travel,
    ) {
        if let Err(reason) = self.responder.admit_to(link, &error.key.local) {
            return reason.count(&mut self.world.counters);
        }
        if self.is_kernels(error.key.local_port) {
            return DropReason::NotOurs.count(&mut self.world.counters);
        }
        let hash = self.flows.hash(&error.key);
        let known = self.find(&error.key, hash);
        self.world.counters.stray_claimed += u64::from(known.is_some() && travel.seen_by > 0);
        match known {
            Some(Flow::Live(id)) => match self.work(now, queue, id, |connection, env| connection.on_icmp(env, error)) {
                Fate::Live => self.touch(id),
                Fate::Over(reason) => self.end(now, app, id, reason),
            },
            Some(Flow::Syn(position)) => self.on_half_open_icmp(position, error),
            // From the one nothing but acknowledgements is ever sent, and all that the other sent has been acknowledged.
            Some(Flow::TimeWait(_) | Flow::Parked(_)) => self.world.counters.icmp_outside += 1,
            None if self.strays.as_ref().is_some_and(|s| s.leads_on(travel.seen_by)) => {
                let checksum = RxChecksum::Unknown;
                self.pass_on(Stray { bytes: bytes.into(), checksum, seen_by: travel.seen_by + 1, awaited: false });
            }
            None => self.world.counters.icmp_unknown += 1,
        }
    }

    /// A connection that is not synchronised may be given up for a hard error (RFC 9293 3.9.2.2), if the message knows the
    /// number that nobody can guess. What is merely unreachable now may be there when the SYN|ACK goes out again.
    fn on_half_open_icmp(&mut self, position: u32, error: &IcmpError) {
        let Some(record) = self.syn.record(position) else { return };
        let exact = error.seq == record.iss && error.ack.is_none_or(|ack| ack == record.irs.wrapping_add(1));
        if !exact {
            self.world.counters.icmp_outside += 1;
        } else if error.trouble == Trouble::Refused {
            self.world.counters.icmp_half_open_ended += 1;
            self.forget_syn(position);
        } else {
            self.world.counters.icmp_soft += 1;
        }
    }
}
