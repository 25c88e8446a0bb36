//! Sees every frame that the server takes and gives, at its queues, and holds its TCP against the RFCs.
//!
//! What it knows of a flow are bounds that hold whatever the stack made of a segment: an acknowledgement may not cover what
//! never arrived, text may not lie beyond every window that was ever offered, and so on. So it judges the server's half of a
//! connection with a hostile peer as well as any other.

use khamsin_drivers::sim::client::{ACK, FIN, Packet, Problem, RST, SYN, Segment, parse, parse_partial};
use khamsin_stack::{Caps, Instant, TxOffload};
use std::collections::BTreeMap;
use std::net::SocketAddr;

mod epoch;
mod ranges;
mod stamps;

use epoch::Epoch;
pub use ranges::Ranges;

/// A peer's end and ours.
type Key = (SocketAddr, SocketAddr);

/// Connections in a row, of one flow, that are remembered.
const EPOCHS: usize = 6;
/// SYNs that came again of which the timestamps are remembered: more than an honest peer sends.
const SYNS_AGAIN: usize = 64;

/// What applies in a run.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The server's device.
    pub caps: Caps,
    /// Every frame that the server is handed reaches the shard of its flow in the same turn.
    pub direct: bool,
    /// The server is always on time and never short of frames: longest that an acknowledgement may take, microseconds.
    pub ack_within_us: Option<u64>,
}

/// The witness of one run.
pub struct Witness {
    terms: Terms,
    flows: BTreeMap<Key, Flow>,
    honest: fn(&SocketAddr) -> bool,
    /// What the server did that it may not do.
    pub violations: Vec<String>,
    /// Frames that the server took, and gave.
    pub taken: u64,
    /// Frames that the server gave.
    pub given: u64,
    /// Frames that the server took and that are not taken apart here: fragments, extension headers, options without an end.
    unread: u64,
    record: Option<Vec<Passed>>,
}

/// A frame that passed the server's queues.
#[derive(Clone, Debug)]
pub struct Passed {
    /// When.
    pub at: Instant,
    /// The server gave it; else it took it.
    pub given: bool,
    /// The frame, whose TCP checksum may be partial.
    pub frame: Vec<u8>,
}

#[derive(Default)]
struct Flow {
    /// SYNs that arrived, newest last.
    syns: Vec<Opening>,
    /// Timestamps of SYNs that came again, with the number of the SYN.
    again: Vec<(u32, u32)>,
    epochs: Vec<Epoch>,
    frames: u64,
    /// The same with those that are not taken apart here and may be of this flow, or of any other of a peer without rules.
    may_be_frames: u64,
    pure_acks: u64,
    resets: u64,
    /// Something arrived that is not taken apart here: nothing can be said of what the server knows.
    blurred: bool,
    /// The same SYN came with different options.
    ambiguous: bool,
}

/// What a SYN says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Opening {
    irs: u32,
    mss: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    stamp: Option<u32>,
    window: u16,
}

impl Opening {
    /// Whether `other` is this SYN again: its timestamp is of the moment (RFC 7323 3.2), all else is as before.
    fn is_again(&self, other: &Opening) -> bool {
        self.stamp.is_some() == other.stamp.is_some() && Opening { stamp: other.stamp, ..*self } == *other
    }
}

impl Witness {
    /// A witness; `honest` says which peers keep to the rules.
    pub fn new(terms: Terms, honest: fn(&SocketAddr) -> bool) -> Self {
        Witness {
            terms,
            flows: BTreeMap::new(),
            honest,
            violations: Vec::new(),
            taken: 0,
            given: 0,
            unread: 0,
            record: None,
        }
    }

    /// Keeps every frame from now on.
    pub fn record(&mut self) {
        self.record.get_or_insert_default();
    }

    /// What was kept.
    pub fn recorded(&self) -> &[Passed] {
        self.record.as_deref().unwrap_or_default()
    }

    fn note(&mut self, at: Instant, given: bool, frame: &[u8]) {
        // A violation ends what there is to show.
        if let Some(record) = self.record.as_mut().filter(|_| self.violations.is_empty()) {
            record.push(Passed { at, given, frame: frame.to_vec() });
        }
    }

    fn violation(&mut self, now: Instant, key: &Key, what: &str) {
        if self.violations.len() < 20 {
            self.violations.push(format!("at {now:?}, to {}: {what}", key.0));
        }
    }

    /// The server takes a frame.
    pub fn takes(&mut self, now: Instant, frame: &[u8]) {
        self.taken += 1;
        self.note(now, false, frame);
        let parsed = match self.terms.caps.rx_partial_checksums {
            true => parse_partial(frame),
            false => parse(frame),
        };
        match parsed {
            Ok(Packet::Tcp(segment)) => {
                let honest = (self.honest)(&segment.from);
                let flow = self.flows.entry((segment.from, segment.to)).or_default();
                flow.frames += 1;
                flow.take(now, &segment, honest);
            }
            // A fragment or an extension header: what is behind it may belong to any flow of its sender.
            Ok(Packet::Other) => self.blur(frame),
            // Options that do not end: what is in front of them counts, and so does the text.
            Err(Problem::Options) => self.blur_all(),
            _ => {}
        }
    }

    fn blur(&mut self, frame: &[u8]) {
        let fragment_v4 = frame.len() > 34 && frame[12..14] == [8, 0] && frame[23] == 6;
        let extended_v6 = frame.len() > 54 && frame[12..14] == [0x86, 0xdd] && matches!(frame[20], 0 | 43 | 44 | 60);
        if !fragment_v4 && !extended_v6 {
            return;
        }
        self.blur_all();
    }

    fn blur_all(&mut self) {
        self.unread += 1;
        for (key, flow) in &mut self.flows {
            flow.blurred |= !(self.honest)(&key.0);
        }
    }

    /// The server gives a frame.
    pub fn gives(&mut self, now: Instant, frame: &[u8], offload: TxOffload) {
        self.given += 1;
        self.note(now, true, frame);
        let segment = match parse_partial(frame) {
            Ok(Packet::Tcp(segment)) => segment,
            Ok(_) => return,
            Err(problem) => return self.violations.push(format!("at {now:?}: sent {problem}")),
        };
        let key = (segment.to, segment.from);
        let honest = (self.honest)(&key.0);
        let terms = self.terms;
        let unread = if honest { 0 } else { self.unread };
        let flow = self.flows.entry(key).or_default();
        flow.may_be_frames = flow.frames + unread;
        if let Err(what) = flow.give(now, &segment, offload, &terms, honest) {
            self.violation(now, &key, &what);
        }
    }

    /// A turn is over.
    pub fn after_turn(&mut self, now: Instant) {
        let Some(within_us) = self.terms.ack_within_us else { return };
        let late = |flow: &Flow| flow.clear_epoch().and_then(|epoch| epoch.late(now, within_us));
        let found: Vec<_> = self.flows.iter().filter_map(|(key, flow)| Some((*key, late(flow)?))).collect();
        for (key, what) in found {
            if (self.honest)(&key.0) {
                self.violation(now, &key, &what);
            }
        }
    }

    /// When the next acknowledgement is late.
    pub fn deadline(&self) -> Option<Instant> {
        let within_us = self.terms.ack_within_us?;
        let due = |flow: &Flow| flow.clear_epoch().and_then(Epoch::due_since);
        self.flows.values().filter_map(due).min().map(|at| at.plus_micros(within_us + 1))
    }
}

impl Flow {
    fn take(&mut self, now: Instant, segment: &Segment<'_>, honest: bool) {
        if segment.flags & (SYN | ACK | RST) == SYN {
            let opening = Opening {
                irs: segment.seq,
                mss: segment.mss,
                scale: segment.window_scale,
                sack: segment.sack_permitted,
                stamp: segment.timestamps.map(|(value, _)| value),
                window: segment.window,
            };
            match self.syns.iter().find(|syn| syn.irs == opening.irs) {
                // Which of the two the server took in, nobody can say.
                Some(syn) => {
                    self.ambiguous |= !syn.is_again(&opening);
                    self.again.truncate(SYNS_AGAIN - 1);
                    self.again.splice(..0, opening.stamp.map(|stamp| (opening.irs, stamp)));
                }
                None => self.syns.push(opening),
            }
            if self.syns.len() > EPOCHS {
                self.syns.remove(0);
            }
        }
        for epoch in &mut self.epochs {
            epoch.take(now, segment, honest);
        }
    }

    fn give(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        offload: TxOffload,
        terms: &Terms,
        honest: bool,
    ) -> Result<(), String> {
        if segment.flags & RST != 0 {
            self.resets += 1;
            if let Some(epoch) = self.epochs.last_mut() {
                epoch.over();
            }
            return match self.resets > self.may_be_frames + 2 {
                true => Err(format!("{} resets for {} frames", self.resets, self.may_be_frames)),
                false => Ok(()),
            };
        }
        if self.ambiguous {
            return Ok(());
        }
        if segment.flags & SYN != 0 {
            return self.open(segment, terms);
        }
        if segment.flags & ACK == 0 {
            return Err("a segment without ACK".to_owned());
        }
        if segment.payload.is_empty() && segment.flags & FIN == 0 {
            self.pure_acks += 1;
            // One for each segment, and as many again for windows that open; probes and keep-alives are slow.
            if self.pure_acks > 3 * self.may_be_frames + 50 + now.micros() / 1_000_000 {
                return Err(format!("{} acknowledgements for {} frames", self.pure_acks, self.may_be_frames));
            }
        }
        let blurred = self.blurred;
        let near = |epoch: &Epoch| epoch.distance(segment);
        let nearest = self.epochs.iter_mut().filter(|epoch| near(epoch).is_some()).min_by_key(|epoch| near(epoch));
        match nearest {
            Some(epoch) => epoch.give(now, segment, offload, terms, honest, blurred),
            None if honest => Err(format!("sequence number {} from nowhere", segment.seq)),
            None => Ok(()),
        }
    }

    /// The newest connection, if it is clear what was agreed on.
    fn clear_epoch(&self) -> Option<&Epoch> {
        self.epochs.last().filter(|_| !self.ambiguous)
    }

    /// A SYN|ACK.
    fn open(&mut self, segment: &Segment<'_>, terms: &Terms) -> Result<(), String> {
        if segment.flags & ACK == 0 {
            return Err("a SYN of its own".to_owned());
        }
        let irs = segment.ack.wrapping_sub(1);
        let Some(syn) = self.syns.iter().find(|syn| syn.irs == irs).copied() else {
            return Err(format!("answered a SYN {irs} that never came"));
        };
        if segment.window_scale.is_some() && syn.scale.is_none()
            || segment.sack_permitted && !syn.sack
            || segment.timestamps.is_some() && syn.stamp.is_none()
        {
            return Err("an option in the SYN|ACK that the SYN did not offer".to_owned());
        }
        if let Some(known) = self.epochs.iter_mut().find(|epoch| epoch.is(segment.seq, irs)) {
            return known.repeated(segment);
        }
        if self.epochs.len() == EPOCHS {
            self.epochs.remove(0);
        }
        let stamps = self.again.iter().filter(|(of, _)| *of == irs).map(|(_, stamp)| *stamp);
        self.epochs.push(Epoch::new(segment, &syn, terms).with_stamps(stamps));
        Ok(())
    }
}
