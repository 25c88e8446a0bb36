//! The receiving end of the link: as RFC 5681 4.2, RFC 2018 4, RFC 2883 4, RFC 7323 4.3 and RFC 3168 6.1.3 want it.

use super::Reader;
use crate::recovery::ECHO_GRAIN_US;
use std::collections::BTreeMap;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) stamp_us: u64,
    pub(super) marked: bool,
    pub(super) cwr: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Message {
    pub(super) ack: u64,
    pub(super) window: u64,
    pub(super) sack: Vec<(u64, u64)>,
    pub(super) echoed: Option<u64>,
    pub(super) ece: bool,
}

pub(super) struct Peer {
    pub(super) reader: Reader,
    mss: u64,
    /// Received out of order: start and end.
    islands: BTreeMap<u64, u64>,
    /// Starts of islands, the last one changed first.
    recent: Vec<u64>,
    duplicate: Option<(u64, u64)>,
    pub(super) received: u64,
    read: u64,
    pub(super) acked: u64,
    echo_us: u64,
    pub(super) refused: u64,
    ece: bool,
}

impl Peer {
    pub(super) fn new(reader: Reader, mss: u64) -> Self {
        Peer {
            reader,
            mss,
            islands: BTreeMap::new(),
            recent: vec![],
            duplicate: None,
            received: 0,
            read: 0,
            acked: 0,
            echo_us: 0,
            refused: 0,
            ece: false,
        }
    }

    fn window(&self) -> u64 {
        self.reader.buffer - (self.received - self.read)
    }

    pub(super) fn consume(&mut self, now: u64) {
        if !self.reader.asleep.contains(&now) {
            self.read = self.received;
        }
    }

    /// Takes a segment; says whether its ACK cannot wait.
    pub(super) fn receive(&mut self, now: u64, segment: &Segment) -> bool {
        if now >= self.reader.reneges_at {
            self.reader.reneges_at = u64::MAX;
            self.islands.clear();
            self.recent.clear();
        }
        self.ece = self.ece && !segment.cwr || segment.marked;
        let (before, gaps) = (self.received, !self.islands.is_empty());
        let edge = self.read + self.reader.buffer;
        let (start, end) = (segment.offset, (segment.offset + segment.len).min(edge));
        let stamp = segment.stamp_us - segment.stamp_us % ECHO_GRAIN_US;
        if self.reader.stamps && stamp + ECHO_GRAIN_US < self.echo_us {
            // PAWS (RFC 7323 5.3), with Linux's tick of tolerance (`TCP_PAWS_WINDOW`), and its report of what it has.
            self.refused += 1;
            if start < self.received {
                self.duplicate = Some((start, end.min(self.received)));
            }
            return true;
        }
        if start <= self.acked {
            self.echo_us = stamp;
        }
        if end <= self.received || self.islands.range(..=start).next_back().is_some_and(|(_, e)| *e >= end) {
            self.duplicate = (start < end).then_some((start, end));
        } else if start < end && !(self.reader.discards && start > self.received) {
            self.insert(start, end);
        }
        while let Some((start, end)) = self.islands.first_key_value().map(|(s, e)| (*s, *e))
            && start <= self.received
        {
            self.islands.remove(&start);
            self.received = self.received.max(end);
        }
        self.consume(now);
        // In order and nothing missing: every second segment or after 40 ms. All else: at once.
        let in_order = self.received > before && !gaps && self.islands.is_empty();
        !in_order || self.received - self.acked >= self.reader.stretch * self.mss || segment.marked
    }

    fn insert(&mut self, mut start: u64, mut end: u64) {
        while let Some((&s, &e)) = self.islands.range(..=end).next_back()
            && e >= start
        {
            self.islands.remove(&s);
            self.recent.retain(|x| *x != s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.islands.insert(start, end);
        self.recent.insert(0, start);
    }

    pub(super) fn acknowledge(&mut self, now: u64) -> Message {
        self.consume(now);
        self.acked = self.received;
        let mut sack = vec![];
        if self.reader.sack {
            self.recent.retain(|start| self.islands.contains_key(start));
            if let Some((left, right)) = self.duplicate.take() {
                sack.push((left, right));
                // RFC 2883 4.2: next the block that holds it, if one does.
                let holds = |start: &u64| *start <= left && right <= self.islands[start];
                if let Some(i) = self.recent.iter().position(holds) {
                    let start = self.recent.remove(i);
                    self.recent.insert(0, start);
                }
            }
            sack.extend(self.recent.iter().map(|start| (*start, self.islands[start])));
            sack.truncate(if self.reader.stamps { 3 } else { 4 });
        }
        let echoed = self.reader.stamps.then_some(self.echo_us);
        Message { ack: self.received, window: self.window(), sack, echoed, ece: self.ece }
    }
}
