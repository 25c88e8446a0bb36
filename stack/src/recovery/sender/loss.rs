//! What counts as lost, what a loss costs, and when that is taken back.

use super::super::prr::Prr;
use super::super::repair::{Frto, Resent};
use super::super::scoreboard::{Run, State};
use super::super::undo::Undo;
use super::{Mode, Newest, Sender, Tail};
use crate::Instant;

impl Newest {
    /// Whether what went out at `sent` and ends at `end` went out before this (RFC 8985 6.2: RACK_sent_after).
    fn follows(&self, sent: Instant, end: u64) -> bool {
        (self.sent, self.end) > (sent, end)
    }
}

/// Duplicate ACKs that mean loss (RFC 5681 3.2).
const DUP_ACKS: u8 = 3;

impl Sender {
    /// RACK (RFC 8985 6.2 step 5): lost is what went out sufficiently before something that arrived. Returns the bytes
    /// newly believed lost; what is merely late sets the reordering timer.
    ///
    /// What went out once is in order of time already; what went out again is kept in its own queue in that order. Each
    /// of both is passed once.
    pub(super) fn detect(&mut self, now: Instant) -> u32 {
        self.reorder_at = Instant::FAR_FUTURE;
        let before = self.board.lost();
        let eager = self.mode != Mode::Open && self.mode != Mode::Reduction || self.board.sacked() > 2 * self.mss();
        let Some(repair) = self.repair.as_deref() else { return 0 };
        let srtt_us = self.rtt.srtt().unwrap_or(0);
        let tolerated_us = repair.reordering.window_us(self.rtt.least(), srtt_us, eager);
        let wait_us = u64::from(self.newest.rtt_us) + tolerated_us;
        let first = self.detect_fresh(now, wait_us);
        let again = self.detect_resent(now, wait_us);
        self.reorder_at = first.min(again);
        self.board.lost() - before
    }

    /// Of what went out once. Returns when the first late run will count as lost.
    fn detect_fresh(&mut self, now: Instant, wait_us: u64) -> Instant {
        let (newest, una) = (self.newest, self.una);
        let Some(repair) = self.repair.as_deref_mut() else { return Instant::FAR_FUTURE };
        repair.fresh_from = repair.fresh_from.max(una);
        let mut i = self.board.find(repair.fresh_from);
        while let Some(&run) = self.board.at(i) {
            if run.state == State::Flying && !run.resent {
                if !newest.follows(run.sent, run.end()) {
                    break;
                }
                let due = run.sent.plus_micros(wait_us);
                if due > now {
                    return due;
                }
                i = self.board.lose(i);
                repair.lost_from = repair.lost_from.min(run.start);
            }
            repair.fresh_from = run.end();
            i += 1;
        }
        Instant::FAR_FUTURE
    }

    /// Of what went out again.
    fn detect_resent(&mut self, now: Instant, wait_us: u64) -> Instant {
        let (newest, una) = (self.newest, self.una);
        let Some(repair) = self.repair.as_deref_mut() else { return Instant::FAR_FUTURE };
        while let Some(&Resent { start, end, sent }) = repair.resent.front() {
            let flies = |run: &Run| run.state == State::Flying && run.resent && run.sent == sent;
            let mut i = self.board.find(start.max(una));
            while let Some(&run) = self.board.at(i)
                && run.start < end
            {
                if flies(&run) {
                    let due = sent.plus_micros(wait_us);
                    if !newest.follows(sent, run.end()) {
                        return Instant::FAR_FUTURE;
                    }
                    if due > now {
                        return due;
                    }
                    i = self.board.lose(i);
                    repair.lost_from = repair.lost_from.min(run.start);
                }
                i += 1;
            }
            repair.resent.pop_front();
        }
        Instant::FAR_FUTURE
    }

    /// The reordering timer: what is late is lost. Says whether anything was.
    pub(super) fn find_late(&mut self, now: Instant) -> bool {
        let lost = self.detect(now);
        if lost == 0 {
            return false;
        }
        if self.start_recovery(0) {
            self.reduce_proportionally(0, false);
        }
        self.seek_lost();
        self.arm(now);
        true
    }

    /// Without SACK: the segment at `una` is lost. Returns its bytes.
    pub(super) fn lose_head(&mut self) -> u32 {
        let len = self.in_flight().min(u64::from(self.mss));
        let before = self.board.lost();
        self.board.lose_range(self.una, self.una + len);
        let una = self.una;
        self.repair().lost_from = una;
        self.board.lost() - before
    }

    /// Without SACK: duplicate ACKs are counted (RFC 5681 3.2, RFC 6582, limited transmit RFC 3042). Returns the bytes that
    /// are newly believed lost.
    pub(super) fn lose_by_counting(&mut self, now: Instant, advanced: bool, duplicate: bool) -> u32 {
        let (mss, in_flight) = (self.mss(), self.in_flight());
        if advanced {
            if self.mode != Mode::Recovery {
                self.left = 0;
                if self.mode == Mode::Loss && self.was_discarded() {
                    self.lose_discarded();
                }
                return 0;
            }
            // A partial acknowledgement: the next segment was lost too. Of what it covers, one segment was the one sent
            // again; the others had been counted.
            self.left = self.left.min(in_flight.saturating_sub(u64::from(mss)) as u32);
            // RFC 6582 4, impatient: only the first one restarts the timer, so that many losses end in slow start.
            let seen = core::mem::replace(&mut self.repair().partial_seen, true);
            if !seen {
                self.base = now;
            }
            return self.lose_head();
        }
        if !duplicate || self.mode == Mode::Loss {
            return 0;
        }
        self.dup_acks = self.dup_acks.saturating_add(1);
        // One segment at least has not left: the one that is missing.
        let most = in_flight.saturating_sub(u64::from(mss)).min(1 << 30) as u32;
        self.left = (self.left + mss).min(most);
        if self.mode == Mode::Recovery {
            return 0;
        }
        if self.dup_acks == 1 {
            self.repair().flight_at_dup = in_flight;
        }
        // RFC 6582 3.2 step 2: duplicates of what a timeout sent again say nothing new.
        let guard = self.repair.as_deref().map_or(0, |repair| repair.guard);
        if self.dup_acks < DUP_ACKS || guard != 0 && self.una <= guard {
            self.left = self.left.min(2 * mss);
            return 0;
        }
        self.base = now;
        self.repair().partial_seen = false;
        self.lose_head()
    }

    /// Without SACK, after a timeout: what went out again has filled a hole, and what went out before it is still missing.
    /// The peer has no place for what comes early, or it was lost too.
    pub(super) fn was_discarded(&self) -> bool {
        !self.sack && self.mode == Mode::Loss && self.board.head().is_some_and(|head| head.sent < self.newest.sent)
    }

    /// Believes lost what [`was_discarded`](Self::was_discarded), all of it: a hole at a time, with new data behind each,
    /// would take a round trip for every segment.
    pub(super) fn lose_discarded(&mut self) {
        let newest = self.newest.sent;
        self.board.lose_where(|run| run.sent < newest);
        let una = self.una;
        self.repair().lost_from = una;
        self.seek_lost();
    }

    /// After a timeout: what went out long enough ago, the oldest in any case (RFC 8985 6.3), and everything when the
    /// peer has taken back what it reported (RFC 2018 8) or reports nothing.
    pub(super) fn lose_after_timeout(&mut self, now: Instant) {
        let una = self.una;
        let wait_us = u64::from(self.newest.rtt_us).max(self.rtt.srtt().unwrap_or(0));
        let all = !self.sack || self.head_is_sacked();
        if all {
            self.board.forget_sacked();
        }
        self.board.lose_where(|run| all || run.start == una || run.sent.plus_micros(wait_us) <= now);
        let repair = self.repair();
        repair.lost_from = una;
        self.seek_lost();
    }

    /// Enters fast recovery for a loss, unless one is being repaired. `delivered`: by the ACK that told of it.
    pub(super) fn start_recovery(&mut self, delivered: u64) -> bool {
        if self.in_recovery() {
            return false;
        }
        if self.mode == Mode::Open {
            self.start_reduction(delivered);
            self.cwr = true;
        }
        let nxt = self.nxt;
        self.repair().recover = nxt;
        self.mode = Mode::Recovery;
        self.tail = Tail::Quiet;
        true
    }

    /// The window must come down: how far, and what PRR needs to bring it there (RFC 9937 6.1).
    fn start_reduction(&mut self, delivered: u64) {
        let mss = self.mss();
        self.begin_undo();
        let flight = self.in_flight() - u64::from(self.board.sacked()) + delivered;
        let outstanding = match self.repair.as_deref() {
            Some(repair) if !self.sack && self.dup_acks > 0 => repair.flight_at_dup,
            _ if self.is_idle() => delivered,
            _ => self.in_flight(),
        };
        self.congestion.reduce(outstanding, mss);
        self.repair().prr = Prr::new(flight);
    }

    /// Remembers the window as it is, in case that what happens next turns out to be wrong.
    pub(super) fn begin_undo(&mut self) {
        let undo = Undo::new(self.congestion, self.una);
        let repair = self.repair();
        if let Some(earlier) = repair.undo.replace(undo)
            && earlier.is_open()
        {
            repair.earlier = Some(earlier);
        }
    }

    /// The peer received `left..right` twice. With reordering the next reduction often comes before the reports that show
    /// that the last one was wrong; what is told of it then counts still.
    pub(super) fn reconsider_earlier(&mut self, left: u64, right: u64) -> bool {
        let mss = self.mss();
        let Some(repair) = self.repair.as_deref_mut() else { return false };
        if !repair.earlier.as_mut().is_some_and(|earlier| earlier.duplicated(left, right)) {
            return false;
        }
        let Some(earlier) = repair.earlier.take() else { return false };
        match &mut repair.undo {
            Some(undo) => {
                undo.before.undo(&earlier.before);
                self.congestion.undo_earlier(&earlier.before, mss);
                if self.mode == Mode::Open {
                    let cwnd = self.cwnd().max(self.ssthresh());
                    self.congestion.set_cwnd(u64::from(cwnd), mss);
                }
            }
            None if self.mode == Mode::Open => self.congestion.undo(&earlier.before),
            // A reduction that cannot be wrong (ECN) is on its way: its end is where it would have been from there.
            None => self.congestion.undo_earlier(&earlier.before, mss),
        }
        true
    }

    /// RFC 3168 6.1.2: a mark costs what a loss costs, at most once for each window of data. Says whether the window is
    /// where it belongs already.
    pub(super) fn on_ece(&mut self, delivered: u64) -> bool {
        // Until something behind the last reduction is acknowledged, the peer may not have seen CWR.
        let told = self.repair.as_deref().is_none_or(|repair| repair.recover == 0 || self.una > repair.recover);
        if self.mode != Mode::Open || !told {
            return false;
        }
        self.start_reduction(delivered);
        let nxt = self.nxt;
        let repair = self.repair();
        repair.recover = nxt;
        repair.undo = None;
        self.mode = Mode::Reduction;
        self.cwr = true;
        if self.is_idle() {
            // Everything has arrived: there is no flight to bring down, only the next one to keep small.
            self.end_of_repair();
        }
        self.mode == Mode::Open
    }

    /// PRR decides what may go out next.
    pub(super) fn reduce_proportionally(&mut self, delivered: u64, safe: bool) {
        let (pipe, ssthresh, mss) = (self.pipe(), u64::from(self.ssthresh()), self.mss());
        let window = self.repair().prr.window(delivered, pipe, ssthresh, safe, u64::from(mss));
        self.congestion.set_cwnd(window, mss);
    }

    /// `una` has moved: is what was sent before the loss complete?
    pub(super) fn end_of_repair(&mut self) {
        let Some(repair) = self.repair.as_deref() else { return };
        if self.mode == Mode::Open || self.una < repair.recover || self.was_discarded() {
            return;
        }
        let recovery = self.mode == Mode::Recovery;
        let repair = self.repair();
        repair.frto = Frto::Off;
        if recovery {
            repair.reordering.on_recovered();
        }
        if self.mode != Mode::Loss {
            self.congestion.set_cwnd(u64::from(self.congestion.ssthresh()), u32::from(self.mss));
        }
        self.mode = Mode::Open;
        self.left = 0;
        self.base = self.progress_at;
    }

    /// The last reduction was wrong: nothing was lost that is not acknowledged by now or on its way.
    pub(super) fn take_back(&mut self) {
        let una = self.una;
        let Some(repair) = self.repair.as_deref_mut() else { return };
        let Some(undo) = repair.undo.take() else { return };
        repair.frto = Frto::Off;
        repair.fresh_from = una;
        repair.lost_from = self.nxt;
        repair.reordering.seen = true;
        self.congestion.undo(&undo.before);
        self.board.lose_nothing();
        // What arrived may have been taken for what went out again: it judges nothing.
        self.newest = Newest { sent: Instant::ZERO, end: 0, rtt_us: 0 };
        self.backoffs = 0;
        self.left = 0;
        self.cwr = false;
        self.mode = Mode::Open;
    }

    /// The window is open after probes: what they carried was mostly refused and must go again.
    pub(super) fn window_opened(&mut self, now: Instant) {
        self.probing = false;
        self.waiting = false;
        self.probes = 0;
        self.timer = Instant::FAR_FUTURE;
        if !self.is_idle() {
            self.board.lose_where(|_| true);
            let una = self.una;
            self.repair().lost_from = una;
            self.seek_lost();
            self.start_timer(now);
        }
    }
}
