//! TIME-WAIT (RFC 9293 3.6.1): a bounded, compact table. The oldest entry makes room when it is full.
//!
//! All entries wait equally long, so the order of arrival is the order of expiry and the table is a ring.

use crate::limits::TIME_WAIT_US;
use crate::{FlowKey, Instant};

/// What must be remembered of a connection that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) key: FlowKey,
    /// Our next sequence number.
    pub(crate) snd_nxt: u32,
    /// The next sequence number expected of the peer.
    pub(crate) rcv_nxt: u32,
    expires: Instant,
    live: bool,
}

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
    pub(crate) fn insert(&mut self, now: Instant, key: FlowKey, snd_nxt: u32, rcv_nxt: u32) -> u32 {
        debug_assert!(self.used < self.capacity);
        let record = TimeWait { key, snd_nxt, rcv_nxt, expires: now.plus_micros(TIME_WAIT_US), live: true };
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

    /// Forgets a record whose flow starts a new life.
    pub(crate) fn remove(&mut self, id: u32) {
        let record = &mut self.ring[id as usize];
        if record.live {
            record.live = false;
            self.live -= 1;
        }
    }

    /// The next record to go because its time is over; the caller takes it out of the flow table.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<(u32, FlowKey)> {
        self.pop(|record| record.expires <= now)
    }

    /// The record that must go before another can come.
    pub(crate) fn oldest_if_full(&mut self) -> Option<(u32, FlowKey)> {
        while self.used == self.capacity && !self.ring[self.head].live {
            self.head = (self.head + 1) % self.capacity;
            self.used -= 1;
        }
        if self.used < self.capacity { None } else { self.pop(|_| true) }
    }

    fn pop(&mut self, due: impl Fn(&TimeWait) -> bool) -> Option<(u32, FlowKey)> {
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
                return Some((at as u32, record.key));
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

    #[test]
    fn expires_in_order_and_skips_what_was_removed() {
        let mut table = TimeWaitTable::new(4);
        let t = Instant::from_millis(1000);
        let a = table.insert(t, key(1), 1, 1);
        let b = table.insert(t.plus_micros(5), key(2), 1, 1);
        table.remove(a);
        assert_eq!(table.len(), 1);
        assert_eq!(table.pop_expired(t.plus_micros(TIME_WAIT_US)), None);
        assert_eq!(table.pop_expired(t.plus_micros(TIME_WAIT_US + 5)), Some((b, key(2))));
        assert_eq!(table.deadline(), None);
    }

    #[test]
    fn a_full_table_gives_up_its_oldest() {
        let mut table = TimeWaitTable::new(2);
        let t = Instant::from_millis(1);
        for port in 1..=10 {
            let out = table.oldest_if_full().map(|(_, k)| k.peer_port);
            assert_eq!(out, (port > 2).then(|| port - 2));
            table.insert(t, key(port), 0, 0);
            assert!(table.len() <= 2);
        }
    }

    #[test]
    fn what_was_removed_makes_room_before_what_lives() {
        let mut table = TimeWaitTable::new(2);
        let t = Instant::from_millis(1);
        let a = table.insert(t, key(1), 0, 0);
        table.insert(t, key(2), 0, 0);
        table.remove(a);
        assert_eq!(table.oldest_if_full(), None);
        table.insert(t, key(3), 0, 0);
        assert_eq!(table.len(), 2);
        assert_eq!(table.oldest_if_full().map(|(_, k)| k), Some(key(2)));
    }
}
