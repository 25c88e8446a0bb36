//! What a capture knows of each flow: how far both streams are, what was sent again.

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use khamsin_stack::FlowKey;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::ops::Range;

/// Flows whose tallies are kept; beyond that the one that was silent longest is forgotten. About 13 MB.
const FLOWS_MAX: NonZeroUsize = NonZeroUsize::new(1 << 17).expect("is not 0");

/// Text that is further ahead of what was acknowledged is none of the connection's: no window is as large.
const REACH: i32 = (4 << 20) + (64 << 10);

/// One direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Stream {
    /// The sequence number behind the last byte seen.
    next: Option<u32>,
    /// That of the FIN.
    fin: Option<u32>,
    /// Bytes from the first one seen to `next`.
    bytes: u64,
    /// Segments with text that begins before `next`, or with a SYN or FIN that was there before.
    again: u64,
}

impl Stream {
    /// One whose first byte bears this number.
    fn at(first: u32) -> Stream {
        Stream { next: Some(first), ..Stream::default() }
    }

    fn segment(&mut self, seq: u32, len: u32, fin: bool) {
        let next = *self.next.get_or_insert(seq);
        if len == 0 && !fin {
            return;
        }
        let end = seq.wrapping_add(len);
        let late = len > 0 && (seq.wrapping_sub(next) as i32) < 0;
        self.again += u64::from(late || (fin && self.fin == Some(end)));
        if fin {
            self.fin = Some(end);
        }
        let fresh = end.wrapping_sub(next) as i32;
        if fresh > 0 {
            self.bytes += fresh as u64;
            self.next = Some(end);
        }
    }
}

/// Both directions of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Flow {
    received: Stream,
    sent: Stream,
    /// What we acknowledged last.
    acknowledged: Option<u32>,
    /// The first frame, and the last SYN.
    first_ns: u64,
    syn_ns: Option<u64>,
    /// Which frame in the file is its last one.
    last: Option<u64>,
}

impl Flow {
    fn received(&mut self, segment: &Segment, stamp_ns: u64) {
        if segment.syn {
            // Anybody can send a SYN. Whether it opens a connection, our SYN|ACK says.
            self.syn_ns = Some(stamp_ns);
            return;
        }
        let ahead = |acknowledged| segment.seq.wrapping_add(segment.len).wrapping_sub(acknowledged) as i32;
        if self.acknowledged.is_none_or(|acknowledged| ahead(acknowledged) <= REACH) {
            self.received.segment(segment.seq, segment.len, segment.fin);
        }
    }

    fn sent(&mut self, segment: &Segment, stamp_ns: u64) {
        self.acknowledged = segment.ack.or(self.acknowledged);
        if !segment.syn {
            return self.sent.segment(segment.seq, segment.len, segment.fin);
        }
        let first = segment.seq.wrapping_add(1);
        if self.sent.next == Some(first) && self.sent.bytes == 0 {
            self.sent.again += 1;
            return;
        }
        // Another connection of the same ports.
        let received = segment.ack.map_or(Stream::default(), Stream::at);
        let first_ns = self.syn_ns.unwrap_or(stamp_ns);
        *self = Flow {
            received,
            sent: Stream::at(first),
            first_ns,
            acknowledged: segment.ack,
            last: self.last,
            syn_ns: self.syn_ns,
        };
    }
}

/// The flows of a capture.
pub(super) struct Flows(LruCache<FlowKey, Flow>);

/// What a frame says of its TCP flow.
pub(super) struct Segment {
    pub(super) key: FlowKey,
    /// Where it lies in the frame, from the TCP header on.
    pub(super) at: Range<usize>,
    seq: u32,
    ack: Option<u32>,
    len: u32,
    syn: bool,
    fin: bool,
}

/// The TCP segment in a frame that we received or sent, if there is a whole header of one.
pub(super) fn segment(frame: &[u8], received: bool) -> Option<Segment> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
    let (from, to) = (tcp.source_port(), tcp.destination_port());
    let (peer_port, local_port) = if received { (from, to) } else { (to, from) };
    let key = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            let (peer, local) = if received { (from, to) } else { (to, from) };
            FlowKey::v4(peer, local, peer_port, local_port)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            let (peer, local) = if received { (from, to) } else { (to, from) };
            FlowKey::v6(peer, local, peer_port, local_port)
        }
        _ => return None,
    };
    // A slice of the frame.
    let start = tcp.slice().as_ptr().addr() - frame.as_ptr().addr();
    Some(Segment {
        key,
        at: start..start + tcp.slice().len(),
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        len: tcp.payload().len() as u32,
        syn: tcp.syn(),
        fin: tcp.fin(),
    })
}

impl Flows {
    pub(super) fn new() -> Self {
        Flows(LruCache::new(FLOWS_MAX))
    }

    /// A segment passed; `last`: the number of its frame in the file, if it is there.
    pub(super) fn saw(&mut self, segment: &Segment, received: bool, stamp_ns: u64, last: Option<u64>) {
        let fresh = || Flow { first_ns: stamp_ns, ..Flow::default() };
        let flow = self.0.get_or_insert_mut(segment.key, fresh);
        if received {
            flow.received(segment, stamp_ns);
        } else {
            flow.sent(segment, stamp_ns);
        }
        flow.last = last.or(flow.last);
    }

    /// A flow's connection is over: the comment and the number of its last frame in the file; nothing if there is none.
    pub(super) fn ended(&mut self, key: &FlowKey, reason: &str, stamp_ns: u64) -> Option<(String, Option<u64>)> {
        let peer = key.peer_addr();
        let Some(flow) = self.0.pop(key) else {
            let comment = format!("connection of {peer}: {reason}; too many flows to have kept its figures");
            return Some((comment, None));
        };
        let ms = stamp_ns.saturating_sub(flow.first_ns) / 1_000_000;
        flow.last?;
        let comment = format!(
            "connection of {peer}: {reason} after {}.{:03} s; received {} B ({} segments again or late), sent {} B ({} \
             segments again)",
            ms / 1000,
            ms % 1000,
            flow.received.bytes,
            flow.received.again,
            flow.sent.bytes,
            flow.sent.again
        );
        Some((comment, flow.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_as_long_as_its_furthest_byte() {
        let mut stream = Stream::at(u32::MAX - 9);
        stream.segment(u32::MAX - 9, 20, false);
        stream.segment(u32::MAX - 9, 20, false);
        stream.segment(30, 10, false);
        stream.segment(10, 20, false);
        assert_eq!((stream.bytes, stream.again), (50, 2));
        stream.segment(40, 0, true);
        stream.segment(40, 0, false);
        assert_eq!((stream.bytes, stream.again), (50, 2));
        stream.segment(40, 0, true);
        stream.segment(30, 10, true);
        assert_eq!((stream.bytes, stream.again), (50, 4));
    }

    const KEY: FlowKey = FlowKey { peer: [1; 16], local: [2; 16], peer_port: 4000, local_port: 80 };

    fn segment(seq: u32, ack: Option<u32>, len: u32, syn: bool) -> Segment {
        Segment { key: KEY, at: 0..0, seq, ack, len, syn, fin: false }
    }

    fn said(flows: &mut Flows, stamp_ns: u64) -> String {
        flows.ended(&KEY, "finished", stamp_ns).unwrap().0
    }

    /// Figures are those of the connection that ended, whatever was sent from its ports before, or by others in its name.
    #[test]
    fn figures_are_the_connections_own() {
        let mut flows = Flows::new();
        let (received, sent) = (true, false);
        let second = 1_000_000_000;
        // What is left of a connection that ended long ago, and somebody half-open.
        flows.saw(&segment(70, Some(1), 300, false), received, 0, Some(0));
        flows.saw(&segment(1, Some(370), 0, false), sent, 0, Some(1));
        flows.saw(&segment(90, None, 0, true), received, second, Some(2));
        flows.saw(&segment(5, Some(91), 0, true), sent, second, Some(3));
        // Minutes later: a connection whose SYN|ACK is lost once.
        flows.saw(&segment(500, None, 0, true), received, 100 * second, Some(4));
        flows.saw(&segment(900, Some(501), 0, true), sent, 100 * second, Some(5));
        flows.saw(&segment(900, Some(501), 0, true), sent, 101 * second, Some(6));
        flows.saw(&segment(501, Some(901), 20, false), received, 102 * second, Some(7));
        // In its name: a SYN, and text from far away; and then the rest of its own.
        flows.saw(&segment(7777, None, 0, true), received, 102 * second, Some(8));
        flows.saw(&segment(500_000_000, Some(901), 20, false), received, 102 * second, Some(9));
        flows.saw(&segment(901, Some(521), 100, false), sent, 102 * second, Some(10));
        flows.saw(&segment(521, Some(1001), 5, false), received, 102 * second, Some(11));
        let said = said(&mut flows, 103 * second);
        assert!(
            said.contains("after 3.000 s; received 25 B (0 segments again or late), sent 100 B (1 segments"),
            "{said}"
        );
    }

    /// Many megabytes that the capture missed are none that the connection never had.
    #[test]
    fn a_gap_in_the_capture_is_part_of_the_stream() {
        let mut flows = Flows::new();
        flows.saw(&segment(900, Some(501), 0, true), false, 0, Some(0));
        flows.saw(&segment(901, Some(100_000_501), 0, false), false, 0, Some(1));
        flows.saw(&segment(100_000_501, Some(901), 1000, false), true, 0, Some(2));
        let said = said(&mut flows, 0);
        assert!(said.contains("received 100001000 B"), "{said}");
    }
}
