//! From SYN to connection.

use super::lifecycle::guard;
use super::time_wait::OldFlow;
use super::{Flow, Shard};
use crate::app::App;
use crate::connection::{Connection, Parts, link_mss};
use crate::cookie::OTHER_HALF;
use crate::limits::{SYN_SHARE, SYN_SHARE_MIN, TIMERS_PER_TURN};
use crate::syn::{SynDue, SynRecord};
use crate::timestamps::Timestamps;
use crate::wire::{DropReason, Flags, LinkView, Outgoing, Segment, TcpOptions, tcp_options};
use crate::{CloseReason, FlowKey, Instant, Queue};

impl<A: App, Q: Queue> Shard<A, Q> {
    /// A SYN of a flow that nobody knows, or that only TIME-WAIT does: it goes on knowing it until more is remembered. `flow` is
    /// the flow table's hash of it.
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn accept_syn(
        &mut self,
        now: Instant,
        queue: &mut Q,
        link: &LinkView,
        segment: &Segment,
        bytes: &[u8],
        flow: u64,
        old: Option<OldFlow>,
    ) {
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
        if self.is_full() {
            // A handshake now would end in a wait; a SYN that is not answered comes again.
            self.world.counters.drop_syn_shed += 1;
            return;
        }
        if self.source_is_full(&segment.key) {
            return;
        }
        let template = self.template(link, segment);
        let said = tcp_options(segment.header(bytes));
        let mut record = SynRecord::new(segment.key, flow, template, [segment.seq, 0], &said, listener as u16)
            .with_timestamps(now, &said, || self.isn.timestamp_offset(&segment.key))
            .with_ecn(segment.flags);
        let share = (self.limits.syn_backlog / SYN_SHARE).max(SYN_SHARE_MIN) as u32;
        let source = self.half_open_by.place(&segment.key.peer);
        if self.syn.is_full() || self.half_open_by.count_at(source) >= share {
            let cookie = self.cookies.make(now, &record.key, flow, record.irs, record.peer_mss);
            record.iss = if old.is_none_or(|old| old.is_below(cookie)) { cookie } else { cookie ^ OTHER_HALF };
            record.reduce_to_cookie();
            self.world.counters.cookies_sent += 1;
            return self.send_syn_ack_of(now, queue, &record);
        }
        let iss = self.isn.isn(now, &segment.key);
        record.iss = old.map_or(iss, |old| old.beyond(iss));
        record.source = Some(source);
        let Some(position) = self.syn.insert(now, record) else { return };
        if let Some(old) = old {
            self.leave_time_wait(old, &segment.key);
        }
        if !self.know(flow, Flow::Syn(position)) {
            self.syn.remove(position);
            return;
        }
        self.half_open_by.add_at(source);
        self.world.counters.syn_received += 1;
        self.send_syn_ack(now, queue, position);
    }

    /// Whether the source of this flow may have no more connections.
    fn source_is_full(&mut self, key: &FlowKey) -> bool {
        let limit = self.limits.per_source as u32;
        let full = self.live_by.as_ref().is_some_and(|sources| sources.count(&key.peer) >= limit);
        self.world.counters.drop_source_limit += u64::from(full);
        full
    }

    /// What a half-open connection would have remembered, if `segment` brings back a cookie of ours.
    pub(super) fn record_of_cookie(
        &self,
        now: Instant,
        link: &LinkView,
        segment: &Segment,
        bytes: &[u8],
        old: Option<OldFlow>,
    ) -> Option<SynRecord> {
        let Flags(flags) = segment.flags;
        if flags & (Flags::SYN | Flags::RST | Flags::ACK).0 != Flags::ACK.0 || self.draining {
            return None;
        }
        let (irs, iss) = (segment.seq.wrapping_sub(1), segment.ack.wrapping_sub(1));
        let check = |cookie| self.cookies.check(now, &segment.key, irs, cookie);
        let mss = check(iss).or_else(|| check(iss ^ old.map(|_| OTHER_HALF)?))?;
        let listener = self.listeners.iter().position(|l| l.port == segment.key.local_port)?;
        let said = TcpOptions { mss: Some(mss), ..tcp_options(segment.header(bytes)) };
        let (flow, template) = (self.flows.hash(&segment.key), self.template(link, segment));
        let mut record = SynRecord::new(segment.key, flow, template, [irs, iss], &said, listener as u16)
            .with_timestamps(now, &said, || self.isn.timestamp_offset(&segment.key));
        record.reduce_to_cookie();
        if let Some((_, tsecr)) = said.timestamps {
            record.restore(&Timestamps::remembered(tsecr));
        }
        Some(record)
    }

    /// Whether the peer may have sent `segment` behind the one that brings its cookie back, which was lost or overtaken.
    pub(super) fn awaits_cookie(&self, now: Instant, segment: &Segment, flow: u64) -> bool {
        let Flags(flags) = segment.flags;
        let of_a_stream = flags & (Flags::SYN | Flags::RST | Flags::ACK).0 == Flags::ACK.0;
        of_a_stream && !self.draining && self.cookies.awaits(now, flow)
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
        let Some(record) = self.record_of_cookie(now, link, segment, bytes, None) else { return false };
        let Some(parts) = self.take_parts(now, queue, app, &record.key) else { return true };
        self.adopt_cookie(now, queue, app, &record, parts, link, segment, bytes);
        true
    }

    /// A cookie has come back that is good, and there is room for its connection.
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn adopt_cookie(
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
        self.world.counters.cookies_accepted += 1;
        self.cookies.spend(now, &record.key, record.flow, record.irs, record.iss);
        self.adopt(now, queue, app, record, None, parts, link, segment, bytes);
    }

    pub(super) fn send_syn_ack(&mut self, now: Instant, queue: &mut Q, position: u32) {
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

    pub(super) fn forget_syn(&mut self, position: u32) {
        if let Some(record) = self.syn.record(position) {
            self.flows.remove(record.flow, Flow::Syn(position).pack());
        }
        self.drop_syn(position);
    }

    /// Forgets a half-open connection, but not in the flow table.
    pub(super) fn drop_syn(&mut self, position: u32) {
        if let Some(source) = self.syn.record(position).and_then(|record| record.source) {
            self.half_open_by.remove_at(source);
        }
        self.syn.remove(position);
    }

    /// What a connection needs, if there is room for one more, and for one more of its source.
    pub(super) fn take_parts(&mut self, now: Instant, queue: &mut Q, app: &mut A, key: &FlowKey) -> Option<Parts> {
        if self.source_is_full(key) {
            return None;
        }
        let room = !self.is_full() && self.make_room(now, queue, app);
        let parts = if room { self.live.take_parts() } else { None };
        self.world.counters.drop_accept_full += u64::from(parts.is_none());
        parts
    }

    /// The handshake is over: a connection takes the place of what the flow table had of it, if it had something.
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        record: &SynRecord,
        place: Option<Flow>,
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
            if let Some(place) = place {
                self.flows.remove(record.flow, place.pack());
            }
            return self.refuse(queue, record, CloseReason::Panicked);
        };
        let patience = app.patience(listener);
        let world = &mut self.world;
        let id = self
            .live
            .insert_with(|| Connection::establish(now, world, parts, record, segment.window, &patience, session));
        match place {
            Some(place) => self.move_flow(record.flow, place, Flow::Live(id)),
            None => _ = self.know(record.flow, Flow::Live(id)),
        }
        if let Some(sources) = &mut self.live_by {
            sources.add(&record.key.peer);
        }
        self.world.counters.accepted += 1;
        self.touch(id);
        self.on_live(now, queue, app, id, link, segment, bytes);
    }

    /// Resets a connection that its peer believes in and that never came to be.
    fn refuse(&mut self, queue: &mut Q, record: &SynRecord, reason: CloseReason) {
        self.world.counters.accepted += 1;
        self.count_end(&record.key, reason);
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
}
