//! One direction of a flow: what of its sender's stream is in the trace.

use super::segment::Segment;
use crate::sim::witness::Ranges;

/// A segment further than this ahead of everything before it is not believed to be of the stream, bytes.
pub(super) const JUMP_MAX: i64 = 16 << 20;

/// An acknowledgement so far behind the other side's last known text is not believed, bytes.
pub(super) const AHEAD_MAX: i64 = 1 << 20;

/// What one side has sent. Positions count from its SYN, which is at 0: the first byte is at 1.
#[derive(Clone, Debug, Default)]
pub struct Half {
    /// Its initial sequence number, if it is known.
    pub isn: Option<u32>,
    /// Segments.
    pub segments: u64,
    /// Segments with payload, SYN or FIN of which nothing was new.
    pub retransmissions: u64,
    /// Segments that filled a hole.
    pub out_of_order: u64,
    /// Segments that lie nowhere near its stream.
    pub wild: u64,
    /// Behind the last position that it has sent.
    pub end: i64,
    /// Where its FIN is.
    pub fin_at: Option<i64>,
    /// It has reset the connection, in the packet of that number.
    pub reset: Option<u64>,
    /// Highest position of the other side that it has acknowledged; 0: nothing.
    pub acked: i64,
    /// Segments with a wrong checksum: with payload, and without.
    pub bad_checksums: [u64; 2],
    /// Segments whose checksum could be looked at: with payload, and without. Resets are not counted: they are made
    /// beside the device that completes others.
    pub checked: [u64; 2],
    /// Segments of which less was recorded than was sent.
    pub cut: u64,
    /// Of these, how many were cut in front of their payload, in the options.
    pub headers_cut: u64,
    seen: Ranges,
}

/// What a segment is to the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It begins where the stream ended, or behind that: its first position.
    New(i64),
    /// It repeats, or fills a hole.
    Old(i64),
    /// It is no part of the stream.
    Wild,
}

impl Half {
    /// The same side with another initial sequence number.
    pub(super) fn again(&self) -> Half {
        Half { segments: self.segments, ..Half::default() }
    }

    /// Takes a segment in.
    pub(super) fn add(&mut self, segment: &Segment) -> Place {
        self.segments += 1;
        self.cut += u64::from((segment.payload.len() as u32) < segment.len || segment.header_cut);
        self.headers_cut += u64::from(segment.header_cut);
        if !segment.flags.rst() {
            let bare = usize::from(segment.len == 0);
            self.checked[bare] += u64::from(segment.checksum.is_some());
            self.bad_checksums[bare] += u64::from(segment.checksum == Some(false));
        }
        if segment.flags.rst() {
            self.reset.get_or_insert(segment.number);
            return Place::Wild;
        }
        let isn = match self.isn {
            Some(isn) => isn,
            None => *self.isn.insert(segment.seq.wrapping_sub(u32::from(!segment.flags.syn()))),
        };
        let from = self.position(isn, segment.seq);
        let to = from + i64::from(segment.sequence_len());
        if from > self.end + JUMP_MAX || to < self.end - (1 << 30) {
            self.wild += 1;
            return Place::Wild;
        }
        if to == from {
            return if from >= self.end { Place::New(from) } else { Place::Old(from) };
        }
        if segment.flags.fin() && to > 1 {
            self.fin_at.get_or_insert(to - 1);
        }
        // Below the SYN lies nothing, and a range has no place for it.
        let range = (from.max(0) as u64, to.max(0) as u64);
        let place = if from >= self.end {
            Place::New(from)
        } else if self.seen.cover(range.0, range.1) {
            self.retransmissions += 1;
            Place::Old(from)
        } else {
            self.out_of_order += u64::from(to <= self.end);
            if to > self.end { Place::New(from) } else { Place::Old(from) }
        };
        self.seen.add(range.0, range.1);
        self.end = self.end.max(to);
        place
    }

    /// Where `seq` lies, near the end of the stream.
    pub fn position(&self, isn: u32, seq: u32) -> i64 {
        let end = isn.wrapping_add(self.end as u32);
        self.end + i64::from(seq.wrapping_sub(end) as i32)
    }

    /// Takes in that this side has acknowledged the other's stream, which ended at `end`, up to `position`. What was never
    /// sent, or is far from what the trace has, does not count.
    pub(super) fn acknowledge(&mut self, position: i64, end: i64) {
        if position <= end + AHEAD_MAX {
            self.acked = self.acked.max(position);
        }
    }

    /// Bytes of payload that are in the trace, each counted once.
    pub fn bytes(&self) -> u64 {
        let fin = self.fin_at.is_some_and(|at| self.seen.cover(at as u64, at as u64 + 1));
        let syn = self.seen.cover(0, 1);
        self.seen.count().saturating_sub(u64::from(fin) + u64::from(syn))
    }

    /// Holes in the stream that nothing filled.
    pub fn gaps(&self) -> usize {
        self.seen.pieces().saturating_sub(1)
    }

    /// The first position from `from` on that is not in the trace.
    pub fn end_from(&self, from: i64) -> i64 {
        self.seen.end_from(from.max(0) as u64) as i64
    }

    /// The first position from `from` on that is in the trace.
    pub fn start_from(&self, from: i64) -> Option<i64> {
        self.seen.start_from(from.max(0) as u64).map(|at| at as i64)
    }

    /// Bytes of text in front of `position`, which may be behind a FIN.
    pub fn text_before(&self, position: i64) -> u64 {
        (position.min(self.fin_at.unwrap_or(i64::MAX)) - 1).max(0) as u64
    }

    /// Most checksums are wrong: a device was to complete them after they were recorded.
    pub fn offloaded(&self) -> bool {
        // Some devices complete only segments with payload; only where there are none do the others say it.
        let bare = usize::from(self.checked[0] == 0);
        self.bad_checksums[bare] > 0 && self.bad_checksums[bare] * 2 >= self.checked[bare]
    }
}
