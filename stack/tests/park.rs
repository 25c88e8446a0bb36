//! Connections at rest: parked, woken, and nobody notices.
#![allow(clippy::unwrap_used)]

mod common;

use common::parked::*;
use common::*;
use core::time::Duration;
use khamsin_stack::wire::{Flags, VlanTags};
use khamsin_stack::{CloseReason, Patience};

const RST_ACK: Flags = Flags(0x14);

#[test]
fn a_second_of_silence_parks_and_the_next_segment_wakes() {
    let mut w = established();
    w.pass(900);
    assert_eq!(w.shard.parked(), 0);
    settle(&mut w, 1);
    for round in 0..3 {
        let at = 1 + 5 * round;
        w.send(data(at, at, b"hello"));
        w.expect_data(at, at + 5, b"hello");
        assert_eq!((w.shard.parked(), w.shard.live()), (0, 1));
        w.send(ack(at + 5, at + 5));
        settle(&mut w, 1);
    }
    let c = w.counters();
    assert_eq!((c.parked, c.woken, c.rx_payload_bytes), (4, 3, 15));
    w.send(fin(16, 16));
    w.expect(Flags::ACK | Flags::FIN, 16, 17, b"");
    w.send(ack(17, 17));
    assert_eq!(w.events().last(), Some(&Event::Closed(CloseReason::Finished)));
    assert_eq!(w.events().iter().filter(|e| matches!(e, Event::Open | Event::Closed(_))).count(), 2);
    w.quiescent();
}

#[test]
fn ipv6_does_the_same() {
    let mut w = world(parks());
    w.key = World::v6().key;
    w.establish();
    settle(&mut w, 1);
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6));
    settle(&mut w, 1);
}

#[test]
fn behind_a_vlan_tag_too() {
    let mut w = world(parks());
    w.tags = VlanTags::dot1q(100, 3);
    w.establish();
    settle(&mut w, 1);
    // A timer wakes it: the tag is remembered, not taken from a frame.
    w.shard.wake_all();
    w.pass(1);
    assert_eq!(w.counters().woken, 1);
    w.send(data(1, 1, b"timer"));
    w.expect_ack(1, 6);
    settle(&mut w, 1);
    w.pass(3_000);
    w.expect_data(1, 6, b"ding");
}

#[test]
fn two_tags_stay_awake() {
    let mut w = world(parks());
    w.tags = VlanTags::dot1q(100, 3).inside(7, 0);
    w.establish();
    w.pass(5_000);
    assert_eq!((w.shard.parked(), w.shard.live()), (0, 1));
}

#[test]
fn who_has_something_going_on_stays_awake() {
    // Unacknowledged.
    let mut w = established();
    w.send(data(1, 1, b"hello"));
    w.pass(5_000);
    assert_eq!(w.shard.parked(), 0);
    // Unread.
    let mut w = established();
    w.app.deaf = true;
    w.send(data(1, 1, b"hello"));
    w.pass(5_000);
    assert_eq!(w.shard.parked(), 0);
    // A hole.
    let mut w = established();
    w.send(data(6, 1, b"world"));
    w.pass(5_000);
    assert_eq!(w.shard.parked(), 0);
    // Half closed, either way.
    let mut w = established();
    w.app.stays = true;
    w.send(fin(1, 1));
    w.pass(5_000);
    assert_eq!(w.shard.parked(), 0);
    let mut w = established();
    w.send(data(1, 1, b"shut"));
    w.send(ack(5, 2));
    w.pass(5_000);
    assert_eq!(w.shard.parked(), 0);
}

#[test]
fn an_application_that_says_no_is_asked_again_ever_more_seldom() {
    let mut w = established();
    w.app.parks = false;
    w.pass(3_600_000);
    assert_eq!(w.shard.parked(), 0);
    let asked = w.app.asked.get();
    assert!((8..=14).contains(&asked), "{asked} times in an hour");
    w.app.parks = true;
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6));
    settle(&mut w, 1);
}

#[test]
fn without_the_limit_nobody_is_parked() {
    let mut w = world(small());
    w.establish();
    w.pass(3_600_000);
    assert_eq!((w.shard.parked(), w.app.asked.get()), (0, 0));
}

/// RFC 5961 3.2: parked or not.
#[test]
fn a_reset_must_be_exact() {
    let mut w = parked();
    w.send(rst(0));
    w.send(rst(70_000));
    assert_eq!((w.counters().gate_rst_outside, w.shard.parked()), (2, 1));
    w.send(rst(10));
    w.expect_ack(1, 1);
    assert_eq!((w.counters().gate_rst_inexact, w.counters().woken), (1, 1));
    w.pass(5_000);
    assert_eq!(w.shard.parked(), 1);
    w.send(rst(1));
    assert_eq!(w.events(), [Event::Open, Event::Closed(CloseReason::PeerReset)]);
    assert_eq!(w.counters().closed_reset, 1);
    w.quiescent();
    assert_eq!(w.shard.flows(), 0);
}

#[test]
fn what_the_gate_stops_is_stopped_and_answered_as_ever() {
    // A SYN, an ACK of what was never sent, something far away, something old and long acknowledged.
    for odd in [syn(), ack(1, 9_999), data(1 << 29, 1, b"x"), Seg { flags: Flags::SYN, ..data(1, 0, b"") }] {
        let mut w = parked();
        w.send(odd.clone());
        w.expect_ack(1, 1);
        w.silence();
        assert_eq!((w.counters().challenge_acks, w.counters().woken), (1, 1), "{odd:?}");
        w.send(data(1, 1, b"hello"));
        w.expect_data(1, 6, b"hello");
    }
    let mut w = parked();
    w.send(Seg { flags: Flags(0), ..data(1, 0, b"x") });
    w.silence();
    assert_eq!((w.counters().gate_no_ack, w.shard.parked()), (1, 1));
}

/// RFC 9293 3.8.4: what asks whether we live is answered, and wakes nobody.
#[test]
fn a_keep_alive_probe_is_answered_from_the_record() {
    let mut w = parked();
    for _ in 0..5 {
        w.send(ack(0, 1));
        w.expect_ack(1, 1);
        w.silence();
    }
    assert_eq!((w.counters().parked_probes, w.counters().woken, w.shard.parked()), (5, 0, 1));
    // One with the usual octet of garbage takes the long way.
    w.send(data(0, 1, b"\0"));
    let answer = w.next().unwrap();
    assert_eq!((answer.flags, answer.seq, answer.ack), (Flags::ACK, 1, 1));
    assert_eq!(w.counters().woken, 1);
}

#[test]
fn our_own_keep_alive_comes_in_time_and_a_dead_peer_is_given_up() {
    let mut w = world(parks());
    w.app.patience = Patience { keep_alive: Some(Duration::from_secs(7200)), ..Patience::default() };
    w.establish();
    settle(&mut w, 1);
    w.pass(7_198_000);
    w.silence();
    w.pass(2_000);
    w.expect_ack(0, 1);
    w.send(ack(1, 1));
    settle(&mut w, 1);
    w.pass(7_200_000 + 9 * 75_000 + 1_000);
    for _ in 0..9 {
        w.expect_ack(0, 1);
    }
    w.expect(RST_ACK, 1, 1, b"");
    assert_eq!(w.events().last(), Some(&Event::Closed(CloseReason::TimedOut)));
    w.quiescent();
}

#[test]
fn the_applications_deadline_comes_in_time() {
    let mut w = established();
    w.send(data(1, 1, b"timer"));
    w.expect_ack(1, 6);
    settle(&mut w, 1);
    w.pass(1_400);
    w.silence();
    assert_eq!(w.shard.parked(), 1);
    w.pass(200);
    w.expect_data(1, 6, b"ding");
    w.send(ack(6, 5));
    assert_eq!(w.events().iter().filter(|e| **e == Event::Expired).count(), 1);
    settle(&mut w, 1);
    w.pass(3_600_000);
    assert_eq!(w.shard.parked(), 1, "it was due once");
}

#[test]
fn twenty_rounds_lose_no_byte() {
    let mut w = established();
    let mut at = 1u32;
    let chunk = vec![b'z'; 1_000];
    for _ in 0..20 {
        w.send(data(at, at, &chunk));
        w.expect_data(at, at.wrapping_add(1_000), &chunk);
        at += 1_000;
        w.send(ack(at, at));
        settle(&mut w, 1);
    }
    assert_eq!((w.counters().parked, w.counters().woken), (20, 19));
}

/// A repeated segment whose acknowledgement was lost, and one that is merely late.
#[test]
fn an_old_duplicate_is_acknowledged_and_not_delivered_twice() {
    let mut w = established();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6));
    settle(&mut w, 1);
    w.send(data(1, 1, b"hello"));
    let answer = w.next().unwrap();
    assert_eq!((answer.seq, answer.ack), (6, 6));
    assert_eq!(w.events(), [Event::Open, Event::Data(b"hello".to_vec())]);
    settle(&mut w, 1);
    // Its end is new.
    w.send(data(4, 6, b"lo, you"));
    w.expect_data(6, 11, b", you");
}

#[test]
fn early_text_wakes_and_is_held() {
    let mut w = parked();
    w.send(data(6, 1, b"world"));
    let answer = w.expect_ack(1, 1);
    assert_eq!(answer.options[..4], [1, 1, 5, 10], "SACK is still permitted");
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 11, b"helloworld");
}

/// The peer may use the window it was told, to the last byte, and is told no less than before.
#[test]
fn windows_outlive_the_pause() {
    let mut w = established();
    w.send(data(1, 1, b"hello"));
    let before = w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6).window(77));
    settle(&mut w, 1);
    w.send(data(6, 6, b"again").window(77));
    let after = w.expect_data(6, 11, b"again");
    let edge = |s: &Seg| u64::from(s.ack) + (u64::from(s.window) << 7);
    assert!(edge(&after) >= edge(&before));
    // 77 << 7 bytes at most are sent to it.
    w.send(ack(11, 11).window(77));
    settle(&mut w, 1);
    w.send(data(11, 11, b"big").window(77));
    let mut sent = 0;
    while let Some(s) = w.next() {
        sent += s.payload.len();
    }
    assert!(sent > 77 << 6 && sent <= 77 << 7, "{sent}");
}

#[test]
fn unscaled_windows_too() {
    let mut w = world(parks());
    w.send(Seg { options: vec![2, 4, 5, 0xb4, 4, 2, 1, 1], ..syn() });
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(ack(1, 1).window(5_000));
    settle(&mut w, 1);
    w.send(data(1, 1, b"big").window(5_000));
    let (mut sent, mut window) = (0, 0);
    while let Some(s) = w.next() {
        sent += s.payload.len();
        window = s.window;
    }
    assert!(sent > 2_500 && sent <= 5_000, "{sent}");
    assert!(window > 60_000, "{window}");
}

#[test]
fn timestamps_go_on_and_guard_against_old_duplicates() {
    let mut w = world(parks());
    let mut opening = syn();
    opening.options.extend([8, 10, 0, 0, 3, 232, 0, 0, 0, 0, 1, 1]);
    w.send(opening);
    let (first, echo) = {
        let s = w.next().unwrap();
        let at = s.options.windows(2).position(|o| o == [8, 10]).unwrap();
        let word = |i: usize| u32::from_be_bytes(*s.options[at + i..].first_chunk().unwrap());
        (word(2), word(6))
    };
    assert_eq!(echo, 1_000);
    w.send(with_stamp(ack(1, 1), 1_001, first));
    settle(&mut w, 1);
    // The clock went on, from the same offset; the newest of the peer's is still known.
    w.send(with_stamp(ack(0, 1), 1_002, first));
    let (second, echo) = stamps(&w.expect_ack(1, 1)).unwrap();
    assert_eq!((second.wrapping_sub(first), echo), (1_500, 1_001));
    // PAWS.
    w.send(with_stamp(data(1, 1, b"old"), 900, first));
    w.expect_ack(1, 1);
    assert_eq!((w.counters().gate_paws, w.events().len()), (1, 1));
    w.send(with_stamp(data(1, 1, b"hello"), 3_000, first));
    let (_, echo) = stamps(&w.expect_data(1, 6, b"hello")).unwrap();
    assert_eq!(echo, 3_000);
    w.send(with_stamp(ack(6, 6), 3_001, second));
    settle(&mut w, 1);
    // RFC 7323 5.5: after 24 days nothing is old.
    w.pass(25 * 24 * 3_600_000);
    w.send(with_stamp(data(6, 6, b"again"), 5, second));
    let (_, echo) = stamps(&w.expect_data(6, 11, b"again")).unwrap();
    assert_eq!((echo, w.counters().gate_paws), (5, 1));
}

/// What the connection learnt of its path: it sends on with the window it had, as far as the pause leaves it.
#[test]
fn the_congestion_window_is_carried() {
    let flights = |parks: bool| {
        let mut w = established();
        w.app.parks = parks;
        let (mut seq, mut acked, mut flight) = (1, 1, Vec::new());
        for _ in 0..5 {
            w.send(data(seq, acked, b"big"));
            seq += 3;
            let end = acked + 100_000;
            let mut first = 0;
            while acked < end {
                w.pass(30);
                let before = acked;
                while let Some(s) = w.next() {
                    acked = acked.max(s.seq + s.payload.len() as u32);
                }
                first = if first == 0 { acked - before } else { first };
                w.send(ack(seq, acked));
            }
            flight.push(first);
            w.pass(1_100);
            assert_eq!(w.shard.parked(), usize::from(parks));
        }
        flight
    };
    let (awake, parked) = (flights(false), flights(true));
    assert_eq!(parked.len(), 5);
    for (a, b) in awake.iter().zip(&parked) {
        assert!(b >= a && *b <= 2 * a, "first flights: {awake:?} awake, {parked:?} parked");
    }
}
