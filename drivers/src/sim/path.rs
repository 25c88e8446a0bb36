//! An impaired path: a bottleneck with its queue, distance, and faults, in each direction.
//!
//! A model and nothing else: it is told when a frame is sent and says when and how it arrives, so a simulated wire (it is
//! a [`Faults`] policy) and a real middlebox between two TAPs impair traffic in the same way. What the dice decide depends
//! on the seed, the sender and the number of frames which that sender sent before, and on nothing else: two stacks that
//! are compared meet the same losses at the same places of their traffic. Only bursts come by the clock, whoever sends what.

use super::faults::Dice;
use super::{Fate, Faults, Side, Sighting};
use khamsin_stack::Instant;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// What the queue before the bottleneck holds, the frame in transmission included. What exceeds it is dropped at its tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueLimit {
    /// So many bytes of frames.
    Bytes(u64),
    /// So many frames.
    Frames(usize),
}

/// Loss that comes in bursts: two states, as Gilbert and Elliott have it, that last for a time and not for so many frames. So
/// whoever sends a frame a minute is not caught in one burst for hours, and a patient sender always gets through in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BurstLoss {
    /// There is one burst in each span of so long, microseconds, at a time of it that the dice choose; not 0.
    pub every_us: u64,
    /// The dice give each a length up to this, microseconds; never longer than its span.
    pub lasts_us: u64,
    /// Frames lost in a burst, of a million. Between bursts none is lost.
    pub loss_per_million: u32,
}

impl BurstLoss {
    /// Whether what `from` sends `now` meets a burst: what happened before does not matter.
    fn is_on(&self, seed: u64, from: Side, now: Instant) -> bool {
        let every_us = self.every_us.max(1);
        let (span, at) = (now.micros() / every_us, now.micros() % every_us);
        let mut dice = Dice::of(!seed, from, span);
        let lasts_us = up_to(self.lasts_us.min(every_us), dice.next());
        let begins = dice.next() % (every_us - lasts_us + 1);
        (begins..begins + lasts_us).contains(&at)
    }
}

/// One direction of a path. The default has no limit, no length and no fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathConfig {
    /// Rate of the bottleneck, bits of frames (from the Ethernet header to the payload's end) a second; 0: no limit, and
    /// then no queue either.
    pub rate_bits_per_s: u64,
    /// What waits for the bottleneck.
    pub queue: QueueLimit,
    /// Time from the bottleneck to the other end, microseconds.
    pub delay_us: u64,
    /// Each frame takes up to so much longer, microseconds. It delays those behind it with it: jitter does not reorder.
    pub jitter_us: u64,
    /// Frames lost behind the bottleneck, of a million.
    pub loss_per_million: u32,
    /// Frames lost there in bursts, besides.
    pub burst_loss: Option<BurstLoss>,
    /// Frames that arrive twice, of a million.
    pub duplicate_per_million: u32,
    /// A copy arrives up to so much later than its original, microseconds.
    pub duplicate_us: u64,
    /// Frames that later ones may overtake, of a million.
    pub reorder_per_million: u32,
    /// They arrive up to so much later, microseconds.
    pub reorder_us: u64,
    /// Frames of which one bit behind the Ethernet header arrives turned over, of a million.
    pub corrupt_per_million: u32,
    /// From when until when (exclusive) every frame sent is lost. The intervals may come in any order.
    pub partitions: Vec<(Instant, Instant)>,
}

impl Default for PathConfig {
    fn default() -> Self {
        PathConfig {
            rate_bits_per_s: 0,
            queue: QueueLimit::Bytes(u64::MAX),
            delay_us: 0,
            jitter_us: 0,
            loss_per_million: 0,
            burst_loss: None,
            duplicate_per_million: 0,
            duplicate_us: 0,
            reorder_per_million: 0,
            reorder_us: 0,
            corrupt_per_million: 0,
            partitions: Vec::new(),
        }
    }
}

/// Why a frame does not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathDrop {
    /// It was sent while the path was cut.
    Partition,
    /// The queue before the bottleneck was full.
    QueueFull,
    /// Random loss.
    Loss,
    /// Loss in a burst.
    BurstLoss,
}

/// What becomes of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It does not arrive.
    Dropped(PathDrop),
    /// It does.
    Delivered(Delivery),
}

/// How a frame arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// When its last bit does.
    pub at: Instant,
    /// When a faultless copy of it does as well; never before `at`.
    pub copy_at: Option<Instant>,
    /// This bit, counted from the first byte's lowest, arrives turned over.
    pub flipped_bit: Option<usize>,
}

/// Frames of one direction, by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathStats {
    /// Frames sent into the path. Each was delivered or dropped for one of the four reasons.
    pub offered: u64,
    /// Frames that arrive, copies not counted.
    pub delivered: u64,
    /// Frames dropped while the path was cut.
    pub partitioned: u64,
    /// Frames dropped at the queue's tail.
    pub queue_full: u64,
    /// Frames lost at random.
    pub lost: u64,
    /// Frames lost in bursts.
    pub burst_lost: u64,
    /// Frames that arrive twice.
    pub duplicated: u64,
    /// Frames delayed so that others may overtake them.
    pub delayed: u64,
    /// Frames that arrive with a bit turned over.
    pub corrupted: u64,
}

/// Both directions of a path, at one moment.
#[derive(Clone, Debug)]
pub struct Path {
    seed: u64,
    directions: [Direction; 2],
}

#[derive(Clone, Debug)]
struct Direction {
    config: PathConfig,
    /// When the bottleneck will have sent all that waits, nanoseconds: 1,500 bytes take 12 microseconds at 1 Gbit/s, and an
    /// error of half of one would be 4 %.
    idle_at_ns: u64,
    /// When each frame that waits will have been sent, nanoseconds; kept for [`QueueLimit::Frames`] only.
    departures_ns: VecDeque<u64>,
    /// When the last frame arrives that nothing held up but the queue.
    last_arrival: Instant,
    stats: PathStats,
}

/// What the dice say of one frame. Every die is thrown for every frame, in this order, whatever the configuration: no fault
/// changes another one's dice.
struct Throws {
    lost: bool,
    duplicate: bool,
    reorder: bool,
    corrupt: bool,
    bit: u64,
    jitter: u64,
    reorder_extent: u64,
    duplicate_extent: u64,
    burst_loss: u64,
}

impl Path {
    /// A path with a configuration for what [`Side::Left`] sends and one for what [`Side::Right`] does.
    pub fn new(seed: u64, from_left: PathConfig, from_right: PathConfig) -> Self {
        Path { seed, directions: [Direction::new(from_left), Direction::new(from_right)] }
    }

    /// A path that is the same in both directions; their dice are different ones.
    pub fn symmetric(seed: u64, config: PathConfig) -> Self {
        Path::new(seed, config.clone(), config)
    }

    /// Takes in a frame of `frame_len` bytes that `from` sends at `now`, which never runs backwards.
    pub fn offer(&mut self, now: Instant, from: Side, frame_len: usize) -> Verdict {
        let direction = &mut self.directions[from as usize];
        let throws = Throws::new(&direction.config, self.seed, from, direction.stats.offered);
        direction.stats.offered += 1;
        let burst = direction.config.burst_loss.filter(|burst| burst.is_on(self.seed, from, now));
        let burst_lost = burst.is_some_and(|burst| throws.burst_loss < u64::from(burst.loss_per_million));
        let verdict = direction.judge(now, frame_len, &throws, burst_lost);
        direction.stats.count(verdict);
        verdict
    }

    /// What became of the frames that `from` has sent.
    pub fn stats(&self, from: Side) -> PathStats {
        self.directions[from as usize].stats
    }
}

impl Direction {
    fn new(config: PathConfig) -> Self {
        let waiting = match config.queue {
            QueueLimit::Frames(limit) => limit.min(1 << 16),
            QueueLimit::Bytes(_) => 0,
        };
        Direction {
            config,
            idle_at_ns: 0,
            departures_ns: VecDeque::with_capacity(waiting),
            last_arrival: Instant::ZERO,
            stats: PathStats::default(),
        }
    }

    fn judge(&mut self, now: Instant, frame_len: usize, throws: &Throws, burst_lost: bool) -> Verdict {
        if self.config.partitions.iter().any(|(start, end)| (*start..*end).contains(&now)) {
            return Verdict::Dropped(PathDrop::Partition);
        }
        let Some(sent) = self.pass_bottleneck(now, frame_len) else { return Verdict::Dropped(PathDrop::QueueFull) };
        let jitter_us = throws.jitter % (self.config.jitter_us.saturating_add(1)).max(1);
        let in_order = sent.plus_micros(self.config.delay_us).plus_micros(jitter_us).max(self.last_arrival);
        self.last_arrival = in_order;
        if throws.lost {
            return Verdict::Dropped(PathDrop::Loss);
        }
        if burst_lost {
            return Verdict::Dropped(PathDrop::BurstLoss);
        }
        let held_us = if throws.reorder { up_to(self.config.reorder_us, throws.reorder_extent) } else { 0 };
        self.stats.delayed += u64::from(throws.reorder);
        let at = in_order.plus_micros(held_us);
        let copy_at =
            throws.duplicate.then(|| at.plus_micros(up_to(self.config.duplicate_us, throws.duplicate_extent)));
        Verdict::Delivered(Delivery {
            at,
            copy_at,
            flipped_bit: throws.corrupt.then(|| Dice::bit(throws.bit, frame_len)),
        })
    }

    /// When the bottleneck will have sent the frame, rounded up; `None`: no room to wait for it.
    fn pass_bottleneck(&mut self, now: Instant, frame_len: usize) -> Option<Instant> {
        let rate = u128::from(self.config.rate_bits_per_s);
        if rate == 0 {
            return Some(now);
        }
        let now_ns = now.micros().saturating_mul(1000);
        let backlog_ns = self.idle_at_ns.saturating_sub(now_ns);
        let fits = match self.config.queue {
            QueueLimit::Bytes(limit) => {
                let waiting = u128::from(backlog_ns) * rate / 8_000_000_000;
                waiting + frame_len as u128 <= u128::from(limit)
            }
            QueueLimit::Frames(limit) => {
                while self.departures_ns.front().is_some_and(|departure| *departure <= now_ns) {
                    self.departures_ns.pop_front();
                }
                self.departures_ns.len() < limit
            }
        };
        if !fits {
            return None;
        }
        let sending_ns = u64::try_from(frame_len as u128 * 8_000_000_000 / rate).unwrap_or(u64::MAX);
        self.idle_at_ns = self.idle_at_ns.max(now_ns).saturating_add(sending_ns);
        if let QueueLimit::Frames(_) = self.config.queue {
            self.departures_ns.push_back(self.idle_at_ns);
        }
        Some(Instant::from_micros(self.idle_at_ns.div_ceil(1000)))
    }
}

impl Throws {
    fn new(config: &PathConfig, seed: u64, from: Side, index: u64) -> Self {
        let mut dice = Dice::of(seed, from, index);
        Throws {
            lost: dice.hits(config.loss_per_million),
            duplicate: dice.hits(config.duplicate_per_million),
            reorder: dice.hits(config.reorder_per_million),
            corrupt: dice.hits(config.corrupt_per_million),
            bit: dice.next(),
            jitter: dice.next(),
            reorder_extent: dice.next(),
            duplicate_extent: dice.next(),
            burst_loss: dice.next() % 1_000_000,
        }
    }
}

impl PathStats {
    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Dropped(PathDrop::Partition) => self.partitioned += 1,
            Verdict::Dropped(PathDrop::QueueFull) => self.queue_full += 1,
            Verdict::Dropped(PathDrop::Loss) => self.lost += 1,
            Verdict::Dropped(PathDrop::BurstLoss) => self.burst_lost += 1,
            Verdict::Delivered(delivery) => {
                self.delivered += 1;
                self.duplicated += u64::from(delivery.copy_at.is_some());
                self.corrupted += u64::from(delivery.flipped_bit.is_some());
            }
        }
    }
}

/// 1 to `most`, by a die; 0 if that is 0.
fn up_to(most: u64, die: u64) -> u64 {
    if most == 0 { 0 } else { 1 + die % most }
}

/// On a [`Wire`](super::Wire) whose own latency comes on top: give it a latency of 0. The path counts indices itself, so it
/// is put there before the first frame.
impl Faults for Path {
    fn fate(&mut self, seen: &Sighting<'_>) -> Fate {
        match self.offer(seen.at, seen.from, seen.frame.len()) {
            Verdict::Dropped(_) => Fate::LOST,
            Verdict::Delivered(delivery) => Fate {
                lost: false,
                delay_us: delivery.at.micros_since(seen.at),
                copy_after_us: delivery.copy_at.map(|copy| copy.micros_since(delivery.at)),
                flipped_bit: delivery.flipped_bit,
            },
        }
    }
}

/// A path on a wire of which somebody wants to read the statistics meanwhile.
impl Faults for Rc<RefCell<Path>> {
    fn fate(&mut self, seen: &Sighting<'_>) -> Fate {
        self.borrow_mut().fate(seen)
    }
}

#[cfg(test)]
mod tests;
