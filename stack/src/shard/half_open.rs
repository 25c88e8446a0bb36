//! Half-open connections (RFC 9293 3.10.7.4, SYN-RECEIVED): the segments that may end one, one way or the other.

use super::ingress::Travel;
use super::{Flow, Shard};
use crate::app::App;
use crate::limits::RX_SHIFT;
use crate::timestamps::{Timestamps, is_old_duplicate};
use crate::wire::{Flags, LinkView, Outgoing, Segment, Template, tcp_options};
use crate::{Instant, Queue};

/// The window that our SYN|ACK offers, bytes.
const WINDOW: u32 = u16::MAX as u32;

/// What an ACK says that no connection sends.
pub(super) struct Stand {
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// As it goes into the header.
    pub(super) window: u16,
    pub(super) stamps: Option<Timestamps>,
}

impl<A: App, Q: Queue> Shard<A, Q> {
    /// A segment of a half-open connection.
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
        let flags = segment.flags;
        let distance = segment.seq.wrapping_sub(record.irs.wrapping_add(1));
        let said = tcp_options(segment.header(bytes));
        if flags.rst() {
            self.on_half_open_reset(now, queue, position, distance);
        } else if flags.syn() && segment.seq == record.irs {
            // Our SYN|ACK was lost, or is slow.
            self.world.counters.syn_retransmitted += 1;
            self.syn.spoil_round_trip(position);
            self.syn.take_timestamp(now, position, &said);
            self.syn.confirm_ecn(position, flags);
            self.send_syn_ack(now, queue, position);
        } else if flags.syn() {
            // A peer that started over, or somebody who would like it to: RFC 5961 4.2. The former answers with a reset
            // and comes again.
            self.world.counters.gate_syn += 1;
            self.challenge_half_open(now, queue, position);
        } else if !flags.ack() {
            self.world.counters.gate_no_ack += 1;
        } else if segment.ack != record.iss.wrapping_add(1) {
            self.on_half_open_mismatch(now, queue, app, position, link, segment, bytes, travel);
        } else if is_old_duplicate(record.stamps.as_ref(), now, &said) {
            self.world.counters.gate_paws += 1;
            self.challenge_half_open(now, queue, position);
        } else if distance > WINDOW {
            self.world.counters.gate_outside_window += 1;
            self.challenge_half_open(now, queue, position);
        } else {
            self.world.counters.stray_claimed += u64::from(travel.seen_by > 0);
            self.establish(now, queue, app, position, link, segment, bytes);
        }
    }

    /// RFC 5961 3.2: only the exact sequence number ends it.
    fn on_half_open_reset(&mut self, now: Instant, queue: &mut Q, position: u32, distance: u32) {
        match distance {
            0 => self.forget_syn(position),
            1..=WINDOW => {
                self.world.counters.gate_rst_inexact += 1;
                self.challenge_half_open(now, queue, position);
            }
            _ => self.world.counters.gate_rst_outside += 1,
        }
    }

    /// It acknowledges something that this record did not send.
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    fn on_half_open_mismatch(
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
        // Its SYN may have been answered with a cookie first, and again when the table had room.
        if let Some(record) = self.record_of_cookie(now, link, segment, bytes, None) {
            let Some(parts) = self.take_parts(now, queue, app, &record.key) else { return };
            self.forget_syn(position);
            return self.adopt_cookie(now, queue, app, &record, parts, link, segment, bytes);
        }
        self.world.counters.gate_ack_range += 1;
        // The SYN came twice, to two shards, and the peer took the other's SYN|ACK: a reset would end that connection.
        self.disown(now, queue, link, segment, bytes, travel);
    }

    /// Says where we stand (RFC 9293 3.10.7.4, first check; RFC 5961), within limits.
    fn challenge_half_open(&mut self, now: Instant, queue: &mut Q, position: u32) {
        if !self.may_say_where_we_stand(now) {
            return;
        }
        let Some(record) = self.syn.record(position).cloned() else { return };
        // RFC 7323 2.2: only a SYN says its window unscaled.
        let shift = if record.peer_shift.is_some() { RX_SHIFT } else { 0 };
        let stand = Stand {
            seq: record.iss.wrapping_add(1),
            ack: record.irs.wrapping_add(1),
            window: u16::MAX >> shift,
            stamps: record.stamps,
        };
        self.say_where_we_stand(now, queue, &record.template, &stand);
    }

    /// Whether a flow that has no connection may send an ACK now, within a limit that all of them share.
    pub(super) fn may_say_where_we_stand(&mut self, now: Instant) -> bool {
        let allowed = self.ack_limit.allow(now);
        self.world.counters.challenge_limited += u64::from(!allowed);
        allowed
    }

    /// The ACK of a flow that has no connection.
    pub(super) fn say_where_we_stand(&mut self, now: Instant, queue: &mut Q, template: &Template, stand: &Stand) {
        self.world.counters.challenge_acks += 1;
        self.send_stand(now, queue, template, stand);
    }

    /// Sends it, whatever for.
    pub(super) fn send_stand(&mut self, now: Instant, queue: &mut Q, template: &Template, stand: &Stand) {
        let option = stand.stamps.map(|stamps| stamps.option(now));
        let ack = Outgoing {
            seq: stand.seq,
            ack: stand.ack,
            flags: Flags::ACK,
            window: stand.window,
            options: option.as_ref().map_or(&[], |option| option),
            payload_len: 0,
        };
        self.send_bare(queue, template, &ack);
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
        let Some(parts) = self.take_parts(now, queue, app, &segment.key) else {
            // The record stays: the peer believes in the connection and will ask again.
            self.syn.spoil_round_trip(position);
            return;
        };
        let Some(record) = self.syn.record(position).cloned() else { return self.live.give_parts(parts) };
        self.drop_syn(position);
        self.adopt(now, queue, app, &record, Some(Flow::Syn(position)), parts, link, segment, bytes);
    }
}
