//! What is in flight and what became of it: the scoreboard (RFC 6675 3), in ranges instead of one record per segment.

use crate::Instant;
use std::collections::VecDeque;

/// Runs beyond which nothing is split any more for a SACK block, and what is sent at different instants shares a run. A
/// window of 4 MiB in full segments stays below it whatever the peer reports.
pub(super) const RUNS_MAX: usize = 8192;
/// Fewer are kept for little data: these, and one for so many bytes in flight. Nobody with segments of that size sees it;
/// a peer that asks for tiny ones may not make us remember more about its data than the data itself.
const RUNS_MIN: usize = 64;
const BYTES_FOR_RUN: u64 = 256;

/// Runs that are looked at for one that was sent once.
const FIRST_SENT_RUNS: usize = 16;

/// What is believed of the bytes of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// On its way.
    Flying,
    /// Received, says a SACK block; the peer may take that back (RFC 2018 8).
    Sacked,
    /// Lost, and not sent again since.
    Lost,
}

/// Bytes that follow each other, went out at one instant and share one fate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) start: u64,
    /// When it went out, the last time.
    pub(super) sent: Instant,
    pub(super) len: u32,
    /// Payload bytes of its segments; the last one may be shorter.
    pub(super) segment: u16,
    pub(super) state: State,
    /// It went out more than once.
    pub(super) resent: bool,
}

impl Run {
    const NONE: Run = Run { start: 0, sent: Instant::ZERO, len: 0, segment: 1, state: State::Flying, resent: false };

    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }

    /// The part of `left..right` in this run, cut down to whole segments: an honest peer reports nothing else, and a
    /// hostile one gets no finer grain than what it was sent. `cut` bytes of the first segment lie before the run.
    fn whole_segments(&self, cut: u16, left: u64, right: u64) -> (u64, u64) {
        let from = if left <= self.start { self.start } else { self.border_from(cut, left) };
        let (grain, cut) = (u64::from(self.segment), u64::from(cut));
        let to = if right >= self.end() { self.end() } else { right - (right - self.start + cut) % grain };
        (from, to)
    }

    /// Where the first of its segments begins that does not begin before `at`, which lies behind the run's start.
    fn border_from(&self, cut: u16, at: u64) -> u64 {
        let (grain, cut) = (u64::from(self.segment), u64::from(cut));
        self.start + (at - self.start + cut).next_multiple_of(grain) - cut
    }

    /// Whether its last segment is a full one.
    fn ends_whole(&self, cut: u16) -> bool {
        (self.len + u32::from(cut)).is_multiple_of(u32::from(self.segment))
    }

    /// Takes off what lies below `ack`, which the run holds; how much of its first segment has gone then.
    fn trim(&mut self, cut: u16, ack: u64) -> u16 {
        let gone = (ack - self.start) as u32;
        self.start = ack;
        self.len -= gone;
        ((u32::from(cut) + gone) % u32::from(self.segment)) as u16
    }

    /// Whether `next` can be joined to this run without a loss that matters.
    fn joins(&self, cut: u16, next: &Run) -> bool {
        if self.end() != next.start || self.state != next.state || self.len.checked_add(next.len).is_none() {
            return false;
        }
        let alike = self.sent == next.sent && self.resent == next.resent && self.segment == next.segment;
        // Of what was received it only matters that it was. For the others, a short segment ends the run.
        self.state == State::Sacked || alike && self.ends_whole(cut)
    }
}

/// The runs from `una` to `nxt`, without gaps.
#[derive(Clone, Debug)]
pub(super) struct Scoreboard {
    runs: VecDeque<Run>,
    /// The newest run, outside of the queue: who asks and answers in turn never touches the queue. Empty or `Flying`.
    tail: Run,
    /// Bytes of the oldest run's first segment that are acknowledged: what is left of it begins where no segment did.
    cut: u16,
    /// Bytes in runs that are `Sacked`.
    sacked: u32,
    /// Bytes in runs that are `Lost`.
    lost: u32,
}

impl Scoreboard {
    pub(super) const fn new() -> Self {
        Scoreboard { runs: VecDeque::new(), tail: Run::NONE, cut: 0, sacked: 0, lost: 0 }
    }

    #[inline]
    pub(super) fn sacked(&self) -> u32 {
        self.sacked
    }

    #[inline]
    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    /// Nothing is received out of order and nothing is lost, as far as is known.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.sacked | self.lost == 0
    }

    /// Bytes of the first segment of run `i` that are acknowledged; the newest run comes behind all others.
    fn cut(&self, i: usize) -> u16 {
        if i == 0 { self.cut } else { 0 }
    }

    /// How many runs the bytes in flight may be kept in, the newest one not counted.
    fn runs_allowed(&self) -> usize {
        let start = self.runs.front().map_or(self.tail.start, |run| run.start);
        let end = self.runs.back().map_or(0, Run::end).max(self.tail.end());
        RUNS_MAX.min(RUNS_MIN + (end.saturating_sub(start) / BYTES_FOR_RUN) as usize)
    }

    /// `len` bytes went out for the first time.
    #[inline]
    pub(super) fn push(&mut self, now: Instant, start: u64, len: u32, segment: u16) {
        let crowded = self.runs.len() >= RUNS_MIN && self.runs.len() >= self.runs_allowed();
        let cut = self.cut(self.runs.len());
        let tail = &mut self.tail;
        if tail.len == 0 {
            *tail = Run { start, sent: now, len, segment, ..Run::NONE };
            return;
        }
        let whole = tail.sent == now && tail.segment == segment && tail.ends_whole(cut);
        if whole || crowded {
            // Beyond the limit the older part counts as sent now, which only defers the judgement of it.
            tail.len += len;
            tail.sent = now;
        } else {
            self.runs.push_back(*tail);
            *tail = Run { start, sent: now, len, segment, ..Run::NONE };
        }
    }

    /// Everything below `ack` is acknowledged, and all of the scoreboard is plain. Returns when the oldest run of it was
    /// sent, if all of it was sent once, and the newest one.
    #[inline]
    pub(super) fn ack_plain(&mut self, ack: u64) -> (Option<Instant>, Run) {
        debug_assert!(self.is_plain());
        if !self.runs.is_empty() {
            return self.ack_queue(ack);
        }
        let whole = self.tail;
        self.trim_tail(ack);
        ((!whole.resent).then_some(whole.sent), whole)
    }

    fn ack_queue(&mut self, ack: u64) -> (Option<Instant>, Run) {
        let (mut oldest, mut newest, mut once) = (None, Run::NONE, true);
        while let Some(run) = self.runs.front_mut()
            && run.start < ack
        {
            oldest.get_or_insert(run.sent);
            once &= !run.resent;
            newest = *run;
            if run.end() > ack {
                self.cut = run.trim(self.cut, ack);
                return (oldest.filter(|_| once), newest);
            }
            self.runs.pop_front();
            self.cut = 0;
        }
        if self.tail.start < ack {
            oldest.get_or_insert(self.tail.sent);
            newest = self.tail;
            self.trim_tail(ack);
        }
        (oldest.filter(|_| once), newest)
    }

    #[inline]
    fn trim_tail(&mut self, ack: u64) {
        if ack >= self.tail.end() {
            (self.tail.len, self.cut) = (0, 0);
        } else if ack > self.tail.start {
            self.cut = self.tail.trim(self.cut, ack);
        }
    }

    /// Puts everything into the queue, where all that follows looks for it.
    pub(super) fn settle(&mut self) {
        if self.tail.len > 0 {
            self.runs.push_back(self.tail);
            self.tail.len = 0;
        }
    }

    /// Everything below `ack` is acknowledged. `each` sees what had not been reported before, oldest offset first.
    pub(super) fn ack(&mut self, ack: u64, mut each: impl FnMut(&Run)) {
        debug_assert!(self.tail.len == 0);
        while let Some(run) = self.runs.front_mut()
            && run.start < ack
        {
            let mut part = *run;
            part.len = (ack.min(run.end()) - run.start) as u32;
            self.cut = run.trim(self.cut, part.end());
            match part.state {
                State::Flying => {}
                State::Sacked => self.sacked -= part.len,
                State::Lost => self.lost -= part.len,
            }
            if part.state != State::Sacked {
                each(&part);
            }
            if run.len == 0 {
                self.runs.pop_front();
                self.cut = 0;
            }
        }
    }

    /// The peer has `left..right`. `each` sees what had not been reported before.
    pub(super) fn sack(&mut self, left: u64, right: u64, mut each: impl FnMut(&Run)) {
        debug_assert!(self.tail.len == 0);
        let allowed = self.runs_allowed();
        let mut i = self.find(left);
        while let Some(run) = self.runs.get(i)
            && run.start < right
        {
            let (from, to) = run.whole_segments(self.cut(i), left, right);
            let splits = from > run.start || to < run.end();
            if run.state == State::Sacked || from >= to || splits && self.runs.len() + 2 > allowed {
                i += 1;
                continue;
            }
            let part = Run { start: from, len: (to - from) as u32, ..*run };
            each(&part);
            i = self.put(i, Run { state: State::Sacked, ..part }) + 1;
        }
    }

    /// `len` bytes from `start` went out again. What of them was received in the meantime stays so.
    pub(super) fn resend(&mut self, now: Instant, start: u64, len: u64, segment: u16) {
        debug_assert!(self.tail.len == 0);
        let end = start + len;
        let mut i = self.find(start);
        while let Some(&run) = self.runs.get(i)
            && run.start < end
        {
            let (from, to) = (run.start.max(start), run.end().min(end));
            if run.state == State::Sacked || from >= to {
                i += 1;
                continue;
            }
            self.keep_border(i, to);
            let len = (to - from) as u32;
            if i == 0 && from == run.start {
                self.cut = 0;
            }
            i = self.put(i, Run { start: from, sent: now, len, segment, state: State::Flying, resent: true }) + 1;
        }
    }

    /// Marks run `i` as lost, all of it; returns its index, which joining may have changed.
    pub(super) fn lose(&mut self, i: usize) -> usize {
        let run = self.runs[i];
        self.put(i, Run { state: State::Lost, ..run })
    }

    /// Marks as lost what `which` names of all that is flying. Returns how many bytes these are.
    pub(super) fn lose_where(&mut self, which: impl Fn(&Run) -> bool) -> u32 {
        self.settle();
        let before = self.lost;
        for run in self.runs.iter_mut().filter(|run| run.state == State::Flying && which(run)) {
            run.state = State::Lost;
            self.lost += run.len;
        }
        self.lost - before
    }

    /// Marks as lost what is flying of `from..to`.
    pub(super) fn lose_range(&mut self, from: u64, to: u64) {
        let mut i = self.find(from);
        while let Some(&run) = self.runs.get(i)
            && run.start < to
        {
            let (start, end) = (run.start.max(from), run.end().min(to));
            if run.state == State::Flying {
                i = self.put(i, Run { start, len: (end - start) as u32, state: State::Lost, ..run });
            }
            i += 1;
        }
    }

    /// Takes back that anything is lost.
    pub(super) fn lose_nothing(&mut self) {
        for run in self.runs.iter_mut().filter(|run| run.state == State::Lost) {
            run.state = State::Flying;
        }
        self.lost = 0;
    }

    /// Forgets what the peer reported, because it takes it back (RFC 2018 8): it is lost.
    pub(super) fn forget_sacked(&mut self) {
        for run in self.runs.iter_mut().filter(|run| run.state == State::Sacked) {
            run.state = State::Lost;
        }
        self.lost += core::mem::take(&mut self.sacked);
    }

    /// The oldest run.
    pub(super) fn head(&self) -> Option<&Run> {
        self.runs.front().or((self.tail.len > 0).then_some(&self.tail))
    }

    /// The run at an index of [`find`](Self::find).
    pub(super) fn at(&self, i: usize) -> Option<&Run> {
        self.runs.get(i)
    }

    /// Index of the run that holds `offset`; the number of runs when it lies behind all of them.
    pub(super) fn find(&self, offset: u64) -> usize {
        self.runs.partition_point(|run| run.end() <= offset)
    }

    /// When the text in front of `end` went out for the first time. Of what went out again that is not remembered: then when
    /// the text did that follows, a few runs further on at most; nothing before it was sent later.
    pub(super) fn first_sent(&self, end: u64) -> Option<Instant> {
        let runs = self.runs.range(self.find(end - 1)..).take(FIRST_SENT_RUNS);
        runs.chain((self.tail.len > 0).then_some(&self.tail)).find(|run| !run.resent).map(|run| run.sent)
    }

    /// The first run that is lost, looking from `offset` on.
    pub(super) fn first_lost(&self, offset: u64) -> Option<&Run> {
        self.runs.range(self.find(offset)..).find(|run| run.state == State::Lost)
    }

    /// The first bytes that are lost, looking from `offset` on, as start and length: as far as they follow each other, and
    /// no more than needed to fill `most`.
    pub(super) fn lost_stretch(&self, offset: u64, most: u64) -> Option<(u64, u64)> {
        let mut runs = self.runs.range(self.find(offset)..).skip_while(|run| run.state != State::Lost);
        let first = runs.next()?;
        let mut len = u64::from(first.len);
        for run in runs.take_while(|run| run.state == State::Lost) {
            if len >= most {
                break;
            }
            len += u64::from(run.len);
        }
        Some((first.start, len.min(most)))
    }

    /// The last segment that is not known to be received: what a tail loss probe sends again.
    pub(super) fn last_missing(&self) -> Option<(u64, u32)> {
        let queued = || self.runs.iter().rposition(|run| run.state != State::Sacked);
        let i = if self.tail.len > 0 { self.runs.len() } else { queued()? };
        let run = self.runs.get(i).unwrap_or(&self.tail);
        let grain = u32::from(run.segment);
        let len = match (run.len + u32::from(self.cut(i))) % grain {
            0 => grain.min(run.len),
            rest => rest.min(run.len),
        };
        Some((run.end() - u64::from(len), len))
    }

    /// Gives back what a burst of losses made it keep. Only while nothing is in flight.
    pub(super) fn shrink(&mut self) {
        if self.runs.is_empty() && self.runs.capacity() > 64 {
            self.runs.shrink_to(16);
        }
    }

    /// Run `i` is about to lose what lies before `at`: where that is inside of a segment, its rest becomes a run of its own. What
    /// follows goes on beginning where a segment did, and what the peer reports of it can be told.
    fn keep_border(&mut self, i: usize, at: u64) {
        let run = self.runs[i];
        let border = run.border_from(self.cut(i), at);
        if at < border && border < run.end() && self.runs.len() + 2 < self.runs_allowed() {
            self.runs[i].len = (border - run.start) as u32;
            self.runs.insert(i + 1, Run { start: border, len: (run.end() - border) as u32, ..run });
        }
    }

    /// Lays `new` over a part of run `i`, splits and joins as needed; returns the index of the run that holds it then.
    fn put(&mut self, mut i: usize, mut new: Run) -> usize {
        let old = self.runs[i];
        self.count(&old, &new);
        if new.start > old.start {
            self.runs[i].len = (new.start - old.start) as u32;
            i += 1;
            self.runs.insert(i, new);
        } else {
            self.runs[i] = new;
        }
        let cut = self.cut(i);
        if new.end() < old.end() {
            let rest = Run { start: new.end(), len: (old.end() - new.end()) as u32, ..old };
            self.runs.insert(i + 1, rest);
        } else if let Some(next) = self.runs.get(i + 1)
            && new.joins(cut, next)
        {
            new.len += next.len;
            self.runs[i].len = new.len;
            self.runs.remove(i + 1);
        }
        if i > 0 && self.runs[i - 1].joins(self.cut(i - 1), &new) {
            self.runs[i - 1].len += new.len;
            self.runs.remove(i);
            i -= 1;
        }
        i
    }

    fn count(&mut self, old: &Run, new: &Run) {
        for (run, add) in [(old.state, false), (new.state, true)] {
            let sum = match run {
                State::Flying => continue,
                State::Sacked => &mut self.sacked,
                State::Lost => &mut self.lost,
            };
            *sum = if add { *sum + new.len } else { *sum - new.len };
        }
    }

    /// What the sums should be, counted afresh; and that the runs follow each other.
    #[cfg(test)]
    pub(super) fn audit(&self, una: u64, nxt: u64) {
        let (mut at, mut sacked, mut lost) = (una, 0, 0);
        for run in self.runs.iter().chain((self.tail.len > 0).then_some(&self.tail)) {
            assert!(run.start == at && run.len > 0 && run.segment > 0, "{run:?} at {at}");
            at = run.end();
            match run.state {
                State::Flying => {}
                State::Sacked => sacked += run.len,
                State::Lost => lost += run.len,
            }
        }
        assert_eq!((at, sacked, lost), (nxt, self.sacked, self.lost), "{self:?}");
    }

    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.runs.len() + usize::from(self.tail.len > 0)
    }
}
