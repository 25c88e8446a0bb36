//! Handshakes under pressure: a full SYN table, and a SYN that two shards saw.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::Flags;
use khamsin_stack::{Shard, ShardConfig, stray};

/// Forged SYNs until the SYN table is full.
fn flooded(limits: Limits) -> World {
    let mut w = World::with(limits, MemQueue::default());
    fill(&mut w);
    w
}

fn fill(w: &mut World) {
    let honest = w.key;
    for port in 1000..1100 {
        w.key.peer_port = port;
        w.queue(&syn());
        w.turn();
    }
    w.queue.tx.clear();
    w.key = honest;
}

/// RFC 4987 3.6: a flood takes the window scale and SACK from an honest peer, but not its connection.
#[test]
fn a_peer_gets_in_while_the_syn_table_is_full() {
    let mut w = flooded(small());
    w.send(syn());
    let answer = w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    assert_eq!(answer.options, [2, 4, 5, 0xb4], "nothing is promised that a cookie cannot keep");
    w.send(ack(2, 1));
    w.silence();
    w.send(ack(1, 2));
    w.silence();
    assert_eq!((w.shard.live(), w.shard.half_open(), w.counters().drop_cookie_awaited), (0, 16, 2));
    w.send(ack(1, 1));
    w.silence();
    w.send(data(1, 1, b"big").window(1500));
    let first = w.next().unwrap();
    assert_eq!((first.seq, first.ack, first.payload.len()), (1, 4, 1460));
    w.silence(); // the window is not scaled
    assert_eq!((w.shard.live(), w.counters().cookies_accepted), (1, 1));
    // Its SYN again is one of a live connection.
    w.pass(200);
    w.queue.tx.clear();
    w.send(syn());
    w.expect_ack(1461, 4);
}

/// What the peer sends behind a first segment that is lost does not verify, and the first one comes again.
#[test]
fn a_lost_first_segment_costs_a_peer_with_a_cookie_no_connection() {
    let mut w = flooded(small());
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(data(6, 1, b" world"));
    w.send(fin(12, 1));
    w.silence();
    assert_eq!((w.counters().drop_cookie_awaited, w.shard.live()), (2, 0));
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(data(6, 6, b" world"));
    w.expect_data(6, 12, b" world");
    // The flow awaits none any more: when its connection is gone, so is the silence.
    w.send(rst(12));
    w.send(data(12, 12, b"!"));
    w.expect(Flags::RST, 12, 0, b"");
    assert_eq!((w.counters().drop_cookie_awaited, w.shard.live()), (2, 0));
}

/// RFC 9293 3.5.1: a peer that holds on to what we have forgotten is told so, whatever cookies others are sent.
#[test]
fn cookies_of_others_do_not_hide_a_half_open_connection() {
    let mut w = flooded(small());
    assert!(w.counters().cookies_sent > 50);
    let stranger = data(7, 9, b"still there?");
    w.send(stranger.clone());
    w.expect(Flags::RST, 9, 0, b"");
    // No stream carries these, of whatever flow.
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(Seg { flags: Flags::SYN | Flags::ACK, ..stranger.clone() });
    w.expect(Flags::RST, 9, 0, b"");
    w.send(stranger.clone());
    w.silence();
    assert_eq!(w.counters().drop_cookie_awaited, 1);
    // A cookie that is too old is awaited no longer, and a server that drains takes none.
    w.pass(130_000);
    w.queue.tx.clear();
    w.send(stranger.clone());
    w.expect(Flags::RST, 9, 0, b"");
    fill(&mut w);
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(stranger.clone());
    w.silence();
    w.shard.drain(w.now, &mut w.queue, &mut w.app);
    w.queue.tx.clear();
    w.send(stranger);
    w.expect(Flags::RST, 9, 0, b"");
    assert_eq!(w.counters().drop_cookie_awaited, 2);
}

/// The cookie's SYN|ACK was slow, the SYN came again and found room: two numbers of ours are on their way, both good.
#[test]
fn a_cookie_counts_although_its_syn_was_remembered_later() {
    let mut w = flooded(small());
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    let cookie = w.server_isn;
    w.pass(64_000);
    assert_eq!(w.shard.half_open(), 0);
    w.queue.tx.clear();
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    assert_eq!(w.shard.half_open(), 1);
    w.server_isn = cookie;
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    assert_eq!((w.shard.live(), w.shard.half_open()), (1, 0));
}

/// A cookie makes one connection. The text that brought it may come once more when all is over, from a network that reorders or
/// doubles, while the cookie itself is good for minutes.
#[test]
fn a_late_copy_of_the_first_text_does_not_begin_again_what_is_over() {
    for by_peer in [true, false] {
        let mut w = flooded(small());
        w.send(syn());
        w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
        w.send(data(1, 1, b"hello"));
        w.expect_data(1, 6, b"hello");
        if by_peer {
            w.send(rst(6));
        } else {
            w.send(fin(6, 6));
            w.expect(Flags::FIN | Flags::ACK, 6, 7, b"");
            w.send(ack(7, 7));
        }
        assert_eq!((w.shard.live(), w.shard.time_wait(), w.counters().cookies_accepted), (0, 0, 1));
        for pause_ms in [0, 1_000, 40_000, 50_000, 200_000] {
            w.pass(pause_ms);
            fill(&mut w);
            w.queue.tx.clear();
            w.send(data(1, 1, b"hello"));
            w.expect(Flags::RST, 1, 0, b"");
            w.send(ack(1, 1));
            w.expect(Flags::RST, 1, 0, b"");
            assert_eq!((w.shard.live(), w.counters().cookies_accepted), (0, 1), "after {pause_ms} ms");
        }
        // The peer may come again from the same port.
        w.send(Seg { seq: 70_000, ..syn() });
        w.expect(Flags::SYN | Flags::ACK, 0, 70_001, b"");
        w.send(data(70_001, 1, b"hello"));
        w.expect_data(1, 70_006, b"hello");
        assert_eq!((w.shard.live(), w.counters().cookies_accepted), (1, 2));
    }
}

/// With every connection taken a cookie waits, as a remembered handshake does; in the end it is forgotten.
#[test]
fn a_cookie_waits_for_room_and_grows_old() {
    let limits = Limits { connections: 1, ..small() };
    let mut w = flooded(limits);
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    let first = w.server_isn;
    w.key.peer_port += 1;
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    let second = w.server_isn;
    w.key.peer_port -= 1;
    w.server_isn = first;
    w.send(ack(1, 1));
    assert_eq!(w.shard.live(), 1);
    w.key.peer_port += 1;
    w.server_isn = second;
    w.send(data(1, 1, b"hello"));
    w.silence();
    assert_eq!(w.counters().drop_accept_full, 1);
    w.key.peer_port -= 1;
    w.server_isn = first;
    w.send(rst(1));
    w.pass(130_000);
    w.queue.tx.clear();
    w.key.peer_port += 1;
    w.server_isn = second;
    w.send(data(1, 1, b"hello"));
    w.expect(Flags::RST, 1, 0, b"");
    assert_eq!(w.counters().cookies_accepted, 1);
}

/// A SYN that comes again may come to another shard (Linux takes a new transmit queue with each timeout), which then
/// holds a half-open connection with numbers of its own. It must not reset what the peer has with the first.
#[test]
fn a_syn_that_came_to_two_shards_leaves_one_connection() {
    let mut shards = pair(|_| {});
    shards[0].establish();
    let isn = shards[0].server_isn;
    shards[1].pass(3);
    shards[1].send(syn());
    shards[1].expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    assert_ne!(shards[1].server_isn, isn);
    shards[1].server_isn = isn;
    shards[1].send(data(1, 1, b"hello"));
    shards[1].silence();
    shards[0].turn();
    shards[0].expect_data(1, 6, b"hello");
    assert_eq!((shards[1].counters().stray_sent, shards[0].counters().stray_claimed), (1, 1));
    // What nobody knows is refused all the same.
    shards[1].send(data(1, 77, b"hello"));
    shards[0].turn();
    shards[0].pass(200);
    assert_eq!(shards[0].shard.live(), 1);
}

/// The two SYNs of such a peer may be taken in within microseconds, from rings that were not served for a while. What the peer then
/// acknowledges of the connection that it has must not pass for the end of the other one's handshake.
#[test]
fn what_is_acknowledged_to_one_shard_ends_no_handshake_on_another() {
    for apart_us in [0, 4, 20] {
        let mut shards = pair(|_| {});
        let now = shards[0].now.max(shards[1].now);
        shards[0].now = now;
        shards[1].now = now.plus_micros(apart_us);
        for w in &mut shards {
            w.send(syn());
            w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
        }
        let apart = shards[1].server_isn.wrapping_sub(shards[0].server_isn) as i32;
        assert!(apart.unsigned_abs() > 1 << 30, "{apart}");
        shards[0].send(data(1, 1, b"hello"));
        shards[0].expect_data(1, 6, b"hello");
        shards[1].server_isn = shards[0].server_isn;
        for acked in 1..=6 {
            shards[1].send(ack(6, acked));
            shards[1].silence();
        }
        shards[0].turn();
        assert_eq!((shards[0].shard.live(), shards[1].shard.live()), (1, 0));
        assert_eq!((shards[1].counters().stray_sent, shards[0].counters().stray_claimed), (6, 6));
    }
}

/// Two shards with a way from each to the other.
fn pair(prepare: impl Fn(&mut World)) -> Vec<World> {
    let world = |link| {
        let mut w = World::new();
        w.shard = Shard::new(ShardConfig { strays: Some(link), ..config(small()) }, w.queue.caps);
        w.pass(5_000);
        prepare(&mut w);
        w.queue.tx.clear();
        w
    };
    stray::links(2, |_| {}).into_iter().map(world).collect()
}

/// The repetition of an ACK that made a connection from a cookie goes astray: it must not make another one there.
#[test]
fn a_cookie_counts_only_where_it_was_made() {
    let mut shards = pair(fill);
    let now = shards[0].now.max(shards[1].now);
    shards.iter_mut().for_each(|w| w.now = now);
    shards[0].send(syn());
    shards[0].expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    shards[0].send(data(1, 1, b"hello"));
    shards[0].expect_data(1, 6, b"hello");
    let again = shards[0].frame(&data(1, 1, b"hello"));
    shards[1].queue.rx.push_back(again);
    shards[1].turn();
    shards[1].silence();
    shards[0].turn();
    shards[0].expect_ack(6, 6);
    assert_eq!((shards[0].shard.live(), shards[1].shard.live()), (1, 0));
}

/// What is sent behind a first segment that is lost goes astray: the shard that answers for all knows of the other's cookie.
#[test]
fn a_cookie_is_awaited_by_all_shards() {
    for first in [0, 1] {
        let mut shards = pair(fill);
        let now = shards[0].now.max(shards[1].now);
        shards.iter_mut().for_each(|w| w.now = now);
        shards[0].send(syn());
        shards[0].expect(Flags::SYN | Flags::ACK, 0, 1, b"");
        let later = shards[0].frame(&data(6, 1, b" world"));
        shards[first].queue.rx.push_back(later);
        for shard in [first, 1 - first] {
            shards[shard].turn();
            shards[shard].silence();
        }
        assert_eq!(shards[1 - first].counters().drop_cookie_awaited, 1);
        shards[0].send(data(1, 1, b"hello"));
        shards[0].expect_data(1, 6, b"hello");
    }
}
