//! What a capture knows of each flow: how far both streams are, what was sent again.

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use khamsin_stack::FlowKey;
use lru::LruCache;
use std::num::NonZeroUsize;

/// Flows whose tallies are kept; beyond that the one that was silent longest is forgotten. About 13 MB.
const FLOWS_MAX: NonZeroUsize = NonZeroUsize::new(1 << 17).expect("is not 0");

/// One direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Stream {
    /// The sequence number behind the last byte seen.
    next: Option<u32>,
    /// Bytes from the first one seen to `next`.
    bytes: u64,
    /// Segments with text that begins before `next`.
    again: u64,
}

impl Stream {
    fn segment(&mut self, seq: u32, len: u32, syn: bool) {
        if syn {
            // Another connection of the same ports, or the same SYN once more.
            if self.next != Some(seq.wrapping_add(1)) || self.bytes > 0 {
                *self = Stream { next: Some(seq.wrapping_add(1)), ..Stream::default() };
            }
            return;
        }
        let next = *self.next.get_or_insert(seq);
        if len == 0 {
            return;
        }
        self.again += u64::from((seq.wrapping_sub(next) as i32) < 0);
        let end = seq.wrapping_add(len);
        let fresh = end.wrapping_sub(next) as i32;
        if fresh > 0 {
            self.bytes += fresh as u64;
            self.next = Some(end);
        }
    }
}

/// Both directions of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Flow {
    received: Stream,
    sent: Stream,
    first_ns: u64,
    /// Whether a frame of it is in the file.
    written: bool,
}

/// The flows of a capture.
pub(super) struct Flows(LruCache<FlowKey, Flow>);

/// What a frame says of its TCP flow.
pub(super) struct Segment {
    pub(super) key: FlowKey,
    seq: u32,
    len: u32,
    syn: bool,
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
    Some(Segment { key, seq: tcp.sequence_number(), len: tcp.payload().len() as u32, syn: tcp.syn() })
}

impl Flows {
    pub(super) fn new() -> Self {
        Flows(LruCache::new(FLOWS_MAX))
    }

    /// A segment passed; `written`: into the file too.
    pub(super) fn saw(&mut self, segment: &Segment, received: bool, stamp_ns: u64, written: bool) {
        let fresh =
            || Flow { received: Stream::default(), sent: Stream::default(), first_ns: stamp_ns, written: false };
        let flow = self.0.get_or_insert_mut(segment.key, fresh);
        let stream = if received { &mut flow.received } else { &mut flow.sent };
        stream.segment(segment.seq, segment.len, segment.syn);
        flow.written |= written;
    }

    /// A flow's connection is over: the comment, unless none of its frames is in the file.
    pub(super) fn ended(&mut self, key: &FlowKey, reason: &str, stamp_ns: u64) -> Option<String> {
        let peer = key.peer_addr();
        let Some(flow) = self.0.pop(key) else {
            return Some(format!("connection of {peer}: {reason}; too many flows to have kept its figures"));
        };
        let ms = stamp_ns.saturating_sub(flow.first_ns) / 1_000_000;
        flow.written.then(|| {
            format!(
                "connection of {peer}: {reason} after {}.{:03} s; received {} B ({} segments again or late), sent {} B ({} \
                 segments again)",
                ms / 1000,
                ms % 1000,
                flow.received.bytes,
                flow.received.again,
                flow.sent.bytes,
                flow.sent.again
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_as_long_as_its_furthest_byte() {
        let mut stream = Stream::default();
        stream.segment(u32::MAX - 10, 0, true);
        stream.segment(u32::MAX - 10, 0, true);
        stream.segment(u32::MAX - 9, 20, false);
        stream.segment(u32::MAX - 9, 20, false);
        stream.segment(30, 10, false);
        stream.segment(10, 20, false);
        assert_eq!((stream.bytes, stream.again), (50, 2));
        stream.segment(7, 0, true);
        assert_eq!(stream, Stream { next: Some(8), bytes: 0, again: 0 });
    }
}
