//! What paths carry: a bounded memory of path MTUs, keyed by the peer's address (RFC 1191, RFC 8201).
//!
//! Only a connection that believes a message writes here, so that a stranger who has no connection grows nothing; one who
//! has many addresses pushes out others' entries at worst, which then cost a lost flight each.

use crate::Instant;
use crate::limits::{PMTU_LIFE_US, PMTU_SETS, PMTU_WAYS};
use core::hash::Hasher;
use siphasher::sip::SipHasher13;

/// Least path MTU that a router may talk us into over IPv4, bytes (Linux: `ip_rt_min_pmtu`). RFC 1191 allows 68, which would
/// make us send more headers than text; a path that carries even less is found by its silence.
pub(crate) const MTU_MIN_V4: u16 = 552;
/// What every IPv6 link carries, bytes (RFC 8200 5).
pub(crate) const MTU_MIN_V6: u16 = 1280;
/// What no IPv4 router may call its MTU (RFC 791): less is no MTU at all.
const NO_MTU: u32 = 68;
/// The MTUs of links in use, bytes (RFC 1191 7.1), for routers that do not tell theirs.
const PLATEAUS: [u32; 9] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508];

/// The path MTU that a message means, bytes; `None`: it means none. `claimed` stands in the message, `quoted_len` is the
/// length of the packet that was too long.
pub(crate) fn believable(v4: bool, claimed: u32, quoted_len: u32) -> Option<u16> {
    let mtu = match claimed {
        // RFC 8201 4: not even an atomic fragment goes out for it (RFC 6946, RFC 8021).
        _ if !v4 => Some(claimed).filter(|&mtu| mtu >= u32::from(MTU_MIN_V6)),
        0..NO_MTU => PLATEAUS.into_iter().find(|&plateau| plateau < quoted_len),
        _ => Some(claimed),
    };
    mtu.map(|mtu| mtu.clamp(u32::from(MTU_MIN_V4), u32::from(u16::MAX)) as u16)
}

/// A path MTU, and until when it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PathMtu {
    /// Largest IP packet, bytes.
    pub(crate) mtu: u16,
    /// When the path may have become better.
    pub(crate) expires: Instant,
}

#[derive(Clone, Copy)]
struct Entry {
    peer: [u8; 16],
    path: PathMtu,
}

const EMPTY: Entry = Entry { peer: [0; 16], path: PathMtu { mtu: 0, expires: Instant::ZERO } };

/// Path MTUs by peer: sets of a few entries, chosen by a keyed hash; a full set forgets what expires first.
pub(crate) struct PmtuCache {
    sets: Box<[[Entry; PMTU_WAYS]]>,
    hash: SipHasher13,
    /// Nothing in the table is valid from then on.
    all_expired: Instant,
}

impl PmtuCache {
    pub(crate) fn new(secret: [u64; 2]) -> Self {
        PmtuCache {
            sets: vec![[EMPTY; PMTU_WAYS]; PMTU_SETS].into(),
            hash: SipHasher13::new_with_keys(secret[0], secret[1]),
            all_expired: Instant::ZERO,
        }
    }

    /// What is known of the path to `peer`.
    #[inline]
    pub(crate) fn find(&self, now: Instant, peer: &[u8; 16]) -> Option<PathMtu> {
        // As long as every path carries what the link does, which is nearly always, nothing is hashed.
        if now >= self.all_expired {
            return None;
        }
        let set = &self.sets[self.set_of(peer)];
        set.iter().find(|e| e.peer == *peer && e.path.expires > now).map(|e| e.path)
    }

    /// The path to `peer` carries no more than `mtu` bytes.
    #[cold]
    pub(crate) fn learn(&mut self, now: Instant, peer: &[u8; 16], mtu: u16) -> PathMtu {
        let path = PathMtu { mtu, expires: now.plus_micros(PMTU_LIFE_US) };
        let at = self.set_of(peer);
        let set = &mut self.sets[at];
        let known = set.iter().position(|e| e.peer == *peer);
        let oldest = || (0..PMTU_WAYS).min_by_key(|&i| set[i].path.expires).unwrap_or(0);
        let at = known.unwrap_or_else(oldest);
        set[at] = Entry { peer: *peer, path };
        self.all_expired = self.all_expired.max(path.expires);
        path
    }

    fn set_of(&self, peer: &[u8; 16]) -> usize {
        let mut hash = self.hash;
        hash.write(peer);
        (hash.finish() % PMTU_SETS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> [u8; 16] {
        (u128::from(n) + (0xfd << 120)).to_be_bytes()
    }

    #[test]
    fn what_a_message_means() {
        let v4 = |claimed, quoted_len| believable(true, claimed, quoted_len);
        assert_eq!(v4(1400, 1500), Some(1400));
        assert_eq!(v4(100, 1500), Some(552), "the least we are talked into");
        assert_eq!(v4(u32::MAX, 1500), Some(65_535));
        // RFC 1191 5: no MTU in the message.
        assert_eq!(v4(0, 1500), Some(1492));
        assert_eq!(v4(0, 1492), Some(1006));
        assert_eq!(v4(67, 9000), Some(8166));
        assert_eq!(v4(0, 1006), Some(552), "508, and no less than the least");
        assert_eq!(v4(0, 300), None);
        let v6 = |claimed| believable(false, claimed, 1500);
        assert_eq!(v6(1400), Some(1400));
        assert_eq!(v6(1280), Some(1280));
        assert_eq!((v6(1279), v6(0)), (None, None));
        assert_eq!(v6(u32::MAX), Some(65_535));
    }

    #[test]
    fn an_entry_lives_ten_minutes() {
        let mut cache = PmtuCache::new([1, 2]);
        let t = Instant::from_millis(5000);
        assert_eq!(cache.find(t, &peer(1)), None);
        let path = cache.learn(t, &peer(1), 1400);
        assert_eq!(path.expires, t.plus_micros(600_000_000));
        assert_eq!(cache.find(t, &peer(1)), Some(path));
        assert_eq!(cache.find(t, &peer(2)), None);
        assert_eq!(cache.find(t.plus_micros(599_999_999), &peer(1)), Some(path));
        assert_eq!(cache.find(t.plus_micros(600_000_000), &peer(1)), None);
        // Another's entry does not keep it alive.
        cache.learn(t.plus_micros(1_000_000), &peer(2), 1300);
        assert_eq!(cache.find(t.plus_micros(600_000_000), &peer(1)), None);
        assert_eq!(cache.learn(t, &peer(2), 1200).mtu, 1200);
        assert_eq!(cache.find(t, &peer(2)).unwrap().mtu, 1200);
    }

    #[test]
    fn the_table_never_grows_and_keeps_the_newest() {
        let mut cache = PmtuCache::new([1, 2]);
        let t = Instant::from_millis(5000);
        let many = 20 * (PMTU_SETS * PMTU_WAYS) as u32;
        for n in 0..many {
            let now = t.plus_micros(u64::from(n));
            cache.learn(now, &peer(n), 1400);
            assert_eq!(cache.find(now, &peer(n)).unwrap().mtu, 1400);
        }
        let now = t.plus_micros(u64::from(many));
        let kept = (0..many).filter(|&n| cache.find(now, &peer(n)).is_some()).count();
        assert_eq!(kept, PMTU_SETS * PMTU_WAYS, "every place is used, and no other");
        let newest = (many - 256..many).filter(|&n| cache.find(now, &peer(n)).is_some()).count();
        assert!(newest >= 250, "{newest} of the last 256 are there");
    }
}
