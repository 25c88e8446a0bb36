//! A recorded client at work: sends what it sent then, translated to what the stack says now.

mod hear;

use super::encode::{Draft, TO_STACK, cut, translate};
use super::flow::Flow;
use super::half::JUMP_MAX;
use super::plan::Plan;
use super::segment::Segment;
use crate::sim::witness::Ranges;
use khamsin_stack::wire::Flags;
use std::net::SocketAddr;

/// How long a packet waits for what it acknowledges, microseconds: longer than a first retransmission takes.
const PATIENCE_US: u64 = 3_000_000;
/// The same once the stack has failed to say something.
const IMPATIENCE_US: u64 = 10_000;
/// How long what was received and what no recorded packet acknowledges yet waits, microseconds.
const ACK_AFTER_US: u64 = 40_000;
/// How long a client listens after its last packet, microseconds.
const LINGER_US: u64 = 1_500_000;
/// Between two packets where recorded pauses are left out, microseconds: an application answers in less.
pub(super) const FAST_GAP_US: u64 = 1_000;
/// SYNs sent again on a wire where nobody answers.
const SYN_TRIES: u32 = 3;
/// Bytes of a segment's options.
const OPTIONS_MAX: usize = 40;
/// Payload of a segment where the stack does not say what it takes, bytes.
const MSS: usize = 1220;

/// How a replay goes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Manner {
    /// Without the recorded pauses.
    pub fast: bool,
    /// Pauses are divided by this.
    pub speed: f64,
    /// The recorded server's words are said again: the client's acknowledgements are to fit.
    pub scripted: bool,
    /// On a wire: SYNs may be lost.
    pub live: bool,
}

/// Something odd that happened at a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// Number of the packet of the client's in the trace; 0: none yet.
    pub packet: u64,
    /// In words.
    pub what: String,
}

/// One client.
pub struct Client<'t> {
    pub(super) flow: &'t Flow,
    pub(super) plan: &'t Plan,
    manner: Manner,
    /// The addresses of this replay.
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// When the trace begins for it, and how much later than recorded it is by now, microseconds.
    start_us: u64,
    pub(super) shift_us: u64,
    next: usize,
    /// SYNs sent again of its own accord.
    tries: u32,
    acted_us: u64,
    /// When a packet of the stack's came last that brought something.
    heard_us: u64,
    starved: bool,
    isn: Option<u32>,
    received: Ranges,
    /// Behind what was received without a hole, and behind the highest.
    pub(super) have: i64,
    highest: i64,
    acked: i64,
    /// The latest timestamps, the stack's and its own.
    stamp: Option<u32>,
    own_stamp: Option<u32>,
    mss: usize,
    window: u16,
    /// What of its own stream it has sent, and behind the last position of that.
    sent: Ranges,
    pub(super) sent_to: i64,
    /// Highest position of its stream that the stack has acknowledged.
    pub(super) accepted: i64,
    pub(super) fin_seen: bool,
    pub(super) fin_sent: bool,
    /// It has reset the connection itself.
    pub(super) reset_sent: bool,
    /// The packet after which the stack reset the connection.
    pub(super) reset_by_stack: Option<u64>,
    /// Resets of the stack's.
    pub(super) resets: u64,
    /// Segments of the stack's that brought nothing new.
    pub(super) again: u64,
    pub(super) syn_acks: u64,
    /// Of `again` and `syn_acks`: what the stack's timers sent, with the recorded acknowledgement still to come.
    pub(super) timed: u64,
    /// The longest that an acknowledgement was recorded behind the packet before it then, microseconds.
    pub(super) timed_us: u64,
    /// Behind what was on its way at that time.
    timed_to: i64,
    /// Acknowledgements that are in no trace.
    pub(super) own_acks: u64,
    /// First position where the stack's text is another than the recorded one.
    pub(super) wrong_at: Option<i64>,
    /// What the client waited for in vain.
    pub(super) waits: Vec<Remark>,
    /// Why the stack took no notice of a packet.
    pub(super) stops: Vec<Remark>,
    /// Its last packet.
    pub(super) last_packet: u64,
}

impl<'t> Client<'t> {
    /// A client that begins at `start_us`.
    pub fn new(flow: &'t Flow, plan: &'t Plan, ends: (SocketAddr, SocketAddr), start_us: u64, manner: Manner) -> Self {
        Client {
            flow,
            plan,
            manner,
            local: ends.0,
            remote: ends.1,
            start_us,
            shift_us: 0,
            next: 0,
            tries: 0,
            acted_us: 0,
            heard_us: 0,
            starved: false,
            isn: None,
            received: Ranges::default(),
            have: 0,
            highest: 0,
            acked: 0,
            stamp: None,
            own_stamp: None,
            mss: MSS,
            window: 0,
            sent: Ranges::default(),
            sent_to: 0,
            accepted: 0,
            fin_seen: false,
            fin_sent: false,
            reset_sent: false,
            reset_by_stack: None,
            resets: 0,
            again: 0,
            syn_acks: 0,
            timed: 0,
            timed_us: 0,
            timed_to: 0,
            own_acks: 0,
            wrong_at: None,
            waits: Vec::new(),
            stops: Vec::new(),
            last_packet: 0,
        }
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset_sent || self.reset_by_stack.is_some()
    }

    /// Microseconds of the replay at which something recorded at `at_us` is due.
    pub fn when(&self, at_us: u64) -> u64 {
        self.start_us + (at_us as f64 / self.manner.speed) as u64 + self.shift_us
    }

    /// Whether everything that its next packet acknowledges is there.
    fn is_ready(&self) -> bool {
        let need = self.plan.steps[self.next].need;
        // Without the recorded words there is only the handshake to wait for.
        self.highest >= if self.manner.scripted { need } else { need.min(1) }
    }

    /// When its next packet goes out at the earliest, if what it needs is there.
    fn planned(&self) -> u64 {
        let step = &self.plan.steps[self.next];
        match self.manner.fast {
            true if self.next == 0 => self.start_us,
            true if self.manner.scripted => self.acted_us,
            true => self.acted_us.max(self.heard_us) + FAST_GAP_US,
            false => self.when(step.at_us),
        }
    }

    /// When it is to be asked to act; `None`: it is done.
    pub fn deadline(&self) -> Option<u64> {
        if self.is_reset() {
            // Nobody is there to wait for.
            let left = self.next < self.plan.steps.len();
            return Some(if left { self.planned() } else { self.acted_us });
        }
        let own_ack = (self.have > self.acked && self.isn.is_some()).then(|| self.heard_us + self.ack_after_us());
        if self.next == self.plan.steps.len() {
            let end = self.acted_us.max(self.heard_us) + LINGER_US;
            return own_ack.or(Some(end));
        }
        let planned = self.planned();
        if self.is_ready() {
            return Some(planned);
        }
        let patience = if self.starved { IMPATIENCE_US } else { PATIENCE_US / (1 + 2 * u64::from(self.manner.live)) };
        let give_up = planned.max(self.heard_us).max(self.acted_us) + patience;
        Some(own_ack.map_or(give_up, |at| at.max(planned).min(give_up)))
    }

    fn ack_after_us(&self) -> u64 {
        if self.manner.scripted { ACK_AFTER_US } else { 0 }
    }

    /// Does what is due. True: it is done for good.
    pub fn act(&mut self, now_us: u64, send: &mut impl FnMut(Vec<u8>)) -> bool {
        let left = self.next < self.plan.steps.len();
        if left && (self.is_ready() || self.is_reset()) && self.planned() <= now_us {
            self.late(now_us);
            self.step(send);
        } else if self.is_reset() {
            return !left;
        } else if self.have > self.acked && self.isn.is_some() && self.heard_us + self.ack_after_us() <= now_us {
            self.own_acks += 1;
            self.bare_ack(send);
        } else if left {
            if self.deadline().is_some_and(|at| at > now_us) {
                return false;
            }
            if self.manner.live && self.isn.is_none() && self.tries < SYN_TRIES {
                // Nobody recorded that a SYN could be lost here. From the first one on.
                (self.next, self.tries) = (0, self.tries + 1);
            } else {
                self.give_up();
            }
            self.late(now_us);
            self.step(send);
        } else {
            return true;
        }
        self.acted_us = now_us;
        false
    }

    /// Everything from here on is as much later as this.
    fn late(&mut self, now_us: u64) {
        if !self.manner.fast {
            self.shift_us += now_us.saturating_sub(self.planned());
        }
    }

    fn give_up(&mut self) {
        let step = self.plan.steps[self.next];
        let packet = self.flow.segments[step.segment].number;
        if !self.starved {
            let what = match self.isn {
                None => "the stack does not answer the SYN".to_owned(),
                Some(_) if step.need > self.plan.text_end && self.highest == self.plan.text_end => {
                    "it acknowledges the server's FIN, and the stack has not sent one".to_owned()
                }
                Some(_) => format!(
                    "it acknowledges {} of the server's bytes, and the stack has sent {}",
                    (step.need - 1).min(self.plan.text_end - 1),
                    (self.highest - 1).max(0)
                ),
            };
            self.waits.push(Remark { packet, what });
        }
        self.starved = true;
    }

    /// Sends the next recorded packet.
    fn step(&mut self, send: &mut impl FnMut(Vec<u8>)) {
        let step = self.plan.steps[self.next];
        self.next += 1;
        let segment = &self.flow.segments[step.segment];
        if let Some((from, to)) = step.fill {
            return self.fill(segment, from, to, send);
        }
        let bare = segment.len == 0 && !segment.flags.syn() && !segment.flags.fin() && !segment.flags.rst();
        if !self.manner.scripted && bare && self.acked >= self.have.max(1) {
            return; // it acknowledged what this server has not said
        }
        self.last_packet = segment.number;
        self.window = segment.window;
        self.own_stamp = segment.timestamps().map(|(value, _)| value).or(self.own_stamp);
        let ack = self.ack_for(segment);
        let options = self.options(segment);
        let isn = self.flow.up.isn.unwrap_or(segment.seq);
        let from = self.sent_to + i64::from(segment.seq.wrapping_sub(isn.wrapping_add(self.sent_to as u32)) as i32);
        if !segment.flags.rst() {
            self.note_sent(from, from + i64::from(segment.sequence_len()));
        }
        self.fin_sent |= segment.flags.fin();
        self.reset_sent |= segment.flags.rst();
        let mut payload = segment.payload.to_vec();
        payload.resize(segment.len as usize, 0);
        let draft = Draft {
            from: self.local,
            to: self.remote,
            seq: segment.seq,
            ack,
            flags: segment.flags,
            window: segment.window,
            urgent: segment.urgent,
            traffic_class: segment.traffic_class,
            options: &options,
            payload: &payload,
            spoilt: segment.checksum == Some(false) && !self.flow.up.offloaded(),
        };
        cut(&draft, self.mss, send);
    }

    /// Zeros for text that is not in the trace and that the recorded server had.
    fn fill(&mut self, like: &Segment, from: i64, to: i64, send: &mut impl FnMut(Vec<u8>)) {
        let isn = self.flow.up.isn.unwrap_or(0);
        let options = self.options(like);
        let ack = self.isn.unwrap_or(0).wrapping_add(self.acked.max(1) as u32);
        let mut at = from;
        while at < to {
            let zeros = vec![0; (to - at).min(self.mss as i64) as usize];
            let seq = isn.wrapping_add(at as u32);
            send(
                Draft { seq, ack, options: &options, payload: &zeros, ..self.plain(Flags::ACK, like.window) }
                    .frame(TO_STACK),
            );
            at += zeros.len() as i64;
        }
        self.note_sent(from, to);
    }

    fn note_sent(&mut self, from: i64, to: i64) {
        if (from - self.sent_to).abs() > JUMP_MAX {
            return; // no part of the stream
        }
        self.sent.add(from.max(0) as u64, to.max(0) as u64);
        self.sent_to = self.sent_to.max(to);
    }

    fn plain(&self, flags: Flags, window: u16) -> Draft<'static> {
        Draft {
            from: self.local,
            to: self.remote,
            seq: 0,
            ack: 0,
            flags,
            window,
            urgent: 0,
            traffic_class: 0,
            options: &[],
            payload: &[],
            spoilt: false,
        }
    }

    fn bare_ack(&mut self, send: &mut impl FnMut(Vec<u8>)) {
        let seq = self.flow.up.isn.unwrap_or(0).wrapping_add(self.sent_to as u32);
        let ack = self.isn.unwrap_or(0).wrapping_add(self.have as u32);
        self.acked = self.have;
        let options = match (self.own_stamp, self.stamp) {
            (Some(value), Some(echo)) => {
                let mut options = vec![1, 1, 8, 10];
                options.extend(value.to_be_bytes());
                options.extend(echo.to_be_bytes());
                options
            }
            _ => Vec::new(),
        };
        let draft = Draft { seq, ack, options: &options, ..self.plain(Flags::ACK, self.window) };
        send(draft.frame(TO_STACK));
    }

    /// Resets a connection that is neither over nor reset.
    pub(super) fn farewell(&self, send: &mut impl FnMut(Vec<u8>)) {
        if self.is_open() && !self.is_over() && !self.is_reset() {
            let seq = self.flow.up.isn.unwrap_or(0).wrapping_add(self.sent_to as u32);
            send(Draft { seq, ..self.plain(Flags::RST, 0) }.frame(TO_STACK));
        }
    }

    /// The acknowledgement number for a recorded packet.
    fn ack_for(&mut self, segment: &Segment) -> u32 {
        if !segment.flags.ack() {
            return segment.ack;
        }
        let isn = self.isn.unwrap_or(0);
        let then = self.flow.down.isn.unwrap_or(0);
        let place = self.acked.max(1);
        let position = place + i64::from(segment.ack.wrapping_sub(then.wrapping_add(place as u32)) as i32);
        // What was never sent is acknowledged only where the recorded client did so on purpose.
        let known = self.plan.text_end + 1;
        let position = match self.manner.scripted {
            true if position <= known => position.min(self.have.max(1)),
            true => position,
            false => self.have.max(1),
        };
        if position <= self.have {
            self.acked = self.acked.max(position);
        }
        isn.wrapping_add(position as u32)
    }

    /// The recorded options with this conversation's numbers in them.
    fn options(&self, segment: &Segment) -> Vec<u8> {
        let mut options = segment.options.to_vec();
        let delta = self.isn.unwrap_or(0).wrapping_sub(self.flow.down.isn.unwrap_or(0));
        let mut at = 0;
        while let Some(&kind) = options.get(at) {
            match (kind, options.get(at + 1).map(|len| usize::from(*len))) {
                (1, _) => at += 1,
                (0, _) | (_, None | Some(0 | 1)) => break,
                (_, Some(len)) => {
                    let end = (at + len).min(options.len());
                    translate(kind, &mut options[at..end], delta, self.stamp);
                    at = end;
                }
            }
        }
        if segment.flags.syn()
            && let Some(shift) = self.plan.window_scale
            && options.len() + 4 <= OPTIONS_MAX
        {
            options.extend([1, 3, 3, shift]);
        }
        options
    }

    /// Bytes of the client's text that it has sent, and that the stack has acknowledged.
    pub fn text_sent_and_accepted(&self) -> (u64, u64) {
        let sent = self.sent.count().saturating_sub(1 + u64::from(self.fin_sent));
        (sent, self.flow.up.text_before(self.accepted))
    }

    /// Bytes of the stack's text that came.
    pub fn text_received(&self) -> u64 {
        (self.have - 1 - i64::from(self.fin_seen && self.have == self.highest)).max(0) as u64
    }

    /// Whether the handshake was finished on both sides.
    pub fn is_open(&self) -> bool {
        self.isn.is_some() && self.acked > 0
    }
}
