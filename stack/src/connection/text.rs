//! The gate, inwards: payload and FIN of a segment that was found good, on their way to smoltcp.
//!
//! smoltcp gets text in order and as much as fits its ring. Nearly all text goes there straight from its frame; what comes
//! early, twice or in part, and what finds the ring full, goes through the reassembly.

use super::window::Look;
use super::{Connection, Env, World};
use crate::app::App;
use crate::reassembly::{Inserted, Refused};
use crate::wire::{self, Flags, Segment};
use crate::{Instant, Queue};

/// Ranges given up for the sake of text that is expected next, at most, for each segment.
const RANGES_GIVEN_UP: usize = 8;
/// A hole that stays for longer than this will hardly be filled, microseconds: longer than a retransmission timeout on most
/// paths (RFC 6298 2.1 starts at a second), and its doubling.
const STALE_US: u64 = 3_000_000;

/// The part of a segment's payload that goes to smoltcp.
struct Cut {
    /// Bytes to leave out in front: received before.
    front: usize,
    /// Payload bytes to pass.
    len: usize,
    /// That is all of it.
    whole: bool,
}

impl<S> Connection<S> {
    /// Payload and FIN of a segment that begins `distance` from what is expected next.
    #[inline]
    pub(super) fn on_text<Q: Queue, A: App<Session = S>>(
        &mut self,
        env: &mut Env<'_, Q>,
        app: &mut A,
        segment: &Segment,
        distance: i32,
        frame: &mut [u8],
    ) {
        let len = segment.payload_len();
        if distance == 0 && !segment.flags.fin() && self.rx.goes_straight(len as u64) {
            self.rx.next += len as u64;
            let taken = if self.rx.unread() == 0 { self.offer(env, app, segment.payload(frame)) } else { 0 };
            if taken < len {
                self.feed_rest(env, segment, frame, taken);
            }
            self.on_progress(env, len as u64);
        } else {
            self.on_odd_text(env, segment, distance, frame);
        }
    }

    /// Shows text to the application while it lies in its frame; returns how much it took. Most requests are taken whole: no
    /// copy, and nothing for smoltcp to do.
    #[inline]
    fn offer<Q: Queue, A: App<Session = S>>(&mut self, env: &mut Env<'_, Q>, app: &mut A, text: &[u8]) -> usize {
        self.wishes.ready = false;
        self.with_app(env, text, |session, stream, now| app.ready(now, session, stream))
    }

    /// Has smoltcp keep what the application did not take of a segment's text, or was not shown.
    #[cold]
    fn feed_rest<Q: Queue>(&mut self, env: &mut Env<'_, Q>, segment: &Segment, frame: &mut [u8], taken: usize) {
        let offered = self.rx.unread() == 0;
        let len = segment.payload_len() - taken;
        self.feed_frame(env, segment, frame, &Cut { front: taken, len, whole: taken == 0 });
        if offered {
            // It has seen the rest and is not called again for it, unless it got on.
            self.wishes.ready = self.wants_more();
        }
    }

    /// The text of a segment that is old, early, at the end of the stream, or more than there is room for.
    #[cold]
    fn on_odd_text<Q: Queue>(&mut self, env: &mut Env<'_, Q>, segment: &Segment, distance: i32, frame: &mut [u8]) {
        let len = segment.payload_len() as u64;
        let before = self.rx.next;
        if distance < 0 {
            self.report_old(env, segment, distance);
        }
        let front = u64::from(distance.min(0).unsigned_abs());
        if front > len || (front == len && !segment.flags.fin()) {
            return self.repeat_ack(env);
        }
        // The offsets of what is new.
        let at = before + u64::from(distance.max(0).unsigned_abs());
        let end = at + len - front;
        if segment.flags.fin() && !self.rx.take_fin(&env.world.hold, end) {
            env.world.counters.gate_fin_held += u64::from(!self.rx.finished);
            self.rx.acks.at_once();
        }
        let stop = self.rx.text_ends().min(end);
        if stop < end && at < end {
            env.world.counters.gate_trimmed += 1;
            self.rx.acks.at_once();
        }
        let early = at > before;
        let had_hole = self.rx.has_hole(&env.world.hold);
        if at < stop {
            let cut = Cut { front: front as usize, len: (stop - at) as usize, whole: false };
            self.take_text(env, segment, frame, at, &cut);
        }
        self.rx.advance(&env.world.hold);
        self.hand_on(env);
        let fresh = self.rx.next - before;
        if fresh > 0 && self.rx.finished {
            self.rx.finished_second = self.tx.fin_sent;
            self.fin_wait_2_ends = None;
            self.wishes.ready = true;
        }
        if fresh == 0 {
            env.world.counters.rx_out_of_order += u64::from(early);
            return self.repeat_ack(env);
        }
        self.on_progress(env, len);
        // RFC 5681 4.2: what fills a gap is acknowledged at once; so is the end.
        if had_hole || self.rx.finished {
            self.rx.acks.at_once();
        }
    }

    /// New text in order, of a segment with `len` bytes.
    #[inline]
    fn on_progress<Q: Queue>(&mut self, env: &mut Env<'_, Q>, len: u64) {
        self.rx.acks.on_progress(env.now, len, self.rx.next - self.rx.acked);
        if self.rx.window.look_due(env.now) {
            self.look_at_window(env);
        }
    }

    #[cold]
    fn look_at_window<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        let rx = &mut self.rx;
        let grown = rx.window.look(&Look {
            now: env.now,
            next: rx.next,
            consumed: rx.consumed,
            full_segment: rx.acks.full_segment(),
            share: env.world.hold.share(rx.held.blocks()),
            most: env.world.rx_window_max,
        });
        env.world.counters.rx_window_grown += u64::from(grown);
    }

    /// Takes new text, of which nothing lies beyond the window or behind the FIN: what is next goes to smoltcp, the rest is
    /// held.
    fn take_text<Q: Queue>(&mut self, env: &mut Env<'_, Q>, segment: &Segment, frame: &mut [u8], at: u64, cut: &Cut) {
        let len = cut.len as u64;
        // What came first wins: only the part in front of everything held may go by without a look.
        let clear =
            self.rx.held.ranges(&env.world.hold).first().map_or(len, |range| range[0].saturating_sub(at).min(len));
        let straight = if at == self.rx.fed { clear.min(self.ring_room(env, clear)) } else { 0 };
        let rest = straight as usize..cut.len;
        if !rest.is_empty() {
            let payload = &segment.payload(frame)[cut.front..cut.front + cut.len];
            self.hold(env, at + straight, &payload[rest], at == self.rx.next);
        }
        if straight > 0 {
            self.feed_frame(env, segment, frame, &Cut { len: straight as usize, ..*cut });
        }
    }

    /// Holds text that begins at offset `at`; if it is what is `expected` next, at the price of what is not.
    fn hold<Q: Queue>(&mut self, env: &mut Env<'_, Q>, at: u64, text: &[u8], expected: bool) {
        let world = &mut *env.world;
        let mut got = self.rx.held.insert(&mut world.hold, self.rx.fed, at, text);
        for _ in 0..RANGES_GIVEN_UP {
            // What can be acknowledged comes before what was only reported.
            if got.refused.is_none() || !expected || !self.rx.held.drop_furthest(&mut world.hold, got.end) {
                break;
            }
            world.counters.rx_reneged += 1;
            let done = (got.end - at) as usize;
            let more = self.rx.held.insert(&mut world.hold, self.rx.fed, got.end, &text[done..]);
            got = Inserted { duplicate: got.duplicate.or(more.duplicate), ..more };
        }
        if got.elsewhere && at > self.rx.next && self.rx.sack_permitted() {
            self.rx.acks.on_news();
        }
        if let Some((from, to)) = got.duplicate {
            world.counters.rx_duplicate += 1;
            let (from, to) = (self.rx.seq(from), self.rx.seq(to));
            self.rx.note_duplicate(from, to);
        }
        match got.refused {
            Some(Refused::Memory) => world.counters.rx_hold_exhausted += 1,
            Some(Refused::Ranges) => world.counters.rx_too_many_holes += 1,
            None => {}
        }
    }

    /// Blocks held, and whether the hole in front of them has not become smaller for as long as a peer takes to send again.
    pub(crate) fn holding(&self, now: Instant) -> (usize, bool) {
        (self.rx.held.blocks(), self.rx.acks.silence_us(now) > STALE_US)
    }

    /// Lets go of everything that waits behind a hole (RFC 2018 8); whether there was anything.
    pub(crate) fn give_up_held(&mut self, world: &mut World) -> bool {
        let before = world.counters.rx_reneged;
        while self.rx.held.drop_furthest(&mut world.hold, self.rx.next) {
            world.counters.rx_reneged += 1;
        }
        world.counters.rx_reneged > before
    }

    /// Some of a segment came before (RFC 2883 4).
    fn report_old<Q: Queue>(&mut self, env: &mut Env<'_, Q>, segment: &Segment, distance: i32) {
        let old = distance.unsigned_abs().min(segment.payload_len() as u32);
        if old > 0 {
            env.world.counters.rx_duplicate += 1;
            self.rx.note_duplicate(segment.seq, segment.seq.wrapping_add(old));
        }
    }

    /// A segment that ends before what was last acknowledged. With text, its acknowledgement was lost, or it was sent again
    /// in vain: the peer must hear of it, at no limited rate (Linux: `tcp_oow_rate_limited`). False: it is no such segment.
    pub(super) fn on_old_text<Q: Queue>(&mut self, env: &mut Env<'_, Q>, segment: &Segment, distance: i32) -> bool {
        let old = distance < 0 && segment.payload_len() > 0;
        if old {
            self.report_old(env, segment, distance);
            self.repeat_ack(env);
        }
        old
    }

    /// Acknowledges what was acknowledged before: now, while each such segment means something to the peer.
    fn repeat_ack<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        if self.rx.acks.repeat() || self.rx.owes_report() {
            // Without a frame it goes with the next flush.
            let _ = self.send_ack(env);
        }
    }

    /// Hands smoltcp what waits for it, as far as its ring has room.
    pub(super) fn hand_on<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        while self.rx.is_waiting() {
            let fed = self.rx.fed;
            let end = self.rx.held.end_of_run(&env.world.hold, fed);
            let room = self.ring_room(env, (end - fed).max(1));
            if room == 0 {
                return;
            }
            if end > fed {
                self.feed_held(env, (end - fed).min(room));
                self.rx.held.release_to(&mut env.world.hold, self.rx.fed);
            } else if self.rx.fin_is_next() {
                self.feed_fin(env.world);
            }
            if self.rx.fed == fed {
                debug_assert!(false, "smoltcp takes what is in order and in its window");
                return;
            }
        }
    }

    /// Room in smoltcp's ring, bytes; it is asked for a later edge when `wanted` would not fit.
    fn ring_room<Q: Queue>(&mut self, env: &mut Env<'_, Q>, wanted: u64) -> u64 {
        if self.rx.ring_room() < wanted && self.rx.edge_lags() {
            self.ask_for_edge(env);
        }
        self.rx.ring_room()
    }

    /// Feeds `len` held bytes, or as many as a packet carries.
    fn feed_held<Q: Queue>(&mut self, env: &mut Env<'_, Q>, len: u64) {
        let world = &mut *env.world;
        let Some(ack) = self.open_machine(world) else { return };
        let (seq, fed) = (self.rx.machine_seq(), self.rx.fed);
        let len = len.min(32 * 1024) as usize;
        let Some(header) = wire::text_header(&self.key, seq, ack, len, &mut world.plain) else { return };
        let mut done = 0;
        while done < len {
            let chunk = self.rx.held.chunk_at(&world.hold, fed + done as u64, len - done);
            if chunk.is_empty() {
                break;
            }
            world.plain[header + done..][..chunk.len()].copy_from_slice(chunk);
            done += chunk.len();
        }
        let reply = world.machine.feed(&mut self.unit, &world.plain[..header + len]);
        world.counters.rx_handed_on += 1;
        self.after_feed(world, reply);
    }

    /// Feeds the part `cut` of a segment's payload, which is what smoltcp expects next, from where it lies.
    fn feed_frame<Q: Queue>(&mut self, env: &mut Env<'_, Q>, segment: &Segment, frame: &mut [u8], cut: &Cut) {
        let Some(ack) = self.open_machine(env.world) else { return };
        let (lead, end) = if segment.plain {
            (segment.ip_at as usize, segment.payload_at as usize + cut.front + cut.len)
        } else {
            let whole = wire::plain_copy(frame, segment, &mut env.world.plain).unwrap_or(0);
            let behind = segment.payload_len() - cut.front - cut.len;
            (0, whole.saturating_sub(behind))
        };
        let bytes = if segment.plain { frame } else { &mut env.world.plain[..] };
        let Some(packet) = bytes.get_mut(lead..end) else { return };
        let Some(packet) = rewrite(packet, cut, self.rx.machine_seq(), ack) else { return };
        let reply = env.world.machine.feed(&mut self.unit, packet);
        self.after_feed(env.world, reply);
    }
}

/// Makes the packet one that smoltcp takes: `packet` ends where the passed payload ends; its IP header is at the start and
/// carries no options. With `cut.front` or TCP options, which say nothing here and of which smoltcp would take a senseless
/// one for a reason to drop the text, the headers move up to the payload that is left. Checksums are not touched:
/// smoltcp's are off.
fn rewrite<'p>(packet: &'p mut [u8], cut: &Cut, seq: u32, ack: u32) -> Option<&'p mut [u8]> {
    let tcp_at = if packet.first()? >> 4 == 4 { 20 } else { 40 };
    let skip = packet.len().checked_sub(tcp_at + 20 + cut.len)?;
    if skip > 0 {
        packet.copy_within(..tcp_at + 20, skip);
    }
    let packet = packet.get_mut(skip..)?;
    if skip > 0 || !cut.whole {
        let total = packet.len();
        if tcp_at == 20 {
            packet.get_mut(2..4)?.copy_from_slice(&(total.min(65_535) as u16).to_be_bytes());
        } else {
            packet.get_mut(4..6)?.copy_from_slice(&((total - 40).min(65_535) as u16).to_be_bytes());
        }
    }
    let tcp: &mut [u8; 20] = packet.get_mut(tcp_at..)?.first_chunk_mut()?;
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = Flags::ACK.0;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    Some(packet)
}
