//! Initial sequence numbers (RFC 6528): a clock plus a keyed hash of the flow, so that they grow for one flow and tell a
//! stranger nothing about another.

use crate::{FlowKey, Instant};
use core::hash::Hasher;
use siphasher::sip::SipHasher24;

/// Hands out initial sequence numbers. All shards of a server share one key, and each has a part of the numbers for itself: a
/// SYN that comes twice, to two shards within microseconds, is answered with numbers far from each other. Else what the peer
/// acknowledges of the one it took would soon be the number that the other one waits for.
#[derive(Clone, Debug)]
pub(crate) struct IsnSource {
    hash: SipHasher24,
    /// Where this shard's part begins, beside the others'.
    part: u32,
}

impl IsnSource {
    /// A source keyed with 16 secret bytes.
    pub(crate) fn new(secret: &[u8; 16]) -> Self {
        IsnSource { hash: SipHasher24::new_with_key(secret), part: 0 }
    }

    /// The same for shard number `shard` of `shards`.
    pub(crate) fn of_shard(self, shard: usize, shards: usize) -> Self {
        IsnSource { part: (((shard as u64) << 32) / shards.max(1) as u64) as u32, ..self }
    }

    /// The number for a connection of this flow that begins `now`: M + F(flow, secret), where M ticks every 4 us.
    pub(crate) fn isn(&self, now: Instant, key: &FlowKey) -> u32 {
        ((now.micros() / 4).wrapping_add(self.hash_of(key).finish()) as u32).wrapping_add(self.part)
    }

    /// What is added to the clock of the timestamps sent to this peer (RFC 7323 7.1): the same for all its ports, so that
    /// a SYN that follows a connection carries a later one than the connection did.
    pub(crate) fn timestamp_offset(&self, key: &FlowKey) -> u32 {
        self.tag(&FlowKey { peer_port: 0, local_port: 0, ..*key }, [0, 0]) as u32
    }

    /// What only a holder of the secret can know of a flow and two numbers.
    pub(crate) fn tag(&self, key: &FlowKey, numbers: [u64; 2]) -> u64 {
        let mut hash = self.hash_of(key);
        numbers.into_iter().for_each(|n| hash.write_u64(n));
        hash.finish()
    }

    fn hash_of(&self, key: &FlowKey) -> SipHasher24 {
        let mut hash = self.hash;
        hash.write(&key.peer);
        hash.write(&key.local);
        hash.write_u16(key.peer_port);
        hash.write_u16(key.local_port);
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_a_tick_every_four_microseconds_and_differs_between_flows_and_secrets() {
        let a = FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 1000, 80);
        let b = FlowKey { peer_port: 1001, ..a };
        let source = IsnSource::new(&[7; 16]);
        let t = Instant::from_millis(1);
        let first = source.isn(t, &a);
        assert_eq!(source.isn(t.plus_micros(400), &a).wrapping_sub(first), 100);
        assert_ne!(source.isn(t, &b), first);
        assert_ne!(IsnSource::new(&[8; 16]).isn(t, &a), first);
        for (shard, apart) in [(0, 0), (1, 1 << 30), (3, 3 << 30)] {
            assert_eq!(source.clone().of_shard(shard, 4).isn(t, &a).wrapping_sub(first), apart);
        }
    }
}
