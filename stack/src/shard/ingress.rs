//! A frame's way in: whose is it?

use super::{Flow, Shard};
use crate::app::App;
use crate::prefetch;
use crate::stray::Stray;
use crate::wire::checksum::tcp_is_sound;
use crate::wire::{
    self, DropReason, Flags, Fragment, Kind, LinkHeader, LinkView, Outgoing, Parsed, Segment, Template, TxChecksum,
};
use crate::{FlowKey, Frame, Instant, Queue, RxChecksum, TxOffload};

/// How many frames ahead of the one that is dealt with all of a connection is asked for: memory answers while the frames between
/// are worked on. A whole burst's at once would stand in line for the memory, and push each other out of the first cache.
const AHEAD: usize = 2;

/// No connection's number.
const NOBODY: u32 = u32::MAX;

/// What is known of a frame after the first stages.
#[derive(Default)]
pub(super) struct Staged {
    parsed: Parsed,
    hash: u64,
    candidate: u32,
}

/// What goes with a frame on its way.
#[derive(Clone, Copy)]
pub(super) struct Travel {
    /// Of its flow.
    hash: u64,
    /// The connection that the hash means, most likely; [`NOBODY`] if none.
    candidate: u32,
    checksum: RxChecksum,
    /// Shards that did not know it.
    pub(super) seen_by: usize,
    /// One of them has sent it a cookie that has not come back.
    awaited: bool,
}

impl<A: App, Q: Queue> Shard<A, Q> {
    /// Takes in a burst. Each stage asks for the memory that the next will touch, so that the misses of a burst overlap:
    /// frames, slots of the flow table, connections.
    pub(super) fn on_burst(&mut self, now: Instant, queue: &mut Q, app: &mut A, burst: &mut Vec<Q::Frame>) {
        let mut staged = core::mem::take(&mut self.staged);
        for frame in burst.iter() {
            prefetch::line(frame.bytes().as_ptr() as usize);
        }
        for frame in burst.iter() {
            staged.push(Staged::default());
            let Some(Staged { parsed, hash, .. }) = staged.last_mut() else { continue };
            wire::parse_into(frame.bytes(), parsed);
            if let Kind::Tcp(segment) = &parsed.kind {
                *hash = self.flows.hash(&segment.key);
                self.flows.prefetch(*hash);
            }
        }
        for Staged { hash, candidate, .. } in &mut staged {
            *candidate = self.candidate(*hash);
            self.live.prefetch_first_line(*candidate);
            self.wheel.prefetch(*candidate);
        }
        staged.iter().take(AHEAD).for_each(|first| self.live.prefetch(first.candidate));
        for (at, mut frame) in burst.drain(..).enumerate() {
            if let Some(later) = staged.get(at + AHEAD) {
                self.live.prefetch(later.candidate);
            }
            let Staged { parsed, hash, candidate } = &staged[at];
            let checksum = frame.rx_checksum();
            let travel = Travel { hash: *hash, candidate: *candidate, checksum, seen_by: 0, awaited: false };
            self.on_parsed(now, queue, app, parsed, frame.bytes_mut(), travel);
            queue.release(frame);
        }
        staged.clear();
        self.staged = staged;
    }

    /// The connection that a hash most likely means. A guess, without a look at the connection itself.
    #[inline]
    fn candidate(&self, hash: u64) -> u32 {
        match self.flows.find(hash, |_| true).map(Flow::unpack) {
            Some(Flow::Live(id)) => id,
            Some(Flow::Parked(position)) => {
                prefetch::line(self.parked.address(position));
                NOBODY
            }
            _ => NOBODY,
        }
    }

    /// Deals with a frame that another shard did not know.
    pub(super) fn on_stray(&mut self, now: Instant, queue: &mut Q, app: &mut A, mut stray: Stray) {
        let parsed = wire::parse(&stray.bytes);
        let hash = match &parsed.kind {
            Kind::Tcp(segment) => self.flows.hash(&segment.key),
            _ => 0,
        };
        let travel = Travel {
            hash,
            candidate: NOBODY,
            checksum: stray.checksum,
            seen_by: stray.seen_by,
            awaited: stray.awaited,
        };
        self.on_parsed(now, queue, app, &parsed, &mut stray.bytes, travel);
    }

    fn on_parsed(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        parsed: &Parsed,
        bytes: &mut [u8],
        travel: Travel,
    ) {
        match &parsed.kind {
            Kind::Tcp(segment) => {
                if self.is_for_us(&parsed.link, segment) && self.checksum_holds(bytes, segment, travel.checksum) {
                    self.on_segment(now, queue, app, &parsed.link, segment, bytes, travel);
                }
            }
            Kind::Drop(reason) => reason.count(&mut self.world.counters),
            Kind::Icmp4(_) | Kind::Icmp6(_) if let Some(error) = wire::icmp_error(bytes, parsed) => {
                self.on_icmp(now, queue, app, &parsed.link, &error, bytes, travel);
            }
            Kind::Fragment(part) => self.on_fragment(now, queue, app, &parsed.link, part, bytes),
            _ => self.answer_below_tcp(now, queue, bytes, parsed),
        }
    }

    /// A part of a packet. Whoever has the last one has them all, because queues are chosen by addresses; the flow may still be
    /// another shard's.
    #[cold]
    fn on_fragment(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        link: &LinkView,
        part: &Fragment,
        bytes: &[u8],
    ) {
        if let Err(reason) = self.responder.admit_part(link, part) {
            return reason.count(&mut self.world.counters);
        }
        let Some(whole) = self.fragments.take(now, link, part, bytes, &mut self.world.counters) else { return };
        let mut buffer = self.fragments.lend(&whole);
        if let Some(frame) = buffer.get_mut(whole.frame.clone()) {
            let mut parsed = wire::parse(frame);
            let mut hash = 0;
            match &mut parsed.kind {
                Kind::Tcp(segment) => hash = self.flows.hash(&segment.key),
                // Neighbour discovery comes in one piece (RFC 6980).
                Kind::Icmp4(message) | Kind::Icmp6(message) => message.plain = false,
                _ => {}
            }
            let travel = Travel { hash, candidate: NOBODY, checksum: RxChecksum::Unknown, seen_by: 0, awaited: false };
            match parsed.kind {
                // Parts of a part.
                Kind::Fragment(_) => DropReason::Fragment.count(&mut self.world.counters),
                _ => self.on_parsed(now, queue, app, &parsed, frame, travel),
            }
        }
        self.fragments.give_back(&whole, buffer);
    }

    /// Tells senders whose packets never became whole (RFC 1122 3.3.2, RFC 8200 4.5).
    #[inline]
    pub(super) fn give_up_fragments(&mut self, now: Instant, queue: &mut Q) {
        if self.fragments.deadline().is_none_or(|at| at > now) {
            return;
        }
        let Shard { fragments, responder, world, .. } = self;
        let counters = &mut world.counters;
        let given_up = fragments.expire(now, |link, first, content| {
            let Some(mut frame) = queue.alloc_tx() else { return counters.tx_exhausted += 1 };
            frame.set_len(frame.capacity());
            match responder.tell_late(now, link, first, content, frame.bytes_mut(), counters) {
                Some(len) => {
                    frame.set_len(len);
                    queue.tx(frame, TxOffload::NONE);
                    counters.tx_frames += 1;
                }
                None => queue.release(frame),
            }
        });
        counters.frag_expired += given_up;
    }

    fn is_for_us(&mut self, link: &LinkView, segment: &Segment) -> bool {
        if let Err(reason) = self.responder.admit(link, segment) {
            reason.count(&mut self.world.counters);
            return false;
        }
        if self.is_kernels(segment.key.local_port) {
            DropReason::NotOurs.count(&mut self.world.counters);
            return false;
        }
        true
    }

    /// Whether the kernel answers for `port`: on a shared address every one but ours.
    #[inline]
    pub(super) fn is_kernels(&self, port: u16) -> bool {
        self.shared && !self.listeners.iter().any(|l| l.port == port)
    }

    #[inline]
    fn checksum_holds(&mut self, bytes: &[u8], segment: &Segment, known: RxChecksum) -> bool {
        let holds = tcp_is_sound(bytes, segment, known, self.world.caps.rx_partial_checksums);
        if !holds {
            DropReason::L4Checksum.count(&mut self.world.counters);
        }
        holds
    }

    fn answer_below_tcp(&mut self, now: Instant, queue: &mut Q, bytes: &[u8], parsed: &Parsed) {
        if let Kind::Icmp4(message) | Kind::Icmp6(message) = &parsed.kind
            && message.end as usize - usize::from(message.ip_at) > self.world.caps.mtu
        {
            return self.answer_in_parts(now, queue, bytes, parsed);
        }
        let Some(mut frame) = queue.alloc_tx() else {
            self.world.counters.tx_exhausted += 1;
            return;
        };
        frame.set_len(frame.capacity());
        match self.responder.answer(now, bytes, parsed, frame.bytes_mut(), &mut self.world.counters) {
            Some(len) => {
                frame.set_len(len);
                queue.tx(frame, TxOffload::NONE);
                self.world.counters.tx_frames += 1;
            }
            None => queue.release(frame),
        }
    }

    /// A ping that came in parts is answered in parts (RFC 1122 3.2.2.6: all of its data comes back).
    #[cold]
    fn answer_in_parts(&mut self, now: Instant, queue: &mut Q, bytes: &[u8], parsed: &Parsed) {
        let (mut answer, id) = self.fragments.lend_answer();
        let len = self.responder.answer(now, bytes, parsed, &mut answer, &mut self.world.counters).unwrap_or(0);
        let whole = answer.get(..len).unwrap_or(&[]);
        let headers = if matches!(parsed.kind, Kind::Icmp4(_)) { 20 } else { 40 + 8 };
        let room = self.world.caps.mtu.saturating_sub(headers) & !7;
        let (l2_len, mut from) = (usize::from(parsed.link.l2_len), 0);
        while room > 0 && from < len {
            let Some(mut frame) = queue.alloc_tx() else {
                self.world.counters.tx_exhausted += 1;
                break;
            };
            frame.set_len(frame.capacity());
            let Some((part, next)) = wire::write_fragment(whole, l2_len, from, room, id, frame.bytes_mut()) else {
                queue.release(frame);
                break;
            };
            frame.set_len(part);
            queue.tx(frame, TxOffload::NONE);
            self.world.counters.tx_frames += 1;
            self.world.counters.frag_sent += 1;
            from = next;
        }
        self.fragments.keep_answer(answer);
    }

    #[allow(clippy::too_many_arguments)] // a hop of the frame's way: everything it carries goes on
    fn on_segment(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
        travel: Travel,
    ) {
        // The guess made early is right as long as nobody else has come to live there.
        let guess = self.live.get(travel.candidate).filter(|c| c.key == segment.key);
        match guess.map(|_| Flow::Live(travel.candidate)).or_else(|| self.find(&segment.key, travel.hash)) {
            Some(Flow::Live(id)) => self.on_live(now, queue, app, id, link, segment, bytes),
            Some(Flow::Syn(position)) => {
                self.on_half_open(now, queue, app, position, link, segment, bytes, travel);
                return;
            }
            Some(Flow::Parked(position)) => self.on_parked(now, queue, app, position, link, segment, bytes),
            Some(Flow::TimeWait(position)) => self.on_time_wait(now, queue, app, position, link, segment, bytes),
            None => {
                self.on_unknown(now, queue, app, link, segment, bytes, travel);
                return;
            }
        }
        if travel.seen_by > 0 {
            self.world.counters.stray_claimed += 1;
        }
    }

    #[inline]
    pub(super) fn find(&self, key: &FlowKey, hash: u64) -> Option<Flow> {
        let found = self.flows.find(hash, |value| match Flow::unpack(value) {
            Flow::Live(id) => self.live.get(id).is_some_and(|c| c.key == *key),
            Flow::Syn(position) => self.syn.record(position).is_some_and(|r| r.key == *key),
            Flow::TimeWait(position) => self.time_wait.record(position).key == *key,
            Flow::Parked(position) => self.parked.is(position, key),
        });
        found.map(Flow::unpack)
    }

    /// Remembers where a flow is, which is nowhere yet.
    pub(super) fn know(&mut self, hash: u64, flow: Flow) -> bool {
        let known = self.flows.insert(hash, flow.pack()).is_ok();
        debug_assert!(known, "the flow table has room for all that the others hold");
        known
    }

    /// A flow that is known is something else from now on.
    pub(super) fn move_flow(&mut self, hash: u64, from: Flow, to: Flow) {
        let known = self.flows.replace(hash, from.pack(), to.pack());
        debug_assert!(known, "what has a place of its own is in the flow table");
    }

    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    fn on_unknown(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
        travel: Travel,
    ) {
        let flags = segment.flags;
        if self.responder.is_broadcast(&segment.key.peer) {
            return DropReason::Martian.count(&mut self.world.counters);
        }
        if flags.syn() && !flags.ack() && !flags.rst() && !flags.fin() {
            self.accept_syn(now, queue, link, segment, bytes, travel.hash, None);
        } else if flags.0 & (Flags::SYN | Flags::RST | Flags::ACK).0 == 0 && self.listens(segment) {
            // RFC 9293 3.10.7.2, LISTEN: neither of the three is nothing at all.
            self.world.counters.gate_no_ack += 1;
        } else if self.on_cookie(now, queue, app, link, segment, bytes) {
            // It has become a connection, or may when there is room for one.
        } else {
            self.disown(now, queue, link, segment, bytes, travel);
        }
    }

    fn listens(&self, segment: &Segment) -> bool {
        self.listeners.iter().any(|l| l.port == segment.key.local_port)
    }

    /// A segment of no connection here: there may be one on another shard. The last one answers, unless the segment that
    /// makes a connection may be still to come.
    pub(super) fn disown(
        &mut self,
        now: Instant,
        queue: &mut Q,
        link: &LinkView,
        segment: &Segment,
        bytes: &[u8],
        Travel { hash, checksum, seen_by, awaited, .. }: Travel,
    ) {
        let awaited = awaited || self.awaits_cookie(now, segment, hash);
        if self.strays.as_ref().is_some_and(|s| s.leads_on(seen_by)) {
            self.pass_on(Stray { bytes: bytes.into(), checksum, seen_by: seen_by + 1, awaited });
        } else if awaited {
            self.world.counters.drop_cookie_awaited += 1;
        } else {
            self.answer_nobody(now, queue, link, segment);
        }
    }

    pub(super) fn pass_on(&mut self, stray: Stray) {
        let Some(strays) = &self.strays else { return };
        if strays.pass_on(stray) {
            self.world.counters.stray_sent += 1;
        } else {
            self.world.counters.drop_stray_full += 1;
        }
    }

    /// RST to a segment of no connection (RFC 9293 3.10.7.1), within limits.
    pub(super) fn answer_nobody(&mut self, now: Instant, queue: &mut Q, link: &LinkView, segment: &Segment) {
        let Some(reset) = wire::reset_for(segment) else { return };
        if !self.rst_limit.allow(now) {
            self.world.counters.rst_limited += 1;
            return;
        }
        let template = self.template(link, segment);
        if self.send_bare(queue, &template, &reset) {
            self.world.counters.rst_sent += 1;
        }
    }

    /// Headers that lead back to where a segment came from.
    pub(super) fn template(&self, link: &LinkView, segment: &Segment) -> Template {
        let mut header = LinkHeader::answering(link, self.world.caps.mac);
        header.dst = self.responder.route(&segment.key.peer, link.src);
        Template::new(&header, &segment.key)
    }

    /// Sends a segment without payload; false when no frame was free.
    pub(super) fn send_bare(&mut self, queue: &mut Q, template: &Template, segment: &Outgoing<'_>) -> bool {
        let Some(mut frame) = queue.alloc_tx() else {
            self.world.counters.tx_exhausted += 1;
            return false;
        };
        frame.set_len(template.header_len() + segment.options.len());
        template.write(frame.bytes_mut(), segment, TxChecksum::Full);
        queue.tx(frame, TxOffload::NONE);
        self.world.counters.tx_frames += 1;
        true
    }
}
