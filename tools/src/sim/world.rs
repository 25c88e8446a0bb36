//! Runs a scenario: virtual time, one event after the other, until nothing is left to happen.

use super::hostile::Hostile;
use super::link::{Harmed, Link};
use super::peer::Driver;
use super::scenario::{Scenario, Weather};
use super::server::{Files, Records, Server, listeners};
use super::tap::Tapped;
use super::verdict::{self, Failure};
use super::witness::{Terms, Witness};
use khamsin_drivers::sim::client::Station;
use khamsin_drivers::sim::{Side, SimEnd, Wire};
use khamsin_stack::shard::{Shard, ShardConfig, Turn};
use khamsin_stack::wire::Addresses;
use khamsin_stack::{Counters, Instant, Queue, stray};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod quiet;

/// The server's addresses.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2));
/// The same over IPv6.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
/// The clients' addresses; hostile peers have those behind [`HOSTILE_FIRST`].
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
/// The same over IPv6.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
/// Last byte of the first hostile peer's address.
pub const HOSTILE_FIRST: u8 = 100;

/// Longest that clients may take, microseconds of virtual time.
const CLIENTS_MAX_US: u64 = 7_200_000_000;
/// Turns that the server asks for in a row without a frame moving: it spins.
const IDLE_STEPS_MAX: u32 = 20_000;
/// A turn that has nothing to do but waits for a frame comes again so much later, microseconds.
const IDLE_TURN_US: u64 = 200;

/// One shard and what belongs to it.
pub(super) struct Core {
    pub(super) shard: Shard<Server, Tapped>,
    pub(super) queue: Tapped,
    pub(super) app: Server,
    pub(super) turn: Turn,
    rung: Arc<AtomicBool>,
}

/// A scenario at work.
pub struct World {
    pub(super) scenario: Rc<Scenario>,
    pub(super) wire: Wire,
    pub(super) cores: Vec<Core>,
    pub(super) station: Station,
    pub(super) drivers: Vec<Driver>,
    pub(super) hostiles: Vec<Hostile>,
    pub(super) records: Rc<RefCell<Records>>,
    pub(super) witness: Rc<RefCell<Witness>>,
    pub(super) harmed: Harmed,
    pub(super) now: Instant,
    /// How far the server's clock is ahead.
    ahead_us: u64,
    idle_steps: u32,
    /// Frames that had moved when the last step was taken.
    moved: u64,
    /// Nobody but the server wanted the next step.
    servers_turn: bool,
    failure: Option<Failure>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was wrong first, if anything was.
    pub failure: Option<Failure>,
    /// Frames put on the wire, both directions.
    pub frames: u64,
    /// Virtual time, microseconds.
    pub virtual_us: u64,
    /// What the server's shards have counted, together.
    pub counters: Counters,
    /// Frames that the path harmed.
    pub harmed: std::collections::BTreeSet<(bool, u64)>,
}

/// Whether a peer keeps to the rules.
pub fn is_honest(peer: &SocketAddr) -> bool {
    peer.ip() == CLIENT_V4 || peer.ip() == CLIENT_V6
}

impl World {
    /// Sets the scene.
    pub fn new(scenario: Scenario, files: &Files) -> World {
        let scenario = Rc::new(scenario);
        let harmed = Harmed::default();
        let wire = Wire::with_faults(scenario.wire.clone(), Link::new(Rc::clone(&scenario), Rc::clone(&harmed)));
        let moves_us = scenario.moves_us.clone();
        let queues = wire.queues(Side::Left, scenario.shards, move |at, frame| steer(&moves_us, at, frame));
        let terms = Terms {
            caps: queues[0].caps(),
            direct: scenario.shards == 1,
            ack_within_us: is_prompt(&scenario).then_some(500_000 + 1_000),
        };
        let witness = Rc::new(RefCell::new(Witness::new(terms, is_honest)));
        let records = Rc::new(RefCell::new(Records::default()));
        let mut ends = wire.ends(Side::Right, 1 + scenario.hostiles.len(), host_of).into_iter();
        let mine = ends.next().expect("there is one end for the clients");
        let drivers = scenario.clients.iter().map(|plan| Driver::new(plan.clone(), SERVER_V4, SERVER_V6)).collect();
        World {
            cores: cores(&scenario, queues, files, &witness, &records),
            station: Station::new(mine, [CLIENT_V4, CLIENT_V6]),
            drivers,
            hostiles: hostiles(&scenario, ends),
            wire,
            records,
            witness,
            harmed,
            now: Instant::from_millis(1),
            ahead_us: 0,
            idle_steps: 0,
            moved: 0,
            servers_turn: false,
            failure: None,
            scenario,
        }
    }

    /// The wire, to watch it.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Who sees what the server takes and gives.
    pub fn witness(&self) -> Rc<RefCell<Witness>> {
        Rc::clone(&self.witness)
    }

    /// Runs to the end.
    pub fn run(mut self) -> Outcome {
        let limit = Instant::from_micros(CLIENTS_MAX_US);
        let over = self.run_until(limit, World::is_over);
        // In a storm the last word to a client may be lost, and one that only listens hears nothing more.
        if self.failure.is_none() && !over && self.scenario.must_finish() {
            self.failure = Some(verdict::unfinished(&mut self));
        }
        if self.failure.is_none() {
            self.failure = verdict::of_clients(&mut self);
        }
        if self.failure.is_none() {
            self.failure = self.come_to_rest();
        }
        let frames = self.wire.stats(Side::Left).sent + self.wire.stats(Side::Right).sent;
        let harmed = self.harmed.borrow().clone();
        let mut counters = Counters::default();
        self.cores.iter().for_each(|core| counters.add(core.shard.counters()));
        Outcome { failure: self.failure, frames, virtual_us: self.now.micros(), counters, harmed }
    }

    fn is_over(&mut self) -> bool {
        let station = &mut self.station;
        self.drivers.iter().all(|driver| driver.is_over(station)) && self.hostiles.iter().all(Hostile::is_over)
    }

    /// Lets time pass until `done` or `limit` or a failure; says whether it was done.
    pub(super) fn run_until(&mut self, limit: Instant, mut done: impl FnMut(&mut World) -> bool) -> bool {
        while self.now < limit && self.failure.is_none() {
            self.step();
            if let Some(failure) = verdict::at_any_time(self) {
                self.failure = Some(failure);
                return false;
            }
            if done(self) {
                return true;
            }
            match self.next() {
                Some(next) => self.pass(next.min(limit)),
                None => return false,
            }
        }
        false
    }

    fn pass(&mut self, next: Instant) {
        let moved = self.wire.stats(Side::Left).sent + self.wire.stats(Side::Right).sent + self.witness.borrow().taken;
        self.idle_steps = if moved == self.moved { self.idle_steps + u32::from(self.servers_turn) } else { 0 };
        self.moved = moved;
        if self.idle_steps > IDLE_STEPS_MAX {
            self.failure =
                Some(Failure::new("spin", "the server spins: thousands of turns in which no frame moves".to_owned()));
        }
        self.now = next;
    }

    /// Everything that happens now.
    fn step(&mut self) {
        let now = self.now;
        self.wire.advance(now);
        for hostile in &mut self.hostiles {
            hostile.step(now);
        }
        for driver in &mut self.drivers {
            driver.step(now, &mut self.station);
        }
        self.station.turn(now);
        let due = |&&(at, _): &&(u64, u64)| at <= now.micros();
        self.ahead_us = self.scenario.leaps_us.iter().filter(due).map(|&(_, by)| by).sum();
        if !self.scenario.stalls.contain(now) {
            for core in &mut self.cores {
                core.rung.store(false, Ordering::Relaxed);
                core.queue.now = now;
                core.queue.sent = 0;
                core.turn = core.shard.turn(now.plus_micros(self.ahead_us), &mut core.queue, &mut core.app);
            }
            self.witness.borrow_mut().after_turn(now);
        }
    }

    /// When something happens next.
    fn next(&mut self) -> Option<Instant> {
        let now = self.now;
        let soon = now.plus_micros(1);
        let mut next = [self.wire.next_arrival(), self.station.deadline()].into_iter().flatten().min();
        let mut at = |when: Option<Instant>| next = next.into_iter().chain(when).min();
        for hostile in &self.hostiles {
            at(hostile.deadline());
        }
        for driver in &self.drivers {
            at(driver.deadline(now, &mut self.station));
        }
        at(self.scenario.leaps_us.iter().map(|&(at, _)| Instant::from_micros(at)).filter(|&at| at > now).min());
        at(self.witness.borrow().deadline().filter(|&at| at > now));
        let mut server = self.wire.has_arrived(Side::Left).then_some(soon);
        for core in &self.cores {
            let again = core.turn.busy || core.rung.load(Ordering::Relaxed);
            let pause_us = if core.queue.sent > 0 { self.scenario.turn_us } else { IDLE_TURN_US };
            let again = again.then(|| now.plus_micros(pause_us));
            let due = core.turn.deadline.map(|at| Instant::from_micros(at.micros().saturating_sub(self.ahead_us)));
            // What was due and could not be done, for want of a frame, is tried again.
            let due = due.map(|at| if at <= now { now.plus_micros(pause_us) } else { at });
            server = server.into_iter().chain(again).chain(due).min();
        }
        // A server that stalls does everything late.
        let server = server.map(|at| self.scenario.stalls.end_of(at.max(now)).unwrap_or(at));
        let others = next.unwrap_or(Instant::FAR_FUTURE);
        self.servers_turn = server.is_some_and(|at| at < others);
        let next = next.into_iter().chain(server).min();
        next.map(|at| at.max(soon))
    }
}

/// Whether the server is always in time and never short of frames.
fn is_prompt(scenario: &Scenario) -> bool {
    let rings = &scenario.wire.rings;
    let short = scenario.wire.tx_frames < 64 || !rings.tx_full.is_empty() || rings.completion_us > 0;
    // Of two shards that each answer a SYN, one waits in vain.
    let held = scenario.limits.hold_blocks >= 256 && scenario.shards == 1;
    scenario.weather != Weather::Storm && scenario.stalls.is_empty() && !short && held && scenario.hostiles.is_empty()
}

/// Which queue of the device a frame to the server goes to: by its ports, and after each move by another rule.
fn steer(moves_us: &[u64], at: Instant, frame: &[u8]) -> usize {
    let moved = moves_us.iter().filter(|&&when| when <= at.micros()).count();
    let ports = match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(34..38),
        Some([0x86, 0xdd]) => frame.get(54..58),
        _ => None,
    };
    let hash =
        ports.map_or(0, |ports| ports.iter().fold(0usize, |sum, &byte| sum.wrapping_mul(31) + usize::from(byte)));
    hash + moved
}

/// Which host a frame from the server goes to: 0 for the clients.
fn host_of(_: Instant, frame: &[u8]) -> usize {
    let last = match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(33),
        Some([0x86, 0xdd]) => frame.get(53),
        _ => None,
    };
    last.map_or(0, |&last| usize::from((last.wrapping_add(1)).saturating_sub(HOSTILE_FIRST)))
}

fn cores(
    scenario: &Scenario,
    queues: Vec<khamsin_drivers::sim::SimQueue>,
    files: &Files,
    witness: &Rc<RefCell<Witness>>,
    records: &Rc<RefCell<Records>>,
) -> Vec<Core> {
    let bells: Vec<_> = queues.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
    let ring = bells.clone();
    let mut links = stray::links(queues.len(), move |shard| ring[shard].store(true, Ordering::Relaxed)).into_iter();
    let many = queues.len() > 1;
    let mut secret = [0; 32];
    for (place, byte) in secret.iter_mut().zip(super::dice::pattern(scenario.seed, 32)) {
        *place = byte;
    }
    let core = |(queue, rung): (khamsin_drivers::sim::SimQueue, Arc<AtomicBool>)| {
        let config = ShardConfig {
            listeners: listeners(),
            addresses: Addresses::Own(vec![(SERVER_V4, 24), (SERVER_V6, 64)]),
            gateways: vec![],
            limits: scenario.limits,
            secret,
            strays: links.next().filter(|_| many),
        };
        let queue = Tapped::new(queue, Rc::clone(witness));
        Core {
            shard: Shard::new(config, queue.caps()),
            app: Server::new(files, scenario.impatient, Rc::clone(records)),
            queue,
            turn: Turn { busy: true, deadline: None },
            rung,
        }
    };
    queues.into_iter().zip(bells).map(core).collect()
}

fn hostiles(scenario: &Scenario, ends: impl Iterator<Item = SimEnd>) -> Vec<Hostile> {
    let plans = scenario.hostiles.iter().enumerate();
    plans.zip(ends).map(|((i, plan), end)| Hostile::new(plan.clone(), HOSTILE_FIRST + i as u8, end)).collect()
}
