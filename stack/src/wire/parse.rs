//! One pass over a received frame.

use core::fmt;
use core::ops::BitOr;

use super::link::{self, LinkView};
use super::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, PROTO_ICMP, PROTO_ICMP6, PROTO_TCP,
    be16, be32, checksum, ip,
};
use crate::counters::Counters;
use crate::key::FlowKey;

/// The control bits of a TCP header (RFC 9293 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgement field counts.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer counts.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline(always)]
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// FIN.
    #[inline(always)]
    pub const fn fin(self) -> bool {
        self.intersects(Flags::FIN)
    }

    /// SYN.
    #[inline(always)]
    pub const fn syn(self) -> bool {
        self.intersects(Flags::SYN)
    }

    /// RST.
    #[inline(always)]
    pub const fn rst(self) -> bool {
        self.intersects(Flags::RST)
    }

    /// ACK.
    #[inline(always)]
    pub const fn ack(self) -> bool {
        self.intersects(Flags::ACK)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut separator = "";
        for (bit, name) in NAMES.iter().enumerate() {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        Ok(())
    }
}

/// Why a frame goes no further; each has its counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// `drop_malformed`.
    Malformed,
    /// `drop_not_ours`.
    NotOurs,
    /// `drop_other_address`.
    OtherAddress,
    /// `drop_ip_checksum`.
    IpChecksum,
    /// `drop_l4_checksum`.
    L4Checksum,
    /// `drop_fragment`.
    Fragment,
    /// `drop_martian`.
    Martian,
}

impl DropReason {
    /// Moves the counter of this reason by one.
    pub fn count(self, counters: &mut Counters) {
        match self {
            DropReason::Malformed => counters.drop_malformed += 1,
            DropReason::NotOurs => counters.drop_not_ours += 1,
            DropReason::OtherAddress => counters.drop_other_address += 1,
            DropReason::IpChecksum => counters.drop_ip_checksum += 1,
            DropReason::L4Checksum => counters.drop_l4_checksum += 1,
            DropReason::Fragment => counters.drop_fragment += 1,
            DropReason::Martian => counters.drop_martian += 1,
        }
    }
}

/// What a frame is, as far as it can be told without knowing who we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The link layer.
    pub link: LinkView,
    /// The rest.
    pub kind: Kind,
}

/// What lies behind the link layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A TCP segment with sound headers; its checksum has not been looked at ([`checksum::verify_tcp`]).
    Tcp(Segment),
    /// An ICMP message; its checksum has not been looked at.
    Icmp4(Datagram),
    /// An ICMPv6 message; its checksum has not been looked at. Its source may be unspecified (RFC 4861 4.3).
    Icmp6(Datagram),
    /// An ARP packet.
    Arp,
    /// Nothing that goes any further.
    Drop(DropReason),
}

/// A TCP segment inside a frame. Offsets count bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The flow, `peer` being the source.
    pub key: FlowKey,
    /// Where the IP header starts.
    pub ip_at: u16,
    /// Where the TCP header starts.
    pub tcp_at: u16,
    /// Where the payload starts.
    pub payload_at: u16,
    /// Where the IP packet ends, Ethernet padding excluded. Wider than the others: a super-frame ends behind 65,535.
    pub end: u32,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; means nothing without the ACK flag.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header, unscaled.
    pub window: u16,
    /// Sent to a broadcast or multicast address, on the link or in the IP header: never to be answered.
    pub group_dst: bool,
    /// Neither IPv4 options nor IPv6 extension headers: smoltcp can take `frame[ip_at..end]` as it lies.
    pub plain: bool,
}

impl Segment {
    /// Bytes of payload.
    #[inline(always)]
    pub fn payload_len(&self) -> usize {
        (self.end - u32::from(self.payload_at)) as usize
    }

    /// Sequence numbers that the segment takes: payload, SYN and FIN (RFC 9293 3.4, SEG.LEN).
    #[inline(always)]
    pub fn sequence_len(&self) -> u32 {
        self.payload_len() as u32 + u32::from(self.flags.syn()) + u32::from(self.flags.fin())
    }

    /// The IP packet in the frame it was parsed from.
    #[inline]
    pub fn packet<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.ip_at)..self.end as usize).unwrap_or(&[])
    }

    /// The TCP header, options included, in the frame it was parsed from.
    #[inline]
    pub fn header<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.tcp_at)..usize::from(self.payload_at)).unwrap_or(&[])
    }

    /// The payload in the frame it was parsed from.
    #[inline]
    pub fn payload<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.payload_at)..self.end as usize).unwrap_or(&[])
    }
}

/// An ICMP or ICMPv6 message inside a frame. Offsets count bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// The source address, IPv4-mapped.
    pub peer: [u8; 16],
    /// The destination address, IPv4-mapped.
    pub local: [u8; 16],
    /// Where the IP header starts.
    pub ip_at: u16,
    /// Where the message starts.
    pub at: u16,
    /// Where the IP packet ends, Ethernet padding excluded.
    pub end: u32,
    /// Time to live or hop limit as received.
    pub hop_limit: u8,
    /// Sent to a broadcast or multicast address, on the link or in the IP header.
    pub group_dst: bool,
    /// Neither IPv4 options nor IPv6 extension headers.
    pub plain: bool,
}

impl Datagram {
    /// The message in the frame it was parsed from.
    #[inline]
    pub fn message<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.at)..self.end as usize).unwrap_or(&[])
    }
}

/// Takes a frame apart. Total: any bytes give an answer.
///
/// Checked on the way: every length, the IPv4 header checksum (RFC 1122 3.2.1.2), fragments (dropped; IPv6 atomic
/// fragments pass, RFC 6946), sources that nobody can be answered at (RFC 1122 3.2.1.3), IPv6 extension headers
/// (RFC 8200 4; see `extensions`). Not checked: TCP and ICMP checksums, and whether the destination is ours.
#[inline]
pub fn parse(frame: &[u8]) -> Parsed {
    let mut parsed = Parsed { link: LinkView::default(), kind: Kind::Drop(DropReason::Malformed) };
    if let Err(reason) = parse_into(frame, &mut parsed) {
        parsed.kind = Kind::Drop(reason);
    }
    parsed
}

/// [`parse`], into place: returned by value through every branch, the addresses would travel byte by byte.
fn parse_into(frame: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    let ethertype = link::parse(frame, &mut parsed.link).ok_or(DropReason::Malformed)?;
    if parsed.link.src[0] & 1 != 0 {
        return Err(DropReason::Martian);
    }
    let group_dst = parsed.link.group_dst();
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, 14, group_dst, &mut parsed.kind),
        ETHERTYPE_IPV6 => ipv6(frame, 14, group_dst, &mut parsed.kind),
        _ => parse_unusual(frame, ethertype, parsed),
    }
}

/// The rest of [`parse_into`], kept apart so that plain frames are parsed at fixed offsets.
#[cold]
fn parse_unusual(frame: &[u8], mut ethertype: u16, parsed: &mut Parsed) -> Result<(), DropReason> {
    if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
        ethertype = link::parse_tags(frame, &mut parsed.link).ok_or(DropReason::Malformed)?;
    }
    let (ip_at, group_dst) = (usize::from(parsed.link.l2_len), parsed.link.group_dst());
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, ip_at, group_dst, &mut parsed.kind),
        ETHERTYPE_IPV6 => ipv6(frame, ip_at, group_dst, &mut parsed.kind),
        ETHERTYPE_ARP => {
            parsed.kind = Kind::Arp;
            Ok(())
        }
        ..0x0600 => Err(DropReason::Malformed),
        _ => Err(DropReason::NotOurs),
    }
}

/// What the network layer found out, for the layer above.
struct Network {
    ip_at: usize,
    at: usize,
    end: usize,
    group_dst: bool,
    plain: bool,
}

#[inline(always)]
fn ipv4(frame: &[u8], ip_at: usize, group_dst: bool, kind: &mut Kind) -> Result<(), DropReason> {
    let h = frame.get(ip_at..).and_then(|f| f.first_chunk::<20>()).ok_or(DropReason::Malformed)?;
    if h[0] != 0x45 {
        return ipv4_with_options(frame, h, ip_at, group_dst, kind);
    }
    if !checksum::header_is_sound(h) {
        return Err(DropReason::IpChecksum);
    }
    ipv4_body(frame, h, ip_at, 20, group_dst, kind)
}

#[cold]
fn ipv4_with_options(
    frame: &[u8],
    h: &[u8; 20],
    ip_at: usize,
    group_dst: bool,
    kind: &mut Kind,
) -> Result<(), DropReason> {
    let header_len = usize::from(h[0] & 0x0f) * 4;
    let header = frame.get(ip_at..ip_at + header_len).ok_or(DropReason::Malformed)?;
    if h[0] >> 4 != 4 || header_len < 20 {
        return Err(DropReason::Malformed);
    }
    if checksum::data(header) != 0xffff {
        return Err(DropReason::IpChecksum);
    }
    ipv4_body(frame, h, ip_at, header_len, group_dst, kind)
}

/// Everything behind a sound header checksum; `header_len` is at least 20.
#[inline(always)]
fn ipv4_body(
    frame: &[u8],
    h: &[u8; 20],
    ip_at: usize,
    header_len: usize,
    group_dst: bool,
    kind: &mut Kind,
) -> Result<(), DropReason> {
    let total_len = usize::from(be16(h, 2));
    if total_len < header_len || ip_at + total_len > frame.len() {
        return Err(DropReason::Malformed);
    }
    // More Fragments, or an offset.
    if be16(h, 6) & 0x3fff != 0 {
        return Err(DropReason::Fragment);
    }
    let src = [h[12], h[13], h[14], h[15]];
    let dst = [h[16], h[17], h[18], h[19]];
    if suspicious(src) && !unicast(src) {
        return Err(DropReason::Martian);
    }
    let mut group_dst = group_dst;
    if suspicious(dst) && !unicast(dst) {
        if matches!(dst[0], 0 | 127) {
            return Err(DropReason::OtherAddress);
        }
        group_dst = true;
    }
    let net = Network { ip_at, at: ip_at + header_len, end: ip_at + total_len, group_dst, plain: header_len == 20 };
    match h[9] {
        PROTO_TCP => {
            let tcp = Tcp::find(frame, &net)?;
            tcp.fill(&net, FlowKey::v4(src, dst, tcp.ports.0, tcp.ports.1), kind)
        }
        PROTO_ICMP => {
            *kind = Kind::Icmp4(datagram(&net, ip::mapped(src), ip::mapped(dst), h[8]));
            Ok(())
        }
        _ => Err(DropReason::NotOurs),
    }
}

/// Whether `a` needs a second look: the first octet of every address that is not [`unicast`], in two comparisons.
#[inline(always)]
fn suspicious(a: [u8; 4]) -> bool {
    a[0].wrapping_sub(1) >= 223 || a[0] == 127
}

/// Whether one host on a link may have this address: not "this network", loopback, multicast or limited broadcast
/// (RFC 1122 3.2.1.3). The rest of class E passes, as it does through Linux.
#[cold]
fn unicast(a: [u8; 4]) -> bool {
    !matches!(a[0], 0 | 127 | 224..=239) && a != [255; 4]
}

#[inline(always)]
fn ipv6(frame: &[u8], ip_at: usize, group_dst: bool, kind: &mut Kind) -> Result<(), DropReason> {
    let h = frame.get(ip_at..).and_then(|f| f.first_chunk::<40>()).ok_or(DropReason::Malformed)?;
    // A payload length of 0 would be a jumbogram (RFC 2675), or a packet with nothing in it.
    let payload_len = usize::from(be16(h, 4));
    let end = ip_at + 40 + payload_len;
    if h[0] >> 4 != 6 || payload_len == 0 || end > frame.len() {
        return Err(DropReason::Malformed);
    }
    let (mut at, mut protocol) = (ip_at + 40, h[6]);
    if protocol != PROTO_TCP && protocol != PROTO_ICMP6 {
        (at, protocol) = extensions(frame.get(..end).unwrap_or(&[]), at, protocol)?;
    }
    let src = *h[8..].first_chunk::<16>().ok_or(DropReason::Malformed)?;
    let dst = *h[24..].first_chunk::<16>().ok_or(DropReason::Malformed)?;
    // Neighbour solicitations that look for duplicates come from nowhere (RFC 4862 5.4.2); nothing else does.
    if src[0] == 0xff || (src[..8] == [0; 8] && special(&src) && !(src == [0; 16] && protocol == PROTO_ICMP6)) {
        return Err(DropReason::Martian);
    }
    if dst[..8] == [0; 8] && special(&dst) {
        return Err(DropReason::OtherAddress);
    }
    let net = Network { ip_at, at, end, group_dst: group_dst || dst[0] == 0xff, plain: at == ip_at + 40 };
    match protocol {
        PROTO_TCP => {
            let tcp = Tcp::find(frame, &net)?;
            tcp.fill(&net, FlowKey::v6(src, dst, tcp.ports.0, tcp.ports.1), kind)
        }
        PROTO_ICMP6 => {
            *kind = Kind::Icmp6(datagram(&net, src, dst, h[7]));
            Ok(())
        }
        _ => Err(DropReason::NotOurs),
    }
}

/// Unspecified, loopback and IPv4-mapped addresses (RFC 4291 2.5): no packet on a link may carry them.
#[cold]
fn special(a: &[u8; 16]) -> bool {
    let bits = u128::from_be_bytes(*a);
    bits <= 1 || bits >> 32 == 0xffff
}

/// Extension headers that one packet may carry; a sender with reason needs four.
const EXTENSIONS_MAX: usize = 6;

/// Walks the extension headers of `packet` (the frame, cut at the end of the IP packet) from `at` on and returns where
/// the first other header starts and its number. Hop-by-hop and destination options pass if every option in them may
/// be skipped, routing headers with no segments left and atomic fragments pass (RFC 8200 4.2 - 4.6, RFC 6946).
#[cold]
pub(super) fn extensions(packet: &[u8], mut at: usize, mut protocol: u8) -> Result<(usize, u8), DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    for nth in 0..=EXTENSIONS_MAX {
        let known = matches!(protocol, ROUTING | FRAGMENT | DESTINATION) || (protocol == HOP_BY_HOP && nth == 0);
        if !known {
            return Ok((at, protocol));
        }
        let rest = packet.get(at..).ok_or(DropReason::Malformed)?;
        let [next, len, b2, b3, ..] = *rest else { return Err(DropReason::Malformed) };
        let header_len = if protocol == FRAGMENT { 8 } else { 8 + usize::from(len) * 8 };
        let header = rest.get(..header_len).ok_or(DropReason::Malformed)?;
        match protocol {
            // Offset or More; the two reserved bits in between say nothing.
            FRAGMENT if u16::from_be_bytes([b2, b3]) & 0xfff9 != 0 => return Err(DropReason::Fragment),
            FRAGMENT => {}
            ROUTING if b3 != 0 => return Err(DropReason::NotOurs),
            ROUTING => {}
            _ => options_may_be_skipped(header.get(2..).unwrap_or(&[]))?,
        }
        at += header_len;
        protocol = next;
    }
    Err(DropReason::Malformed)
}

/// Whether every option is padding or one whose number says "skip me if you do not know me" (RFC 8200 4.2).
fn options_may_be_skipped(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        if *kind == 0 {
            options = rest;
            continue;
        }
        let [len, rest @ ..] = rest else { return Err(DropReason::Malformed) };
        if kind >> 6 != 0 {
            return Err(DropReason::NotOurs);
        }
        options = rest.get(usize::from(*len)..).ok_or(DropReason::Malformed)?;
    }
    Ok(())
}

#[inline(always)]
fn datagram(net: &Network, peer: [u8; 16], local: [u8; 16], hop_limit: u8) -> Datagram {
    Datagram {
        peer,
        local,
        ip_at: net.ip_at as u16,
        at: net.at as u16,
        end: net.end as u32,
        hop_limit,
        group_dst: net.group_dst,
        plain: net.plain,
    }
}

/// A TCP header whose length is sound.
struct Tcp<'f> {
    header: &'f [u8; 20],
    header_len: usize,
    ports: (u16, u16),
}

impl<'f> Tcp<'f> {
    #[inline(always)]
    fn find(frame: &'f [u8], net: &Network) -> Result<Tcp<'f>, DropReason> {
        let header = frame.get(net.at..net.end).and_then(|f| f.first_chunk::<20>()).ok_or(DropReason::Malformed)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < 20 || net.at + header_len > net.end {
            return Err(DropReason::Malformed);
        }
        Ok(Tcp { header, header_len, ports: (be16(header, 0), be16(header, 2)) })
    }

    #[inline(always)]
    fn fill(&self, net: &Network, key: FlowKey, kind: &mut Kind) -> Result<(), DropReason> {
        // LAND: a segment that would have us talk to ourselves.
        if key.peer_port == key.local_port && key.peer == key.local {
            return Err(DropReason::Martian);
        }
        let h = self.header;
        *kind = Kind::Tcp(Segment {
            key,
            ip_at: net.ip_at as u16,
            tcp_at: net.at as u16,
            payload_at: (net.at + self.header_len) as u16,
            end: net.end as u32,
            seq: be32(h, 4),
            ack: be32(h, 8),
            flags: Flags(h[13]),
            window: be16(h, 14),
            group_dst: net.group_dst,
            plain: net.plain,
        });
        Ok(())
    }
}
