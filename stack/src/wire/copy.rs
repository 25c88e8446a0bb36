//! Packets made for smoltcp's eyes, without a link layer.

use super::parsed::{Flags, Fragment, Segment};
use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkHeader, LinkView, PROTO_TCP, checksum, ip};
use crate::key::FlowKey;

/// Writes the packet of `segment` into `out` without IPv4 options or IPv6 extension headers and returns its length:
/// what smoltcp is fed where the frame itself is not [`plain`](Segment::plain). `None` if `out` is too short.
pub fn plain_copy(frame: &[u8], segment: &Segment, out: &mut [u8]) -> Option<usize> {
    let tcp = frame.get(usize::from(segment.tcp_at)..segment.end as usize)?;
    let header_len = write_ip(&segment.key, tcp.len(), out)?;
    out.get_mut(header_len..header_len + tcp.len())?.copy_from_slice(tcp);
    Some(header_len + tcp.len())
}

/// Room in front of a packet's content for all headers that [`whole_headers`] writes, bytes.
pub const HEADERS_MAX: usize = 22 + 40;

/// Writes link and IP header of the packet whose first part was `first`, without options, in front of its content of `len`
/// bytes (at most 65,535 with an IPv4 header), which lies at [`HEADERS_MAX`] of `buffer`. Returns where the frame begins.
pub fn whole_headers(link: &LinkView, first: &Fragment, len: usize, buffer: &mut [u8]) -> usize {
    let (src, dst) = (&first.peer, &first.local);
    let mut headers = [0; HEADERS_MAX];
    let (ethertype, ip_at) = match (ip::unmapped(src), ip::unmapped(dst)) {
        (Some(src), Some(dst)) => {
            let mut h = ip::v4_header(src, dst, first.protocol, len);
            h[1] = first.ecn;
            h[8] = first.hop_limit;
            h[10..12].fill(0);
            let sum = !checksum::data(&h);
            h[10..12].copy_from_slice(&sum.to_be_bytes());
            headers[HEADERS_MAX - 20..].copy_from_slice(&h);
            (ETHERTYPE_IPV4, HEADERS_MAX - 20)
        }
        _ => {
            let mut h = ip::v6_header(src, dst, first.protocol, first.hop_limit, len);
            h[1] = first.ecn << 4;
            headers[HEADERS_MAX - 40..].copy_from_slice(&h);
            (ETHERTYPE_IPV6, HEADERS_MAX - 40)
        }
    };
    let link = LinkHeader { dst: link.dst, src: link.src, vlan: link.vlan };
    let begin = ip_at - link.l2_len();
    link.write(&mut headers[begin..], ethertype);
    if let Some(room) = buffer.first_chunk_mut() {
        *room = headers;
    }
    begin
}

/// Writes the fragment of the packet in `frame` (behind `l2_len` bytes of link layer, without options or extension headers)
/// that holds up to `room` bytes of its content from `from` on, both multiples of 8, into `out`. Returns its length and where
/// the next one begins; `None` if there is nothing there, or `out` is too short.
pub fn write_fragment(
    frame: &[u8],
    l2_len: usize,
    from: usize,
    room: usize,
    id: u32,
    out: &mut [u8],
) -> Option<(usize, usize)> {
    let v4 = frame.get(l2_len)? >> 4 == 4;
    let header_len = if v4 { 20 } else { 40 };
    let (headers, content) = frame.split_at_checked(l2_len + header_len)?;
    let part = content.get(from..)?;
    let more = part.len() > room;
    let part = if more { part.get(..room)? } else { part };
    if part.is_empty() {
        return None;
    }
    let at = headers.len() + if v4 { 0 } else { 8 };
    let out = out.get_mut(..at + part.len())?;
    out[..headers.len()].copy_from_slice(headers);
    out[at..].copy_from_slice(part);
    let h = &mut out[l2_len..at];
    let offset = from as u16;
    if v4 {
        h[2..4].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
        h[4..6].copy_from_slice(&(id as u16).to_be_bytes());
        h[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
        h[10..12].fill(0);
        let sum = !checksum::data(h);
        h[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        h[4..6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
        h[40] = core::mem::replace(&mut h[6], super::extensions::FRAGMENT);
        h[41] = 0;
        h[42..44].copy_from_slice(&(offset | u16::from(more)).to_be_bytes());
        h[44..48].copy_from_slice(&id.to_be_bytes());
    }
    Some((at + part.len(), from + part.len()))
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

/// Writes the headers of a segment from the peer to us with `text_len` bytes behind them, which are for the caller to put
/// there; returns their length. Like [`synthetic`] without a checksum. `None` if `out` is too short for all of it.
pub fn text_header(key: &FlowKey, seq: u32, ack: u32, text_len: usize, out: &mut [u8]) -> Option<usize> {
    let at = write_ip(key, 20 + text_len, out)?;
    let tcp: &mut [u8; 20] = out.get_mut(at..at + 20 + text_len)?.first_chunk_mut()?;
    tcp.fill(0);
    tcp[..2].copy_from_slice(&key.peer_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&key.local_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = Flags::ACK.0;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    Some(at + 20)
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
