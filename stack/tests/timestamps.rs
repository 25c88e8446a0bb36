//! Timestamps (RFC 7323), cookies that use them, and ECN (RFC 3168), by hand-written segments.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use khamsin_stack::wire::Flags;
use khamsin_stack::*;

const ECE: Flags = Flags::ECE;
const CWR: Flags = Flags::CWR;

/// A connection with timestamps; its peer's clock stands at 1000. Returns our TSval as well.
fn stamped() -> (World, u32) {
    let mut w = World::new();
    w.send(with_stamp(syn(), 1000, 0));
    let syn_ack = w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    let (ours, echo) = stamps(&syn_ack).unwrap();
    assert_eq!(echo, 1000);
    w.send(with_stamp(ack(1, 1), 1000, ours));
    w.silence();
    (w, ours)
}

#[test]
fn every_segment_carries_our_clock_and_the_echo() {
    let (mut w, first) = stamped();
    w.now = w.now.plus_micros(7_000);
    w.send(with_stamp(data(1, 1, b"hello"), 1010, first));
    let reply = w.expect_data(1, 6, b"hello");
    assert_eq!(stamps(&reply), Some((first + 7, 1010)));
    w.send(with_stamp(fin(6, 6), 1011, first + 7));
    let reply = w.expect(Flags::FIN | Flags::ACK, 6, 7, b"");
    assert_eq!(stamps(&reply), Some((first + 7, 1011)));
}

#[test]
fn a_peer_without_timestamps_gets_none() {
    let mut w = World::established();
    w.send(with_stamp(data(1, 1, b"x"), 5, 0));
    assert_eq!(stamps(&w.expect_data(1, 2, b"x")), None);
}

#[test]
fn the_option_takes_its_room_from_each_segment() {
    let (mut w, ours) = stamped();
    w.send(with_stamp(data(1, 1, b"big"), 1001, ours));
    let first = w.next().unwrap();
    assert_eq!((first.payload.len(), first.options.len()), (1448, 12));
}

/// RFC 7323 5.3 R1: an old duplicate is dropped, whatever its numbers, and draws an ACK.
#[test]
fn paws_drops_old_duplicates_but_no_resets() {
    let (mut w, ours) = stamped();
    w.send(with_stamp(data(1, 1, b"one"), 2000, ours));
    w.expect_data(1, 4, b"one");
    w.now = w.now.plus_micros(200_000);
    w.send(with_stamp(data(4, 4, b"old"), 1999, ours));
    let reply = w.expect_ack(4, 4);
    assert_eq!(stamps(&reply).unwrap().1, 2000);
    assert_eq!(w.counters().gate_paws, 1);
    assert_eq!(w.events().iter().filter(|e| matches!(e, Event::Data(_))).count(), 1);
    w.send(data(4, 4, b"bare")); // without the option: taken, as Linux does
    w.expect_data(4, 8, b"bare");
    w.send(with_stamp(rst(8), 1, 0));
    assert_eq!(w.events().last(), Some(&Event::Closed(CloseReason::PeerReset)));
}

/// Bare acknowledgements change places in networks, too: those draw no answer, and what they report is heard. What is older
/// than a timeout is an old duplicate (Linux: `tcp_disordered_ack`).
#[test]
fn an_acknowledgement_that_was_overtaken_is_no_old_duplicate() {
    let (mut w, ours) = stamped();
    w.send(with_stamp(data(1, 1, b"one"), 2000, ours));
    w.expect_data(1, 4, b"one");
    w.send(with_stamp(ack(4, 4), 2010, ours));
    for (number, tsval) in [(1, 2002), (4, 2005)] {
        w.send(with_stamp(ack(4, number), tsval, ours));
        w.silence();
    }
    assert_eq!((w.counters().acks_overtaken, w.counters().gate_paws), (2, 0));
    w.send(with_stamp(ack(4, 4), 2010u32.wrapping_sub(60_000), ours));
    w.expect_ack(4, 4);
    assert_eq!((w.counters().acks_overtaken, w.counters().gate_paws), (2, 1));
}

/// RFC 7323 4.3: the echo is of the segment that the last ACK waited for, not of what came out of order behind it.
#[test]
fn out_of_order_segments_are_not_echoed() {
    let (mut w, ours) = stamped();
    w.send(with_stamp(data(4, 1, b"two"), 3000, ours));
    let dup = w.expect_ack(1, 1);
    assert_eq!(stamps(&dup).unwrap().1, 1000);
    w.send(with_stamp(data(1, 1, b"one"), 2000, ours));
    let reply = w.next().unwrap();
    assert_eq!((reply.ack, stamps(&reply).unwrap().1), (7, 2000));
}

/// RFC 4987 3.6 with Linux' use of the timestamp: a cookie keeps window scale, SACK and ECN for a peer with timestamps.
#[test]
fn a_cookie_keeps_the_options_of_a_peer_with_timestamps() {
    let mut w = World::new();
    for port in 1..=16 {
        w.key.peer_port = port;
        w.send(syn());
        w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    }
    w.key.peer_port = 40_000;
    let mut asks = with_stamp(syn(), 77, 0);
    asks.flags = asks.flags | ECE | CWR;
    w.send(asks);
    let syn_ack = w.expect(Flags::SYN | Flags::ACK | ECE, 0, 1, b"");
    assert_eq!(w.counters().cookies_sent, 1);
    let (ours, echo) = stamps(&syn_ack).unwrap();
    assert_eq!(echo, 77);
    w.send(with_stamp(ack(1, 1).window(10), 78, ours));
    w.silence();
    assert_eq!(w.counters().cookies_accepted, 1);
    // A window of 10 is 1,280 bytes with the shift of 7 that the SYN had; ten bytes would not let a hundred go.
    w.send(with_stamp(data(1, 1, &[b'x'; 100]).window(10), 79, ours));
    let echoed = w.next().unwrap();
    assert_eq!(echoed.payload.len(), 100);
    w.send(with_stamp(data(201, 101, b"hole"), 80, ours));
    let dup = w.next().unwrap();
    assert!(dup.options.len() > 12, "SACK was agreed on: {:?}", dup.options);
}

#[test]
fn ecn_is_agreed_on_and_marks_are_echoed_until_the_peer_slows_down() {
    let mut w = World::new();
    let mut asks = syn();
    asks.flags = asks.flags | ECE | CWR;
    w.send(asks);
    w.expect(Flags::SYN | Flags::ACK | ECE, 0, 1, b"");
    w.send(ack(1, 1));
    let mark = |w: &mut World, s: Seg| {
        let mut frame = w.frame(&s);
        frame[15] |= 3;
        let sum = !u16::from_be_bytes([frame[24], frame[25]]) as u32 + 3;
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        w.queue.rx.push_back(frame);
        w.turn();
    };
    mark(&mut w, data(1, 1, b"one"));
    let tos = w.queue.tx.front().unwrap()[15];
    assert_eq!(tos & 3, 2, "our text may be marked");
    w.expect(Flags::ACK | Flags::PSH | ECE, 1, 4, b"one");
    w.send(data(4, 4, b"two"));
    w.expect(Flags::ACK | Flags::PSH | ECE, 4, 7, b"two");
    let mut slowed = data(7, 7, b"three");
    slowed.flags = slowed.flags | CWR;
    w.send(slowed);
    w.expect_data(7, 12, b"three");
    assert_eq!(w.counters().drop_ip_checksum, 0);
}

#[test]
fn without_ecn_marks_mean_nothing_and_nothing_is_marked() {
    let mut w = World::established();
    w.send(data(1, 1, b"one"));
    assert_eq!(w.queue.tx.front().unwrap()[15] & 3, 0);
    w.expect_data(1, 4, b"one");
}

/// RFC 3168 6.1.1: a SYN that comes again without the bits takes the question back (Linux's clients do so where the path
/// seems to drop such SYNs).
#[test]
fn ecn_is_given_up_with_a_plain_syn() {
    let mut w = World::new();
    let mut asks = syn();
    asks.flags = asks.flags | ECE | CWR;
    w.send(asks);
    w.expect(Flags::SYN | Flags::ACK | ECE, 0, 1, b"");
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(ack(1, 1));
    w.send(data(1, 1, b"one"));
    assert_eq!(w.queue.tx.front().unwrap()[15] & 3, 0, "not marked");
    w.expect_data(1, 4, b"one");
}

/// RFC 3168 6.1.6: a probe of a closed window may not be marked, and says no CWR.
#[test]
fn window_probes_are_not_ecn_capable() {
    let mut w = World::new();
    let mut asks = syn();
    asks.flags = asks.flags | ECE | CWR;
    w.send(asks);
    w.expect(Flags::SYN | Flags::ACK | ECE, 0, 1, b"");
    w.send(ack(1, 1).window(0));
    w.send(data(1, 1, b"hello").window(0));
    w.expect_ack(1, 6);
    w.pass(2_000);
    let probe = w.queue.tx.front().expect("a probe")[15];
    assert_eq!(w.next().unwrap().payload.len(), 1);
    assert_eq!(probe & 3, 0);
}
