//! What the client says.

use super::frame::{HEADERS, Segment};
use super::record::{Connection, Flag, State, before};
use super::{Client, Slow};
use crate::load::tally::Trouble;
use khamsin_stack::wire::{Flags, LinkView};
use khamsin_stack::{Frame, Instant, Queue, TxOffload};

/// Sequence numbers from one microsecond to the next: a pair of ports that is used again begins behind where it was,
/// as RFC 9293 3.4.1 wants, and as servers in TIME-WAIT look for.
const ISS_PER_US: u32 = 16;

impl<Q: Queue> Client<Q> {
    /// Begins to open connection `id`.
    pub(super) fn connect(&mut self, now: Instant, queue: &mut Q, id: u32) {
        let now_us = self.us(now);
        let Some((source, port)) = self.ports.take(id) else {
            return self
                .break_off(now, id, Trouble::Connect, || "no port is free: give --source more addresses".into());
        };
        let iss = (now.micros() as u32).wrapping_mul(ISS_PER_US);
        let connection = &mut self.connections[id as usize];
        *connection = Connection {
            snd_una: iss,
            snd_nxt: iss.wrapping_add(1),
            snd_end: iss.wrapping_add(1),
            una_offset: self.speech.start(id),
            reader: self.judge.open(id),
            progress_us: now_us,
            port,
            mss: 536,
            source,
            state: State::Syn,
            flags: connection.flags.queues(),
            ..Connection::default()
        };
        if let Some(slow) = self.slow.get_mut(id as usize) {
            *slow = Slow { since_us: now_us, ..Slow::default() };
        }
        self.handshaking += 1;
        self.send_syn(queue, id);
        self.watch(now, id);
    }

    fn send_syn(&mut self, queue: &mut Q, id: u32) {
        let c = self.connections[id as usize];
        let window = self.window.min(65_535) as u16;
        let flags = Flags::SYN;
        let segment = Segment {
            source: self.ports.address(c.source),
            port: c.port,
            seq: c.snd_una,
            ack: 0,
            flags,
            window,
            payload_len: 0,
            offer: Some(self.window_shift),
        };
        self.send(queue, &segment, &[]);
    }

    /// Ends connection `id` for the peer; says whether there was a frame for that.
    pub(super) fn send_reset(&mut self, queue: &mut Q, id: u32) -> bool {
        let c = self.connections[id as usize];
        let segment = self.segment(&c, c.snd_nxt, Flags::RST | Flags::ACK, 0);
        self.send(queue, &segment, &[])
    }

    #[inline]
    fn segment(&self, c: &Connection, seq: u32, flags: Flags, window: u16) -> Segment {
        let source = self.ports.address(c.source);
        Segment { source, port: c.port, seq, ack: c.rcv_nxt, flags, window, payload_len: 0, offer: None }
    }

    /// Sends a frame with `payload`; false: there is none to send it in.
    #[inline]
    fn send(&mut self, queue: &mut Q, segment: &Segment, payload: &[u8]) -> bool {
        let segment = Segment { payload_len: payload.len(), ..*segment };
        let Some(mut frame) = queue.alloc_tx() else {
            self.figures.no_frame += 1;
            return false;
        };
        frame.set_len(frame.capacity().min(HEADERS + 8 + payload.len()));
        let bytes = frame.bytes_mut();
        if let Some(room) = bytes.get_mut(HEADERS..HEADERS + payload.len()) {
            room.copy_from_slice(payload);
        }
        let Some(len) = self.headers.write(bytes, &segment) else {
            queue.release(frame);
            return false;
        };
        frame.set_len(len);
        queue.tx(frame, TxOffload::NONE);
        self.figures.frames_out += 1;
        true
    }

    /// Lets everybody speak who has something to say.
    pub(super) fn flush(&mut self, now: Instant, queue: &mut Q) {
        let mut stuck = core::mem::take(&mut self.stuck);
        for id in stuck.drain(..) {
            self.connections[id as usize].flags.clear(Flag::Stuck);
            self.touch(id);
        }
        self.stuck = stuck;
        let mut touched = core::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            self.connections[id as usize].flags.clear(Flag::Touched);
            self.speak(now, queue, id);
        }
        self.touched = touched;
    }

    /// Requests that the peer's window has room for, or else an acknowledgement, where one is owed.
    fn speak(&mut self, now: Instant, queue: &mut Q, id: u32) {
        let mut c = self.connections[id as usize];
        if !matches!(c.state, State::Open | State::Closing) {
            return;
        }
        let window = self.window_of(now, id, &c);
        let (mut said, mut frames_left) = (false, true);
        while frames_left && before(c.snd_nxt, c.snd_limit()) {
            let edge = c.snd_una.wrapping_add(c.snd_wnd);
            let room = if before(c.snd_nxt, edge) { edge.wrapping_sub(c.snd_nxt) } else { 0 };
            let text = c.snd_end.wrapping_sub(c.snd_nxt);
            if text > 0 && room == 0 {
                break;
            }
            let limit = text.min(room).min(u32::from(c.mss)) as usize;
            frames_left = self.say(queue, &mut c, limit, window);
            said |= frames_left;
        }
        if !said && frames_left && c.flags.has(Flag::AckNow) {
            let segment = self.segment(&c, c.snd_nxt, Flags::ACK, window);
            frames_left = self.send(queue, &segment, &[]);
            said = frames_left;
        }
        if said {
            c.unacked = 0;
            c.flags.clear(Flag::AckNow);
        }
        if !frames_left && !c.flags.has(Flag::Stuck) {
            c.flags.set(Flag::Stuck);
            self.stuck.push(id);
        }
        if c.unacked > 0 && !c.flags.has(Flag::AckQueued) {
            c.flags.set(Flag::AckQueued);
            self.timers.ack_later(self.us(now), id);
        }
        self.connections[id as usize] = c;
    }

    /// An acknowledgement at once. Where there is no frame for it, the server says it all again.
    #[cold]
    pub(super) fn acknowledge(&mut self, now: Instant, queue: &mut Q, id: u32) {
        let c = self.connections[id as usize];
        let window = self.window_of(now, id, &c);
        let segment = self.segment(&c, c.snd_nxt, Flags::ACK, window);
        self.send(queue, &segment, &[]);
    }

    /// Sends at most `limit` bytes from `snd_nxt` on, and the FIN where it follows them.
    fn say(&mut self, queue: &mut Q, c: &mut Connection, limit: usize, window: u16) -> bool {
        let offset = self.speech.advance(c.una_offset, c.snd_nxt.wrapping_sub(c.snd_una) as usize);
        let speech = std::sync::Arc::clone(&self.speech);
        let payload = if limit > 0 { speech.at(offset, limit) } else { &[] };
        let next = c.snd_nxt.wrapping_add(payload.len() as u32);
        let fin = c.state == State::Closing && next == c.snd_end;
        let mut flags = Flags::ACK;
        if !payload.is_empty() {
            flags = flags | Flags::PSH;
        }
        if fin {
            flags = flags | Flags::FIN;
        }
        let segment = self.segment(c, c.snd_nxt, flags, window);
        if !self.send(queue, &segment, payload) {
            return false;
        }
        c.snd_nxt = next.wrapping_add(u32::from(fin));
        true
    }

    /// The window as it stands in the header.
    fn window_of(&mut self, now: Instant, id: u32, c: &Connection) -> u16 {
        let mut window = self.window;
        if !self.slow.is_empty() {
            let taken = self.slow_taken(self.us(now), id);
            let slow = &mut self.slow[id as usize];
            slow.told = taken;
            window = (u64::from(window) - (slow.received - taken).min(u64::from(window))) as u32;
        }
        let shift = if c.flags.has(Flag::Unscaled) { 0 } else { self.window_shift };
        (window >> shift).min(65_535) as u16
    }

    /// Says again what is not acknowledged: everything from there on, at least a byte where the window is closed.
    pub(super) fn repeat(&mut self, now: Instant, queue: &mut Q, id: u32) {
        self.figures.retransmitted += 1;
        let mut c = self.connections[id as usize];
        if c.state == State::Syn {
            return self.send_syn(queue, id);
        }
        let window = self.window_of(now, id, &c);
        c.snd_nxt = c.snd_una;
        if c.snd_wnd == 0 && c.snd_una != c.snd_end {
            // A probe of the closed window (RFC 9293 3.8.6.1).
            self.say(queue, &mut c, 1, window);
        }
        self.connections[id as usize] = c;
        self.touch(id);
    }

    /// Answers a segment that belongs to no connection: a FIN whose last acknowledgement was lost gets it again, anything
    /// else is reset (RFC 9293 3.10.7.1).
    #[cold]
    pub(super) fn answer_stranger(&mut self, queue: &mut Q, link: &LinkView, segment: &khamsin_stack::wire::Segment) {
        if segment.flags.rst() || segment.group_dst || link.group_dst() {
            return;
        }
        let behind = segment.seq.wrapping_add(segment.sequence_len());
        let (seq, ack, flags) = match (segment.flags.fin(), segment.flags.ack()) {
            (true, true) => (segment.ack, behind, Flags::ACK),
            (_, true) => (segment.ack, 0, Flags::RST),
            (_, false) => (0, behind, Flags::RST | Flags::ACK),
        };
        let local = segment.key.local;
        let source = [local[12], local[13], local[14], local[15]];
        let port = segment.key.local_port;
        let reply = Segment { source, port, seq, ack, flags, window: 0, payload_len: 0, offer: None };
        self.send(queue, &reply, &[]);
    }
}
