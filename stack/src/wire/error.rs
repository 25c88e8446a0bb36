//! ICMP errors that quote one of our segments (RFC 792, RFC 4443, RFC 5927).

use super::extensions::Chain;
use super::parsed::{Kind, Parsed};
use super::{PROTO_TCP, be16, be32, checksum, extensions, ip};
use crate::key::FlowKey;

/// What a router or the peer's host says about a segment that we sent, or that somebody says we sent: whoever acts
/// on it first checks that `seq` lies in what the flow has unacknowledged (RFC 5927 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// The flow of the quoted segment, as we name it.
    pub key: FlowKey,
    /// The quoted sequence number.
    pub seq: u32,
    /// The quoted acknowledgement number, if the quote reaches so far.
    pub ack: Option<u32>,
    /// What is wrong.
    pub trouble: Trouble,
}

/// What is wrong with a segment that we sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It is longer than the path carries (RFC 1191, RFC 8201).
    TooBig {
        /// The largest IP packet, bytes, as claimed: 0 from a router older than RFC 1191, nonsense from a liar.
        mtu: u32,
        /// Length of the quoted IP packet, bytes, as its header says.
        quoted_len: u32,
    },
    /// It cannot get there, for now at least: no route, no host, too many hops, no time to reassemble.
    Unreachable,
    /// It is not wanted there: no such port or protocol, forbidden, or its header is not understood. What RFC 1122 4.2.3.9
    /// called hard errors; for an established connection they are as soft as the others (RFC 5461, RFC 5927 6).
    Refused,
}

/// The complaint in an ICMP or ICMPv6 message about a TCP segment of ours; `None` for every other frame, including one
/// whose checksum is wrong. `parsed` is what [`parse()`](super::parse()) made of `frame`.
pub fn icmp_error(frame: &[u8], parsed: &Parsed) -> Option<IcmpError> {
    let (datagram, v4) = match &parsed.kind {
        Kind::Icmp4(datagram) => (datagram, true),
        Kind::Icmp6(datagram) => (datagram, false),
        _ => return None,
    };
    let (h, quoted) = datagram.message(frame).split_first_chunk::<8>()?;
    let trouble = match (v4, h[0], h[1]) {
        (true, 3, 4) => Trouble::TooBig { mtu: u32::from(be16(h, 6)), quoted_len: 0 },
        (false, 2, 0) => Trouble::TooBig { mtu: be32(h, 4), quoted_len: 0 },
        // Protocol, port; source route; prohibited (RFC 1122 3.2.2.1, RFC 1812 5.2.7.1). Parameter problem.
        (true, 3, 2 | 3 | 5 | 9 | 10 | 13) | (true, 12, _) => Trouble::Refused,
        // Prohibited, port, source address or route refused by policy (RFC 4443 3.1). Parameter problem.
        (false, 1, 1 | 4 | 5 | 6) | (false, 4, _) => Trouble::Refused,
        // Any other destination unreachable; time exceeded.
        (true, 3 | 11, _) | (false, 1 | 3, _) => Trouble::Unreachable,
        // Among the rest is source quench, which has no meaning any more (RFC 6633).
        _ => return None,
    };
    let quote = if v4 { quoted_v4(quoted)? } else { quoted_v6(quoted)? };
    // It must have been sent from where the complaint went to, and the complaint from somewhere.
    if datagram.group_dst
        || quote.src != datagram.local
        || datagram.peer == [0; 16]
        || !checksum::verify_icmp(frame, datagram)
    {
        return None;
    }
    let trouble = match trouble {
        Trouble::TooBig { mtu, .. } => Trouble::TooBig { mtu, quoted_len: quote.len },
        other => other,
    };
    // Routers quote eight bytes of TCP at least (RFC 792): ports and sequence number.
    let tcp = quote.tcp.first_chunk::<8>()?;
    let key = FlowKey { peer: quote.dst, local: quote.src, peer_port: be16(tcp, 2), local_port: be16(tcp, 0) };
    let ack = quote.tcp.first_chunk::<12>().map(|tcp| be32(tcp, 8));
    Some(IcmpError { key, seq: be32(tcp, 4), ack, trouble })
}

/// A quoted packet, which may be cut anywhere.
struct Quote<'f> {
    src: [u8; 16],
    dst: [u8; 16],
    /// Of the packet, as its header says.
    len: u32,
    /// What there is of TCP.
    tcp: &'f [u8],
}

fn quoted_v4(packet: &[u8]) -> Option<Quote<'_>> {
    let h = packet.first_chunk::<20>()?;
    // An offset would mean that this is not the start of TCP; we send no fragments, but a router may have made some.
    if h[0] >> 4 != 4 || h[9] != PROTO_TCP || be16(h, 6) & 0x1fff != 0 {
        return None;
    }
    let tcp = packet.get(usize::from(h[0] & 0x0f) * 4..)?;
    let (src, dst) = (ip::mapped([h[12], h[13], h[14], h[15]]), ip::mapped([h[16], h[17], h[18], h[19]]));
    Some(Quote { src, dst, len: u32::from(be16(h, 2)), tcp })
}

fn quoted_v6(packet: &[u8]) -> Option<Quote<'_>> {
    let h = packet.first_chunk::<40>()?;
    let Chain { at, protocol, .. } = extensions::skip(packet, Chain { at: 40, protocol: h[6], named_at: 6 }).ok()?;
    if h[0] >> 4 != 6 || protocol != PROTO_TCP {
        return None;
    }
    let (src, dst) = (*h[8..].first_chunk()?, *h[24..].first_chunk()?);
    Some(Quote { src, dst, len: 40 + u32::from(be16(h, 4)), tcp: packet.get(at..)? })
}
