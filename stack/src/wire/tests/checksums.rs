//! Sums against RFC 1071 by the book, and against smoltcp's.

use proptest::prelude::*;

use super::checksum::{Verdict, data, fold, patch16, verify_tcp};
use super::*;

/// RFC 1071 4.1, word by word.
fn by_the_book(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn every_length_and_the_fullest_words() {
    let ones = vec![0xff; 70_000];
    let mixed: Vec<u8> = (0..70_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [&ones, &mixed] {
        for len in (0..600).chain([1460, 4095, 9000, 65_535, 70_000]) {
            assert_eq!(data(&bytes[..len]), by_the_book(&bytes[..len]), "{len} bytes");
        }
    }
}

proptest! {
    #[test]
    fn sums_agree_with_smoltcp(bytes in proptest::collection::vec(any::<u8>(), 0..3000), from in 0usize..9) {
        let bytes = &bytes[from.min(bytes.len())..];
        prop_assert_eq!(data(bytes), smoltcp::wire::checksum::data(bytes));
    }

    #[test]
    fn folding_keeps_the_remainder(sum in any::<u64>()) {
        prop_assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
        prop_assert_eq!(fold(sum) == 0, sum == 0);
    }

    #[test]
    fn patching_is_summing_again(mut bytes in proptest::collection::vec(any::<u8>(), 20..64), word in any::<u16>()) {
        // A word that is not zero, as the version of an IP header or the type of a ping; see RFC 1624 2.
        bytes[0] = 0x45;
        let before = !data(&bytes);
        let old = u16::from_be_bytes([bytes[6], bytes[7]]);
        bytes[6..8].copy_from_slice(&word.to_be_bytes());
        prop_assert_eq!(patch16(before, old, word), !data(&bytes));
    }
}

#[test]
fn the_three_verdicts() {
    for key in [key4(), key6()] {
        let mut frame = frame_from_peer(&key, VlanTags::NONE, &ack(), b"some payload");
        let segment = segment_of(&frame);
        assert_eq!(verify_tcp(&frame, &segment), Verdict::Valid);
        let at = usize::from(segment.tcp_at) + 16;
        frame[at] ^= 0xff;
        assert_eq!(verify_tcp(&frame, &segment), Verdict::Bad);
        let pseudo = checksum::tcp_pseudo(&key, 20 + 12);
        frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        assert_eq!(verify_tcp(&frame, &segment), Verdict::PseudoHeaderOnly);
        frame[at..at + 2].copy_from_slice(&(!pseudo).to_be_bytes());
        assert_eq!(verify_tcp(&frame, &segment), Verdict::Bad);
        assert_eq!(verify_tcp(&frame[..40], &segment), Verdict::Bad, "a frame that it was not parsed from");
    }
}

#[test]
fn every_bit_of_a_segment_counts() {
    let frame = frame_from_peer(&key4(), VlanTags::NONE, &ack(), &[0x55; 37]);
    let segment = segment_of(&frame);
    for at in usize::from(segment.tcp_at)..frame.len() {
        for bit in 0..8 {
            let mut bad = frame.clone();
            bad[at] ^= 1 << bit;
            assert_eq!(verify_tcp(&bad, &segment), Verdict::Bad, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn pseudo_headers_are_smoltcps() {
    use smoltcp::wire::{IpProtocol, Ipv4Address, Ipv6Address, checksum as theirs};
    let four = theirs::pseudo_header_v4(&Ipv4Address::from(PEER_V4), &Ipv4Address::from(OUR_V4), IpProtocol::Tcp, 1480);
    assert_eq!(checksum::tcp_pseudo(&key4(), 1480), four);
    let six = theirs::pseudo_header_v6(&Ipv6Address::from(PEER_V6), &Ipv6Address::from(OUR_V6), IpProtocol::Tcp, 1480);
    assert_eq!(checksum::tcp_pseudo(&key6(), 1480), six);
}
