//! Half-open connections, limits for each source, and TIME-WAIT, by hand-written segments.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use khamsin_stack::limits::{Limits, RX_SHIFT};
use khamsin_stack::wire::Flags;

const SYN_ACK: Flags = Flags(0x12);

fn half_open() -> World {
    let mut w = World::new();
    w.send(syn());
    w.expect(SYN_ACK, 0, 1, b"");
    w
}

/// RFC 9293 3.10.7.4, first check: what lies outside the window draws an ACK, and the handshake goes on.
#[test]
fn an_ack_outside_the_window_draws_an_ack() {
    let mut w = half_open();
    w.send(ack(70_000, 1));
    // RFC 7323 2.2: no SYN, so its window is scaled, and says no more than the SYN|ACK did.
    let said = w.expect_ack(1, 1);
    assert_eq!(u32::from(said.window) << RX_SHIFT, 65_535 >> RX_SHIFT << RX_SHIFT);
    assert_eq!((w.counters().gate_outside_window, w.shard.half_open()), (1, 1));
    w.send(ack(1, 1));
    assert_eq!(w.shard.live(), 1);
}

/// RFC 5961 4.2: a SYN with other numbers may be forged; a peer that has really started over resets us first.
#[test]
fn another_syn_does_not_replace_the_first() {
    let mut w = half_open();
    w.send(seg(Flags::SYN, 5000, 0, b""));
    w.expect_ack(1, 1);
    w.send(ack(1, 1));
    assert_eq!(w.shard.live(), 1, "the honest one gets through");

    let mut w = half_open();
    w.send(seg(Flags::SYN, 5000, 0, b""));
    let challenge = w.expect_ack(1, 1);
    w.send(rst(challenge.ack));
    assert_eq!(w.shard.half_open(), 0);
    w.send(seg(Flags::SYN, 5000, 0, b""));
    w.expect(SYN_ACK, 0, 5001, b"");
}

/// RFC 5961 3.2 holds for half-open connections too.
#[test]
fn only_an_exact_reset_ends_a_handshake() {
    let mut w = half_open();
    w.send(rst(2));
    w.expect_ack(1, 1);
    w.send(rst(70_000));
    w.silence();
    assert_eq!(w.shard.half_open(), 1);
    w.send(rst(1));
    assert_eq!(w.shard.half_open(), 0);
    assert_eq!((w.counters().gate_rst_inexact, w.counters().gate_rst_outside), (1, 1));
}

/// One source cannot fill the SYN table; what it asks for beyond its share is remembered nowhere.
#[test]
fn one_source_has_a_share_of_the_syn_table() {
    let mut w = World::with(Limits { syn_backlog: 128, ..small() }, MemQueue::default());
    for port in 1..=100 {
        w.key.peer_port = port;
        w.send(syn());
    }
    assert_eq!((w.shard.half_open(), w.counters().cookies_sent), (32, 68));
    w.key = khamsin_stack::FlowKey::v4([198, 18, 0, 77], [198, 18, 0, 2], 1, 7);
    w.send(syn());
    assert_eq!(w.shard.half_open(), 33, "others have theirs");
    w.pass(200_000);
    w.key = khamsin_stack::FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 1, 7);
    w.send(syn());
    assert_eq!(w.shard.half_open(), 1, "and its own comes back");
}

#[test]
fn one_source_may_have_so_many_connections() {
    let mut w = World::with(Limits { per_source: 2, ..small() }, MemQueue::default());
    w.establish();
    // Both are half open before either is finished: the limit holds at the end too.
    let mut isns = vec![];
    for port in [1, 2] {
        w.key.peer_port = port;
        w.send(syn());
        w.expect(SYN_ACK, 0, 1, b"");
        isns.push((port, w.server_isn));
    }
    for (port, isn) in isns {
        (w.key.peer_port, w.server_isn) = (port, isn);
        w.send(ack(1, 1));
    }
    assert_eq!((w.shard.live(), w.counters().drop_source_limit), (2, 1));
    w.key.peer_port = 3;
    w.send(syn());
    w.silence();
    assert_eq!(w.counters().drop_source_limit, 2);
    w.key.peer_port = 1;
    w.send(rst(1));
    w.key.peer_port = 3;
    w.send(syn());
    w.expect(SYN_ACK, 0, 1, b"");
}

/// Ended by us first: `shut` makes the application close.
fn in_time_wait(options: impl Fn(u32) -> Vec<u8>) -> World {
    in_time_wait_with(small(), options)
}

fn in_time_wait_with(limits: Limits, options: impl Fn(u32) -> Vec<u8>) -> World {
    let mut w = World::with(limits, MemQueue::default());
    into_time_wait(&mut w, options);
    w
}

fn into_time_wait(w: &mut World, options: impl Fn(u32) -> Vec<u8>) {
    w.send(Seg { options: [syn().options, options(100)].concat(), ..syn() });
    w.expect(SYN_ACK, 0, 1, b"");
    w.send(Seg { options: options(100), ..ack(1, 1) });
    w.send(Seg { options: options(100), ..data(1, 1, b"shut") });
    w.expect(Flags::FIN | Flags::ACK, 1, 5, b"");
    w.send(Seg { options: options(101), ..fin(5, 2) });
    w.expect_ack(2, 6);
    assert_eq!(w.shard.time_wait(), 1);
}

/// RFC 6191: a later timestamp opens the flow anew even if the sequence number is an old one; an earlier one does not.
#[test]
fn time_wait_opens_again_for_a_later_timestamp() {
    let mut w = in_time_wait(|tsval| stamp(tsval, 0));
    let old = Seg { options: stamp(100, 0), ..seg(Flags::SYN, 9_000, 0, b"") };
    w.send(old);
    w.expect_ack(2, 6);
    assert_eq!((w.shard.time_wait(), w.counters().gate_paws), (1, 1));
    w.send(Seg { options: stamp(102, 0), ..seg(Flags::SYN, 3, 0, b"") });
    w.expect(SYN_ACK, 0, 4, b"");
    assert_eq!(w.shard.time_wait(), 0);
}

#[test]
fn time_wait_opens_again_for_a_later_sequence_number_only() {
    let mut w = in_time_wait(|_| vec![]);
    w.send(seg(Flags::SYN, 3, 0, b""));
    w.expect_ack(2, 6);
    w.send(seg(Flags::SYN, 6, 0, b""));
    w.expect(SYN_ACK, 0, 7, b"");
}

/// RFC 9293 3.6.1: what TIME-WAIT knows is needed until the new connection is remembered. A SYN that is turned away opens nothing.
#[test]
fn a_syn_that_is_turned_away_does_not_end_time_wait() {
    let mut w = in_time_wait_with(Limits { per_source: 1, connections: 1, ..small() }, |_| vec![]);
    let (flow, isn) = (w.key, w.server_isn);
    // Another connection takes the only place, of all and of this source.
    w.establish_more();
    let (other, other_isn) = (w.key, w.server_isn);
    (w.key, w.server_isn) = (flow, isn);
    w.send(seg(Flags::SYN, 6, 0, b""));
    w.silence();
    assert_eq!((w.shard.time_wait(), w.counters().drop_syn_shed), (1, 1));
    w.send(fin(5, 2));
    w.expect_ack(2, 6);
    (w.key, w.server_isn) = (other, other_isn);
    w.send(rst(1));
    (w.key, w.server_isn) = (flow, isn);
    w.send(seg(Flags::SYN, 6, 0, b""));
    w.expect(SYN_ACK, 0, 7, b"");
    assert_eq!((w.shard.time_wait(), w.shard.half_open(), w.shard.flows()), (0, 1, 1));

    let mut w = in_time_wait(|_| vec![]);
    w.shard.drain(w.now, &mut w.queue, &mut w.app);
    w.send(seg(Flags::SYN, 6, 0, b""));
    assert!(w.next().unwrap().flags.rst());
    assert_eq!(w.shard.time_wait(), 1);
}

/// RFC 9293 3.4.1: a new connection's numbers lie beyond the old one's, also where nothing can be remembered of it yet.
#[test]
fn a_cookie_that_opens_time_wait_again_lies_beyond_the_old_numbers() {
    for port in 0..20 {
        let mut w = World::new();
        w.key.peer_port = 5_000 + port;
        into_time_wait(&mut w, |_| vec![]);
        let (flow, old) = (w.key, w.server_isn);
        for forged in 1000..1016 {
            w.key.peer_port = forged;
            w.send(syn());
        }
        assert_eq!(w.shard.half_open(), 16);
        w.queue.tx.clear();
        w.key = flow;
        w.send(seg(Flags::SYN, 6, 0, b""));
        w.expect(SYN_ACK, 0, 7, b"");
        assert_eq!((w.counters().cookies_sent, w.shard.time_wait()), (1, 1));
        assert!(w.server_isn.wrapping_sub(old.wrapping_add(2)) as i32 > 0, "port {port}");
        // Who guesses, and who is late, finds TIME-WAIT.
        w.send(ack(7, 2));
        let new = std::mem::replace(&mut w.server_isn, old);
        w.expect_ack(2, 6);
        w.server_isn = new;
        w.send(data(7, 1, b"hello"));
        w.expect_data(1, 12, b"hello");
        assert_eq!((w.shard.live(), w.shard.time_wait(), w.counters().cookies_accepted), (1, 0, 1));
        assert_eq!(w.shard.flows(), 17);
    }
}

/// RFC 9293 3.10.7.4: a repeated FIN starts the wait anew; the rest of the time somebody must answer.
#[test]
fn a_repeated_fin_prolongs_time_wait() {
    let mut w = in_time_wait(|_| vec![]);
    w.pass(50_000);
    w.send(fin(5, 2));
    w.expect_ack(2, 6);
    w.pass(50_000);
    assert_eq!(w.shard.time_wait(), 1, "100 s after the first FIN, 50 s after the last");
    w.pass(70_000);
    assert_eq!(w.shard.time_wait(), 0);
    w.send(fin(5, 2));
    w.expect(Flags::RST, 2, 0, b"");
}
