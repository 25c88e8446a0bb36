//! From SYN to connection, and from connection to TIME-WAIT and back.

use super::ingress::Travel;
use super::lifecycle::guard;
use super::{Flow, Shard};
use crate::app::App;
use crate::connection::{Connection, Parts, link_mss};
use crate::limits::TIMERS_PER_TURN;
use crate::syn::{SynDue, SynRecord};
use crate::timestamps::Timestamps;
use crate::wire::{DropReason, Flags, LinkView, Outgoing, Segment, TcpOptions, tcp_options};
use crate::{CloseReason, Instant, Queue};

/// TIME-WAIT must not be entered again with numbers the old connection used: this far beyond them a new one starts.
const TIME_WAIT_STEP: u32 = 65_536 * 2;

impl<A: App, Q: Queue> Shard<A, Q> {
    /// A SYN of a flow that nobody knows.
    pub(super) fn on_syn(&mut self, now: Instant, queue: &mut Q, link: &LinkView, segment: &Segment, bytes: &[u8]) {
        let iss = self.isn.isn(now, &segment.key);
        self.accept_syn(now, queue, link, segment, bytes, iss);
    }

    fn accept_syn(&mut self, now: Instant, queue: &mut Q, link: &LinkView, segment: &Segment, bytes: &[u8], iss: u32) {
        let port = segment.key.local_port;
        let Some(listener) = self.listeners.iter().position(|l| l.port == port) else {
            return self.answer_nobody(now, queue, link, segment);
        };
        // smoltcp would refuse it, after the application has heard of it.
        if segment.key.peer_port == 0 {
            return DropReason::Martian.count(&mut self.world.counters);
        }
        if self.draining {
            self.world.counters.drop_draining += 1;
            return self.answer_nobody(now, queue, link, segment);
        }
        let template = self.template(link, segment);
        let said = tcp_options(segment.header(bytes));
        let offset = self.isn.timestamp_offset(&segment.key);
        let mut record = SynRecord::new(segment.key, template, segment.seq, iss, &said, listener as u16)
            .with_timestamps(now, &said, offset)
            .with_ecn(segment.flags);
        if self.syn.is_full() {
            record.iss = self.cookies.make(now, &record.key, record.irs, record.peer_mss);
            record.reduce_to_cookie();
            self.world.counters.cookies_sent += 1;
            return self.send_syn_ack_of(now, queue, &record);
        }
        let Some(position) = self.syn.insert(now, record) else { return };
        let hash = self.flows.hash(&segment.key);
        if self.flows.insert(hash, Flow::Syn(position).pack()).is_err() {
            debug_assert!(false, "the flow table has room for all that the others hold");
            self.syn.remove(position);
            return;
        }
        self.world.counters.syn_received += 1;
        self.send_syn_ack(now, queue, position);
    }

    /// What a half-open connection would have remembered, if `segment` brings back a cookie of ours.
    fn record_of_cookie(&self, now: Instant, link: &LinkView, segment: &Segment, bytes: &[u8]) -> Option<SynRecord> {
        let Flags(flags) = segment.flags;
        if flags & (Flags::SYN | Flags::RST | Flags::ACK).0 != Flags::ACK.0 || self.draining {
            return None;
        }
        let (irs, iss) = (segment.seq.wrapping_sub(1), segment.ack.wrapping_sub(1));
        let mss = self.cookies.check(now, &segment.key, irs, iss)?;
        let listener = self.listeners.iter().position(|l| l.port == segment.key.local_port)?;
        let said = TcpOptions { mss: Some(mss), ..tcp_options(segment.header(bytes)) };
        let offset = self.isn.timestamp_offset(&segment.key);
        let mut record = SynRecord::new(segment.key, self.template(link, segment), irs, iss, &said, listener as u16)
            .with_timestamps(now, &said, offset);
        record.reduce_to_cookie();
        if let Some((_, tsecr)) = said.timestamps {
            record.restore(&Timestamps::remembered(tsecr));
        }
        Some(record)
    }

    /// An ACK that may end a handshake of which nothing was kept. False: it does not.
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn on_cookie(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
    ) -> bool {
        let Some(record) = self.record_of_cookie(now, link, segment, bytes) else { return false };
        let Some(parts) = self.take_parts() else { return true };
        self.world.counters.cookies_accepted += 1;
        self.adopt(now, queue, app, &record, parts, link, segment, bytes);
        true
    }

    fn send_syn_ack(&mut self, now: Instant, queue: &mut Q, position: u32) {
        // Copied rather than borrowed from a table that sending, as far as the compiler knows, may change.
        let Some(record) = self.syn.record(position).cloned() else { return };
        self.send_syn_ack_of(now, queue, &record);
    }

    fn send_syn_ack_of(&mut self, now: Instant, queue: &mut Q, record: &SynRecord) {
        let mss = link_mss(&self.world.caps, &record.key);
        let options = record.options(now, mss);
        let segment = Outgoing {
            seq: record.iss,
            ack: record.irs.wrapping_add(1),
            flags: if record.ecn { Flags::SYN | Flags::ACK | Flags::ECE } else { Flags::SYN | Flags::ACK },
            window: u16::MAX,
            options: &options,
            payload_len: 0,
        };
        self.send_bare(queue, &record.template, &segment);
    }

    pub(super) fn on_syn_timers(&mut self, now: Instant, queue: &mut Q) {
        let mut budget = TIMERS_PER_TURN as u32;
        while let Some(due) = self.syn.pop_due(now, &mut budget) {
            match due {
                SynDue::Retransmit(position) => {
                    self.world.counters.syn_retransmitted += 1;
                    self.send_syn_ack(now, queue, position);
                }
                SynDue::Expired(position) => {
                    self.world.counters.syn_expired += 1;
                    self.forget_syn(position);
                }
            }
        }
    }

    pub(super) fn forget_syn(&mut self, position: u32) -> Option<SynRecord> {
        let record = self.syn.remove(position)?;
        let hash = self.flows.hash(&record.key);
        self.flows.remove(hash, Flow::Syn(position).pack());
        Some(record)
    }

    /// A segment of a half-open connection (RFC 9293 3.10.7.4, SYN-RECEIVED).
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn on_half_open(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        position: u32,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
        travel: Travel,
    ) {
        let Some(record) = self.syn.record(position) else { return };
        let first = record.irs.wrapping_add(1);
        let flags = segment.flags;
        if flags.rst() {
            // Exact, or not believed (RFC 5961 3.2).
            if segment.seq == first {
                self.forget_syn(position);
            } else {
                self.world.counters.gate_rst_outside += 1;
            }
        } else if flags.syn() {
            if segment.seq == record.irs {
                // Our SYN|ACK was lost, or is slow.
                self.world.counters.syn_retransmitted += 1;
                self.syn.spoil_round_trip(position);
                self.syn.take_timestamp(now, position, &tcp_options(segment.header(bytes)));
                self.send_syn_ack(now, queue, position);
            } else {
                // The peer started over.
                self.forget_syn(position);
                self.on_syn(now, queue, link, segment, bytes);
            }
        } else if flags.ack() && segment.ack == record.iss.wrapping_add(1) {
            if segment.seq.wrapping_sub(first) > u32::from(u16::MAX) {
                self.world.counters.gate_outside_window += 1;
                return;
            }
            self.world.counters.stray_claimed += u64::from(travel.seen_by > 0);
            self.establish(now, queue, app, position, link, segment, bytes);
        } else if flags.ack() {
            // Its SYN may have been answered with a cookie first, and again when the table had room.
            if let Some(record) = self.record_of_cookie(now, link, segment, bytes) {
                let Some(parts) = self.take_parts() else { return };
                self.forget_syn(position);
                self.world.counters.cookies_accepted += 1;
                return self.adopt(now, queue, app, &record, parts, link, segment, bytes);
            }
            self.world.counters.gate_ack_range += 1;
            // The SYN came twice, to two shards, and the peer took the other's SYN|ACK: a reset would end that connection.
            self.disown(now, queue, link, segment, bytes, travel);
        } else {
            self.world.counters.gate_no_ack += 1;
        }
    }

    /// The handshake's ACK: now the connection gets a socket, buffers and a session.
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    fn establish(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        position: u32,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
    ) {
        let Some(parts) = self.take_parts() else {
            // The record stays: the peer believes in the connection and will ask again.
            self.syn.spoil_round_trip(position);
            return;
        };
        let Some(record) = self.forget_syn(position) else { return self.live.give_parts(parts) };
        self.adopt(now, queue, app, &record, parts, link, segment, bytes);
    }

    /// What a connection needs, if there is room for one more.
    fn take_parts(&mut self) -> Option<Parts> {
        let parts = if self.live.is_full() { None } else { self.live.take_parts() };
        self.world.counters.drop_accept_full += u64::from(parts.is_none());
        parts
    }

    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    fn adopt(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        record: &SynRecord,
        parts: Parts,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
    ) {
        let listener = self.listeners[usize::from(record.listener)];
        let mut session = None;
        guard(|| session = Some(app.open(now, listener, record.key.peer_addr())));
        let Some(session) = session else {
            self.live.give_parts(parts);
            return self.refuse(queue, record, CloseReason::Panicked);
        };
        match Connection::establish(now, &mut self.world, parts, record, segment.window, session) {
            Ok(connection) => {
                let id = self.live.insert(connection);
                let hash = self.flows.hash(&record.key);
                let known = self.flows.insert(hash, Flow::Live(id).pack()).is_ok();
                debug_assert!(known, "the flow table has room for all that the others hold");
                self.world.counters.accepted += 1;
                self.touch(id);
                self.on_live(now, queue, app, id, link, segment, bytes);
            }
            Err((_, parts, session)) => {
                self.live.give_parts(parts);
                self.world.counters.drop_accept_full += 1;
                self.refuse(queue, record, CloseReason::Aborted);
                self.tell_closed(app, session, CloseReason::Aborted);
            }
        }
    }

    /// Resets a connection that its peer believes in and that never came to be.
    fn refuse(&mut self, queue: &mut Q, record: &SynRecord, reason: CloseReason) {
        self.world.counters.accepted += 1;
        super::lifecycle::count(&mut self.world.counters, reason);
        let reset = Outgoing {
            seq: record.iss.wrapping_add(1),
            ack: record.irs.wrapping_add(1),
            flags: Flags::RST | Flags::ACK,
            window: 0,
            options: &[],
            payload_len: 0,
        };
        self.send_bare(queue, &record.template, &reset);
    }

    /// A segment of a flow in TIME-WAIT (RFC 9293 3.10.7.4; RFC 1337: resets are ignored).
    pub(super) fn on_time_wait(
        &mut self,
        now: Instant,
        queue: &mut Q,
        position: u32,
        link: &LinkView,
        segment: &Segment,
        bytes: &[u8],
    ) {
        let record = *self.time_wait.record(position);
        let flags = segment.flags;
        if flags.rst() {
            self.world.counters.gate_rst_outside += 1;
            return;
        }
        let newer = segment.seq.wrapping_sub(record.rcv_nxt) as i32 >= 0;
        if flags.syn() && !flags.ack() && newer {
            // RFC 9293 3.10.7.4: a SYN beyond the old numbers may open the flow anew.
            self.forget_time_wait(position);
            let iss = self.isn.isn(now, &segment.key);
            let beyond = record.snd_nxt.wrapping_add(TIME_WAIT_STEP);
            let iss = if iss.wrapping_sub(record.snd_nxt) as i32 > 0 { iss } else { beyond };
            return self.accept_syn(now, queue, link, segment, bytes, iss);
        }
        // Acceptable, and nothing in it: an answer would only draw another from a peer in the same state.
        if segment.seq == record.rcv_nxt && segment.sequence_len() == 0 {
            return;
        }
        if !self.time_wait_limit.allow(now) {
            self.world.counters.challenge_limited += 1;
            return;
        }
        self.world.counters.challenge_acks += 1;
        let ack = Outgoing {
            seq: record.snd_nxt,
            ack: record.rcv_nxt,
            flags: Flags::ACK,
            window: u16::MAX,
            options: &[],
            payload_len: 0,
        };
        let template = self.template(link, segment);
        self.send_bare(queue, &template, &ack);
    }

    fn forget_time_wait(&mut self, position: u32) {
        let hash = self.flows.hash(&self.time_wait.record(position).key);
        self.flows.remove(hash, Flow::TimeWait(position).pack());
        self.time_wait.remove(position);
    }

    /// Remembers a connection that we closed first.
    pub(super) fn enter_time_wait(&mut self, now: Instant, key: crate::FlowKey, snd_nxt: u32, rcv_nxt: u32) {
        if let Some((oldest, key)) = self.time_wait.oldest_if_full() {
            self.world.counters.time_wait_evicted += 1;
            let hash = self.flows.hash(&key);
            self.flows.remove(hash, Flow::TimeWait(oldest).pack());
        }
        let position = self.time_wait.insert(now, key, snd_nxt, rcv_nxt);
        let hash = self.flows.hash(&key);
        if self.flows.insert(hash, Flow::TimeWait(position).pack()).is_err() {
            self.time_wait.remove(position);
        }
        self.world.counters.time_wait_entered += 1;
    }
}
