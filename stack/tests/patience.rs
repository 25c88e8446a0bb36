//! Silent peers: keep-alive, the user timeout, orphans.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use core::time::Duration;
use khamsin_stack::wire::Flags;
use khamsin_stack::{CloseReason, Patience};

const RST_ACK: Flags = Flags(0x14);

fn with(patience: Patience) -> World {
    let mut w = World::new();
    w.app.patience = patience;
    w.establish();
    w
}

fn keeps_alive() -> World {
    with(Patience { keep_alive: Some(Duration::from_secs(7200)), ..Patience::default() })
}

/// RFC 9293 3.8.4 (MUST-25): without being asked to, nobody is probed.
#[test]
fn nobody_is_probed_unless_the_application_asks() {
    let mut w = with(Patience::default());
    w.pass(100 * 3600 * 1000);
    w.silence();
    assert_eq!(w.shard.live(), 1);
}

#[test]
fn a_living_peer_answers_the_probe_and_is_left_alone() {
    let mut w = keeps_alive();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6));
    w.pass(7_199_000);
    w.silence();
    w.pass(2_000);
    // One before what it expects: it must answer (RFC 9293 3.10.7.4).
    w.expect_ack(5, 6);
    w.send(ack(6, 6));
    w.pass(7_199_000);
    w.silence();
    assert_eq!((w.shard.live(), w.counters().keep_alives), (1, 1));
}

/// RFC 9293 3.8.4 (MUST-29): one probe without an answer proves nothing.
#[test]
fn a_dead_peer_is_given_up_after_nine_probes() {
    let mut w = keeps_alive();
    w.pass(7_200_000 + 9 * 75_000 - 1_000);
    for _ in 0..9 {
        w.expect_ack(0, 1);
    }
    w.silence();
    assert_eq!(w.shard.live(), 1);
    w.pass(2_000);
    w.expect(RST_ACK, 1, 1, b"");
    assert_eq!(w.events().last(), Some(&Event::Closed(CloseReason::TimedOut)));
    w.quiescent();
}

#[test]
fn the_user_timeout_ends_a_connection_that_is_owed_something() {
    let mut w = with(Patience { user_timeout: Some(Duration::from_secs(5)), ..Patience::default() });
    w.pass(60_000);
    assert_eq!(w.shard.live(), 1, "nothing is owed");
    w.send(data(1, 1, b"hello"));
    w.pass(4_900);
    assert_eq!(w.shard.live(), 1);
    w.pass(200);
    assert_eq!(w.events().last(), Some(&Event::Closed(CloseReason::TimedOut)));
    w.quiescent();
}

/// A closed window that is confirmed again and again: RFC 9293 3.8.6.1 lets it last, the user timeout does not.
#[test]
fn the_user_timeout_counts_a_closed_window_too() {
    let mut w = with(Patience { user_timeout: Some(Duration::from_secs(30)), ..Patience::default() });
    w.send(data(1, 1, b"hello").window(0));
    for _ in 0..29 {
        w.pass(1_000);
        w.send(ack(6, 1).window(0));
    }
    assert_eq!(w.shard.live(), 1);
    w.pass(2_000);
    assert_eq!(w.shard.live(), 0);
}

/// Nobody waits for what is left of it: a peer that keeps its window closed may not hold it for ever.
#[test]
fn an_orphan_has_an_end() {
    let mut w = with(Patience::default());
    w.send(data(1, 1, b"big").window(0));
    w.send(data(4, 1, b"shut").window(0));
    for _ in 0..239 {
        w.pass(1_000);
        w.send(ack(8, 1).window(0));
    }
    assert_eq!(w.shard.live(), 1);
    w.pass(3_000);
    assert_eq!(w.events().last(), Some(&Event::Closed(CloseReason::TimedOut)));
    w.quiescent();
}

/// As long as the peer takes something, however slowly, it is served.
#[test]
fn an_orphan_that_gets_on_lives() {
    let mut w = with(Patience::default());
    w.send(data(1, 1, b"big").window(100));
    w.send(data(4, 1, b"shut").window(100));
    let mut taken = 1;
    for _ in 0..30 {
        w.pass(50_000);
        taken += 100;
        w.send(ack(8, taken).window(100));
    }
    assert_eq!(w.shard.live(), 1);
}

/// What came before the peer's FIN is kept for the application (RFC 9293 3.10.3), but not for ever.
#[test]
fn what_is_unread_at_the_end_is_kept_for_a_minute() {
    let mut w = with(Patience::default());
    w.send(data(1, 1, b"shut"));
    w.expect(Flags::FIN | Flags::ACK, 1, 5, b"");
    w.app.deaf = true;
    w.send(data(5, 2, b"late"));
    w.send(fin(9, 2));
    assert_eq!(w.shard.live(), 1);
    w.pass(59_000);
    assert_eq!(w.shard.live(), 1);
    w.pass(2_000);
    assert_eq!(w.events().last(), Some(&Event::Closed(CloseReason::Finished)));
    assert_eq!(w.shard.time_wait(), 1);
}
