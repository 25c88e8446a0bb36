//! Many connections at rest: who makes room for whom, drains, aborts, and strangers.
#![allow(clippy::unwrap_used)]

mod common;

use common::parked::*;
use common::*;
use core::time::Duration;
use khamsin_stack::CloseReason;
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::{self, Flags, Kind};

const RST_ACK: Flags = Flags(0x14);

#[test]
fn who_is_live_makes_room_for_who_comes() {
    let limits = Limits { connections: 64, live: 4, ..parks() };
    let mut w = world(limits);
    w.establish();
    for _ in 1..64 {
        w.establish_more();
    }
    assert_eq!((w.shard.live(), w.shard.parked()), (64, 60));
    // Bound for all of them.
    w.key.peer_port += 1;
    w.send(syn());
    w.silence();
    assert_eq!(w.counters().drop_syn_shed, 1);
    // Each is woken in turn, at another's expense.
    for port in 0..64 {
        w.turn_to(40_000 + port);
        w.send(data(1, 1, b"hello"));
        w.expect_data(1, 6, b"hello");
        w.send(ack(6, 6));
    }
    assert_eq!((w.shard.live(), w.shard.parked()), (64, 60));
    assert_eq!(w.counters().drop_wake_full, 0);
}

#[test]
fn who_is_silent_makes_room_before_more_memory_is_touched() {
    let mut w = world(Limits { connections: 64, live: 16, warm: 4, ..parks() });
    w.establish();
    for _ in 1..8 {
        w.establish_more();
    }
    // All of them have just spoken.
    assert_eq!((w.shard.live(), w.shard.parked()), (8, 0));
    w.pass(60);
    for _ in 0..4 {
        w.establish_more();
    }
    assert_eq!((w.shard.live(), w.shard.parked()), (12, 8));
    // Those that wake make each other room too, and the conversation goes on.
    for n in 0..12 {
        w.pass(60);
        w.turn_to(40_000 + n);
        w.send(data(1, 1, b"hello"));
        w.expect_data(1, 6, b"hello");
        w.send(ack(6, 6));
    }
    assert_eq!((w.shard.live(), w.shard.parked()), (12, 8));
}

#[test]
fn who_never_spoke_makes_room_first() {
    let mut w = world(Limits { connections: 64, live: 16, warm: 4, ..parks() });
    w.establish();
    for _ in 1..8 {
        w.establish_more();
    }
    for n in 0..4 {
        w.turn_to(40_000 + n);
        w.send(data(1, 1, b"hello"));
        w.expect_data(1, 6, b"hello");
        w.send(ack(6, 6));
    }
    w.pass(3);
    w.turn_to(40_007);
    w.establish_more();
    // Four are in conversation.
    assert_eq!((w.shard.live(), w.shard.parked()), (9, 4));
    w.establish_more();
    assert_eq!((w.shard.live(), w.shard.parked()), (10, 4));
}

#[test]
fn orphans_whose_peers_are_gone_make_room_for_who_comes() {
    let mut w = world(Limits { connections: 64, live: 4, ..parks() });
    w.establish();
    for n in 0..4 {
        if n > 0 {
            w.establish_more();
        }
        // A FIN follows, which nobody acknowledges.
        w.send(data(1, 1, b"shut"));
        w.queue.tx.clear();
    }
    w.pass(2_000);
    w.queue.tx.clear();
    w.key.peer_port += 1;
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(ack(1, 1));
    assert_eq!((w.counters().drop_accept_full, w.shard.live()), (1, 4));
    w.pass(1_500);
    w.queue.tx.clear();
    w.send(ack(1, 1));
    let c = w.counters();
    assert_eq!((c.shed_orphans, c.closed_timed_out, c.accepted), (1, 1, 5));
    let reset = w.queue.tx.pop_front().unwrap();
    assert!(matches!(wire::parse(&reset).kind, Kind::Tcp(s) if s.flags.rst() && s.key.local_port < 40_004));
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
}

/// Deadlines of very many that come at once, and whose peers have gone, leave units for who comes and speaks; they are not tried
/// in vain again and again.
#[test]
fn deadlines_do_not_take_all_the_units() {
    const ALL: u64 = 900;
    let mut w = world(Limits { connections: 1_000, live: 512, syn_backlog: 256, store_blocks: 2_000, ..parks() });
    w.establish();
    for n in 0..ALL {
        if n > 0 {
            w.establish_more();
        }
        w.send(data(1, 1, b"timer"));
        w.queue.tx.clear();
        w.send(ack(6, 1));
    }
    w.pass(1_500);
    assert_eq!(w.shard.parked() as u64, ALL);
    w.pass(1_600);
    let live = w.shard.live() - w.shard.parked();
    assert!((384..512).contains(&live), "{live} woken");
    w.queue.tx.clear();
    w.establish_more();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6));
    // All units are in use some time later, and the others are looked at ten times a second.
    w.pass(2_000);
    let (before, full) = (w.counters().drop_wake_full, w.shard.live() - w.shard.parked());
    assert_eq!(full, 512);
    w.pass(2_000);
    let tries = w.counters().drop_wake_full - before;
    assert!((1..=21).contains(&tries), "{tries} looks in two seconds");
}

#[test]
fn when_everybody_is_busy_a_segment_waits_for_its_repetition() {
    let limits = Limits { connections: 3, live: 1, ..parks() };
    let mut w = world(limits);
    w.establish();
    w.establish_more();
    assert_eq!((w.shard.live(), w.shard.parked()), (2, 1));
    // The second one is busy: what it was sent is not acknowledged.
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.turn_to(40_000);
    w.send(data(1, 1, b"world"));
    w.silence();
    assert_eq!((w.counters().drop_wake_full, w.shard.parked()), (1, 1));
    w.turn_to(40_001);
    w.send(ack(6, 6));
    w.turn_to(40_000);
    w.send(data(1, 1, b"world"));
    w.expect_data(1, 6, b"world");
    assert_eq!((w.shard.live(), w.shard.parked()), (2, 1));
}

#[test]
fn a_deadline_for_which_there_is_no_room_comes_later() {
    let limits = Limits { connections: 3, live: 1, ..parks() };
    let mut w = world(limits);
    w.establish();
    w.send(data(1, 1, b"timer"));
    w.expect_ack(1, 6);
    w.establish_more();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.now += Duration::from_millis(3_500);
    w.turn();
    assert!(w.counters().drop_wake_full >= 1);
    w.queue.tx.clear();
    w.send(ack(6, 6));
    w.turn_to(40_000);
    w.pass(1_200);
    w.expect_data(1, 6, b"ding");
}

#[test]
fn a_drain_tells_parked_sessions_too() {
    let limits = Limits { connections: 64, live: 4, ..parks() };
    let mut w = world(limits);
    w.app.leaves = true;
    w.establish();
    for _ in 1..20 {
        w.establish_more();
    }
    w.shard.drain(w.now, &mut w.queue, &mut w.app);
    // Four at a time: each ends when its peer has answered.
    let mut ended = 0;
    for _ in 0..100 {
        w.pass(20);
        let theirs: Vec<_> = w.queue.tx.drain(..).collect();
        for frame in theirs {
            let Kind::Tcp(s) = wire::parse(&frame).kind else { panic!("not TCP") };
            if s.flags.fin() {
                w.turn_to(s.key.local_port);
                w.queue(&fin(1, 2));
                ended += 1;
            }
        }
    }
    assert_eq!(ended, 20);
    assert_eq!((w.shard.live(), w.shard.parked()), (0, 0));
    let finished = |e: &&Event| **e == Event::Closed(CloseReason::Finished);
    assert_eq!(w.events().iter().filter(finished).count(), 20);
}

#[test]
fn an_abort_resets_parked_connections_and_tells_each_session_once() {
    let mut w = parked();
    w.establish_more();
    w.pass(1_500);
    assert_eq!(w.shard.parked(), 2);
    w.shard.abort_all(w.now, &mut w.queue, &mut w.app);
    assert_eq!(w.queue.tx.len(), 2);
    let drained = |e: &&Event| **e == Event::Closed(CloseReason::Drained);
    assert_eq!(w.events().iter().filter(drained).count(), 2);
    assert_eq!((w.counters().closed_drained, w.shard.flows()), (2, 0));
    w.quiescent();
}

#[test]
fn sources_are_counted_while_parked() {
    let mut w = world(Limits { per_source: 2, ..parks() });
    w.establish();
    w.establish_more();
    w.pass(1_500);
    assert_eq!(w.shard.parked(), 2);
    w.key.peer_port += 1;
    w.send(syn());
    w.silence();
    assert_eq!(w.counters().drop_source_limit, 1);
    w.key.peer_port -= 1;
    w.send(rst(1));
    w.key.peer_port += 1;
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
}

#[test]
fn panics_of_the_application_end_one_connection() {
    let mut w = established();
    w.app.panics_at = Some("park");
    w.pass(1_500);
    w.expect(RST_ACK, 1, 1, b"");
    assert_eq!((w.counters().closed_panicked, w.shard.live(), w.shard.flows()), (1, 0, 0));
    let mut w = parked();
    w.app.panics_at = Some("unpark");
    w.send(data(1, 1, b"hello"));
    w.expect(RST_ACK, 1, 1, b"");
    assert_eq!((w.counters().closed_panicked, w.shard.live(), w.shard.flows()), (1, 0, 0));
    w.quiescent();
    // Nothing of it stays: the flow may begin anew.
    w.app.panics_at = None;
    w.key.peer_port += 1;
    w.establish();
}

/// A peer whose frames take another way: the parked connection learns it from what it believes only.
#[test]
fn a_moved_peer_is_followed_after_waking() {
    let mut w = parked();
    w.peer_mac = [6; 6];
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
}

/// Each is woken a second after it was parked at most; a stranger who knows many flows wakes so many a second in all.
#[test]
fn strangers_cannot_wake_at_any_rate() {
    const FLOWS: u16 = 3_100;
    let limits = Limits { connections: 4_000, live: 3_500, syn_backlog: 256, ..parks() };
    let mut w = world(limits);
    w.establish();
    for _ in 1..FLOWS {
        w.establish_more();
    }
    w.pass(1_500);
    assert_eq!(w.shard.parked(), usize::from(FLOWS));
    for n in 0..FLOWS {
        w.turn_to(40_000 + n);
        w.send(ack(1, 9_999));
    }
    let c = w.counters();
    assert!((1_000..=3_000).contains(&c.woken), "{} woken", c.woken);
    assert_eq!(c.woken + c.drop_wake_limit, u64::from(FLOWS));
    // Who means it is not kept waiting.
    let parked = w.shard.parked();
    w.queue.tx.clear();
    for n in 0..FLOWS {
        w.turn_to(40_000 + n);
        w.send(data(1, 1, b"hello"));
        w.expect_data(1, 6, b"hello");
        w.send(ack(6, 6));
    }
    assert_eq!(w.counters().woken - c.woken, parked as u64);
}
