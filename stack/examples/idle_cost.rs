//! What an idle connection costs in memory: `idle_cost CONNECTIONS [LIVE]`.
//!
//! Opens that many connections over frames in memory, two thousand a second of its own time, has each echo 64 bytes once, and
//! waits until all are parked. What the process has grown by since before there was a shard, divided by the connections, is
//! printed; then a thousand of them are woken, and must answer every byte.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod memory;

use khamsin_stack::limits::Limits;
use khamsin_stack::parked::{RECORD_V4, RECORD_V6};
use khamsin_stack::wire::Flags;
use khamsin_stack::*;
use memory::{Client, Echo, Memory, shard};

const TEXT: [u8; 64] = [b'x'; 64];

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

struct Bench {
    shard: Shard<Echo, Memory>,
    queue: Memory,
    now: Instant,
    /// Of each connection: what its client expects next. Its own number follows from how often it has spoken.
    acks: Vec<u32>,
}

impl Bench {
    fn say(&mut self, i: usize, seq: u32, flags: Flags, text: &[u8]) {
        let mut client = Client::new(i);
        (client.seq, client.ack) = (seq, self.acks[i]);
        let mut frame = self.queue.free.pop().unwrap();
        client.send(&mut frame, flags, text);
        self.queue.rx.push(frame);
        self.shard.turn(self.now, &mut self.queue, &mut Echo);
        for frame in self.queue.tx.drain(..) {
            client.take(&frame);
            self.queue.free.push(frame);
        }
        self.acks[i] = client.ack;
    }

    fn echo(&mut self, i: usize, seq: u32) {
        let before = self.acks[i];
        self.say(i, seq, Flags::ACK | Flags::PSH, &TEXT);
        assert_eq!(self.acks[i].wrapping_sub(before), 64, "every byte comes back");
        self.say(i, seq + 64, Flags::ACK, &[]);
    }
}

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let n = args[0];
    let defaults = Limits::with_parking(n);
    let limits = Limits { live: args.get(1).copied().unwrap_or(defaults.live), ..defaults };
    let mut queue = Memory::with_frames(1024);
    // Not zero, so that its pages count as ours before the measurement begins.
    let acks = vec![1; n];
    let before = resident();
    let (shard, now) = shard(limits, &mut queue);
    let started = resident();
    let mut bench = Bench { shard, queue, now, acks };
    let clock = std::time::Instant::now();
    let mut most = 0;
    for i in 0..n {
        bench.say(i, 1, Flags::SYN, &[]);
        bench.say(i, 2, Flags::ACK, &[]);
        bench.echo(i, 2);
        bench.now = bench.now.plus_micros(500);
        most = most.max(bench.shard.live() - bench.shard.parked());
    }
    let took = clock.elapsed();
    for _ in 0..200 {
        bench.now = bench.now.plus_micros(10_000);
        bench.shard.turn(bench.now, &mut bench.queue, &mut Echo);
    }
    let held = resident();
    assert_eq!((bench.shard.live(), bench.shard.parked()), (n, n));
    println!("{n} connections held, all parked; at most {most} were live at a time; opened in {took:.1?}");
    println!("  resident before the shard {before} B, when it had started {started} B, with all connections {held} B");
    println!(
        "  {:.1} B for each connection, all structures ({RECORD_V4} B of record over IPv4, {RECORD_V6} B over IPv6)",
        (held - before) as f64 / n as f64
    );
    let (sample, clock) = (n.min(1_000), std::time::Instant::now());
    for k in 0..sample {
        bench.echo(k * (n / sample), 66);
    }
    println!(
        "  {sample} of them woken: {:.1} us each, with two frames in and one out",
        clock.elapsed().as_micros() as f64 / sample as f64
    );
    assert_eq!(bench.shard.counters().woken, sample as u64);
}
