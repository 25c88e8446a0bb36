//! What etherparse writes we read, what we write etherparse reads.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use proptest::prelude::*;

use super::*;

/// Reads a frame with etherparse, checks every checksum with it, and returns the TCP slice's fields.
#[track_caller]
fn etherparse_agrees(frame: &[u8], segment: &Segment) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("etherparse finds no TCP") };
    assert_eq!(tcp.source_port(), segment.key.peer_port);
    assert_eq!(tcp.destination_port(), segment.key.local_port);
    assert_eq!(tcp.sequence_number(), segment.seq);
    assert_eq!(tcp.acknowledgment_number(), segment.ack);
    assert_eq!(tcp.window_size(), segment.window);
    assert_eq!(tcp.payload(), segment.payload(frame));
    assert_eq!(tcp.header_slice(), segment.header(frame));
    let bits = [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg(), tcp.ece(), tcp.cwr()];
    let flags = bits.iter().enumerate().fold(0, |f, (n, set)| f | u8::from(*set) << n);
    assert_eq!(flags, segment.flags.0);
    let (peer, local) = match &sliced.net {
        Some(NetSlice::Ipv4(v4)) => {
            (v4.header().source_addr().to_ipv6_mapped(), v4.header().destination_addr().to_ipv6_mapped())
        }
        Some(NetSlice::Ipv6(v6)) => (v6.header().source_addr(), v6.header().destination_addr()),
        _ => panic!("etherparse finds no IP"),
    };
    assert_eq!(peer.octets(), segment.key.peer);
    assert_eq!(local.octets(), segment.key.local);
    let right = match &sliced.net {
        Some(NetSlice::Ipv4(v4)) => {
            let header = v4.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            tcp.calc_checksum_ipv4(v4.header().source(), v4.header().destination()).unwrap() == tcp.checksum()
        }
        Some(NetSlice::Ipv6(v6)) => {
            tcp.calc_checksum_ipv6(v6.header().source(), v6.header().destination()).unwrap() == tcp.checksum()
        }
        _ => false,
    };
    assert_eq!(right, checksum::verify_tcp(frame, segment) == checksum::Verdict::Valid);
}

fn vlans() -> impl Strategy<Value = VlanTags> {
    prop_oneof![
        Just(VlanTags::NONE),
        (0u16..4096, 0u8..8).prop_map(|(vid, pcp)| VlanTags::dot1q(vid, pcp)),
        (0u16..4096, 0u16..4096).prop_map(|(inner, outer)| VlanTags::dot1q(inner, 0).inside(outer, 5)),
    ]
}

proptest! {
    #[test]
    fn template_frames_are_read_by_etherparse(
        (v6, vlan) in (any::<bool>(), vlans()),
        (seq, ack, flags, window) in any::<(u32, u32, u8, u16)>(),
        options in proptest::collection::vec(any::<[u8; 4]>(), 0..=10),
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
        ports in any::<(u16, u16)>(),
    ) {
        let key = FlowKey { peer_port: ports.0, local_port: ports.1, ..if v6 { key6() } else { key4() } };
        let options = options.concat();
        let seg = Outgoing { seq, ack, flags: Flags(flags), window, options: &options, payload_len: 0 };
        let frame = frame_from_peer(&key, vlan, &seg, &payload);
        let parsed = parse(&frame);
        prop_assert_eq!(parsed.link.vlan, vlan);
        prop_assert_eq!((parsed.link.src, parsed.link.dst), (PEER_MAC, OUR_MAC));
        let segment = segment_of(&frame);
        prop_assert_eq!(segment.key, key);
        prop_assert_eq!(segment.payload(&frame), &payload[..]);
        prop_assert_eq!(&segment.header(&frame)[20..], &options[..]);
        prop_assert!(segment.plain && !segment.group_dst);
        prop_assert_eq!(checksum::verify_tcp(&frame, &segment), checksum::Verdict::Valid);
        etherparse_agrees(&frame, &segment);
    }

    #[test]
    fn etherparse_frames_are_read(
        v6 in any::<bool>(),
        tagged in any::<bool>(),
        (seq, ack, window) in any::<(u32, u32, u16)>(),
        mss in any::<u16>(),
        ts in any::<(u32, u32)>(),
        padding in 0usize..20,
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        flip in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let builder = PacketBuilder::ethernet2(PEER_MAC, OUR_MAC);
        let vid = etherparse::VlanId::try_new(42).unwrap();
        let builder = match (tagged, v6) {
            (false, false) => builder.ipv4(PEER_V4, OUR_V4, 20),
            (false, true) => builder.ipv6(PEER_V6, OUR_V6, 20),
            (true, false) => builder.single_vlan(vid).ipv4(PEER_V4, OUR_V4, 20),
            (true, true) => builder.single_vlan(vid).ipv6(PEER_V6, OUR_V6, 20),
        };
        let builder = builder.tcp(40_000, 80, seq, window).syn().ack(ack).options(&[
            TcpOptionElement::MaximumSegmentSize(mss),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            TcpOptionElement::Timestamp(ts.0, ts.1),
            TcpOptionElement::WindowScale(7),
        ]).unwrap();
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload).unwrap();
        let packet_end = frame.len();
        frame.resize(packet_end + padding, 0xee);
        // A changed payload byte must show in the checksum and nowhere else.
        if let Some(index) = flip.filter(|_| !payload.is_empty()) {
            let at = packet_end - 1 - index.index(payload.len());
            frame[at] ^= 0x40;
        }
        let segment = segment_of(&frame);
        prop_assert_eq!(segment.end as usize, packet_end);
        prop_assert_eq!(segment.key, if v6 { key6() } else { key4() });
        prop_assert_eq!(parse(&frame).link.vlan.vid(), tagged.then_some(42));
        let options = tcp_options(segment.header(&frame));
        prop_assert_eq!(options.mss, Some(mss));
        prop_assert_eq!(options.timestamps, Some(ts));
        prop_assert_eq!(options.window_scale, Some(7));
        prop_assert!(options.sack_permitted);
        etherparse_agrees(&frame, &segment);
        let good = flip.is_none() || payload.is_empty();
        prop_assert_eq!(checksum::verify_tcp(&frame, &segment) == checksum::Verdict::Valid, good);
    }
}
