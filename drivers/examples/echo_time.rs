//! How the time of an echo grows with connections: `echo_time [--small-pages] [--parked] [CONNECTIONS...]`.
//!
//! Of so many open connections (1,000, 10,000, 100,000 and a million unless others are named) chance picks 64, each sends 64
//! bytes, one turn of a shard answers all; frames are in memory, and only turns are timed. All connections are live, unless
//! `--parked` asks for the bounds that a server has by default: then nearly every request wakes a connection and has another
//! one parked. Tables have huge pages, as in the server, unless `--small-pages` is said. Printed is the median of batches.
//! A million live connections touch some 7 GB.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

#[path = "../../stack/examples/memory/mod.rs"]
mod memory;

use khamsin_drivers::pages::ask_for_huge;
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::Flags;
use khamsin_stack::{Instant, Shard};
use memory::{Client, Echo, Memory, shard};
use std::time::Duration;

const TEXT: [u8; 64] = [b'x'; 64];
const BURST: usize = 64;
/// Between turns, microseconds: some 300,000 echoes a second, as a worker does them. Faster, no connection is silent for long
/// enough to be parked early.
const PAUSE_US: u64 = 100;
/// Turns of a batch, and batches.
const TURNS: usize = 400;
const BATCHES: usize = 25;

struct Bench {
    shard: Shard<Echo, Memory>,
    queue: Memory,
    now: Instant,
    /// What each client sends next, and expects next.
    numbers: Vec<[u32; 2]>,
    chance: u64,
}

impl Bench {
    fn open(connections: usize, limits: Limits, huge: bool) -> Bench {
        let mut queue = Memory::with_frames(4 * BURST);
        let (shard, now) = shard(limits, &mut queue);
        if huge {
            let asked: usize = shard.tables().into_iter().map(ask_for_huge).sum();
            assert!(asked > 0 || connections < 100_000, "this kernel has no huge pages");
        }
        let mut bench = Bench { shard, queue, now, numbers: vec![[1, 0]; connections], chance: 1 };
        let all: Vec<usize> = (0..connections).collect();
        for some in all.chunks(BURST) {
            bench.turn(some, Flags::SYN, &[]);
            bench.turn(some, Flags::ACK, &[]);
            bench.echo(some);
        }
        assert_eq!(bench.shard.live(), connections);
        bench
    }

    /// One segment of each of `some`, all served in one turn; how long that took.
    fn turn(&mut self, some: &[usize], flags: Flags, text: &[u8]) -> Duration {
        for &i in some {
            let mut client = Client::new(i);
            [client.seq, client.ack] = self.numbers[i];
            let mut frame = self.queue.free.pop().unwrap();
            client.send(&mut frame, flags, text);
            self.queue.rx.push(frame);
            self.numbers[i][0] = client.seq;
        }
        self.now = self.now.plus_micros(PAUSE_US);
        let started = std::time::Instant::now();
        self.shard.turn(self.now, &mut self.queue, &mut Echo);
        let took = started.elapsed();
        assert!(flags == Flags::ACK || self.queue.tx.len() >= some.len(), "{} answers", self.queue.tx.len());
        for (&i, frame) in some.iter().zip(&self.queue.tx) {
            let mut client = Client::new(i);
            client.take(frame);
            self.numbers[i][1] = client.ack;
        }
        self.queue.free.append(&mut self.queue.tx);
        took
    }

    /// A request of each of `some`, and the acknowledgement of its answer; only the former is timed.
    fn echo(&mut self, some: &[usize]) -> Duration {
        let took = self.turn(some, Flags::ACK | Flags::PSH, &TEXT);
        self.turn(some, Flags::ACK, &[]);
        took
    }

    fn batch(&mut self) -> f64 {
        let mut took = Duration::ZERO;
        for _ in 0..TURNS {
            let mut some = Vec::with_capacity(BURST);
            while some.len() < BURST {
                self.chance =
                    self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let i = ((u128::from(self.chance) * self.numbers.len() as u128) >> 64) as usize;
                if !some.contains(&i) {
                    some.push(i);
                }
            }
            took += self.echo(&some);
        }
        took.as_nanos() as f64 / (TURNS * BURST) as f64
    }
}

fn main() {
    let (options, sizes): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let has = |name: &str| options.iter().any(|o| o == name);
    let mut sizes: Vec<usize> = sizes.iter().map(|n| n.parse().unwrap()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000, 100_000, 1_000_000];
    }
    let mut first = None;
    for connections in sizes {
        let all = connections.max(1024);
        let limits = if has("--parked") { Limits::with_parking(all) } else { Limits::for_connections(all) };
        let mut bench = Bench::open(connections, limits, !has("--small-pages"));
        let mut batches: Vec<f64> = (0..BATCHES).map(|_| bench.batch()).collect();
        batches.sort_by(f64::total_cmp);
        let (median, least) = (batches[BATCHES / 2], batches[0]);
        let over = median / *first.get_or_insert(median);
        let woken = bench.shard.counters().woken as f64 / (BATCHES * TURNS * BURST) as f64;
        println!(
            "{connections:8} connections: {median:6.0} ns an echo, {over:.2} of the first ({least:.0} at the least); {woken:.2} woken each"
        );
    }
}
