//! The ring between a worker and the writer: records of a fixed header and as many bytes as it says.

use crate::clock::Clock;
use khamsin_stack::{CloseReason, FlowKey, QueueStats};
use rtrb::{Consumer, Producer, RingBuffer};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::UNIX_EPOCH;

/// Bytes of a record's header: kind, three unused, length, frames missed before this record, time.
const HEADER: usize = 24;

/// What a record tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Received,
    Sent,
    /// A connection is over: its flow and the reason.
    Ended,
}

/// A record without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Bytes that follow.
    pub(super) len: u32,
    /// Frames that found no room since the record before, of this worker.
    pub(super) missed: u64,
    /// Nanoseconds since 1970, UTC: when the worker's turn began.
    pub(super) stamp_ns: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.len.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.missed.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.stamp_ns.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER]) -> Header {
        let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let kind = match bytes[0] {
            0 => Kind::Received,
            1 => Kind::Sent,
            _ => Kind::Ended,
        };
        let len = u32::from_ne_bytes(std::array::from_fn(|i| bytes[4 + i]));
        Header { kind, len, missed: long(8), stamp_ns: long(16) }
    }
}

/// What a worker tells the writer beside the records. Frames.
#[derive(Debug, Default)]
pub struct Tallies {
    /// Frames that are missing from the file because the ring was full or the file could not be written.
    pub missed: AtomicU64,
    /// Frames that found room in the ring.
    pub taken: AtomicU64,
    /// Frames that the queue received.
    pub received: AtomicU64,
    /// Frames that were dropped before the queue.
    pub dropped: AtomicU64,
    /// Ends of connections that found no room in the ring.
    pub unsaid: AtomicU64,
}

/// The worker's end of a ring. Neither waits nor allocates.
pub struct Tap {
    ring: Producer<u8>,
    tallies: Arc<Tallies>,
    /// Missed since the last record.
    missed: u64,
    /// Frames that found room, and their bytes.
    taken: (u64, u64),
    stamp_ns: u64,
}

/// The writer's end of a ring.
pub(super) struct Source {
    ring: Consumer<u8>,
    pub(super) tallies: Arc<Tallies>,
    head: Option<Header>,
}

/// A ring of `bytes`.
pub(super) fn ring(bytes: usize) -> (Tap, Source) {
    let (producer, consumer) = RingBuffer::new(bytes);
    let tallies = Arc::new(Tallies::default());
    let tap = Tap { ring: producer, tallies: tallies.clone(), missed: 0, taken: (0, 0), stamp_ns: 0 };
    (tap, Source { ring: consumer, tallies, head: None })
}

impl Tap {
    /// A turn begins: frames until the next one bear its time.
    pub(super) fn begin(&mut self) {
        let now = Clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.stamp_ns = now.as_nanos() as u64;
    }

    /// What the queue counted. Some queues ask the kernel for it: not each turn.
    pub(super) fn note(&self, stats: &QueueStats) {
        self.tallies.received.store(stats.rx_frames, Relaxed);
        self.tallies.dropped.store(stats.rx_dropped + stats.rx_syns_refused, Relaxed);
    }

    pub(super) fn frame(&mut self, kind: Kind, bytes: &[u8]) {
        if self.put(kind, &[bytes]) {
            self.taken = (self.taken.0 + 1, self.taken.1 + bytes.len() as u64);
            self.tallies.taken.store(self.taken.0, Relaxed);
            return;
        }
        self.missed += 1;
        self.tallies.missed.store(self.tallies.missed.load(Relaxed) + 1, Relaxed);
    }

    /// A connection is over.
    pub(super) fn ended(&mut self, key: &FlowKey, reason: CloseReason) {
        let mut text = [0; 32];
        let mut rest = &mut text[..];
        // Reasons are shorter than that; a longer one is cut.
        let _ = write!(rest, "{reason}");
        let len = 32 - rest.len();
        let (peer_port, local_port) = (key.peer_port.to_be_bytes(), key.local_port.to_be_bytes());
        if !self.put(Kind::Ended, &[&key.peer, &key.local, &peer_port, &local_port, &text[..len]]) {
            self.tallies.unsaid.store(self.tallies.unsaid.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Frames handed to the writer so far, and their bytes.
    pub fn taken(&self) -> (u64, u64) {
        self.taken
    }

    /// Frames missing from the file so far.
    pub fn missed(&self) -> u64 {
        self.tallies.missed.load(Relaxed)
    }

    fn put(&mut self, kind: Kind, parts: &[&[u8]]) -> bool {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        if self.ring.is_abandoned() || self.ring.slots() < HEADER + len {
            return false;
        }
        let header = Header { kind, len: len as u32, missed: self.missed, stamp_ns: self.stamp_ns };
        // There is room for all of it, and nobody else fills the ring.
        let _ = self.ring.push_entire_slice(&header.to_bytes());
        for part in parts {
            let _ = self.ring.push_entire_slice(part);
        }
        self.missed = 0;
        true
    }
}

impl Source {
    /// The next record's header, if the record is there whole.
    pub(super) fn head(&mut self) -> Option<Header> {
        if self.head.is_none() {
            let mut bytes = [0; HEADER];
            self.ring.pop_entire_slice(&mut bytes).ok()?;
            self.head = Some(Header::from_bytes(&bytes));
        }
        self.head.filter(|head| self.ring.slots() >= head.len as usize)
    }

    /// Takes the bytes of the record whose header [`head`](Self::head) gave.
    pub(super) fn body(&mut self) -> Option<(Header, Vec<u8>)> {
        let head = self.head()?;
        let mut bytes = vec![0; head.len as usize];
        self.ring.pop_entire_slice(&mut bytes).ok()?;
        self.head = None;
        Some((head, bytes))
    }

    /// Nothing more will come: the worker is gone and the ring is empty.
    pub(super) fn is_over(&self) -> bool {
        self.ring.is_abandoned() && self.ring.is_empty()
    }
}

/// The flow and the reason of a [`Kind::Ended`] record.
pub(super) fn parse_ended(bytes: &[u8]) -> Option<(FlowKey, &str)> {
    let (peer, rest) = bytes.split_first_chunk::<16>()?;
    let (local, rest) = rest.split_first_chunk::<16>()?;
    let (ports, reason) = rest.split_first_chunk::<4>()?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some((FlowKey::v6(*peer, *local, port(0), port(2)), std::str::from_utf8(reason).ok()?))
}
