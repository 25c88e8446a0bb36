//! The layer below TCP: fragments, extension headers, and frames that nobody may be answered for.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/split.rs"]
mod split;
use common::*;
use khamsin_stack::limits::{FRAGMENT_LIFE_V4_US, FRAGMENT_SLOTS};
use khamsin_stack::wire::{Flags, Kind, VlanTags, checksum};
use khamsin_stack::{RxChecksum, Shard, ShardConfig, stray, wire};
use split::split;

fn deliver(w: &mut World, frames: impl IntoIterator<Item = Vec<u8>>) {
    w.queue.rx.extend(frames);
    w.turn();
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i % 23) as u8).collect()
}

#[test]
fn a_request_in_fragments_is_served() {
    for mut w in [World::new(), World::v6()] {
        w.establish();
        let request = text(1200);
        let frame = w.frame(&data(1, 1, &request));
        let mut parts = split(&frame, 256, 7);
        assert_eq!(parts.len(), 5);
        parts.reverse();
        deliver(&mut w, parts);
        w.expect_data(1, 1201, &request);
        assert_eq!((w.counters().frag_received, w.counters().frag_reassembled), (5, 1));
        // More than a frame of ours holds, and a segment that a reassembly made is as good as any other.
        let request = text(30_000);
        let frame = w.frame(&data(1201, 1201, &request));
        deliver(&mut w, split(&frame, 1480, 8));
        assert_eq!(w.counters().frag_reassembled, 2);
        let mut echoed = Vec::new();
        for _ in 0..100 {
            while let Some(s) = w.next() {
                echoed.extend(s.payload);
            }
            if echoed.len() == request.len() {
                break;
            }
            w.send(ack(31_201, 1201 + echoed.len() as u32));
        }
        assert!(echoed == request, "{} bytes", echoed.len());
    }
}

#[test]
fn a_handshake_in_fragments() {
    let mut w = World::new();
    let frame = w.frame(&syn());
    deliver(&mut w, split(&frame, 24, 1));
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
}

#[test]
fn a_bad_checksum_is_found_behind_fragments() {
    let mut w = World::established();
    let frame = w.frame(&data(1, 1, &text(600)));
    let mut parts = split(&frame, 256, 7);
    *parts[1].last_mut().unwrap() ^= 1;
    deliver(&mut w, parts);
    w.silence();
    assert_eq!((w.counters().frag_reassembled, w.counters().drop_l4_checksum), (1, 1));
}

#[test]
fn fragments_on_the_wrong_shard_find_their_flow_once_they_are_whole() {
    let mut shards: Vec<World> = stray::links(2, |_| {})
        .into_iter()
        .map(|link| {
            let mut w = World::new();
            w.shard = Shard::new(ShardConfig { strays: Some(link), ..config(small()) }, w.queue.caps);
            w.pass(5_000);
            w.queue.tx.clear();
            w
        })
        .collect();
    shards[0].establish();
    let frame = shards[0].frame(&data(1, 1, &text(5000)));
    deliver(&mut shards[1], split(&frame, 1480, 7));
    assert_eq!((shards[1].counters().frag_reassembled, shards[1].counters().stray_sent), (1, 1));
    shards[0].turn();
    let got = shards[0].next().unwrap();
    assert_eq!((got.ack, got.payload.len()), (5001, 1460));
}

#[test]
fn fragments_that_lead_nowhere_are_counted() {
    let mut w = World::established();
    let frame = w.frame(&data(1, 1, &text(600)));
    let parts = split(&frame, 256, 7);
    // Teardrop: the second part says that it lies inside the first.
    let lies = split(&w.frame(&data(1, 1, &text(600))), 128, 7);
    deliver(&mut w, [parts[0].clone(), lies[1].clone(), parts[1].clone(), parts[2].clone()]);
    // The same octets twice are no contradiction.
    assert_eq!((w.counters().frag_duplicates, w.counters().frag_reassembled), (1, 1));
    w.expect_data(1, 601, &text(600));
    let other = split(&w.frame(&data(1, 1, &[b'x'; 600])), 128, 8);
    deliver(&mut w, [split(&frame, 256, 8)[0].clone(), other[1].clone(), split(&frame, 256, 8)[1].clone()]);
    assert_eq!((w.counters().frag_overlaps, w.counters().drop_fragment), (1, 1));
    // A first part without the header of TCP.
    deliver(&mut w, [split(&frame, 16, 9)[0].clone()]);
    assert_eq!(w.counters().drop_fragment, 2);
    // To somebody else.
    let mut theirs = parts[0].clone();
    theirs[5] ^= 4;
    deliver(&mut w, [theirs]);
    assert_eq!(w.counters().drop_other_address, 1);
    w.silence();
    // Time runs out, and so do the places.
    let turn = w.turn();
    assert!(turn.deadline.is_some(), "somebody looks after them");
    w.pass(FRAGMENT_LIFE_V4_US / 1000 + 1);
    assert_eq!(w.counters().frag_expired, 0, "the spoiled one was counted before");
    for id in 100..150 {
        deliver(&mut w, [split(&frame, 256, id)[0].clone()]);
    }
    assert_eq!(w.counters().frag_evicted, 50 - FRAGMENT_SLOTS as u64);
    w.pass(FRAGMENT_LIFE_V4_US / 1000 + 1);
    assert_eq!(w.counters().frag_expired, FRAGMENT_SLOTS as u64);
}

/// RFC 1122 3.3.2, RFC 8200 4.5: who sent the first part learns that the rest did not come, and from what.
#[test]
fn senders_of_half_packets_are_told() {
    for v6 in [false, true] {
        let mut w = if v6 { World::v6() } else { World::new() };
        let frame = w.frame(&data(1, 1, &text(2000)));
        let parts = split(&frame, 1448, 0x1234);
        deliver(&mut w, [parts[0].clone()]);
        w.pass(61_000);
        assert_eq!((w.counters().frag_expired, w.counters().icmp_errors_sent), (1, 1));
        let answer = w.queue.tx.pop_front().unwrap();
        let parsed = wire::parse(&answer);
        let (Kind::Icmp4(message) | Kind::Icmp6(message)) = parsed.kind else { panic!("{parsed:?}") };
        assert!(checksum::verify_icmp(&answer, &message));
        assert_eq!((message.peer, message.local), (w.key.local, w.key.peer));
        let m = message.message(&answer);
        assert_eq!(m[..2], if v6 { [3, 1] } else { [11, 1] });
        let longest = if v6 { 1280 - 48 } else { 576 - 28 };
        assert_eq!(m.len() - 8, longest);
        assert_eq!(m[8..], parts[0][14..14 + longest], "the part, as it was sent");
        w.silence();
        // Without the first part there is nothing to quote.
        deliver(&mut w, [parts[1].clone()]);
        w.pass(61_000);
        assert_eq!((w.counters().frag_expired, w.counters().icmp_errors_sent), (2, 1));
        w.silence();
    }
}

/// An IPv6 packet whose TCP segment follows `header`, an extension header with number `kind`.
fn with_extension(frame: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
    let (front, tcp) = frame.split_at(54);
    let mut out = [front, header, tcp].concat();
    let len = (out.len() - 54) as u16;
    out[18..20].copy_from_slice(&len.to_be_bytes());
    out[20] = kind;
    out
}

#[test]
fn extension_headers_that_may_be_skipped_are_skipped() {
    let mut w = World::v6();
    w.establish();
    let mut at = 1;
    // Destination options, hop-by-hop options, an atomic fragment (RFC 6946), a routing header that has been followed.
    let headers: [(u8, &[u8]); 4] = [
        (60, &[6, 0, 1, 4, 0, 0, 0, 0]),
        (0, &[6, 0, 5, 2, 0, 0, 1, 0]),
        (44, &[6, 0, 0, 0, 1, 2, 3, 4]),
        (43, &[6, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (kind, header) in headers {
        let frame = with_extension(&w.frame(&data(at, at, b"hello")), kind, header);
        deliver(&mut w, [frame]);
        w.expect_data(at, at + 5, b"hello");
        at += 5;
    }
    assert_eq!(w.counters().frag_received, 0, "an atomic fragment is no fragment");
}

/// RFC 8200 4, RFC 4443 3.4: the sender learns what was not understood, and where it stands.
#[test]
fn problems_are_told_and_point_at_what_is_wrong() {
    let mut w = World::v6();
    w.establish();
    let plain = w.frame(&data(1, 1, b"hello"));
    let cases: [(u8, &[u8], u8, u32); 5] = [
        // A routing header with a way to go, of type 0 (RFC 5095): its type.
        (43, &[6, 0, 0, 1, 0, 0, 0, 0], 0, 42),
        // An option that wants to be known.
        (60, &[6, 0, 1, 0, 0x80, 0, 0, 0], 2, 44),
        // A header that we do not know.
        (51, &[6, 0, 0, 0, 0, 0, 0, 0], 1, 6),
        // Behind another.
        (60, &[50, 0, 1, 4, 0, 0, 0, 0], 1, 40),
        // A first fragment that is no multiple of 8 long.
        (44, &[6, 0, 0, 1, 1, 2, 3, 4], 0, 4),
    ];
    for (n, (kind, header, code, pointer)) in cases.into_iter().enumerate() {
        let frame = with_extension(&plain, kind, header);
        deliver(&mut w, [frame.clone()]);
        let answer = w.queue.tx.pop_front().unwrap();
        let parsed = wire::parse(&answer);
        let Kind::Icmp6(message) = parsed.kind else { panic!("{n}: {parsed:?}") };
        assert!(checksum::verify_icmp(&answer, &message));
        assert_eq!((message.peer, message.local), (w.key.local, w.key.peer));
        let m = message.message(&answer);
        assert_eq!((m[0], m[1], u32::from_be_bytes(m[4..8].try_into().unwrap())), (4, code, pointer), "case {n}");
        assert_eq!(m[8..], frame[14..], "case {n}");
        w.silence();
    }
    assert_eq!(w.counters().icmp_errors_sent, 5);
    // Not for a group, not about an error, and not without limit.
    let mut group = with_extension(&plain, 51, &[6, 0, 0, 0, 0, 0, 0, 0]);
    group[0] = 0x33;
    let mut error = with_extension(&plain, 60, &[58, 0, 1, 0, 0x80, 0, 0, 0]);
    error[62] = 1;
    deliver(&mut w, [group, error.clone()]);
    w.silence();
    error[62] = 128;
    for _ in 0..200 {
        deliver(&mut w, [error.clone()]);
    }
    assert_eq!((w.counters().icmp_errors_sent, w.counters().icmp_limited), (100, 105));
    let long = with_extension(&w.frame(&data(1, 1, &text(1400))), 51, &[6, 0, 0, 0, 0, 0, 0, 0]);
    w.queue.tx.clear();
    w.pass(1000);
    deliver(&mut w, [long]);
    assert_eq!(w.queue.tx.pop_front().unwrap().len(), 14 + 1280, "what every link carries");
}

/// RFC 6980: neighbour discovery in fragments is nobody's honest work. A ping may be as long as it likes.
#[test]
fn fragmented_pings_are_answered_and_fragmented_discovery_is_not() {
    let mut w = World::v6();
    let icmp6 = |body: &[u8], hop_limit: u8| {
        let (peer, local) = (w.key.peer, w.key.local);
        let mut frame = w.frame(&ack(1, 1))[..54].to_vec();
        frame[18..20].copy_from_slice(&(body.len() as u16).to_be_bytes());
        (frame[20], frame[21]) = (58, hop_limit);
        let mut body = body.to_vec();
        let pseudo = [&peer[..], &local, &[0, 0], &(body.len() as u16).to_be_bytes(), &[0, 58]].concat();
        let sum = u64::from(checksum::data(&pseudo)) + u64::from(checksum::data(&body));
        body[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        frame.extend(body);
        frame
    };
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend(w.key.local);
    solicitation.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    let ping = [&[128, 0, 0, 0, 1, 2, 3, 4][..], &text(600)].concat();
    let (ask, ping) = (icmp6(&solicitation, 255), icmp6(&ping, 64));
    deliver(&mut w, [ask.clone()]);
    assert_eq!(w.counters().nd_replies, 1, "in one piece it is answered");
    deliver(&mut w, split(&ask, 16, 7));
    assert_eq!((w.counters().frag_reassembled, w.counters().nd_replies, w.counters().drop_malformed), (1, 1, 1));
    deliver(&mut w, split(&ping, 256, 8));
    assert_eq!((w.counters().frag_reassembled, w.counters().echo_replies), (2, 1));
}

/// RFC 1122 3.2.2.6, and what Linux does: a ping longer than the link comes back in fragments.
#[test]
fn a_long_ping_comes_back_in_parts() {
    for v6 in [false, true] {
        let mut w = if v6 { World::v6() } else { World::new() };
        let (kind, protocol, l3) = if v6 { (128, 58, 40) } else { (8, 1, 20) };
        for len in [1480, 3000, 65_000] {
            let mut body = [&[kind, 0, 0, 0, 1, 2, 3, 4][..], &text(len)].concat();
            let mut frame = w.frame(&ack(1, 1))[..14 + l3].to_vec();
            let size = (body.len() as u16).to_be_bytes();
            if v6 {
                frame[18..20].copy_from_slice(&size);
            }
            frame[if v6 { 20 } else { 23 }] = protocol;
            let pseudo = [&frame[22..14 + l3], &[0, 0], &size, &[0, protocol]].concat();
            let pseudo = if v6 { u64::from(checksum::data(&pseudo)) } else { 0 };
            let sum = !checksum::fold(pseudo + u64::from(checksum::data(&body)));
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            deliver(&mut w, split(&[&frame[..], &body].concat(), 1448, 9));
            let parts: Vec<_> = w.queue.tx.drain(..).collect();
            assert!(parts.iter().all(|p| p.len() <= 1514), "{len}");
            let mut content = vec![0; len + 8];
            let mut filled = 0;
            for part in &parts {
                let Kind::Fragment(f) = wire::parse(part).kind else { panic!("{:?}", wire::parse(part)) };
                let secret = u32::from_le_bytes(*b"a se");
                assert!(
                    !v6 || f.id.wrapping_sub(secret) > 1000,
                    "the number gives away the key of our initial numbers"
                );
                let from = usize::from(f.offset);
                content[from..from + f.bytes(part).len()].copy_from_slice(f.bytes(part));
                filled += f.bytes(part).len();
                assert_eq!(f.more, from + f.bytes(part).len() < len + 8);
            }
            assert_eq!((filled, content[0]), (len + 8, if v6 { 129 } else { 0 }));
            assert!(content[8..] == text(len), "all of its data comes back");
        }
        assert_eq!(w.counters().echo_replies, 3);
        assert!(w.counters().frag_sent >= 49);
        assert_eq!(w.queue.out, 0);
    }
}

#[test]
fn nobody_is_answered_for_a_group() {
    for v6 in [false, true] {
        let mut w = if v6 { World::v6() } else { World::new() };
        let group: Vec<Vec<u8>> = if v6 {
            vec!["ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec()]
        } else {
            [[255; 4], [198, 18, 0, 255], [224, 0, 0, 1]].map(Vec::from).to_vec()
        };
        let (source_at, target_at) = if v6 { (22, 38) } else { (26, 30) };
        let mend = |frame: &mut Vec<u8>| {
            if !v6 {
                frame[24..26].fill(0);
                let sum = !checksum::data(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            // TCP's own sum counts the addresses.
            let tcp_at = if v6 { 54 } else { 34 };
            let (front, tcp) = frame.split_at_mut(tcp_at);
            tcp[16..18].fill(0);
            let pseudo = u64::from(checksum::data(&front[source_at..])) + 6 + tcp.len() as u64;
            let sum = !checksum::fold(pseudo + u64::from(checksum::data(tcp)));
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        };
        let mut frames = Vec::new();
        for s in [syn(), ack(9, 9), fin(9, 9)] {
            let plain = w.frame(&s);
            let mut control = plain.clone();
            mend(&mut control);
            assert_eq!(control, plain);
            // To everybody on the link, to a group on the link.
            for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
                let mut frame = plain.clone();
                frame[..6].copy_from_slice(&mac);
                frames.push(frame);
            }
            for address in &group {
                for at in [source_at, target_at] {
                    let mut frame = plain.clone();
                    frame[at..at + address.len()].copy_from_slice(address);
                    mend(&mut frame);
                    frames.push(frame);
                }
            }
        }
        let n = frames.len() as u64;
        for frame in frames {
            deliver(&mut w, [frame]);
            w.silence();
        }
        let c = w.counters();
        assert_eq!(c.drop_other_address + c.drop_martian, n, "{c:?}");
        assert_eq!((c.drop_l4_checksum, c.syn_received, c.rst_sent), (0, 0, 0));
    }
}

/// RFC 9293 3.10.7.1: a segment without ACK is answered with RST,ACK, which acknowledges all of it.
#[test]
fn a_fin_to_a_closed_port_is_refused_by_the_book() {
    let mut w = World::new();
    w.key.local_port = 9;
    w.send(seg(Flags::FIN, 100, 0, b""));
    let reset = w.next().unwrap();
    assert_eq!((reset.flags, reset.seq, reset.ack), (Flags::RST | Flags::ACK, 0, 101));
    w.send(seg(Flags::FIN, 100, 0, b"abc"));
    assert_eq!(w.next().unwrap().ack, 104);
    w.send(seg(Flags::FIN | Flags::ACK, 100, 77, b""));
    let reset = w.next().unwrap();
    assert_eq!((reset.flags, reset.seq), (Flags::RST, 77));
}

#[test]
fn priority_tags_are_mirrored() {
    let mut w = World::new();
    w.tags = VlanTags::dot1q(0, 5);
    w.establish();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
}

/// Strict where frames come from hardware, tolerant where the driver says that sums may be partial, and no question where
/// it knows.
#[test]
fn checksums_are_judged_by_what_the_driver_promises() {
    for (partial_ok, known, taken) in [
        (false, RxChecksum::Unknown, false),
        (true, RxChecksum::Unknown, true),
        (false, RxChecksum::Partial, true),
        (false, RxChecksum::Valid, true),
    ] {
        let mut queue = MemQueue::default();
        queue.caps.rx_partial_checksums = partial_ok;
        let mut w = World::with(small(), queue);
        w.establish();
        let mut frame = w.frame(&data(1, 1, b"hello"));
        let tcp_len = frame.len() - 34;
        let pseudo = checksum::tcp_pseudo(&w.key, tcp_len as u32);
        frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
        w.queue.known = known;
        deliver(&mut w, [frame.clone()]);
        assert_eq!((w.counters().rx_payload_bytes, w.counters().drop_l4_checksum), if taken { (5, 0) } else { (0, 1) });
        // What is neither the sum nor the pseudo-header's is wrong everywhere.
        if known == RxChecksum::Unknown {
            frame[50] ^= 0x55;
            deliver(&mut w, [frame]);
            assert_eq!(w.counters().drop_l4_checksum, if taken { 1 } else { 2 });
        }
    }
}
