//! Runs a script against whatever there is behind a [`Stage`].

use super::compare::differences;
use super::display::Seconds;
use super::model::{BURST_FROM, BURST_PIECE, Body, Command, Event, Family, Line, Packet, Script, Tcp, When};
use super::wire::{Conversation, Seen};
use khamsin_stack::wire::Flags;
use std::fmt;

/// How long `*` waits, microseconds.
const ANY_US: u64 = 120_000_000;

/// What came of a run that went as the script says.
#[derive(Clone, Debug)]
pub struct Report {
    /// Over which version of IP.
    pub family: Family,
    /// Everything that happened, a line each.
    pub trace: Vec<String>,
}

/// The server did something else.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The script.
    pub file: String,
    /// Number of the line that was not fulfilled.
    pub line: usize,
    /// Over which version of IP.
    pub family: Family,
    /// That line.
    pub wanted: String,
    /// What happened instead, in a sentence.
    pub seen: String,
    /// Everything that happened up to there, a line each.
    pub trace: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{} (IP{}): {}", self.file, self.line, self.family, self.seen)?;
        writeln!(f, "  wanted: {}", self.wanted)?;
        f.write_str("  what happened:")?;
        self.trace.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

impl std::error::Error for Mismatch {}

/// A server, its application, and the clock. Times are microseconds since the start.
pub(super) trait Stage {
    /// What time it is.
    fn now(&self) -> u64;

    /// Lets time pass up to `until`, or until the server has sent a frame: that, and when it came.
    fn next_frame(&mut self, until: u64) -> Result<Option<(u64, Vec<u8>)>, String>;

    /// Sends a frame to the server.
    fn send(&mut self, frame: &[u8]) -> Result<(), String>;

    /// Does what the application is told; an error says what it saw instead.
    fn command(&mut self, command: &Command) -> Result<(), String>;

    /// How much too early and too late something may come that is due `after_us` after the line before.
    fn slack(&self, after_us: u64) -> (u64, u64);
}

/// Plays `script` on `stage`.
pub(super) fn play(
    script: &Script,
    family: Family,
    conversation: Conversation,
    stage: &mut impl Stage,
) -> Result<Report, Mismatch> {
    let mut player = Player { conversation, stage, trace: Vec::new(), last: 0 };
    let fail = |line: &Line, seen, trace| Mismatch {
        file: script.file.clone(),
        line: line.number,
        family,
        wanted: format!("{} {}", line.when, line.event),
        seen,
        trace,
    };
    for line in &script.lines {
        if let Err(seen) = player.line(line) {
            return Err(fail(line, seen, player.trace));
        }
    }
    if let (Err(seen), Some(line)) = (player.quiet_until(0), script.lines.last()) {
        return Err(fail(line, format!("behind the last line: {seen}"), player.trace));
    }
    Ok(Report { family, trace: player.trace })
}

struct Player<'s, S> {
    conversation: Conversation,
    stage: &'s mut S,
    trace: Vec<String>,
    /// When the last line was fulfilled.
    last: u64,
}

impl<S: Stage> Player<'_, S> {
    fn line(&mut self, line: &Line) -> Result<(), String> {
        let (from, to) = match &line.when {
            When::After(range) => (self.last + range.start(), self.last + range.end()),
            When::At(range) => (*range.start(), *range.end()),
            When::Any => (0, self.last + ANY_US),
        };
        if let Event::Out(expected) = &line.event {
            return self.expect(expected, from, to);
        }
        if line.event == Event::Anything {
            while self.next(from)?.is_some() {}
        }
        self.quiet_until(from)?;
        let now = self.stage.now();
        match &line.event {
            Event::In(packet) => {
                self.note(now, '<', packet);
                for piece in pieces(packet) {
                    let frame = self.conversation.encode(&piece);
                    self.stage.send(&frame)?;
                }
            }
            Event::App(command) => {
                self.trace.push(format!("{} {command}", Seconds(now)));
                self.stage.command(command)?;
            }
            Event::Silence | Event::Anything | Event::Out(_) => {}
        }
        // Lines that follow count from when this was to happen: a late start is made up for.
        self.last = from.max(self.last);
        Ok(())
    }

    /// Lets time pass in which the server may send nothing.
    fn quiet_until(&mut self, until: u64) -> Result<(), String> {
        match self.next(until)? {
            None => Ok(()),
            Some((at, packet)) => {
                Err(format!("the server sent what nobody asked for, at {}: {}", Seconds(at), shown(&packet)))
            }
        }
    }

    fn expect(&mut self, expected: &Packet, from: u64, to: u64) -> Result<(), String> {
        let (early, late) = self.stage.slack(to.saturating_sub(self.last));
        let Some((at, packet)) = self.next(to + late)? else {
            return Err(format!("nothing came until {}", Seconds(to + late)));
        };
        if let (Body::Tcp(wanted), Body::Tcp(got)) = (&expected.body, &packet.body) {
            let mut wrong = differences(wanted, got);
            if expected.marks.ecn.is_some() && expected.marks.ecn != packet.marks.ecn {
                wrong.push("another ECN field".to_owned());
            }
            if !wrong.is_empty() {
                return Err(format!("{}: {}", wrong.join(", "), shown(&packet)));
            }
        }
        if at + early < from {
            return Err(format!("too early: {} instead of {}", Seconds(at), Seconds(from)));
        }
        self.last = at;
        Ok(())
    }

    /// The next segment of the conversation that the server sends up to `until`.
    fn next(&mut self, until: u64) -> Result<Option<(u64, Packet)>, String> {
        while let Some((at, frame)) = self.stage.next_frame(until)? {
            match self.conversation.decode(&frame) {
                Seen::Other => {}
                Seen::Segment(packet) => {
                    self.note(at, '>', &packet);
                    return Ok(Some((at, packet)));
                }
                Seen::Wrong(message) => return Err(format!("the server sent, at {}: {message}", Seconds(at))),
            }
        }
        Ok(None)
    }

    fn note(&mut self, at: u64, direction: char, packet: &Packet) {
        self.trace.push(format!("{} {direction} {}", Seconds(at), shown(packet)));
    }
}

/// What is longer than a frame goes in several; flags that end something are the last one's.
fn pieces(packet: &Packet) -> Vec<Packet> {
    let Body::Tcp(whole) = &packet.body else { return vec![packet.clone()] };
    if whole.len < BURST_FROM {
        return vec![packet.clone()];
    }
    let piece = |at: u32| {
        let len = BURST_PIECE.min(whole.len - at);
        let last = at + len == whole.len;
        let flags = if last { whole.flags } else { Flags(whole.flags.0 & !(Flags::FIN.0 | Flags::PSH.0)) };
        let tcp = Tcp { flags, seq: whole.seq.wrapping_add(at), len, ..whole.clone() };
        Packet { marks: packet.marks, body: Body::Tcp(tcp) }
    };
    (0..whole.len).step_by(BURST_PIECE as usize).map(piece).collect()
}

/// A packet for messages: most have nothing in their ECN field.
fn shown(packet: &Packet) -> String {
    let mut packet = packet.clone();
    packet.marks.ecn = packet.marks.ecn.filter(|ecn| *ecn != 0);
    packet.to_string()
}
