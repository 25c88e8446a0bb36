//! What the client hears.

use super::Client;
use super::record::{Flag, State, before};
use crate::load::book::Stage;
use crate::load::tally::Trouble;
use khamsin_stack::wire::checksum::tcp_is_sound;
use khamsin_stack::wire::{LinkView, Segment, tcp_options};
use khamsin_stack::{Frame, Instant, Queue};

/// Segments with text after which an acknowledgement waits no longer (RFC 9293 3.8.6.3).
const ACK_EVERY: u8 = 2;
/// Repeated acknowledgements that mean a loss (RFC 5681 3.2).
const REPEATS: u8 = 3;

impl<Q: Queue> Client<Q> {
    #[inline]
    pub(super) fn on_segment(
        &mut self,
        now: Instant,
        queue: &mut Q,
        frame: &Q::Frame,
        link: &LinkView,
        segment: &Segment,
    ) {
        if !self.is_sound(frame, segment) {
            self.figures.bad_checksums += 1;
            return;
        }
        let key = &segment.key;
        let local = [key.local[12], key.local[13], key.local[14], key.local[15]];
        let from_server = (key.peer, key.peer_port) == self.server;
        let Some(id) = self.ports.find(local, key.local_port).filter(|_| from_server) else {
            return self.answer_stranger(queue, link, segment);
        };
        match self.connections[id as usize].state {
            State::Free => {}
            State::Syn => self.on_syn_ack(now, queue, frame, link, segment, id),
            State::Open | State::Closing => self.on_text(now, queue, frame, segment, id),
        }
    }

    #[inline]
    fn is_sound(&self, frame: &Q::Frame, segment: &Segment) -> bool {
        tcp_is_sound(frame.bytes(), segment, frame.rx_checksum(), self.rx_partial_checksums)
    }

    /// While our SYN is under way (RFC 9293 3.10.7.3).
    fn on_syn_ack(
        &mut self,
        now: Instant,
        queue: &mut Q,
        frame: &Q::Frame,
        link: &LinkView,
        segment: &Segment,
        id: u32,
    ) {
        let now_us = self.us(now);
        let c = &mut self.connections[id as usize];
        let ours = segment.flags.ack() && segment.ack == c.snd_una.wrapping_add(1);
        if segment.flags.rst() {
            if ours {
                let address = self.book.plan.target.address;
                self.break_off(now, id, Trouble::Connect, || format!("{address} refuses connections"));
            }
            return;
        }
        if !ours || !segment.flags.syn() {
            // An old connection of the server's, which a reset ends; our SYN is sent again.
            return self.answer_stranger(queue, link, segment);
        }
        let options = tcp_options(segment.header(frame.bytes()));
        c.mss = options.mss.unwrap_or(536).clamp(64, 65_000);
        match options.window_scale {
            Some(shift) => c.snd_shift = shift,
            None => c.flags.set(Flag::Unscaled),
        }
        // The frame has the last word: what the path's own MTU allows.
        c.mss = c.mss.min(self.mss);
        c.snd_wnd = u32::from(segment.window);
        c.rcv_nxt = segment.seq.wrapping_add(1);
        c.snd_una = segment.ack;
        c.state = State::Open;
        c.flags.set(Flag::AckNow);
        let since = now.micros() - u64::from(now_us.wrapping_sub(c.progress_us));
        (c.progress_us, c.backoff) = (now_us, 0);
        self.handshaking -= 1;
        self.open += 1;
        let idle = self.is_idle(id);
        self.idle_open += usize::from(idle);
        self.book.opened(now, Instant::from_micros(since));
        if !self.book.plan.fresh || idle {
            self.book.free(id);
        }
        if !self.slow.is_empty() {
            self.timers.drip_later(now_us, id);
        }
        self.touch(id);
    }

    /// A segment of an open connection: reset, acknowledgement, text, FIN, in this order (RFC 9293 3.10.7.4).
    #[inline]
    fn on_text(&mut self, now: Instant, queue: &mut Q, frame: &Q::Frame, segment: &Segment, id: u32) {
        let now_us = self.us(now);
        let c = &mut self.connections[id as usize];
        if segment.flags.rst() {
            // Only one that is exactly in place (RFC 5961 3.2).
            if segment.seq == c.rcv_nxt {
                self.break_off(now, id, Trouble::Reset, || "the server reset a connection".into());
            }
            return;
        }
        if segment.flags.syn() || !segment.flags.ack() {
            // A SYN|ACK once more: our acknowledgement of it was lost.
            c.flags.set(Flag::AckNow);
            return self.touch(id);
        }
        self.on_ack(now_us, segment, id);
        let c = &mut self.connections[id as usize];
        let (skip, len) = (c.rcv_nxt.wrapping_sub(segment.seq) as usize, segment.payload_len());
        if before(c.rcv_nxt, segment.seq) || (segment.sequence_len() > 0 && skip >= segment.sequence_len() as usize) {
            // A hole before it, or all of it is old: says where it stands, once for each, because the server counts
            // (RFC 9293 3.10.7.4, RFC 5681 4.2).
            if segment.sequence_len() > 0 {
                self.figures.out_of_order += 1;
                self.acknowledge(now, queue, id);
            }
            return;
        }
        let payload = segment.payload(frame.bytes()).get(skip.min(len)..).unwrap_or(&[]);
        if !payload.is_empty() && !self.on_payload(now, queue, id, payload) {
            return;
        }
        if segment.flags.fin() && !self.on_fin(now, queue, id) {
            return;
        }
        let c = &self.connections[id as usize];
        if c.state == State::Closing && c.flags.has(Flag::PeerFin) && c.snd_una == c.snd_limit() {
            self.close(id);
        }
    }

    #[inline]
    fn on_ack(&mut self, now_us: u32, segment: &Segment, id: u32) {
        let c = &mut self.connections[id as usize];
        let shift = c.snd_shift;
        if before(segment.ack, c.snd_una) || before(c.snd_limit(), segment.ack) {
            return;
        }
        let acked = segment.ack.wrapping_sub(c.snd_una);
        let window = u32::from(segment.window) << shift;
        let bare = segment.sequence_len() == 0;
        if acked > 0 {
            let text = acked.min(c.snd_end.wrapping_sub(c.snd_una));
            c.una_offset = self.speech.advance(c.una_offset, text as usize);
            c.snd_una = segment.ack;
            if before(c.snd_nxt, c.snd_una) {
                c.snd_nxt = c.snd_una;
            }
            (c.backoff, c.repeats, c.progress_us) = (0, 0, now_us);
            c.flags.clear(Flag::Repaired);
        } else if bare && c.snd_nxt != c.snd_una && window == c.snd_wnd {
            c.repeats = c.repeats.saturating_add(1);
            if c.repeats >= REPEATS && !c.flags.has(Flag::Repaired) {
                // Everything again from the hole on, once for each hole.
                c.flags.set(Flag::Repaired);
                c.snd_nxt = c.snd_una;
                self.figures.retransmitted += 1;
            }
        }
        c.snd_wnd = window;
        if before(c.snd_nxt, c.snd_limit()) {
            self.touch(id);
        }
    }

    /// Text that is next in order; says whether the connection lives on.
    #[inline]
    fn on_payload(&mut self, now: Instant, queue: &mut Q, id: u32, payload: &[u8]) -> bool {
        let (now_us, asked) = (self.us(now), self.book.asked(id));
        self.book.received(payload.len());
        let c = &mut self.connections[id as usize];
        c.rcv_nxt = c.rcv_nxt.wrapping_add(payload.len() as u32);
        c.progress_us = now_us;
        // A super-frame (AF_PACKET, TAP) is many segments in one.
        let segments = if payload.len() > usize::from(self.mss) { ACK_EVERY } else { 1 };
        c.unacked = c.unacked.saturating_add(segments);
        if c.unacked >= ACK_EVERY {
            c.flags.set(Flag::AckNow);
        }
        if let Some(slow) = self.slow.get_mut(id as usize) {
            slow.received += payload.len() as u64;
        }
        match self.judge.take(id, &mut c.reader, payload, asked) {
            Ok(ended) => self.on_answers(now, id, ended),
            Err(fault) => {
                self.send_reset(queue, id);
                self.break_off(now, id, fault.into(), || fault.to_string());
                return false;
            }
        }
        self.touch(id);
        true
    }

    fn on_answers(&mut self, now: Instant, id: u32, ended: usize) {
        let last = self.connections[id as usize].reader.is_last();
        for n in 1..=ended {
            if last && n == ended {
                self.book.answered_last(now, id);
            } else if self.book.answered(now, id) {
                let c = &mut self.connections[id as usize];
                c.snd_end = c.snd_end.wrapping_add(self.speech.request_len() as u32);
            }
        }
        // An HTTP server ends a connection after its last answer by itself, and so keeps TIME-WAIT.
        if ended > 0 && self.echo && self.book.plan.fresh && !self.is_idle(id) {
            self.connections[id as usize].state = State::Closing;
        }
    }

    /// The peer has ended its stream; says whether the connection lives on, which it does until we have ended ours.
    fn on_fin(&mut self, now: Instant, queue: &mut Q, id: u32) -> bool {
        let c = &mut self.connections[id as usize];
        c.rcv_nxt = c.rcv_nxt.wrapping_add(1);
        c.flags.set(Flag::PeerFin);
        c.flags.set(Flag::AckNow);
        let ended = self.judge.end(&mut c.reader);
        if ended == Ok(1) && self.book.asked(id) > 0 {
            self.book.answered_last(now, id);
        }
        if ended.is_err() || self.book.asked(id) > 0 || self.is_idle(id) {
            self.send_reset(queue, id);
            let sentence = || "the server ended a connection before everything was answered".into();
            self.break_off(now, id, Trouble::Reset, sentence);
            return false;
        }
        self.book.closed(id);
        self.connections[id as usize].state = State::Closing;
        self.touch(id);
        self.watch(now, id);
        true
    }

    /// Both streams are over and acknowledged.
    fn close(&mut self, id: u32) {
        self.release(id);
        if self.book.plan.fresh {
            self.book.free(id);
        } else if self.book.stage() < Stage::Drain {
            self.to_open.push_back(id);
        }
    }
}
