//! What routers say of a path, and what a path does without saying so.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/icmp.rs"]
mod icmp;
use common::*;
use icmp::complaint;
use khamsin_stack::CloseReason::*;
use khamsin_stack::wire::Flags;
use khamsin_stack::{Shard, ShardConfig, limits, stray};

const TOO_BIG: [u8; 2] = [3, 4];
const TOO_BIG_V6: [u8; 2] = [2, 0];
const PORT_UNREACHABLE: [u8; 2] = [3, 3];
const HOST_UNREACHABLE: [u8; 2] = [3, 1];

/// A connection with a first window of a download in flight: its frames.
fn downloading(w: &mut World) -> Vec<Vec<u8>> {
    w.establish();
    w.send(data(1, 1, b"big"));
    w.queue.tx.drain(..).collect()
}

fn hear(w: &mut World, frame: Vec<u8>) {
    w.queue.rx.push_back(frame);
    w.turn();
}

/// Sequence number and length of what is sent, in order.
fn sent(w: &mut World) -> Vec<(u32, usize)> {
    core::iter::from_fn(|| w.next()).map(|s| (s.seq, s.payload.len())).collect()
}

/// Acknowledges everything up to `from + 100_000` as it comes; returns the largest payload seen.
fn finish(w: &mut World, mut vanishes: impl FnMut(usize) -> bool) -> usize {
    let (mut next, mut largest) = (1, 0);
    let mut held = std::collections::BTreeMap::new();
    for _ in 0..20_000 {
        for (seq, len) in sent(w) {
            if len > 0 && !vanishes(len) {
                held.insert(seq, len);
                largest = largest.max(len);
            }
        }
        while let Some((&seq, &len)) = held.first_key_value()
            && seq <= next
        {
            held.pop_first();
            next = next.max(seq + len as u32);
        }
        if next == 100_001 {
            return largest;
        }
        w.queue(&ack(4, next));
        w.pass(50);
    }
    panic!("{next} of 100001 in {:?}", w.now);
}

#[test]
fn fragmentation_needed_makes_segments_smaller_and_sends_them_again_at_once() {
    let mut w = World::new();
    let frames = downloading(&mut w);
    assert_eq!(frames.len(), 10);
    hear(&mut w, complaint(TOO_BIG, 1000, &frames[0], 28));
    let again = sent(&mut w);
    // The congestion window is what it was: ten full segments' bytes, in smaller ones.
    assert_eq!(again[..2], [(1, 960), (961, 960)]);
    assert!(again.iter().map(|s| s.1).sum::<usize>() >= 14_600 - 960, "{again:?}");
    assert_eq!((w.counters().pmtu_lowered, w.counters().rto_expired, w.counters().fast_retransmits), (1, 0, 0));
    // The other nine were too long as well.
    for frame in &frames[1..] {
        hear(&mut w, complaint(TOO_BIG, 1000, frame, 28));
    }
    assert_eq!((w.counters().pmtu_lowered, w.counters().pmtu_ignored), (1, 9));
    w.queue(&ack(4, 1));
    assert_eq!(finish(&mut w, |len| len > 960), 960);
    assert_eq!(w.counters().rto_expired, 1, "the test threw away what came again");
}

#[test]
fn packet_too_big_does_the_same_for_ipv6() {
    let mut w = World::v6();
    let frames = downloading(&mut w);
    assert_eq!(frames[0].len(), 14 + 1500);
    // RFC 8201 4: no link carries less than 1280.
    hear(&mut w, complaint(TOO_BIG_V6, 1279, &frames[0], 1232));
    assert_eq!((w.counters().pmtu_ignored, sent(&mut w)), (1, vec![]));
    hear(&mut w, complaint(TOO_BIG_V6, 1280, &frames[0], 1232));
    assert_eq!(sent(&mut w)[..2], [(1, 1220), (1221, 1220)]);
}

#[test]
fn a_router_that_names_no_mtu_means_the_next_plateau() {
    let mut w = World::new();
    let frames = downloading(&mut w);
    hear(&mut w, complaint(TOO_BIG, 0, &frames[0], 28));
    let again = sent(&mut w);
    assert_eq!(again[0], (1, 1492 - 40));
    hear(&mut w, complaint(TOO_BIG, 0, &frames[0], 28));
    assert_eq!(sent(&mut w)[0], (1, 1006 - 40));
    // And nobody talks us below 552 (Linux: ip_rt_min_pmtu).
    hear(&mut w, complaint(TOO_BIG, 68, &frames[0], 28));
    assert_eq!(sent(&mut w)[0], (1, 512));
}

#[test]
fn an_error_about_what_is_not_in_flight_is_not_believed() {
    let mut w = World::new();
    let frames = downloading(&mut w);
    w.send(ack(4, 1461));
    w.queue.tx.clear();
    for (n, frame) in frames.iter().enumerate() {
        hear(&mut w, complaint(TOO_BIG, 1500, frame, 28));
        let known = n as u64;
        assert_eq!((w.counters().icmp_outside, w.counters().pmtu_ignored), (1, known), "frame {n}");
    }
    // What was never sent: its number is the first that is not in flight.
    let mut beyond = frames[9].clone();
    let seq = u32::from_be_bytes(beyond[38..42].try_into().unwrap());
    beyond[38..42].copy_from_slice(&(seq + 1_000_000).to_be_bytes());
    hear(&mut w, complaint(TOO_BIG, 600, &beyond, 28));
    assert_eq!((w.counters().icmp_outside, w.counters().pmtu_lowered), (2, 0));
    // Another flow.
    let mut other = frames[9].clone();
    other[36] ^= 1;
    hear(&mut w, complaint(TOO_BIG, 600, &other, 28));
    assert_eq!(w.counters().icmp_unknown, 1);
    // Another's address in the quote, and a checksum that is wrong: no error at all.
    let mut theirs = frames[9].clone();
    theirs[29] = 77;
    let mut foreign = complaint(TOO_BIG, 600, &theirs, 28);
    foreign[33] = 2;
    hear(&mut w, foreign);
    let mut broken = complaint(TOO_BIG, 600, &frames[9], 28);
    *broken.last_mut().unwrap() ^= 1;
    hear(&mut w, broken);
    assert_eq!((w.counters().pmtu_lowered, sent(&mut w)), (0, vec![]));
}

#[test]
fn hard_errors_end_no_connection() {
    let mut w = World::new();
    let frames = downloading(&mut w);
    for kind in [PORT_UNREACHABLE, [3, 2], [3, 13], HOST_UNREACHABLE, [11, 0], [12, 0]] {
        hear(&mut w, complaint(kind, 0, &frames[3], 28));
    }
    assert_eq!((w.counters().icmp_soft, w.shard.live()), (6, 1));
    // Source quench (RFC 6633) and redirects say nothing.
    let before = w.counters();
    hear(&mut w, complaint([4, 0], 0, &frames[3], 28));
    hear(&mut w, complaint([5, 1], 0, &frames[3], 28));
    assert_eq!((w.counters().icmp_soft, w.counters().drop_not_ours), (6, before.drop_not_ours + 2));
    assert_eq!(w.shard.live(), 1);
    w.queue(&ack(4, 1));
    finish(&mut w, |_| false);
}

/// Linux: `tcp_orphan_retries`. Nobody waits for the end of a connection that is closed on our side.
#[test]
fn errors_shorten_the_patience_with_a_silent_peer() {
    let gives_up_after = |complains: bool| {
        let mut w = World::established();
        w.send(data(1, 1, b"shut"));
        let fin = w.queue.tx.pop_back().unwrap();
        if complains {
            hear(&mut w, complaint(HOST_UNREACHABLE, 0, &fin, 28));
        }
        let start = w.now;
        while w.shard.live() > 0 {
            w.pass(1000);
        }
        assert_eq!(w.events().last(), Some(&Event::Closed(TimedOut)));
        w.now.since(start).as_secs()
    };
    let (patient, told) = (gives_up_after(false), gives_up_after(true));
    assert!(told >= 20 && 3 * told < 2 * patient, "{told} s, and {patient} s without an error");
}

#[test]
fn a_half_open_connection_ends_only_for_an_exact_quote() {
    let mut w = World::new();
    w.send(syn());
    let syn_ack = w.queue.tx.pop_front().unwrap();
    let mut near = syn_ack.clone();
    near[41] ^= 1;
    hear(&mut w, complaint(PORT_UNREACHABLE, 0, &near, 28));
    let mut other_ack = syn_ack.clone();
    other_ack[45] ^= 1;
    hear(&mut w, complaint(PORT_UNREACHABLE, 0, &other_ack, 40));
    assert_eq!((w.counters().icmp_outside, w.shard.half_open()), (2, 1));
    hear(&mut w, complaint(HOST_UNREACHABLE, 0, &syn_ack, 40));
    assert_eq!((w.counters().icmp_soft, w.shard.half_open()), (1, 1));
    hear(&mut w, complaint(PORT_UNREACHABLE, 0, &syn_ack, 40));
    assert_eq!((w.counters().icmp_half_open_ended, w.shard.half_open()), (1, 0));
}

#[test]
fn an_error_finds_the_shard_of_its_flow() {
    let links = stray::links(3, |_| {});
    let mut shards: Vec<World> = links
        .into_iter()
        .map(|link| {
            let mut w = World::new();
            w.shard = Shard::new(ShardConfig { strays: Some(link), ..config(small()) }, w.queue.caps);
            w.pass(5_000);
            w.queue.tx.clear();
            w
        })
        .collect();
    let frames = downloading(&mut shards[1]);
    shards[2].queue.rx.push_back(complaint(TOO_BIG, 1000, &frames[0], 28));
    let mut other = frames[9].clone();
    other[36] ^= 1;
    shards[2].queue.rx.push_back(complaint(TOO_BIG, 600, &other, 28));
    for _ in 0..3 {
        shards.iter_mut().for_each(|w| {
            w.turn();
        });
    }
    assert_eq!((shards[1].counters().pmtu_lowered, shards[1].counters().stray_claimed), (1, 1));
    assert_eq!(sent(&mut shards[1])[0], (1, 960));
    let unknown: Vec<_> = shards.iter().map(|w| w.counters().icmp_unknown).collect();
    assert_eq!(unknown, [0, 1, 0], "the last that was asked");
}

#[test]
fn the_next_connection_knows_and_after_ten_minutes_the_link_is_tried_again() {
    let mut w = World::new();
    let frames = downloading(&mut w);
    hear(&mut w, complaint(TOO_BIG, 1000, &frames[0], 28));
    w.queue(&ack(4, 1));
    finish(&mut w, |len| len > 960);
    w.send(ack(4, 100_001));

    w.establish_more();
    w.send(data(1, 1, b"big"));
    assert_eq!(sent(&mut w)[0], (1, 960), "from the first segment on");
    w.send(rst(4));
    assert_eq!(w.shard.live(), 1);

    // The old connection, and a new one, try the link's own size again.
    w.key.peer_port -= 1;
    w.pass(limits::PMTU_LIFE_US / 1000);
    w.establish_more();
    w.send(data(1, 1, b"big"));
    assert_eq!(sent(&mut w)[0], (1, 1460));
}

#[test]
fn a_connection_that_lives_on_tries_the_link_again() {
    let mut w = World::new();
    let frames = downloading(&mut w);
    hear(&mut w, complaint(TOO_BIG, 1000, &frames[0], 28));
    assert_eq!(finish(&mut w, |len| len > 960), 960);
    w.send(ack(4, 100_001));
    w.pass(limits::PMTU_LIFE_US / 1000);
    assert_eq!(w.counters().pmtu_raised, 0, "nothing wakes up for it");
    w.send(data(4, 100_001, b"big"));
    assert_eq!(sent(&mut w)[0], (100_001, 1460));
    assert_eq!(w.counters().pmtu_raised, 1);
}

/// RFC 4821, RFC 8899; Linux with `tcp_mtu_probing=1`.
#[test]
fn a_path_that_swallows_long_segments_is_found_out() {
    let mut w = World::new();
    downloading(&mut w);
    let start = w.now;
    assert_eq!(finish(&mut w, |len| len > 1100), 1024);
    assert_eq!((w.counters().pmtu_black_holes, w.counters().pmtu_lowered), (1, 0));
    let took = w.now.since(start).as_secs_f64();
    assert!(took < 20.0, "{took} s");
    w.send(ack(4, 100_001));
    // Others on the way to this peer need not find out.
    w.establish_more();
    w.send(data(1, 1, b"big"));
    assert_eq!(sent(&mut w)[0], (1, 1024));
}

#[test]
fn steps_go_down_until_something_gets_through() {
    let mut w = World::new();
    downloading(&mut w);
    assert_eq!(finish(&mut w, |len| len > 300), 256);
    assert_eq!(w.counters().pmtu_black_holes, 3);
    let mut w = World::v6();
    downloading(&mut w);
    assert_eq!(finish(&mut w, |len| len > 1220), 1220);
    assert_eq!(w.counters().pmtu_black_holes, 1);
}

#[test]
fn a_peer_that_was_away_gets_full_segments_again() {
    let mut w = World::new();
    downloading(&mut w);
    w.pass(60_000);
    assert_eq!(w.counters().pmtu_black_holes, 3);
    let last = sent(&mut w).pop().unwrap();
    assert_eq!(last, (1, 1460), "not even 256 bytes were answered: it is not the size");
    assert_eq!(finish(&mut w, |_| false), 1460);
    w.send(ack(4, 100_001));
    w.establish_more();
    w.send(data(1, 1, b"big"));
    assert_eq!(sent(&mut w)[0], (1, 1460), "and nothing is remembered");
}

#[test]
fn a_short_segment_is_no_suspect() {
    let mut w = World::established();
    w.send(data(1, 1, b"hello"));
    w.pass(60_000);
    assert_eq!(w.counters().pmtu_black_holes, 0);
}

#[test]
fn a_black_hole_that_is_tried_again_costs_one_timeout() {
    let mut w = World::new();
    downloading(&mut w);
    finish(&mut w, |len| len > 1100);
    w.send(ack(4, 100_001));
    w.pass(limits::PMTU_LIFE_US / 1000);
    let before = w.counters();
    w.send(data(4, 100_001, b"big"));
    assert_eq!(sent(&mut w)[0].1, 1460);
    w.queue.tx.clear();
    w.pass(500);
    assert_eq!(w.counters().pmtu_black_holes, before.pmtu_black_holes + 1);
    // Before the timeout comes a probe for the tail, which is as large as it was.
    assert_eq!(sent(&mut w)[1], (100_001, 1024), "what got through before");
}

#[test]
fn connections_follow_the_mtu_of_the_link() {
    let mut w = World::new();
    w.establish();
    w.shard.set_mtu(w.now, 1280);
    w.send(data(1, 1, b"big"));
    assert!(sent(&mut w).iter().all(|s| s.1 == 1240));
    w.shard.set_mtu(w.now, 1500);
    w.send(ack(4, 1241));
    assert_eq!(sent(&mut w)[0].1, 1460);
    // The SYN|ACK says what we take.
    w.shard.set_mtu(w.now, 1000);
    w.key.peer_port += 1;
    w.send(syn());
    let syn_ack = w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    assert_eq!(syn_ack.options[..4], [2, 4, 3, 192]);
}
