//! TIME-WAIT (RFC 9293 3.6.1): a bounded, compact table. The oldest entry makes room when it is full.
//!
//! All entries wait equally long, so the order of arrival is the order of expiry and the table is a ring. One that is to
//! wait once more does so when its time has come, behind all others.

use crate::limits::TIME_WAIT_US;
use crate::timestamps::Timestamps;
use crate::{FlowKey, Instant};

/// What must be remembered of a connection that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) key: FlowKey,
    /// Our next sequence number.
    pub(crate) snd_nxt: u32,
    /// The next sequence number expected of the peer.
    pub(crate) rcv_nxt: u32,
    /// Both ends' timestamps, if they were agreed on.
    pub(crate) stamps: Option<Timestamps>,
    expires: Instant,
    live: bool,
    stays: bool,
}

impl TimeWait {
    /// What is remembered of the flow `key`; its time begins with [`TimeWaitTable::insert`].
    pub(crate) fn new(key: FlowKey, snd_nxt: u32, rcv_nxt: u32, stamps: Option<Timestamps>) -> Self {
        TimeWait { key, snd_nxt, rcv_nxt, stamps, expires: Instant::ZERO, live: true, stays: false }
    }

    /// Whether the peer was heard of while it waited.
    pub(crate) fn stays(&self) -> bool {
        self.stays
    }

    /// The same for its next wait.
    pub(crate) fn again(self) -> Self {
        TimeWait { stays: false, ..self }
    }
}

/// Records between the oldest and the one that is to be made ready for its end: as many ends as take longer than a cache miss.
const AHEAD: usize = 4;

/// A ring of records, named by their position.
pub(crate) struct TimeWaitTable {
    ring: Vec<TimeWait>,
    capacity: usize,
    /// Position of the oldest record, and how many positions from there on are in use (dead ones included).
    head: usize,
    used: usize,
    live: usize,
}

impl TimeWaitTable {
    /// Bytes of an entry.
    pub(crate) const BYTES_EACH: usize = size_of::<TimeWait>();

    pub(crate) fn new(capacity: usize) -> Self {
        TimeWaitTable { ring: Vec::with_capacity(capacity), capacity, head: 0, used: 0, live: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn record(&self, id: u32) -> &TimeWait {
        &self.ring[id as usize]
    }

    /// Adds a record and returns its name. There must be room: see [`oldest_if_full`](Self::oldest_if_full).
    pub(crate) fn insert(&mut self, now: Instant, record: TimeWait) -> u32 {
        debug_assert!(self.used < self.capacity);
        let record = TimeWait { expires: now.plus_micros(TIME_WAIT_US), live: true, ..record };
        let at = (self.head + self.used) % self.capacity;
        if at == self.ring.len() {
            self.ring.push(record);
        } else {
            self.ring[at] = record;
        }
        self.used += 1;
        self.live += 1;
        at as u32
    }

    /// Has a record wait once more when its time is over.
    pub(crate) fn stay(&mut self, id: u32) {
        self.ring[id as usize].stays = true;
    }

    /// Forgets a record whose flow starts a new life.
    pub(crate) fn remove(&mut self, id: u32) {
        let record = &mut self.ring[id as usize];
        if record.live {
            record.live = false;
            self.live -= 1;
        }
    }

    /// The next record to go because its time is over; the caller takes it out of the flow table.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<(u32, TimeWait)> {
        self.pop(|record| record.expires <= now)
    }

    /// The record that must go before another can come.
    pub(crate) fn oldest_if_full(&mut self) -> Option<(u32, TimeWait)> {
        while self.used == self.capacity && !self.ring[self.head].live {
            self.head = (self.head + 1) % self.capacity;
            self.used -= 1;
        }
        if self.used < self.capacity { None } else { self.pop(|_| true) }
    }

    /// The flow of a record that will be the oldest in a short while, if the table is full.
    pub(crate) fn soon_oldest(&self) -> &FlowKey {
        &self.ring[(self.head + AHEAD) % self.ring.len()].key
    }

    fn pop(&mut self, due: impl Fn(&TimeWait) -> bool) -> Option<(u32, TimeWait)> {
        while self.used > 0 {
            let at = self.head;
            let record = &mut self.ring[at];
            if record.live && !due(record) {
                return None;
            }
            self.head = (self.head + 1) % self.capacity;
            self.used -= 1;
            if core::mem::take(&mut record.live) {
                self.live -= 1;
                return Some((at as u32, *record));
            }
        }
        None
    }

    /// When the oldest record goes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.used > 0).then(|| self.ring[self.head].expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> FlowKey {
        FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], port, 80)
    }

    fn record(port: u16) -> TimeWait {
        TimeWait::new(key(port), 1, 1, None)
    }

    #[test]
    fn expires_in_order_and_skips_what_was_removed() {
        let mut table = TimeWaitTable::new(4);
        let t = Instant::from_millis(1000);
        let a = table.insert(t, record(1));
        let b = table.insert(t.plus_micros(5), record(2));
        table.remove(a);
        assert_eq!(table.len(), 1);
        assert!(table.pop_expired(t.plus_micros(TIME_WAIT_US)).is_none());
        let popped = table.pop_expired(t.plus_micros(TIME_WAIT_US + 5)).map(|(at, r)| (at, r.key));
        assert_eq!(popped, Some((b, key(2))));
        assert_eq!(table.deadline(), None);
    }

    #[test]
    fn a_full_table_gives_up_its_oldest() {
        let mut table = TimeWaitTable::new(2);
        let t = Instant::from_millis(1);
        for port in 1..=10 {
            let out = table.oldest_if_full().map(|(_, r)| r.key.peer_port);
            assert_eq!(out, (port > 2).then(|| port - 2));
            table.insert(t, record(port));
            assert!(table.len() <= 2);
        }
    }

    #[test]
    fn what_was_removed_makes_room_before_what_lives() {
        let mut table = TimeWaitTable::new(2);
        let t = Instant::from_millis(1);
        let a = table.insert(t, record(1));
        table.insert(t, record(2));
        table.remove(a);
        assert!(table.oldest_if_full().is_none());
        table.insert(t, record(3));
        assert_eq!(table.len(), 2);
        assert_eq!(table.oldest_if_full().map(|(_, r)| r.key), Some(key(2)));
    }
}
