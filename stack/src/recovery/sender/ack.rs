//! What an acknowledgement does to a sender.

use super::super::repair::Frto;
use super::super::scoreboard::Run;
use super::{Mode, Newest, Sender, Tail};
use crate::Instant;

/// An acceptable acknowledgement, as the gate has read it. All numbers are stream offsets, bytes or microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ack<'a> {
    /// It acknowledges everything below this offset. The caller has made sure that it is at most
    /// [`nxt`](Sender::nxt); an older one than [`una`](Sender::una) is fine.
    pub ack: u64,
    /// The peer's window, bytes, scaled; `None` when SND.WL1 and SND.WL2 say that the segment is too old to update it.
    pub window: Option<u64>,
    /// The segment has no payload, no SYN and no FIN.
    pub pure: bool,
    /// The blocks of the SACK option (RFC 2018) in their order, as offsets: left edge and the first offset behind the
    /// block. A duplicate report (RFC 2883) is recognized here, and so is what makes no sense. Blocks that began before
    /// offset 0 are left out.
    pub sack: &'a [(u64, u64)],
    /// When the segment was sent whose timestamp this one echoes (TSecr, RFC 7323), on our clock and rounded down to
    /// [`ECHO_GRAIN_US`]. `None` without timestamps.
    pub echoed: Option<Instant>,
    /// The ECE flag was set, on a connection that negotiated ECN (RFC 3168).
    pub ece: bool,
}

/// Grain of the timestamps that we send, microseconds: [`Ack::echoed`] is a whole multiple of it, counted from our clock's
/// epoch. RFC 7323 5.4 wants 1 ms to 1 s.
pub const ECHO_GRAIN_US: u64 = 1000;

/// What an acknowledgement did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AckOutcome {
    /// Bytes (our FIN counts as one) that it acknowledged for the first time.
    pub newly_acked: u64,
    /// It is a duplicate: in the sense of RFC 5681 2, or with SACK of RFC 6675 2.
    pub duplicate: bool,
    /// It made the sender enter fast retransmit.
    pub fast_retransmit: bool,
    /// It showed that the last reduction of the window had no reason, which was taken back.
    pub undone: bool,
    /// The same of the reduction before that one.
    pub undone_earlier: bool,
    /// The peer's window, as far as it reaches into the stream, is not the one known before.
    pub window_changed: bool,
}

/// Least wait before a peer that takes SACK back is taken at its word, microseconds (Linux: `tcp_check_sack_reneging`).
const RENEGED_US: u64 = 10_000;

/// What one acknowledgement delivers, while it is read.
struct Delivery {
    now: Instant,
    echoed: Option<Instant>,
    least_rtt_us: u32,
    fack: u64,
    recover: u64,
    newest: Newest,
    /// It is of this acknowledgement.
    news: bool,
    /// End of what was delivered.
    highest: u64,
    bytes: u64,
    /// When the oldest acknowledged, and the oldest reported, went out; only of what went out once.
    acked_sent: Option<Instant>,
    sacked_sent: Option<Instant>,
    /// Something that went out once arrived behind what went out later.
    reordered: bool,
    /// Something arrived that went out once, before the current reduction began.
    original: bool,
    /// Something was acknowledged that went out more than once.
    resent: bool,
}

impl Delivery {
    fn take(&mut self, run: &Run, acked: bool) {
        let (now, end) = (self.now, run.end());
        self.bytes += u64::from(run.len);
        self.highest = self.highest.max(end);
        let rtt_us = now.micros_since(run.sent).min(u64::from(u32::MAX)) as u32;
        if run.resent {
            self.resent |= acked;
            // RFC 8985 6.2 step 2: which copy was it? Too early for the second, or the timestamp says so.
            let first = self.echoed.is_some_and(|at| at.micros() + ECHO_GRAIN_US <= run.sent.micros());
            if rtt_us < self.least_rtt_us || first {
                return;
            }
        } else {
            self.reordered |= end <= self.fack;
            self.original |= end <= self.recover;
            let sent = if acked { &mut self.acked_sent } else { &mut self.sacked_sent };
            sent.get_or_insert(run.sent);
        }
        if (run.sent, end) > (self.newest.sent, self.newest.end) {
            self.newest = Newest { sent: run.sent, end, rtt_us };
            self.news = true;
        }
    }
}

/// How often doublings are taken back without a measurement.
const FORGIVEN_MAX: u8 = 8;

impl Sender {
    /// An acceptable acknowledgement came.
    #[inline]
    pub fn on_ack(&mut self, now: Instant, news: &Ack<'_>) -> AckOutcome {
        debug_assert!(news.ack <= self.nxt, "acknowledges what was never sent");
        let ack = news.ack.min(self.nxt);
        if ack < self.una {
            return self.on_old_ack(now, news);
        }
        let known = self.window;
        if let Some(window) = news.window {
            self.take_window(window);
        }
        let mut outcome = AckOutcome {
            newly_acked: ack - self.una,
            window_changed: self.window != known || ack > self.una,
            ..AckOutcome::default()
        };
        if news.sack.is_empty() && !news.ece && self.window > 0 && self.is_quiet() {
            if ack > self.una {
                self.on_plain_ack(now, ack, news.echoed);
                return outcome;
            }
            if self.is_idle() {
                return outcome;
            }
        }
        self.on_careful_ack(now, &Ack { ack, ..*news }, known, &mut outcome);
        outcome
    }

    /// An acknowledgement that a later one has overtaken: the blocks that it reports count (Linux: `tcp_ack`, `old_ack`), above
    /// all a duplicate, which is reported once.
    #[cold]
    fn on_old_ack(&mut self, now: Instant, news: &Ack<'_>) -> AckOutcome {
        let mut outcome = AckOutcome::default();
        if self.sack && !news.sack.is_empty() && !self.is_idle() {
            let news = Ack { window: None, pure: false, echoed: None, ece: false, ..*news };
            self.on_careful_ack(now, &news, self.window, &mut outcome);
        }
        outcome
    }

    /// Whether an ACK that only moves `una` has nothing else to be looked at.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.mode == Mode::Open
            && self.board.is_plain()
            && self.tail == Tail::Quiet
            && !self.probing
            && self.dup_acks == 0
            && self.left == 0
    }

    #[inline]
    fn on_plain_ack(&mut self, now: Instant, ack: u64, echoed: Option<Instant>) {
        let (acked, limited) = (ack - self.una, self.una < self.limited_to);
        let (oldest, newest) = self.board.ack_plain(ack);
        self.una = ack;
        let rtt_us = now.micros_since(newest.sent).min(u64::from(u32::MAX)) as u32;
        if !newest.resent {
            self.rtt.note_least(now, rtt_us);
            self.newest = Newest { sent: newest.sent, end: ack, rtt_us };
        }
        if let Some(sent) = oldest.or_else(|| echoed.filter(|_| !self.is_backdated())) {
            self.measured(now.micros_since(sent));
        }
        if limited {
            self.grow(now, acked, Some(rtt_us));
        }
        self.moved_on(now);
    }

    /// What every ACK does that moves `una`.
    #[inline]
    fn moved_on(&mut self, now: Instant) {
        if self.unanswered > 0 && self.backoffs > 0 {
            self.forgive();
        }
        self.unanswered = 0;
        self.probes = 0;
        self.dup_acks = 0;
        self.progress_at = now;
        if self.sack || self.mode != Mode::Recovery {
            self.base = now;
        }
        if self.is_idle() {
            self.timer = Instant::FAR_FUTURE;
            self.reorder_at = Instant::FAR_FUTURE;
        } else if !self.probing {
            self.arm(now);
        }
    }

    #[inline]
    fn measured(&mut self, rtt_us: u64) {
        self.rtt.sample(rtt_us);
        self.backoffs = 0;
        self.forgiven = 0;
    }

    fn grow(&mut self, now: Instant, delivered: u64, rtt_us: Option<u32>) {
        if let Some(rtt_us) = rtt_us
            && self.congestion.watches_round_trips()
        {
            let paths_least = self.rtt.least();
            self.congestion.on_round_trip(now, rtt_us, paths_least, self.una, self.nxt);
        }
        let srtt_us = self.rtt.srtt().unwrap_or(0) as u32;
        self.congestion.on_delivered(now, delivered, self.mss(), srtt_us);
    }

    /// Progress after a timeout, which measures nothing: the ACK may be that of the first copy (Karn). If it is, the round
    /// trip has outgrown the timeout, and only a doubled timeout lets a segment live long enough to be measured. If it
    /// is not, a lossy path would crawl from one doubled timeout to the next. So the doublings are taken back a few times;
    /// from then on they stay, and grow, until there is a measurement.
    fn forgive(&mut self) {
        if self.forgiven < FORGIVEN_MAX {
            self.forgiven += 1;
            self.backoffs = 0;
        }
    }

    /// Any acknowledgement that says more than that the next bytes arrived.
    fn on_careful_ack(&mut self, now: Instant, news: &Ack<'_>, known: u32, outcome: &mut AckOutcome) {
        self.board.settle();
        let news = &Ack { echoed: news.echoed.filter(|_| !self.is_backdated()), ..*news };
        let (was, limited, repairs) = (self.una, self.una < self.limited_to, self.mode);
        let (dsack, mut delivery) = self.read(now, news);
        let advanced = self.una > was;
        outcome.duplicate = !advanced && news.pure && !self.is_idle() && !self.probing && {
            let plain = news.window.is_some() && self.window == known && self.window > 0;
            if self.sack { delivery.bytes > 0 || plain && dsack.is_none() } else { plain }
        };
        self.learn(now, news, &delivery, dsack, advanced);
        if !self.sack {
            delivery.bytes = self.guess_delivered(was, advanced, outcome.duplicate);
        }
        self.judge_tail(news, dsack, advanced, outcome.duplicate);
        if let Some((left, right)) = dsack {
            outcome.undone_earlier = self.reconsider_earlier(left, right);
        }
        outcome.undone = self.reconsider(news, &delivery, dsack, advanced, outcome.duplicate);
        if advanced {
            self.end_of_repair();
        }
        let lost = if self.sack { self.detect(now) } else { self.lose_by_counting(now, advanced, outcome.duplicate) };
        outcome.fast_retransmit = lost > 0 && self.start_recovery(delivery.bytes);
        let reduced = news.ece && self.on_ece(delivery.bytes);
        // What ends a reduction has been counted by it.
        if !reduced && (self.mode != Mode::Open || matches!(repairs, Mode::Open | Mode::Loss) && !outcome.undone) {
            self.move_window(now, &delivery, limited, advanced, lost == 0);
        }
        if self.board.lost() > 0 {
            self.seek_lost();
        }
        self.after_careful_ack(now, advanced);
    }

    /// Enters what the acknowledgement says into the scoreboard; splits off a duplicate report (RFC 2883 4).
    fn read<'a>(&mut self, now: Instant, news: &Ack<'a>) -> (Option<(u64, u64)>, Delivery) {
        // An old one says nothing about what came since, but what it reports as received twice lies below its own number.
        let (own, ack, nxt) = (news.ack, news.ack.max(self.una), self.nxt);
        let (fack, recover) = self.repair.as_deref().map_or((self.una, 0), |r| (r.fack.max(self.una), r.recover));
        let mut delivery = Delivery {
            now,
            echoed: news.echoed,
            least_rtt_us: self.rtt.least(),
            fack,
            recover,
            newest: self.newest,
            news: false,
            highest: ack,
            bytes: 0,
            acked_sent: None,
            sacked_sent: None,
            reordered: false,
            original: false,
            resent: false,
        };
        let (dsack, blocks) = match news.sack {
            [(left, right), rest @ ..] if left < right && *right <= own => (Some((*left, *right)), rest),
            [(left, right), rest @ ..] if matches!(rest, [(l, r), ..] if l <= left && right <= r && left < right) => {
                (Some((*left, *right)), rest)
            }
            blocks => (None, blocks),
        };
        self.board.ack(ack, |run| delivery.take(run, true));
        self.una = ack;
        for (left, right) in blocks {
            if self.sack && *left >= ack && left < right && *right <= nxt {
                self.board.sack(*left, *right, |run| delivery.take(run, false));
            }
        }
        (dsack.filter(|_| self.sack), delivery)
    }

    /// Round trips, reordering, and who was heard of.
    fn learn(&mut self, now: Instant, news: &Ack<'_>, delivery: &Delivery, dsack: Option<(u64, u64)>, advanced: bool) {
        let (una, nxt) = (self.una, self.nxt);
        if delivery.bytes > 0 || dsack.is_some() {
            let repair = self.repair();
            repair.fack = repair.fack.max(delivery.highest);
            repair.reordering.seen |= delivery.reordered;
            if dsack.is_some() {
                repair.reordering.on_dsack(una, nxt);
            }
        }
        if delivery.news {
            self.newest = delivery.newest;
            self.rtt.note_least(now, self.newest.rtt_us);
        }
        // RFC 6298 3: an ACK that covers what went out twice measures nothing, unless its timestamp does.
        let acked = delivery.acked_sent.filter(|_| !delivery.resent);
        let echoed = news.echoed.filter(|_| advanced);
        if let Some(sent) = acked.or(delivery.sacked_sent).or(echoed) {
            self.measured(now.micros_since(sent));
        }
        if advanced {
            self.moved_on(now);
        }
        if self.probing || self.window == 0 {
            // Whoever answers probes may keep its window closed for as long as it likes (RFC 1122 4.2.2.17).
            self.unanswered = 0;
        }
        if self.window > 0 && self.probing {
            self.window_opened(now);
        }
    }

    /// Without SACK: what an ACK must have delivered. Each duplicate stands for a segment that has left the network
    /// (RFC 6582 3.2), and what they stood for is not new when it is acknowledged.
    fn guess_delivered(&mut self, was: u64, advanced: bool, duplicate: bool) -> u64 {
        let mss = u64::from(self.mss);
        if advanced {
            let acked = self.una - was;
            return acked.saturating_sub(u64::from(self.left)).max(mss.min(acked));
        }
        if duplicate && self.mode != Mode::Loss { mss } else { 0 }
    }

    /// RFC 8985 7.4: what the acknowledgement says of a probe for the tail.
    fn judge_tail(&mut self, news: &Ack<'_>, dsack: Option<(u64, u64)>, advanced: bool, duplicate: bool) {
        let Tail::Out(end, again) = self.tail else {
            if advanced {
                self.tail = Tail::Quiet;
            }
            return;
        };
        if self.una < end {
            return;
        }
        if !again || dsack.is_some_and(|(_, right)| right == end) {
            // A new segment was acknowledged, or both copies arrived.
            self.tail = Tail::Quiet;
        } else if self.una > end {
            // Only the probe arrived: one segment was lost, and repaired by the way.
            self.tail = Tail::Quiet;
            if self.mode == Mode::Open {
                self.congestion.reduce(self.pipe(), self.mss());
                self.congestion.set_cwnd(u64::from(self.ssthresh()), self.mss());
                self.cwr = true;
            }
        } else if duplicate || !advanced && news.sack.is_empty() {
            self.tail = Tail::Quiet;
        }
    }

    /// Whether the last reduction was wrong; takes it back.
    fn reconsider(
        &mut self,
        news: &Ack<'_>,
        delivery: &Delivery,
        dsack: Option<(u64, u64)>,
        advanced: bool,
        duplicate: bool,
    ) -> bool {
        let (nxt, more, sack) = (self.nxt, self.has_new(), self.sack);
        let (mode, una) = (self.mode, self.una);
        let Some(repair) = self.repair.as_deref_mut() else { return false };
        let mut wrong = false;
        let first = advanced && mode != Mode::Open && repair.precedes_resent(news.echoed, ECHO_GRAIN_US);
        if let Some(undo) = &mut repair.undo {
            wrong = first || dsack.is_some_and(|(left, right)| undo.duplicated(left, right));
        }
        repair.note_acked(una);
        if mode == Mode::Loss && repair.frto != Frto::Off {
            // RFC 5682 3.1, with SACK 4: what went out once and arrives now was not lost. Without SACK it may have been
            // there for long, when the ACK also covers what went out again.
            wrong |= delivery.original && (sack || !delivery.resent);
            let reported = delivery.sacked_sent.is_some() || duplicate;
            repair.frto = match repair.frto {
                // 3a: the new data drew duplicates, the loss was real.
                Frto::SendsNew if reported => Frto::Off,
                Frto::Watching if advanced && una < repair.recover && more => Frto::SendsNew,
                Frto::Watching if advanced => Frto::Off,
                Frto::SendsNew if nxt > repair.recover => Frto::Off,
                other => other,
            };
        }
        if wrong {
            self.take_back();
        }
        wrong
    }

    /// Moves the congestion window: by PRR while it comes down, else by growth. What arrives out of order counts for
    /// growth only where reordering is known (Linux: `tcp_may_raise_cwnd`).
    fn move_window(&mut self, now: Instant, delivery: &Delivery, limited: bool, advanced: bool, whole: bool) {
        if delivery.bytes == 0 {
            return;
        }
        match self.mode {
            Mode::Open if limited && (advanced || self.reorders()) => {
                // What fills a hole measures the hole, and what was measured before may be of an earlier round.
                let rtt_us = delivery.news.then_some(delivery.newest.rtt_us);
                self.grow(now, delivery.bytes, rtt_us);
            }
            Mode::Open => {}
            Mode::Loss => {
                let srtt_us = self.rtt.srtt().unwrap_or(0) as u32;
                self.congestion.on_delivered(now, delivery.bytes, self.mss(), srtt_us);
            }
            Mode::Reduction | Mode::Recovery => self.reduce_proportionally(delivery.bytes, advanced && whole),
        }
    }

    fn reorders(&self) -> bool {
        self.repair.as_deref().is_some_and(|repair| repair.reordering.seen)
    }

    fn after_careful_ack(&mut self, now: Instant, advanced: bool) {
        if self.is_idle() || self.probing {
            return;
        }
        if self.sack && self.head_is_sacked() {
            // RFC 2018 8: it does not acknowledge what it reported. Unless that changes soon, it has dropped it.
            let wait_us = (self.rtt.srtt().unwrap_or(0) / 2).max(RENEGED_US);
            self.tail_timer = false;
            self.timer = self.timer.min(now.plus_micros(wait_us));
        } else if advanced && (self.sack || self.mode != Mode::Recovery) {
            self.arm(now);
        } else if !self.sack && self.mode == Mode::Recovery {
            self.timer = self.base.plus_micros(self.rto_us()).max(now.plus_micros(1));
        } else if self.tail_timer && !self.board.is_plain() {
            self.arm(now);
        }
    }
}
