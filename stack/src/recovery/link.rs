//! A link in virtual time, to see the sender at work: rate, delay, a queue that overflows, losses and reordering by a
//! seed, and a receiver that reassembles, delays its ACKs, reports what it has (or not) and reads as fast or as slowly as
//! it is told.

mod peer;

use super::{Ack, Algorithm, Sender, Setup, Timeout};
use crate::Instant;
use peer::{Message, Peer, Segment};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Header bytes of a segment on the wire, Ethernet's preamble and gap included.
pub(super) const OVERHEAD: u64 = 20 + 32 + 38;

/// A small deterministic generator (splitmix64).
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
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
    /// Data and ACKs wait in this time, microseconds, and go on behind it.
    pub(super) held: std::ops::Range<u64>,
    /// Bytes that wait before the bottleneck; more are dropped.
    pub(super) queue_bytes: u64,
    /// Bytes that wait before the bottleneck when data is marked instead (RFC 3168).
    pub(super) mark_from: u64,
    /// Data segments lost by chance, of 1000.
    pub(super) loss: u64,
    /// ACKs lost by chance, of 1000.
    pub(super) ack_loss: u64,
    /// Data segments that take up to the second (microseconds) longer, of 1000.
    pub(super) reorder: (u64, u64),
    /// The same of ACKs.
    pub(super) ack_reorder: (u64, u64),
    /// ACKs leave the receiver at multiples of this only, microseconds; 0: at once.
    pub(super) compress_us: u64,
    /// Data segments lost for certain: from and up to (exclusive) which, counted from 0, retransmissions included.
    pub(super) lost: Vec<(u64, u64)>,
    /// Nothing passes in either direction in this time, microseconds.
    pub(super) blackout: std::ops::Range<u64>,
    /// Segments with more payload vanish.
    pub(super) largest: u64,
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
            held: 0..0,
            queue_bytes: 250_000,
            mark_from: u64::MAX,
            loss: 0,
            ack_loss: 0,
            reorder: (0, 0),
            ack_reorder: (0, 0),
            compress_us: 0,
            lost: vec![],
            blackout: 0..0,
            largest: u64::MAX,
            seed: 1,
            verbose: false,
        }
    }
}

/// What the receiver does.
#[derive(Clone)]
pub(super) struct Reader {
    /// Receive buffer, bytes.
    pub(super) buffer: u64,
    /// The application reads nothing in this time, microseconds.
    pub(super) asleep: std::ops::Range<u64>,
    /// The window update that it sends when it wakes is lost.
    pub(super) update_lost: bool,
    pub(super) sack: bool,
    pub(super) stamps: bool,
    /// What comes early is thrown away.
    pub(super) discards: bool,
    /// Segments for one ACK.
    pub(super) stretch: u64,
    /// It throws away what it holds out of order then, microseconds (RFC 2018 8).
    pub(super) reneges_at: u64,
    /// The sender's algorithm.
    pub(super) algorithm: Algorithm,
}

impl Default for Reader {
    fn default() -> Self {
        Reader {
            buffer: 4 << 20,
            asleep: 0..0,
            update_lost: false,
            sack: true,
            stamps: false,
            discards: false,
            stretch: 2,
            reneges_at: u64::MAX,
            algorithm: Algorithm::Cubic,
        }
    }
}

/// What came of it. Times in microseconds.
#[derive(Default, Debug)]
pub(super) struct Outcome {
    pub(super) delivered: u64,
    /// When the last payload arrived.
    pub(super) arrived_us: u64,
    pub(super) finished_us: Option<u64>,
    pub(super) gave_up_us: Option<u64>,
    /// When half of it was delivered.
    pub(super) half_us: u64,
    pub(super) timeouts: u64,
    pub(super) tail_probes: u64,
    pub(super) probes: u64,
    pub(super) fast_retransmits: u64,
    pub(super) undone: u64,
    pub(super) resent: u64,
    pub(super) data_segments: u64,
    pub(super) dropped: u64,
    pub(super) overflowed: u64,
    /// By the receiver, because what was sent later came before it.
    pub(super) refused: u64,
    pub(super) marked: u64,
    pub(super) runs_max: usize,
    pub(super) ssthresh: u32,
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
    Data(Segment),
    Ack(Message),
    DelayedAck { ack: u64 },
    Wake,
}

struct World {
    link: Link,
    dice: Dice,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    busy_until_us: u64,
    sender: Sender,
    total: u64,
    peer: Peer,
    out: Outcome,
}

/// Sends `total` bytes and a FIN in segments of `mss`; ends when all is acknowledged, the sender gives up, or after
/// `limit_s` seconds.
pub(super) fn transfer(mss: usize, total: u64, link: Link, reader: Reader, limit_s: u64) -> Outcome {
    let setup = Setup { mss, window: reader.buffer.min(65_535), sack: reader.sack, algorithm: reader.algorithm };
    let mut world = World {
        dice: Dice(link.seed),
        events: BinaryHeap::new(),
        order: 0,
        busy_until_us: 0,
        sender: Sender::new(&setup),
        total,
        peer: Peer::new(reader.clone(), mss as u64),
        out: Outcome::default(),
        link,
    };
    if !reader.asleep.is_empty() {
        world.post(reader.asleep.end, Event::Wake);
    }
    world.sender.seed_rtt(Instant::ZERO, 2 * world.link.delay_us);
    world.pump(0);
    world.run(limit_s * 1_000_000);
    world.out.delivered = world.peer.received;
    world.out.refused = world.peer.refused;
    world.out.ssthresh = world.sender.ssthresh();
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
            } else if !self.expire(now) {
                return;
            }
            if self.sender.una() > self.total {
                self.out.finished_us = Some(now);
                return;
            }
        }
    }

    /// The sender's deadline has come; says whether it goes on.
    fn expire(&mut self, now: u64) -> bool {
        let at = Instant::from_micros(now);
        let what = self.sender.on_timeout(at);
        match what {
            Timeout::None => panic!("a deadline without meaning: {:?}", self.sender),
            Timeout::Resume => {}
            Timeout::Late => self.out.fast_retransmits += 1,
            Timeout::TailLoss => self.out.tail_probes += 1,
            Timeout::Retransmit => self.out.timeouts += 1,
            Timeout::Probe => self.probe(now),
            Timeout::GiveUp => {
                self.out.gave_up_us = Some(now);
                return false;
            }
        }
        if what != Timeout::Resume {
            self.note(now, what);
        }
        self.pump(now);
        true
    }

    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::Data(segment) => {
                let before = self.peer.received;
                let at_once = self.peer.receive(now, &segment);
                if self.peer.received > before {
                    self.out.arrived_us = now;
                }
                if self.out.half_us == 0 && self.peer.received >= self.total / 2 {
                    self.out.half_us = now;
                }
                if at_once || self.peer.received > self.total {
                    self.acknowledge(now);
                } else {
                    self.post(now + 40_000, Event::DelayedAck { ack: self.peer.received });
                }
            }
            Event::DelayedAck { ack } if ack > self.peer.acked => self.acknowledge(now),
            Event::DelayedAck { .. } => {}
            Event::Wake => {
                if self.peer.reader.update_lost {
                    self.peer.consume(now);
                } else {
                    self.acknowledge(now);
                }
            }
            Event::Ack(message) => {
                let outcome = self.sender.on_ack(
                    Instant::from_micros(now),
                    &Ack {
                        ack: message.ack,
                        window: Some(message.window),
                        pure: true,
                        sack: &message.sack,
                        echoed: message.echoed.map(Instant::from_micros),
                        ece: message.ece,
                    },
                );
                self.out.undone += u64::from(outcome.undone);
                if outcome.undone {
                    self.note(now, "undone");
                }
                if outcome.fast_retransmit {
                    self.out.fast_retransmits += 1;
                    self.note(now, "fast retransmit");
                }
                self.pump(now);
            }
        }
    }

    /// What the gate does after each event.
    fn pump(&mut self, now: u64) {
        let at = Instant::from_micros(now);
        while let Some((offset, len)) = self.sender.next_retransmission() {
            let len = u64::from(len).min(self.mss());
            let stamp = self.sender.stamp(at, offset, len);
            self.transmit(now, stamp.micros(), offset, len);
            self.sender.retransmitted(at, offset, len);
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
            self.transmit(now, now, offset, len);
            self.sender.sent(at, offset, len);
        }
        let sender = &self.sender;
        self.out.runs_max = self.out.runs_max.max(sender.board().runs());
        if self.order.is_multiple_of(1024) {
            sender.board().audit(sender.una(), sender.nxt());
        }
    }

    fn note(&self, now: u64, what: impl std::fmt::Debug) {
        if self.link.verbose {
            let s = &self.sender;
            let (una, nxt, cwnd, ssthresh) = (s.una(), s.nxt(), s.cwnd(), s.ssthresh());
            let (time, dropped) = (now as f64 / 1000.0, self.out.dropped);
            println!("{time:>10.3} ms {what:?}: una {una} nxt {nxt} cwnd {cwnd} ssthresh {ssthresh} dropped {dropped}");
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
        self.transmit(now, now, offset, len);
        if offset == self.sender.nxt() {
            self.sender.sent(at, offset, len);
        } else {
            self.sender.retransmitted(at, offset, len);
        }
    }

    fn transmit(&mut self, now: u64, stamp_us: u64, offset: u64, len: u64) {
        let count = self.out.data_segments;
        self.out.data_segments += 1;
        let waiting_us = self.busy_until_us.saturating_sub(now);
        let queued = waiting_us * self.link.bits_per_second / 8_000_000;
        let full = queued > self.link.queue_bytes;
        let unlucky =
            self.dice.falls(self.link.loss) || self.link.lost.iter().any(|(from, to)| (*from..*to).contains(&count));
        let late = if self.dice.falls(self.link.reorder.0) { self.dice.next() % self.link.reorder.1 } else { 0 };
        self.out.overflowed += u64::from(full);
        if full || unlucky || self.link.blackout.contains(&now) || len > self.link.largest {
            self.out.dropped += 1;
            return;
        }
        let marked = queued > self.link.mark_from;
        self.out.marked += u64::from(marked);
        let cwr = self.sender.take_cwr();
        let wire_us = ((len + OVERHEAD) * 8_000_000).div_ceil(self.link.bits_per_second);
        self.busy_until_us = self.busy_until_us.max(now) + wire_us;
        let segment = Segment { offset, len, stamp_us, marked, cwr };
        self.post(self.released(self.busy_until_us) + self.delay(now) + late, Event::Data(segment));
    }

    fn delay(&self, now: u64) -> u64 {
        let (from, delay) = self.link.slower;
        if now < from { self.link.delay_us } else { delay }
    }

    /// When something goes on that would at `at`.
    fn released(&self, at: u64) -> u64 {
        if self.link.held.contains(&at) { self.link.held.end } else { at }
    }

    fn acknowledge(&mut self, now: u64) {
        let message = self.peer.acknowledge(now);
        if self.dice.falls(self.link.ack_loss) || self.link.blackout.contains(&now) {
            return;
        }
        let leaves = match self.link.compress_us {
            0 => now,
            every => now.next_multiple_of(every),
        };
        let late = if self.link.ack_reorder.0 > 0 && self.dice.falls(self.link.ack_reorder.0) {
            self.dice.next() % self.link.ack_reorder.1
        } else {
            0
        };
        self.post(self.released(leaves) + self.delay(now) + late, Event::Ack(message));
    }
}
