//! A link in virtual time, to see the sender at work: rate, delay, a queue that overflows, losses by a seed, and a
//! receiver that reassembles, delays its ACKs and reads as fast or as slowly as it is told.

use super::{Ack, Algorithm, Sender, Setup, Timeout};
use crate::Instant;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Header bytes of a segment on the wire, Ethernet's preamble and gap included.
pub(super) const OVERHEAD: u64 = 20 + 32 + 38;

/// A small deterministic generator (splitmix64).
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// True in `per_mille` of 1000 cases.
    fn falls(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }
}

/// What the network does.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) bits_per_second: u64,
    /// One way, microseconds.
    pub(super) delay_us: u64,
    /// From the first instant on, one way takes the second; microseconds.
    pub(super) slower: (u64, u64),
    /// Bytes that wait before the bottleneck; more are dropped.
    pub(super) queue_bytes: u64,
    /// Data segments lost by chance, of 1000.
    pub(super) loss: u64,
    /// ACKs lost by chance, of 1000.
    pub(super) ack_loss: u64,
    /// Data segments lost for certain: by their count from 0, retransmissions included.
    pub(super) lost: std::ops::Range<u64>,
    /// Nothing passes in either direction in this time, microseconds.
    pub(super) blackout: std::ops::Range<u64>,
    pub(super) seed: u64,
    /// Print each loss event.
    pub(super) verbose: bool,
}

impl Default for Link {
    /// 100 Mbit/s, 20 ms there and back, a queue of one bandwidth-delay product, no loss.
    fn default() -> Self {
        Link {
            bits_per_second: 100_000_000,
            delay_us: 10_000,
            slower: (u64::MAX, 0),
            queue_bytes: 250_000,
            loss: 0,
            ack_loss: 0,
            lost: 0..0,
            blackout: 0..0,
            seed: 1,
            verbose: false,
        }
    }
}

/// What the receiving application does.
#[derive(Clone)]
pub(super) struct Reader {
    /// Receive buffer, bytes.
    pub(super) buffer: u64,
    /// It reads nothing in this time, microseconds.
    pub(super) asleep: std::ops::Range<u64>,
    /// The window update that it sends when it wakes is lost.
    pub(super) update_lost: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { buffer: 4 << 20, asleep: 0..0, update_lost: false }
    }
}

/// What came of it. Times in microseconds.
#[derive(Default, Debug)]
pub(super) struct Outcome {
    pub(super) delivered: u64,
    pub(super) finished_us: Option<u64>,
    pub(super) gave_up_us: Option<u64>,
    /// When half of it was delivered.
    pub(super) half_us: u64,
    pub(super) timeouts: u64,
    pub(super) probes: u64,
    pub(super) fast_retransmits: u64,
    pub(super) resent: u64,
    pub(super) data_segments: u64,
    pub(super) dropped: u64,
}

impl Outcome {
    /// Payload Mbit/s over the second half of the transfer.
    pub(super) fn steady_mbit(&self) -> f64 {
        let finished = self.finished_us.expect("the transfer finished");
        self.delivered as f64 / 2.0 * 8.0 / (finished - self.half_us) as f64
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Data { offset: u64, len: u64 },
    Ack { ack: u64, window: u64, bare: bool },
    DelayedAck { ack: u64 },
    Wake,
}

struct World {
    link: Link,
    reader: Reader,
    dice: Dice,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    busy_until_us: u64,
    sender: Sender,
    total: u64,
    /// Received out of order: start and end.
    islands: BTreeMap<u64, u64>,
    received: u64,
    read: u64,
    acked: u64,
    out: Outcome,
}

/// Sends `total` bytes and a FIN in segments of `mss`; ends when all is acknowledged, the sender gives up, or after
/// `limit_s` seconds.
pub(super) fn transfer(mss: usize, total: u64, link: Link, reader: Reader, limit_s: u64) -> Outcome {
    let mut world = World {
        dice: Dice(link.seed),
        events: BinaryHeap::new(),
        order: 0,
        busy_until_us: 0,
        sender: Sender::new(&Setup {
            mss,
            window: reader.buffer.min(65_535),
            sack: false,
            algorithm: Algorithm::NewReno,
        }),
        total,
        islands: BTreeMap::new(),
        received: 0,
        read: 0,
        acked: 0,
        out: Outcome::default(),
        link,
        reader,
    };
    if !world.reader.asleep.is_empty() {
        world.post(world.reader.asleep.end, Event::Wake);
    }
    world.sender.seed_rtt(2 * world.link.delay_us);
    world.pump(0);
    world.run(limit_s * 1_000_000);
    world.out
}

impl World {
    fn post(&mut self, at_us: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at_us, self.order, event)));
    }

    fn run(&mut self, limit_us: u64) {
        loop {
            let deadline = self.sender.deadline().map_or(u64::MAX, |d| d.micros());
            let event = self.events.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
            let now = deadline.min(event);
            if now > limit_us {
                assert!(now < u64::MAX || self.sender.una() > self.total, "stalled: nothing to wait for");
                return;
            }
            if event <= deadline {
                let Reverse((_, _, event)) = self.events.pop().expect("peeked");
                self.happen(now, event);
            } else {
                match self.sender.on_timeout(Instant::from_micros(now)) {
                    Timeout::None => panic!("a deadline without meaning"),
                    Timeout::Retransmit => {
                        self.out.timeouts += 1;
                        self.note(now, "timeout");
                    }
                    Timeout::Probe => self.probe(now),
                    Timeout::GiveUp => {
                        self.out.gave_up_us = Some(now);
                        return;
                    }
                }
                self.pump(now);
            }
            if self.sender.una() > self.total {
                self.out.finished_us = Some(now);
                return;
            }
        }
    }

    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::Data { offset, len } => self.receive(now, offset, len),
            Event::DelayedAck { ack } if ack > self.acked => self.acknowledge(now),
            Event::DelayedAck { .. } => {}
            Event::Wake => {
                if self.reader.update_lost {
                    self.consume(now);
                } else {
                    self.acknowledge(now);
                }
            }
            Event::Ack { ack, window, bare } => {
                let outcome = self.sender.on_ack(
                    Instant::from_micros(now),
                    &Ack { ack, window: Some(window), pure: bare, ..Ack::default() },
                );
                if outcome.fast_retransmit {
                    self.out.fast_retransmits += 1;
                    self.note(now, "fast retransmit");
                }
                self.pump(now);
            }
        }
    }

    /// What the gate will do after each event.
    fn pump(&mut self, now: u64) {
        let at = Instant::from_micros(now);
        while let Some((offset, len)) = self.sender.next_retransmission() {
            self.transmit(now, offset, u64::from(len));
            self.sender.retransmitted(at, offset, u64::from(len));
            self.out.resent += 1;
        }
        loop {
            let (payload, fin) = self.unsent();
            let allowance = self.sender.allowance(at, payload, fin);
            if allowance == 0 {
                self.sender.blocked(at, payload + u64::from(fin));
                break;
            }
            let len = allowance.min(self.mss());
            let offset = self.sender.nxt();
            self.transmit(now, offset, len);
            self.sender.sent(at, offset, len);
        }
    }

    fn note(&self, now: u64, what: &str) {
        if self.link.verbose {
            println!("{:>10.3} ms {what}: dropped {} {:?}", now as f64 / 1000.0, self.out.dropped, self.sender);
        }
    }

    fn mss(&self) -> u64 {
        u64::from(self.sender.mss())
    }

    fn unsent(&self) -> (u64, bool) {
        (self.total.saturating_sub(self.sender.nxt()), self.sender.nxt() <= self.total)
    }

    fn probe(&mut self, now: u64) {
        let at = Instant::from_micros(now);
        self.out.probes += 1;
        let (offset, len) = self.sender.probe();
        let len = u64::from(len).min(self.total + 1 - offset);
        self.transmit(now, offset, len);
        if offset == self.sender.nxt() {
            self.sender.sent(at, offset, len);
        } else {
            self.sender.retransmitted(at, offset, len);
        }
    }

    fn transmit(&mut self, now: u64, offset: u64, len: u64) {
        let count = self.out.data_segments;
        self.out.data_segments += 1;
        let waiting_us = self.busy_until_us.saturating_sub(now);
        let full = waiting_us * self.link.bits_per_second / 8_000_000 > self.link.queue_bytes;
        let unlucky = self.dice.falls(self.link.loss) || self.link.lost.contains(&count);
        if full || unlucky || self.link.blackout.contains(&now) {
            self.out.dropped += 1;
            return;
        }
        let wire_us = ((len + OVERHEAD) * 8_000_000).div_ceil(self.link.bits_per_second);
        self.busy_until_us = self.busy_until_us.max(now) + wire_us;
        self.post(self.busy_until_us + self.delay(now), Event::Data { offset, len });
    }

    fn delay(&self, now: u64) -> u64 {
        let (from, delay) = self.link.slower;
        if now < from { self.link.delay_us } else { delay }
    }

    fn window(&self) -> u64 {
        self.reader.buffer - (self.received - self.read)
    }

    fn consume(&mut self, now: u64) {
        if !self.reader.asleep.contains(&now) {
            self.read = self.received;
        }
    }

    fn receive(&mut self, now: u64, offset: u64, len: u64) {
        let before = self.received;
        let edge = self.read + self.reader.buffer;
        let end = (offset + len).min(edge);
        if end > self.received && offset < end {
            let island = self.islands.entry(offset).or_insert(end);
            *island = end.max(*island);
        }
        while let Some((start, end)) = self.islands.first_key_value().map(|(s, e)| (*s, *e))
            && start <= self.received
        {
            self.islands.remove(&start);
            self.received = self.received.max(end);
        }
        self.consume(now);
        self.out.delivered = self.received;
        if self.out.half_us == 0 && self.received >= self.total / 2 {
            self.out.half_us = now;
        }
        // In order and nothing missing: every second segment or after 40 ms. All else: at once (RFC 5681 4.2).
        let in_order = self.received > before && self.islands.is_empty() && self.received == offset + len;
        if in_order && self.received - self.acked < 2 * self.mss() && self.received <= self.total {
            self.post(now + 40_000, Event::DelayedAck { ack: self.received });
        } else {
            self.acknowledge(now);
        }
    }

    fn acknowledge(&mut self, now: u64) {
        self.consume(now);
        self.acked = self.received;
        if self.dice.falls(self.link.ack_loss) || self.link.blackout.contains(&now) {
            return;
        }
        let event = Event::Ack { ack: self.received, window: self.window(), bare: true };
        self.post(now + self.delay(now), event);
    }
}
