//! Any bytes at all: nothing panics, loops, or points outside the frame.

use proptest::prelude::*;

use super::*;
use crate::counters::Counters;
use crate::time::Instant;

/// Everything that reads a received frame, over `frame`.
fn exercise(frame: &[u8]) {
    let parsed = parse(frame);
    let mut out = [0; 2048];
    if let Kind::Tcp(segment) = parsed.kind {
        let len = frame.len() as u32;
        assert!(segment.ip_at < segment.tcp_at && segment.tcp_at + 20 <= segment.payload_at);
        assert!(u32::from(segment.payload_at) <= segment.end && segment.end <= len);
        assert_eq!(segment.payload(frame).len(), segment.payload_len());
        let _ = tcp_options(segment.header(frame));
        let _ = checksum::verify_tcp(frame, &segment);
        let _ = plain_copy(frame, &segment, &mut out);
        let _ = reset_for(&segment);
    }
    let _ = icmp_error(frame, &parsed);
    let mut responder = Responder::new(ResponderConfig {
        mac: OUR_MAC,
        addresses: Addresses::Own(vec![(OUR_V4.into(), 24), (OUR_V6.into(), 64)]),
        gateways: vec![PEER_V4.into(), PEER_V6.into()],
        echo_limit_per_s: 1000,
    });
    let mut counters = Counters::default();
    while responder.poll(Instant::ZERO, &mut out, &mut counters).is_some() {}
    let _ = responder.answer(Instant::ZERO, frame, &parsed, &mut out, &mut counters);
}

/// Frames that are nearly right.
fn seeds() -> Vec<Vec<u8>> {
    let options = [2, 4, 5, 180, 3, 3, 7, 1, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let syn = Outgoing { flags: Flags::SYN, options: &options, ..ack() };
    let mut seeds = vec![
        frame_from_peer(&key4(), VlanTags::NONE, &ack(), b"hello"),
        frame_from_peer(&key6(), VlanTags::NONE, &ack(), b"hello"),
        frame_from_peer(&key4(), VlanTags::dot1q(7, 3), &syn, b""),
        frame_from_peer(&key6(), VlanTags::dot1q(7, 3).inside(8, 1), &syn, b""),
    ];
    let mut responder = Responder::new(ResponderConfig {
        mac: PEER_MAC,
        addresses: Addresses::Own(vec![(PEER_V4.into(), 24), (PEER_V6.into(), 64)]),
        gateways: vec![OUR_V4.into(), OUR_V6.into()],
        echo_limit_per_s: 1000,
    });
    let mut out = [0; 256];
    while let Some(len) = responder.poll(Instant::ZERO, &mut out, &mut Counters::default()) {
        seeds.push(out[..len].to_vec());
    }
    assert_eq!(seeds.len(), 8, "two announcements, an ARP request, a solicitation");
    seeds
}

#[test]
fn every_truncation_of_a_frame() {
    for seed in seeds() {
        for len in 0..=seed.len() {
            exercise(&seed[..len]);
        }
    }
}

#[test]
fn every_single_byte_changed() {
    for seed in seeds() {
        for at in 0..seed.len() {
            for value in [0, 1, 0x0f, 0x3c, 0x80, 0xff, seed[at] ^ 0x10] {
                let mut frame = seed.clone();
                frame[at] = value;
                exercise(&frame);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(&frame);
    }

    /// Random bytes behind a header that lets them through: IPv4 with its checksum mended, IPv6 with extensions.
    #[test]
    fn random_bytes_behind_an_ip_header(
        mut bytes in proptest::collection::vec(any::<u8>(), 40..300),
        v6 in any::<bool>(),
        protocol in prop::sample::select(vec![0u8, 1, 6, 43, 44, 58, 60]),
        words in 5usize..=15,
    ) {
        let mut frame = vec![];
        frame.extend_from_slice(&OUR_MAC);
        frame.extend_from_slice(&PEER_MAC);
        frame.extend_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
        if v6 {
            bytes[0] = 0x60;
            let len = bytes.len() as u16 - 40;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            bytes[6] = protocol;
            bytes[8..24].copy_from_slice(&PEER_V6);
            bytes[24..40].copy_from_slice(&OUR_V6);
        } else {
            bytes.resize(bytes.len().max(words * 4), 0);
            bytes[0] = 0x40 | words as u8;
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[6..8].fill(0);
            bytes[9] = protocol;
            bytes[10..12].fill(0);
            bytes[12..16].copy_from_slice(&PEER_V4);
            bytes[16..20].copy_from_slice(&OUR_V4);
            let sum = !checksum::data(&bytes[..words * 4]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend_from_slice(&bytes);
        exercise(&frame);
    }

    #[test]
    fn random_tcp_options(options in proptest::collection::vec(0u8..12, 0..64)) {
        let mut header = vec![0; 20];
        header.extend_from_slice(&options);
        let found = tcp_options(&header);
        prop_assert!(found.window_scale.unwrap_or(0) <= 14);
    }
}
