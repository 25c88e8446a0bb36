//! Connections at rest: how they are parked and what wakes them; see [`parked`](crate::parked).

use super::half_open::Stand;
use super::lifecycle::guard;
use super::{Flow, Shard};
use crate::app::{App, Listener, Patience};
use crate::connection::Connection;
use crate::limits::{
    EARLY_LOOKS, FORSAKEN_US, PARK_EARLY_US, PARK_LOOKS, PARK_MUTE_US, PARKED_GROUPS_PER_TURN, RECORDS_PER_TURN,
    RETRY_WAKE_US, ROUSED_PER_TURN, TIMERS_PER_TURN, UNITS_KEPT,
};
use crate::parked::Resting;
use crate::timestamps::{Timestamps, is_old_duplicate};
use crate::wire::{Flags, LinkHeader, LinkView, Outgoing, Segment, TcpOptions, Template, VlanTags, tcp_options};
use crate::{CloseReason, Instant, Queue};

/// What a segment is to a parked connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Segments {
    /// The gate would let it pass.
    Good,
    /// The gate is going to stop it, and perhaps to answer.
    Doubtful,
    /// It asks whether we live, and has nothing else to say.
    Probe,
    /// It ends the connection.
    Reset,
    /// A reset from outside the window, or a segment without the ACK flag: nothing is answered.
    Stray,
}

impl<A: App, Q: Queue> Shard<A, Q> {
    /// Whether there may be no more connections.
    pub(super) fn is_full(&self) -> bool {
        self.live() >= self.limits.connections
    }

    /// A live connection has been silent for long enough: parks it, or sees when to look again. True: it is parked.
    pub(super) fn park_if_quiet(&mut self, now: Instant, queue: &mut Q, app: &mut A, id: u32) -> bool {
        let quiet = self.live.get(id).is_some_and(|connection| connection.quiet_at() <= now);
        if !quiet {
            return false;
        }
        let parked = self.park(now, queue, app, id);
        if !parked {
            self.live.with(id, |connection| connection.refuse_to_park(now));
        }
        parked
    }

    /// Parks a live connection; false: it cannot be.
    fn park(&mut self, now: Instant, queue: &mut Q, app: &mut A, id: u32) -> bool {
        if self.draining || self.limits.park_after_us.is_none() {
            return false;
        }
        let Some(connection) = self.live.get(id) else { return false };
        let Some(rest) = connection.rest(now) else { return false };
        let mut token = None;
        if !guard(|| token = connection.session().and_then(|session| app.park(session))) {
            self.reset(now, queue, app, id, CloseReason::Panicked);
            return true;
        }
        let Some(token) = token else { return false };
        let Some(position) = self.parked.insert(&Resting { token, ..rest }) else { return false };
        let hash = self.flows.hash(&rest.key);
        let known = self.flows.replace(hash, Flow::Live(id).pack(), Flow::Parked(position).pack());
        debug_assert!(known, "live connections are in the flow table");
        self.wheel.disarm(id);
        if let Some(mut connection) = self.live.remove(id) {
            let world = &mut self.world;
            let mut parts = None;
            guard(|| {
                drop(connection.take_session());
                parts = Some(connection.dissolve(world));
            });
            parts.into_iter().for_each(|parts| self.live.give_parts(parts));
        }
        self.world.counters.parked += 1;
        true
    }

    /// Sees that there is a unit for one more live connection: parks another where none is free.
    pub(super) fn make_room(&mut self, now: Instant, queue: &mut Q, app: &mut A) -> bool {
        let before = self.park_hand;
        let mut looks = if self.limits.park_after_us.is_some() { EARLY_LOOKS } else { 0 };
        while looks > 0 && self.live.len() >= self.limits.warm {
            looks -= 1;
            self.park_hand = self.live.after(self.park_hand);
            let Some(connection) = self.live.get(self.park_hand) else { continue };
            let silence_us = if connection.is_mute() { PARK_MUTE_US } else { PARK_EARLY_US };
            if connection.silence_us(now) >= silence_us {
                self.park_or_shed(now, queue, app, self.park_hand);
            }
        }
        let mut looks = PARK_LOOKS;
        while self.live.is_full() && looks > 0 {
            looks -= 1;
            self.park_hand = self.live.after(self.park_hand);
            self.park_or_shed(now, queue, app, self.park_hand);
        }
        if self.park_hand != before {
            self.ask_for_next_to_park();
        }
        !self.live.is_full()
    }

    /// Has memory fetch what [`park`](Self::park) will look at the next time: the connection after the next, and the place of the
    /// next one in the flow table, which the connection must have come for.
    #[inline]
    fn ask_for_next_to_park(&self) {
        let next = self.live.after(self.park_hand);
        if let Some(connection) = self.live.get(next) {
            self.flows.prefetch(self.flows.hash(&connection.key));
        }
        self.live.prefetch(self.live.after(next));
    }

    /// Whether units are left beside those that are kept for whoever comes and speaks.
    fn has_units_to_spare(&self) -> bool {
        let units = self.limits.units();
        self.live.len() < units - units / UNITS_KEPT
    }

    /// Parks a connection if that can be. Where it cannot and units are scarce, an orphan is reset whose peer may have gone:
    /// clients that vanish by the ten thousand would otherwise hold all of them until the last FIN is repeated, and nobody
    /// else could come.
    fn park_or_shed(&mut self, now: Instant, queue: &mut Q, app: &mut A, id: u32) {
        if self.park(now, queue, app, id) {
            return;
        }
        let gone = |connection: &Connection<A::Session>| connection.is_forsaken(now, FORSAKEN_US);
        if !self.has_units_to_spare() && self.live.get(id).is_some_and(gone) {
            self.world.counters.shed_orphans += 1;
            self.reset(now, queue, app, id, CloseReason::TimedOut);
        }
    }

    fn resting(&self, app: &A, position: u32) -> Option<(Resting, Listener, Patience)> {
        let port = self.parked.get(position, None)?.key.local_port;
        let listener = *self.listeners.iter().find(|l| l.port == port)?;
        let patience = app.patience(listener);
        let keep_alive_us = patience.keep_alive.map(|silence| (silence.as_micros() as u64).max(1));
        Some((self.parked.get(position, keep_alive_us)?, listener, patience))
    }

    /// Brings a parked connection back to life; `None`: there is no unit for it, or it came to its end by that.
    fn wake(&mut self, now: Instant, queue: &mut Q, app: &mut A, position: u32) -> Option<u32> {
        let (rest, listener, patience) = self.resting(app, position)?;
        if !self.make_room(now, queue, app) {
            return None;
        }
        let parts = self.live.take_parts()?;
        let mut session = None;
        guard(|| session = Some(app.unpark(now, listener, rest.key.peer_addr(), rest.token)));
        let Some(session) = session else {
            self.live.give_parts(parts);
            self.reset_parked(queue, &rest);
            self.forget_parked(position, &rest);
            self.count_end(&rest.key, CloseReason::Panicked);
            return None;
        };
        let offset = self.isn.timestamp_offset(&rest.key);
        self.parked.remove(position);
        let world = &mut self.world;
        let id = self.live.insert_with(|| Connection::resume(now, world, parts, &rest, offset, &patience, session));
        let hash = self.flows.hash(&rest.key);
        let known = self.flows.replace(hash, Flow::Parked(position).pack(), Flow::Live(id).pack());
        debug_assert!(known, "parked connections are in the flow table");
        self.world.counters.woken += 1;
        Some(id)
    }

    /// A segment of a parked connection.
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn on_parked(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        position: u32,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
    ) {
        let Some(rest) = self.parked.get(position, None) else { return };
        let said = tcp_options(segment.header(bytes));
        let stamps = rest.recent.map(|recent| Timestamps::new(rest.heard, 0, recent));
        match judge(now, &rest, stamps.as_ref(), segment, &said) {
            Segments::Good => {}
            Segments::Doubtful if self.wake_limit.allow(now) => {}
            Segments::Doubtful => return self.world.counters.drop_wake_limit += 1,
            Segments::Probe => return self.answer_probe(now, queue, &rest),
            Segments::Reset => return self.end_parked(now, app, position, CloseReason::PeerReset),
            Segments::Stray if segment.flags.rst() => return self.world.counters.gate_rst_outside += 1,
            Segments::Stray => return self.world.counters.gate_no_ack += 1,
        }
        match self.wake(now, queue, app, position) {
            Some(id) => self.on_live(now, queue, app, id, link, segment, bytes),
            None => self.world.counters.drop_wake_full += 1,
        }
    }

    /// Says that we live (RFC 9293 3.8.4), at no limited rate: only who knows both numbers asks like this.
    fn answer_probe(&mut self, now: Instant, queue: &mut Q, rest: &Resting) {
        self.world.counters.parked_probes += 1;
        let offset = self.isn.timestamp_offset(&rest.key);
        let shift = if rest.peer_shift.is_some() { crate::limits::RX_SHIFT } else { 0 };
        let stand = Stand {
            seq: rest.snd_nxt,
            ack: rest.rcv_nxt,
            window: (rest.room >> shift).min(u64::from(u16::MAX)) as u16,
            stamps: rest.recent.map(|recent| Timestamps::new(rest.heard, offset, recent)),
        };
        let template = self.template_of(rest);
        self.send_stand(now, queue, &template, &stand);
        self.world.counters.acks_sent += 1;
    }

    /// What is due for parked connections: bounded, what is left over is due in the next turn.
    pub(super) fn on_parked_timers(&mut self, now: Instant, queue: &mut Q, app: &mut A) {
        let (mut budget, mut left) = (PARKED_GROUPS_PER_TURN, TIMERS_PER_TURN);
        while left > 0 && self.parked.is_due(now) {
            if !self.has_units_to_spare() {
                self.make_room(now, queue, app);
            }
            if self.live.is_full() {
                // One look for all of them: a million whose time has come must not be tried one by one, in vain.
                self.world.counters.drop_wake_full += 1;
                return self.parked.pause(now.plus_micros(RETRY_WAKE_US));
            }
            let scarce = !self.has_units_to_spare();
            let due = self.parked.due(now, &mut budget);
            if due.is_empty() {
                return;
            }
            left = left.saturating_sub(due.len());
            for position in due {
                match self.wake(now, queue, app, position) {
                    Some(id) => self.on_connection_timer(now, queue, app, id),
                    None => {
                        self.world.counters.drop_wake_full += 1;
                        self.parked.put_off(position, now.plus_micros(RETRY_WAKE_US));
                    }
                }
            }
            if scarce {
                return self.parked.pause(now.plus_micros(RETRY_WAKE_US));
            }
        }
    }

    /// Wakes the next of those that are all to be woken; says whether it got on.
    pub(super) fn rouse(&mut self, now: Instant, queue: &mut Q, app: &mut A) -> bool {
        let Some(mut place) = self.rousing else { return false };
        let mut looks = RECORDS_PER_TURN;
        for woken in 0..ROUSED_PER_TURN {
            let Some(position) = self.parked.next_from(&mut place, &mut looks) else {
                // An end, or enough for this turn.
                self.rousing = (looks == 0).then_some(place);
                return true;
            };
            let Some(id) = self.wake(now, queue, app, position) else {
                // Others must end first.
                self.rousing = Some(place);
                return woken > 0;
            };
            place += 1;
            self.live.with(id, |connection| connection.poke());
            self.touch(id);
        }
        self.rousing = Some(place);
        true
    }

    /// Resets every parked connection.
    pub(super) fn abort_parked(&mut self, now: Instant, queue: &mut Q, app: &mut A) {
        let (mut place, mut looks) = (0, usize::MAX);
        while let Some(position) = self.parked.next_from(&mut place, &mut looks) {
            if let Some(rest) = self.parked.get(position, None) {
                self.reset_parked(queue, &rest);
            }
            self.end_parked(now, app, position, CloseReason::Drained);
            place += 1;
        }
        self.rousing = None;
    }

    /// A parked connection is over: its application hears of it as of any other.
    fn end_parked(&mut self, now: Instant, app: &mut A, position: u32, reason: CloseReason) {
        let Some((rest, listener, _)) = self.resting(app, position) else { return };
        self.forget_parked(position, &rest);
        let mut session = None;
        guard(|| session = Some(app.unpark(now, listener, rest.key.peer_addr(), rest.token)));
        let reason = if session.is_some() { reason } else { CloseReason::Panicked };
        self.count_end(&rest.key, reason);
        if let Some(session) = session {
            self.tell_closed(app, session, reason);
        }
    }

    /// Takes a parked connection out of every table.
    fn forget_parked(&mut self, position: u32, rest: &Resting) {
        self.parked.remove(position);
        let hash = self.flows.hash(&rest.key);
        self.flows.remove(hash, Flow::Parked(position).pack());
        if let Some(sources) = &mut self.live_by {
            sources.remove(&rest.key.peer);
        }
    }

    fn reset_parked(&mut self, queue: &mut Q, rest: &Resting) {
        let reset = Outgoing {
            seq: rest.snd_nxt,
            ack: rest.rcv_nxt,
            flags: Flags::RST | Flags::ACK,
            window: 0,
            options: &[],
            payload_len: 0,
        };
        let template = self.template_of(rest);
        self.send_bare(queue, &template, &reset);
    }

    fn template_of(&self, rest: &Resting) -> Template {
        Template::new(&rest.link(self.world.caps.mac), &rest.key)
    }
}

impl Resting {
    /// The link layer towards its peer.
    pub(crate) fn link(&self, src: [u8; 6]) -> LinkHeader {
        LinkHeader { dst: self.mac, src, vlan: self.tci.map_or(VlanTags::NONE, VlanTags::of_tci) }
    }
}

/// What the gate will make of a segment, as far as that decides whether to wake somebody for it.
fn judge(now: Instant, rest: &Resting, stamps: Option<&Timestamps>, segment: &Segment, said: &TcpOptions) -> Segments {
    let distance = i64::from(segment.seq.wrapping_sub(rest.rcv_nxt) as i32);
    let room = rest.room as i64;
    let flags = segment.flags;
    if flags.rst() {
        return match distance {
            0 => Segments::Reset,
            1.. if distance < room => Segments::Doubtful,
            _ => Segments::Stray,
        };
    }
    if flags.syn() {
        return Segments::Doubtful;
    }
    if !flags.ack() {
        return Segments::Stray;
    }
    let behind = rest.snd_nxt.wrapping_sub(segment.ack);
    let len = segment.payload_len() as i64 + i64::from(flags.fin());
    let knows_ack = behind <= rest.window.max(1);
    if !knows_ack || is_old_duplicate(stamps, now, said) {
        return Segments::Doubtful;
    }
    // Old text is sent again by a peer that has not seen our last acknowledgement.
    let repeats = distance < 0 && segment.payload_len() > 0 && -distance <= 1 << 30;
    if repeats || (distance + len >= 0 && distance <= room) {
        return Segments::Good;
    }
    if distance == -1 && len == 0 && behind == 0 { Segments::Probe } else { Segments::Doubtful }
}
