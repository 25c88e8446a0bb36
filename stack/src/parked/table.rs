//! Where parked connections lie, by family, and when something is due for one.

use super::Resting;
use super::record::{Key, KeyV4, KeyV6, Record};
use crate::aligned::addresses;
use crate::{Coarse, FlowKey, Instant};
use arrayvec::ArrayVec;
use core::ops::Range;

/// Records that share one deadline, the least of theirs.
pub const GROUP: usize = 64;
/// Bytes of a parked connection over IPv4, beside its place in the flow table.
pub const RECORD_V4: usize = size_of::<Record<KeyV4>>() + size_of::<u32>() / GROUP;
/// The same over IPv6.
pub const RECORD_V6: usize = size_of::<Record<KeyV6>>() + size_of::<u32>() / GROUP;
const _: () = assert!(RECORD_V4 == 64 && RECORD_V6 == 88);

/// In a position: it is in the table of IPv6.
const V6: u32 = 1 << 29;
/// Of a free record: there is no next one.
const NONE: u32 = u32::MAX;

struct Table<K: Key> {
    records: Vec<Record<K>>,
    /// The first free one below `records.len()`.
    free: u32,
    len: usize,
    /// For each group, nothing in it is due before this.
    least: Vec<u32>,
}

impl<K: Key> Table<K> {
    fn new(capacity: usize) -> Self {
        let groups = capacity.div_ceil(GROUP);
        Table { records: Vec::with_capacity(capacity), free: NONE, len: 0, least: Vec::with_capacity(groups) }
    }

    fn insert(&mut self, record: Record<K>) -> u32 {
        self.len += 1;
        let at = match self.records.get_mut(self.free as usize) {
            Some(place) => {
                let at = self.free;
                self.free = place.snd_nxt;
                *place = record;
                at
            }
            None => {
                debug_assert!(self.records.len() < self.records.capacity(), "room was set aside for every connection");
                self.records.push(record);
                (self.records.len() - 1) as u32
            }
        };
        self.note(at, record.due().bits());
        at
    }

    /// Something is due for the record at `at` then.
    fn note(&mut self, at: u32, due: u32) {
        let group = at as usize / GROUP;
        if group == self.least.len() {
            self.least.push(due);
        }
        self.least[group] = self.least[group].min(due);
    }

    fn get(&self, at: u32) -> Option<&Record<K>> {
        self.records.get(at as usize).filter(|record| record.is_taken())
    }

    fn remove(&mut self, at: u32) {
        let Some(record) = self.records.get_mut(at as usize).filter(|record| record.is_taken()) else { return };
        let nobody = FlowKey::v4([0; 4], [0; 4], 0, 0);
        (record.key, record.snd_nxt) = (K::pack(&nobody), self.free);
        self.free = at;
        self.len -= 1;
    }

    /// Goes through one group: what is due goes to `out`, the least of the rest is noted.
    fn look_into(&mut self, group: usize, now: Coarse, out: &mut ArrayVec<u32, GROUP>) {
        let start = group * GROUP;
        let mut least = u32::MAX;
        for (at, record) in self.records.iter().enumerate().skip(start).take(GROUP) {
            if !record.is_taken() {
                continue;
            }
            if record.due() <= now {
                out.push(at as u32);
            } else {
                least = least.min(record.due().bits());
            }
        }
        self.least[group] = least;
    }
}

/// All parked connections of a shard, named by their position.
pub(crate) struct Parked {
    v4: Table<KeyV4>,
    v6: Table<KeyV6>,
    /// Nothing is due before this.
    least: u32,
    /// The groups are being gone through: the next one, and the least of those before.
    lap: Option<(usize, u32)>,
    /// Whatever is due waits until then.
    paused_until: Instant,
}

impl Parked {
    /// Room for `capacity` of either family.
    pub(crate) fn new(capacity: usize) -> Self {
        let (v4, v6) = (Table::new(capacity), Table::new(capacity));
        Parked { v4, v6, least: u32::MAX, lap: None, paused_until: Instant::ZERO }
    }

    pub(crate) fn len(&self) -> usize {
        self.v4.len + self.v6.len
    }

    /// Adds one, and says where; `None`: it does not fit a record.
    pub(crate) fn insert(&mut self, rest: &Resting) -> Option<u32> {
        let (at, due) = if rest.key.is_v4() {
            let record = Record::pack(rest)?;
            (self.v4.insert(record), record.due())
        } else {
            let record = Record::pack(rest)?;
            (self.v6.insert(record) | V6, record.due())
        };
        self.note(due.bits());
        Some(at)
    }

    fn note(&mut self, due: u32) {
        self.least = self.least.min(due);
        if let Some((_, least)) = &mut self.lap {
            *least = (*least).min(due);
        }
    }

    /// Whether the one at `at` is of this flow.
    #[inline]
    pub(crate) fn is(&self, at: u32, key: &FlowKey) -> bool {
        if at & V6 == 0 {
            key.is_v4() && self.v4.get(at).is_some_and(|record| record.key == KeyV4::pack(key))
        } else {
            self.v6.get(at & !V6).is_some_and(|record| record.key == KeyV6::pack(key))
        }
    }

    /// What is parked at `at`. `keep_alive_us` is the silence after which its peer is asked whether it lives, if any is.
    pub(crate) fn get(&self, at: u32, keep_alive_us: Option<u64>) -> Option<Resting> {
        if at & V6 == 0 {
            Some(self.v4.get(at)?.unpack(keep_alive_us))
        } else {
            Some(self.v6.get(at & !V6)?.unpack(keep_alive_us))
        }
    }

    /// Forgets the one at `at`.
    pub(crate) fn remove(&mut self, at: u32) {
        if at & V6 == 0 {
            self.v4.remove(at)
        } else {
            self.v6.remove(at & !V6)
        }
        if self.len() == 0 {
            // Whoever sleeps until something is due should not wake for nobody.
            (self.least, self.lap) = (u32::MAX, None);
        }
    }

    /// Where the records of either family lie, or will.
    pub(crate) fn addresses(&self) -> [Range<usize>; 2] {
        [addresses(&self.v4.records), addresses(&self.v6.records)]
    }

    /// Where to prefetch.
    pub(crate) fn address(&self, at: u32) -> usize {
        let v4 = || self.v4.records.get(at as usize).map(|r| core::ptr::from_ref(r) as usize);
        let v6 = || self.v6.records.get((at & !V6) as usize).map(|r| core::ptr::from_ref(r) as usize);
        if at & V6 == 0 { v4() } else { v6() }.unwrap_or(0)
    }

    /// When [`due`](Self::due) may have something.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.least != u32::MAX).then(|| Coarse::from_bits(self.least).instant().max(self.paused_until))
    }

    /// Nothing could be done for anybody: nothing is due before `until`.
    pub(crate) fn pause(&mut self, until: Instant) {
        self.paused_until = until;
    }

    /// Whether there may be something due.
    #[inline]
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    /// Connections of one group for which something is due: all are to be dealt with, or [put off](Self::put_off). Empty:
    /// nothing is due, or `budget`, of which each group that is looked at takes 1, is used up.
    pub(crate) fn due(&mut self, now: Instant, budget: &mut usize) -> ArrayVec<u32, GROUP> {
        let mut out = ArrayVec::new();
        if !self.is_due(now) {
            return out;
        }
        let now = Coarse::before(now);
        let groups = [self.v4.least.len(), self.v6.least.len()];
        let (mut group, mut least) = self.lap.unwrap_or((0, u32::MAX));
        while out.is_empty() && *budget > 0 && group < groups[0] + groups[1] {
            *budget -= 1;
            let (table_v6, at) = if group < groups[0] { (false, group) } else { (true, group - groups[0]) };
            let mark = if table_v6 { &mut self.v6.least[at] } else { &mut self.v4.least[at] };
            if Coarse::from_bits(*mark) <= now {
                if table_v6 {
                    self.v6.look_into(at, now, &mut out);
                    out.iter_mut().for_each(|at| *at |= V6);
                } else {
                    self.v4.look_into(at, now, &mut out);
                }
            }
            least = least.min(if table_v6 { self.v6.least[at] } else { self.v4.least[at] });
            group += 1;
        }
        if group == groups[0] + groups[1] && out.is_empty() {
            (self.least, self.lap) = (least, None);
        } else {
            self.lap = Some((group, least));
        }
        out
    }

    /// Nothing could be done for the one at `at`: it is due again then.
    pub(crate) fn put_off(&mut self, at: u32, until: Instant) {
        let due = Coarse::after(until).bits();
        if at & V6 == 0 {
            self.v4.note(at, due)
        } else {
            self.v6.note(at & !V6, due)
        }
        self.note(due);
    }

    /// The next one at or behind `place`, which counts through both tables and is moved there. Each record that is looked at
    /// takes 1 from `looks`; `None` with some left: there is none.
    pub(crate) fn next_from(&self, place: &mut usize, looks: &mut usize) -> Option<u32> {
        let (v4, v6) = (self.v4.records.len(), self.v6.records.len());
        while *looks > 0 && *place < v4 + v6 {
            *looks -= 1;
            let at = *place as u32;
            if *place < v4 && self.v4.get(at).is_some() {
                return Some(at);
            }
            if *place >= v4 && self.v6.get(at - v4 as u32).is_some() {
                return Some((at - v4 as u32) | V6);
            }
            *place += 1;
        }
        None
    }
}
