//! The receive window and what waits in it: scale, growth, and a stream in any order.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::{Flags, tcp_options};

const FIN_ACK: Flags = Flags(0x11);

/// RFC 7323 2.2, 2.4: scaled if both say so; the right edge never moves back, nor for ever by its rounding.
#[test]
fn a_scaled_window_keeps_its_edge() {
    let mut w = World::new();
    (w.app.mute, w.app.deaf) = (true, true);
    w.send(syn());
    let got = w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    let header = [&[0; 20][..], &got.options].concat();
    assert_eq!((got.window, tcp_options(&header).window_scale), (65_535, Some(SHIFT)));
    w.send(ack(1, 1));
    let mut edge = 1 + 65_535;
    let mut at = 1;
    let mut take = |w: &mut World, n: u32| {
        w.send(data(at, 1, &vec![b'x'; n as usize]));
        at += n;
        w.pass(50);
        let last = std::iter::from_fn(|| w.next()).last().unwrap();
        let right = last.ack + (u32::from(last.window) << SHIFT);
        (last.ack == at, right)
    };
    for n in (1..).map(|i| 1 + i * 37 % 1460).take(80) {
        let (_, right) = take(&mut w, n);
        assert!((edge..edge + 128).contains(&right), "{edge} {right}");
        edge = right;
    }
    // Byte by byte into what is left: rounded up, it would never end.
    for _ in 0..40_000 {
        let (taken, right) = take(&mut w, 1);
        assert!(right + 128 > edge, "{edge} {right}");
        if !taken {
            break;
        }
        edge = edge.max(right);
    }
    assert!(edge < 1 + 65_536 + 17_000, "{edge}");
    assert_eq!(w.counters().gate_trimmed, 1);
    // A peer that does not scale gets none of it.
    let mut w = World::unscaled();
    w.send(data(1, 1, b"hello"));
    assert_eq!(w.expect_data(1, 6, b"hello").window, 65_530);
}

/// A peer that sends all it may every 20 ms, `rounds` times; its next number. `edge` is how far it may send.
fn pour(w: &mut World, mut at: usize, edge: &mut usize, rounds: usize) -> usize {
    for _ in 0..rounds {
        w.pass(20);
        while let Some(s) = w.next() {
            *edge = (*edge).max(s.ack as usize - 1 + (usize::from(s.window) << SHIFT));
        }
        while at < *edge {
            let n = (*edge - at).min(1460);
            let text: Vec<u8> = (at..at + n).map(big_byte).collect();
            w.send(data(1 + at as u32, 1, &text));
            at += n;
        }
    }
    at
}

/// The window grows with what is read, as far as memory goes; and whoever then stops reading gets everything that was
/// promised and acknowledged, in time.
#[test]
fn a_large_window_is_honoured() {
    let mut w = World::new();
    w.app.checks = true;
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.pass(20);
    w.send(ack(1, 1));
    let mut edge = 65_535;
    let at = pour(&mut w, 0, &mut edge, 20);
    let window = edge - at;
    assert_eq!((window, w.app.checked), (0, at));
    assert!(w.counters().rx_window_grown > 0);
    // 256 blocks: half of them for one, and smoltcp's ring.
    (w.app.deaf, w.app.naps) = (true, true);
    let before = at;
    w.pass(20);
    let at = pour(&mut w, at, &mut edge, 3);
    assert!((450_000..600_000).contains(&(at - before)), "{}", at - before);
    assert_eq!(w.counters().rx_hold_exhausted, 0);
    assert!(w.shard.free_hold_blocks() >= 128);
    // A probe is answered, and takes nothing.
    w.pass(1000);
    w.queue.tx.clear();
    w.send(data(1 + at as u32, 1, b"?"));
    assert_eq!(w.expect_ack(1, 1 + at as u32).window, 0);
    w.app.deaf = false;
    w.pass(100);
    assert_eq!(w.app.checked, at);
    let update = std::iter::from_fn(|| w.next()).last().expect("a window update");
    assert!(update.window > 500, "{update:?}");
    assert_eq!(w.shard.free_hold_blocks(), small().hold_blocks);
}

/// Any segmentation, overlap, order, repetition and loss, an application that reads when it likes, a pool that is too
/// small: the stream comes out as it went in, once, and then its end.
fn any_order(seed: u64) -> khamsin_stack::Counters {
    let mut dice = Dice(seed);
    let blocks = [1, 4, 64, 256][dice.below(4) as usize];
    let mut w = World::with(Limits { hold_blocks: blocks, ..small() }, MemQueue::default());
    (w.app.mute, w.app.naps) = (true, true);
    w.establish();
    let total = 1 + dice.below(200_000) as usize;
    let stream: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
    let (mut acked, mut done) = (0usize, false);
    for _ in 0..100_000 {
        w.app.deaf = dice.below(3) == 0;
        // Near the edge of what is acknowledged, or anywhere in the window and a little around it.
        let spread = [1, 3_000, 30_000, 80_000][dice.below(4) as usize];
        let from = (acked + dice.below(spread) as usize).saturating_sub(dice.below(2_000) as usize).min(total);
        let most = [3, 1461, 20_000][dice.below(3) as usize];
        let len = dice.below(most) as usize;
        let to = (from + len).min(total);
        let flags = if to == total && dice.below(2) == 0 { FIN_ACK } else { Flags::ACK };
        w.queue(&seg(flags, 1 + from as u32, 1, &stream[from..to]));
        if dice.below(4) == 0 {
            continue;
        }
        w.pass(dice.below(3) * 30);
        while let Some(s) = w.next() {
            let next = s.ack as usize - 1;
            assert!(next >= acked, "seed {seed}: acknowledged {acked}, then {next}");
            acked = next.min(total);
            done |= s.flags.fin();
            for (left, right) in sack_blocks(&s) {
                assert!(left < right && right as usize <= total + 1, "seed {seed}: {left} {right}");
            }
        }
        if done {
            break;
        }
    }
    assert!(done, "seed {seed}: {acked} of {total}");
    assert_eq!(text(&w), stream, "seed {seed}");
    w.send(ack(total as u32 + 2, 2));
    assert_eq!(w.shard.live(), 0);
    assert_eq!(w.shard.free_hold_blocks(), blocks, "seed {seed}");
    w.counters()
}

/// Of our windows.
const SHIFT: u8 = khamsin_stack::limits::RX_SHIFT;

#[test]
fn any_order_gives_the_same_stream() {
    let seeds = std::env::var("KHAMSIN_RECEIVE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut all = khamsin_stack::Counters::default();
    for seed in 0..seeds {
        all.add(&any_order(seed));
    }
    let elsewhere = ["rx_too_many_holes", "rx_pruned"];
    for (name, value) in all.iter().filter(|(name, _)| name.starts_with("rx_") && !elsewhere.contains(name)) {
        assert!(value > 0, "{name} never moved");
    }
    assert!(all.rx_reneged > 0 && all.rx_handed_on > 0, "a pool too small, and a reader too slow");
}
