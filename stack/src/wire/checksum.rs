//! The Internet checksum (RFC 1071) and what TCP and ICMP make of it.
//!
//! A *sum* here is a one's-complement sum in network byte order, folded to 16 bits and not inverted.

use super::ip;
use super::parsed::{Datagram, Segment};
use super::{PROTO_ICMP6, PROTO_TCP, be16};
use crate::RxChecksum;
use crate::key::FlowKey;

/// Folds a sum of 16-bit words (or of wider words, whose sum is the same modulo 65,535) to 16 bits. Only 0 folds to 0.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    // End-around carries: an addition and an add-with-carry each.
    let (half, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let half = half + carry as u32;
    let (sum, carry) = (half as u16).overflowing_add((half >> 16) as u16);
    sum + carry as u16
}

/// From this length on the vector loop pays, bytes.
const BULK_MIN: usize = 256;

/// The sum over `bytes`; an odd last byte counts as if a zero followed.
#[inline]
pub fn data(bytes: &[u8]) -> u16 {
    // Summed as the machine reads it and swapped once at the end (RFC 1071 2 (B)).
    let (mut sum, rest) = if bytes.len() >= BULK_MIN { bulk(bytes) } else { (0, bytes) };
    let (words, tail) = rest.as_chunks::<8>();
    for word in words {
        sum = add(sum, u64::from_ne_bytes(*word));
    }
    u16::from_be(fold(add(sum, short(tail))))
}

/// One's-complement addition.
#[inline(always)]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// The sum over up to seven bytes in machine order. Each piece starts at an even offset, so that it adds as it lies.
#[inline(always)]
fn short(mut tail: &[u8]) -> u64 {
    let mut sum = 0;
    if let Some((four, rest)) = tail.split_first_chunk::<4>() {
        sum += u64::from(u32::from_ne_bytes(*four));
        tail = rest;
    }
    if let Some((two, rest)) = tail.split_first_chunk::<2>() {
        sum += u64::from(u16::from_ne_bytes(*two));
        tail = rest;
    }
    if let [last] = tail {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

/// The sum over all whole 64-bit words in machine order, and the bytes behind them; written for the auto-vectoriser.
///
/// Two sums are kept: of whole words, modulo 2^64, and of their upper halves, exact. What remains of the first without
/// the second is the exact sum of the lower halves. That takes three vector operations for each load, where
/// taking the halves apart takes five, and no carries.
#[inline(never)]
fn bulk(bytes: &[u8]) -> (u64, &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut whole, mut upper) = (0u64, 0u64);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        whole = whole.wrapping_add(word);
        upper = upper.wrapping_add(word >> 32);
    }
    (whole.wrapping_sub(upper << 32) + upper, rest)
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

/// Whether a received segment may be believed: its device has said so, or its checksum does. `partial`: senders on this
/// machine leave checksums to hardware that never sees their frames.
#[inline]
pub fn tcp_is_sound(frame: &[u8], segment: &Segment, known: RxChecksum, partial: bool) -> bool {
    if known != RxChecksum::Unknown {
        return true;
    }
    match verify_tcp(frame, segment) {
        Verdict::Valid => true,
        Verdict::PseudoHeaderOnly => partial,
        Verdict::Bad => false,
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
