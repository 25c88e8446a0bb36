//! Packet traces: the life of a connection as RFC 9293 has it, seen from the wire.

mod common;
use common::*;
use khamsin_stack::CloseReason::*;
use khamsin_stack::wire::{Flags, VlanTags};

const FIN_ACK: Flags = Flags(0x11);
const FIN_PSH_ACK: Flags = Flags(0x19);

#[test]
fn handshake_echo_and_orderly_close() {
    let mut w = World::established();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6));
    w.silence();
    w.send(fin(6, 6));
    // The FIN is acknowledged by ours.
    w.expect(FIN_ACK, 6, 7, b"");
    w.send(ack(7, 7));
    w.silence();
    assert_eq!(w.events(), [Event::Open, Event::Data(b"hello".into()), Event::Finished, Event::Closed(Finished)]);
    assert_eq!(w.counters().closed_finished, 1);
    assert_eq!(w.shard.time_wait(), 0, "the peer closed first");
    w.quiescent();
}

#[test]
fn the_same_over_ipv6_and_vlan() {
    let mut w = World::v6();
    w.tags = VlanTags::dot1q(100, 3);
    w.establish();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(fin(6, 6));
    w.expect(FIN_ACK, 6, 7, b"");
    w.send(ack(7, 7));
    w.quiescent();
}

#[test]
fn syn_ack_carries_mss_scale_and_sack_only_if_asked() {
    let mut w = World::new();
    w.send(syn());
    let got = w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    assert_eq!(got.options, [2, 4, 5, 0xb4, 3, 3, 7, 1, 4, 2, 1, 1]);
    w.send(rst(1));
    assert_eq!(w.shard.half_open(), 0);
    w.send(Seg { options: vec![], ..syn() });
    assert_eq!(w.expect(Flags::SYN | Flags::ACK, 0, 1, b"").options, [2, 4, 5, 0xb4]);
}

#[test]
fn syn_ack_is_sent_again_and_the_half_open_connection_expires() {
    let mut w = World::new();
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.pass(1_100);
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.silence();
    w.pass(120_000);
    assert_eq!(w.counters().syn_retransmitted, 5);
    assert_eq!(w.counters().syn_expired, 1);
    assert_eq!(w.shard.half_open(), 0);
    w.queue.tx.clear();
    // Its flow is forgotten: a late ACK draws a reset.
    w.send(ack(1, 1));
    w.expect(Flags::RST, 1, 0, b"");
}

#[test]
fn a_repeated_syn_draws_the_same_syn_ack() {
    let mut w = World::new();
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    let first = w.server_isn;
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    assert_eq!(w.server_isn, first);
    assert_eq!(w.shard.half_open(), 1);
}

#[test]
fn data_on_the_handshakes_ack_is_served() {
    let mut w = World::new();
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(data(1, 1, b"early"));
    w.expect_data(1, 6, b"early");
}

#[test]
fn we_close_first_and_enter_time_wait() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.expect(FIN_ACK, 1, 5, b"");
    w.send(ack(5, 2));
    w.silence();
    // Half-closed: the peer goes on sending.
    w.send(data(5, 2, b"more"));
    w.pass(100);
    w.expect_ack(2, 9);
    w.send(fin(9, 2));
    w.expect_ack(2, 10);
    assert_eq!(w.events().last(), Some(&Event::Closed(Finished)));
    assert_eq!((w.shard.live(), w.shard.time_wait()), (0, 1));
    assert_eq!((w.counters().time_wait_entered, w.counters().acks_sent), (1, 2));
    // The peer did not hear our last ACK.
    w.send(fin(9, 2));
    w.expect_ack(2, 10);
    // A reset does not end TIME-WAIT (RFC 1337).
    w.send(rst(10));
    assert_eq!(w.shard.time_wait(), 1);
    // One wait, and one more for the FIN that came again.
    w.pass(121_000);
    assert_eq!(w.shard.time_wait(), 0);
    w.quiescent();
}

/// A stranger who talks to a flow in TIME-WAIT, or to connections of his own, does not use up the answers of others: a
/// peer whose retransmission lies below the window learns where we stand.
#[test]
fn what_is_answered_in_time_wait_is_limited_and_takes_nothing_from_connections() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.send(fin(5, 2));
    assert_eq!(w.shard.time_wait(), 1);
    for _ in 0..3000 {
        w.queue(&data(6, 2, b"x"));
        w.turn();
    }
    let answered = w.counters().challenge_acks;
    assert!((1000..3000).contains(&answered), "about 2000, and how many is a secret: {answered}");
    assert_eq!(answered + w.counters().challenge_limited, 3000);
    w.queue.tx.clear();
    w.key.peer_port += 1;
    w.establish();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(data(6, 6, b"world"));
    w.expect_data(6, 11, b"world");
    w.send(data(1, 11, b"hello"));
    w.expect_ack(11, 11);
}

#[test]
fn a_new_syn_takes_over_a_flow_in_time_wait() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.expect(FIN_ACK, 1, 5, b"");
    w.send(fin(5, 2));
    w.expect_ack(2, 6);
    assert_eq!(w.shard.time_wait(), 1);
    w.send(Seg { seq: 100_000, ..syn() });
    let old = w.server_isn;
    w.expect(Flags::SYN | Flags::ACK, 0, 100_001, b"");
    assert!(w.server_isn.wrapping_sub(old) as i32 > 2, "beyond the old numbers");
    assert_eq!(w.shard.time_wait(), 0);
    w.send(ack(100_001, 1));
    assert_eq!(w.shard.live(), 1);
}

#[test]
fn simultaneous_close() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.expect(FIN_ACK, 1, 5, b"");
    w.send(fin(5, 1)); // crossed ours
    w.expect_ack(2, 6);
    w.send(ack(6, 2));
    assert_eq!((w.shard.live(), w.shard.time_wait()), (0, 1));
}

#[test]
fn fin_rides_on_data_both_ways() {
    let mut w = World::established();
    w.send(seg(FIN_PSH_ACK, 1, 1, b"bye"));
    w.expect(FIN_PSH_ACK, 1, 5, b"bye");
    w.send(ack(5, 5));
    assert_eq!(w.events().last(), Some(&Event::Closed(Finished)));
    w.quiescent();
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut w = World::established();
    w.send(fin(1, 1));
    w.expect(FIN_ACK, 1, 2, b"");
    w.pass(1_200);
    w.expect(FIN_ACK, 1, 2, b"");
    w.send(ack(2, 2));
    w.quiescent();
}

#[test]
fn fin_wait_2_ends() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.expect(FIN_ACK, 1, 5, b"");
    w.send(ack(5, 2));
    w.pass(61_000);
    w.expect(Flags::RST | Flags::ACK, 2, 5, b"");
    assert_eq!(w.events().last(), Some(&Event::Closed(TimedOut)));
    assert_eq!(w.counters().closed_timed_out, 1);
    w.quiescent();
}

#[test]
fn the_application_aborts() {
    let mut w = World::established();
    w.send(data(1, 1, b"abort"));
    w.expect(Flags::RST | Flags::ACK, 1, 6, b"");
    assert_eq!(w.events().last(), Some(&Event::Closed(Aborted)));
    assert_eq!(w.counters().closed_aborted, 1);
    w.quiescent();
}

#[test]
fn the_peer_resets() {
    let mut w = World::established();
    w.send(rst(1));
    w.silence();
    assert_eq!(w.events().last(), Some(&Event::Closed(PeerReset)));
    assert_eq!(w.counters().closed_reset, 1);
    w.quiescent();
}

#[test]
fn a_deadline_of_the_application_is_kept() {
    let mut w = World::established();
    w.send(data(1, 1, b"timer"));
    w.pass(2_900);
    w.expect_ack(1, 6); // the delayed acknowledgement
    assert_eq!(w.events().len(), 2);
    w.pass(200);
    assert_eq!(w.events().last(), Some(&Event::Expired));
    w.expect_data(1, 6, b"ding");
}

#[test]
fn a_panic_resets_that_connection_and_the_shard_lives() {
    let mut w = World::established();
    w.send(data(1, 1, b"panic"));
    w.expect(Flags::RST | Flags::ACK, 1, 6, b"");
    assert_eq!(w.counters().closed_panicked, 1);
    assert_eq!(w.events().last(), Some(&Event::Closed(Panicked)));
    w.quiescent();
    w.key.peer_port += 1;
    w.establish();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
}

#[test]
fn draining_refuses_the_new_and_finishes_the_old() {
    let mut w = World::established();
    w.shard.drain(w.now, &mut w.queue, &mut w.app);
    w.key.peer_port += 1;
    w.server_isn = 0; // the RST has sequence number 0
    w.send(syn());
    w.expect(Flags::RST | Flags::ACK, 0, 1, b"");
    assert_eq!(w.counters().drop_draining, 1);
    w.key.peer_port -= 1;
    assert_eq!(w.shard.live(), 1);
    w.shard.abort_all(w.now, &mut w.queue, &mut w.app);
    assert_eq!(w.counters().closed_drained, 1);
    w.quiescent();
}

/// DESIGN, Limits: TIME-WAIT is bounded, oldest out first.
#[test]
fn a_full_time_wait_table_forgets_its_oldest() {
    let mut w = World::new();
    for i in 0..10 {
        w.key.peer_port = 1000 + i;
        w.establish();
        w.send(data(1, 1, b"shut"));
        w.expect(FIN_ACK, 1, 5, b"");
        w.send(fin(5, 2));
        w.expect_ack(2, 6);
    }
    assert_eq!((w.shard.time_wait(), w.counters().time_wait_evicted), (8, 2));
    // The oldest is nobody now; the youngest is remembered.
    w.key.peer_port = 1000;
    w.send(fin(5, 2));
    w.expect(Flags::RST, 2, 0, b"");
    w.key.peer_port = 1009;
    w.send(fin(5, 2));
    w.expect_ack(2, 6);
}

#[test]
fn a_panic_at_open_costs_that_connection_and_no_other() {
    let mut w = World::established();
    w.app.panics_at_open = true;
    w.key.peer_port += 1;
    let first = w.server_isn;
    for _ in 0..40 {
        w.key.peer_port += 1;
        w.send(syn());
        w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
        w.send(ack(1, 1));
        assert!(w.next().expect("a reset").flags.rst());
    }
    assert_eq!(w.counters().closed_panicked, 40);
    w.app.panics_at_open = false;
    w.establish_more();
    w.key.peer_port = 40_000;
    w.server_isn = first;
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
}

#[test]
fn a_panic_at_the_end_costs_that_connection_and_no_other() {
    let mut w = World::established();
    let first = w.server_isn;
    w.app.panics_at_close = true;
    for _ in 0..40 {
        w.establish_more();
        w.send(rst(1));
    }
    assert_eq!((w.counters().closed_reset, w.counters().closed_panicked, w.shard.live()), (40, 40, 1));
    w.shard.drain(w.now, &mut w.queue, &mut w.app);
    w.key.peer_port = 40_000;
    w.server_isn = first;
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.shard.abort_all(w.now, &mut w.queue, &mut w.app);
    assert_eq!(w.counters().closed_panicked, 41);
    w.quiescent();
}

/// RFC 9293 3.10.7.4: a segment that is acceptable and carries nothing is no reason to speak. Two ends that both answer
/// would never stop.
#[test]
fn time_wait_does_not_answer_a_bare_acknowledgement() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.expect(Flags(0x11), 1, 5, b"");
    w.send(fin(5, 2));
    w.expect_ack(2, 6);
    assert_eq!(w.shard.time_wait(), 1);
    w.send(ack(6, 2));
    w.silence();
    // What was sent again is answered: our acknowledgement was lost.
    w.send(fin(5, 2));
    w.expect_ack(2, 6);
    w.send(data(6, 2, b"late"));
    w.expect_ack(2, 6);
    w.send(ack(5, 2));
    w.expect_ack(2, 6);
}
