//! What the gate stops, what it answers, and what smoltcp must never see. Each test names its clause.

mod common;
use common::*;
use khamsin_stack::CloseReason::*;
use khamsin_stack::limits::{Limits, RX_BUFFER};
use khamsin_stack::stray;
use khamsin_stack::wire::Flags;
use khamsin_stack::*;

const FIN_ACK: Flags = Flags(0x11);

/// RFC 5961 3.2: only the exact sequence number resets.
#[test]
fn an_inexact_reset_draws_a_challenge_and_one_outside_the_window_nothing() {
    let mut w = World::established();
    w.send(rst(2));
    w.expect_ack(1, 1);
    assert_eq!((w.counters().gate_rst_inexact, w.counters().challenge_acks), (1, 1));
    w.send(rst(70_000));
    w.silence();
    w.send(rst(0));
    w.silence();
    assert_eq!(w.counters().gate_rst_outside, 2);
    assert_eq!(w.shard.live(), 1);
    w.send(rst(1));
    assert_eq!(w.shard.live(), 0);
}

/// RFC 5961 4.2: a SYN on a connection, whatever its number, draws a challenge ACK.
#[test]
fn a_syn_on_a_connection_draws_a_challenge() {
    let mut w = World::established();
    w.send(Seg { seq: 1, ..syn() });
    w.expect_ack(1, 1);
    assert_eq!(w.counters().gate_syn, 1);
    // RFC 5961 7: not at any rate.
    w.send(Seg { seq: 1, ..syn() });
    w.silence();
    assert_eq!(w.counters().challenge_limited, 1);
    w.pass(200);
    w.send(Seg { seq: 100_000, ..syn() });
    w.expect_ack(1, 1);
    assert_eq!(w.shard.live(), 1);
}

/// RFC 9293 3.10.7.4: no ACK flag, no service.
#[test]
fn a_segment_without_ack_is_dropped() {
    let mut w = World::established();
    w.send(seg(Flags::PSH, 1, 0, b"hello"));
    w.silence();
    assert_eq!(w.counters().gate_no_ack, 1);
    w.send(Seg { flags: Flags(0), ..seg(Flags(0), 1, 0, b"") });
    assert_eq!(w.counters().gate_no_ack, 2);
}

/// RFC 5961 5.2: acknowledgements of what was never sent, or of too long ago.
#[test]
fn an_ack_out_of_range_is_answered_and_carries_nothing() {
    let mut w = World::established();
    w.send(data(1, 2, b"hello"));
    w.expect_ack(1, 1);
    assert_eq!(w.counters().gate_ack_range, 1);
    w.pass(200);
    w.send(data(1, 1u32.wrapping_sub(0x2000_0000), b"hello"));
    w.expect_ack(1, 1);
    assert_eq!(w.counters().gate_ack_range, 2);
    assert_eq!(w.events(), [Event::Open]);
}

/// SMOLTCP.md, guard: nothing further than 2^30 reaches smoltcp's arithmetic.
#[test]
fn far_sequence_numbers_are_stopped() {
    let mut w = World::established();
    for seq in [0x8000_0001, 0x7fff_ffff, 0x4000_0010, 0xbfff_0000] {
        w.pass(200);
        w.send(data(seq, 1, b"x"));
        w.expect_ack(1, 1);
    }
    assert_eq!(w.counters().gate_far_sequence, 4);
}

/// RFC 9293 3.10.7.4: outside the window, an ACK says where we stand.
#[test]
fn a_segment_outside_the_window_draws_an_ack() {
    let mut w = World::established();
    w.send(data(1 + 65_536, 1, b"x"));
    w.expect_ack(1, 1);
    assert_eq!(w.counters().gate_outside_window, 1);
}

/// RFC 9293 3.8.4: a keep-alive lies just below the window and must be answered.
#[test]
fn a_keep_alive_is_answered() {
    let mut w = World::established();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(ack(6, 6));
    w.silence();
    w.send(ack(5, 6));
    w.expect_ack(6, 6);
    w.pass(1000);
    w.send(data(5, 6, b"o"));
    w.expect_ack(6, 6);
}

#[test]
fn a_duplicate_is_acknowledged_and_not_delivered_twice() {
    let mut w = World::established();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(data(1, 6, b"hello"));
    w.expect_ack(6, 6);
    assert_eq!(w.counters().rx_duplicate, 1);
    // One that overlaps gives only what is new.
    w.send(data(3, 6, b"lloworld"));
    w.expect_data(6, 11, b"world");
    assert_eq!(w.counters().rx_payload_bytes, 10);
}

/// RECOVERY.md, trap 1741: a retransmission of received data with a FIN must be taken.
#[test]
fn a_retransmission_with_fin_is_taken() {
    let mut w = World::established();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.send(seg(Flags::ACK | Flags::FIN, 1, 6, b"hello"));
    w.expect(FIN_ACK, 6, 7, b"");
    w.send(ack(7, 7));
    assert_eq!(w.events().last(), Some(&Event::Closed(Finished)));
}

#[test]
fn out_of_order_data_is_put_together_and_reported() {
    let mut w = World::established();
    w.send(data(6, 1, b"world"));
    let got = w.expect_ack(1, 1);
    // RFC 2018: the block that arrived.
    let mut block = vec![1, 1, 5, 10];
    block.extend(PEER_ISN.wrapping_add(6).to_be_bytes());
    block.extend(PEER_ISN.wrapping_add(11).to_be_bytes());
    assert_eq!(got.options, block);
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 11, b"helloworld");
}

/// RFC 9293 3.10.7.4, eighth check: a FIN before a hole waits for the hole to fill.
#[test]
fn a_fin_out_of_order_is_not_taken_early() {
    let mut w = World::established();
    w.send(seg(Flags::ACK | Flags::FIN, 6, 1, b"world"));
    w.expect_ack(1, 1);
    assert_eq!(w.events(), [Event::Open]);
}

/// Text behind a FIN is not text.
#[test]
fn data_after_fin_is_not_delivered() {
    let mut w = World::established();
    w.app.stays = true;
    w.send(fin(1, 1));
    w.expect_ack(1, 2);
    w.send(data(2, 1, b"more"));
    w.expect_ack(1, 2);
    assert_eq!(w.events(), [Event::Open, Event::Finished]);
}

/// SMOLTCP.md, failure 1: a FIN that fills the window panicked smoltcp. It takes no memory, and is taken (as by Linux).
#[test]
fn a_full_window_with_fin_on_its_edge() {
    let mut w = World::unscaled();
    w.app.deaf = true;
    let mut seq = 1;
    let mut left = RX_BUFFER;
    while left > 0 {
        let n = left.min(1460);
        left -= n;
        let flags = if left == 0 { FIN_ACK } else { Flags::ACK };
        w.send(seg(flags, seq, 1, &vec![b'x'; n]));
        seq += n as u32;
    }
    assert_eq!(w.counters().gate_fin_held, 0);
    w.pass(100);
    let last = std::iter::from_fn(|| w.next()).last().expect("acknowledgements");
    assert_eq!((last.ack, last.window), (seq + 1, 0));
    // What smoltcp would have panicked over.
    w.send(data((seq).wrapping_add(0x8000_0000), 1, b"x"));
    w.queue.tx.clear();
    // The application wakes up, and hears of the end after the text.
    w.app.deaf = false;
    w.app.mute = true;
    w.shard.drain(w.now, &mut w.queue, &mut w.app);
    w.expect(FIN_ACK, 1, seq + 1, b"");
    let text: usize = w.events().iter().map(|e| if let Event::Data(text) = e { text.len() } else { 0 }).sum();
    assert_eq!((text, w.events().last()), (RX_BUFFER, Some(&Event::Finished)));
}

/// Payload beyond the window is cut, and a FIN behind it is not believed.
#[test]
fn payload_beyond_the_window_is_cut() {
    let mut w = World::unscaled();
    w.app.deaf = true;
    let mut seq = 1;
    for _ in 0..44 {
        w.send(data(seq, 1, &[b'x'; 1460]));
        seq += 1460;
    }
    let left = RX_BUFFER - 44 * 1460;
    assert!(left < 1460);
    w.send(seg(FIN_ACK, seq, 1, &[b'x'; 1460]));
    assert_eq!((w.counters().gate_trimmed, w.counters().gate_fin_held), (1, 1));
    let last = std::iter::from_fn(|| w.next()).last().unwrap();
    assert_eq!((last.ack, last.window), (1 + RX_BUFFER as u32, 0));
}

#[test]
fn bad_checksums_are_counted_and_dropped() {
    let mut w = World::established();
    let mut frame = w.frame(&data(1, 1, b"hello"));
    *frame.last_mut().unwrap() ^= 1;
    w.queue.rx.push_back(frame);
    w.turn();
    w.silence();
    assert_eq!(w.counters().drop_l4_checksum, 1);
    let mut frame = w.frame(&data(1, 1, b"hello"));
    frame[14 + 8] ^= 1; // the TTL
    w.queue.rx.push_back(frame);
    w.turn();
    assert_eq!(w.counters().drop_ip_checksum, 1);
    assert_eq!(w.events(), [Event::Open]);
}

#[test]
fn other_peoples_frames_are_left_alone() {
    let mut w = World::new();
    w.key.local = FlowKey::v4([0; 4], [198, 18, 0, 9], 0, 0).local;
    w.send(syn());
    w.silence();
    assert_eq!(w.counters().drop_other_address, 1);
}

#[test]
fn a_closed_port_refuses_and_not_at_any_rate() {
    let mut w = World::new();
    w.key.local_port = 8;
    w.send(syn());
    w.expect(Flags::RST | Flags::ACK, 0, 1, b"");
    w.send(data(5, 77, b"what"));
    w.expect(Flags::RST, 77, 0, b"");
    w.send(rst(5));
    w.silence();
    for _ in 0..5000 {
        w.queue(&syn());
    }
    w.turn();
    w.pass(1);
    assert!(w.counters().rst_sent < 3000 && w.counters().rst_limited > 2000, "{:?}", w.counters());
}

#[test]
fn the_syn_table_is_bounded() {
    let mut w = World::new();
    for port in 0..20 {
        w.key.peer_port = 1000 + port;
        w.send(syn());
    }
    assert_eq!((w.shard.half_open(), w.counters().cookies_sent), (16, 4));
    assert_eq!(w.counters().syn_received, 16);
}

#[test]
fn connections_are_bounded_and_the_refused_may_try_again() {
    let limits = Limits { connections: 1, ..small() };
    let mut w = World::with(limits, MemQueue::default());
    w.key.peer_port += 1;
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    let second = w.server_isn;
    w.key.peer_port -= 1;
    w.establish();
    let first = w.server_isn;
    w.key.peer_port += 1;
    w.server_isn = second;
    w.send(ack(1, 1));
    assert_eq!((w.shard.live(), w.counters().drop_accept_full), (1, 1));
    // Who asks only now is not even answered.
    w.key.peer_port += 1;
    w.send(syn());
    w.silence();
    assert_eq!(w.counters().drop_syn_shed, 1);
    w.key.peer_port -= 2;
    w.server_isn = first;
    w.send(rst(1));
    w.key.peer_port += 1;
    w.server_isn = second;
    w.send(data(1, 1, b"now"));
    w.expect_data(1, 4, b"now");
}

#[test]
fn a_flow_on_the_wrong_shard_finds_its_own() {
    let links = stray::links(3, |_| {});
    let mut shards: Vec<World> = links
        .into_iter()
        .map(|link| {
            let mut w = World::new();
            let config = ShardConfig { strays: Some(link), ..config(small()) };
            w.shard = Shard::new(config, w.queue.caps);
            w.pass(5_000);
            w.queue.tx.clear();
            w
        })
        .collect();
    shards[1].establish();
    let frame = shards[1].frame(&data(1, 1, b"hello"));
    shards[2].queue.rx.push_back(frame);
    for _ in 0..3 {
        for w in &mut shards {
            w.turn();
        }
    }
    shards[1].expect_data(1, 6, b"hello");
    assert_eq!((shards[2].counters().stray_sent, shards[0].counters().stray_sent), (1, 1));
    assert_eq!(shards[1].counters().stray_claimed, 1);
    // Nobody's segment is answered once, by the last that was asked.
    shards[0].send(seg(Flags::ACK, 9, 9, b""));
    shards[0].key.peer_port = 5;
    shards[0].send(seg(Flags::ACK, 9, 9, b""));
    for _ in 0..3 {
        for w in &mut shards {
            w.turn();
        }
    }
    let resets: u64 = shards.iter().map(|w| w.counters().rst_sent).sum();
    assert_eq!(resets, 1);
}

#[test]
fn a_full_stray_ring_drops_and_counts() {
    let mut links = stray::links(2, |_| {});
    let mut w = World::new();
    w.shard = Shard::new(ShardConfig { strays: Some(links.remove(0)), ..config(small()) }, w.queue.caps);
    for _ in 0..400 {
        w.send(ack(9, 9));
    }
    assert_eq!(w.counters().drop_stray_full, 400 - limits::STRAY_RING as u64);
}

#[test]
fn the_peer_may_move_to_another_mac() {
    let mut w = World::established();
    w.peer_mac = [2, 0, 0, 0, 0, 9];
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    // But a segment that the gate stops moves nothing.
    w.peer_mac = [2, 0, 0, 0, 0, 66];
    w.send(data(100_000, 6, b"evil"));
    w.peer_mac = [2, 0, 0, 0, 0, 9];
    w.expect_ack(6, 6);
}

#[test]
fn urgent_data_is_data() {
    let mut w = World::established();
    w.send(seg(Flags(0x38), 1, 1, b"urgent"));
    w.expect_data(1, 7, b"urgent");
}

/// DESIGN, "Two ways to live on a NIC": on a shared address everything but our ports is the kernel's.
#[test]
fn on_a_shared_address_only_our_ports_are_answered() {
    let mut w = World::new();
    let shared = ShardConfig { addresses: Addresses::Shared, ..config(small()) };
    w.shard = Shard::new(shared, w.queue.caps);
    w.key.local = FlowKey::v4([0; 4], [198, 18, 0, 77], 0, 0).local;
    w.establish();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.key.local_port = 22;
    w.send(syn());
    w.send(ack(1, 1));
    w.silence();
    assert_eq!(w.counters().drop_not_ours, 2);
    w.pass(60_000);
    assert_eq!(w.counters().arp_requests, 0);
}

/// RFC 9293 3.2 (MUST-7): an option that makes no sense is no reason to lose the text behind it; smoltcp would.
#[test]
fn text_behind_senseless_options_is_taken() {
    for options in [[8, 0, 0, 0], [2, 3, 9, 0], [5, 4, 0, 0], [30, 40, 0, 0], [1, 1, 1, 99]] {
        for mut w in [World::established(), World::v6()] {
            if w.shard.live() == 0 {
                w.establish();
            }
            w.send(Seg { options: options.to_vec(), ..data(1, 1, b"hello") });
            w.expect_data(1, 6, b"hello");
            // Cut in front, too.
            w.send(Seg { options: options.to_vec(), ..data(3, 6, b"lloworld") });
            w.expect_data(6, 11, b"world");
        }
    }
}

/// A FIN that came before the text in front of it is not forgotten: else the peer learns by a timeout that it was heard.
#[test]
fn a_fin_out_of_order_is_taken_when_the_hole_is_filled() {
    let mut w = World::established();
    w.send(Seg { flags: Flags(0x19), ..data(6, 1, b"world") });
    w.expect_ack(1, 1);
    assert_eq!(w.events(), [Event::Open]);
    w.send(data(1, 1, b"hello"));
    assert_eq!(w.events(), [Event::Open, Event::Data(b"helloworld".to_vec()), Event::Finished]);
    w.expect(Flags(0x19), 1, 12, b"helloworld");
    w.send(ack(12, 12));
    assert_eq!(w.events().last(), Some(&Event::Closed(Finished)));
    w.quiescent();
}

/// The same with the FIN alone, with a full receive buffer, and with text beyond it that nobody may send.
#[test]
fn a_remembered_fin_stands_where_it_was() {
    let mut w = World::established();
    w.send(fin(6, 1));
    w.send(fin(9, 1)); // another place: not both can be true, the first stands
    w.queue.tx.clear();
    w.send(data(1, 1, b"hello"));
    w.expect(Flags(0x19), 1, 7, b"hello");
    assert_eq!(w.events().last(), Some(&Event::Finished));

    let mut w = World::unscaled();
    w.app.deaf = true;
    w.send(fin(1 + RX_BUFFER as u32 - 1, 1));
    let text = vec![7; 1000];
    for at in (0..RX_BUFFER - 1).step_by(1000) {
        w.send(data(1 + at as u32, 1, &text[..(RX_BUFFER - 1 - at).min(1000)]));
    }
    let last = std::iter::from_fn(|| w.next()).last().unwrap();
    assert_eq!((last.ack, last.window), (1 + RX_BUFFER as u32, 0));
}

/// smoltcp takes nothing from port 0: such a handshake must fail at the SYN and not when the application has been told.
#[test]
fn port_zero_is_nobody() {
    let mut w = World::new();
    w.key.peer_port = 0;
    w.send(syn());
    w.silence();
    assert_eq!((w.shard.half_open(), w.counters().drop_martian), (0, 1));
    assert_eq!(w.events(), []);
}

/// A segment that comes again with a new acknowledgement has the window of now, though its sequence number is old (Linux:
/// `tcp_may_update_window`): without it, the edge would move along with the acknowledgement.
#[test]
fn a_new_acknowledgement_brings_its_window_on_an_old_segment() {
    let mut w = World::unscaled();
    w.send(data(1, 1, b"big").window(60_000));
    while w.next().is_some() {}
    w.send(data(8, 1, b"early").window(60_000));
    while w.next().is_some() {}
    w.send(data(4, 1 + 14_600, b"late").window(500));
    let beyond: usize = core::iter::from_fn(|| w.next()).map(|s| s.payload.len()).sum();
    assert_eq!(beyond, 0, "the peer has room for 500 bytes");
}

/// A peer that owes us its FIN and sends nothing but acknowledgements does not keep the connection.
#[test]
fn fin_wait_2_is_not_for_whoever_keeps_acknowledging() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.next();
    w.send(ack(5, 2));
    for _ in 0..4 {
        w.pass(20_000);
        w.send(ack(5, 2));
    }
    assert_eq!(w.shard.live(), 0, "{:?}", w.events());
    w.quiescent();
}
