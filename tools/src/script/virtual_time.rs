//! A script against khamsin's stack, in virtual time.

use super::actor::Actor;
use super::model::{Command, Family, Script};
use super::play::{Mismatch, Report, Stage, play};
use super::wire::{Conversation, PORT, SERVER};
use khamsin_drivers::sim::{Side, SimConfig, SimEnd, SimQueue, Wire};
use khamsin_stack::app::Patience;
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::Addresses;
use khamsin_stack::{Instant, Listener, Queue, Shard, ShardConfig};
use std::collections::VecDeque;
use std::time::Duration;

/// When the world begins: not at zero, where nothing lies before.
const START: Instant = Instant::from_millis(1_000_000);
/// More turns than any script needs; one that needs them stands still.
const TURNS_MAX: u32 = 2_000_000;
/// What the wheel may be late by, and the rounding of a deadline to it, microseconds.
const SLACK_US: u64 = 2_500;

/// Silence after which connections are parked where they are, microseconds: scripts are over within seconds.
const PARK_AFTER_US: u64 = 10_000;

/// Runs `script` against the stack in virtual time, over every version of IP that it names. `parks`: its connections are
/// parked as soon as nothing happens.
///
/// # Errors
/// The first line that the stack did not fulfil.
pub fn run_virtual(script: &Script, parks: bool) -> Result<Vec<Report>, Box<Mismatch>> {
    script.header.families.iter().map(|family| run_virtual_over(script, *family, parks)).collect()
}

/// Runs `script` against the stack in virtual time, over one version of IP; see [`run_virtual`].
///
/// # Errors
/// The first line that the stack did not fulfil.
pub fn run_virtual_over(script: &Script, family: Family, parks: bool) -> Result<Report, Box<Mismatch>> {
    let (server, peer) = (Side::Left.mac(), Side::Right.mac());
    let conversation = Conversation::new(family, server, peer, script.header.port_closed);
    play(script, family, conversation, &mut World::new(script, parks)).map_err(Box::new)
}

struct World {
    shard: Shard<Actor, SimQueue>,
    queue: SimQueue,
    app: Actor,
    wire: Wire,
    peer: SimEnd,
    now: Instant,
    deadline: Option<Instant>,
    sent: VecDeque<(Instant, Vec<u8>)>,
    turns: u32,
}

/// What a server of one conversation holds; its memory is never given back (the shard's arena), so not much.
fn limits(script: &Script, parks: bool) -> Limits {
    let syn_backlog = script.header.syn_backlog.unwrap_or(4);
    let park_after_us = parks.then_some(PARK_AFTER_US);
    Limits {
        syn_backlog,
        time_wait: 4,
        store_blocks: 256,
        hold_blocks: 2048,
        park_after_us,
        ..Limits::for_connections(4)
    }
}

impl World {
    fn new(script: &Script, parks: bool) -> Self {
        let wire = Wire::new(SimConfig { latency_us: 0, ..SimConfig::default() });
        wire.advance(START);
        let queue = wire.queue(Side::Left);
        let config = ShardConfig {
            listeners: vec![Listener { app: 0, port: PORT }],
            addresses: Addresses::Own(vec![(SERVER.0.into(), 24), (SERVER.1.into(), 64)]),
            gateways: vec![],
            limits: limits(script, parks),
            secret: *b"the same each time, for a script",
            strays: None,
        };
        World {
            shard: Shard::new(config, queue.caps()),
            queue,
            app: Actor::new(Patience {
                keep_alive: script.header.keep_alive_us.map(Duration::from_micros),
                user_timeout: script.header.user_timeout_us.map(Duration::from_micros),
            }),
            peer: wire.end(Side::Right),
            wire,
            now: START,
            deadline: Some(START),
            sent: VecDeque::new(),
            turns: 0,
        }
    }

    /// Turns until nothing is left to do at once.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            self.turns += 1;
            if self.turns > TURNS_MAX {
                return Err(format!("the stack took {TURNS_MAX} turns and did not come to rest"));
            }
            self.wire.advance(self.now);
            let turn = self.shard.turn(self.now, &mut self.queue, &mut self.app);
            self.wire.advance(self.now);
            while let Some(frame) = self.peer.recv() {
                self.sent.push_back((self.now, frame));
            }
            if !turn.busy {
                self.deadline = turn.deadline;
                return Ok(());
            }
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        at.micros_since(START)
    }
}

impl Stage for World {
    fn now(&self) -> u64 {
        self.micros(self.now)
    }

    fn next_frame(&mut self, until: u64) -> Result<Option<(u64, Vec<u8>)>, String> {
        let until = START.plus_micros(until);
        loop {
            if let Some((at, frame)) = self.sent.pop_front() {
                return Ok(Some((self.micros(at), frame)));
            }
            if self.now >= until {
                return Ok(None);
            }
            // Stops at every deadline as a real loop does; one that has passed already is asked for again a little later.
            let next = self.deadline.map_or(until, |at| at.max(self.now.plus_micros(100)));
            self.now = next.min(until);
            self.settle()?;
        }
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        self.peer.send(frame);
        self.settle()
    }

    fn command(&mut self, command: &Command) -> Result<(), String> {
        self.app.order(command)?;
        self.shard.wake_all();
        self.settle()?;
        self.app.outcome()
    }

    fn slack(&self, _: u64) -> (u64, u64) {
        (SLACK_US, SLACK_US)
    }
}
