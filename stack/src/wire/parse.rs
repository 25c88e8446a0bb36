//! One pass over a received frame.

use super::extensions::{Chain, Stop};
use super::link;
use super::parsed::{Datagram, DropReason, Flags, Fragment, Kind, Parsed, Problem, Segment};
use super::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, PROTO_ICMP, PROTO_ICMP6, PROTO_TCP,
    be16, be32, checksum, extensions, ip,
};
use crate::key::FlowKey;

/// Takes a frame apart. Total: any bytes give an answer.
///
/// Checked on the way: every length, the IPv4 header checksum (RFC 1122 3.2.1.2), fragments as far as they can be judged
/// alone (IPv6 atomic fragments are whole, RFC 6946), sources that nobody can be answered at (RFC 1122 3.2.1.3), IPv6 extension headers
/// (RFC 8200 4; see `extensions`). Not checked: TCP and ICMP checksums, and whether the destination is ours.
#[inline]
pub fn parse(frame: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    parse_into(frame, &mut parsed);
    parsed
}

/// [`parse`], into place, which spares a copy where results are kept. (Returned by value through every branch, the
/// addresses would travel byte by byte.) `parsed` holds a [`Parsed::default`]; where the frame ends early, what of the
/// link layer it has not reached stays as it was.
#[inline(never)]
pub fn parse_into(frame: &[u8], parsed: &mut Parsed) {
    if let Err(reason) = classify(frame, parsed) {
        parsed.kind = Kind::Drop(reason);
    }
}

#[inline(always)]
fn classify(frame: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
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

/// The rest of `classify`, kept apart so that plain frames are parsed at fixed offsets.
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
    /// Congestion Experienced (RFC 3168 5).
    congested: bool,
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
        return fragment4(frame, h, ip_at, header_len, group_dst, kind);
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
    let net = Network {
        ip_at,
        at: ip_at + header_len,
        end: ip_at + total_len,
        group_dst,
        plain: header_len == 20,
        congested: h[1] & 3 == 3,
    };
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

/// A part of an IPv4 packet. The first must hold what the packet is judged by, and no other may reach there (RFC 1858,
/// RFC 3128).
#[cold]
fn fragment4(
    frame: &[u8],
    h: &[u8; 20],
    ip_at: usize,
    header_len: usize,
    group_dst: bool,
    kind: &mut Kind,
) -> Result<(), DropReason> {
    let (src, dst) = ([h[12], h[13], h[14], h[15]], [h[16], h[17], h[18], h[19]]);
    if !unicast(src) {
        return Err(DropReason::Martian);
    }
    let (at, end) = (ip_at + header_len, ip_at + usize::from(be16(h, 2)));
    let judged_by = match h[9] {
        PROTO_TCP => 20,
        PROTO_ICMP => 8,
        _ => return Err(DropReason::NotOurs),
    };
    let (offset, more) = (usize::from(be16(h, 6) & 0x1fff) * 8, h[6] & 0x20 != 0);
    let len = end - at;
    let tiny = if offset == 0 { len < judged_by } else { offset < judged_by };
    if tiny || len == 0 || (more && !len.is_multiple_of(8)) || offset + len > 65_535 - 20 || end > frame.len() {
        return Err(DropReason::Fragment);
    }
    *kind = Kind::Fragment(Fragment {
        peer: ip::mapped(src),
        local: ip::mapped(dst),
        id: u32::from(be16(h, 4)),
        protocol: h[9],
        offset: offset as u16,
        more,
        ecn: h[1] & 3,
        hop_limit: h[8],
        group_dst: group_dst || !unicast(dst),
        at: at as u16,
        end: end as u32,
    });
    Ok(())
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
        match extensions::skip(frame.get(..end).unwrap_or(&[]), start(h, ip_at)) {
            Ok(chain) if matches!(chain.protocol, PROTO_TCP | PROTO_ICMP6) => {
                (at, protocol) = (chain.at, chain.protocol)
            }
            other => return odd6(frame.get(..end).unwrap_or(&[]), h, ip_at, group_dst, other, kind),
        }
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
    let net = Network {
        ip_at,
        at,
        end,
        group_dst: group_dst || dst[0] == 0xff,
        plain: at == ip_at + 40,
        congested: h[1] >> 4 & 3 == 3,
    };
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

/// Where the headers of an IPv6 packet start.
fn start(h: &[u8; 40], ip_at: usize) -> Chain {
    Chain { at: ip_at + 40, protocol: h[6], named_at: ip_at + 6 }
}

/// An IPv6 packet whose headers do not lead to TCP or ICMPv6: a fragment, or a packet that goes no further. `packet` is the
/// frame, cut at the end of the packet.
#[cold]
fn odd6(
    packet: &[u8],
    h: &[u8; 40],
    ip_at: usize,
    group_dst: bool,
    found: Result<Chain, Stop>,
    kind: &mut Kind,
) -> Result<(), DropReason> {
    let peer = *h[8..].first_chunk::<16>().ok_or(DropReason::Malformed)?;
    let local = *h[24..].first_chunk::<16>().ok_or(DropReason::Malformed)?;
    if peer[0] == 0xff || special(&peer) {
        return Err(DropReason::Martian);
    }
    if special(&local) {
        return Err(DropReason::OtherAddress);
    }
    let group_dst = group_dst || local[0] == 0xff;
    let found = match found {
        Err(Stop::Fragment { at }) => match fragment6(packet, ip_at, at) {
            Ok(fragment) => {
                let ecn = h[1] >> 4 & 3;
                *kind = Kind::Fragment(Fragment { peer, local, ecn, hop_limit: h[7], group_dst, ..fragment });
                return Ok(());
            }
            Err(stop) => Err(stop),
        },
        found => found,
    };
    let (code, at, reason) = match found {
        Ok(chain) => unknown(chain)?,
        Err(Stop::Drop(reason)) => return Err(reason),
        Err(Stop::Short) => return Err(DropReason::Malformed),
        Err(Stop::Fragment { .. }) => return Err(DropReason::Fragment),
        Err(Stop::Problem { code, at }) => (code, at, DropReason::NotOurs),
    };
    *kind = Kind::Problem(Problem {
        peer,
        local,
        ip_at: ip_at as u16,
        end: packet.len() as u32,
        code,
        pointer: (at - ip_at) as u16,
        silent: group_dst || extensions::carries_icmp_error(packet, start(h, ip_at)),
        reason,
    });
    Ok(())
}

/// What is said of a protocol that we do not speak. UDP has ports, and nobody listens on them: silence, as a firewall would.
fn unknown(chain: Chain) -> Result<(u8, usize, DropReason), DropReason> {
    const UDP: u8 = 17;
    const NOTHING: u8 = 59;
    match chain.protocol {
        UDP | NOTHING => Err(DropReason::NotOurs),
        _ => Ok((extensions::UNKNOWN_HEADER, chain.named_at, DropReason::NotOurs)),
    }
}

/// A part of an IPv6 packet, from its fragment header at `header_at` on; addresses and such are the caller's to fill in.
fn fragment6(packet: &[u8], ip_at: usize, header_at: usize) -> Result<Fragment, Stop> {
    let h = packet.get(header_at..).and_then(|p| p.first_chunk::<8>()).ok_or(Stop::Short)?;
    let (at, end) = (header_at + 8, packet.len());
    let (offset, more, len) = (usize::from(be16(h, 2) & 0xfff8), h[3] & 1 != 0, end - at);
    if more && !len.is_multiple_of(8) {
        // The payload length is what is wrong (RFC 8200 4.5).
        return Err(Stop::Problem { code: extensions::ERRONEOUS, at: ip_at + 4 });
    }
    if offset + len > 65_535 {
        return Err(Stop::Problem { code: extensions::ERRONEOUS, at: header_at + 2 });
    }
    if len == 0 {
        return Err(Stop::Drop(DropReason::Fragment));
    }
    if offset == 0 {
        let chain = extensions::skip(packet, Chain { at, protocol: h[0], named_at: header_at });
        let chain = chain.map_err(|stop| match stop {
            Stop::Short => Stop::Problem { code: extensions::INCOMPLETE, at: ip_at },
            Stop::Fragment { .. } => Stop::Drop(DropReason::Fragment),
            other => other,
        })?;
        let judged_by = match chain.protocol {
            PROTO_TCP => 20,
            PROTO_ICMP6 => 8,
            _ => {
                let (code, at, _) = unknown(chain).map_err(Stop::Drop)?;
                return Err(Stop::Problem { code, at });
            }
        };
        if chain.at + judged_by > end {
            return Err(Stop::Problem { code: extensions::INCOMPLETE, at: ip_at });
        }
    }
    Ok(Fragment {
        peer: [0; 16],
        local: [0; 16],
        id: be32(h, 4),
        protocol: h[0],
        offset: offset as u16,
        more,
        ecn: 0,
        hop_limit: 0,
        group_dst: false,
        at: at as u16,
        end: end as u32,
    })
}

/// Unspecified, loopback and IPv4-mapped addresses (RFC 4291 2.5): no packet on a link may carry them.
#[cold]
fn special(a: &[u8; 16]) -> bool {
    let bits = u128::from_be_bytes(*a);
    bits <= 1 || bits >> 32 == 0xffff
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
            congested: net.congested,
        });
        Ok(())
    }
}
