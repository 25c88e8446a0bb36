//! The receiving side: text in any order, what is said of it, and when.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use khamsin_stack::limits::{DELAYED_ACK_US, HOLD_BLOCK, Limits, QUICK_ACKS};
use khamsin_stack::reassembly::RANGES;
use khamsin_stack::wire::Flags;

const FIN_ACK: Flags = Flags(0x11);

/// A peer whose text nobody answers.
fn mute() -> World {
    let mut w = World::established();
    w.app.mute = true;
    w
}

/// Past the acknowledgements that are sent at once at the start of a connection; the next number of the peer's.
fn settled(w: &mut World) -> u32 {
    for i in 0..u32::from(QUICK_ACKS) {
        w.send(data(1 + i, 1, b"."));
        w.expect_ack(1, 2 + i);
    }
    1 + u32::from(QUICK_ACKS)
}

/// RFC 2018 4: the block that the latest segment is in comes first, then the others in the order of their news. An ACK goes
/// for each at once (RFC 5681 4.2).
#[test]
fn every_hole_is_reported_and_the_latest_first() {
    let mut w = mute();
    for (at, told) in [(11, vec![(11, 16)]), (31, vec![(31, 36), (11, 16)]), (51, vec![(51, 56), (31, 36), (11, 16)])] {
        w.queue(&data(at, 1, b"aaaaa"));
        w.turn();
        assert_eq!(sack_blocks(&w.expect_ack(1, 1)), told);
    }
    w.send(data(71, 1, b"aaaaa"));
    w.expect_ack(1, 1);
    w.send(data(91, 1, b"aaaaa"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 1)), [(91, 96), (71, 76), (51, 56), (31, 36)]);
    // The first hole is filled: what is in order is acknowledged, and told no more.
    w.send(data(1, 1, b"0123456789"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 16)), [(91, 96), (71, 76), (51, 56), (31, 36)]);
    assert_eq!(w.counters().rx_out_of_order, 5);
    assert_eq!(text(&w), b"0123456789aaaaa");
}

/// A burst behind a hole: three ACKs, for those who count them (RFC 5681 3.2), and one at the end of the turn.
#[test]
fn a_burst_behind_a_hole_draws_few_acks() {
    let mut w = mute();
    for i in 0..20 {
        w.queue(&data(101 + i * 10, 1, &[b'b'; 10]));
    }
    w.turn();
    let acks: Vec<Seg> = std::iter::from_fn(|| w.next()).collect();
    assert_eq!(acks.iter().map(|s| sack_blocks(s)[0].1).collect::<Vec<_>>(), [111, 121, 131, 301]);
}

/// A burst with more holes than an option names blocks: each begins with an ACK of its own (RFC 5681 4.2), so that the peer hears
/// of every one, and takes nothing that is held for lost (RFC 8985 6.2).
#[test]
fn every_hole_of_a_burst_is_told() {
    let mut w = mute();
    let holes: Vec<u32> = (0..12).map(|i| 101 + i * 100).collect();
    for hole in &holes {
        for i in 0..5 {
            w.queue(&data(hole + i * 10, 1, &[b'b'; 10]));
        }
    }
    w.turn();
    let acks: Vec<Seg> = std::iter::from_fn(|| w.next()).collect();
    let told: Vec<(u32, u32)> = acks.iter().flat_map(sack_blocks).collect();
    assert!(holes.iter().all(|&hole| told.contains(&(hole, hole + 50))), "{told:?}");
    // Three at first, one for each hole behind them, and one at the end of the turn.
    assert_eq!(acks.len(), 3 + 11 + 1);
    // Without an option that could tell of them, nobody gains by more than three.
    let mut w = World::new();
    w.app.mute = true;
    w.send(Seg { options: vec![2, 4, 5, 0xb4], ..syn() });
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(ack(1, 1));
    holes.iter().for_each(|hole| w.queue(&data(*hole, 1, &[b'b'; 10])));
    w.turn();
    assert_eq!(std::iter::from_fn(|| w.next()).count(), 3 + 1);
}

/// The same where late segments fill the gaps of many ranges in one burst: each range that becomes one is told.
#[test]
fn every_hole_that_a_burst_fills_is_told() {
    let mut w = mute();
    let ranges: Vec<u32> = (0..12).map(|i| 101 + i * 100).collect();
    for range in &ranges {
        w.send(data(*range, 1, &[b'b'; 20]));
        w.send(data(*range + 30, 1, &[b'b'; 20]));
    }
    while w.next().is_some() {}
    for range in &ranges {
        w.queue(&data(*range + 20, 1, &[b'b'; 10]));
        // What goes on at the far end of all is the rest of the burst.
        w.queue(&data(2001 + range, 1, &[b'b'; 100]));
    }
    w.turn();
    let told: Vec<(u32, u32)> = std::iter::from_fn(|| w.next()).flat_map(|seg| sack_blocks(&seg)).collect();
    assert!(ranges.iter().all(|&range| told.contains(&(range, range + 50))), "{told:?}");
}

#[test]
fn a_peer_without_sack_is_told_nothing() {
    let mut w = World::new();
    w.app.mute = true;
    w.send(Seg { options: vec![2, 4, 5, 0xb4], ..syn() });
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(ack(1, 1));
    w.send(data(11, 1, b"aaaaa"));
    assert_eq!(w.expect_ack(1, 1).options, []);
    w.send(data(11, 1, b"aaaaa"));
    assert_eq!(w.expect_ack(1, 1).options, []);
    w.send(data(1, 1, b"0123456789"));
    assert_eq!(w.expect_ack(1, 16).options, []);
    assert_eq!(text(&w), b"0123456789aaaaa");
}

/// Timestamps leave room for three blocks (RFC 2018 3).
#[test]
fn timestamps_leave_room_for_three_blocks() {
    let mut w = World::new();
    w.app.mute = true;
    let stamp = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];
    w.send(Seg { options: [&stamp[..], &[4, 2, 1, 1]].concat(), ..syn() });
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    for at in [1, 11, 31, 51, 71] {
        w.send(Seg { options: stamp.clone(), ..data(at, 1, b"") }.with(b"aaaaa", at > 1));
    }
    let last = std::iter::from_fn(|| w.next()).last().unwrap();
    assert_eq!(sack_blocks(&last), [(71, 76), (51, 56), (31, 36)]);
}

trait With {
    fn with(self, payload: &[u8], really: bool) -> Self;
}
impl With for Seg {
    fn with(mut self, payload: &[u8], really: bool) -> Seg {
        if really {
            self.payload = payload.to_vec();
        }
        self
    }
}

/// RFC 2883: what came twice is told once, in front of the other blocks.
#[test]
fn duplicates_are_reported() {
    let mut w = mute();
    // 4.1.1: a segment below the acknowledgement number; it was acknowledged before.
    w.send(data(1, 1, b"hello"));
    w.expect_ack(1, 6);
    w.send(data(1, 1, b"hello"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 6)), [(1, 6)]);
    w.send(data(3, 1, b"ll"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 6)), [(3, 5)]);
    // Twice the same: each is told, however often (no challenge limit).
    w.send(data(3, 1, b"ll"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 6)), [(3, 5)]);
    // 4.1.2: inside a held block, which follows.
    w.send(data(11, 1, b"0123456789"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 6)), [(11, 21)]);
    w.send(data(31, 1, b"01234"));
    w.expect_ack(1, 6);
    w.send(data(13, 1, b"23"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 6)), [(13, 15), (11, 21), (31, 36)]);
    // 4.2: in part.
    w.send(data(19, 1, b"89ab"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 6)), [(19, 21), (11, 23), (31, 36)]);
    // In part old, and filling the hole.
    w.send(data(4, 1, b"lo.....xy"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 23)), [(11, 13), (31, 36)]);
    w.send(data(23, 1, b"cdefghijk"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 36)), [(31, 32)]);
    assert_eq!(w.counters().rx_duplicate, 8);
    assert_eq!(w.counters().challenge_acks, 0);
    assert_eq!(text(&w), b"hello.....0123456789abcdefghij01234");
    w.send(rst(36));
    w.quiescent();
}

/// First wins: what a segment says of bytes that came before is not believed.
#[test]
fn of_two_versions_the_first_stands() {
    let mut w = mute();
    w.send(data(6, 1, b"first"));
    w.send(data(4, 1, b"__XXXXX__"));
    w.send(data(1, 1, b"abcYYYYYYYYYYYYY"));
    assert_eq!(text(&w), b"abc__first__YYYY");
}

/// RFC 9293 3.8.6.3, RFC 5681 4.2: every second full segment at once, a single one within 40 ms; at the start, and after a
/// pause, each.
#[test]
fn acks_wait_for_a_second_segment_but_not_for_ever() {
    let mut w = mute();
    let mut at = settled(&mut w);
    let mut segment = |w: &mut World| {
        w.send(data(at, 1, &[b's'; 1460]));
        at += 1460;
        at
    };
    let end = segment(&mut w);
    // Nobody knew yet how large a full segment is.
    w.queue.tx.clear();
    w.pass(100);
    w.queue.tx.clear();
    assert_eq!(end, 1 + u32::from(QUICK_ACKS) + 1460);
    for _ in 0..4 {
        segment(&mut w);
        w.silence();
        let end = segment(&mut w);
        w.expect_ack(1, end);
    }
    let end = segment(&mut w);
    w.pass(DELAYED_ACK_US / 1000 - 1);
    w.silence();
    w.pass(2);
    w.expect_ack(1, end);
}

/// What fills a gap, in part or whole, is acknowledged at once (RFC 5681 4.2).
#[test]
fn filling_a_gap_is_acknowledged_at_once() {
    let mut w = mute();
    let at = settled(&mut w);
    w.send(data(at + 10, 1, b"later"));
    w.expect_ack(1, at);
    w.send(data(at, 1, b"01234"));
    w.expect_ack(1, at + 5);
    w.send(data(at + 5, 1, b"56789"));
    w.expect_ack(1, at + 15);
    // Nothing is missing any more: back to waiting.
    w.send(data(at + 15, 1, b"."));
    w.silence();
}

/// An answer in the same turn carries the acknowledgement.
#[test]
fn an_answer_carries_the_acknowledgement() {
    let mut w = World::established();
    for i in 0..40 {
        w.send(data(1 + i, 1 + i, b"e"));
        w.expect_data(1 + i, 2 + i, b"e");
    }
    w.silence();
    assert_eq!(w.counters().acks_sent, 0);
}

/// RFC 9293 3.8.6.1: a probe of a closed window is answered; the window opens without small steps (3.8.6.2.2).
#[test]
fn a_window_closes_is_probed_and_opens() {
    let mut w = mute();
    w.app.deaf = true;
    let mut at = 1;
    let room = loop {
        w.send(data(at, 1, &[b'x'; 1460]));
        w.pass(50);
        at += 1460;
        let last = std::iter::from_fn(|| w.next()).last().unwrap();
        if last.window == 0 {
            break last.ack;
        }
    };
    assert!(room < at, "something was cut: {room} {at}");
    assert!(w.counters().gate_trimmed > 0);
    for _ in 0..5 {
        w.pass(1000);
        w.send(data(room, 1, b"y"));
        assert_eq!(w.expect_ack(1, room).window, 0);
    }
    w.app.deaf = false;
    w.shard.drain(w.now, &mut w.queue, &mut w.app);
    let got = std::iter::from_fn(|| w.next()).last().expect("a window update");
    assert_eq!((got.ack, text(&w).len() as u32), (room, room - 1));
    assert!(got.window > 400, "{got:?}");
    w.send(fin(room, 1));
    w.expect(FIN_ACK, 1, room + 1, b"");
}

/// URG means nothing here (RFC 6093 6): the bytes are in line, wherever they come.
#[test]
fn urgent_text_is_in_line() {
    let mut w = mute();
    w.send(Seg { flags: Flags(0x30), ..data(4, 1, b"gent") });
    w.send(Seg { flags: Flags(0x38), ..data(1, 1, b"ur") });
    w.send(Seg { flags: Flags(0x38), ..data(3, 1, b"-") });
    assert_eq!(text(&w), b"ur-gent");
}

#[test]
fn a_fin_stands_where_it_was_first_believed() {
    // Text behind a FIN that came early is not text; another FIN further on is not believed.
    let mut w = mute();
    w.send(fin(6, 1));
    w.send(data(6, 1, b"never"));
    w.send(fin(11, 1));
    w.send(data(1, 1, b"hello, never"));
    assert_eq!(text(&w), b"hello");
    assert_eq!(w.events().last(), Some(&Event::Finished));
    assert_eq!(w.counters().gate_trimmed, 2);
    let last = std::iter::from_fn(|| w.next()).last().unwrap();
    assert_eq!((last.flags, last.ack), (FIN_ACK, 7));
    w.send(ack(7, 2));
    w.quiescent();
    // Text that came first is not cut by a FIN in front of it.
    let mut w = mute();
    w.send(data(6, 1, b"world"));
    w.send(fin(8, 1));
    assert_eq!(w.counters().gate_fin_held, 1);
    w.send(data(1, 1, b"hello"));
    assert_eq!(text(&w), b"helloworld");
    w.send(fin(11, 1));
    assert_eq!(w.events().last(), Some(&Event::Finished));
}

/// Beyond the window a FIN is nothing: its text is missing.
#[test]
fn a_fin_beyond_the_window_is_not_taken() {
    let mut w = World::unscaled();
    w.app.mute = true;
    w.app.deaf = true;
    for at in (0..65_000).step_by(1000) {
        w.send(data(1 + at, 1, &[b'x'; 1000]));
    }
    w.queue.tx.clear();
    w.send(seg(FIN_ACK, 65_001, 1, &[b'x'; 1000]));
    assert_eq!((w.counters().gate_fin_held, w.counters().gate_trimmed), (1, 1));
    let last = w.next().unwrap();
    assert_eq!((last.ack, last.window), (65_536, 0));
    w.app.deaf = false;
    w.shard.drain(w.now, &mut w.queue, &mut w.app);
    w.send(seg(FIN_ACK, 65_001, 1, &[b'x'; 1000]));
    assert_eq!((text(&w).len(), w.events().last()), (66_000, Some(&Event::Finished)));
}

/// Half-close: the peer goes on for long after our FIN, out of order, and is taken in full; we closed first.
#[test]
fn text_after_our_fin_is_taken() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.expect(FIN_ACK, 1, 5, b"");
    w.send(ack(5, 2));
    w.app.mute = true;
    w.send(seg(FIN_ACK, 10, 2, b"56789"));
    w.expect_ack(2, 5);
    w.send(data(5, 2, b"01234"));
    w.expect_ack(2, 16);
    assert_eq!(text(&w), b"shut0123456789");
    assert_eq!(w.shard.time_wait(), 1);
    w.quiescent();
}

/// Both FINs cross, the peer's in front of its last text (RFC 9293 3.6, figure 13).
#[test]
fn a_simultaneous_close_out_of_order() {
    let mut w = World::established();
    w.send(data(1, 1, b"shut"));
    w.expect(FIN_ACK, 1, 5, b"");
    w.app.mute = true;
    w.send(fin(8, 1));
    w.send(data(5, 1, b"end"));
    w.queue.tx.clear();
    w.send(ack(9, 2));
    assert_eq!(text(&w), b"shutend");
    assert_eq!(w.shard.time_wait(), 1);
    w.quiescent();
}

/// A slow reader's text waits outside of smoltcp's ring, and its FIN behind it.
#[test]
fn a_pool_without_room_takes_what_is_next_and_refuses_what_is_not() {
    let limits = Limits { hold_blocks: 4, ..small() };
    let mut w = World::with(limits, MemQueue::default());
    w.app.mute = true;
    w.establish();
    // Two blocks of four: half of what is free.
    for i in [3, 2, 1] {
        w.send(data(1 + i * 2 * HOLD_BLOCK as u32, 1, b"far"));
    }
    assert_eq!(w.counters().rx_hold_exhausted, 1);
    assert_eq!((w.counters().rx_out_of_order, w.shard.free_hold_blocks()), (3, 2));
    w.queue.tx.clear();
    w.send(data(1, 1, b"next"));
    assert_eq!(sack_blocks(&w.expect_ack(1, 5)).len(), 2);
    assert_eq!(text(&w), b"next");
    w.send(rst(5));
    assert_eq!(w.shard.free_hold_blocks(), 4);
}

/// One-byte segments with one-byte gaps: bounded, and what is expected still comes through.
#[test]
fn holes_are_bounded() {
    let mut w = mute();
    for i in 0..RANGES as u32 + 50 {
        w.send(data(3 + 2 * i, 1, b"x"));
    }
    assert_eq!(w.counters().rx_too_many_holes, 50);
    w.queue.tx.clear();
    for i in 0..RANGES as u32 {
        w.send(data(1 + 2 * i, 1, b"yy"));
    }
    w.send(data(1 + 2 * RANGES as u32, 1, b"y"));
    assert_eq!(text(&w), [&b"yy"[..], &b"xy".repeat(RANGES - 1), b"xy"].concat()[..2 * RANGES + 1]);
    w.send(rst(2 + 2 * RANGES as u32));
    w.quiescent();
}

/// Text behind a hole that block number `n` of the stream lies in.
fn behind_a_hole(w: &mut World, n: u32) {
    w.send(data(1 + n * HOLD_BLOCK as u32, 1, b"far"));
    w.queue.tx.clear();
}

/// Linux: `tcp_prune_ofo_queue`. Connections that leave a hole and go silent hold all there is; who comes later gets in.
#[test]
fn holes_that_nobody_fills_do_not_keep_others_from_theirs() {
    for busy in [false, true] {
        let limits = Limits { hold_blocks: 8, ..small() };
        let mut w = World::with(limits, MemQueue::default());
        w.app.mute = true;
        let mut hostile = vec![];
        for _ in 0..10 {
            w.establish_more();
            hostile.push((w.key, w.server_isn));
            behind_a_hole(&mut w, 2);
            behind_a_hole(&mut w, 4);
        }
        assert!(w.shard.free_hold_blocks() <= 1);
        w.establish_more();
        let honest = (w.key, w.server_isn);
        let before = w.counters();
        for round in 0..30u32 {
            w.pass(if round == 0 { 4_000 } else { 200 });
            // Those that are busy, too, take what they can get.
            for &(key, isn) in hostile.iter().filter(|_| busy) {
                (w.key, w.server_isn) = (key, isn);
                w.send(data(1 + round, 1, b"z"));
                behind_a_hole(&mut w, 2);
                behind_a_hole(&mut w, 4);
            }
            (w.key, w.server_isn) = honest;
            w.queue.tx.clear();
            let start = 1 + round * 2 * HOLD_BLOCK as u32;
            let segment = [b'h'; 1024];
            // The second and later ones go again and again, until they are reported.
            for _ in 0..12 {
                w.send(data(start + 1024, 1, &segment));
                w.queue.tx.clear();
            }
            w.send(data(start, 1, &segment));
            let got = std::iter::from_fn(|| w.next()).map(|s| s.ack).max();
            assert_eq!(got, Some(start + 2048), "round {round}, busy: {busy}");
            for at in [2048, 3072, 4096, 5120, 6144, 7168] {
                w.send(data(start + at, 1, &segment));
            }
            w.queue.tx.clear();
        }
        let c = w.counters();
        assert!(c.rx_pruned > before.rx_pruned && c.rx_reneged > before.rx_reneged);
    }
}
