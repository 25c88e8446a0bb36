//! A hundred thousand connections that say nothing: what they take, by what the process grows and by account.
#![allow(clippy::unwrap_used)]

#[path = "../examples/memory/mod.rs"]
mod memory;

use khamsin_stack::limits::Limits;
use khamsin_stack::shard::cost;
use khamsin_stack::wire::Flags;
use memory::{Client, Echo, Memory, shard};

const CONNECTIONS: usize = 100_000;
/// Live at a time: their memory is used again and again.
const LIVE: usize = 64;

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

// The only test of its process, so that what the process grows by is what it takes.
#[test]
fn a_hundred_thousand_idle_connections_take_96_bytes_each() {
    let limits = Limits { live: LIVE, ..Limits::with_parking(CONNECTIONS) };
    let mut queue = Memory::with_frames(64);
    let mut acks = vec![1u32; CONNECTIONS];
    let before = resident();
    let (mut shard, mut now) = shard(limits, &mut queue);
    let mut say = |i: usize, seq: u32, flags: Flags, text: &[u8], acks: &mut Vec<u32>| {
        let mut client = Client::new(i);
        (client.seq, client.ack) = (seq, acks[i]);
        let mut frame = queue.free.pop().unwrap();
        client.send(&mut frame, flags, text);
        queue.rx.push(frame);
        now = now.plus_micros(50);
        shard.turn(now, &mut queue, &mut Echo);
        for frame in queue.tx.drain(..) {
            client.take(&frame);
            queue.free.push(frame);
        }
        acks[i] = client.ack;
        (shard.live(), shard.parked())
    };
    let mut open = (0, 0);
    for i in 0..CONNECTIONS {
        say(i, 1, Flags::SYN, &[], &mut acks);
        open = say(i, 2, Flags::ACK, &[], &mut acks);
    }
    assert_eq!(open, (CONNECTIONS, CONNECTIONS - LIVE));
    let grown = resident().saturating_sub(before);
    let parts = cost::<Echo>(&limits);
    let idle: usize = parts.iter().filter(|part| part.idle).map(|part| part.each).sum();
    // What does not grow with the connections: parts of the live ones, half-open ones, fragments, one page at each end.
    let fixed = 4 << 20;
    println!("grown by {grown} B: {:.1} for each, {idle} by account", grown as f64 / CONNECTIONS as f64);
    assert!(idle <= 96, "{parts:?}");
    assert!(grown <= 96 * CONNECTIONS + fixed, "{grown} B for {CONNECTIONS}");
    // None has forgotten anything.
    for i in (0..CONNECTIONS).step_by(97) {
        let before = acks[i];
        say(i, 2, Flags::ACK | Flags::PSH, &[b'x'; 64], &mut acks);
        assert_eq!(acks[i].wrapping_sub(before), 64);
        say(i, 66, Flags::ACK, &[], &mut acks);
    }
}
