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
    pub payload: &'a [u8],
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
    let (kind, body) = match word(frame, 12)? {
        VLAN => (word(frame, 16)?, &frame[18..]),
        kind => (kind, frame.get(14..).ok_or(Problem::Short)?),
    };
    match kind {
        ARP => arp(body),
        IPV4 => ipv4(body),
        IPV6 => ipv6(body),
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

fn ipv4(packet: &[u8]) -> Result<Packet<'_>, Problem> {
    let header = usize::from(*packet.first().ok_or(Problem::Short)? & 15) * 4;
    let total = usize::from(word(packet, 2)?);
    if header < 20 || total < header || packet.len() < total {
        return Err(Problem::Short);
    }
    if fold(sum(&packet[..header])) != 0xffff {
        return Err(Problem::IpChecksum);
    }
    let (from, to) = (Ipv4Addr::from(array::<4>(packet, 12)?), Ipv4Addr::from(array::<4>(packet, 16)?));
    match packet[9] {
        TCP => tcp(from.into(), to.into(), &packet[header..total]),
        _ => Ok(Packet::Other),
    }
}

fn ipv6(packet: &[u8]) -> Result<Packet<'_>, Problem> {
    let payload = usize::from(word(packet, 4)?);
    let body = packet.get(40..40 + payload).ok_or(Problem::Short)?;
    let (from, to) = (Ipv6Addr::from(array::<16>(packet, 8)?), Ipv6Addr::from(array::<16>(packet, 24)?));
    match packet[6] {
        TCP => tcp(from.into(), to.into(), body),
        ICMPV6 if body.first() == Some(&135) => {
            Ok(Packet::Solicitation { sender: from, target: Ipv6Addr::from(array::<16>(body, 8)?) })
        }
        _ => Ok(Packet::Other),
    }
}

fn tcp(from: IpAddr, to: IpAddr, bytes: &[u8]) -> Result<Packet<'_>, Problem> {
    let header = usize::from(*bytes.get(12).ok_or(Problem::Short)? >> 4) * 4;
    if bytes.len() < 20 || bytes.len() < header {
        return Err(Problem::Short);
    }
    if header < 20 {
        return Err(Problem::Options);
    }
    if fold(pseudo_header(from, to, TCP, bytes.len()) + sum(bytes)) != 0xffff {
        return Err(Problem::TcpChecksum);
    }
    let mut segment = Segment {
        from: SocketAddr::new(from, word(bytes, 0)?),
        to: SocketAddr::new(to, word(bytes, 2)?),
        seq: u32::from_be_bytes(array(bytes, 4)?),
        ack: u32::from_be_bytes(array(bytes, 8)?),
        flags: bytes[13] & 0x1f,
        window: word(bytes, 14)?,
        mss: None,
        window_scale: None,
        payload: &bytes[header..],
    };
    let mut options = &bytes[20..header];
    while let [kind, rest @ ..] = options {
        options = match (kind, rest) {
            (0, _) => break,
            (1, rest) => rest,
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= options.len() => {
                let (option, rest) = options.split_at((*len).into());
                match option {
                    [2, 4, high, low] => segment.mss = Some(u16::from_be_bytes([*high, *low])),
                    [3, 3, shift] => segment.window_scale = Some(*shift),
                    _ => {}
                }
                rest
            }
            _ => return Err(Problem::Options),
        };
    }
    Ok(Packet::Tcp(segment))
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
    if let Some(mss) = segment.mss {
        tcp.extend_from_slice(&[2, 4]);
        tcp.extend_from_slice(&mss.to_be_bytes());
    }
    if let Some(shift) = segment.window_scale {
        tcp.extend_from_slice(&[1, 3, 3, shift]);
    }
    tcp[12] = (tcp.len() as u8 / 4) << 4;
    tcp.extend_from_slice(segment.payload);
    let pseudo = pseudo_header(segment.from.ip(), segment.to.ip(), TCP, tcp.len());
    let checksum = if partial_checksum { fold(pseudo) } else { !fold(pseudo + sum(&tcp)) };
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    ip(from_mac, to_mac, segment.from.ip(), segment.to.ip(), TCP, &tcp)
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
