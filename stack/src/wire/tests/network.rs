//! What `parse` lets through, case by case, and which counter each drop moves.

use super::*;
use crate::counters::Counters;

#[track_caller]
fn dropped(frame: &[u8], reason: DropReason) {
    assert_eq!(parse(frame).kind, Kind::Drop(reason));
}

#[test]
fn every_drop_reason_moves_its_own_counter() {
    let reasons = [
        (DropReason::Malformed, "drop_malformed"),
        (DropReason::NotOurs, "drop_not_ours"),
        (DropReason::OtherAddress, "drop_other_address"),
        (DropReason::IpChecksum, "drop_ip_checksum"),
        (DropReason::L4Checksum, "drop_l4_checksum"),
        (DropReason::Fragment, "drop_fragment"),
        (DropReason::Martian, "drop_martian"),
    ];
    for (reason, name) in reasons {
        let mut counters = Counters::default();
        reason.count(&mut counters);
        let moved: Vec<_> = counters.iter().filter(|(_, n)| *n != 0).collect();
        assert_eq!(moved, [(name, 1)]);
    }
}

#[test]
fn link_layers() {
    let packet = packet4(PROTO_TCP, &[], &tcp_bytes(&key4()), |_| {})[14..].to_vec();
    dropped(&[0; 13], DropReason::Malformed);
    // IEEE 802.3: a length where the EtherType would be.
    dropped(&ethernet(0x05ff, &packet), DropReason::Malformed);
    // LLDP.
    dropped(&ethernet(0x88cc, &packet), DropReason::NotOurs);
    dropped(&ethernet(ETHERTYPE_VLAN, &[0, 1, 8]), DropReason::Malformed);
    dropped(&ethernet(ETHERTYPE_QINQ, &[0, 1, 0x81, 0, 0, 2, 8]), DropReason::Malformed);
    // Two C-tags are one too many; what follows the first is no network layer.
    dropped(&ethernet(ETHERTYPE_VLAN, &[&[0, 1, 0x81, 0, 0, 2, 8, 0], &packet[..]].concat()), DropReason::NotOurs);
    let mut frame = ethernet(ETHERTYPE_IPV4, &packet);
    frame[6] |= 1;
    dropped(&frame, DropReason::Martian);
    assert_eq!(parse(&ethernet(ETHERTYPE_ARP, &[])).kind, Kind::Arp);

    let priority_tagged = ethernet(ETHERTYPE_VLAN, &[&[0xa0, 0, 8, 0], &packet[..]].concat());
    assert_eq!(segment_of(&priority_tagged).ip_at, 18);
    assert_eq!(parse(&priority_tagged).link.vlan, VlanTags::dot1q(0, 5));
    assert_eq!(parse(&priority_tagged).link.vlan.vid(), Some(0));

    let stacked = ethernet(ETHERTYPE_QINQ, &[&[0, 9, 0x81, 0, 0, 7, 8, 0], &packet[..]].concat());
    let link = parse(&stacked).link;
    assert_eq!((link.vlan, link.l2_len), (VlanTags::dot1q(7, 0).inside(9, 0), 22));
    assert_eq!(segment_of(&stacked).key, key4());
    // An S-tag alone.
    let outer_only = ethernet(ETHERTYPE_QINQ, &[&[0, 9, 8, 0], &packet[..]].concat());
    assert_eq!(parse(&outer_only).link.vlan, VlanTags::NONE.inside(9, 0));
}

#[test]
fn ipv4_headers() {
    let tcp = tcp_bytes(&key4());
    let with = |change: fn(&mut [u8])| packet4(PROTO_TCP, &[], &tcp, change);
    assert!(segment_of(&with(|_| {})).plain);
    dropped(&with(|h| h[0] = 0x65), DropReason::Malformed);
    dropped(&with(|h| h[0] = 0x44), DropReason::Malformed);
    dropped(&with(|h| h[3] = 19), DropReason::Malformed);
    dropped(&with(|h| h[3] += 1), DropReason::Malformed);
    dropped(&with(|h| h[9] = 17), DropReason::NotOurs);
    let mut frame = with(|_| {});
    frame[14 + 8] -= 1;
    dropped(&frame, DropReason::IpChecksum);
    // Shorter than it came: the rest is padding.
    let segment = segment_of(&with(|h| h[3] -= 2));
    assert_eq!(segment.payload_len(), 3);
    // Too short for a TCP header.
    dropped(&with(|h| h[3] = 39), DropReason::Malformed);
}

#[test]
fn ipv4_options_are_passed_over() {
    let frame = packet4(PROTO_TCP, &[7, 7, 4, 0, 0, 0, 0, 0], &tcp_bytes(&key4()), |_| {});
    let segment = segment_of(&frame);
    assert!(!segment.plain);
    assert_eq!((segment.ip_at, segment.tcp_at, segment.payload(&frame)), (14, 42, &b"hello"[..]));
    assert_eq!(checksum::verify_tcp(&frame, &segment), checksum::Verdict::Valid);
    let mut bad = frame.clone();
    bad[14 + 21] ^= 1;
    dropped(&bad, DropReason::IpChecksum);
    dropped(&frame[..14 + 24], DropReason::Malformed);
}

#[test]
fn ipv4_fragments() {
    let part = |protocol: u8, offset: u16, more: bool, len: usize| {
        let word = (offset / 8) | if more { 0x2000 } else { 0 };
        packet4(protocol, &[], &vec![7; len], move |h| {
            h[4..6].copy_from_slice(&[0xab, 0xcd]);
            h[6..8].copy_from_slice(&word.to_be_bytes());
        })
    };
    let Kind::Fragment(found) = parse(&part(PROTO_TCP, 800, true, 24)).kind else { panic!("a fragment") };
    assert_eq!((found.id, found.offset, found.more, found.protocol), (0xabcd, 800, true, PROTO_TCP));
    assert_eq!((found.peer, found.local), (ip::mapped(PEER_V4), ip::mapped(OUR_V4)));
    assert_eq!((found.at, found.end, found.group_dst), (34, 58, false));
    let fine = |frame: &[u8]| assert!(matches!(parse(frame).kind, Kind::Fragment(_)));
    fine(&part(PROTO_TCP, 0, true, 24));
    fine(&part(PROTO_TCP, 24, false, 1));
    fine(&part(PROTO_ICMP, 8, false, 1));
    fine(&part(PROTO_TCP, 65_512, false, 3));
    // No multiple of 8; nothing; behind the end of any packet; a header cut in two (RFC 1858, RFC 3128).
    for odd in [
        part(PROTO_TCP, 0, true, 25),
        part(PROTO_TCP, 24, false, 0),
        part(PROTO_TCP, 65_512, false, 4),
        part(PROTO_TCP, 65_528, true, 8),
        part(PROTO_TCP, 0, true, 16),
        part(PROTO_TCP, 8, false, 24),
        part(PROTO_TCP, 16, true, 24),
        part(PROTO_ICMP, 0, true, 0),
    ] {
        dropped(&odd, DropReason::Fragment);
    }
    dropped(&part(17, 0, true, 24), DropReason::NotOurs);
    let from = |src: [u8; 4]| {
        packet4(PROTO_TCP, &[], &[7; 24], move |h| {
            h[6] = 0x20;
            h[12..16].copy_from_slice(&src);
        })
    };
    for src in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
        dropped(&from(src), DropReason::Martian);
    }
    // The reserved bit and Don't Fragment make no fragment.
    segment_of(&packet4(PROTO_TCP, &[], &tcp_bytes(&key4()), |h| h[6] = 0xc0));
}

/// A problem's code and pointer.
#[track_caller]
fn problem(frame: &[u8]) -> (u8, u16) {
    match parse(frame).kind {
        Kind::Problem(p) => (p.code, p.pointer),
        other => panic!("no problem: {other:?}"),
    }
}

#[test]
fn ipv6_fragments() {
    let part = |next: u8, offset: u16, more: bool, body: &[u8]| {
        let word = (offset | u16::from(more)).to_be_bytes();
        let header = [next, 0, word[0], word[1], 1, 2, 3, 4];
        packet6(44, &[&header, body].concat(), |_| {})
    };
    let Kind::Fragment(found) = parse(&part(PROTO_TCP, 800, true, &[7; 24])).kind else { panic!("a fragment") };
    assert_eq!((found.id, found.offset, found.more, found.protocol), (0x0102_0304, 800, true, PROTO_TCP));
    assert_eq!((found.peer, found.local, found.at, found.end), (PEER_V6, OUR_V6, 62, 86));
    let fine = |frame: &[u8]| assert!(matches!(parse(frame).kind, Kind::Fragment(_)));
    fine(&part(PROTO_TCP, 0, true, &[7; 24]));
    fine(&part(PROTO_TCP, 8, false, &[7; 1]));
    let options = extension(PROTO_TCP, &[1, 4, 0, 0, 0, 0]);
    fine(&part(60, 0, true, &[&options[..], &[7; 24]].concat()));
    // RFC 8200 4.5: a length that is no multiple of 8, and an end behind 65,535; RFC 7112: headers that go on elsewhere.
    assert_eq!(problem(&part(PROTO_TCP, 0, true, &[7; 25])), (0, 4));
    assert_eq!(problem(&part(PROTO_TCP, 65_528, false, &[7; 8])), (0, 42));
    assert_eq!(problem(&part(PROTO_TCP, 0, true, &[7; 16])), (3, 0));
    assert_eq!(problem(&part(60, 0, true, &options)), (3, 0));
    assert_eq!(problem(&part(60, 0, true, &[&options[..], &[7; 16]].concat())), (3, 0));
    assert_eq!(problem(&part(132, 0, true, &[7; 24])), (1, 40));
    dropped(&part(PROTO_TCP, 8, false, &[]), DropReason::Fragment);
    // Parts of a part.
    dropped(&part(44, 0, true, &[PROTO_TCP, 0, 0, 1, 0, 0, 0, 0]), DropReason::Fragment);
    let atomic = part(PROTO_TCP, 6, false, &tcp_bytes(&key6()));
    let segment = segment_of(&atomic);
    assert!(!segment.plain);
    assert_eq!((segment.tcp_at, segment.payload(&atomic)), (14 + 48, &b"hello"[..]));
    assert_eq!(checksum::verify_tcp(&atomic, &segment), checksum::Verdict::Valid);
}

#[test]
fn ipv4_addresses_that_nobody_has() {
    let tcp = tcp_bytes(&key4());
    let from = |src: [u8; 4]| packet4(PROTO_TCP, &[], &tcp, |h| h[12..16].copy_from_slice(&src));
    for src in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [239, 255, 255, 255], [255; 4]] {
        dropped(&from(src), DropReason::Martian);
    }
    for src in
        [[1, 0, 0, 0], [126, 255, 255, 255], [128, 0, 0, 0], [223, 255, 255, 255], [240, 0, 0, 1], [255, 0, 0, 1]]
    {
        assert_eq!(segment_of(&from(src)).key.peer, ip::mapped(src));
    }
    let to = |dst: [u8; 4]| packet4(PROTO_TCP, &[], &tcp, |h| h[16..20].copy_from_slice(&dst));
    for dst in [[0, 0, 0, 0], [127, 0, 0, 1]] {
        dropped(&to(dst), DropReason::OtherAddress);
    }
    for dst in [[224, 0, 0, 1], [239, 1, 1, 1], [255; 4]] {
        assert!(segment_of(&to(dst)).group_dst);
    }
    assert!(!segment_of(&to([240, 0, 0, 1])).group_dst);
    let mut frame = to(OUR_V4);
    assert!(!segment_of(&frame).group_dst);
    frame[0] = 0x01;
    assert!(segment_of(&frame).group_dst, "a link-layer multicast");
}

#[test]
fn land_is_dropped() {
    let key = FlowKey { peer_port: 80, ..key4() };
    let land = FlowKey { peer: key.local, ..key };
    dropped(&frame_from_peer(&land, VlanTags::NONE, &ack(), b""), DropReason::Martian);
    segment_of(&frame_from_peer(&key, VlanTags::NONE, &ack(), b""));
    let land6 = FlowKey { peer: OUR_V6, peer_port: 80, ..key6() };
    dropped(&frame_from_peer(&land6, VlanTags::NONE, &ack(), b""), DropReason::Martian);
}

#[test]
fn ipv6_headers_and_addresses() {
    let tcp = tcp_bytes(&key6());
    dropped(&packet6(PROTO_TCP, &tcp, |h| h[0] = 0x50), DropReason::Malformed);
    dropped(&packet6(PROTO_TCP, &tcp, |h| h[4..6].fill(0)), DropReason::Malformed);
    dropped(&packet6(PROTO_TCP, &tcp, |h| h[5] += 1), DropReason::Malformed);
    dropped(&packet6(17, &tcp, |_| {}), DropReason::NotOurs);
    dropped(&packet6(59, &tcp, |_| {}), DropReason::NotOurs);
    assert_eq!(problem(&packet6(132, &tcp, |_| {})), (1, 6));
    let from = |src: [u8; 16]| packet6(PROTO_TCP, &tcp, |h| h[8..24].copy_from_slice(&src));
    let to = |dst: [u8; 16]| packet6(PROTO_TCP, &tcp, |h| h[24..40].copy_from_slice(&dst));
    let loopback = 1u128.to_be_bytes();
    for src in [[0; 16], loopback, ip::mapped(PEER_V4), [0xff; 16]] {
        dropped(&from(src), DropReason::Martian);
    }
    for dst in [[0; 16], loopback, ip::mapped(OUR_V4)] {
        dropped(&to(dst), DropReason::OtherAddress);
    }
    assert!(segment_of(&to([0xff; 16])).group_dst);
    // NAT64's well-known prefix, and an address in ::/64 that is none of the special ones.
    let mut nat64 = [0; 16];
    nat64[1] = 0x64;
    assert_eq!(segment_of(&from(nat64)).key.peer, nat64);
    assert_eq!(segment_of(&from(2u128.to_be_bytes())).key.peer, 2u128.to_be_bytes());
}

/// An extension header of 8 bytes and more: what follows, and what is in it.
fn extension(next: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![next, (content.len() / 8) as u8];
    header.extend_from_slice(content);
    assert_eq!(header.len() % 8, 0);
    header
}

#[test]
fn ipv6_extension_headers() {
    let tcp = tcp_bytes(&key6());
    let chain = |first: u8, headers: &[Vec<u8>]| packet6(first, &[&headers.concat(), &tcp[..]].concat(), |_| {});
    let (hop_by_hop, routing, destination) = (0, 43, 60);
    let padding = [1, 4, 0, 0, 0, 0];
    let router_alert = [5, 2, 0, 0, 0, 0];
    let frame = chain(
        hop_by_hop,
        &[
            extension(destination, &router_alert),
            extension(routing, &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            extension(44, &[4, 0, 0, 0, 0, 0]),
            vec![destination, 0, 0, 0, 0, 0, 0, 9],
            extension(PROTO_TCP, &padding),
        ],
    );
    let segment = segment_of(&frame);
    assert_eq!((segment.tcp_at, segment.payload(&frame)), (14 + 40 + 8 + 16 + 8 + 8 + 8, &b"hello"[..]));
    assert_eq!(checksum::verify_tcp(&frame, &segment), checksum::Verdict::Valid);

    // RFC 8200 4.2: options that say "drop me", "drop me and say so", and "say so unless it went to a group".
    dropped(&chain(destination, &[extension(PROTO_TCP, &[0x45, 0, 1, 2, 0, 0])]), DropReason::NotOurs);
    dropped(&chain(destination, &[extension(PROTO_TCP, &[0x05, 9, 1, 2, 0, 0])]), DropReason::Malformed);
    assert_eq!(problem(&chain(hop_by_hop, &[extension(PROTO_TCP, &[0xc2, 4, 0, 1, 0, 0])])), (2, 42));
    assert_eq!(problem(&chain(destination, &[extension(PROTO_TCP, &[0, 0x85, 0, 1, 0, 0])])), (2, 43));
    let second = [extension(destination, &padding), extension(PROTO_TCP, &[0, 0, 0, 0xc5, 0, 0])];
    assert_eq!(problem(&chain(hop_by_hop, &second)), (2, 53));
    // Routing headers with a way to go, type 0 (RFC 5095) and others: the type is what we do not know.
    for kind in [0, 2, 4, 253] {
        assert_eq!(problem(&chain(routing, &[extension(PROTO_TCP, &[kind, 1, 0, 0, 0, 0])])), (0, 42));
    }
    // Hop-by-hop options must come first (RFC 8200 4.1).
    let late = chain(destination, &[extension(hop_by_hop, &padding), extension(PROTO_TCP, &padding)]);
    assert_eq!(problem(&late), (1, 40));
    // Authentication and ESP are nothing we know.
    assert_eq!(problem(&chain(51, &[extension(PROTO_TCP, &padding)])), (1, 6));
    assert_eq!(problem(&chain(destination, &[extension(50, &padding)])), (1, 40));
    let many = |n: usize| {
        let mut headers = vec![extension(destination, &padding); n - 1];
        headers.push(extension(PROTO_TCP, &padding));
        chain(destination, &headers)
    };
    assert!(!segment_of(&many(6)).plain);
    dropped(&many(8), DropReason::Malformed);
    // The chain runs out of the packet.
    dropped(&packet6(destination, &extension(destination, &padding), |_| {}), DropReason::Malformed);
    dropped(&packet6(destination, &[PROTO_TCP, 9, 0, 0, 0, 0, 0, 0], |_| {}), DropReason::Malformed);
}

#[test]
fn tcp_headers() {
    let change = |at: usize, value: u8| {
        let mut tcp = tcp_bytes(&key4());
        tcp[at] = value;
        packet4(PROTO_TCP, &[], &tcp, |_| {})
    };
    dropped(&change(12, 0x40), DropReason::Malformed);
    dropped(&change(12, 0x70), DropReason::Malformed);
    assert_eq!(segment_of(&change(12, 0x60)).payload_len(), 1);
    let all = segment_of(&change(13, 0xff));
    assert_eq!(format!("{:?}", all.flags), "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR");
    assert_eq!(all.sequence_len(), 7);
}

#[test]
fn a_super_frame_ends_behind_the_reach_of_16_bits() {
    let payload = vec![7; 65_535 - 40];
    let frame = frame_from_peer(&key4(), VlanTags::dot1q(1, 0).inside(2, 0), &ack(), &payload);
    let segment = segment_of(&frame);
    assert_eq!(segment.end, 22 + 65_535);
    assert_eq!(segment.payload(&frame), payload);
    assert_eq!(checksum::verify_tcp(&frame, &segment), checksum::Verdict::Valid);
}

#[test]
fn tcp_options_of_every_kind() {
    let read = |options: &[u8]| tcp_options(&[&[0; 20], options].concat());
    let syn = read(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 15]);
    assert_eq!(syn.mss, Some(1460));
    assert!(syn.sack_permitted);
    assert_eq!(syn.timestamps, Some((1, 2)));
    assert_eq!(syn.window_scale, Some(14));
    let sack = read(&[1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]);
    assert_eq!(sack.sack[..], [(1, 2), (3, 4)]);
    assert_eq!(read(&[1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6]).timestamps, Some((5, 6)));
    // Behind the end of the list nothing counts.
    assert_eq!(read(&[0, 2, 4, 5, 0xb4]), TcpOptions::default());
    // Lengths that do not belong to the kind, and an empty SACK.
    assert_eq!(read(&[2, 3, 5, 3, 2, 5, 2, 4, 3, 1, 8, 9, 0, 0, 0, 0, 0, 0, 0]), TcpOptions::default());
    // An unknown option is stepped over; one of no length, or one that runs out, ends it.
    assert_eq!(read(&[254, 4, 1, 1, 3, 3, 7]).window_scale, Some(7));
    assert_eq!(read(&[254, 0, 3, 3, 7]), TcpOptions::default());
    assert_eq!(read(&[254, 1, 3, 3, 7]), TcpOptions::default());
    assert_eq!(read(&[3, 3, 7, 8, 10, 0]).window_scale, Some(7));
    assert_eq!(read(&[3]), TcpOptions::default());
    assert_eq!(tcp_options(&[0; 5]), TcpOptions::default());
}

#[test]
fn a_plain_copy_is_what_smoltcp_can_read() {
    let with_options = packet4(PROTO_TCP, &[1, 1, 1, 0], &tcp_bytes(&key4()), |_| {});
    let with_extension =
        packet6(60, &[&extension(PROTO_TCP, &[1, 4, 0, 0, 0, 0]), &tcp_bytes(&key6())[..]].concat(), |_| {});
    for frame in [with_options, with_extension] {
        let segment = segment_of(&frame);
        let mut out = [0; 256];
        let len = plain_copy(&frame, &segment, &mut out).unwrap();
        let ethertype = if segment.key.is_v4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let copy = ethernet(ethertype, &out[..len]);
        let again = segment_of(&copy);
        assert!(again.plain);
        assert_eq!((again.key, again.payload(&copy)), (segment.key, &b"hello"[..]));
        assert_eq!(checksum::verify_tcp(&copy, &again), checksum::Verdict::Valid);
        assert_eq!(plain_copy(&frame, &segment, &mut out[..len - 1]), None);
    }
}

#[test]
fn synthetic_segments_parse() {
    for key in [key4(), key6()] {
        let mut out = [0xee; 128];
        let len = synthetic(&key, 5, Some(6), Flags::SYN, 7, &[2, 4, 5, 0xb4, 3, 3, 9], &mut out);
        let ethertype = if key.is_v4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let frame = ethernet(ethertype, &out[..len]);
        let segment = segment_of(&frame);
        assert_eq!((segment.key, segment.seq, segment.ack, segment.window), (key, 5, 6, 7));
        assert_eq!((segment.flags, segment.payload_len()), (Flags::SYN | Flags::ACK, 0));
        let options = tcp_options(segment.header(&frame));
        assert_eq!((options.mss, options.window_scale), (Some(1460), Some(9)));
        // The longest options there are, and more.
        assert!(synthetic(&key, 0, None, Flags::default(), 0, &[1; 60], &mut out) <= 100);
    }
}
