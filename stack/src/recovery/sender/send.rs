//! What goes out: new data, what is sent again, and what stops both.

use super::super::pacing::Rate;
use super::super::repair::Frto;
use super::{Mode, Sender, State, Tail};
use crate::Instant;

/// Most bytes that are named at once for sending again: what a device cuts into segments.
const STRETCH_MAX: u64 = 65_536;

impl Sender {
    /// Bytes of new data that congestion window, peer window and pacing let go now. `unsent`: payload bytes that wait
    /// behind [`nxt`](Self::nxt); `fin`: our FIN waits behind them, and it counts as one byte in the answer, after the
    /// payload.
    ///
    /// Silly window avoidance (RFC 9293 3.8.6.2.1, without Nagle): a segment shorter than the MSS goes only if it is all
    /// there is, or is at least half of the largest window the peer ever offered. 0 as long as something lost must be
    /// sent again first. Ask again after each [`sent`](Self::sent): with pacing the answer may be a part.
    #[inline]
    pub fn allowance(&mut self, now: Instant, unsent: u64, fin: bool) -> u64 {
        let all = unsent + u64::from(fin);
        if all == 0 || self.board.lost() > 0 && !self.prefers_new() {
            return 0;
        }
        if self.is_idle() && now.micros_since(self.last_sent) > self.rtt.rto() {
            self.after_idle(now);
        }
        let window = self.usable_window();
        let flight = self.pipe();
        let cwnd = u64::from(self.cwnd());
        let mut room = cwnd.saturating_sub(flight);
        if 2 * flight > cwnd {
            room = self.room_when_busy(now, room);
        }
        // A FIN alone is not held by the congestion window: it is one byte, and it ends the connection's hold on both.
        let usable = if unsent == 0 { window } else { window.min(room) };
        if usable >= unsent {
            return usable.min(all);
        }
        let mss = u64::from(self.mss);
        if usable >= mss {
            usable - usable % mss
        } else if usable > 0 && usable >= u64::from(self.window_max / 2) {
            usable
        } else {
            0
        }
    }

    /// What is left of `room` with a probe for the tail and with pacing.
    #[cold]
    fn room_when_busy(&mut self, now: Instant, room: u64) -> u64 {
        let mss = u64::from(self.mss);
        self.release_at = Instant::FAR_FUTURE;
        if self.tail == Tail::MaySendNew {
            return room.max(mss);
        }
        let Some(rate) = self.rate().filter(|_| room > 0) else { return room };
        match self.pacer.room(now, rate) {
            // Never less than two segments: a timer for each would cost more than it smooths (Linux: sk_pacing_shift).
            Ok(paced) => room.min(paced.max(2 * mss)),
            Err(at) => {
                self.release_at = at;
                0
            }
        }
    }

    /// What the window is spread over; `None` when nothing is paced. What is repaired has PRR or slow start for a clock.
    #[inline]
    fn rate(&self) -> Option<Rate> {
        let srtt_us = self.rtt.srtt()? as u32;
        let doubles = self.cwnd() < self.ssthresh() / 2;
        if self.mode == Mode::Open { Rate::new(self.cwnd(), self.mss(), srtt_us, doubles) } else { None }
    }

    /// New data went out: `len` bytes (FIN included) from `offset`, which is [`nxt`](Self::nxt).
    #[inline]
    pub fn sent(&mut self, now: Instant, offset: u64, len: u64) {
        debug_assert_eq!(offset, self.nxt, "new data starts at nxt");
        debug_assert!(len > 0, "something was sent");
        let first = self.is_idle();
        self.nxt += len;
        self.last_sent = now;
        self.board.push(now, offset, len as u32, self.mss);
        let (cwnd, flight) = (u64::from(self.cwnd()), self.pipe());
        if 2 * flight > cwnd || self.mode != Mode::Open || self.tail != Tail::Quiet {
            self.sent_when_busy(now, len, flight);
        }
        if self.waiting && !self.probing {
            // The window opened by itself: the probe timer makes room for the retransmission timer.
            self.timer = Instant::FAR_FUTURE;
        }
        self.waiting = false;
        if first {
            self.base = now;
            self.progress_at = now;
        }
        if self.probing {
            self.start_timer(now);
        } else if first || self.sack || self.timer == Instant::FAR_FUTURE {
            self.arm(now);
        }
    }

    fn sent_when_busy(&mut self, now: Instant, len: u64, flight: u64) {
        let (mss, cwnd) = (u64::from(self.mss), u64::from(self.cwnd()));
        if flight + mss > cwnd || 2 * flight > cwnd && self.congestion.in_slow_start() {
            self.limited_to = self.nxt;
        }
        if let Some(rate) = self.rate() {
            self.pacer.sent(now, len, rate);
        }
        if self.mode != Mode::Open {
            self.repair().prr.sent(len);
        }
        if self.tail == Tail::MaySendNew {
            self.tail = Tail::Out(self.nxt, false);
        }
    }

    /// What to send again now, as offset and length: one segment, or a run of whole ones that the caller may cut where it
    /// likes. The same answer until [`retransmitted`](Self::retransmitted) is told of it.
    #[inline]
    pub fn next_retransmission(&self) -> Option<(u64, u32)> {
        if self.board.lost() == 0 && self.tail == Tail::Quiet {
            return None;
        }
        self.find_retransmission()
    }

    fn find_retransmission(&self) -> Option<(u64, u32)> {
        if let Tail::Resend(offset, len) = self.tail
            && offset >= self.una
            && offset + u64::from(len) <= self.nxt
        {
            return Some((offset, len.min(self.mss())));
        }
        if self.board.lost() == 0 || self.prefers_new() {
            return None;
        }
        let (start, len) = self.board.lost_stretch(self.repair.as_deref()?.lost_from, STRETCH_MAX)?;
        let mss = u64::from(self.mss);
        let room = u64::from(self.cwnd()).saturating_sub(self.pipe());
        let edge = self.una + u64::from(self.window);
        let fits = len.min(room).min(edge.saturating_sub(start));
        let whole = if fits >= len { len } else { fits - fits % mss };
        // The oldest segment always goes: it is what the peer waits for, and it probes a window that shrank.
        let least = if start == self.una { mss.min(len) } else { 0 };
        match whole.max(least) {
            0 => None,
            len => Some((start, len as u32)),
        }
    }

    /// The instant whose timestamp (RFC 7323) is for `len` bytes from `offset` that go again now: with SACK, when they went
    /// out for the first time, unless a timer has expired.
    ///
    /// RFC 7323 3.2 wants the time of sending. But when text goes again and fills a hole, the peer takes its timestamp for
    /// the most recent one, and PAWS (5.3) drops all that was sent before it and is merely late: at 100 Mbit/s and 5 %
    /// reordering two segments for each one that goes again, at 1 Gbit/s twenty, which must go again in turn. With
    /// timestamps in the order of sequence numbers nothing is older than what the peer has had before it. What is lost is
    /// that an echo tells the copies apart (Eifel); DSACK does, and for timeouts, where it matters most, both do.
    pub fn stamp(&self, now: Instant, offset: u64, len: u64) -> Instant {
        match self.repair.as_deref() {
            Some(repair) if self.sack && self.mode != Mode::Loss && !self.probing && len > 0 => {
                if matches!(self.tail, Tail::Resend(at, _) if at == offset) {
                    return now;
                }
                self.board.first_sent(offset + len).map_or(now, |at| at.max(repair.stamped_at))
            }
            _ => now,
        }
    }

    /// A segment without text went out in front of text that was sent before it, as at a window that shrank.
    pub fn stamped(&mut self, now: Instant) {
        self.repair().stamped_at = now;
    }

    /// Whether an echo may be that of either copy of what went out twice.
    #[inline]
    pub(super) fn is_backdated(&self) -> bool {
        self.repair.as_deref().is_some_and(|repair| repair.backdated)
    }

    /// `len` bytes from `offset` went out again, with the timestamp of [`stamp`](Self::stamp).
    pub fn retransmitted(&mut self, now: Instant, offset: u64, len: u64) {
        debug_assert!(offset >= self.una && offset + len <= self.nxt, "sent again what was not in flight");
        let backdated = self.stamp(now, offset, len) < now;
        self.board.settle();
        self.board.resend(now, offset, len, self.mss);
        self.last_sent = now;
        let reduced = self.mode != Mode::Open;
        if matches!(self.tail, Tail::Resend(at, _) if at == offset) {
            self.tail = Tail::Out(self.nxt, true);
        }
        let repair = self.repair();
        repair.note_resent(offset, offset + len, now);
        if backdated {
            repair.backdated = true;
        } else {
            repair.stamped_at = now;
        }
        if reduced {
            repair.prr.sent(len);
        }
        if let Some(undo) = &mut repair.undo {
            undo.resent(len);
        }
        self.seek_lost();
        if self.sack && offset == self.una && !self.probing && !self.tail_is_out() {
            self.base = now;
            self.arm(now);
        } else {
            self.start_timer(now);
        }
    }

    /// After sending: `unsent` bytes (FIN included) still wait. When nothing is in flight and the window lets none of them
    /// go, this starts the probe timer; else it sees to it that none runs. What waits for another reason (no free frame)
    /// has no timer here.
    #[inline]
    pub fn blocked(&mut self, now: Instant, unsent: u64) {
        self.more = unsent > 0;
        if !self.more {
            self.release_at = Instant::FAR_FUTURE;
        }
        if self.is_idle() {
            self.blocked_when_idle(now, unsent);
        }
    }

    fn blocked_when_idle(&mut self, now: Instant, unsent: u64) {
        let waiting = unsent > 0 && self.window_blocks(unsent);
        if waiting && !self.waiting {
            self.timer = now.plus_micros(self.rtt.backed_off(self.probes.max(self.backoffs)));
            self.tail_timer = false;
        } else if !waiting {
            self.timer = Instant::FAR_FUTURE;
        }
        self.waiting = waiting;
    }

    /// What to send on [`Timeout::Probe`](super::Timeout::Probe): offset and length. From [`una`](Self::una), one byte,
    /// when something is in flight: report it with [`retransmitted`](Self::retransmitted). Else from [`nxt`](Self::nxt),
    /// what the window takes but at least one byte: cut it to what waits (a FIN counts) and report it with
    /// [`sent`](Self::sent).
    pub fn probe(&self) -> (u64, u32) {
        if self.is_idle() { (self.nxt, self.window.clamp(1, self.mss())) } else { (self.una, 1) }
    }

    /// F-RTO (RFC 5682 3.1 step 2b): new data goes before what the timeout declared lost.
    #[inline]
    fn prefers_new(&self) -> bool {
        self.mode == Mode::Loss && self.repair.as_deref().is_some_and(|repair| repair.frto == Frto::SendsNew)
    }

    pub(super) fn tail_is_out(&self) -> bool {
        matches!(self.tail, Tail::Out(..))
    }

    #[cold]
    fn after_idle(&mut self, now: Instant) {
        let timeouts = now.micros_since(self.last_sent) / self.rtt.rto().max(1);
        self.congestion.after_idle(timeouts, self.mss());
        self.board.shrink();
        self.last_sent = now;
    }

    /// With nothing in flight: whether the peer's window, and not ours, holds `unsent` bytes back.
    fn window_blocks(&self, unsent: u64) -> bool {
        let window = self.usable_window();
        window < unsent && window < u64::from(self.mss) && (window == 0 || window < u64::from(self.window_max / 2))
    }

    /// Whether the oldest segment was reported as received and then not acknowledged (RFC 2018 8).
    pub(super) fn head_is_sacked(&self) -> bool {
        self.board.head().is_some_and(|run| run.state == State::Sacked)
    }
}
