//! The Internet checksum (RFC 1071) and what TCP and ICMP make of it.
//!
//! A *sum* here is a one's-complement sum in network byte order, folded to 16 bits and not inverted.

use super::ip;
use super::parse::{Datagram, Segment};
use super::{PROTO_ICMP6, PROTO_TCP, be16};
use crate::key::FlowKey;

/// Folds a sum of 16-bit words (or of wider words, whose sum is the same modulo 65,535) to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The sum over `bytes`; an odd last byte counts as if a zero followed.
#[inline]
pub fn data(bytes: &[u8]) -> u16 {
    // Summed as the machine reads it and swapped once at the end (RFC 1071 2 (B)).
    let mut sum: u64 = 0;
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        for word in chunk.chunks_exact(4) {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut words = chunks.remainder().chunks_exact(4);
    for word in &mut words {
        sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    let tail = words.remainder();
    last[..tail.len()].copy_from_slice(tail);
    sum += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(sum))
}

/// Whether the checksum of an IPv4 header without options is right.
#[inline(always)]
pub fn header_is_sound(header: &[u8; 20]) -> bool {
    let mut sum: u64 = 0;
    for word in header.chunks_exact(4) {
        sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    // Folding keeps the remainder by 65,535, and a header that starts with its version never sums to 0.
    sum.is_multiple_of(0xffff)
}

/// The sum over a pseudo-header (RFC 9293 3.1, RFC 8200 8.1) without its length: addresses and protocol number.
/// Mapped addresses sum to the IPv4 pseudo-header.
#[inline]
pub fn pseudo_without_len(a: &[u8; 16], b: &[u8; 16], protocol: u8) -> u16 {
    // The two ::ffff:0:0/96 prefixes of IPv4-mapped addresses add 0xffff each, which is nothing (modulo 65,535).
    let mut sum = u64::from(u16::from(protocol).to_be());
    for address in [a, b] {
        for word in address.chunks_exact(4) {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    u16::from_be(fold(sum))
}

/// The sum over a TCP pseudo-header; `tcp_len` counts header and payload.
#[inline]
pub fn tcp_pseudo(key: &FlowKey, tcp_len: u32) -> u16 {
    fold(u64::from(pseudo_without_len(&key.peer, &key.local, PROTO_TCP)) + u64::from(tcp_len))
}

/// The checksum `sum` (as it stands in a header) after one 16-bit word under it changed from `old` to `new`
/// (RFC 1624, equation 3).
#[inline]
pub const fn patch16(sum: u16, old: u16, new: u16) -> u16 {
    !fold((!sum) as u64 + (!old) as u64 + new as u64)
}

/// What is to be thought of a received TCP checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Complete and right.
    Valid,
    /// The sum of the pseudo-header alone: a sender on this machine left the rest to hardware that never saw the
    /// frame (Linux `CHECKSUM_PARTIAL`, as seen on veth). Right where the driver says so, wrong everywhere else.
    PseudoHeaderOnly,
    /// Wrong.
    Bad,
}

/// Checks the TCP checksum of `segment`, which [`parse`](super::parse()) found in `frame`.
#[inline]
pub fn verify_tcp(frame: &[u8], segment: &Segment) -> Verdict {
    let Some(tcp) = frame.get(usize::from(segment.tcp_at)..segment.end as usize) else { return Verdict::Bad };
    let pseudo = tcp_pseudo(&segment.key, tcp.len() as u32);
    if fold(u64::from(pseudo) + u64::from(data(tcp))) == 0xffff {
        return Verdict::Valid;
    }
    match tcp.first_chunk::<20>() {
        Some(h) if be16(h, 16) == pseudo => Verdict::PseudoHeaderOnly,
        _ => Verdict::Bad,
    }
}

/// Whether the checksum of an ICMP (RFC 792) or ICMPv6 (RFC 4443 2.3) message is right. `datagram` was found in
/// `frame` by [`parse`](super::parse()).
pub fn verify_icmp(frame: &[u8], datagram: &Datagram) -> bool {
    let message = datagram.message(frame);
    let pseudo = match ip::unmapped(&datagram.local) {
        Some(_) => 0,
        None => icmp6_pseudo(&datagram.peer, &datagram.local, message.len()),
    };
    message.len() >= 4 && fold(u64::from(pseudo) + u64::from(data(message))) == 0xffff
}

/// The sum over an ICMPv6 pseudo-header in front of `len` bytes.
pub(super) fn icmp6_pseudo(a: &[u8; 16], b: &[u8; 16], len: usize) -> u16 {
    fold(u64::from(pseudo_without_len(a, b, PROTO_ICMP6)) + len as u64)
}
