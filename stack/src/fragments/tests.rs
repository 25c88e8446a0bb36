//! Parts in every order, and parts that lie.

use super::*;
use crate::wire::{Kind, LinkHeader, VlanTags};

const T: Instant = Instant::from_millis(5000);

fn link() -> LinkView {
    LinkView { dst: [2; 6], src: [4; 6], vlan: VlanTags::NONE, l2_len: 14 }
}

/// A part of a packet from peer `from`, with its bytes.
fn part(from: u8, id: u32, offset: usize, more: bool, bytes: &[u8]) -> (Fragment, Vec<u8>) {
    let mapped = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, last];
    let fragment = Fragment {
        peer: mapped(from),
        local: mapped(2),
        id,
        protocol: 6,
        offset: offset as u16,
        more,
        ecn: 0,
        hop_limit: 64,
        group_dst: false,
        at: 0,
        end: bytes.len() as u32,
    };
    (fragment, bytes.to_vec())
}

struct Bench {
    fragments: Fragments,
    counters: Counters,
}

impl Bench {
    fn new() -> Bench {
        Bench { fragments: Fragments::new(0), counters: Counters::default() }
    }

    fn take(&mut self, now: Instant, (part, bytes): &(Fragment, Vec<u8>)) -> Option<Vec<u8>> {
        let whole = self.fragments.take(now, &link(), part, bytes, &mut self.counters)?;
        let buffer = self.fragments.lend(&whole);
        let frame = buffer[whole.frame.clone()].to_vec();
        self.fragments.give_back(&whole, buffer);
        Some(frame)
    }
}

/// A segment's TCP bytes, long enough for `parts` parts of 64 bytes but for the last.
fn content(len: usize) -> Vec<u8> {
    let mut tcp: Vec<u8> = (0..len).map(|i| i as u8).collect();
    tcp[12] = 0x50;
    tcp
}

fn parts(from: u8, id: u32, tcp: &[u8], size: usize) -> Vec<(Fragment, Vec<u8>)> {
    let last = tcp.len().div_ceil(size) - 1;
    tcp.chunks(size).enumerate().map(|(i, bytes)| part(from, id, i * size, i < last, bytes)).collect()
}

#[test]
fn every_order_of_four_parts() {
    let tcp = content(250);
    let all = parts(1, 7, &tcp, 64);
    assert_eq!(all.len(), 4);
    let mut bench = Bench::new();
    let mut orders = 0;
    for code in 0..256usize {
        let order = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3];
        if (0..4).any(|i| !order.contains(&i)) {
            continue;
        }
        orders += 1;
        let mut frames = order.map(|i| bench.take(T, &all[i]));
        let frame = frames[3].take().unwrap();
        assert_eq!(frames, [None, None, None, None]);
        let parsed = wire::parse(&frame);
        let Kind::Tcp(segment) = parsed.kind else { panic!("{parsed:?}") };
        assert_eq!(segment.payload(&frame), &tcp[20..]);
        assert_eq!((parsed.link, segment.plain), (link(), true));
    }
    assert_eq!((orders, bench.counters.frag_reassembled), (24, 24));
    assert_eq!((bench.counters.frag_received, bench.fragments.deadline()), (96, None));
}

#[test]
fn the_longest_packet_of_each_family() {
    let mut bench = Bench::new();
    let tcp = content(65_515);
    let frame = parts(1, 7, &tcp, 1480).iter().find_map(|p| bench.take(T, p)).unwrap();
    assert_eq!(frame.len(), 14 + 65_535);
    let Kind::Tcp(segment) = wire::parse(&frame).kind else { panic!("no segment") };
    assert_eq!(segment.payload(&frame), &tcp[20..]);

    let tcp = content(65_535);
    let mut v6 = parts(1, 7, &tcp, 1448);
    for (part, _) in &mut v6 {
        (part.peer[0], part.local[0]) = (0xfd, 0xfd);
    }
    let frame = v6.iter().rev().find_map(|p| bench.take(T, p)).unwrap();
    assert_eq!(frame.len(), 14 + 40 + 65_535);
    let Kind::Tcp(segment) = wire::parse(&frame).kind else { panic!("no segment") };
    assert_eq!(segment.payload(&frame), &tcp[20..]);
}

#[test]
fn parts_that_overlap_end_the_packet() {
    let tcp = content(250);
    let all = parts(1, 7, &tcp, 64);
    // Teardrop (inside another), over an edge, and the same place with other bytes.
    let mut other = tcp[64..128].to_vec();
    other[5] ^= 1;
    let lies = [
        part(1, 7, 72, true, &[9; 16]),
        part(1, 7, 56, true, &[9; 16]),
        part(1, 7, 120, true, &[9; 64]),
        part(1, 7, 64, true, &other),
    ];
    for lie in &lies {
        let mut bench = Bench::new();
        assert_eq!(bench.take(T, &all[0]), None);
        assert_eq!(bench.take(T, &all[1]), None);
        assert_eq!(bench.take(T, lie), None);
        assert_eq!((bench.counters.frag_overlaps, bench.counters.drop_fragment), (1, 0));
        // RFC 5722: and what is still to come goes with it.
        for part in &all {
            assert_eq!(bench.take(T, part), None);
        }
        assert_eq!((bench.counters.frag_overlaps, bench.counters.drop_fragment), (1, 4));
        let later = T.plus_micros(FRAGMENT_LIFE_V4_US);
        assert_eq!(all.iter().filter(|p| bench.take(later, p).is_some()).count(), 1, "the number may be used again");
        assert_eq!(bench.counters.frag_expired, 0, "it was over before");
    }
}

#[test]
fn parts_that_disagree_about_the_end() {
    let tcp = content(250);
    let all = parts(1, 7, &tcp, 64);
    for (first, lie) in [
        (3, part(1, 7, 192, false, &[9; 60])),
        (3, part(1, 7, 256, true, &[9; 8])),
        (3, part(1, 7, 128, false, &[9; 64])),
        (2, part(1, 7, 64, false, &[9; 64])),
    ] {
        let mut bench = Bench::new();
        bench.take(T, &all[first]);
        assert_eq!(bench.take(T, &lie), None);
        assert_eq!(bench.counters.frag_overlaps, 1, "{first} {lie:?}");
    }
}

#[test]
fn a_part_that_comes_twice_does_no_harm() {
    let tcp = content(250);
    let mut bench = Bench::new();
    let mut whole = 0;
    for part in parts(1, 7, &tcp, 64).iter().take(3).flat_map(|p| [p, p]) {
        whole += usize::from(bench.take(T, part).is_some());
    }
    whole += usize::from(bench.take(T, &parts(1, 7, &tcp, 64)[3]).is_some());
    assert_eq!((whole, bench.counters.frag_duplicates, bench.counters.frag_overlaps), (1, 3, 0));
}

#[test]
fn packets_are_told_apart() {
    let (a, b, c) = (content(128), vec![0x55; 128], vec![0x66; 128]);
    let mut bench = Bench::new();
    let [pa, pb, pc] = [parts(1, 7, &a, 64), parts(1, 8, &b, 64), parts(3, 7, &c, 64)];
    for p in [&pa[0], &pb[0], &pc[0]] {
        assert_eq!(bench.take(T, p), None);
    }
    for (p, content) in [(&pb[1], &b), (&pc[1], &c), (&pa[1], &a)] {
        assert_eq!(bench.take(T, p).unwrap()[34..], content[..]);
    }
}

#[test]
fn what_does_not_come_in_time_is_given_up() {
    let tcp = content(128);
    let all = parts(1, 7, &tcp, 64);
    for (n, told_of) in [(0, vec![tcp[..64].to_vec()]), (1, vec![])] {
        let mut bench = Bench::new();
        bench.take(T, &all[n]);
        let over = T.plus_micros(30_000_000);
        assert_eq!(bench.fragments.deadline(), Some(over));
        let mut told = Vec::new();
        assert_eq!(bench.fragments.expire(T.plus_micros(29_999_999), |_, _, _| panic!("too early")), 0);
        assert_eq!(bench.fragments.expire(over, |_, _, bytes| told.push(bytes.to_vec())), 1);
        assert_eq!((told, bench.fragments.deadline()), (told_of, None));
        assert_eq!(bench.take(over, &all[1 - n]), None, "the other half is alone now");
    }
}

#[test]
fn a_part_that_comes_too_late_begins_anew() {
    let all = parts(1, 7, &content(128), 64);
    let mut bench = Bench::new();
    bench.take(T, &all[0]);
    let over = T.plus_micros(30_000_000);
    assert_eq!(bench.take(over, &all[1]), None);
    assert_eq!(bench.counters.frag_expired, 1);
    assert!(bench.take(over, &all[0]).is_some());
}

#[test]
fn beginnings_without_ends_push_each_other_out_and_nothing_grows() {
    let mut bench = Bench::new();
    for id in 0..10_000u32 {
        bench.take(T.plus_micros(u64::from(id)), &part(1, id, 0, true, &content(64)));
    }
    assert_eq!(bench.counters.frag_evicted, 10_000 - FRAGMENT_SLOTS as u64);
    assert_eq!(bench.fragments.used, FRAGMENT_SLOTS);
    assert!(bench.fragments.slots.iter().all(|s| s.buffer.len() == HEADERS_MAX + CONTENT_MAX));
    // The newest are still there.
    assert!(bench.take(T.plus_micros(10_000), &part(1, 9_999, 64, false, &[1; 8])).is_some());
    assert!(bench.take(T.plus_micros(10_000), &part(1, 9_000, 64, false, &[1; 8])).is_none());
}

#[test]
fn marks_of_congestion_are_joined() {
    let tcp = content(128);
    let with = |a: u8, b: u8| {
        let mut all = parts(1, 7, &tcp, 64);
        (all[0].0.ecn, all[1].0.ecn) = (a, b);
        let mut bench = Bench::new();
        bench.take(T, &all[1]);
        let frame = bench.take(T, &all[0])?;
        let Kind::Tcp(segment) = wire::parse(&frame).kind else { panic!("the header is sound") };
        Some(segment.congested)
    };
    assert_eq!((with(0, 0), with(2, 2), with(3, 2), with(2, 3)), (Some(false), Some(false), Some(true), Some(true)));
    // Marked, and not to be marked: RFC 3168 5.3 has it dropped.
    assert_eq!((with(0, 3), with(3, 0)), (None, None));
}

#[test]
fn bits_are_those_of_the_range() {
    for (start, end) in [(0, 1), (0, 64), (0, 65), (63, 65), (10, 10), (64, 128), (1, 200), (8000, 8192)] {
        let mut bits = [0; WORDS];
        set(&mut bits, start..end);
        let on = |i: usize| bits[i / 64] >> (i % 64) & 1 == 1;
        assert!((0..8192).all(|i| on(i) == (start..end).contains(&i)), "{start}..{end}");
        assert_eq!(count(&bits, start..end), end - start);
        assert_eq!(count(&bits, 0..8192), end - start);
    }
}

#[test]
fn tags_are_kept() {
    let tags = VlanTags::dot1q(7, 3);
    let tcp = content(128);
    let all = parts(1, 7, &tcp, 64);
    let mut bench = Bench::new();
    let tagged = LinkView { vlan: tags, l2_len: 18, ..link() };
    let (first, second) = (&all[0], &all[1]);
    assert!(bench.fragments.take(T, &tagged, &first.0, &first.1, &mut bench.counters).is_none());
    let whole = bench.fragments.take(T, &tagged, &second.0, &second.1, &mut bench.counters).unwrap();
    let buffer = bench.fragments.lend(&whole);
    assert_eq!(wire::parse(&buffer[whole.frame.clone()]).link, tagged);
    let header = LinkHeader { dst: tagged.dst, src: tagged.src, vlan: tags };
    assert_eq!(whole.frame.len(), header.l2_len() + 20 + 128);
}

/// Any parts at all: what comes out whole is what an octet-by-octet oracle has.
#[test]
fn random_parts_against_an_oracle() {
    let mut dice = 0x9e37_79b9_7f4a_7c15u64;
    let mut roll = |below: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % below
    };
    let (mut wholes, mut spoiled) = (0, 0);
    for round in 0..3000u32 {
        let mut bench = Bench::new();
        let mut held: Vec<Option<u8>> = vec![None; 512];
        let mut ends = None;
        for _ in 0..40 {
            // Mostly honest parts of one text, on a coarse grid so that they meet.
            let (start, more) = (8 * roll(8), roll(4) > 0);
            let len = if more { 8 * (1 + roll(3)) } else { 1 + roll(16) };
            let lie = u8::from(roll(60) == 0);
            let bytes: Vec<u8> = (start..start + len).map(|i| i as u8 ^ lie).collect();
            let end = start + len;
            let frame = bench.take(T, &part(1, round, start, more, &bytes));
            let held_to = held.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
            let last = if more { ends } else { Some(end) };
            let same_end = ends.is_none_or(|e| last == Some(e)) && last.is_none_or(|e| held_to.max(end) <= e);
            // The last part fills its unit.
            let units = start..end.next_multiple_of(8).min(512);
            let known = held[units.clone()].iter().any(Option::is_some);
            let all_known = units.clone().step_by(8).all(|unit| held[unit].is_some());
            let same = (start..end).all(|i| held[i] == Some(bytes[i - start]));
            if !same_end || (known && !(all_known && same)) {
                spoiled += bench.counters.frag_overlaps;
                assert_eq!((frame, bench.counters.frag_overlaps), (None, 1), "round {round}");
                break;
            }
            if known {
                assert_eq!(frame, None);
                continue;
            }
            ends = last;
            (start..end).for_each(|i| held[i] = Some(bytes[i - start]));
            let whole = ends.is_some_and(|e| held[..e].iter().all(Option::is_some));
            assert_eq!(frame.is_some(), whole, "round {round}");
            if let (Some(frame), Some(end)) = (frame, ends) {
                assert!(frame[34..].iter().copied().eq(held[..end].iter().map(|b| b.unwrap_or(0))));
                wholes += 1;
                break;
            }
        }
    }
    assert!(wholes > 50 && spoiled > 50, "{wholes} {spoiled}");
}
