//! ICMP errors that quote one of our segments (RFC 792, RFC 4443, RFC 5927).

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
    /// What is wrong.
    pub trouble: Trouble,
}

/// What is wrong with a segment that we sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It is longer than the path carries (RFC 1191, RFC 8201).
    TooBig {
        /// The largest IP packet, bytes, as claimed: 0 from a router older than RFC 1191, nonsense from a liar. An IPv4
        /// host may ignore less than 68, an IPv6 host ignores less than 1280.
        mtu: u32,
    },
    /// It cannot get there, for now at least: a soft error for an established connection (RFC 5461).
    Unreachable,
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
        (true, 3, 4) => Trouble::TooBig { mtu: u32::from(be16(h, 6)) },
        (false, 2, 0) => Trouble::TooBig { mtu: be32(h, 4) },
        // Destination unreachable, time exceeded.
        (true, 3 | 11, _) | (false, 1 | 3, _) => Trouble::Unreachable,
        _ => return None,
    };
    let (local, peer, tcp) = if v4 { quoted_v4(quoted)? } else { quoted_v6(quoted)? };
    // It must have been sent from where the complaint went to.
    if datagram.group_dst || local != datagram.local || !checksum::verify_icmp(frame, datagram) {
        return None;
    }
    // Routers quote eight bytes of TCP at least (RFC 792): ports and sequence number.
    let tcp = tcp.first_chunk::<8>()?;
    let key = FlowKey { peer, local, peer_port: be16(tcp, 2), local_port: be16(tcp, 0) };
    Some(IcmpError { key, seq: be32(tcp, 4), trouble })
}

/// Source, destination and the start of TCP in a quoted packet, which may be cut anywhere.
type Quote<'f> = ([u8; 16], [u8; 16], &'f [u8]);

fn quoted_v4(packet: &[u8]) -> Option<Quote<'_>> {
    let h = packet.first_chunk::<20>()?;
    // An offset would mean that this is not the start of TCP; we send no fragments, but a router may have made some.
    if h[0] >> 4 != 4 || h[9] != PROTO_TCP || be16(h, 6) & 0x1fff != 0 {
        return None;
    }
    let tcp = packet.get(usize::from(h[0] & 0x0f) * 4..)?;
    Some((ip::mapped([h[12], h[13], h[14], h[15]]), ip::mapped([h[16], h[17], h[18], h[19]]), tcp))
}

fn quoted_v6(packet: &[u8]) -> Option<Quote<'_>> {
    let h = packet.first_chunk::<40>()?;
    let (at, protocol) = extensions::skip(packet, 40, h[6]).ok()?;
    if h[0] >> 4 != 6 || protocol != PROTO_TCP {
        return None;
    }
    Some((*h[8..].first_chunk()?, *h[24..].first_chunk()?, packet.get(at..)?))
}
