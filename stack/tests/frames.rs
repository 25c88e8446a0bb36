//! Text that the application reads in the frame it came in, and text that it leaves for later.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use khamsin_stack::Instant;
use khamsin_stack::wire::Flags;

/// Bytes of the peer's stream: several times what smoltcp's ring holds.
const STREAM: usize = 400_000;
const SEGMENT: usize = 1_000;

fn text(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(big_byte).collect()
}

/// A peer sends `STREAM` bytes and its FIN to an application that takes some of what it is shown; now and then two segments
/// change places, come twice, or come together.
fn upload(seed: u64) {
    let mut w = World::established();
    w.app.nibbles = Some(Dice(seed));
    let (mut dice, mut at, mut edge) = (Dice(seed), 0, 65_535);
    let mut rounds = 0;
    while at < STREAM {
        rounds += 1;
        assert!(rounds < 20_000, "seed {seed}: stuck at {at} of {STREAM}");
        let room = (edge - at).min(STREAM - at);
        if room >= 2 * SEGMENT {
            let (first, second) = (at, at + SEGMENT);
            let order = match dice.below(4) {
                0 => vec![second, first],
                1 => vec![first, first, second],
                _ => vec![first, second],
            };
            for at in order {
                w.queue(&data(1 + at as u32, 1, &text(at, SEGMENT)));
                if dice.below(2) == 0 {
                    w.turn();
                }
            }
            w.turn();
            at += 2 * SEGMENT;
        } else if at + room == STREAM && room > 0 {
            w.send(data(1 + at as u32, 1, &text(at, room)));
            at += room;
        }
        w.pass(1 + dice.below(3));
        while let Some(s) = w.next() {
            assert!(s.ack as usize <= 1 + at, "seed {seed}: acknowledged what was not sent");
            edge = edge.max(s.ack as usize - 1 + (usize::from(s.window) << 7));
        }
    }
    w.send(fin(1 + STREAM as u32, 1));
    for _ in 0..2_000 {
        w.pass(2);
    }
    assert_eq!(w.app.checked, STREAM, "seed {seed}");
    let said: Vec<Seg> = std::iter::from_fn(|| w.next()).collect();
    assert!(said.iter().any(|s| s.flags.fin() && s.ack as usize == STREAM + 2), "seed {seed}: {said:?}");
    assert!(w.events().contains(&Event::Finished), "seed {seed}");
    w.send(ack(STREAM as u32 + 2, 2));
    assert_eq!(w.counters().closed_finished, 1, "seed {seed}");
    assert_eq!(w.counters().rx_payload_bytes, STREAM as u64, "seed {seed}");
    w.quiescent();
}

#[test]
fn what_is_left_over_comes_later_in_order_and_once() {
    (1..=30).for_each(upload);
}

/// Nothing is left over: one call of the application for each segment, and smoltcp never has a byte.
#[test]
fn a_request_is_seen_in_one_piece() {
    let mut w = World::established();
    let mut at = 1;
    let mut answered = 1;
    for i in 0..200u32 {
        let request = text(i as usize, 700);
        w.queue(&Seg { flags: Flags::ACK | Flags::PSH, ..data(at, answered, &request) });
        w.turn();
        at += 700;
        w.expect(Flags::ACK | Flags::PSH, answered, at, &request);
        answered += 700;
    }
    let seen = w.events().into_iter().filter(|e| matches!(e, Event::Data(text) if text.len() == 700)).count();
    assert_eq!(seen, 200);
}

/// A loop that is told to be busy, or is given a deadline that has passed, does not sleep.
fn rests(w: &mut World) -> Instant {
    for _ in 0..4 {
        let turn = w.shard.turn(w.now, &mut w.queue, &mut w.app);
        let at = turn.deadline.unwrap();
        if !turn.busy && at > w.now {
            return at;
        }
    }
    panic!("it never comes to rest");
}

#[test]
fn without_a_frame_to_send_with_it_sleeps() {
    let mut w = World::established();
    w.queue.tx_frames_left = 0;
    w.send(data(1, 1, b"hello"));
    let exhausted = w.counters().tx_exhausted;
    assert!(exhausted > 0);
    // As long as it takes, and it keeps trying.
    for _ in 0..10 {
        w.now = rests(&mut w);
    }
    assert!(w.counters().tx_exhausted >= exhausted + 10);
    w.silence();
    w.queue.tx_frames_left = usize::MAX;
    w.now = rests(&mut w);
    w.expect_data(1, 6, b"hello");
}

/// The announcements of a start, of which none can go out.
#[test]
fn without_a_frame_announcements_wait() {
    let mut w = World::with(small(), MemQueue { tx_frames_left: 0, ..MemQueue::default() });
    for _ in 0..10 {
        w.now = rests(&mut w);
    }
    assert!(w.counters().tx_exhausted >= 10);
    w.queue.tx_frames_left = usize::MAX;
    w.now = rests(&mut w);
    assert!(!w.queue.tx.is_empty(), "they go out as soon as they can");
}
