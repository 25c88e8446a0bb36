//! `struct virtio_net_hdr`, ten bytes in the byte order of the machine: what AF_PACKET (`PACKET_VNET_HDR`) and TAP
//! (`IFF_VNET_HDR`) put before each frame to say which checksum and which segmentation is left to do
//! (virtio 1.2, 5.1.6; linux/virtio_net.h).

use khamsin_stack::{RxChecksum, TxOffload};

/// Length of the header.
pub(crate) const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The checksum field of a TCP header, in bytes from its start.
const TCP_CHECKSUM: u16 = 16;
/// The byte of a TCP header whose upper half is its length in words.
const TCP_DATA_OFFSET: usize = 12;

/// Says nothing is left to do.
pub(crate) const NONE: [u8; LEN] = [0; LEN];

/// The header for `frame` with `offload` left to the device. Segmentation is asked for only where the checksum is left
/// too, the frame is IPv4 or IPv6 and the TCP header lies within it: anything else goes as it is.
pub(crate) fn encode(frame: &[u8], offload: TxOffload) -> [u8; LEN] {
    let mut header = NONE;
    let Some(start) = offload.checksum_start else { return header };
    header[0] = F_NEEDS_CSUM;
    // The kernel wants the field within the headers, and refuses the frame if they do not fit it.
    let mut headers_len = start.saturating_add(TCP_CHECKSUM + 2);
    if let (Some(size), Some(kind), Some(len)) = (offload.segment_size, gso_kind(frame), headers(frame, start)) {
        // A frame of one segment is none to the kernel, and an error to some drivers.
        if frame.len() > usize::from(len) + usize::from(size) {
            header[1] = kind;
            header[4..6].copy_from_slice(&size.to_ne_bytes());
        }
        headers_len = len;
    }
    header[2..4].copy_from_slice(&headers_len.to_ne_bytes());
    header[6..8].copy_from_slice(&start.to_ne_bytes());
    header[8..10].copy_from_slice(&TCP_CHECKSUM.to_ne_bytes());
    header
}

/// What a received frame's header says of its checksum.
pub(crate) fn rx_checksum(header: [u8; LEN]) -> RxChecksum {
    match header[0] {
        flags if flags & F_NEEDS_CSUM != 0 => RxChecksum::Partial,
        flags if flags & F_DATA_VALID != 0 => RxChecksum::Valid,
        _ => RxChecksum::Unknown,
    }
}

/// Bytes of all headers: up to the end of the TCP header that starts at `start`.
fn headers(frame: &[u8], start: u16) -> Option<u16> {
    let words = frame.get(usize::from(start) + TCP_DATA_OFFSET)? >> 4;
    let len = start.checked_add(u16::from(words) * 4)?;
    (words >= 5 && usize::from(len) <= frame.len()).then_some(len)
}

/// The kind of segmentation by the EtherType behind at most two VLAN tags.
fn gso_kind(frame: &[u8]) -> Option<u8> {
    let mut at = 12;
    for _ in 0..3 {
        match *frame.get(at..at + 2)? {
            [0x08, 0x00] => return Some(GSO_TCPV4),
            [0x86, 0xdd] => return Some(GSO_TCPV6),
            [0x81, 0x00] | [0x88, 0xa8] => at += 4,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tags: usize, ethertype: [u8; 2], len: usize) -> (Vec<u8>, u16) {
        let mut frame = vec![0; 12];
        for _ in 0..tags {
            frame.extend([0x81, 0x00, 0, 7]);
        }
        frame.extend(ethertype);
        let start = frame.len() + if ethertype == [8, 0] { 20 } else { 40 };
        frame.resize(len.max(start + 20), 0);
        frame[start + TCP_DATA_OFFSET] = 8 << 4;
        (frame, start as u16)
    }

    fn field(header: [u8; LEN], at: usize) -> u16 {
        u16::from_ne_bytes([header[at], header[at + 1]])
    }

    #[test]
    fn nothing_left_is_all_zero() {
        assert_eq!(encode(&[0; 60], TxOffload::NONE), NONE);
        assert_eq!(encode(&[0; 60], TxOffload { checksum_start: None, segment_size: Some(1448) }), NONE);
    }

    #[test]
    fn a_checksum_alone() {
        let (frame, start) = frame(0, [8, 0], 100);
        let header = encode(&frame, TxOffload { checksum_start: Some(start), segment_size: None });
        assert_eq!((header[0], header[1]), (F_NEEDS_CSUM, 0));
        assert_eq!((field(header, 6), field(header, 8)), (34, 16));
        assert_eq!(field(header, 2), 34 + 18, "the kernel wants the field inside hdr_len");
    }

    #[test]
    fn segmentation_of_ipv4_and_ipv6_with_and_without_tags() {
        for (tags, ethertype, kind) in
            [(0, [8, 0], GSO_TCPV4), (1, [8, 0], GSO_TCPV4), (2, [0x86, 0xdd], GSO_TCPV6), (0, [0x86, 0xdd], GSO_TCPV6)]
        {
            let (frame, start) = frame(tags, ethertype, 9000);
            let header = encode(&frame, TxOffload { checksum_start: Some(start), segment_size: Some(1448) });
            assert_eq!((header[0], header[1]), (F_NEEDS_CSUM, kind));
            assert_eq!(field(header, 2), start + 32);
            assert_eq!(field(header, 4), 1448);
        }
    }

    #[test]
    fn one_segment_is_none_and_nonsense_is_not_segmented() {
        let (short, start) = frame(0, [8, 0], 34 + 32 + 1448);
        let offload = TxOffload { checksum_start: Some(start), segment_size: Some(1448) };
        assert_eq!(encode(&short, offload)[1], 0);
        let (mut other, _) = frame(0, [8, 0], 9000);
        other[12..14].copy_from_slice(&[0x88, 0xcc]);
        assert_eq!(encode(&other, offload)[1], 0);
        let (mut cut, _) = frame(0, [8, 0], 9000);
        cut[34 + TCP_DATA_OFFSET] = 4 << 4;
        assert_eq!(encode(&cut, offload)[1], 0);
        for len in 0..80 {
            encode(&vec![0x81; len], offload);
            encode(&vec![0xff; len], TxOffload { checksum_start: Some(u16::MAX), segment_size: Some(0) });
        }
    }

    #[test]
    fn received_flags() {
        let with = |flags| {
            let mut header = NONE;
            header[0] = flags;
            rx_checksum(header)
        };
        assert_eq!(with(0), RxChecksum::Unknown);
        assert_eq!(with(F_NEEDS_CSUM), RxChecksum::Partial);
        assert_eq!(with(F_DATA_VALID), RxChecksum::Valid);
        assert_eq!(with(F_NEEDS_CSUM | F_DATA_VALID), RxChecksum::Partial);
    }
}
