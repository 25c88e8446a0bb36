//! Frames from packets and packets from frames, by hand: this code judges the stack's, and shares none with it.
//!
//! RFC 791, RFC 8200, RFC 9293 3.1, RFC 792, RFC 4443.

use super::model::{Body, Family, Icmp, Marks, Packet, Tcp, TcpOption, Trouble};
use khamsin_stack::wire::Flags;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The server's addresses.
pub(super) const SERVER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 18, 0, 2), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
/// The peer's addresses.
pub(super) const PEER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 18, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
/// The port that the server listens on; nobody listens on the next one.
pub(super) const PORT: u16 = 8080;
const PEER_PORT: u16 = 40_000;
/// The peer's initial sequence number: it wraps soon.
const PEER_ISN: u32 = 0xffff_ff00;
const ETHERNET: usize = 14;
const TCP: u8 = 6;

/// Byte `n` of every stream.
pub(super) fn stream_byte(n: u64) -> u8 {
    (n % 251) as u8
}

/// Both ends of a conversation, and what turns relative numbers into those on the wire.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    family: Family,
    server_mac: [u8; 6],
    peer_mac: [u8; 6],
    server_port: u16,
    /// The server's initial sequence number, once a SYN of its has been seen.
    server_isn: Option<u32>,
    /// The peer has sent a new SYN: the server's next one has a new number.
    fresh_syn: bool,
    /// Of the peer's last SYN, relative.
    peer_syn: u32,
    /// The server's latest acknowledgement number, as on the wire.
    server_ack: u32,
    /// The first timestamp of the server's, and the latest.
    stamps: Option<(u32, u32)>,
}

/// What a frame from the server is.
#[derive(Debug)]
pub(super) enum Seen {
    /// Not of this conversation.
    Other,
    /// A segment.
    Segment(Packet),
    /// One that no honest stack sends.
    Wrong(String),
}

impl Conversation {
    pub(super) fn new(family: Family, server_mac: [u8; 6], peer_mac: [u8; 6], port_closed: bool) -> Self {
        Conversation {
            family,
            server_mac,
            peer_mac,
            server_port: PORT + u16::from(port_closed),
            server_isn: None,
            fresh_syn: false,
            peer_syn: 0,
            server_ack: 0,
            stamps: None,
        }
    }

    /// Offset in the peer's stream of the first byte of a segment.
    fn peer_offset(&self, tcp: &Tcp) -> u64 {
        let first = self.peer_syn.wrapping_add(1);
        if tcp.flags.syn() { 0 } else { u64::from(tcp.seq.wrapping_sub(first)) }
    }

    /// The frame that `packet` stands for.
    pub(super) fn encode(&mut self, packet: &Packet) -> Vec<u8> {
        let (protocol, mut body) = match &packet.body {
            Body::Tcp(tcp) => (TCP, self.segment(tcp)),
            Body::Icmp(icmp) => (if self.family == Family::V4 { 1 } else { 58 }, self.icmp(icmp)),
        };
        let (src, dst) = (self.address(PEER), self.address(SERVER));
        let checksum_at = if protocol == TCP { 16 } else { 2 };
        let sum = if protocol == 1 {
            checksum(&[&body])
        } else {
            checksum(&[&pseudo(src, dst, protocol, body.len()), &body])
        };
        let sum = if packet.marks.bad_checksum { sum ^ 0x1234 } else { sum };
        body[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut frame = if packet.marks.broadcast { vec![0xff; 6] } else { self.server_mac.to_vec() };
        frame.extend(self.peer_mac);
        frame.extend(if self.family == Family::V4 { [8, 0] } else { [0x86, 0xdd] });
        frame.extend(ip_header(src, dst, protocol, packet.marks.ecn.unwrap_or(0), body.len()));
        frame.extend(body);
        frame
    }

    fn address(&self, pair: (Ipv4Addr, Ipv6Addr)) -> IpAddr {
        match self.family {
            Family::V4 => pair.0.into(),
            Family::V6 => pair.1.into(),
        }
    }

    fn segment(&mut self, tcp: &Tcp) -> Vec<u8> {
        if tcp.flags.syn() && (self.server_isn.is_none() || tcp.seq != self.peer_syn) {
            (self.fresh_syn, self.peer_syn) = (true, tcp.seq);
        }
        let server_isn = self.server_isn.unwrap_or(0);
        let mut options = Vec::new();
        for option in &tcp.options {
            self.write_option(option, server_isn, &mut options);
        }
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = Vec::with_capacity(20 + options.len() + tcp.len as usize);
        bytes.extend(PEER_PORT.to_be_bytes());
        bytes.extend(self.server_port.to_be_bytes());
        bytes.extend(PEER_ISN.wrapping_add(tcp.seq).to_be_bytes());
        bytes.extend(tcp.ack.map_or(0, |ack| server_isn.wrapping_add(ack)).to_be_bytes());
        bytes.extend([((20 + options.len()) as u8 / 4) << 4, tcp.flags.0]);
        bytes.extend(tcp.window.as_ref().map_or(u16::MAX, |w| *w.start()).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(tcp.urgent.unwrap_or(0).to_be_bytes());
        bytes.extend(options);
        let from = self.peer_offset(tcp);
        bytes.extend((from..from + u64::from(tcp.len)).map(stream_byte));
        bytes
    }

    fn write_option(&self, option: &TcpOption, server_isn: u32, out: &mut Vec<u8>) {
        match option {
            TcpOption::Nop => out.push(1),
            TcpOption::End => out.push(0),
            TcpOption::Mss(mss) => {
                out.extend([2, 4]);
                out.extend(mss.unwrap_or(0).to_be_bytes());
            }
            TcpOption::WindowScale(shift) => out.extend([3, 3, shift.unwrap_or(0)]),
            TcpOption::SackPermitted => out.extend([4, 2]),
            TcpOption::Sack(blocks) => {
                out.extend([5, 2 + 8 * blocks.len() as u8]);
                for edge in blocks.iter().flat_map(|(left, right)| [left, right]) {
                    out.extend(server_isn.wrapping_add(*edge).to_be_bytes());
                }
            }
            TcpOption::Timestamps { val, ecr } => {
                let (first, latest) = self.stamps.unwrap_or((0, 0));
                let ecr = match ecr {
                    None => latest,
                    // Before the server's first there is nothing to echo.
                    Some(ecr) => first.wrapping_add(*ecr),
                };
                out.extend([8, 10]);
                out.extend(val.unwrap_or(0).to_be_bytes());
                out.extend(ecr.to_be_bytes());
            }
            TcpOption::Other(kind, bytes) => {
                out.extend([*kind, 2 + bytes.len() as u8]);
                out.extend(bytes);
            }
        }
    }

    /// An error of a router's about a segment of the server's: as much of it as both versions of ICMP must quote.
    fn icmp(&self, icmp: &Icmp) -> Vec<u8> {
        let v4 = self.family == Family::V4;
        let (kind, code, rest) = match (icmp.trouble, v4) {
            (Trouble::Net, true) => (3, 0, 0),
            (Trouble::Net, false) => (1, 0, 0),
            (Trouble::Host, true) => (3, 1, 0),
            (Trouble::Host, false) => (1, 3, 0),
            (Trouble::Protocol, true) => (3, 2, 0),
            (Trouble::Protocol, false) => (4, 1, 6),
            (Trouble::Port, true) => (3, 3, 0),
            (Trouble::Port, false) => (1, 4, 0),
            (Trouble::Admin, true) => (3, 13, 0),
            (Trouble::Admin, false) => (1, 1, 0),
            (Trouble::TooBig(mtu), true) => (3, 4, mtu),
            (Trouble::TooBig(mtu), false) => (2, 0, mtu),
            (Trouble::TimeExceeded, true) => (11, 0, 0),
            (Trouble::TimeExceeded, false) => (3, 0, 0),
            (Trouble::SourceQuench, _) => (4, 0, 0),
        };
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(rest.to_be_bytes());
        let (src, dst) = (self.address(SERVER), self.address(PEER));
        bytes.extend(ip_header(src, dst, TCP, 0, 20 + icmp.len as usize));
        bytes.extend(self.server_port.to_be_bytes());
        bytes.extend(PEER_PORT.to_be_bytes());
        bytes.extend(self.server_isn.unwrap_or(0).wrapping_add(icmp.seq).to_be_bytes());
        if !v4 {
            bytes.extend(self.server_ack.to_be_bytes());
            bytes.extend([5 << 4, Flags::ACK.0, 0xff, 0xff, 0, 0, 0, 0]);
        }
        bytes
    }

    /// What a frame from the server is.
    pub(super) fn decode(&mut self, frame: &[u8]) -> Seen {
        match self.take_apart(frame) {
            Ok(Some(packet)) => Seen::Segment(packet),
            Ok(None) => Seen::Other,
            Err(message) => Seen::Wrong(message),
        }
    }

    fn take_apart(&mut self, frame: &[u8]) -> Result<Option<Packet>, String> {
        let (src, dst) = (self.address(SERVER), self.address(PEER));
        let Some((ecn, segment)) = tcp_of(frame, src, dst)? else { return Ok(None) };
        let Some(header) = segment.first_chunk::<20>() else {
            return Err("a TCP segment shorter than its header".to_owned());
        };
        if header[..4] != [self.server_port.to_be_bytes(), PEER_PORT.to_be_bytes()].concat() {
            return Ok(None);
        }
        if frame[..6] != self.peer_mac {
            return Err("sent to another MAC address than the peer's".to_owned());
        }
        let len = segment.len();
        if checksum(&[&pseudo(src, dst, TCP, len), segment]) != 0 {
            return Err("wrong TCP checksum".to_owned());
        }
        let flags = Flags(header[13]);
        let payload_at = usize::from(header[12] >> 4) * 4;
        let (Some(options), Some(payload)) = (segment.get(20..payload_at), segment.get(payload_at..)) else {
            return Err(format!("a data offset of {payload_at} bytes in a segment of {len}"));
        };
        let seq = be32(&header[4..]);
        if flags.syn() {
            let expected = self.server_isn.filter(|_| !self.fresh_syn);
            if expected.is_some_and(|isn| isn != seq) {
                return Err("a SYN with another initial sequence number than the one before".to_owned());
            }
            (self.server_isn, self.fresh_syn) = (Some(seq), false);
        }
        if flags.ack() {
            self.server_ack = be32(&header[8..]);
        }
        let relative = seq.wrapping_sub(self.server_isn.unwrap_or(0));
        let offset = if flags.syn() { 0 } else { u64::from(relative.wrapping_sub(1)) };
        if let Some(wrong) = (0..payload.len()).find(|&i| payload[i] != stream_byte(offset + i as u64)) {
            return Err(format!("byte {} of the server's stream is wrong", offset + wrong as u64));
        }
        let tcp = Tcp {
            flags,
            seq: relative,
            len: payload.len() as u32,
            ack: flags.ack().then(|| be32(&header[8..]).wrapping_sub(PEER_ISN)),
            window: Some(be16(&header[14..])..=be16(&header[14..])),
            urgent: flags.contains(Flags::URG).then(|| be16(&header[18..])),
            options: self.read_options(options)?,
            ..Tcp::default()
        };
        Ok(Some(Packet { marks: Marks { ecn: Some(ecn), ..Marks::default() }, body: Body::Tcp(tcp) }))
    }

    fn read_options(&mut self, mut rest: &[u8]) -> Result<Vec<TcpOption>, String> {
        let mut options = Vec::new();
        loop {
            let (kind, value) = match rest {
                [] | [0, ..] => return Ok(options),
                [1, tail @ ..] => {
                    rest = tail;
                    continue;
                }
                [kind, len, ..] if (2..=rest.len()).contains(&usize::from(*len)) => {
                    let (option, tail) = rest.split_at(usize::from(*len));
                    rest = tail;
                    (*kind, &option[2..])
                }
                _ => return Err(format!("TCP options that make no sense: {rest:02x?}")),
            };
            options.push(match (kind, value.len()) {
                (2, 2) => TcpOption::Mss(Some(be16(value))),
                (3, 1) => TcpOption::WindowScale(Some(value[0])),
                (4, 0) => TcpOption::SackPermitted,
                (5, 8 | 16 | 24 | 32) => {
                    let edge = |bytes: &[u8]| be32(bytes).wrapping_sub(PEER_ISN);
                    TcpOption::Sack(value.chunks_exact(8).map(|b| (edge(b), edge(&b[4..]))).collect())
                }
                (8, 8) => self.stamped(be32(value), be32(&value[4..])),
                _ => TcpOption::Other(kind, value.to_vec()),
            });
        }
    }

    fn stamped(&mut self, val: u32, ecr: u32) -> TcpOption {
        let (first, _) = *self.stamps.get_or_insert((val, val));
        self.stamps = Some((first, val));
        TcpOption::Timestamps { val: Some(val.wrapping_sub(first)), ecr: Some(ecr) }
    }
}

/// The ECN field and the TCP segment of a frame from `src` to `dst`; `None`: it is something else.
fn tcp_of(frame: &[u8], src: IpAddr, dst: IpAddr) -> Result<Option<(u8, &[u8])>, String> {
    let Some((link, packet)) = frame.split_first_chunk::<ETHERNET>() else { return Ok(None) };
    let (at, total, ecn, protocol) = match (src, &link[12..]) {
        (IpAddr::V4(_), [8, 0]) if packet.len() >= 20 => {
            let at = usize::from(packet[0] & 15) * 4;
            if packet.get(..at).is_none_or(|header| checksum(&[header]) != 0) {
                return Err("wrong IP header checksum".to_owned());
            }
            if be16(&packet[6..]) & 0x3fff != 0 {
                return Err("a fragment".to_owned());
            }
            (at, usize::from(be16(&packet[2..])), packet[1] & 3, packet[9])
        }
        (IpAddr::V6(_), [0x86, 0xdd]) if packet.len() >= 40 => {
            (40, 40 + usize::from(be16(&packet[4..])), packet[1] >> 4 & 3, packet[6])
        }
        _ => return Ok(None),
    };
    let ends = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => packet[12..20] == [src.octets(), dst.octets()].concat(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => packet[8..40] == [src.octets(), dst.octets()].concat(),
        _ => false,
    };
    if protocol != TCP || !ends {
        return Ok(None);
    }
    let segment = packet.get(at..total).ok_or("an IP packet longer than its frame")?;
    Ok(Some((ecn, segment)))
}

fn ip_header(src: IpAddr, dst: IpAddr, protocol: u8, ecn: u8, len: usize) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0x45, ecn];
            header.extend(((20 + len) as u16).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend([src.octets(), dst.octets()].concat());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (src, dst) => {
            let mut header = vec![0x60, ecn << 4, 0, 0];
            header.extend((len as u16).to_be_bytes());
            header.extend([protocol, 64]);
            for address in [src, dst] {
                if let IpAddr::V6(address) = address {
                    header.extend(address.octets());
                }
            }
            header
        }
    }
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    for address in [src, dst] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// The Internet checksum (RFC 1071) over pieces of which only the last may have an odd length.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for piece in pieces {
        for pair in piece.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn be16(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}
