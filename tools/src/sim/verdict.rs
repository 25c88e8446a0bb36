//! What must hold: at any time, when the clients are done, and when everybody is gone.

use super::peer::Leave;
use super::scenario::Weather;
use super::world::World;
use khamsin_drivers::sim::Side;
use khamsin_drivers::sim::client::End;
use khamsin_stack::{CloseReason, Counters, Queue};
use std::fmt;

/// Something that must hold and does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Which invariant, in a word: what shrinking must keep.
    pub kind: &'static str,
    /// What was seen.
    pub what: String,
}

impl Failure {
    /// An invariant that does not hold.
    pub fn new(kind: &'static str, what: String) -> Failure {
        Failure { kind, what }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.what)
    }
}

/// Longest that a client waits for the server without anything moving, microseconds: where nothing is lost, and where the
/// back-off of a retransmission timer may have run through all its steps.
const STALL_CALM_US: u64 = 10_000_000;
const STALL_ROUGH_US: u64 = 400_000_000;

/// Checks what must hold after every turn.
pub(super) fn at_any_time(world: &mut World) -> Option<Failure> {
    if let Some(what) = world.witness.borrow().violations.first() {
        return Some(Failure::new("rfc", what.clone()));
    }
    for core in &world.cores {
        let counters = core.shard.counters();
        if counters.closed_panicked > 0 {
            return Some(Failure::new("panic", "code on the server's side panicked over a connection".to_owned()));
        }
        let limits = &world.scenario.limits;
        if core.shard.live() > limits.connections || core.shard.half_open() > limits.syn_backlog {
            return Some(Failure::new(
                "limit",
                format!("{} live, {} half-open", core.shard.live(), core.shard.half_open()),
            ));
        }
    }
    let longest_us = match world.scenario.weather {
        Weather::Calm => STALL_CALM_US,
        Weather::Rough => STALL_ROUGH_US,
        Weather::Storm => return None,
    };
    if !world.scenario.must_finish() {
        return None;
    }
    let (now, station) = (world.now, &mut world.station);
    let stalled = world.drivers.iter().find(|driver| driver.stalled_us(now, station) > longest_us)?;
    let (number, job) = (stalled.plan.number, &stalled.plan.job);
    Some(Failure::new(
        "progress",
        format!("nothing moves for client {number} ({job:?}) in {} s", longest_us / 1_000_000),
    ))
}

/// Clients have not come to their end.
pub(super) fn unfinished(world: &mut World) -> Failure {
    let station = &mut world.station;
    let names: Vec<_> =
        world.drivers.iter().filter(|driver| !driver.is_over(station)).map(|driver| driver.plan.number).collect();
    Failure::new("endless", format!("clients {names:?} have not come to an end at {:?}", world.now))
}

/// Checks what the clients got and how they ended.
pub(super) fn of_clients(world: &mut World) -> Option<Failure> {
    let (must_finish, several) = (world.scenario.must_finish(), world.scenario.shards > 1);
    let station = &mut world.station;
    for driver in &mut world.drivers {
        let number = driver.plan.number;
        if let Some(what) = driver.complaints(station, several).first() {
            return Some(Failure::new("client", format!("client {number}: {what}")));
        }
        let end = driver.end(station);
        if end == Some(End::Finished) && !driver.is_complete(station) && must_finish {
            return Some(Failure::new("bytes", format!("client {number} finished without all that it asked for")));
        }
        if must_finish && !driver.plan.gives_up() && end != Some(End::Finished) {
            return Some(Failure::new("end", format!("client {number} ended with {end:?}")));
        }
    }
    None
}

/// Checks what must hold when all peers are gone and all time has passed.
pub(super) fn at_rest(world: &mut World) -> Option<Failure> {
    leaks(world).or_else(|| sessions(world)).or_else(|| lies(world)).or_else(|| sums(world))
}

fn leaks(world: &World) -> Option<Failure> {
    let leak = |what| Some(Failure::new("leak", what));
    for core in &world.cores {
        let shard = &core.shard;
        let left = (shard.live(), shard.half_open(), shard.time_wait());
        if left != (0, 0, 0) {
            return leak(format!("(live, half-open, TIME-WAIT) = {left:?} at the end"));
        }
        if shard.flows() > 0 {
            return leak(format!("{} flows in the table, of no connection", shard.flows()));
        }
        if core.queue.queue.held() > 0 {
            return leak(format!("{} frames did not come home", core.queue.queue.held()));
        }
        if shard.free_blocks() != world.scenario.limits.store_blocks {
            return leak(format!("{} of {} store blocks", shard.free_blocks(), world.scenario.limits.store_blocks));
        }
        if shard.free_hold_blocks() != world.scenario.limits.hold_blocks {
            return leak(format!(
                "{} of {} blocks for text that waits",
                shard.free_hold_blocks(),
                world.scenario.limits.hold_blocks
            ));
        }
        if let Some(at) = core.turn.deadline {
            return leak(format!("a deadline at {at:?} with nobody there"));
        }
    }
    None
}

/// Every session that was opened was closed once, and for a reason that its client confirms.
fn sessions(world: &mut World) -> Option<Failure> {
    let records = world.records.borrow();
    if let Some((peer, count)) = records.open.iter().next() {
        return Some(Failure::new("sessions", format!("{count} sessions of {peer} were never closed")));
    }
    for driver in &world.drivers {
        let Some(id) = driver.id() else { continue };
        let client = world.station.client(id);
        let Some(reasons) = records.closed.get(&client.local()) else { continue };
        let (number, end) = (driver.plan.number, client.end());
        let wrong = match end {
            Some(End::Finished) => world.scenario.must_finish() && *reasons != [CloseReason::Finished],
            // The server can only know if the reset or the forgetting reached it.
            Some(End::Aborted) => reasons.contains(&CloseReason::Aborted) && world.scenario.must_finish(),
            _ => reasons.is_empty(),
        };
        if wrong && !matches!(driver.plan.leave, Leave::Vanish(_)) {
            return Some(Failure::new("sessions", format!("client {number} says {end:?}, the server {reasons:?}")));
        }
    }
    None
}

/// Counters against what was seen.
fn lies(world: &World) -> Option<Failure> {
    let mut counters = Counters::default();
    let mut stats = khamsin_stack::QueueStats::default();
    for core in &world.cores {
        counters.add(core.shard.counters());
        let queue = core.queue.stats();
        stats.rx_frames += queue.rx_frames;
        stats.tx_frames += queue.tx_frames;
        stats.tx_errors += queue.tx_errors;
    }
    let wire = world.wire.stats(Side::Left);
    let witness = world.witness.borrow();
    let closed = counters.closed_finished
        + counters.closed_reset
        + counters.closed_aborted
        + counters.closed_timed_out
        + counters.closed_drained
        + counters.closed_panicked;
    let told: usize = world.records.borrow().closed.values().map(Vec::len).sum();
    let dropped: u64 =
        counters.iter().filter(|(name, _)| name.starts_with("drop_") && !is_late(name)).map(|(_, n)| n).sum();
    let equal = [
        ("accepted, and all that were closed", counters.accepted, closed),
        ("connections closed, and sessions told of it", closed, told as u64),
        ("frames received, as shard and queue count", counters.rx_frames, stats.rx_frames),
        ("frames received, as shard and witness count", counters.rx_frames, witness.taken),
        ("frames sent, as shard and queue count", counters.tx_frames, stats.tx_frames),
        ("frames that the device refused, and none", stats.tx_errors + wire.refused, 0),
        ("frames longer than the link carries, and none", wire.oversize, 0),
    ];
    for (what, one, other) in equal {
        if one != other {
            return Some(Failure::new("counters", format!("{what}: {one} and {other}")));
        }
    }
    if dropped > counters.rx_frames + counters.stray_sent {
        return Some(Failure::new("counters", format!("{dropped} frames dropped of {}", counters.rx_frames)));
    }
    None
}

/// Drops of what was counted as something else before.
fn is_late(name: &str) -> bool {
    matches!(name, "drop_stray_full" | "drop_accept_full" | "drop_draining")
}

/// Bytes: what the server counts is what the clients sent and got.
fn sums(world: &mut World) -> Option<Failure> {
    let (station, finished) = (&mut world.station, Some(End::Finished));
    if !world.hostiles.is_empty() || world.drivers.iter().any(|driver| driver.end(station) != finished) {
        return None;
    }
    let sent: u64 = world.drivers.iter().map(|driver| driver.sent()).sum();
    let mut got = 0;
    for driver in &world.drivers {
        got += driver.id().map_or(0, |id| station.client(id).received().len() as u64);
    }
    let (mut rx, mut tx) = (0, 0);
    for core in &world.cores {
        rx += core.shard.counters().rx_payload_bytes;
        tx += core.shard.counters().tx_payload_bytes;
    }
    match (rx, tx) == (sent, got) {
        true => None,
        false => Some(Failure::new(
            "counters",
            format!("the server counts {rx} bytes received and {tx} sent, its peers sent {sent} and got {got}"),
        )),
    }
}
