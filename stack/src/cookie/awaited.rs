//! Flows that were sent a cookie and have not brought it back yet.
//!
//! Only a segment that begins where the stream does brings a cookie back: its sequence number is part of what is checked.
//! Where that one is lost, what the peer has sent behind it comes to a flow that nobody knows. A reset would end a handshake
//! that the peer's retransmission, from the left edge, is about to finish.
//!
//! Linux asks for less and gives less: `tcp_synq_no_recent_overflow` says whether the listener has sent any cookie within
//! `TCP_SYNCOOKIE_VALID` (two minutes), and if so `cookie_tcp_check` looks at the number; what fails there goes back from
//! `tcp_v4_cookie_check` to the listener, which resets it as any other ACK (`tcp_rcv_state_process`). So the first lost
//! segment of a client that sends two costs it the connection. Here it costs a timeout.
//!
//! Silence is for the flows in this table, not for the whole listener: a peer that holds on to a connection which we have
//! forgotten gets its reset (RFC 9293 3.5.1) while others are sent cookies. A slot that two flows share speaks for both of
//! them; so a flood, which fills the table, makes us silent to all, until a cookie's life after it has passed. What a flood
//! wins by that is a reset that comes later to somebody whose connection is gone anyway.

use super::{entry, is_alive, tag};
use crate::Instant;

/// Flows that are remembered, at most.
const SLOTS: usize = 8192;

/// A bounded memory of flows, by a keyed hash of 64 bits that only we can make.
pub(super) struct Awaited {
    /// Part of the hash of the last flow that was sent a cookie, then when; 0: none.
    slots: Box<[u64]>,
}

impl Awaited {
    /// Bytes that it takes.
    pub(super) const BYTES: usize = SLOTS * size_of::<u64>();

    pub(super) fn new() -> Self {
        // Zeroed memory from the system: where no cookie is ever needed, no page is touched.
        Awaited { slots: vec![0; SLOTS].into() }
    }

    /// A flow is sent a cookie.
    pub(super) fn add(&mut self, now: Instant, hash: u64) {
        self.slots[hash as usize % SLOTS] = entry(hash, now);
    }

    /// The flow has brought it back. A slot that another flow has taken since goes on speaking for that one.
    pub(super) fn remove(&mut self, hash: u64) {
        let slot = &mut self.slots[hash as usize % SLOTS];
        if *slot >> 32 == tag(hash) {
            *slot = 0;
        }
    }

    /// Whether the flow may still bring one back.
    pub(super) fn holds(&self, now: Instant, hash: u64) -> bool {
        let slot = self.slots[hash as usize % SLOTS];
        slot != 0 && is_alive(now, slot)
    }
}

#[cfg(test)]
mod tests {
    use super::super::LIFE_US;
    use super::*;

    #[test]
    fn a_flow_is_awaited_until_its_cookie_comes_or_is_old() {
        let mut awaited = Awaited::new();
        assert_eq!(Awaited::BYTES, size_of_val(&*awaited.slots));
        let hash = |n: u64| n << 40 | 5;
        // Nothing is held at the beginning of time, either.
        assert!(!awaited.holds(Instant::ZERO, 0) && !awaited.holds(Instant::ZERO, hash(1)));
        let t = Instant::from_millis(1_000_000);
        awaited.add(t, hash(1));
        assert!(awaited.holds(t.plus_micros(LIFE_US - 1_000_000), hash(1)));
        assert!(!awaited.holds(t.plus_micros(LIFE_US + 1_000_000), hash(1)));
        assert!(!awaited.holds(t, hash(1) + 1), "another slot");
        awaited.remove(hash(1));
        assert!(!awaited.holds(t, hash(1)));
        // Two of one slot: the newer one speaks for both.
        awaited.add(t, hash(1));
        awaited.add(t, hash(2));
        awaited.remove(hash(1));
        assert!(awaited.holds(t, hash(1)) && awaited.holds(t, hash(2)));
        awaited.remove(hash(2));
        assert!(!awaited.holds(t, hash(1)) && !awaited.holds(t, hash(2)));
    }
}
