//! What a shard sets aside, by part: the sums that [`Shard::new`](super::Shard::new) makes, without the memory.
//!
//! Nearly all of it is zeroed memory from the system, of which only what is used becomes resident.

use super::{Shard, slab::Slab};
use crate::Queue;
use crate::app::App;
use crate::connection::Connection;
use crate::cookie::Cookies;
use crate::limits::{FRAGMENT_SLOTS, Limits, RX_BUFFER, STORE_BLOCK};
use crate::parked::{RECORD_V4, RECORD_V6};
use crate::reassembly::HoldPool;
use crate::sources::Sources;
use crate::store::Store;
use crate::syn::SynTable;
use crate::timewait::TimeWaitTable;
use crate::wheel::Wheel;
use crate::{flow, machine};
use core::ops::Range;

/// One part: `count` pieces of `each` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// What it is, in a few words.
    pub name: &'static str,
    /// Bytes of a piece.
    pub each: usize,
    /// Pieces.
    pub count: usize,
    /// An idle connection takes one of these.
    pub idle: bool,
}

impl Part {
    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.each * self.count
    }
}

impl<A: App, Q: Queue> Shard<A, Q> {
    /// The addresses of the tables in which each flow has another place, so that a segment of whichever finds it cold: for advice
    /// to the kernel about their pages. They fill up from their beginning, but for the flow table, where chance decides; what was
    /// never used is not resident yet.
    pub fn tables(&self) -> [Range<usize>; 5] {
        let [v4, v6] = self.parked.addresses();
        [self.flows.addresses(), v4, v6, self.live.addresses(), self.wheel.addresses()]
    }
}

/// What a [`Shard`](super::Shard) with these limits sets aside for the application `A`.
pub fn cost<A: App>(limits: &Limits) -> Vec<Part> {
    let (units, open) = (limits.units(), limits.connections);
    let parkable = if limits.park_after_us.is_some() { open } else { 0 };
    let flows = open + limits.syn_backlog + limits.time_wait;
    let sources =
        Sources::bytes_for(limits.syn_backlog) + if limits.per_source > 0 { Sources::bytes_for(open) } else { 0 };
    let live = Slab::<Connection<A::Session>>::BYTES_EACH + size_of::<crate::connection::Parts>() + 4;
    let part = |name, each, count| Part { name, each, count, idle: false };
    vec![
        Part { idle: true, ..part("parked connections, IPv4", RECORD_V4, parkable) },
        part("parked connections, IPv6", RECORD_V6, parkable),
        Part { idle: true, ..part("flow table", flow::bytes_for(flows) / flows, flows) },
        part("live connections", live, units),
        part("their timers", Wheel::BYTES_EACH, units),
        part("their sockets", machine::SOCKET, units),
        part("lists of unacknowledged pieces", Store::PIECES, units),
        part("receive buffers", RX_BUFFER, units),
        part("send store, blocks", STORE_BLOCK + 4, limits.store_blocks),
        part("held text, blocks", HoldPool::BYTES_EACH, limits.hold_blocks),
        part("half-open connections", SynTable::BYTES_EACH, limits.syn_backlog),
        part("TIME-WAIT", TimeWaitTable::BYTES_EACH, limits.time_wait),
        part("cookies that came back", Cookies::bytes_for(limits.time_wait), 1),
        part("counts of sources", sources, 1),
        part("fragments", 1 << 16, FRAGMENT_SLOTS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CloseReason, Instant, Listener, Stream};

    struct Nothing;

    impl App for Nothing {
        type Session = ();
        fn open(&mut self, _: Instant, _: Listener, _: core::net::SocketAddr) {}
        fn ready(&mut self, _: Instant, (): &mut (), _: &mut impl Stream) {}
        fn expired(&mut self, _: Instant, (): &mut (), _: &mut impl Stream) {}
        fn closed(&mut self, (): (), _: CloseReason) {}
    }

    fn of(limits: &Limits, name: &str) -> usize {
        cost::<Nothing>(limits).iter().find(|part| part.name.contains(name)).map_or(0, Part::bytes)
    }

    #[test]
    fn an_idle_connection_takes_96_bytes_and_128_over_ipv6() {
        for connections in [10_000, 100_000, 1_000_000, 10_000_000] {
            let limits = Limits::with_parking(connections);
            let flow = of(&limits, "flow table");
            // The places of half-open connections and TIME-WAIT among them.
            let all = connections + limits.syn_backlog + limits.time_wait;
            assert_eq!(flow, 16 * all);
            assert!(of(&limits, "IPv4") + 16 * connections <= 96 * connections);
            assert!(of(&limits, "IPv6") + 16 * connections <= 128 * connections);
        }
        let million = Limits::with_parking(1_000_000);
        let whole = of(&million, "IPv4") + of(&million, "flow table");
        assert!(whole <= 96_000_000, "{whole} with the whole flow table");
    }

    #[test]
    fn what_only_live_connections_need_does_not_grow_with_those_that_are_open() {
        let [some, many] = [100_000, 10_000_000].map(Limits::with_parking);
        for name in ["live connections", "timers", "sockets", "receive buffers", "send store", "held text"] {
            assert_eq!(of(&some, name), of(&many, name), "{name}");
            assert!(of(&some, name) > 0);
        }
        let off = Limits { park_after_us: None, ..some };
        assert_eq!((of(&off, "parked"), of(&off, "receive buffers")), (0, 100_000 * RX_BUFFER));
    }
}
