//! Packets made for smoltcp's eyes, without a link layer.

use super::parsed::{Flags, Segment};
use super::{PROTO_TCP, ip};
use crate::key::FlowKey;

/// Writes the packet of `segment` into `out` without IPv4 options or IPv6 extension headers and returns its length:
/// what smoltcp is fed where the frame itself is not [`plain`](Segment::plain). `None` if `out` is too short.
pub fn plain_copy(frame: &[u8], segment: &Segment, out: &mut [u8]) -> Option<usize> {
    let tcp = frame.get(usize::from(segment.tcp_at)..segment.end as usize)?;
    let header_len = write_ip(&segment.key, tcp.len(), out)?;
    out.get_mut(header_len..header_len + tcp.len())?.copy_from_slice(tcp);
    Some(header_len + tcp.len())
}

/// Makes up a segment from the peer to us, without payload, and returns its length. Its TCP checksum is 0: smoltcp's
/// receive checksums are off. `options` is padded to a multiple of 4 bytes and cut at 40.
#[allow(clippy::too_many_arguments)] // The fields of a TCP header; a struct would only name them again.
pub fn synthetic(
    key: &FlowKey,
    seq: u32,
    ack: Option<u32>,
    flags: Flags,
    window: u16,
    options: &[u8],
    out: &mut [u8; 128],
) -> usize {
    let options = &options[..options.len().min(40)];
    let tcp_len = 20 + options.len().next_multiple_of(4);
    let at = write_ip(key, tcp_len, out).expect("40 bytes of IP and 60 of TCP header fit into 128");
    let flags = if ack.is_some() { flags | Flags::ACK } else { flags };
    let tcp = &mut out[at..at + tcp_len];
    tcp.fill(0);
    tcp[..2].copy_from_slice(&key.peer_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&key.local_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.unwrap_or(0).to_be_bytes());
    tcp[12] = (tcp_len as u8 / 4) << 4;
    tcp[13] = flags.0;
    tcp[14..16].copy_from_slice(&window.to_be_bytes());
    tcp[20..20 + options.len()].copy_from_slice(options);
    at + tcp_len
}

/// Writes the bare IP header of a packet from the peer to us with `tcp_len` bytes behind it; returns its length.
fn write_ip(key: &FlowKey, tcp_len: usize, out: &mut [u8]) -> Option<usize> {
    match (ip::unmapped(&key.peer), ip::unmapped(&key.local)) {
        (Some(peer), Some(local)) => {
            *out.first_chunk_mut()? = ip::v4_header(peer, local, PROTO_TCP, tcp_len);
            Some(20)
        }
        _ => {
            *out.first_chunk_mut()? = ip::v6_header(&key.peer, &key.local, PROTO_TCP, ip::HOP_LIMIT, tcp_len);
            Some(40)
        }
    }
}
