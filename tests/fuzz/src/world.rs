//! One shard under a harness: its ring, its application, its clock, and what must hold after every turn.

use crate::packet::SERVER_MAC;
use crate::puppet::Puppet;
use crate::ring::{RING, Ring};
use core::time::Duration;
use khamsin_stack::limits::Limits;
use khamsin_stack::{Addresses, Caps, Counters, Instant, Listener, Shard, ShardConfig, Turn};

/// Turns that a shard may ask for without an event, and without the application's reading or writing anything, before it
/// has to come to rest: what one full store takes at the smallest segments, many times over. What can be read is bounded by
/// what came, and what can be written by the room: a session that reads one byte a call may well take a turn for each of them.
const RESTLESS_MAX: usize = 20_000;
/// Turns at one instant that may pass without the deadline moving on.
const STUCK_MAX: usize = 1_000;

/// What a device can do, by number.
pub fn caps(kind: usize) -> Caps {
    let plain = Caps { mac: SERVER_MAC, mtu: 1500, rx_partial_checksums: false, tx_checksum: false, tx_segment_max: 0 };
    match kind {
        0 => plain,
        1 => Caps { rx_partial_checksums: true, tx_checksum: true, tx_segment_max: 65_000, ..plain },
        2 => Caps { mtu: 9000, tx_checksum: true, ..plain },
        _ => Caps { mtu: 1280, ..plain },
    }
}

/// Kinds of devices.
pub const KINDS: usize = 4;
/// Each without parking, then each with it.
pub const WORLDS: usize = 2 * KINDS;

/// What the shards of the harnesses may hold: little, so that every bound is met.
pub fn limits() -> Limits {
    let others = Limits::for_connections(6);
    Limits { connections: 6, syn_backlog: 4, time_wait: 2, store_blocks: 10, hold_blocks: 16, ..others }
}

/// The same with parking after a tenth of a second, or as soon as the third connection comes: half of them may be live.
pub fn parking() -> Limits {
    Limits { live: 3, warm: 2, park_after_us: Some(100_000), ..limits() }
}

/// How the shards of the harnesses are set up.
pub fn config(limits: Limits) -> ShardConfig {
    ShardConfig {
        listeners: vec![Listener { app: 0, port: 7 }, Listener { app: 0, port: 80 }],
        addresses: Addresses::Own(vec![(address("198.18.0.2"), 24), (address("fd00::2"), 64)]),
        gateways: vec![address("198.18.0.254"), address("fd00::254")],
        limits,
        secret: *b"a secret of 32 bytes, for tests.",
        strays: None,
    }
}

fn address(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address as it is written here")
}

/// A shard and all around it.
pub struct World {
    pub shard: Shard<Puppet, Ring>,
    pub ring: Ring,
    pub app: Puppet,
    pub now: Instant,
    pub turn: Turn,
    blocks: usize,
}

impl World {
    /// A shard that has announced itself, on a device of that kind.
    pub fn new(kind: usize, config: ShardConfig) -> Self {
        let (ring, blocks) = (Ring::new(caps(kind)), config.limits.store_blocks);
        let mut app = Puppet::default();
        app.parks = config.limits.park_after_us.is_some();
        World {
            shard: Shard::new(config, caps(kind)),
            ring,
            app,
            now: Instant::from_millis(10_000),
            turn: Turn { busy: false, deadline: None },
            blocks,
        }
    }

    /// One turn, and what must hold behind it.
    pub fn turn(&mut self) -> Turn {
        let sent = self.ring.sent;
        self.turn = self.shard.turn(self.now, &mut self.ring, &mut self.app);
        let room = self.ring.starved.unwrap_or(RING) as u64;
        assert!(self.ring.sent - sent <= room, "more frames were sent than the ring had room for");
        assert_eq!(self.ring.out, 0, "frames are missing behind a turn");
        assert_eq!(self.shard.live() as u64, self.app.opened - self.app.closed, "connections and sessions differ");
        self.turn
    }

    /// Lets `duration` pass in as many turns as the deadlines ask for, at most `turns`; `seen` is shown the world after each.
    pub fn pass(&mut self, duration: Duration, turns: usize, mut seen: impl FnMut(&mut World)) {
        let end = self.now + duration;
        for _ in 0..turns {
            match self.turn.deadline {
                Some(at) if at < end => self.now = self.now.max(at),
                _ => break,
            }
            self.rest(&mut seen);
        }
        self.now = end;
        self.rest(&mut seen);
    }

    /// Turns without time passing, until the shard would sleep.
    pub fn rest(&mut self, seen: &mut impl FnMut(&mut World)) {
        let (mut stuck, mut restless, sent) = (0, 0, self.ring.sent);
        while restless < RESTLESS_MAX {
            let moved = self.app.read + self.app.written;
            self.turn();
            seen(self);
            restless += usize::from(self.app.read + self.app.written == moved);
            let overdue = self.turn.deadline.is_some_and(|at| at <= self.now);
            if !self.turn.busy && !overdue {
                return;
            }
            stuck += usize::from(!self.turn.busy);
            assert!(stuck < STUCK_MAX, "the deadline stays in the past: the server would spin");
        }
        panic!("the shard never comes to rest; {} frames, and {RESTLESS_MAX} turns in vain", self.ring.sent - sent);
    }

    /// Ends everything and lets every table run empty; then nothing may be left behind.
    pub fn settle(&mut self, mut seen: impl FnMut(&mut World)) {
        self.ring.starved = None;
        self.ring.capacity = Ring::new(caps_of(&self.ring)).capacity;
        self.shard.set_mtu(self.now, self.mtu_max());
        self.rest(&mut seen);
        self.shard.abort_all(self.now, &mut self.ring, &mut self.app);
        seen(self);
        for _ in 0..64 {
            self.now += Duration::from_secs(130);
            self.rest(&mut seen);
            if self.shard.half_open() == 0 && self.shard.time_wait() == 0 {
                break;
            }
        }
        self.check_quiet();
    }

    /// Largest IP packet that the device carries, bytes.
    pub fn mtu_max(&self) -> usize {
        caps_of(&self.ring).mtu
    }

    /// Nothing is held for anybody, and the counters tell the truth.
    pub fn check_quiet(&self) {
        let held = (self.shard.live(), self.shard.half_open(), self.shard.time_wait(), self.ring.out);
        assert_eq!(held, (0, 0, 0, 0), "left behind: connections, half-open ones, TIME-WAIT, frames");
        assert_eq!(self.shard.free_blocks(), self.blocks, "blocks of the send store are lost");
        let c = *self.shard.counters();
        assert_eq!(c.closed_panicked, 0, "code panicked over a connection");
        assert_eq!(self.app.opened, self.app.closed, "a session was opened and never closed");
        assert_eq!(c.accepted, closed(&c), "connections accepted and closed differ");
        assert_eq!(c.rx_frames, self.ring.taken, "rx_frames lies");
        assert_eq!(c.tx_frames, self.ring.sent, "tx_frames lies");
        assert!(c.tx_payload_bytes <= self.app.written, "tx_payload_bytes lies");
        assert!(c.rx_payload_bytes >= self.app.read, "rx_payload_bytes lies");
    }
}

fn caps_of(ring: &Ring) -> Caps {
    khamsin_stack::Queue::caps(ring)
}

/// Connections that ended, for whatever reason.
pub fn closed(c: &Counters) -> u64 {
    // By name: a fuzzer that sees strings compared learns to write them.
    let peers = c.closed_finished + c.closed_reset + c.closed_timed_out;
    peers + c.closed_aborted + c.closed_drained + c.closed_panicked
}
