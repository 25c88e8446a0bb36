//! Frames as a peer makes them: sound ones, and every oddity that a header allows.

use crate::ring::{Buffer, Ring};
use khamsin_stack::wire::checksum::{data, fold, pseudo_without_len, tcp_pseudo};
use khamsin_stack::wire::{Flags, LinkHeader, VlanTags};
use khamsin_stack::{FlowKey, Frame};

/// The server's MAC.
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The peers' MAC, their router's say.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;

/// What stands between the IP header and TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Between {
    /// Nothing.
    #[default]
    Nothing,
    /// IPv4: an option that pads, so many words of it (1 to 10). IPv6: a hop-by-hop header of as many times eight bytes.
    Options(u8),
}

/// A segment on its way to the server.
#[derive(Clone, Copy, Debug)]
pub struct Seg<'a> {
    /// Control bits.
    pub flags: Flags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window field.
    pub window: u16,
    /// TCP options, a multiple of four bytes and at most 40.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Urgent pointer.
    pub urgent: u16,
    /// The two ECN bits of the IP header.
    pub ecn: u8,
    /// What makes smoltcp's view of the packet differ from the wire's.
    pub between: Between,
    /// VLAN tags.
    pub tags: VlanTags,
    /// Compute the TCP checksum; the frame is otherwise handed over as verified.
    pub sum: bool,
}

impl Default for Seg<'_> {
    fn default() -> Self {
        Seg {
            flags: Flags::ACK,
            seq: 0,
            ack: 0,
            window: u16::MAX,
            options: &[],
            payload: &[],
            urgent: 0,
            ecn: 0,
            between: Between::Nothing,
            tags: VlanTags::NONE,
            sum: false,
        }
    }
}

/// Addresses as they stand in a packet from the peer of `key`.
fn v4(address: &[u8; 16]) -> [u8; 4] {
    [address[12], address[13], address[14], address[15]]
}

/// Writes the link and IP headers of a packet with `body` bytes behind them and returns where the body starts.
fn headers(
    frame: &mut [u8],
    key: &FlowKey,
    tags: VlanTags,
    between: Between,
    protocol: u8,
    body: usize,
    ecn: u8,
) -> usize {
    let link = LinkHeader { dst: SERVER_MAC, src: PEER_MAC, vlan: tags };
    let ethertype = if key.is_v4() { V4 } else { V6 };
    let at = link.write(frame, ethertype).expect("a frame has room for its link header");
    let extra = extra_len(key, between);
    let ip = &mut frame[at..];
    if key.is_v4() {
        let header = 20 + extra;
        ip[..20].fill(0);
        ip[0] = 0x40 | (header / 4) as u8;
        ip[1] = ecn & 3;
        ip[2..4].copy_from_slice(&((header + body).min(65_535) as u16).to_be_bytes());
        ip[8] = 64;
        ip[9] = protocol;
        ip[12..16].copy_from_slice(&v4(&key.peer));
        ip[16..20].copy_from_slice(&v4(&key.local));
        // No-operations, which every host must accept.
        ip[20..header].fill(1);
        let sum = !data(&ip[..header]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        return at + header;
    }
    ip[..40].fill(0);
    ip[0] = 0x60;
    ip[1] = (ecn & 3) << 4;
    ip[4..6].copy_from_slice(&((extra + body).min(65_535) as u16).to_be_bytes());
    ip[6] = if extra > 0 { 0 } else { protocol };
    ip[7] = 64;
    ip[8..24].copy_from_slice(&key.peer);
    ip[24..40].copy_from_slice(&key.local);
    if extra > 0 {
        // Hop-by-hop options, all of them padding (RFC 8200 4.2).
        ip[40..40 + extra].fill(0);
        ip[40] = protocol;
        ip[41] = (extra / 8 - 1) as u8;
    }
    at + 40 + extra
}

fn extra_len(key: &FlowKey, between: Between) -> usize {
    match between {
        Between::Nothing => 0,
        Between::Options(n) if key.is_v4() => 4 * usize::from(n.clamp(1, 10)),
        Between::Options(n) => 8 * usize::from(n.clamp(1, 10)),
    }
}

/// Bytes in front of the TCP header.
fn lead(key: &FlowKey, tags: VlanTags, between: Between) -> usize {
    14 + tags.bytes().len() + if key.is_v4() { 20 } else { 40 } + extra_len(key, between)
}

/// A segment from the peer of `key`.
pub fn segment(ring: &mut Ring, key: &FlowKey, seg: &Seg<'_>) -> Buffer {
    let tcp_len = 20 + seg.options.len() + seg.payload.len();
    let mut buffer = ring.blank(lead(key, seg.tags, seg.between) + tcp_len);
    let frame = buffer.bytes_mut();
    let at = headers(frame, key, seg.tags, seg.between, 6, tcp_len, seg.ecn);
    let tcp = &mut frame[at..];
    tcp[..2].copy_from_slice(&key.peer_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&key.local_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&seg.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&seg.ack.to_be_bytes());
    tcp[12] = ((20 + seg.options.len()) / 4 << 4) as u8;
    tcp[13] = seg.flags.0;
    tcp[14..16].copy_from_slice(&seg.window.to_be_bytes());
    tcp[16..18].fill(0);
    tcp[18..20].copy_from_slice(&seg.urgent.to_be_bytes());
    tcp[20..20 + seg.options.len()].copy_from_slice(seg.options);
    tcp[20 + seg.options.len()..].copy_from_slice(seg.payload);
    if seg.sum {
        let sum = !fold(u64::from(tcp_pseudo(key, tcp_len as u32)) + u64::from(data(tcp)));
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    buffer
}

/// What a router says of a segment that the server sent to the peer of `key` with the sequence number `seq`.
pub fn icmp_error(ring: &mut Ring, key: &FlowKey, kind: (u8, u8), word: u32, seq: u32, quoted: usize) -> Buffer {
    // The quote: an IP header and the start of TCP, the other way round.
    let ip = if key.is_v4() { 20 } else { 40 };
    let mut quote = [0u8; 60];
    let back = FlowKey { peer: key.local, local: key.peer, peer_port: key.local_port, local_port: key.peer_port };
    let mut frame = [0u8; 14 + 60];
    headers(&mut frame, &back, VlanTags::NONE, Between::Nothing, 6, 1000, 0);
    quote[..ip].copy_from_slice(&frame[14..14 + ip]);
    quote[ip..ip + 2].copy_from_slice(&key.local_port.to_be_bytes());
    quote[ip + 2..ip + 4].copy_from_slice(&key.peer_port.to_be_bytes());
    quote[ip + 4..ip + 8].copy_from_slice(&seq.to_be_bytes());
    let quote = &quote[..(ip + quoted).min(60)];
    icmp(ring, key, kind, word, quote)
}

/// An ICMP or ICMPv6 message from the peer of `key`, with a sound checksum.
pub fn icmp(ring: &mut Ring, key: &FlowKey, kind: (u8, u8), word: u32, body: &[u8]) -> Buffer {
    let len = 8 + body.len();
    let protocol = if key.is_v4() { 1 } else { 58 };
    let mut buffer = ring.blank(lead(key, VlanTags::NONE, Between::Nothing) + len);
    let frame = buffer.bytes_mut();
    let at = headers(frame, key, VlanTags::NONE, Between::Nothing, protocol, len, 0);
    let message = &mut frame[at..];
    message[..2].copy_from_slice(&[kind.0, kind.1]);
    message[2..4].fill(0);
    message[4..8].copy_from_slice(&word.to_be_bytes());
    message[8..].copy_from_slice(body);
    let pseudo =
        if key.is_v4() { 0 } else { u64::from(pseudo_without_len(&key.peer, &key.local, protocol)) + len as u64 };
    let sum = !fold(pseudo + u64::from(data(message)));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    buffer
}

/// The same packet in two fragments, of which the first has `first` bytes (rounded to eight) behind its IP header.
/// `None`: it has options, extensions or tags, or is too short to be cut.
pub fn fragments(ring: &mut Ring, whole: &Buffer, first: usize, id: u16) -> Option<[Buffer; 2]> {
    let packet = whole.bytes();
    let is_v4 = packet.get(12..14)? == V4.to_be_bytes() && packet[14] == 0x45;
    let is_v6 = packet.get(12..14)? == V6.to_be_bytes() && packet[20] != 0;
    if !is_v4 && !is_v6 {
        return None;
    }
    let header = if is_v4 { 34 } else { 54 };
    let body = packet.len().checked_sub(header)?;
    let first = (first / 8).max(1) * 8;
    if first >= body {
        return None;
    }
    let mut piece = |from: usize, to: usize| {
        let more = to < body;
        let extra = if is_v4 { 0 } else { 8 };
        let mut buffer = ring.blank(header + extra + to - from);
        let frame = buffer.bytes_mut();
        frame[..header].copy_from_slice(&packet[..header]);
        if is_v4 {
            let ip = &mut frame[14..34];
            ip[2..4].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[6..8].copy_from_slice(&((from / 8) as u16 | u16::from(more) << 13).to_be_bytes());
            ip[10..12].fill(0);
            let sum = !data(ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            frame[18..20].copy_from_slice(&((8 + to - from) as u16).to_be_bytes());
            frame[54..56].copy_from_slice(&[packet[20], 0]);
            frame[20] = 44;
            frame[56..58].copy_from_slice(&(from as u16 | u16::from(more)).to_be_bytes());
            frame[58..62].copy_from_slice(&u32::from(id).to_be_bytes());
        }
        frame[header + extra..].copy_from_slice(&packet[header + from..header + to]);
        buffer
    };
    Some([piece(0, first), piece(first, body)])
}

/// A neighbour solicitation, to the solicited-node group of the server's address.
pub fn solicitation(ring: &mut Ring, key: &FlowKey) -> Buffer {
    let mut group = [0; 16];
    group[..2].copy_from_slice(&[0xff, 2]);
    (group[11], group[12]) = (1, 0xff);
    group[13..].copy_from_slice(&key.local[13..]);
    let body = [&key.local[..], &[1, 1], &PEER_MAC].concat();
    let mut frame = icmp(ring, &FlowKey { local: group, ..*key }, (135, 0), 0, &body);
    let bytes = frame.bytes_mut();
    bytes[..2].copy_from_slice(&[0x33, 0x33]);
    bytes[2..6].copy_from_slice(&group[12..]);
    // From a neighbour, and never from further away.
    bytes[21] = 255;
    frame
}
