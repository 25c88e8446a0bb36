//! A run as a packet script: one flow, as it passed the server's queues.
//!
//! A script cannot say everything: its bytes are those of the notation, and its application does at once what the recorded
//! one seems to have done. Whether the stack behaves the same under it is for [`run_virtual_over`](crate::script::run_virtual_over) to say.

use super::witness::{Passed, Witness};
use crate::script::{Body, Command, Event, Family, Header, Line, Linux, Marks, Packet, Script, Tcp, TcpOption, When};
use khamsin_drivers::sim::client::{ACK, FIN, Packet as Frame, SYN, Segment, parse_partial};
use khamsin_stack::Instant;
use khamsin_stack::wire::Flags;
use std::net::SocketAddr;

/// What the script says at its top.
pub struct Title {
    /// The seed.
    pub seed: u64,
    /// What was violated.
    pub failure: String,
    /// The command that repeats it.
    pub command: String,
}

/// The script of the flow that `peer` has, or else of the one that something passed of last; `None`: nothing has passed.
pub fn script(title: Title, witness: &Witness, peer: Option<SocketAddr>) -> Option<Script> {
    let passed = witness.recorded();
    let tcp = |passed: &Passed| match parse_partial(&passed.frame) {
        Ok(Frame::Tcp(segment)) => Some(if passed.given { segment.to } else { segment.from }),
        _ => None,
    };
    let peer = peer.or_else(|| passed.iter().rev().find_map(tcp))?;
    let mut writer = Writer::default();
    for passed in passed.iter().filter(|passed| tcp(passed) == Some(peer)) {
        if let Ok(Frame::Tcp(segment)) = parse_partial(&passed.frame) {
            writer.add(passed.at, passed.given, &segment);
        }
    }
    let family = if peer.is_ipv4() { Family::V4 } else { Family::V6 };
    let header = Header {
        why: vec![format!("Recorded; the last line is the one that is wrong: {}", title.failure), title.command],
        families: vec![family],
        linux: Linux::NotRun("a recording of a failure".to_owned()),
        ..Header::new(&format!("khamsin-sim seed {}", title.seed))
    };
    Some(Script { file: format!("seed-{}.pkt", title.seed), header, lines: writer.lines })
}

/// Both sides' numbers, and what the application must have done.
#[derive(Default)]
struct Writer {
    lines: Vec<Line>,
    last: Option<Instant>,
    /// First sequence numbers: the peer's, the server's.
    irs: u32,
    iss: Option<u32>,
    accepted: bool,
    /// Behind the last byte that the application has had, and that it has written.
    read: u32,
    written: u32,
    shut: bool,
    first_stamp: Option<u32>,
}

impl Writer {
    fn add(&mut self, at: Instant, given: bool, segment: &Segment<'_>) {
        if given {
            self.out(at, segment);
        } else {
            self.take(at, segment);
        }
    }

    fn line(&mut self, at: Instant, event: Event) {
        let after_us = self.last.map_or(0, |last| at.micros_since(last));
        self.last = Some(at);
        self.lines.push(Line { number: 0, comments: Vec::new(), when: When::After(after_us..=after_us), event });
    }

    /// The peer sends a segment; what it brings is read.
    fn take(&mut self, at: Instant, segment: &Segment<'_>) {
        if segment.flags & (SYN | ACK) == SYN && self.iss.is_none() {
            (self.irs, self.read) = (segment.seq, 1);
        }
        let tcp = self.tcp(segment, self.irs, self.iss.unwrap_or(0), false);
        let (seq, len) = (tcp.seq, tcp.len);
        self.line(at, Event::In(Packet { marks: Marks::default(), body: Body::Tcp(tcp) }));
        if self.iss.is_some() && segment.flags & (SYN | ACK) == ACK && !self.accepted {
            self.accepted = true;
            self.line(at, Event::App(Command::Accept));
        }
        if self.accepted && len > 0 && seq == self.read {
            self.read += len;
            self.line(at, Event::App(Command::Read(len as usize)));
        }
    }

    /// The server sends a segment, for which the application has written what is new in it.
    fn out(&mut self, at: Instant, segment: &Segment<'_>) {
        if segment.flags & SYN != 0 {
            (self.iss, self.written) = (Some(segment.seq), 1);
        }
        let tcp = self.tcp(segment, self.iss.unwrap_or(0), self.irs, true);
        let end = tcp.seq.wrapping_add(tcp.len);
        if self.accepted && tcp.len > 0 && end.wrapping_sub(self.written) as i32 > 0 {
            self.line(at, Event::App(Command::Write(end.wrapping_sub(self.written) as usize)));
            self.written = end;
        }
        if self.accepted && segment.flags & FIN != 0 && !self.shut {
            self.shut = true;
            self.line(at, Event::App(Command::Shutdown));
        }
        self.line(at, Event::Out(Packet { marks: Marks::default(), body: Body::Tcp(tcp) }));
    }

    fn tcp(&mut self, segment: &Segment<'_>, ours: u32, theirs: u32, given: bool) -> Tcp {
        Tcp {
            flags: Flags(segment.flags),
            seq: segment.seq.wrapping_sub(ours),
            len: segment.payload.len() as u32,
            ack: (segment.flags & ACK != 0).then(|| segment.ack.wrapping_sub(theirs)),
            any_ack: false,
            window: (!given).then_some(segment.window..=segment.window),
            urgent: None,
            options: self.options(segment, theirs, given),
            more_options: false,
        }
    }

    fn options(&mut self, segment: &Segment<'_>, theirs: u32, given: bool) -> Vec<TcpOption> {
        let mut options = Vec::new();
        options.extend(segment.mss.map(|mss| TcpOption::Mss((!given).then_some(mss))));
        options.extend(segment.sack_permitted.then_some(TcpOption::SackPermitted));
        options.extend(segment.timestamps.map(|(value, _)| match given {
            true => TcpOption::Timestamps { val: None, ecr: None },
            false => {
                let first = *self.first_stamp.get_or_insert(value.wrapping_sub(1));
                let opening = segment.flags & SYN != 0;
                TcpOption::Timestamps { val: Some(value.wrapping_sub(first)), ecr: opening.then_some(0) }
            }
        }));
        options.extend(segment.window_scale.map(|shift| TcpOption::WindowScale((!given).then_some(shift))));
        if !segment.sack.is_empty() {
            let number = |(left, right): &(u32, u32)| (left.wrapping_sub(theirs), right.wrapping_sub(theirs));
            options.push(TcpOption::Sack(segment.sack.iter().map(number).collect()));
        }
        options
    }
}
