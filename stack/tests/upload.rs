//! Uploads over a link in virtual time: what a receiver must not take away from a good sender.
//!
//! The peer is a model of one: slow start up to a fixed window, losses told by time (RACK, RFC 8985) from SACK, no reaction to
//! them. Whatever it does not reach, the receiver is to blame for: its window, its reports, or the timing of its ACKs.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use khamsin_stack::limits::{Limits, RX_SHIFT};
use khamsin_stack::wire::{Flags, tcp_options};
use khamsin_stack::{Counters, Instant};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const MSS: usize = 1460;
/// Of a full segment on the wire: headers, preamble and gap.
const WIRE: usize = MSS + 40 + 38;
/// One way, microseconds.
const DELAY_US: u64 = 10_000;
/// Later than this behind what was sent after it, a segment is lost, microseconds.
const REORDER_US: u64 = 12_000;

#[derive(Clone, Copy)]
struct Link {
    mbit: u64,
    /// Of 1000 segments.
    late: u64,
    lost: u64,
    millis: u64,
    /// The peer scales windows.
    scaled: bool,
    /// The most it keeps in flight, bytes.
    cwnd: usize,
}

/// What reaches the peer.
struct Report {
    ack: usize,
    edge: usize,
    blocks: Vec<(usize, usize)>,
}

#[derive(Clone, Copy)]
struct Sent {
    /// When the link began to carry it.
    at: u64,
    sacked: bool,
}

/// The sender, in whole segments: segment `n` is bytes `n * MSS..(n + 1) * MSS`.
struct Peer {
    link: Link,
    una: usize,
    edge: usize,
    cwnd: usize,
    sent: VecDeque<Sent>,
    sacked: usize,
    /// When the latest segment was sent that arrived.
    newest: u64,
    free_at: u64,
    dice: u64,
    resent: u64,
}

impl Peer {
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice >> 33
    }

    fn on_report(&mut self, report: &Report) {
        self.edge = self.edge.max(report.edge);
        let before = self.una;
        while !self.sent.is_empty() && (self.una + 1) * MSS <= report.ack {
            let sent = self.sent.pop_front().unwrap();
            self.newest = self.newest.max(sent.at);
            self.sacked -= usize::from(sent.sacked);
            self.una += 1;
        }
        for &(left, right) in &report.blocks {
            for n in (left.div_ceil(MSS).max(self.una) - self.una)..(right / MSS).saturating_sub(self.una) {
                let Some(sent) = self.sent.get_mut(n) else { break };
                self.sacked += usize::from(!sent.sacked);
                sent.sacked = true;
                self.newest = self.newest.max(sent.at);
            }
        }
        self.cwnd = (self.cwnd + (self.una - before) * MSS).min(self.link.cwnd);
    }

    /// What goes out now: segments, and when each arrives.
    fn send(&mut self, now: u64) -> Vec<(usize, u64)> {
        let mut out = Vec::new();
        // Nothing to look for while all that has arrived came in order.
        let behind = if self.sacked > 0 { self.sent.len() } else { self.sent.len().min(1) };
        for n in 0..behind {
            let sent = self.sent[n];
            let overtaken = !sent.sacked && sent.at + REORDER_US < self.newest;
            if overtaken || (n == 0 && sent.at + 500_000 < now) {
                self.resent += 1;
                out.extend(self.carry(now, self.una + n));
                self.sent[n].at = self.free_at;
            }
        }
        let mut flight = self.sent.len() - self.sacked;
        while (flight + 1) * MSS <= self.cwnd && (self.una + self.sent.len() + 1) * MSS <= self.edge {
            let n = self.una + self.sent.len();
            flight += 1;
            out.extend(self.carry(now, n));
            self.sent.push_back(Sent { at: self.free_at, sacked: false });
        }
        out
    }

    fn carry(&mut self, now: u64, n: usize) -> Option<(usize, u64)> {
        self.free_at = self.free_at.max(now) + WIRE as u64 * 8 / self.link.mbit;
        let (late, lost, by) = (self.roll() % 1000, self.roll() % 1000, self.roll() % 10_000);
        let late = if late < self.link.late { 1 + by } else { 0 };
        (lost >= self.link.lost).then_some((n, self.free_at + DELAY_US + late))
    }
}

/// A receiver that acknowledges everything at once, reports everything and has all the room in the world.
#[derive(Default)]
struct Ideal {
    next: usize,
    held: std::collections::BTreeSet<usize>,
}

impl Ideal {
    fn on_segment(&mut self, n: usize) -> Report {
        if n >= self.next {
            self.held.insert(n);
        }
        while self.held.remove(&self.next) {
            self.next += 1;
        }
        let blocks = self.held.iter().map(|n| (n * MSS, (n + 1) * MSS)).collect();
        Report { ack: self.next * MSS, edge: usize::MAX, blocks }
    }
}

struct Outcome {
    mbit: f64,
    resent: u64,
    counters: Option<Counters>,
}

fn world(link: &Link) -> World {
    let mut w = World::with(Limits { hold_blocks: 4096, ..small() }, MemQueue::default());
    w.app.checks = true;
    let scale: &[u8] = if link.scaled { &[3, 3, 7, 1] } else { &[] };
    w.send(Seg { options: [&[2, 4, 5, 0xb4, 4, 2, 1, 1], scale].concat(), ..syn() });
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    // The shard sees one round trip in the handshake.
    w.pass(2 * DELAY_US / 1000);
    w.send(ack(1, 1));
    w
}

fn report(link: &Link, s: &Seg) -> Report {
    let header = [&[0; 20][..], &s.options].concat();
    let relative = |seq: u32| seq.wrapping_sub(PEER_ISN) as usize - 1;
    let sack = tcp_options(&header).sack;
    let ack = s.ack as usize - 1;
    Report {
        ack,
        edge: ack + (usize::from(s.window) << if link.scaled { RX_SHIFT } else { 0 }),
        blocks: sack.iter().map(|&(left, right)| (relative(left), relative(right))).collect(),
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Segment(usize),
    Report(usize),
    Look,
}

/// Uploads for a while, to the shard or to an ideal receiver; goodput over the second half.
fn upload(link: Link, ideal: bool) -> Outcome {
    let mut w = world(&link);
    let mut perfect = Ideal::default();
    let text: Vec<u8> = (0..MSS + 251).map(big_byte).collect();
    let (mut peer_at, mut events, mut order) = (0, BinaryHeap::new(), 0u64);
    let mut peer = Peer {
        link,
        una: 0,
        edge: 65_535,
        cwnd: 10 * MSS,
        sent: VecDeque::new(),
        sacked: 0,
        newest: 0,
        free_at: 0,
        dice: 7,
        resent: 0,
    };
    let mut reports: Vec<Report> = Vec::new();
    let start = w.now.micros();
    let (end, mut half) = (start + link.millis * 1000, None);
    events.push(Reverse((start, 0, Event::Look)));
    while let Some(Reverse((now, _, event))) = events.pop() {
        if now > end {
            break;
        }
        let mut told = Vec::new();
        match event {
            Event::Segment(n) if ideal => told.push(perfect.on_segment(n)),
            Event::Segment(n) => {
                let from = n * MSS % 251;
                w.now = Instant::from_micros(now);
                w.send(data(1 + (n * MSS) as u32, 1, &text[from..from + MSS]));
            }
            Event::Report(n) => peer.on_report(&reports[n]),
            Event::Look => {}
        }
        if !ideal {
            w.now = Instant::from_micros(now);
            let turn = w.turn();
            if let Some(at) = turn.deadline {
                let at = at.micros().max(now + 10);
                if at != peer_at {
                    order += 1;
                    peer_at = at;
                    events.push(Reverse((at, order, Event::Look)));
                }
            }
            while let Some(s) = w.next() {
                told.push(report(&link, &s));
            }
        }
        for report in told {
            order += 1;
            reports.push(report);
            events.push(Reverse((now + DELAY_US, order, Event::Report(reports.len() - 1))));
        }
        for (n, at) in peer.send(now) {
            order += 1;
            events.push(Reverse((at, order, Event::Segment(n))));
        }
        let taken = if ideal { perfect.next * MSS } else { w.app.checked };
        if half.is_none() && now >= (start + end) / 2 {
            half = Some((now, taken));
        }
    }
    let (half_at, half_taken) = half.unwrap();
    let taken = if ideal { perfect.next * MSS } else { w.app.checked };
    let mbit = (taken - half_taken) as f64 * 8.0 / (end - half_at) as f64;
    Outcome { mbit, resent: peer.resent, counters: (!ideal).then(|| w.counters()) }
}

/// RECOVERY.md: smoltcp's own reassembly reaches 5 of 100 Mbit/s here.
#[test]
fn reordering_costs_nothing() {
    let link = Link { mbit: 100, late: 50, lost: 0, millis: 1500, scaled: true, cwnd: 500_000 };
    let (ours, ideal) = (upload(link, false), upload(link, true));
    println!("5 % late: {:.1} Mbit/s, an ideal receiver {:.1}; {} sent again", ours.mbit, ideal.mbit, ours.resent);
    assert!(ours.mbit >= 0.95 * ideal.mbit, "{} of {}", ours.mbit, ideal.mbit);
    assert_eq!(ours.resent, 0);
    assert!(ours.counters.unwrap().rx_out_of_order > 1000);
}

#[test]
fn losses_are_repaired_once() {
    let link = Link { mbit: 100, late: 10, lost: 10, millis: 1500, scaled: true, cwnd: 500_000 };
    let (ours, ideal) = (upload(link, false), upload(link, true));
    println!(
        "1 % lost: {:.1} Mbit/s, an ideal receiver {:.1}; {} sent again, {}",
        ours.mbit, ideal.mbit, ours.resent, ideal.resent
    );
    assert!(ours.mbit >= 0.95 * ideal.mbit, "{} of {}", ours.mbit, ideal.mbit);
    assert!(ours.resent <= ideal.resent * 11 / 10, "{} {}", ours.resent, ideal.resent);
    assert!(ours.counters.unwrap().rx_duplicate < 20);
}

/// The window grows as the peer's does, and is not what limits it.
#[test]
fn a_fast_long_path_is_filled() {
    let link = Link { mbit: 1000, late: 0, lost: 0, millis: 400, scaled: true, cwnd: 2_900_000 };
    let (ours, ideal) = (upload(link, false), upload(link, true));
    println!("1 Gbit/s: {:.0} Mbit/s, an ideal receiver {:.0}", ours.mbit, ideal.mbit);
    assert!(ours.mbit > 930.0 && ours.mbit >= 0.99 * ideal.mbit, "{} of {}", ours.mbit, ideal.mbit);
    let c = ours.counters.unwrap();
    assert!(c.rx_window_grown > 3);
    assert_eq!(ours.resent, 0);
}

/// Without scaling 65,535 bytes in 20 ms are 26 Mbit/s.
#[test]
fn a_peer_that_does_not_scale_is_served_too() {
    let link = Link { mbit: 100, late: 0, lost: 0, millis: 1500, scaled: false, cwnd: 500_000 };
    let ours = upload(link, false);
    println!("unscaled: {:.1} Mbit/s", ours.mbit);
    assert!((23.0..27.0).contains(&ours.mbit), "{}", ours.mbit);
    assert_eq!(ours.counters.unwrap().rx_window_grown, 0);
}
