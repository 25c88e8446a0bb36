//! One TCP segment of a trace.

use etherparse::{LaxIpPayloadSlice, LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};
use khamsin_stack::wire::Flags;
use std::net::{IpAddr, SocketAddr};

/// A TCP segment as it was recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Of its packet in the trace, from 1.
    pub number: u64,
    /// When it was recorded, nanoseconds since 1970.
    pub at_ns: u64,
    /// Whether the client sent it; set when it is known whose flow it is.
    pub from_client: bool,
    /// First sequence number, as recorded.
    pub seq: u32,
    /// Acknowledgement number, as recorded; means nothing without the flag.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// As recorded, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The options' bytes.
    pub options: Box<[u8]>,
    /// As much of the payload as was recorded.
    pub payload: Box<[u8]>,
    /// Bytes of payload that it had on the wire.
    pub len: u32,
    /// Whether its checksum is right; `None`: too little of it was recorded to know.
    pub checksum: Option<bool>,
    /// Of its header only the front was recorded: options are missing.
    pub header_cut: bool,
}

/// Bytes of a TCP header in front of its options.
const FIXED: usize = 20;
const NONSENSE: &str = "its TCP header makes no sense";

/// What a packet holds.
pub(super) enum Content {
    /// A segment, and who sent it to whom.
    Tcp(SocketAddr, SocketAddr, Segment),
    /// Part of an IP packet.
    Fragment,
    /// TCP whose header is cut short, or makes no sense.
    Malformed(&'static str),
    /// Another protocol.
    Other,
}

/// Takes an IP packet apart.
pub(super) fn dissect(number: u64, at_ns: u64, packet: &[u8]) -> Content {
    let Ok(sliced) = LaxSlicedPacket::from_ip(packet) else {
        return Content::Malformed("its IP header makes no sense");
    };
    let Some(net) = &sliced.net else { return Content::Other };
    let Some((from, to, traffic_class, wire_len, payload)) = network(net) else { return Content::Other };
    if payload.ip_number != etherparse::IpNumber::TCP {
        return Content::Other;
    }
    if payload.fragmented {
        return Content::Fragment;
    }
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
        return front(number, at_ns, (from, to, traffic_class, wire_len), payload);
    };
    let header_len = tcp.header_slice().len();
    // A device that cuts segments for the sender leaves the length open.
    let on_wire = wire_len.map_or(tcp.payload().len(), |len| len.saturating_sub(header_len));
    let captured = &tcp.payload()[..tcp.payload().len().min(on_wire)];
    let whole = captured.len() == on_wire;
    let segment = Segment {
        options: tcp.options().into(),
        payload: captured.into(),
        len: on_wire as u32,
        checksum: whole.then(|| is_right(from, to, tcp)).flatten(),
        ..fixed(number, at_ns, traffic_class, tcp.slice())
    };
    Content::Tcp(SocketAddr::new(from, tcp.source_port()), SocketAddr::new(to, tcp.destination_port()), segment)
}

/// What the fixed part of a TCP header says, which `header` begins with (RFC 9293 3.1).
fn fixed(number: u64, at_ns: u64, traffic_class: u8, header: &[u8]) -> Segment {
    let two = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |two| u16::from_be_bytes(*two));
    let four = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_be_bytes(*four));
    Segment {
        number,
        at_ns,
        from_client: false,
        seq: four(4),
        ack: four(8),
        flags: Flags(header.get(13).copied().unwrap_or(0)),
        window: two(14),
        urgent: two(18),
        traffic_class,
        options: Box::default(),
        payload: Box::default(),
        len: 0,
        checksum: None,
        header_cut: false,
    }
}

/// A segment of which less was recorded than its header.
fn front(number: u64, at_ns: u64, (from, to, class, wire_len): Ends, payload: &LaxIpPayloadSlice<'_>) -> Content {
    let bytes = payload.payload;
    let Some(offset) = bytes.get(12).filter(|_| bytes.len() >= FIXED) else {
        let short = bytes.len() < FIXED || payload.incomplete;
        return Content::Malformed(if short { "its TCP header is cut short" } else { NONSENSE });
    };
    let header_len = usize::from(offset >> 4) * 4;
    let cut = payload.incomplete && header_len > bytes.len();
    let Some(on_wire) = wire_len.and_then(|len| len.checked_sub(header_len)).filter(|_| cut) else {
        return Content::Malformed(NONSENSE);
    };
    let segment = Segment {
        options: whole_options(&bytes[FIXED..]),
        len: on_wire as u32,
        header_cut: true,
        ..fixed(number, at_ns, class, bytes)
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    Content::Tcp(SocketAddr::new(from, port(0)), SocketAddr::new(to, port(2)), segment)
}

/// Those of the options that are there whole, filled up to a multiple of four.
fn whole_options(bytes: &[u8]) -> Box<[u8]> {
    let mut len = 0;
    while let Some(&kind) = bytes.get(len) {
        let next = len + if kind == 1 { 1 } else { bytes.get(len + 1).map_or(0, |len| usize::from(*len)) };
        if kind == 0 || next <= len || next > bytes.len() {
            break;
        }
        len = next;
    }
    let mut options = bytes[..len].to_vec();
    options.resize(len.next_multiple_of(4), 1);
    options.into()
}

/// Addresses, DSCP and ECN, and the length of what follows the IP headers, if they say it.
type Ends = (IpAddr, IpAddr, u8, Option<usize>);
type Network<'a, 'n> = (IpAddr, IpAddr, u8, Option<usize>, &'n LaxIpPayloadSlice<'a>);

/// Addresses, DSCP and ECN, the length of what follows the IP headers if they say it, and that.
fn network<'a, 'n>(net: &'n LaxNetSlice<'a>) -> Option<Network<'a, 'n>> {
    match net {
        LaxNetSlice::Ipv4(v4) => {
            let header = v4.header();
            let headers = header.slice().len() + v4.extensions().auth.as_ref().map_or(0, |auth| auth.slice().len());
            let total = usize::from(header.total_len());
            let class = header.slice().get(1).copied().unwrap_or(0);
            let len = (total > 0).then(|| total.saturating_sub(headers));
            Some((header.source_addr().into(), header.destination_addr().into(), class, len, v4.payload()))
        }
        LaxNetSlice::Ipv6(v6) => {
            let header = v6.header();
            let total = usize::from(header.payload_length());
            let len = (total > 0).then(|| total.saturating_sub(v6.extensions().slice().len()));
            let class = header.traffic_class();
            Some((header.source_addr().into(), header.destination_addr().into(), class, len, v6.payload()))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

fn is_right(from: IpAddr, to: IpAddr, tcp: &TcpSlice<'_>) -> Option<bool> {
    let right = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => tcp.calc_checksum_ipv4(from.octets(), to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => tcp.calc_checksum_ipv6(from.octets(), to.octets()),
        _ => return None,
    };
    Some(right.ok()? == tcp.checksum())
}

impl Segment {
    /// Sequence space that it takes: payload, SYN and FIN.
    pub fn sequence_len(&self) -> u32 {
        self.len + u32::from(self.flags.syn()) + u32::from(self.flags.fin())
    }

    /// The options one by one: kind, and the bytes behind the length. Stops where they make no sense.
    pub fn options(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.options[..];
        std::iter::from_fn(move || {
            while let [1, more @ ..] = rest {
                rest = more;
            }
            let [kind, len, ..] = *rest else { return None };
            let option = (kind != 0).then(|| rest.get(2..usize::from(len))).flatten()?;
            rest = &rest[usize::from(len)..];
            Some((kind, option))
        })
    }

    /// The highest number that its SACK blocks name, as recorded.
    pub fn sack_end(&self, ack: u32) -> Option<u32> {
        let blocks = self.options().filter(|(kind, _)| *kind == 5).flat_map(|(_, bytes)| bytes.chunks_exact(8));
        let ends = blocks.filter_map(|block| block[4..].first_chunk().map(|end| u32::from_be_bytes(*end)));
        ends.max_by_key(|end| end.wrapping_sub(ack) as i32)
    }

    /// The shift of its window scale option.
    pub fn window_scale(&self) -> Option<u8> {
        self.options().find(|(kind, bytes)| *kind == 3 && bytes.len() == 1).map(|(_, bytes)| bytes[0].min(14))
    }

    /// Timestamp and echo (RFC 7323).
    pub fn timestamps(&self) -> Option<(u32, u32)> {
        let (_, bytes) = self.options().find(|(kind, bytes)| *kind == 8 && bytes.len() == 8)?;
        let number = |at: usize| bytes[at..].first_chunk().map(|four| u32::from_be_bytes(*four));
        Some((number(0)?, number(4)?))
    }
}
