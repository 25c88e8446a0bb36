//! A replay in virtual time: recorded clients, a faultless wire without delay, and the stack.

use super::client::{Client, Manner, Remark};
use super::flow::Flow;
use super::live::{self, Wire};
use super::mapping::{Mapping, SERVER_V4, SERVER_V6};
use super::plan::{Plan, Timeline};
use super::server::{Against, Part, Server};
use anyhow::{Result, bail};
use khamsin::http::Site;
use khamsin_drivers::sim::client::{Packet, parse};
use khamsin_drivers::sim::{self, Side, SimConfig, SimEnd, SimQueue};
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::Addresses;
use khamsin_stack::{CloseReason, Counters, Instant, Listener, Queue, Shard, ShardConfig};
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;

/// When the world begins: not at zero, where nothing lies before.
const START_US: u64 = 1_000_000_000;
/// Silences of the whole trace are shortened to this, microseconds.
const SILENCE_US: u64 = 600_000_000;
/// Between two rounds of a trace, microseconds.
const ROUND_GAP_US: u64 = 1_000_000;
/// Longest that all rounds together may last, microseconds: a thousand years, and every sum of such times has room.
const SPAN_MAX_US: u64 = 1000 * YEAR_US;
const YEAR_US: u64 = 31_557_600_000_000;
/// Turns in a row in which the stack says that it is busy.
const BUSY_MAX: u32 = 1_000_000;
/// Clients of one replay.
const CLIENTS_MAX: usize = 200_000;
/// Up to so many clients a scripted server is given its turn when a word is due, and not when the stack's wheel turns.
const PUNCTUAL_MAX: usize = 256;
/// Text of all flows that is missing in the trace and made up as zeros, bytes at most.
const MISSING_ALL_MAX: u64 = 4 << 30;
/// Bytes of the window's largest part that a connection may hold back: a block for each.
const BLOCKS: (usize, usize) = (64, 256);

/// What is replayed, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// Who answers.
    pub against: Against,
    /// Without the recorded pauses.
    pub fast: bool,
    /// How many times faster than recorded.
    pub speed: f64,
    /// Copies of each flow, at the same time.
    pub copies: usize,
    /// Times that the trace is replayed, one after the other.
    pub rounds: usize,
    /// Only the flow of that number.
    pub only: Option<usize>,
    /// Frames are kept, to be written: so many bytes of them at most. 0: none.
    pub record: usize,
    /// What [`Against::Http`] serves; `None`: the page that khamsin has without files.
    pub site: Option<Site>,
    /// On this wire, in real time, and not against the stack.
    pub live: Option<Wire>,
}

impl Default for Order {
    fn default() -> Self {
        Order {
            against: Against::Scripted,
            fast: false,
            speed: 1.0,
            copies: 1,
            rounds: 1,
            only: None,
            record: 0,
            site: None,
            live: None,
        }
    }
}

/// A frame of the replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shot {
    /// Nanoseconds since 1970, as if the replay had begun with the trace.
    pub at_ns: u64,
    /// From the stack, or to it.
    pub from_stack: bool,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// What came of a replay.
pub struct Outcome<'t> {
    /// Every client that was replayed, when it is done, and how its connection ended for the server.
    pub clients: Vec<(Client<'t>, Option<CloseReason>)>,
    /// Flows that were not, and why.
    pub left_out: Vec<(usize, &'static str)>,
    /// What the stack counted.
    pub counters: Counters,
    /// Virtual time, microseconds.
    pub virtual_us: u64,
    /// The conversation, if it was to be kept.
    pub shots: Vec<Shot>,
}

/// Plans by flow; [`replay`] borrows them.
pub struct Plans(Vec<Result<Plan, &'static str>>, u64);

impl Plans {
    /// The plans for `flows`.
    pub fn new(flows: &[Flow]) -> Plans {
        let timeline = Timeline::new(flows, SILENCE_US);
        let began = flows.iter().filter_map(|flow| flow.segments.first()).map(|s| s.at_ns).min().unwrap_or(0);
        let mut missing = 0;
        let plans = flows.iter().map(|flow| {
            let plan = Plan::new(flow, &timeline)?;
            missing += plan.missing;
            if missing > MISSING_ALL_MAX { Err("more of the trace is missing than can be made up") } else { Ok(plan) }
        });
        Plans(plans.collect(), began)
    }

    /// The plan for a flow, by its index.
    pub fn of(&self, index: usize) -> Option<&Plan> {
        self.0.get(index)?.as_ref().ok()
    }
}

/// Replays `flows`.
///
/// # Errors
/// There are too many, they last too long, they say more than is to be kept, none can be played on the wire, or the stack does
/// not come to rest.
pub fn replay<'t>(flows: &'t [Flow], plans: &'t Plans, order: &Order) -> Result<Outcome<'t>> {
    let (chosen, left_out) = choose(flows, plans, order);
    let count = chosen.len().saturating_mul(order.copies).saturating_mul(order.rounds);
    if count > CLIENTS_MAX {
        bail!(
            "{count} clients are more than the {CLIENTS_MAX} that are replayed at a time; ask for fewer copies or rounds"
        );
    }
    let span_us = round_us(&chosen, order.speed).saturating_mul(order.rounds as u64);
    if span_us > SPAN_MAX_US {
        let (rounds, years) = (order.rounds, span_us / YEAR_US);
        bail!("{rounds} rounds at this speed last {years} years; ask for fewer rounds or for a higher speed");
    }
    let mut outcome = match &order.live {
        Some(_) if count == 0 => {
            bail!("none of the flows that were asked for can be played on a wire: {}", why_none(&left_out))
        }
        Some(wire) => live::play(&chosen, order, wire)?,
        None => {
            let mut world = World::new(&chosen, plans.1, count, order);
            world.enlist(&chosen, order);
            world.run()?;
            world.finish()
        }
    };
    outcome.left_out = left_out;
    Ok(outcome)
}

fn why_none(left_out: &[(usize, &'static str)]) -> String {
    let first = left_out.first().map(|(number, why)| format!("flow {number}: {why}"));
    first.unwrap_or_else(|| "there is none; look at --list".to_owned())
}

pub(super) type Chosen<'t> = Vec<(&'t Flow, &'t Plan)>;

fn choose<'t>(flows: &'t [Flow], plans: &'t Plans, order: &Order) -> (Chosen<'t>, Vec<(usize, &'static str)>) {
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for (flow, plan) in flows.iter().zip(&plans.0) {
        if order.only.is_some_and(|only| only != flow.number) {
            continue;
        }
        let refused = order.live.as_ref().and_then(|wire| wire.refuses(flow));
        match (plan, refused) {
            (Ok(plan), None) => chosen.push((flow, plan)),
            (Err(why), _) => left_out.push((flow.number, *why)),
            (Ok(_), Some(why)) => left_out.push((flow.number, why)),
        }
    }
    (chosen, left_out)
}

/// From the beginning of one round to that of the next, microseconds.
pub(super) fn round_us(chosen: &Chosen<'_>, speed: f64) -> u64 {
    let ends = chosen.iter().map(|(_, plan)| {
        let (step, word) = (plan.steps.last().map(|s| s.at_us), plan.words.last().map(|w| w.at_us));
        step.max(word).unwrap_or(0)
    });
    let last_us = ends.max().unwrap_or(0);
    ((last_us as f64 / speed) as u64).saturating_add(ROUND_GAP_US)
}

/// What the world and the server both know of a client.
struct Shared {
    shift_us: Rc<Cell<u64>>,
    closed: Rc<Cell<Option<CloseReason>>>,
}

struct World<'t> {
    shard: Shard<Server<'t>, SimQueue>,
    queue: SimQueue,
    app: Server<'t>,
    wire: sim::Wire,
    end: SimEnd,
    clients: Vec<Client<'t>>,
    shared: Vec<Shared>,
    by_ends: HashMap<(SocketAddr, u16), usize>,
    due: BTreeSet<(u64, usize)>,
    dues: Vec<Option<u64>>,
    now_us: u64,
    deadline: Option<Instant>,
    began_ns: u64,
    /// The frames so far, if they are kept, and the room that is left for more, bytes.
    shots: Option<Vec<Shot>>,
    room: usize,
}

fn shard<'t>(chosen: &Chosen<'t>, clients: usize, queue: &SimQueue) -> Shard<Server<'t>, SimQueue> {
    let ports: BTreeSet<u16> = chosen.iter().map(|(flow, _)| flow.server.port()).collect();
    // All at once, should they have been recorded so.
    let connections = clients.clamp(4, CLIENTS_MAX);
    let limits = Limits::for_connections(connections);
    let limits = Limits {
        syn_backlog: connections.max(limits.syn_backlog),
        store_blocks: (connections * BLOCKS.0).clamp(256, limits.store_blocks.max(256)),
        hold_blocks: (connections * BLOCKS.1).clamp(2048, limits.hold_blocks.max(2048)),
        ..limits
    };
    let config = ShardConfig {
        listeners: ports.into_iter().map(|port| Listener { app: 0, port }).collect(),
        addresses: Addresses::Own(vec![(SERVER_V4.into(), 15), (SERVER_V6.into(), 64)]),
        gateways: vec![],
        limits,
        secret: *b"the same each time, for a replay",
        strays: None,
    };
    Shard::new(config, queue.caps())
}

impl<'t> World<'t> {
    fn new(chosen: &Chosen<'t>, began_ns: u64, clients: usize, order: &Order) -> World<'t> {
        let wire = sim::Wire::new(SimConfig { latency_us: 0, ..SimConfig::default() });
        wire.advance(Instant::from_micros(START_US));
        let queue = wire.queue(Side::Left);
        let unix_us = (began_ns / 1000).saturating_sub(START_US);
        World {
            shard: shard(chosen, clients, &queue),
            queue,
            app: Server::new(
                order.against,
                order.site.clone().unwrap_or_else(Site::welcome),
                unix_us,
                order.fast,
                order.speed,
            ),
            end: wire.end(Side::Right),
            wire,
            clients: Vec::new(),
            shared: Vec::new(),
            by_ends: HashMap::new(),
            due: BTreeSet::new(),
            dues: Vec::new(),
            now_us: START_US,
            deadline: Some(Instant::from_micros(START_US)),
            began_ns,
            shots: (order.record > 0).then(Vec::new),
            room: order.record,
        }
    }

    /// Makes every client of every copy and round.
    fn enlist(&mut self, chosen: &Chosen<'t>, order: &Order) {
        let manner =
            Manner { fast: order.fast, speed: order.speed, scripted: order.against == Against::Scripted, live: false };
        let round_us = round_us(chosen, order.speed);
        let mut mapping = Mapping::default();
        for round in 0..order.rounds {
            let start_us = START_US + round_us * round as u64;
            for copy in 0..order.copies {
                for (flow, plan) in chosen {
                    let ends = mapping.ends(flow, round * order.copies + copy);
                    self.add(Client::new(flow, plan, ends, start_us, manner), start_us);
                }
            }
        }
    }

    fn add(&mut self, client: Client<'t>, start_us: u64) {
        let shared = Shared { shift_us: Rc::default(), closed: Rc::default() };
        let key = (client.local, client.remote.port());
        let part = Part {
            flow: client.flow,
            plan: client.plan,
            start_us,
            shift_us: Rc::clone(&shared.shift_us),
            closed: Rc::clone(&shared.closed),
        };
        self.app.expect(key.0, key.1, part);
        self.by_ends.insert(key, self.clients.len());
        self.clients.push(client);
        self.shared.push(shared);
        self.dues.push(None);
        self.reschedule(self.clients.len() - 1);
    }

    fn reschedule(&mut self, index: usize) {
        let due = self.clients[index].deadline();
        if due != self.dues[index] {
            if let Some(old) = self.dues[index] {
                self.due.remove(&(old, index));
            }
            self.due.extend(due.map(|at| (at, index)));
            self.dues[index] = due;
        }
    }

    fn run(&mut self) -> Result<()> {
        self.settle()?;
        while let Some(&(due, index)) = self.due.first() {
            let stack = self.deadline.map_or(u64::MAX, |at| at.micros().max(self.now_us + 100));
            let word = self.app.soonest_us.get().max(self.now_us);
            if self.clients.len() <= PUNCTUAL_MAX && word <= stack.min(due) {
                self.now_us = word;
                self.app.soonest_us.set(u64::MAX);
                self.shard.wake_all();
                self.settle()?;
                continue;
            }
            if stack < due {
                self.now_us = stack;
                self.settle()?;
                continue;
            }
            self.now_us = self.now_us.max(due);
            self.act(index)?;
            if self.shots.is_some() && self.room == 0 {
                bail!(
                    "the conversation is longer than what is kept of it for --write; ask for fewer copies or rounds, or leave that out"
                );
            }
        }
        Ok(())
    }

    /// One client does what is due, a frame at a time, so that it is known what became of each.
    fn act(&mut self, index: usize) -> Result<()> {
        let mut frames = Vec::new();
        let done = self.clients[index].act(self.now_us, &mut |frame| frames.push(frame));
        self.shared[index].shift_us.set(self.clients[index].shift_us);
        for frame in frames {
            let before = *self.shard.counters();
            self.note(false, &frame);
            self.end.send(&frame);
            self.settle()?;
            let client = &mut self.clients[index];
            // What comes behind a reset is not expected to be taken.
            if client.reset_by_stack.is_none_or(|packet| packet == client.last_packet)
                && let Some(what) = stopped(&before, self.shard.counters())
                && client.stops.last().is_none_or(|stop| stop.packet != client.last_packet)
            {
                client.stops.push(Remark { packet: client.last_packet, what });
            }
        }
        if done {
            if let Some(old) = self.dues[index].take() {
                self.due.remove(&(old, index));
            }
            return Ok(());
        }
        self.reschedule(index);
        Ok(())
    }

    fn note(&mut self, from_stack: bool, frame: &[u8]) {
        let at_ns = self.began_ns.saturating_add((self.now_us - START_US).saturating_mul(1000));
        if let Some(shots) = &mut self.shots {
            self.room = self.room.saturating_sub(frame.len() + size_of::<Shot>());
            shots.push(Shot { at_ns, from_stack, bytes: frame.to_vec() });
        }
    }

    /// Turns until nothing is left to do at once.
    fn settle(&mut self) -> Result<()> {
        let now = Instant::from_micros(self.now_us);
        for _ in 0..BUSY_MAX {
            self.wire.advance(now);
            let turn = self.shard.turn(now, &mut self.queue, &mut self.app);
            self.wire.advance(now);
            while let Some(frame) = self.end.recv() {
                self.note(true, &frame);
                self.deliver(&frame);
            }
            if !turn.busy {
                self.deadline = turn.deadline;
                return Ok(());
            }
        }
        bail!(
            "the stack took {BUSY_MAX} turns and did not come to rest; this is a defect of khamsin's, please report the trace"
        )
    }

    fn deliver(&mut self, frame: &[u8]) {
        let Ok(Packet::Tcp(segment)) = parse(frame) else { return };
        let Some(&index) = self.by_ends.get(&(segment.to, segment.from.port())) else { return };
        // Who is done listens no more.
        if self.dues[index].is_some() {
            self.clients[index].take(self.now_us, &segment);
            self.reschedule(index);
        }
    }

    fn finish(self) -> Outcome<'t> {
        let ends = self.shared.iter().map(|shared| shared.closed.get());
        Outcome {
            clients: self.clients.into_iter().zip(ends).collect(),
            left_out: Vec::new(),
            counters: *self.shard.counters(),
            virtual_us: self.now_us - START_US,
            shots: self.shots.unwrap_or_default(),
        }
    }
}

/// Counters that say that a segment was not taken, or not all of it.
fn stopped(before: &Counters, after: &Counters) -> Option<String> {
    let names: Vec<&str> = before
        .iter()
        .zip(after.iter())
        .filter(|((name, before), (_, after))| after > before && is_stop(name))
        .map(|((name, _), _)| name)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn is_stop(name: &str) -> bool {
    let others = ["syn_expired", "rst_sent", "rx_hold_exhausted", "rx_too_many_holes", "rx_pruned", "store_exhausted"];
    name.starts_with("drop_") || name.starts_with("gate_") || others.contains(&name)
}
