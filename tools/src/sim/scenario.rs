//! What happens in a run: all of it drawn from one seed, and any part of it to be taken away again.

use super::dice::Dice;
use super::hostile::HostilePlan;
use super::peer::ClientPlan;
use khamsin_drivers::sim::{BurstLoss, PathConfig, QueueLimit, Rings, SimConfig, Spans};
use khamsin_stack::Instant;
use khamsin_stack::limits::Limits;

mod cuts;

pub use cuts::{Cuts, FAULTS, Fates};

/// How rough a scenario is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weather {
    /// No fault at all.
    Calm,
    /// A path as the Internet has it: loss, reordering, queues; every connection is expected to finish.
    Rough,
    /// Partitions, starved rings, stalled and leaping clocks, heavy loss: a connection may fail, if it says why.
    Storm,
}

/// A run: network, server, peers.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it was drawn from.
    pub seed: u64,
    /// How rough it is.
    pub weather: Weather,
    /// The device and the link.
    pub wire: SimConfig,
    /// The path from the server to its peers.
    pub down: PathConfig,
    /// The path from the peers to the server.
    pub up: PathConfig,
    /// Of the frames that the path would harm, only these are; `None`: all of them.
    pub fates: Option<Fates>,
    /// Queues of the device, one shard for each.
    pub shards: usize,
    /// When flows move to another queue, microseconds.
    pub moves_us: Vec<u64>,
    /// What each shard may hold.
    pub limits: Limits,
    /// Time that a busy turn takes, microseconds.
    pub turn_us: u64,
    /// When the server takes no turn.
    pub stalls: Spans,
    /// When the server's clock leaps ahead, and by how much, microseconds.
    pub leaps_us: Vec<(u64, u64)>,
    /// The HTTP application gives up slow peers after its usual times, and not after hours.
    pub impatient: bool,
    /// Peers that keep to the rules.
    pub clients: Vec<ClientPlan>,
    /// Peers that do not.
    pub hostiles: Vec<HostilePlan>,
}

impl Scenario {
    /// The scenario of `seed`.
    pub fn new(seed: u64) -> Scenario {
        let mut dice = Dice::new(seed, "scenario");
        let weather = match dice.below(100) {
            0..=14 => Weather::Calm,
            15..=69 => Weather::Rough,
            _ => Weather::Storm,
        };
        let wire = wire(seed, weather);
        let (down, up) = paths(seed, weather);
        let shards = if dice.chance(20) { 2 } else { 1 };
        let moves_us = match shards == 2 && dice.chance(70) {
            true => (0..dice.between(1, 4)).map(|_| dice.scaled(1_000, 5_000_000)).collect(),
            false => Vec::new(),
        };
        let (stalls, leaps_us) = clock(seed, weather);
        let connections = dice.pick(&[8, 16, 32]);
        // Dice of their own: what else happens stays what it was.
        let mut resting = Dice::new(seed, "resting");
        let hostiles = match dice.below(100) {
            0..=54 => 0,
            55..=84 => 1,
            _ => dice.between(2, 3),
        };
        let clients = dice.pick(&[1, 1, 1, 2, 2, 3, 4, 6]);
        Scenario {
            seed,
            weather,
            down,
            up,
            fates: None,
            shards,
            limits: Limits {
                connections,
                live: resting.pick(&[8, connections]),
                park_after_us: resting.pick(&[None, Some(0), Some(1_000), Some(50_000), Some(1_000_000)]),
                warm: resting.pick(&[1, 4, connections]),
                syn_backlog: dice.pick(&[4, 16, 64]),
                time_wait: dice.pick(&[8, 64]),
                store_blocks: dice.pick(&[2 * connections, 512]),
                hold_blocks: dice.pick(&[connections, 256, 2048]),
                per_source: 0,
                rx_window_max: dice.pick(&[65_535, 1 << 18, 4 << 20]),
            },
            moves_us,
            turn_us: dice.pick(&[1, 5, 20, 100]),
            stalls,
            leaps_us,
            impatient: dice.chance(10),
            clients: (0..clients).map(|number| ClientPlan::new(seed, number as usize, wire.mtu, weather)).collect(),
            hostiles: (0..hostiles).map(|number| HostilePlan::new(seed, number as usize, wire.mtu)).collect(),
            wire,
        }
    }

    /// What it consists of, in a few lines.
    pub fn describe(&self) -> String {
        let mut lines = vec![
            format!("seed {}: {:?}", self.seed, self.weather),
            format!(
                "  server: {} shard(s), moves at {:?} us, turns of {} us, {:?}",
                self.shards, self.moves_us, self.turn_us, self.limits
            ),
            format!("  stalls: {:?}, leaps: {:?}, impatient: {}", self.stalls, self.leaps_us, self.impatient),
            format!(
                "  device: mtu {}, checksums {}, segmentation {}, partial {}, {} frames, {:?}",
                self.wire.mtu,
                self.wire.tx_checksum,
                self.wire.tx_segment_max,
                self.wire.rx_partial_checksums,
                self.wire.tx_frames,
                self.wire.rings
            ),
            format!("  from the server: {:?}", self.down),
            format!("  from its peers:  {:?}", self.up),
        ];
        for client in &self.clients {
            lines.push(format!("  client {}: {client:?}", client.number));
        }
        for hostile in &self.hostiles {
            lines.push(format!("  hostile {}: {hostile:?}", hostile.number));
        }
        lines.join("\n")
    }

    /// Whether every client that does not give up itself must finish.
    pub fn must_finish(&self) -> bool {
        self.weather != Weather::Storm && !self.impatient && self.hostiles.is_empty()
    }
}

/// The device and the link.
fn wire(seed: u64, weather: Weather) -> SimConfig {
    let mut dice = Dice::new(seed, "wire");
    let offload = dice.chance(30);
    let mut config = SimConfig {
        latency_us: 0,
        mtu: dice.pick(&[576, 1280, 1400, 1500, 1500, 1500, 4000, 9000]),
        tx_checksum: offload,
        tx_segment_max: if offload && dice.chance(50) { 65_000 } else { 0 },
        rx_partial_checksums: weather == Weather::Calm && dice.chance(20),
        tx_frames: dice.pick(&[4096, 4096, 64, 3]),
        seed,
        ..SimConfig::default()
    };
    if weather != Weather::Calm && dice.chance(25) {
        config.rings = rings(&mut dice, weather);
    }
    config
}

fn rings(dice: &mut Dice, weather: Weather) -> Rings {
    let mut rings = Rings::default();
    let storm = weather == Weather::Storm;
    let spans = |dice: &mut Dice, longest_us| {
        let count = dice.between(1, 3);
        Spans::new((0..count).map(|_| {
            let from = dice.scaled(1_000, 4_000_000);
            (from, from + dice.scaled(100, longest_us))
        }))
    };
    match dice.below(5) {
        0 => rings.rx_frames = dice.pick(&[4, 16, 64]),
        1 => rings.starved = spans(dice, if storm { 3_000_000 } else { 300_000 }),
        2 => rings.tx_full = spans(dice, if storm { 300_000 } else { 30_000 }),
        3 => rings.completion_us = dice.scaled(10, 50_000),
        _ => rings.rx_burst_max = dice.pick(&[1, 2, 7]),
    }
    if dice.chance(30) {
        (rings.tx_burst_max, rings.tx_retry_us) = (dice.pick(&[1, 4, 16]), dice.scaled(10, 2_000));
    }
    rings
}

/// The path, from the server and from its peers.
fn paths(seed: u64, weather: Weather) -> (PathConfig, PathConfig) {
    let mut dice = Dice::new(seed, "path");
    let delay_us = dice.scaled(20, 150_000);
    let mut down = PathConfig { delay_us, ..PathConfig::default() };
    let mut up = down.clone();
    if weather == Weather::Calm {
        return (down, up);
    }
    if dice.chance(50) {
        down.rate_bits_per_s = dice.scaled(1_000_000, 10_000_000_000);
        down.queue = match dice.chance(50) {
            true => QueueLimit::Frames(dice.scaled(10, 1000) as usize),
            false => QueueLimit::Bytes(dice.scaled(20_000, 1_000_000)),
        };
        up.rate_bits_per_s = down.rate_bits_per_s;
        up.queue = down.queue;
    }
    for path in [&mut down, &mut up] {
        impair(&mut dice, path, weather);
    }
    if weather == Weather::Storm && dice.chance(40) {
        let both = dice.chance(60);
        for _ in 0..dice.between(1, 2) {
            let from = dice.scaled(1_000, 3_000_000);
            let span = (Instant::from_micros(from), Instant::from_micros(from + dice.scaled(50_000, 100_000_000)));
            down.partitions.push(span);
            if both {
                up.partitions.push(span);
            }
        }
    }
    (down, up)
}

fn impair(dice: &mut Dice, path: &mut PathConfig, weather: Weather) {
    let storm = weather == Weather::Storm;
    if dice.chance(60) {
        path.loss_per_million = dice.scaled(1_000, if storm { 250_000 } else { 50_000 }) as u32;
    }
    if dice.chance(15) {
        let lasts_us = dice.scaled(1_000, if storm { 5_000_000 } else { 500_000 });
        // On a rough path the mean burst takes a fortieth of the time at most: then patience gets everybody through.
        let every_us = lasts_us * dice.scaled(if storm { 2 } else { 20 }, 1_000);
        path.burst_loss =
            Some(BurstLoss { every_us, lasts_us, loss_per_million: dice.pick(&[500_000, 900_000, 1_000_000]) });
    }
    if dice.chance(25) {
        path.duplicate_per_million = dice.scaled(1_000, 100_000) as u32;
        path.duplicate_us = dice.scaled(1, 50_000);
    }
    if dice.chance(30) {
        path.reorder_per_million = dice.scaled(1_000, 200_000) as u32;
        path.reorder_us = dice.scaled(10, 100_000);
    }
    if dice.chance(20) {
        path.corrupt_per_million = dice.scaled(100, 20_000) as u32;
    }
    if dice.chance(40) {
        path.jitter_us = dice.scaled(1, 30_000);
    }
}

/// Stalls and leaps of the server's clock.
fn clock(seed: u64, weather: Weather) -> (Spans, Vec<(u64, u64)>) {
    let mut dice = Dice::new(seed, "clock");
    let mut stalls = Vec::new();
    let mut leaps = Vec::new();
    if weather != Weather::Calm && dice.chance(15) {
        for _ in 0..dice.between(1, 3) {
            let from = dice.scaled(1_000, 3_000_000);
            let longest = if weather == Weather::Storm { 20_000_000 } else { 200_000 };
            stalls.push((from, from + dice.scaled(1_000, longest)));
        }
    }
    if weather == Weather::Storm && dice.chance(25) {
        for _ in 0..dice.between(1, 2) {
            leaps.push((dice.scaled(1_000, 3_000_000), dice.scaled(10_000, 900_000_000)));
        }
    }
    (Spans::new(stalls), leaps)
}
