//! The wire: frames in flight, in the order in which they arrive.

use super::offload;
use super::{Fate, Faults, RandomFaults, Side, Sighting, SimConfig, SimEnd, SimQueue};
use khamsin_stack::{Instant, TxOffload};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;

/// Bytes of an Ethernet header with one VLAN tag.
pub(super) const ETHERNET_MAX: usize = 18;

/// Frames that one side has sent, by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WireStats {
    /// Frames put on the wire, after segmentation.
    pub sent: u64,
    /// Frames that reached the other side; copies count.
    pub delivered: u64,
    /// Frames lost by a fault.
    pub lost: u64,
    /// Frames that arrive twice.
    pub duplicated: u64,
    /// Frames held up by a fault.
    pub delayed: u64,
    /// Frames with a bit turned over.
    pub corrupted: u64,
    /// Frames dropped: longer than the MTU allows.
    pub oversize: u64,
    /// Frames dropped: an offload was asked for that the device cannot do.
    pub refused: u64,
}

/// A frame as it was put on the wire, before any fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// When it was sent.
    pub at: Instant,
    /// Who sent it.
    pub from: Side,
    /// Whether it was lost.
    pub lost: bool,
    /// The frame.
    pub bytes: Vec<u8>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    arrival: Instant,
    // Frames that arrive at the same time keep the order in which they were sent.
    order: u64,
    to_left: bool,
    bytes: Vec<u8>,
}

pub(super) struct State {
    pub(super) config: SimConfig,
    now: Instant,
    faults: Box<dyn Faults>,
    in_flight: BinaryHeap<Reverse<Flight>>,
    order: u64,
    ports: [Ports; 2],
    spare: Vec<Vec<u8>>,
    stats: [WireStats; 2],
    recording: Option<Vec<Recorded>>,
    observer: Option<Observer>,
}

type Observer = Box<dyn FnMut(&Sighting<'_>, &Fate)>;
type Steer = Box<dyn FnMut(Instant, &[u8]) -> usize>;

/// The queues of one side, and what decides which of them a frame goes to.
struct Ports {
    inboxes: Vec<Inbox>,
    steer: Steer,
}

#[derive(Default)]
struct Inbox {
    frames: VecDeque<Vec<u8>>,
    /// Frames lost because no buffer was there for them.
    starved: u64,
}

impl Ports {
    fn one() -> Self {
        Ports { inboxes: vec![Inbox::default()], steer: Box::new(|_, _| 0) }
    }
}

/// A link between two ends; clones are the same link.
#[derive(Clone)]
pub struct Wire(Rc<RefCell<State>>);

impl Wire {
    /// A wire at time zero, with the faults that `config` names.
    pub fn new(config: SimConfig) -> Self {
        let faults = RandomFaults::new(&config);
        Wire::with_faults(config, faults)
    }

    /// A wire with a fault policy of its own; the frequencies in `config` mean nothing.
    pub fn with_faults(config: SimConfig, faults: impl Faults + 'static) -> Self {
        Wire(Rc::new(RefCell::new(State {
            config,
            now: Instant::ZERO,
            faults: Box::new(faults),
            in_flight: BinaryHeap::new(),
            order: 0,
            ports: [Ports::one(), Ports::one()],
            spare: Vec::new(),
            stats: [WireStats::default(); 2],
            recording: None,
            observer: None,
        })))
    }

    /// One end as a stack drives it.
    pub fn queue(&self, side: Side) -> SimQueue {
        SimQueue::new(self.0.clone(), side, 0)
    }

    /// One end as `count` queues of one device. `steer` says which of them a frame goes to that arrives, when it does.
    pub fn queues(
        &self,
        side: Side,
        count: usize,
        steer: impl FnMut(Instant, &[u8]) -> usize + 'static,
    ) -> Vec<SimQueue> {
        self.divide(side, count, Box::new(steer));
        (0..count).map(|number| SimQueue::new(self.0.clone(), side, number)).collect()
    }

    /// One end for frames written by hand.
    pub fn end(&self, side: Side) -> SimEnd {
        SimEnd::new(self.0.clone(), side, 0)
    }

    /// One end as `count` hosts behind a switch. `steer` says which of them gets a frame that arrives, and when it does.
    pub fn ends(&self, side: Side, count: usize, steer: impl FnMut(Instant, &[u8]) -> usize + 'static) -> Vec<SimEnd> {
        self.divide(side, count, Box::new(steer));
        (0..count).map(|number| SimEnd::new(self.0.clone(), side, number)).collect()
    }

    fn divide(&self, side: Side, count: usize, steer: Steer) {
        let inboxes = (0..count.max(1)).map(|_| Inbox::default()).collect();
        self.0.borrow_mut().ports[side as usize] = Ports { inboxes, steer };
    }

    /// Makes it `now`, which never runs backwards: frames whose time has come are there to be received.
    pub fn advance(&self, now: Instant) {
        self.0.borrow_mut().advance(now);
    }

    /// When the next frame arrives; `None`: nothing is in flight.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.0.borrow().in_flight.peek().map(|flight| flight.0.arrival)
    }

    /// Whether frames have arrived at `side` and were not received yet.
    pub fn has_arrived(&self, side: Side) -> bool {
        self.0.borrow().ports[side as usize].inboxes.iter().any(|inbox| !inbox.frames.is_empty())
    }

    /// Shows `observer` every frame that is put on the wire from now on, and its fate.
    pub fn observe(&self, observer: impl FnMut(&Sighting<'_>, &Fate) + 'static) {
        self.0.borrow_mut().observer = Some(Box::new(observer));
    }

    /// What became of the frames that `side` has sent.
    pub fn stats(&self, side: Side) -> WireStats {
        self.0.borrow().stats[side as usize]
    }

    /// Replaces the fault policy from the next frame on.
    pub fn set_faults(&self, faults: impl Faults + 'static) {
        self.0.borrow_mut().faults = Box::new(faults);
    }

    /// Starts to keep a copy of every frame sent.
    pub fn record(&self) {
        self.0.borrow_mut().recording.get_or_insert_default();
    }

    /// Takes out what was recorded since the last call.
    pub fn take_recorded(&self) -> Vec<Recorded> {
        self.0.borrow_mut().recording.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl State {
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while self.in_flight.peek().is_some_and(|flight| flight.0.arrival <= self.now) {
            let Some(Reverse(flight)) = self.in_flight.pop() else { return };
            let to = if flight.to_left { Side::Left } else { Side::Right };
            self.stats[to.other() as usize].delivered += 1;
            self.deliver(to, flight);
        }
    }

    fn deliver(&mut self, to: Side, flight: Flight) {
        let rings = &self.config.rings;
        let ports = &mut self.ports[to as usize];
        let number = (ports.steer)(flight.arrival, &flight.bytes) % ports.inboxes.len();
        let inbox = &mut ports.inboxes[number];
        if to == Side::Left && (inbox.frames.len() >= rings.rx_frames || rings.starved.contain(flight.arrival)) {
            inbox.starved += 1;
            self.spare.push(flight.bytes);
        } else {
            inbox.frames.push_back(flight.bytes);
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Frames that a queue of `side` had no buffer for.
    pub(super) fn starved(&self, side: Side, number: usize) -> u64 {
        self.ports[side as usize].inboxes[number].starved
    }

    /// Sends a frame as a device does, `waits_us` from now: first the work that was left to it. Returns whether it could.
    pub(super) fn transmit(&mut self, from: Side, frame: &mut [u8], offload: TxOffload, waits_us: u64) -> bool {
        let able = match offload {
            TxOffload { checksum_start: None, segment_size: None } => {
                self.send_later(from, frame, waits_us);
                true
            }
            TxOffload { checksum_start: Some(start), segment_size: None } if self.config.tx_checksum => {
                let done = offload::complete_checksum(frame, start.into());
                if done {
                    self.send_later(from, frame, waits_us);
                }
                done
            }
            TxOffload { checksum_start: Some(start), segment_size: Some(size) }
                if frame.len() <= self.config.tx_segment_max =>
            {
                offload::segment(frame, start.into(), size.into(), |segment| {
                    self.send_later(from, segment, waits_us);
                })
            }
            _ => false,
        };
        self.stats[from as usize].refused += u64::from(!able);
        able
    }

    /// Puts a complete frame on the wire.
    pub(super) fn send(&mut self, from: Side, frame: &[u8]) {
        self.send_later(from, frame, 0);
    }

    fn send_later(&mut self, from: Side, frame: &[u8], waits_us: u64) {
        let seen = Sighting { from, index: self.stats[from as usize].sent, at: self.now, frame };
        let fate = self.faults.fate(&seen);
        if let Some(observer) = &mut self.observer {
            observer(&seen, &fate);
        }
        let stats = &mut self.stats[from as usize];
        stats.sent += 1;
        let oversize = frame.len() > self.config.mtu + offload::ethernet_header(frame);
        if let Some(recording) = &mut self.recording {
            recording.push(Recorded { at: self.now, from, lost: fate.lost || oversize, bytes: frame.to_vec() });
        }
        if oversize {
            stats.oversize += 1;
            return;
        }
        if fate.lost {
            stats.lost += 1;
            return;
        }
        stats.delayed += u64::from(fate.delay_us > 0);
        let arrival = self.now.plus_micros(self.config.latency_us + waits_us).plus_micros(fate.delay_us);
        let corrupt = fate.flipped_bit.filter(|bit| bit / 8 < frame.len());
        stats.corrupted += u64::from(corrupt.is_some());
        stats.duplicated += u64::from(fate.copy_after_us.is_some());
        self.fly(from, frame, arrival, corrupt);
        if let Some(later_us) = fate.copy_after_us {
            self.fly(from, frame, arrival.plus_micros(later_us), None);
        }
    }

    fn fly(&mut self, from: Side, frame: &[u8], arrival: Instant, flipped_bit: Option<usize>) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frame);
        if let Some(bit) = flipped_bit {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.order += 1;
        let to_left = from == Side::Right;
        self.in_flight.push(Reverse(Flight { arrival, order: self.order, to_left, bytes }));
    }

    /// The next frame that has arrived at `side`.
    pub(super) fn receive(&mut self, side: Side, number: usize) -> Option<Vec<u8>> {
        self.ports[side as usize].inboxes[number].frames.pop_front()
    }

    /// Takes a received frame's buffer back.
    pub(super) fn recycle(&mut self, bytes: Vec<u8>) {
        self.spare.push(bytes);
    }
}
