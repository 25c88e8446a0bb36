//! A peer that sends what no honest stack sends: valid handshakes, then anything near the window. Nothing panics, no turn
//! answers more than it should, and nothing is left behind. From a seed; a failure names it.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use khamsin_stack::wire::Flags;
use khamsin_stack::{CloseReason, Counters};

/// What an attacker knows of a connection: it sees every frame.
#[derive(Default, Clone, Copy)]
struct Seen {
    /// The server's next sequence number and its acknowledgement number, relative.
    nxt: u32,
    ack: u32,
    window: u32,
    isn: u32,
}

fn near(dice: &mut Dice, at: u32, window: u32) -> u32 {
    let step = match dice.below(12) {
        0..=5 => 0,
        6 => 1,
        7 => 1u32.wrapping_neg(),
        8 => dice.below(3000) as u32,
        9 => (dice.below(3000) as u32).wrapping_neg(),
        10 => window.wrapping_add(dice.below(3) as u32).wrapping_sub(1),
        _ => dice.pick(&[1 << 30, (1 << 30) + 1, i32::MAX as u32, 1 << 31, (1 << 31) + 1, 3 << 30, dice.0 as u32]),
    };
    at.wrapping_add(step)
}

fn one_segment(dice: &mut Dice, seen: &Seen) -> Seg {
    let flags = match dice.below(16) {
        0..=8 => Flags::ACK | Flags::PSH,
        9 | 10 => Flags::ACK | Flags::FIN,
        11 => Flags::ACK,
        12 => Flags::RST,
        13 => Flags::SYN,
        _ => Flags(dice.roll() as u8),
    };
    let word: &[&[u8]] = &[b"hello", b"big", b"shut", b"timer", b"abort", b"x", b""];
    let payload = match dice.below(4) {
        0 => vec![b'a'; dice.below(1461) as usize],
        _ => dice.pick(word).to_vec(),
    };
    let options = match dice.below(8) {
        0 => (0..4 * dice.below(11)).map(|_| dice.roll() as u8).collect(),
        1 => vec![2, 4, 0, 0],
        2 => stamp(1000 + dice.below(3) as u32 - 1, 0),
        _ => vec![],
    };
    let window = dice.pick(&[0, 1, 8, 500, 65_535]);
    Seg { flags, seq: near(dice, seen.ack, seen.window), ack: near(dice, seen.nxt, 1000), window, options, payload }
}

fn run(seed: u64, segments: usize) -> Counters {
    let mut dice = Dice(seed);
    let mut w = World::new();
    let mut seen = [Seen::default(); 4];
    for step in 0..segments {
        let who = dice.below(4) as usize;
        w.key.peer_port = 40_000 + who as u16;
        w.server_isn = seen[who].isn;
        w.app.deaf = dice.below(16) == 0;
        w.app.stays = dice.below(16) == 0;
        w.queue.tx_frames_left = if dice.below(32) == 0 { dice.below(4) as usize } else { usize::MAX };
        let s = if seen[who].isn == 0 || dice.below(40) == 0 {
            let mut s = Seg { seq: dice.pick(&[0, 1 << 20, 1 << 31]), ..syn() };
            if who.is_multiple_of(2) {
                s.options.extend(stamp(1000, 0));
                s.flags = s.flags | Flags::ECE | Flags::CWR;
            }
            s
        } else {
            one_segment(&mut dice, &seen[who])
        };
        w.queue(&s);
        if dice.below(4) == 0 {
            continue; // several in one burst
        }
        w.turn();
        let out = w.queue.tx.len();
        assert!(out < 2000, "seed {seed} step {step}: {out} frames from one turn");
        learn(&mut w, &mut seen);
        if dice.below(64) == 0 {
            w.queue.tx_frames_left = usize::MAX;
            w.pass(dice.pick(&[1, 50, 300, 2_000, 70_000]));
            learn(&mut w, &mut seen);
        }
    }
    w.queue.tx_frames_left = usize::MAX;
    w.pass(2_000_000);
    w.shard.abort_all(w.now, &mut w.queue, &mut w.app);
    w.queue.tx.clear();
    w.pass(1_000);
    w.quiescent();
    let (opened, closed) = count(&w);
    assert_eq!(opened, closed, "seed {seed}: every session that opened closed");
    let panicked = w.events().iter().filter(|e| **e == Event::Closed(CloseReason::Panicked)).count();
    assert_eq!(panicked, 0, "seed {seed}: a panic is reachable from the wire");
    w.counters()
}

fn count(w: &World) -> (usize, usize) {
    let events = w.app.events.borrow();
    let closed = events.iter().filter(|e| matches!(e, Event::Closed(_))).count();
    (events.iter().filter(|e| **e == Event::Open).count(), closed)
}

fn learn(w: &mut World, seen: &mut [Seen; 4]) {
    while let Some(frame) = w.queue.tx.pop_front() {
        let khamsin_stack::wire::Kind::Tcp(s) = khamsin_stack::wire::parse(&frame).kind else { continue };
        let seen = &mut seen[usize::from(s.key.local_port - 40_000)];
        if s.flags.rst() {
            continue;
        }
        if s.flags.syn() {
            seen.isn = s.seq;
        }
        seen.nxt = s.seq.wrapping_add(s.sequence_len()).wrapping_sub(seen.isn);
        seen.ack = s.ack.wrapping_sub(PEER_ISN);
        seen.window = u32::from(s.window);
    }
}

/// Seeds and segments for each; `KHAMSIN_HOSTILE_SEEDS` asks for more.
#[test]
fn nothing_that_a_peer_sends_panics_or_leaks() {
    let seeds = std::env::var("KHAMSIN_HOSTILE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut total = Counters::default();
    for seed in 1..=seeds {
        total.add(&run(seed, 1_500));
    }
    // It gets through to every kind of trouble, or it proves nothing.
    for (name, value) in total.iter().filter(|(name, _)| name.starts_with("gate_") || name.starts_with("closed_")) {
        assert!(value > 0 || name == "closed_panicked", "{name} never moved");
    }
}
