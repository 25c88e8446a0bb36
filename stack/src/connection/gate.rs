//! The gate, inwards: what a segment must pass before smoltcp may see it.
//!
//! The order is that of RFC 9293 3.10.7.4 with RFC 5961's answers, and the guards that smoltcp 0.14 needs (SMOLTCP.md,
//! "Failures reachable from the wire"): receive buffers of at most 65,535 bytes (`limits`), nothing further than 2^30 from
//! the window, no acknowledgement of what was never sent, no FIN on or beyond the window's edge.

use super::{Connection, Env, Fate, Transmit};
use crate::app::App;
use crate::limits::{CHALLENGE_GAP_US, FIN_WAIT_2_US};
use crate::recovery::{Ack, AckOutcome};
use crate::timestamps::is_old_duplicate;
use crate::wire::{self, Segment, TcpOptions};
use crate::{CloseReason, Counters, Instant, Queue};
use arrayvec::ArrayVec;

/// Further from the window than this is garbage, and smoltcp's arithmetic must not see it.
const FAR: i32 = 1 << 30;

impl<S> Connection<S> {
    /// Judges one segment and passes on what is good. `frame` is the Ethernet frame that `segment` was parsed from; its
    /// headers may be rewritten.
    pub(crate) fn on_segment<Q: Queue, A: App<Session = S>>(
        &mut self,
        env: &mut Env<'_, Q>,
        app: &mut A,
        segment: &Segment,
        frame: &mut [u8],
    ) -> Fate {
        let distance = self.rx.distance(segment.seq);
        self.believed = false;
        if segment.flags.rst() {
            return self.on_reset(env, distance);
        }
        if segment.flags.syn() {
            // A SYN here is an old duplicate, a restarted peer or a forgery: RFC 5961 4.2 answers all three alike.
            env.world.counters.gate_syn += 1;
            self.challenge(env);
            return Fate::Live;
        }
        if !segment.flags.ack() {
            env.world.counters.gate_no_ack += 1;
            return Fate::Live;
        }
        if distance.unsigned_abs() > FAR as u32 {
            env.world.counters.gate_far_sequence += 1;
            self.challenge(env);
            return Fate::Live;
        }
        let options = options(segment, frame);
        if is_old_duplicate(self.stamps.as_ref(), env.now, &options) {
            if !self.on_overtaken(env, segment, distance, &options) {
                env.world.counters.gate_paws += 1;
                self.challenge(env);
            }
            return Fate::Live;
        }
        if !self.in_window(segment, distance) {
            if !self.on_old_text(env, segment, distance) {
                env.world.counters.gate_outside_window += 1;
                self.challenge(env);
            }
            return Fate::Live;
        }
        if !self.on_ack(env, segment, distance, &options) {
            return Fate::Live;
        }
        self.believed = true;
        self.waiting.heard(env.now);
        self.take_timestamp(env.now, distance, &options);
        if segment.payload_len() > 0 || segment.flags.fin() {
            if self.ecn.on_text(segment) {
                self.rx.ack_now();
            }
            let before = self.rx.next;
            self.on_text(env, app, segment, distance, frame);
            self.wait_for_fin(env.now, before);
        }
        Fate::Live
    }

    /// In FIN-WAIT-2, text that came since `before` keeps the connection; acknowledgements alone would keep it for ever.
    #[inline]
    fn wait_for_fin(&mut self, now: Instant, before: u64) {
        if let Some(ends) = self.fin_wait_2_ends.as_mut()
            && self.rx.next > before
        {
            *ends = now.plus_micros(FIN_WAIT_2_US);
        }
    }

    /// RFC 5961 3.2: only the exact sequence number kills; one inside the window draws a challenge.
    fn on_reset<Q: Queue>(&mut self, env: &mut Env<'_, Q>, distance: i32) -> Fate {
        if distance == 0 {
            return Fate::Over(CloseReason::PeerReset);
        }
        if distance > 0 && (distance as u64) < self.rx.room() {
            env.world.counters.gate_rst_inexact += 1;
            self.challenge(env);
        } else {
            env.world.counters.gate_rst_outside += 1;
        }
        Fate::Live
    }

    /// RFC 9293 3.10.7.4, first check, with the tolerance of Linux (`tcp_sequence`): an old segment still counts for its
    /// acknowledgement as long as it does not end before what we last acknowledged.
    #[inline]
    fn in_window(&self, segment: &Segment, distance: i32) -> bool {
        let len = segment.payload_len() as i64 + i64::from(segment.flags.fin());
        let unacked = (self.rx.next - self.rx.acked) as i64;
        let left = i64::from(distance) + len >= -unacked;
        let right = i64::from(distance) <= self.rx.room() as i64;
        left && right
    }

    /// RFC 7323 4.3: what is echoed is the timestamp of the segment that our last ACK waited for, or of an older one.
    #[inline]
    fn take_timestamp(&mut self, now: Instant, distance: i32, options: &TcpOptions) {
        if let Some(stamps) = self.stamps.as_mut()
            && let Some((tsval, _)) = options.timestamps
            && i64::from(distance) <= -((self.rx.next - self.rx.acked) as i64)
            && !stamps.is_old(now, tsval)
        {
            stamps.take(now, tsval);
        }
    }

    /// A bare acknowledgement that PAWS would have dropped, but not older than a network that reorders makes it (Linux:
    /// `tcp_disordered_ack`): what it reports is still true, and a duplicate is reported only once. Nothing else of it counts.
    #[cold]
    fn on_overtaken<Q: Queue>(
        &mut self,
        env: &mut Env<'_, Q>,
        segment: &Segment,
        distance: i32,
        options: &TcpOptions,
    ) -> bool {
        let tx = &mut self.tx;
        let bare = segment.payload_len() == 0 && !segment.flags.fin() && distance == 0;
        let late_us = match (&self.stamps, options.timestamps) {
            (Some(stamps), Some((tsval, _))) => stamps.age_us(tsval),
            _ => u64::MAX,
        };
        let behind = u64::from(tx.seq(tx.sender.una()).wrapping_sub(segment.ack));
        if !bare || late_us > tx.sender.rto_us() || behind > tx.max_window.max(1) {
            return false;
        }
        env.world.counters.acks_overtaken += 1;
        if let Some(ack) = tx.sender.una().checked_sub(behind) {
            self.hear_blocks(env, ack, options);
        }
        true
    }

    /// The blocks that an acknowledgement from before [`una`](crate::recovery::Sender::una) reports.
    #[cold]
    fn hear_blocks<Q: Queue>(&mut self, env: &mut Env<'_, Q>, ack: u64, options: &TcpOptions) {
        let sack = sack_offsets(&self.tx, options);
        if !sack.is_empty() {
            let outcome = self.tx.sender.on_ack(env.now, &Ack { ack, sack: &sack, ..Ack::default() });
            count(&mut env.world.counters, &outcome);
        }
    }

    /// Judges and applies the acknowledgement; false when the segment must go no further (RFC 5961 5.2).
    #[inline]
    fn on_ack<Q: Queue>(
        &mut self,
        env: &mut Env<'_, Q>,
        segment: &Segment,
        distance: i32,
        options: &TcpOptions,
    ) -> bool {
        let tx = &mut self.tx;
        let nxt = tx.sender.nxt();
        let behind = tx.seq(nxt).wrapping_sub(segment.ack) as i32;
        let oldest = nxt - tx.sender.una() + tx.max_window;
        if behind < 0 || u64::from(behind as u32) > oldest.max(1) {
            env.world.counters.gate_ack_range += 1;
            self.challenge(env);
            return false;
        }
        let una = tx.sender.una();
        let Some(ack) = nxt.checked_sub(u64::from(behind as u32)) else {
            // From before our SYN: old, and no duplicate of anything.
            return true;
        };
        let newer = segment.seq.wrapping_sub(tx.wl1) as i32;
        // A new acknowledgement is of now, even on a segment sent again (Linux: `tcp_may_update_window`); without its window,
        // the edge would move along with it.
        let sets_window = ack > una || newer > 0 || (newer == 0 && segment.ack.wrapping_sub(tx.wl2) as i32 >= 0);
        let window = sets_window.then(|| u64::from(segment.window) << tx.peer_shift);
        if let Some(window) = window {
            tx.wl1 = if newer > 0 { segment.seq } else { tx.wl1 };
            tx.wl2 = segment.ack;
            tx.max_window = tx.max_window.max(window);
        }
        if ack < una {
            self.hear_blocks(env, ack, options);
            return true;
        }
        let pure = segment.payload_len() == 0 && !segment.flags.fin() && distance <= 0;
        let sack = sack_offsets(tx, options);
        let echoed = match (&self.stamps, options.timestamps) {
            (Some(stamps), Some((_, tsecr))) => stamps.sent_at(env.now, tsecr),
            _ => None,
        };
        if let Some(at) = echoed
            && segment.payload_len() as u64 >= self.rx.acks.full_segment()
        {
            self.rx.window.measured(env.now.micros_since(at));
        }
        let ece = self.ecn.echoed(segment.flags);
        let news = Ack { ack, window, pure, sack: &sack, echoed, ece };
        let outcome = tx.sender.on_ack(env.now, &news);
        count(&mut env.world.counters, &outcome);
        if outcome.newly_acked > 0 {
            self.waiting.progressed(env.now);
            self.on_acked(env, ack);
        }
        true
    }

    fn on_acked<Q: Queue>(&mut self, env: &mut Env<'_, Q>, ack: u64) {
        if self.path.is_unproven() {
            self.on_proven(env);
        }
        let tx = &mut self.tx;
        let pool = &mut env.world.pool;
        tx.store.release_to(pool, ack.min(tx.store.end()));
        if tx.fin_sent && !tx.fin_acked && ack > tx.store.end() {
            tx.fin_acked = true;
            self.tell_machine_fin_acked(env.world);
            if !self.rx.finished {
                self.fin_wait_2_ends = Some(env.now.plus_micros(FIN_WAIT_2_US));
            }
        }
        if self.wishes.short_of_room.get() && self.has_more_room(&env.world.pool) {
            self.wishes.short_of_room.set(false);
            self.wishes.ready = true;
        }
    }

    /// Answers a segment that was stopped, within limits: a challenge ACK says where we stand (RFC 5961), and so do the
    /// answers to window probes and keep-alives. Each connection has a limit of its own: one for all, as in RFC 5961 7,
    /// tells a stranger whether his guesses hit (CVE-2016-5696) and lets him silence the answers that others wait for.
    fn challenge<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        let now: Instant = env.now;
        if now.micros_since(self.challenged_at) < CHALLENGE_GAP_US {
            env.world.counters.challenge_limited += 1;
            return;
        }
        self.challenged_at = now;
        env.world.counters.challenge_acks += 1;
        self.rx.ack_now();
    }
}

/// Counts what an acknowledgement did.
#[inline]
fn count(counters: &mut Counters, outcome: &AckOutcome) {
    counters.dup_acks += u64::from(outcome.duplicate);
    counters.fast_retransmits += u64::from(outcome.fast_retransmit);
    counters.reductions_undone += u64::from(outcome.undone) + u64::from(outcome.undone_earlier);
}

/// What a segment's options say; nearly always there are none, or a timestamp.
#[inline]
fn options(segment: &Segment, frame: &[u8]) -> TcpOptions {
    if segment.payload_at - segment.tcp_at > 20 {
        wire::tcp_options(segment.header(frame))
    } else {
        TcpOptions::default()
    }
}

/// The blocks of a segment's SACK option (RFC 2018) as stream offsets.
#[inline]
fn sack_offsets(tx: &Transmit, options: &TcpOptions) -> ArrayVec<(u64, u64), 4> {
    let mut blocks = ArrayVec::new();
    if !options.sack.is_empty() {
        let nxt = tx.sender.nxt();
        let offset = |seq: u32| match tx.seq(nxt).wrapping_sub(seq) as i32 {
            behind @ 0.. => nxt.checked_sub(behind as u64),
            _ => None,
        };
        blocks.extend(options.sack.iter().filter_map(|(left, right)| Some((offset(*left)?, offset(*right)?))));
    }
    blocks
}
