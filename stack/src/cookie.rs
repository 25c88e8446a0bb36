//! SYN cookies (RFC 4987 3.6): what a half-open connection must remember, in the sequence number of its SYN|ACK.
//!
//! They are made only while the SYN table is full, so that a flood of SYNs from forged addresses costs honest peers their
//! window scale and SACK, but not their connection. One lives for one to two [periods](PERIOD_US), and is looked for only
//! as long as one may be alive: else every segment to nobody would be a guess at one. One that has made a connection makes
//! no other.

mod awaited;
mod spent;

use crate::isn::IsnSource;
use crate::limits::MIN_MSS;
use crate::{Coarse, FlowKey, Instant};
use awaited::Awaited;
use spent::Spent;

/// How long the same key input is used, microseconds; Linux: 64 s. Longer than a SYN|ACK and its ACK ever travel.
const PERIOD_US: u64 = 64_000_000;
/// No cookie is good for longer, microseconds.
const LIFE_US: u64 = 2 * PERIOD_US;
/// What turns a cookie that lies below the numbers of an old connection of its flow into one beyond them.
pub(crate) const OTHER_HALF: u32 = 1 << 31;
/// Segment sizes that a cookie can name, bytes: the one below what the peer takes is used. Links in use: dial-up, the
/// minimum of IPv4, of IPv6, tunnels, Ethernet with IPv6 and with IPv4, jumbo frames.
const SIZES: [u16; 8] = [MIN_MSS, 216, 536, 1220, 1360, 1440, 1460, 8940];
const SIZE_BITS: u32 = SIZES.len().trailing_zeros();

/// Makes cookies and knows its own, but not those of another shard: an ACK that has gone astray may be a repetition of one
/// that made a connection there, and must not make a second here.
pub(crate) struct Cookies {
    source: IsnSource,
    shard: u64,
    /// The last one that this shard made; `None`: never.
    made_at: Option<Instant>,
    spent: Spent,
    awaited: Awaited,
}

impl Cookies {
    /// Bytes of the memory for `remembered` cookies, and for flows that are to bring one back.
    pub(crate) fn bytes_for(remembered: usize) -> usize {
        Spent::bytes_for(remembered) + Awaited::BYTES
    }

    /// The cookies of shard number `shard`, which remembers so many of those that came back.
    pub(crate) fn new(source: IsnSource, shard: usize, remembered: usize) -> Self {
        Cookies { source, shard: shard as u64, made_at: None, spent: Spent::new(remembered), awaited: Awaited::new() }
    }

    /// Our initial sequence number for a SYN with number `irs` from a peer that takes segments of `mss` bytes. `flow` is a
    /// keyed hash of `key`, always the same one: that of the flow table, which has it anyway.
    pub(crate) fn make(&mut self, now: Instant, key: &FlowKey, flow: u64, irs: u32, mss: u16) -> u32 {
        self.made_at = Some(now);
        self.awaited.add(now, flow);
        let size = SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0) as u32;
        self.cookie(now.micros() / PERIOD_US, key, irs, size)
    }

    /// The segment size that `iss` names, if it is a cookie for this flow and `irs`, neither too old nor
    /// [spent](Self::spend).
    pub(crate) fn check(&self, now: Instant, key: &FlowKey, irs: u32, iss: u32) -> Option<u16> {
        if !self.any_alive(now) {
            return None;
        }
        // The lowest bit of the period is in the cookie: it was made in this one, or in the one before.
        let period = now.micros() / PERIOD_US;
        let period = period.checked_sub(u64::from((period as u32 ^ iss) & 1))?;
        let size = iss >> 1 & (SIZES.len() as u32 - 1);
        let good = self.cookie(period, key, irs, size) == iss && !self.spent.holds(now, self.hash(key, irs, iss));
        good.then(|| SIZES[size as usize])
    }

    /// `iss`, or what [`OTHER_HALF`] made of it, has become a connection: it is good for no other. (A peer that begins anew
    /// with the same number within the same minute, from the same port, is told to choose another one.)
    pub(crate) fn spend(&mut self, now: Instant, key: &FlowKey, flow: u64, irs: u32, iss: u32) {
        self.spent.add(now, self.hash(key, irs, iss));
        self.awaited.remove(flow);
    }

    /// Whether the flow with this hash may still [bring back](Self::check) a cookie that it was sent.
    pub(crate) fn awaits(&self, now: Instant, flow: u64) -> bool {
        self.any_alive(now) && self.awaited.holds(now, flow)
    }

    /// Whether one that we made may still be good.
    fn any_alive(&self, now: Instant) -> bool {
        self.made_at.is_some_and(|at| now.micros_since(at) <= LIFE_US)
    }

    fn hash(&self, key: &FlowKey, irs: u32, iss: u32) -> u64 {
        self.source.tag(key, [u64::MAX, u64::from(irs) << 32 | u64::from(iss & !OTHER_HALF)])
    }

    fn cookie(&self, period: u64, key: &FlowKey, irs: u32, size: u32) -> u32 {
        let tag = self.source.tag(key, [self.shard << 48 | period, u64::from(irs) << 32 | u64::from(size)]) as u32;
        tag << (1 + SIZE_BITS) | size << 1 | (period as u32 & 1)
    }
}

/// What is remembered of something with this hash since `at`: never 0.
fn entry(hash: u64, at: Instant) -> u64 {
    tag(hash) << 32 | u64::from(Coarse::before(at).bits())
}

/// The half of a hash that its place in a table does not tell already; never 0.
fn tag(hash: u64) -> u64 {
    hash >> 32 | 1
}

/// Whether an [`entry`] is of no earlier time than a cookie that may still be good.
fn is_alive(now: Instant, entry: u64) -> bool {
    now.micros_since(Coarse::from_bits(entry as u32).instant()) <= LIFE_US
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of flows.
    const KEY: u64 = 0x1234_5678_9abc_def0;
    const OTHER: u64 = 0x0fed_cba9_8765_4321;

    #[test]
    fn knows_its_own_and_nobody_elses_for_one_to_two_periods() {
        let key = FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 1000, 80);
        let mut cookies = Cookies::new(IsnSource::new(&[7; 16]), 0, 0);
        for start in [PERIOD_US, 5 * PERIOD_US / 2, 4 * PERIOD_US - 1] {
            let t = Instant::from_micros(start);
            assert_eq!(Cookies::new(IsnSource::new(&[7; 16]), 0, 0).check(t, &key, 5, 5), None, "none was made");
            let iss = cookies.make(t, &key, KEY, 77, 1459);
            assert_eq!(cookies.check(t, &key, 77, iss), Some(1440));
            assert_eq!(cookies.check(t.plus_micros(PERIOD_US), &key, 77, iss), Some(1440));
            assert_eq!(cookies.check(t.plus_micros(2 * PERIOD_US), &key, 77, iss), None);
            assert_eq!(cookies.check(t.plus_micros(3 * PERIOD_US), &key, 77, iss), None);
            assert_eq!(cookies.check(t, &key, 78, iss), None);
            assert_eq!(cookies.check(t, &FlowKey { peer_port: 1001, ..key }, 77, iss), None);
            let strangers = (0..100_000).filter(|&n| cookies.check(t, &key, 77, n) == Some(1440)).count();
            assert!(strangers <= 1, "{strangers}");
            let mut others = Cookies::new(IsnSource::new(&[8; 16]), 0, 0);
            others.make(t, &key, KEY, 77, 1459);
            assert_eq!(others.check(t, &key, 77, iss), None);
            let mut beside = Cookies::new(IsnSource::new(&[7; 16]), 1, 0);
            beside.make(t, &key, KEY, 77, 1459);
            assert_eq!(beside.check(t, &key, 77, iss), None, "another shard's");
            // It makes one connection, in either half of the numbers.
            let other = FlowKey { peer_port: 1001, ..key };
            let beside = cookies.make(t, &other, OTHER, 77, 1459);
            cookies.spend(t, &key, KEY, 77, iss ^ OTHER_HALF);
            assert_eq!(cookies.check(t, &key, 77, iss), None, "spent");
            assert_eq!(cookies.check(t, &other, 77, beside), Some(1440));
            assert!(cookies.awaits(t, OTHER) && !cookies.awaits(t, KEY));
            assert!(!cookies.awaits(t.plus_micros(LIFE_US + 100_000), OTHER));
        }
    }

    #[test]
    fn names_a_size_that_the_peer_takes() {
        let key = FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 1000, 80);
        let mut cookies = Cookies::new(IsnSource::new(&[7; 16]), 0, 0);
        let t = Instant::from_millis(1);
        for mss in MIN_MSS..=u16::MAX {
            let iss = cookies.make(t, &key, KEY, 1, mss);
            assert!(cookies.check(t, &key, 1, iss).is_some_and(|size| size <= mss), "{mss}");
        }
    }
}
