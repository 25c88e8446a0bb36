//! What a flow looks like over time.

use crate::replay::flow::Flow;
use crate::replay::half::JUMP_MAX;
use crate::replay::segment::Segment;
use std::collections::BTreeMap;

/// Intervals over which throughput is summed, at most.
const INTERVALS: u64 = 200;
/// Shortest of them, nanoseconds.
const INTERVAL_MIN_NS: u64 = 1_000_000;
/// Points that a picture shows of one series; of more only some.
pub(super) const POINTS_MAX: usize = 4_000;

/// Seconds since the flow began, and a value.
pub type Points = Vec<(f64, f64)>;

/// One direction.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Direction {
    /// Text on the wire, retransmissions included, Mbit/s.
    pub throughput: Points,
    /// From a segment to the acknowledgement that covers it, where it was recorded, milliseconds. Segments that were sent
    /// again give none (RFC 6298 3).
    pub rtt: Points,
    /// The receive window that this direction's sender offers, kB.
    pub window: Points,
    /// What it has sent and the other has not acknowledged, kB.
    pub flight: Points,
    /// Behind the last byte of each segment, kB since its SYN.
    pub sequence: Points,
    /// The same, of segments of which nothing was new.
    pub again: Points,
}

/// Both.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pictures {
    /// From the client.
    pub up: Direction,
    /// From the server.
    pub down: Direction,
    /// How long it lasts, seconds.
    pub seconds: f64,
}

/// What is known of one direction at a place of the flow.
struct Sender {
    isn: u32,
    scale: Option<u8>,
    end: i64,
    acked: i64,
    /// End and time of what is not acknowledged.
    open: BTreeMap<i64, f64>,
    bytes: Vec<u64>,
    out: Direction,
}

impl Sender {
    fn new(isn: u32, intervals: usize) -> Sender {
        Sender {
            isn,
            scale: None,
            end: 0,
            acked: 0,
            open: BTreeMap::new(),
            bytes: vec![0; intervals],
            out: Direction::default(),
        }
    }

    fn position(&self, near: i64, seq: u32) -> i64 {
        near + i64::from(seq.wrapping_sub(self.isn.wrapping_add(near as u32)) as i32)
    }

    fn sends(&mut self, at: f64, segment: &Segment) {
        let from = self.position(self.end, segment.seq);
        let to = from + i64::from(segment.sequence_len());
        if to == from || segment.flags.rst() || (from - self.end).abs() > JUMP_MAX {
            return;
        }
        let point = (at, to as f64 / 1e3);
        if to > self.end {
            self.open.insert(to, at);
            self.out.sequence.push(point);
            self.end = to;
        } else {
            while let Some((&end, _)) = self.open.range(from + 1..=to).next() {
                self.open.remove(&end);
            }
            self.out.again.push(point);
        }
        self.out.flight.push((at, (self.end - self.acked).max(0) as f64 / 1e3));
    }

    fn hears(&mut self, at: f64, ack: u32) {
        let position = self.position(self.acked.max(self.end - JUMP_MAX), ack);
        if position <= self.acked || position > self.end + JUMP_MAX {
            return;
        }
        self.acked = position;
        let mut sample = None;
        while let Some(first) = self.open.first_entry().filter(|first| *first.key() <= position) {
            sample = Some((at, (at - first.remove()) * 1e3));
        }
        self.out.rtt.extend(sample);
        self.out.flight.push((at, (self.end - self.acked).max(0) as f64 / 1e3));
    }
}

/// The series of a flow.
pub fn pictures(flow: &Flow) -> Pictures {
    let began = flow.segments.first().map_or(0, |first| first.at_ns);
    let duration = flow.duration_ns().max(INTERVAL_MIN_NS);
    let interval = (duration / INTERVALS).max(INTERVAL_MIN_NS);
    let intervals = (duration / interval + 1) as usize;
    let mut up = Sender::new(flow.up.isn.unwrap_or(0), intervals);
    let mut down = Sender::new(flow.down.isn.unwrap_or(0), intervals);
    // Scaled only where both have offered it (RFC 7323 2.2).
    let scaling = [true, false].into_iter().all(|client| {
        let mut syns = flow.segments.iter().filter(|s| s.from_client == client && s.flags.syn());
        syns.any(|syn| syn.window_scale().is_some())
    });
    for segment in &flow.segments {
        let at = (segment.at_ns - began) as f64 / 1e9;
        let (sender, other) = if segment.from_client { (&mut up, &mut down) } else { (&mut down, &mut up) };
        let index = ((segment.at_ns - began) / interval) as usize;
        sender.bytes[index.min(intervals - 1)] += u64::from(segment.len);
        if segment.flags.ack() && !segment.flags.rst() {
            other.hears(at, segment.ack);
        }
        if segment.flags.syn() {
            sender.scale = segment.window_scale();
        }
        sender.sends(at, segment);
        if !segment.flags.rst() {
            let shift = if scaling && !segment.flags.syn() { sender.scale.unwrap_or(0) } else { 0 };
            sender.out.window.push((at, f64::from(u32::from(segment.window) << shift) / 1e3));
        }
    }
    for sender in [&mut up, &mut down] {
        let seconds = interval as f64 / 1e9;
        let rate = |(i, bytes): (usize, &u64)| ((i as f64 + 0.5) * seconds, *bytes as f64 * 8.0 / seconds / 1e6);
        sender.out.throughput = sender.bytes.iter().enumerate().map(rate).collect();
    }
    Pictures { up: up.out, down: down.out, seconds: duration as f64 / 1e9 }
}

/// At most [`POINTS_MAX`] of them, evenly chosen.
pub(super) fn thin(points: &Points) -> Points {
    let step = points.len().div_ceil(POINTS_MAX).max(1);
    points.iter().copied().step_by(step).chain(points.last().copied().filter(|_| step > 1)).collect()
}
