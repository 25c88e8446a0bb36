//! Frames, taken apart and put together.

use crate::sim::offload::{fold, sum};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP flags (RFC 9293 3.1).
pub const FIN: u8 = 0x01;
/// Synchronize sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement field is significant.
pub const ACK: u8 = 0x10;

/// A TCP segment. The fields that a header has no room to say are in host order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Segment<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    /// RFC 2018; on a SYN.
    pub sack_permitted: bool,
    /// TSval and TSecr (RFC 7323).
    pub timestamps: Option<(u32, u32)>,
    pub sack: Blocks,
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// A bare segment: no options, no payload, all numbers 0.
    pub fn new(from: SocketAddr, to: SocketAddr, flags: u8) -> Segment<'a> {
        Segment {
            from,
            to,
            seq: 0,
            ack: 0,
            flags,
            window: 0,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            sack: Blocks::default(),
            payload: &[],
        }
    }

    /// Sequence space that it takes: payload, SYN and FIN.
    pub fn sequence_len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.flags & FIN != 0) + u32::from(self.flags & SYN != 0)
    }

    /// Bytes that [`build`] uses for its options.
    pub fn options_len(&self) -> usize {
        let sack = match self.sack.len() {
            0 => 0,
            n => 4 + 8 * n,
        };
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let scale = if self.window_scale.is_some() { 4 } else { 0 };
        let stamps = if self.timestamps.is_some() { 12 } else { 0 };
        mss + scale + stamps + sack + if self.sack_permitted { 4 } else { 0 }
    }
}

/// The blocks of a SACK option: at most four ranges of sequence numbers, each from its first to behind its last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Blocks {
    ranges: [(u32, u32); 4],
    len: usize,
}

impl Blocks {
    /// Adds one; a fifth is dropped.
    pub fn push(&mut self, left: u32, right: u32) {
        if let Some(place) = self.ranges.get_mut(self.len) {
            *place = (left, right);
            self.len += 1;
        }
    }
}

impl core::ops::Deref for Blocks {
    type Target = [(u32, u32)];

    fn deref(&self) -> &[(u32, u32)] {
        &self.ranges[..self.len]
    }
}

/// What a frame turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// TCP.
    Tcp(Segment<'a>),
    /// "Who has `target`, tell `sender`."
    ArpRequest {
        /// Who asks.
        sender: Ipv4Addr,
        /// Who is asked for.
        target: Ipv4Addr,
    },
    /// The same for IPv6 (RFC 4861 4.3).
    Solicitation {
        /// Who asks.
        sender: Ipv6Addr,
        /// Who is asked for.
        target: Ipv6Addr,
    },
    /// Anything else.
    Other,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// It ends before its headers or lengths do.
    #[error("a frame that is shorter than its headers say")]
    Short,
    /// The IPv4 header checksum.
    #[error("a wrong IPv4 header checksum")]
    IpChecksum,
    /// The TCP checksum.
    #[error("a wrong TCP checksum")]
    TcpChecksum,
    /// An option that does not end, or a data offset below the header.
    #[error("malformed TCP options")]
    Options,
}

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

/// Takes a frame apart and verifies its checksums.
///
/// # Errors
/// What is wrong with it.
pub fn parse(frame: &[u8]) -> Result<Packet<'_>, Problem> {
    dissect(frame, true)
}

/// Takes a frame apart whose TCP checksum a device is still to complete.
///
/// # Errors
/// What is wrong with it, but for the TCP checksum.
pub fn parse_partial(frame: &[u8]) -> Result<Packet<'_>, Problem> {
    dissect(frame, false)
}

fn dissect(frame: &[u8], verify: bool) -> Result<Packet<'_>, Problem> {
    let (kind, body) = match word(frame, 12)? {
        VLAN => (word(frame, 16)?, frame.get(18..).ok_or(Problem::Short)?),
        kind => (kind, frame.get(14..).ok_or(Problem::Short)?),
    };
    // A version other than the EtherType's: the bit that says it was turned over on the way.
    match (kind, body.first().map_or(0, |first| first >> 4)) {
        (ARP, _) => arp(body),
        (IPV4, 4) => ipv4(body, verify),
        (IPV6, 6) => ipv6(body, verify),
        _ => Ok(Packet::Other),
    }
}

fn arp(body: &[u8]) -> Result<Packet<'_>, Problem> {
    if word(body, 6)? != 1 {
        return Ok(Packet::Other);
    }
    Ok(Packet::ArpRequest {
        sender: Ipv4Addr::from(array::<4>(body, 14)?),
        target: Ipv4Addr::from(array::<4>(body, 24)?),
    })
}

fn ipv4(packet: &[u8], verify: bool) -> Result<Packet<'_>, Problem> {
    let header = usize::from(*packet.first().ok_or(Problem::Short)? & 15) * 4;
    let total = usize::from(word(packet, 2)?);
    if header < 20 || total < header || packet.len() < total {
        return Err(Problem::Short);
    }
    if fold(sum(&packet[..header])) != 0xffff {
        return Err(Problem::IpChecksum);
    }
    let (from, to) = (Ipv4Addr::from(array::<4>(packet, 12)?), Ipv4Addr::from(array::<4>(packet, 16)?));
    let fragment = word(packet, 6)? & 0x3fff != 0;
    match packet[9] {
        TCP if !fragment => tcp(from.into(), to.into(), &packet[header..total], verify),
        _ => Ok(Packet::Other),
    }
}

fn ipv6(packet: &[u8], verify: bool) -> Result<Packet<'_>, Problem> {
    let payload = usize::from(word(packet, 4)?);
    let body = packet.get(40..40 + payload).ok_or(Problem::Short)?;
    let (from, to) = (Ipv6Addr::from(array::<16>(packet, 8)?), Ipv6Addr::from(array::<16>(packet, 24)?));
    match packet[6] {
        TCP => tcp(from.into(), to.into(), body, verify),
        ICMPV6 if body.first() == Some(&135) => {
            Ok(Packet::Solicitation { sender: from, target: Ipv6Addr::from(array::<16>(body, 8)?) })
        }
        _ => Ok(Packet::Other),
    }
}

fn tcp(from: IpAddr, to: IpAddr, bytes: &[u8], verify: bool) -> Result<Packet<'_>, Problem> {
    let header = usize::from(*bytes.get(12).ok_or(Problem::Short)? >> 4) * 4;
    if bytes.len() < 20 || bytes.len() < header {
        return Err(Problem::Short);
    }
    if header < 20 {
        return Err(Problem::Options);
    }
    if verify && fold(pseudo_header(from, to, TCP, bytes.len()) + sum(bytes)) != 0xffff {
        return Err(Problem::TcpChecksum);
    }
    let from = SocketAddr::new(from, word(bytes, 0)?);
    let to = SocketAddr::new(to, word(bytes, 2)?);
    let mut segment = Segment {
        seq: u32::from_be_bytes(array(bytes, 4)?),
        ack: u32::from_be_bytes(array(bytes, 8)?),
        window: word(bytes, 14)?,
        payload: &bytes[header..],
        ..Segment::new(from, to, bytes[13] & 0x1f)
    };
    read_options(&mut segment, &bytes[20..header])?;
    Ok(Packet::Tcp(segment))
}

fn read_options(segment: &mut Segment<'_>, mut options: &[u8]) -> Result<(), Problem> {
    while let [kind, rest @ ..] = options {
        options = match (kind, rest) {
            (0, _) => break,
            (1, rest) => rest,
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= options.len() => {
                let (option, rest) = options.split_at((*len).into());
                match option {
                    [2, 4, high, low] => segment.mss = Some(u16::from_be_bytes([*high, *low])),
                    [3, 3, shift] => segment.window_scale = Some(*shift),
                    [4, 2] => segment.sack_permitted = true,
                    [5, _, blocks @ ..] => {
                        for block in blocks.chunks_exact(8) {
                            segment.sack.push(number(block), number(&block[4..]));
                        }
                    }
                    [8, 10, stamps @ ..] => segment.timestamps = Some((number(stamps), number(&stamps[4..]))),
                    _ => {}
                }
                rest
            }
            _ => return Err(Problem::Options),
        };
    }
    Ok(())
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Puts a segment into a frame. With `partial_checksum` its TCP checksum is left as the pseudo-header sum.
pub fn build(from_mac: [u8; 6], to_mac: [u8; 6], segment: &Segment<'_>, partial_checksum: bool) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(40 + segment.payload.len());
    tcp.extend_from_slice(&segment.from.port().to_be_bytes());
    tcp.extend_from_slice(&segment.to.port().to_be_bytes());
    tcp.extend_from_slice(&segment.seq.to_be_bytes());
    tcp.extend_from_slice(&segment.ack.to_be_bytes());
    tcp.extend_from_slice(&[0, segment.flags]);
    tcp.extend_from_slice(&segment.window.to_be_bytes());
    tcp.extend_from_slice(&[0; 4]);
    write_options(&mut tcp, segment);
    tcp[12] = (tcp.len() as u8 / 4) << 4;
    tcp.extend_from_slice(segment.payload);
    let pseudo = pseudo_header(segment.from.ip(), segment.to.ip(), TCP, tcp.len());
    let checksum = if partial_checksum { fold(pseudo) } else { !fold(pseudo + sum(&tcp)) };
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    ip(from_mac, to_mac, segment.from.ip(), segment.to.ip(), TCP, &tcp)
}

fn write_options(tcp: &mut Vec<u8>, segment: &Segment<'_>) {
    if let Some(mss) = segment.mss {
        tcp.extend_from_slice(&[2, 4]);
        tcp.extend_from_slice(&mss.to_be_bytes());
    }
    if let Some(shift) = segment.window_scale {
        tcp.extend_from_slice(&[1, 3, 3, shift]);
    }
    if segment.sack_permitted {
        tcp.extend_from_slice(&[1, 1, 4, 2]);
    }
    if let Some((value, echo)) = segment.timestamps {
        tcp.extend_from_slice(&[1, 1, 8, 10]);
        tcp.extend_from_slice(&value.to_be_bytes());
        tcp.extend_from_slice(&echo.to_be_bytes());
    }
    if !segment.sack.is_empty() {
        tcp.extend_from_slice(&[1, 1, 5, 2 + 8 * segment.sack.len() as u8]);
        for (left, right) in segment.sack.iter() {
            tcp.extend_from_slice(&left.to_be_bytes());
            tcp.extend_from_slice(&right.to_be_bytes());
        }
    }
}

/// Puts `body` into an IP packet and that into a frame.
fn ip(from_mac: [u8; 6], to_mac: [u8; 6], from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(54 + body.len());
    frame.extend_from_slice(&to_mac);
    frame.extend_from_slice(&from_mac);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend_from_slice(&IPV4.to_be_bytes());
            let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[2..4].copy_from_slice(&(20 + body.len() as u16).to_be_bytes());
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let checksum = !fold(sum(&header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend_from_slice(&header);
        }
        _ => {
            frame.extend_from_slice(&IPV6.to_be_bytes());
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&(body.len() as u16).to_be_bytes());
            // Neighbour discovery is valid at hop limit 255 only.
            frame.extend_from_slice(&[protocol, if protocol == ICMPV6 { 255 } else { 64 }]);
            for address in [from, to] {
                let v6 = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                frame.extend_from_slice(&v6.octets());
            }
        }
    }
    frame.extend_from_slice(body);
    frame
}

/// An ARP reply (RFC 826).
pub(super) fn arp_reply(from_mac: [u8; 6], to_mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&to_mac);
    frame.extend_from_slice(&from_mac);
    frame.extend_from_slice(&ARP.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend_from_slice(&from_mac);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to_mac);
    frame.extend_from_slice(&to.octets());
    frame
}

/// A solicited neighbour advertisement (RFC 4861 4.4).
pub(super) fn advertisement(from_mac: [u8; 6], to_mac: [u8; 6], from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    body.extend_from_slice(&from.octets());
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&from_mac);
    let checksum = !fold(pseudo_header(from.into(), to.into(), ICMPV6, body.len()) + sum(&body));
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    ip(from_mac, to_mac, from.into(), to.into(), ICMPV6, &body)
}

/// The pseudo-header of RFC 9293 3.1 and RFC 8200 8.1, not folded.
fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> u64 {
    let address = |ip| match ip {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    address(from) + address(to) + u64::from(protocol) + len as u64
}

fn word(bytes: &[u8], at: usize) -> Result<u16, Problem> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Problem> {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).ok_or(Problem::Short)
}
