//! Initial sequence numbers (RFC 6528): a clock plus a keyed hash of the flow, so that they grow for one flow and tell a
//! stranger nothing about another.

use crate::{FlowKey, Instant};
use siphasher::sip::SipHasher24;

/// Numbers that are hashed with a flow, at most.
const NUMBERS_MAX: usize = 2;

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
        ((now.micros() / 4).wrapping_add(self.hash_of(key, [])) as u32).wrapping_add(self.part)
    }

    /// What is added to the clock of the timestamps sent to this peer (RFC 7323 7.1): the same for all its ports, so that
    /// a SYN that follows a connection carries a later one than the connection did.
    pub(crate) fn timestamp_offset(&self, key: &FlowKey) -> u32 {
        self.hash_of(&FlowKey { peer_port: 0, local_port: 0, ..*key }, [0]) as u32
    }

    /// What only a holder of the secret can know of a flow and two numbers.
    pub(crate) fn tag(&self, key: &FlowKey, numbers: [u64; 2]) -> u64 {
        self.hash_of(key, numbers)
    }

    #[inline]
    fn hash_of<const N: usize>(&self, key: &FlowKey, numbers: [u64; N]) -> u64 {
        if key.is_v4() { self.hash_parts::<4, N>(key, numbers) } else { self.hash_parts::<16, N>(key, numbers) }
    }

    /// One hash over one piece of constant length: in parts, it costs more to join them than to hash. `A` bytes of each address
    /// are all that tells flows of a family from each other, and the length tells the families.
    #[inline(always)]
    fn hash_parts<const A: usize, const N: usize>(&self, key: &FlowKey, numbers: [u64; N]) -> u64 {
        const { assert!(A <= 16 && N <= NUMBERS_MAX) };
        let mut bytes = [0; 2 * 16 + 4 + 8 * NUMBERS_MAX];
        bytes[..A].copy_from_slice(&key.peer[16 - A..]);
        bytes[A..2 * A].copy_from_slice(&key.local[16 - A..]);
        bytes[2 * A..2 * A + 2].copy_from_slice(&key.peer_port.to_be_bytes());
        bytes[2 * A + 2..2 * A + 4].copy_from_slice(&key.local_port.to_be_bytes());
        for (i, number) in numbers.into_iter().enumerate() {
            bytes[2 * A + 4 + 8 * i..2 * A + 12 + 8 * i].copy_from_slice(&number.to_le_bytes());
        }
        self.hash.hash(&bytes[..2 * A + 4 + 8 * N])
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
