//! One connection: segments in, segments out, and a memory for what the peer may not do.
//!
//! Positions in either stream are counted in 64 bits from the SYN, which is position 0; the first byte is 1, the FIN comes
//! behind the last byte. So nothing wraps but the fields on the wire.

use super::Options;
use super::frame::{ACK, Blocks, FIN, PSH, RST, SYN, Segment};
use khamsin_stack::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

mod input;
mod output;

/// How a connection came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Both sides have ended their stream, and both ends are acknowledged.
    Finished,
    /// The peer has reset it.
    Reset,
    /// The peer has refused it: a reset in answer to the SYN.
    Refused,
    /// [`Client::reset`] was called.
    Aborted,
    /// The peer has not answered [`Options::retries_max`] times.
    TimedOut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    SynSent,
    SynReceived,
    Open,
    /// Finished, and still answering.
    TimeWait,
    Over(End),
}

/// A segment on its way out; the station puts it into a frame.
pub(super) struct Outgoing {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) mss: Option<u16>,
    pub(super) window_scale: Option<u8>,
    pub(super) sack_permitted: bool,
    pub(super) timestamps: Option<(u32, u32)>,
    pub(super) sack: Blocks,
    pub(super) payload: Vec<u8>,
}

impl Outgoing {
    /// Neither options nor payload nor window.
    pub(super) fn bare(seq: u32, ack: u32, flags: u8) -> Outgoing {
        Outgoing {
            seq,
            ack,
            flags,
            window: 0,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            sack: Blocks::default(),
            payload: Vec::new(),
        }
    }
}

/// One TCP connection of a [`Station`](super::Station).
pub struct Client {
    options: Options,
    local: SocketAddr,
    peer: SocketAddr,
    phase: Phase,

    /// Bytes from `una` on, or from 1 as long as the SYN is not acknowledged.
    unsent: VecDeque<u8>,
    /// Bytes handed to `send` so far; the FIN stands at `queued + 1`.
    queued: u64,
    closing: bool,
    /// Oldest position not acknowledged, next to send, furthest ever sent.
    una: u64,
    next: u64,
    furthest: u64,
    /// The peer's window, its maximum segment and the shift of its window field.
    window: u64,
    window_at: (u64, u64),
    peer_mss: usize,
    peer_shift: u8,
    /// The furthest edge that the peer's window ever had, and what was acknowledged when it had.
    offered: (u64, u64),
    /// For what is in flight, for a probe of a closed window, for the end of TIME-WAIT.
    timer: Option<Instant>,
    /// One byte may go into a closed window.
    probe: bool,
    tries: u32,

    irs: u32,
    /// Next position expected, the end of what was read, the furthest edge ever advertised.
    expected: u64,
    read: u64,
    edge: u64,
    our_shift: u8,
    scaling: bool,
    received: Vec<u8>,
    ahead: BTreeMap<u64, Vec<u8>>,
    fin_at: Option<u64>,
    ack_due: bool,
    /// When an acknowledgement is due that waits for a second segment.
    ack_at: Option<Instant>,
    /// Both sides agreed to SACK; where text arrived last, and what arrived twice since the last acknowledgement.
    sack: bool,
    latest: u64,
    again: Option<(u64, u64)>,
    /// Both sides agreed to timestamps (RFC 7323).
    stamps: bool,
    /// The clock that timestamps show, and the least and the last value of it that was sent.
    clock_ms: u32,
    first_stamp: u32,
    /// TS.Recent, and the position acknowledged last.
    recent: u32,
    acked_last: u64,
    /// Something happened since the last poll.
    touched: bool,
    reset_due: Option<(u32, u32, u8)>,
    violations: Vec<String>,
}

impl Client {
    fn new(options: Options, local: SocketAddr, peer: SocketAddr, phase: Phase) -> Self {
        let mss = options.mss.into();
        let our_shift = options.window_scale.unwrap_or(0);
        Client {
            options,
            local,
            peer,
            phase,
            unsent: VecDeque::new(),
            queued: 0,
            closing: false,
            una: 0,
            next: 0,
            furthest: 0,
            window: 1,
            window_at: (0, 0),
            peer_mss: mss,
            peer_shift: 0,
            offered: (0, 0),
            timer: None,
            probe: false,
            tries: 0,
            irs: 0,
            expected: 0,
            read: 0,
            edge: 0,
            our_shift,
            scaling: true,
            received: Vec::new(),
            ahead: BTreeMap::new(),
            fin_at: None,
            ack_due: false,
            ack_at: None,
            sack: false,
            latest: 0,
            again: None,
            stamps: false,
            clock_ms: 0,
            first_stamp: 0,
            recent: 0,
            acked_last: 0,
            touched: true,
            reset_due: None,
            violations: Vec::new(),
        }
    }

    /// Opens actively.
    pub(super) fn connect(options: Options, local: SocketAddr, peer: SocketAddr) -> Self {
        Client::new(options, local, peer, Phase::SynSent)
    }

    /// Opens passively, in answer to `syn`.
    pub(super) fn accept(options: Options, syn: &Segment<'_>) -> Self {
        let mut client = Client::new(options, syn.to, syn.from, Phase::SynReceived);
        client.take_syn(syn);
        client
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The peer's end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Queues bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        assert!(!self.closing, "nothing can be sent behind the end of the stream");
        self.touched = true;
        self.unsent.extend(bytes);
        self.queued += bytes.len() as u64;
    }

    /// Ends our stream behind what was sent so far.
    pub fn close(&mut self) {
        self.touched = true;
        self.closing = true;
    }

    /// Resets the connection.
    pub fn reset(&mut self) {
        if !matches!(self.phase, Phase::Over(_)) {
            self.reset_due = Some((self.sequence(self.next), self.acknowledgement(), RST | ACK));
            self.over(End::Aborted);
            self.touched = true;
        }
    }

    /// Takes at most `most` bytes out of the receive buffer, which opens the window by as many.
    pub fn read(&mut self, most: usize) -> &[u8] {
        let from = self.read as usize;
        let to = self.received.len().min(from.saturating_add(most));
        self.read = to as u64;
        // RFC 9293 3.8.6.2.2: no update for less than a segment or half the buffer.
        let opened = self.edge_now().saturating_sub(self.edge) as usize;
        let worth = opened >= usize::from(self.options.mss).min(self.options.window / 2);
        if to > from && worth && self.phase == Phase::Open && !self.finished() {
            self.touched = true;
            self.ack_due = true;
        }
        &self.received[from..to]
    }

    /// Bytes that arrived in order and were not read.
    pub fn unread(&self) -> usize {
        self.received.len() - self.read as usize
    }

    /// Everything that arrived in order, read or not.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Whether the handshake is done and the connection not over.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the peer has ended its stream and everything before the end has arrived.
    pub fn finished(&self) -> bool {
        self.fin_at.is_some_and(|fin| self.expected > fin)
    }

    /// Whether everything sent, and the end of our stream if it was sent, is acknowledged.
    pub fn all_acknowledged(&self) -> bool {
        self.una == self.queued + 1 + u64::from(self.closing)
    }

    /// Octets of our stream that the peer has acknowledged, the SYN and the FIN counted.
    pub fn acknowledged(&self) -> u64 {
        self.una
    }

    /// How the connection ended, if it has. One in TIME-WAIT has.
    pub fn end(&self) -> Option<End> {
        match self.phase {
            Phase::Over(end) => Some(end),
            Phase::TimeWait => Some(End::Finished),
            _ => None,
        }
    }

    /// Whether nothing is left that would answer.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// What the peer did that it may not do, in plain words.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// When the client wants to be polled even if nothing arrives.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.touched { Some(Instant::ZERO) } else { self.timer.into_iter().chain(self.ack_at).min() }
    }

    fn over(&mut self, end: End) {
        self.phase = Phase::Over(end);
        self.timer = None;
        self.ack_due = false;
        self.ack_at = None;
    }

    fn violation(&mut self, what: String) {
        // A peer that is wrong once is wrong often; the first times tell.
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }

    fn sequence(&self, position: u64) -> u32 {
        self.options.isn.wrapping_add(position as u32)
    }

    fn acknowledgement(&self) -> u32 {
        self.irs.wrapping_add(self.expected as u32)
    }

    /// Free receive buffer, bytes.
    fn free(&self) -> usize {
        self.options.window - self.unread().min(self.options.window)
    }

    /// The edge of the window that can be advertised now.
    fn edge_now(&self) -> u64 {
        // Rounded down to what the window field can say.
        let free = ((self.free() >> self.our_shift).min(65_535) << self.our_shift) as u64;
        self.expected + free
    }
}

/// The position next to `near` that `field` stands for, where `origin` is the field of position 0.
fn position(field: u32, origin: u32, near: u64) -> i64 {
    let distance = field.wrapping_sub(origin.wrapping_add(near as u32)) as i32;
    near as i64 + i64::from(distance)
}
