//! What a replay does for one flow: when its client sends what, and what the recorded server said in answer to what.
//!
//! Time alone would not do: the stack cuts its answers otherwise than the recorded server, and later or earlier. So each
//! packet of the client's waits for what it acknowledges, and each word of the server's for what it answers.

use super::flow::Flow;
use super::half::AHEAD_MAX;
use std::collections::BTreeMap;

/// Text of a stream that is missing in the trace and made up as zeros, bytes at most.
const MISSING_MAX: i64 = 64 << 20;
/// Largest window scale (RFC 7323 2.3).
const SHIFT_MAX: u8 = 14;

/// A packet of the client's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Which of the flow's segments.
    pub segment: usize,
    /// When it was recorded, microseconds since the trace began.
    pub at_us: u64,
    /// Position of the server's stream up to which the client must have it; 0: nothing.
    pub need: i64,
    /// In place of that segment: text of the client's that the server had and the trace has not, from and to.
    pub fill: Option<(i64, i64)>,
}

/// Something that the recorded server's application did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// When it was recorded, microseconds since the trace began.
    pub at_us: u64,
    /// Position of the client's stream up to which it had been read.
    pub after: i64,
    /// What it did.
    pub deed: Deed,
}

/// What a server's application does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Sends its stream up to this position.
    Say(i64),
    /// Ends its stream.
    End,
    /// Resets the connection.
    Reset,
}

/// A flow, ready to be replayed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The client's packets.
    pub steps: Vec<Step>,
    /// The server's part.
    pub words: Vec<Word>,
    /// The server's text.
    pub text: Text,
    /// Behind the last position of the server's text.
    pub text_end: i64,
    /// Bytes of both streams that are made up.
    pub missing: u64,
    /// The client's window scale, made up where its SYN was cut in front of that: the least that lets the recorded text through.
    pub window_scale: Option<u8>,
}

/// Makes instants of a trace microseconds since it began, with long silences shortened.
#[derive(Clone, Debug)]
pub struct Timeline(Vec<(u64, u64)>);

impl Timeline {
    /// The time of these flows. No silence in which nothing at all is sent is longer than `silence_us`.
    pub fn new(flows: &[Flow], silence_us: u64) -> Timeline {
        let mut instants: Vec<u64> = flows.iter().flat_map(|flow| &flow.segments).map(|s| s.at_ns / 1000).collect();
        instants.sort_unstable();
        instants.dedup();
        let mut marks = Vec::new();
        let (mut last, mut at) = (instants.first().copied().unwrap_or(0), 0);
        for instant in instants {
            if instant - last > silence_us || marks.is_empty() {
                at += (instant - last).min(silence_us);
                marks.push((instant, at));
            } else {
                at += instant - last;
            }
            last = instant;
        }
        Timeline(marks)
    }

    /// Microseconds since the trace began.
    pub fn at_us(&self, at_ns: u64) -> u64 {
        let instant = at_ns / 1000;
        match self.0[..self.0.partition_point(|mark| mark.0 <= instant)].last() {
            Some((from, at)) => at + (instant - from),
            None => 0,
        }
    }
}

/// The first copy of everything that one side has sent, by position.
#[derive(Clone, Debug, Default)]
pub struct Text(BTreeMap<i64, Piece>);

#[derive(Clone, Copy, Debug)]
struct Piece {
    segment: usize,
    offset: usize,
    len: usize,
}

impl Text {
    fn add(&mut self, segment: usize, mut at: i64, len: usize) {
        let (start, end) = (at, at + len as i64);
        at = at.max(1);
        while at < end {
            if let Some((from, piece)) = self.0.range(..=at).next_back()
                && from + piece.len as i64 > at
            {
                at = from + piece.len as i64;
                continue;
            }
            let to = self.0.range(at..).next().map_or(end, |(from, _)| *from).min(end);
            self.0.insert(at, Piece { segment, offset: (at - start) as usize, len: (to - at) as usize });
            at = to;
        }
    }

    /// Fills `out` with the text from `at` on; what is not there is 0.
    pub fn read(&self, flow: &Flow, at: i64, out: &mut [u8]) {
        out.fill(0);
        self.visit(flow, at, out.len(), |from, bytes| out[from..from + bytes.len()].copy_from_slice(bytes));
    }

    /// The first position from `at` on where `bytes` are not what the trace has.
    pub fn difference(&self, flow: &Flow, at: i64, bytes: &[u8]) -> Option<i64> {
        let mut first = None;
        self.visit(flow, at, bytes.len(), |from, known| {
            let wrong = known.iter().zip(&bytes[from..]).position(|(known, got)| known != got);
            first = first.or(wrong.map(|wrong| at + (from + wrong) as i64));
        });
        first
    }

    fn visit(&self, flow: &Flow, at: i64, len: usize, mut show: impl FnMut(usize, &[u8])) {
        let end = at + len as i64;
        let first = self.0.range(..=at).next_back().map_or(at, |(from, _)| *from);
        for (&from, piece) in self.0.range(first..end.max(first)) {
            let (low, high) = (from.max(at), (from + piece.len as i64).min(end));
            if low < high {
                let known = &flow.segments[piece.segment].payload[piece.offset..];
                show((low - at) as usize, &known[(low - from) as usize..(high - from) as usize]);
            }
        }
    }
}

impl Plan {
    /// The plan for `flow`, which [`Flow::replayable`] has nothing against.
    ///
    /// # Errors
    /// Why it cannot be replayed, in a few words.
    pub fn new(flow: &Flow, timeline: &Timeline) -> Result<Plan, &'static str> {
        flow.replayable()?;
        let (Some(up), Some(down)) = (flow.up.isn, flow.down.isn) else { return Err("its numbers are not known") };
        let text_end = flow.down.fin_at.unwrap_or(flow.down.end.max(flow.up.acked)).max(1);
        let missing = (text_end - 1 - flow.down.bytes() as i64).max(0) + (flow.up.end - flow.up.bytes() as i64).max(0);
        if missing > MISSING_MAX {
            return Err("more of it is missing than can be made up");
        }
        let mut plan = Plan { text_end, ..Plan::default() };
        let mut sent = Sent { said: 1, heard: 1, told: 0, whole: 0, last: 0, ended: false, reset: false };
        for (index, segment) in flow.segments.iter().enumerate() {
            let at_us = timeline.at_us(segment.at_ns);
            if segment.from_client {
                let step = step(flow, index, at_us, (up, down), &mut sent, text_end);
                // What it acknowledges was said before, though the trace does not have it.
                if step.need.min(text_end) > sent.said {
                    sent.said = step.need.min(text_end);
                    plan.words.push(Word { at_us, after: sent.heard, deed: Deed::Say(sent.said) });
                }
                plan.steps.push(step);
                sent.last = index;
            } else {
                sent.words(flow, index, at_us, (up, down), text_end, &mut plan);
            }
        }
        plan.missing = missing_bytes(flow, &plan);
        plan.window_scale = lost_scale(flow, down);
        Ok(plan)
    }
}

fn lost_scale(flow: &Flow, isn: u32) -> Option<u8> {
    let syn = flow.segments.iter().find(|s| s.from_client && s.flags.syn());
    syn.filter(|syn| syn.header_cut && syn.window_scale().is_none())?;
    let (mut acked, mut window, mut sent, mut shift) = (1, 0, 1, 0);
    for segment in &flow.segments {
        if segment.from_client && segment.flags.ack() && !segment.flags.rst() {
            acked = near(isn, acked, segment.ack).max(acked);
            window = i64::from(segment.window);
        } else if !segment.from_client && !segment.flags.rst() {
            let from = near(isn, sent, segment.seq);
            // Text far from everything before says nothing of a window.
            if (from - sent).abs() < AHEAD_MAX {
                sent = sent.max(from + i64::from(segment.len));
            }
            while sent - acked > window << shift && window > 0 && shift < SHIFT_MAX {
                shift += 1;
            }
        }
    }
    (shift > 0).then_some(shift)
}

fn missing_bytes(flow: &Flow, plan: &Plan) -> u64 {
    let known: u64 = plan.text.0.values().map(|piece| piece.len as u64).sum();
    let filled: i64 = plan.steps.iter().filter_map(|step| step.fill).map(|(from, to)| to - from).sum();
    let cut: u64 =
        flow.segments.iter().filter(|s| s.from_client).map(|s| u64::from(s.len) - s.payload.len() as u64).sum();
    (plan.text_end as u64 - 1).saturating_sub(known) + filled as u64 + cut
}

/// How far the streams have come at a place of the trace.
struct Sent {
    /// Of the server's text, what has a word already.
    said: i64,
    /// The server's highest acknowledgement.
    heard: i64,
    /// Behind the client's last text.
    told: i64,
    /// Up to where the client's text is there, or made up.
    whole: i64,
    /// The client's last segment.
    last: usize,
    ended: bool,
    reset: bool,
}

fn step(flow: &Flow, index: usize, at_us: u64, (up, down): (u32, u32), sent: &mut Sent, text_end: i64) -> Step {
    let segment = &flow.segments[index];
    let mut step = Step { segment: index, at_us, need: 0, fill: None };
    if segment.flags.ack() && !segment.flags.rst() {
        let highest = segment.sack_end(segment.ack).filter(|end| (end.wrapping_sub(segment.ack) as i32) > 0);
        let need = near(down, sent.said, highest.unwrap_or(segment.ack));
        // The FIN has a position too. Beyond it lies nothing that the server could send.
        step.need = if (1..=text_end + 1).contains(&need) { need } else { 1 };
    }
    let from = near(up, sent.told, segment.seq);
    let to = from + i64::from(segment.sequence_len());
    let sane = !segment.flags.rst() && (from - sent.told).abs() < MISSING_MAX;
    if sane && to > from {
        sent.told = sent.told.max(to);
    }
    step
}

impl Sent {
    fn words(&mut self, flow: &Flow, index: usize, at_us: u64, isns: (u32, u32), text_end: i64, plan: &mut Plan) {
        let segment = &flow.segments[index];
        if segment.flags.syn() || self.reset {
            return;
        }
        if segment.flags.ack() {
            let heard = near(isns.0, self.heard, segment.ack);
            if heard <= flow.up.end + AHEAD_MAX {
                self.heard = self.heard.max(heard);
                self.fill(flow, at_us, plan);
            }
        }
        let mut word = |deed, after| plan.words.push(Word { at_us, after, deed });
        if segment.flags.rst() {
            // Before it is confirmed, the handshake is the stack's own matter.
            if flow.confirmed {
                self.reset = true;
                word(Deed::Reset, self.heard);
            }
            return;
        }
        let from = near(isns.1, self.said, segment.seq);
        let to = from + i64::from(segment.len);
        if from < 1 || to > text_end {
            return;
        }
        if to > self.said {
            self.said = to;
            word(Deed::Say(to), self.heard);
        }
        if segment.flags.fin() && !self.ended {
            self.ended = true;
            word(Deed::End, self.heard);
        }
        plan.text.add(index, from, segment.payload.len());
    }
}

impl Sent {
    /// What the server had of the client's, and the trace has not, is sent as zeros.
    fn fill(&mut self, flow: &Flow, at_us: u64, plan: &mut Plan) {
        loop {
            let hole = flow.up.end_from(self.whole);
            if hole >= self.heard {
                self.whole = self.whole.max(self.heard);
                return;
            }
            let end = flow.up.start_from(hole).map_or(self.heard, |start| start.min(self.heard));
            plan.steps.push(Step { segment: self.last, at_us, need: 1, fill: Some((hole, end)) });
            self.whole = end;
        }
    }
}

/// The position of `seq` in the stream that begins at `isn`, near `place`.
fn near(isn: u32, place: i64, seq: u32) -> i64 {
    place + i64::from(seq.wrapping_sub(isn.wrapping_add(place as u32)) as i32)
}
