//! The work that a device does for its host: TCP checksums and segmentation, on frames as a host hands them over.

/// EtherTypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Bytes of the Ethernet header, one VLAN tag included.
pub(super) fn ethernet_header(frame: &[u8]) -> usize {
    if word(frame, 12) == Some(VLAN) { 18 } else { 14 }
}

/// Completes the checksum of the TCP segment that starts at `start` and ends with the frame; its field holds the folded
/// pseudo-header sum. False: there is no room for a TCP header.
pub(super) fn complete_checksum(frame: &mut [u8], start: usize) -> bool {
    if frame.len() < start + 20 {
        return false;
    }
    let sum = !fold(sum(&frame[start..]));
    frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Cuts a frame with a TCP header at `tcp` into frames of at most `size` payload bytes, complete with checksums, and shows
/// each. False, and nothing shown: it is not TCP over IPv4 or IPv6 without extension headers, or `size` is 0.
pub(super) fn segment(frame: &[u8], tcp: usize, size: usize, mut show: impl FnMut(&[u8])) -> bool {
    let ip = ethernet_header(frame);
    let v4 = match word(frame, ip - 2) {
        Some(IPV4) => true,
        Some(IPV6) => false,
        _ => return false,
    };
    let (protocol, ip_min) = if v4 { (ip + 9, 20) } else { (ip + 6, 40) };
    if size == 0 || tcp < ip + ip_min || frame.len() < tcp + 20 || frame[protocol] != 6 {
        return false;
    }
    let headers = tcp + usize::from(frame[tcp + 12] >> 4) * 4;
    if headers < tcp + 20 || headers > frame.len() {
        return false;
    }
    let payload = &frame[headers..];
    let pieces = payload.len().div_ceil(size).max(1);
    let sequence = u32::from_be_bytes([frame[tcp + 4], frame[tcp + 5], frame[tcp + 6], frame[tcp + 7]]);
    let mut out = Vec::with_capacity(headers + size);
    for piece in 0..pieces {
        let at = piece * size;
        let bytes = &payload[at..payload.len().min(at + size)];
        out.clear();
        out.extend_from_slice(&frame[..headers]);
        out.extend_from_slice(bytes);
        out[tcp + 4..tcp + 8].copy_from_slice(&sequence.wrapping_add(at as u32).to_be_bytes());
        if piece + 1 < pieces {
            out[tcp + 13] &= !FIN_PSH;
        }
        if piece > 0 {
            out[tcp + 13] &= !CWR;
        }
        set_ip_length(&mut out, ip, tcp, v4, piece as u16);
        let pseudo = pseudo_header(&out, ip, tcp, v4);
        out[tcp + 16..tcp + 18].fill(0);
        let checksum = !fold(pseudo + sum(&out[tcp..]));
        out[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
        show(&out);
    }
    true
}

fn set_ip_length(frame: &mut [u8], ip: usize, tcp: usize, v4: bool, piece: u16) {
    let end = frame.len();
    if !v4 {
        frame[ip + 4..ip + 6].copy_from_slice(&((end - ip - 40) as u16).to_be_bytes());
        return;
    }
    frame[ip + 2..ip + 4].copy_from_slice(&((end - ip) as u16).to_be_bytes());
    let id = u16::from_be_bytes([frame[ip + 4], frame[ip + 5]]).wrapping_add(piece);
    frame[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
    frame[ip + 10..ip + 12].fill(0);
    let checksum = !fold(sum(&frame[ip..tcp]));
    frame[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// RFC 9293 3.1, not folded.
fn pseudo_header(frame: &[u8], ip: usize, tcp: usize, v4: bool) -> u64 {
    let addresses = if v4 { &frame[ip + 12..ip + 20] } else { &frame[ip + 8..ip + 40] };
    sum(addresses) + 6 + (frame.len() - tcp) as u64
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// The sum of RFC 1071, not folded.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let pairs: u64 = pairs.iter().map(|&pair| u64::from(u16::from_be_bytes(pair))).sum();
    pairs + rest.first().map_or(0, |&last| u64::from(last) << 8)
}

pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
