//! One TCP connection of a trace.

use super::half::{Half, Place};
use super::segment::Segment;
use std::fmt;
use std::net::SocketAddr;

/// What is known of who opened a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// Its SYN is in the trace.
    Syn,
    /// Only the answer to it is.
    Answer,
    /// It began before the trace; the client is taken to be the one with the higher port.
    Before,
}

/// How far a flow got.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// A SYN that nobody answered.
    Asked,
    /// The server reset it before it was open.
    Refused,
    /// SYN and SYN|ACK, and no more.
    HalfOpen,
    /// Open to the end of the trace.
    Established,
    /// One side has ended its stream.
    HalfClosed,
    /// Both sides have.
    Closed,
    /// One side reset it.
    Reset,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Asked => "no answer",
            State::Refused => "refused",
            State::HalfOpen => "half-open",
            State::Established => "established",
            State::HalfClosed => "half-closed",
            State::Closed => "closed",
            State::Reset => "reset",
        })
    }
}

/// One TCP connection of a trace.
#[derive(Clone, Debug)]
pub struct Flow {
    /// From 1, in the order of first packets.
    pub number: usize,
    /// Who opened it.
    pub client: SocketAddr,
    /// Who was asked.
    pub server: SocketAddr,
    /// How that is known.
    pub opened: Opened,
    /// All of them, in the order of the trace.
    pub segments: Vec<Segment>,
    /// What the client sent.
    pub up: Half,
    /// What the server sent.
    pub down: Half,
    /// The server answered the SYN.
    pub answered: bool,
    /// The client acknowledged that answer.
    pub confirmed: bool,
    /// IP fragments that packets of it were put together from.
    pub fragments: u64,
    /// IP fragments of packets of it that never became whole.
    pub fragments_lost: u64,
}

impl Flow {
    /// A flow that begins with a segment of such flags from `from` to `to`.
    pub(super) fn new(number: usize, from: SocketAddr, to: SocketAddr, first: &Segment) -> Flow {
        let (opened, from_client) = match (first.flags.syn(), first.flags.ack()) {
            (true, false) => (Opened::Syn, true),
            (true, true) => (Opened::Answer, false),
            _ => (Opened::Before, from.port() >= to.port()),
        };
        let (client, server) = if from_client { (from, to) } else { (to, from) };
        Flow {
            number,
            client,
            server,
            opened,
            segments: Vec::new(),
            up: Half::default(),
            down: Half::default(),
            answered: false,
            confirmed: false,
            fragments: 0,
            fragments_lost: 0,
        }
    }

    /// Takes a segment in, which `from` sent.
    pub(super) fn add(&mut self, from: SocketAddr, mut segment: Segment) {
        segment.from_client = from == self.client;
        if self.opened == Opened::Syn && segment.from_client && segment.flags.syn() && !self.confirmed {
            // Asked again with another number: that one counts.
            if self.up.isn.is_some_and(|isn| isn != segment.seq) {
                self.up = self.up.again();
            }
        }
        if !segment.from_client && segment.flags.syn() && segment.flags.ack() && !self.confirmed {
            if self.down.isn.is_some_and(|isn| isn != segment.seq) {
                self.down = self.down.again();
            }
            self.answered = true;
        }
        let (half, other) =
            if segment.from_client { (&mut self.up, &mut self.down) } else { (&mut self.down, &mut self.up) };
        let place = half.add(&segment);
        if segment.flags.ack() && !segment.flags.rst() && place != Place::Wild {
            // One-sided traces: the other's first number is known from what acknowledges it.
            let isn = *other.isn.get_or_insert(segment.ack.wrapping_sub(1));
            let position = other.position(isn, segment.ack);
            half.acknowledge(position, other.end);
            self.confirmed |= segment.from_client && !segment.flags.syn() && position >= 1;
        }
        self.segments.push(segment);
    }

    /// How far it got.
    pub fn state(&self) -> State {
        let ends = usize::from(self.up.fin_at.is_some()) + usize::from(self.down.fin_at.is_some());
        let open = self.confirmed || self.opened == Opened::Before;
        match (self.up.reset.or(self.down.reset), open, ends) {
            (Some(_), false, _) if !self.answered => State::Refused,
            (Some(_), ..) => State::Reset,
            (None, _, 2) => State::Closed,
            (None, _, 1) => State::HalfClosed,
            (None, true, _) => State::Established,
            (None, false, _) if self.answered => State::HalfOpen,
            (None, false, _) => State::Asked,
        }
    }

    /// Nothing more is expected of it: a SYN opens another one.
    fn is_over(&self) -> bool {
        matches!(self.state(), State::Refused | State::Reset | State::Closed)
    }

    /// Whether a segment that belongs to the same two ends begins another flow.
    pub(super) fn is_followed_by(&self, from: SocketAddr, segment: &Segment) -> bool {
        if !segment.flags.syn() || segment.flags.ack() || segment.flags.rst() {
            return false;
        }
        let again = from == self.client && self.up.isn == Some(segment.seq) && self.opened == Opened::Syn;
        let quiet_ns = self.segments.last().map_or(0, |last| segment.at_ns.saturating_sub(last.at_ns));
        let open = self.confirmed || self.opened != Opened::Syn;
        !again && (self.is_over() || from != self.client || (open && quiet_ns > 1_000_000_000))
    }

    /// Whether it can be replayed, or in a few words why not.
    ///
    /// # Errors
    /// What is missing.
    pub fn replayable(&self) -> Result<(), &'static str> {
        match (self.opened, self.confirmed) {
            (Opened::Before, _) => Err("it began before the trace"),
            (Opened::Answer, _) => Err("its SYN is not in the trace"),
            (Opened::Syn, false) => Err("its handshake was never finished"),
            (Opened::Syn, true) => Ok(()),
        }
    }

    /// From its first packet to its last, nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        match (self.segments.first(), self.segments.last()) {
            (Some(first), Some(last)) => last.at_ns.saturating_sub(first.at_ns),
            _ => 0,
        }
    }
}
