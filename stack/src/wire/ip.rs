//! IPv4 and IPv6 headers of packets we make.

use super::checksum;

/// Time to live and hop limit of what we send (RFC 1700, and what Linux does).
pub(super) const HOP_LIMIT: u8 = 64;
/// Don't Fragment: what we send is atomic, so its identification may stay 0 (RFC 6864 4.1).
const DF: [u8; 2] = [0x40, 0];

/// An IPv4 address as an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2).
#[inline]
pub(super) fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let mut a = [0; 16];
    a[10] = 0xff;
    a[11] = 0xff;
    a[12..].copy_from_slice(&v4);
    a
}

/// The IPv4 address in an IPv4-mapped one; `None` for IPv6.
#[inline]
pub(super) fn unmapped(a: &[u8; 16]) -> Option<[u8; 4]> {
    let [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, w, x, y, z] = *a else { return None };
    Some([w, x, y, z])
}

/// Whether an address is IPv4-mapped.
#[inline]
pub(crate) fn is_v4(a: &[u8; 16]) -> bool {
    unmapped(a).is_some()
}

/// A header without options in front of `payload_len` bytes, checksum included. `payload_len` is at most 65,515.
pub(super) fn v4_header(src: [u8; 4], dst: [u8; 4], protocol: u8, payload_len: usize) -> [u8; 20] {
    let mut h = [0; 20];
    h[0] = 0x45;
    h[2..4].copy_from_slice(&((payload_len + 20) as u16).to_be_bytes());
    h[6..8].copy_from_slice(&DF);
    h[8] = HOP_LIMIT;
    h[9] = protocol;
    h[12..16].copy_from_slice(&src);
    h[16..20].copy_from_slice(&dst);
    let sum = !checksum::data(&h);
    h[10..12].copy_from_slice(&sum.to_be_bytes());
    h
}

/// A header in front of `payload_len` bytes, at most 65,535.
pub(super) fn v6_header(
    src: &[u8; 16],
    dst: &[u8; 16],
    next_header: u8,
    hop_limit: u8,
    payload_len: usize,
) -> [u8; 40] {
    let mut h = [0; 40];
    h[0] = 0x60;
    h[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
    h[6] = next_header;
    h[7] = hop_limit;
    h[8..24].copy_from_slice(src);
    h[24..40].copy_from_slice(dst);
    h
}
