//! When the application is called, and when it must not be.
#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use khamsin_stack::limits::Limits;
use khamsin_stack::queue::BURST;
use khamsin_stack::wire::Flags;
use std::time::Duration;

/// A world with `blocks` of send store, and a connection whose peer asked for 100,000 bytes and acknowledges none.
fn hungry(blocks: usize) -> World {
    let mut w = World::with(Limits { store_blocks: blocks, ..small() }, MemQueue::default());
    w.establish();
    w.send(data(1, 1, b"big"));
    w.queue.tx.clear();
    w
}

/// A second connection, on the next port, for which no block is left.
fn starve(w: &mut World) -> u32 {
    let first = w.server_isn;
    w.key.peer_port += 1;
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(data(1, 1, b"big"));
    first
}

/// The first connection goes away, and with it its blocks.
fn feed(w: &mut World, first: u32) {
    let second = std::mem::replace(&mut w.server_isn, first);
    w.key.peer_port -= 1;
    w.send(rst(4));
    w.queue.tx.clear();
    w.key.peer_port += 1;
    w.server_isn = second;
}

#[test]
fn who_waits_for_blocks_is_asked_again_by_ready_and_not_by_expired() {
    let mut w = hungry(1);
    let first = starve(&mut w);
    w.queue.tx.clear();
    // More than one retry passes in vain.
    w.pass(100);
    feed(&mut w, first);
    w.pass(700);
    assert_eq!(w.next().expect("data").payload[0], big_byte(0));
    assert!(!w.events().contains(&Event::Expired), "nobody set a deadline: {:?}", w.events());
}

#[test]
fn waiting_for_blocks_leaves_the_applications_deadline_alone() {
    let mut w = World::with(Limits { store_blocks: 1, ..small() }, MemQueue::default());
    w.establish();
    w.send(data(1, 1, b"timer"));
    w.queue.tx.clear();
    let first = w.server_isn;
    w.establish_more();
    w.send(data(1, 1, b"big"));
    // The second holds the only block; the first wants one.
    w.key.peer_port -= 1;
    w.server_isn = first;
    w.send(data(6, 1, b"big"));
    w.pass(2_900);
    assert!(!w.events().contains(&Event::Expired), "{:?}", w.events());
    w.pass(1_000);
    assert_eq!(w.events().iter().filter(|e| **e == Event::Expired).count(), 1);
}

/// An application with more to say hears of room while the peer still has something to acknowledge: else each fill of the
/// store would cost a round trip in which nothing is on its way.
#[test]
fn room_is_announced_before_the_store_is_empty() {
    for asks_first in [false, true] {
        // Room for 64 KiB: a quarter of what a store may hold at most.
        let mut w = World::with(Limits { store_blocks: 32, ..small() }, MemQueue::default());
        w.app.asks_first = asks_first;
        w.establish();
        w.send(data(1, 1, b"big"));
        let mut end = 1;
        loop {
            // All but the last segment is acknowledged.
            let mut last = None;
            while let Some(s) = w.next() {
                end = s.seq + s.payload.len() as u32;
                last = Some(s.seq);
            }
            let Some(seq) = last else { break };
            w.send(ack(4, seq));
        }
        assert!(end > 90_000, "asks first: {asks_first}, {end}");
    }
}

/// A loop that was held up finds ACKs in the ring for what its timers would take for lost.
#[test]
fn timers_wait_until_the_ring_has_been_read() {
    let mut w = World::established();
    w.send(data(1, 1, b"big"));
    assert_eq!(w.queue.tx.len(), 10);
    w.queue.tx.clear();
    w.now += Duration::from_secs(3);
    w.queue.rx.extend(vec![vec![0xff; 60]; 3 * BURST]);
    w.queue(&ack(4, 14_601));
    for _ in 0..3 {
        assert!(w.turn().busy);
        w.silence();
    }
    w.turn();
    assert_eq!(w.next().expect("new data").seq, 14_601);
    assert_eq!(w.counters().retransmitted, 0);
}

/// A ring that is never empty does not stop them.
#[test]
fn timers_do_not_wait_for_ever() {
    let mut w = World::established();
    w.send(data(1, 1, b"big"));
    w.queue.tx.clear();
    w.now += Duration::from_secs(3);
    w.queue.rx.extend(vec![vec![0xff; 60]; 40 * BURST]);
    let turns = (1..=40).find(|_| {
        w.turn();
        !w.queue.tx.is_empty()
    });
    assert_eq!(turns, Some(32));
}

/// `ready` is level-triggered after `expired` too.
#[test]
fn what_expired_left_unread_is_offered_again() {
    let mut w = World::established();
    w.app.sips = true;
    w.send(data(1, 1, b"hello"));
    w.pass(100);
    assert!(w.events().iter().all(|e| !matches!(e, Event::Data(_))), "{:?}", w.events());
    w.pass(1_000);
    assert_eq!(w.events(), [Event::Open, Event::Expired, Event::Data(b"h".to_vec()), Event::Data(b"ello".to_vec())]);
}

/// Who looks at the room there is while others hold the blocks is not called for ever at a high rate.
#[test]
fn a_look_at_scarce_room_keeps_nobody_awake() {
    let mut w = hungry(64);
    w.establish_more();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6));
    let before = w.app.calls;
    w.pass(10_000);
    assert!(w.app.calls - before < 25, "{}", w.app.calls - before);
}
