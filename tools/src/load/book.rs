//! Who asks when, and how long the answers took: the part of a load that is the same whatever carries it.
//!
//! Connections have numbers: first those that ask, then the idle ones. Times are kept as 32-bit microseconds since the
//! book was opened, two for each request under way, set aside at the start.

use super::cpu;
use super::plan::{Pace, Plan};
use super::tally::{Tally, Trouble};
use anyhow::Result;
use khamsin_stack::Instant;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Refusals without a single success after which nobody is there.
const HOPELESS: u64 = 100;

/// How far a load is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Stage {
    /// Connections are opened; nothing is asked.
    Opening,
    /// Load that is not measured.
    Warm,
    /// Load that is.
    Measure,
    /// Nothing more is asked; what is under way may end.
    Drain,
    /// Idle connections ask once.
    Wake,
    /// Everything may be closed.
    Over,
}

/// What a thread shows of itself while it runs, and what it is told.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Answers so far, measured or not.
    pub answered: AtomicU64,
    /// Connections that are open.
    pub open: AtomicUsize,
    /// Errors so far.
    pub errors: AtomicU64,
    /// The [`Stage`].
    pub stage: AtomicU8,
}

/// What the threads of a load have in common.
#[derive(Debug, Default)]
pub struct Together {
    /// Threads whose connections are all open.
    pub ready: AtomicUsize,
    /// Threads.
    pub threads: usize,
    /// The user has seen enough: measure no longer.
    pub stop: Arc<AtomicBool>,
}

/// When a request was due and when it was sent, microseconds since the epoch of the book.
#[derive(Clone, Copy, Default)]
struct Stamp {
    due: u32,
    sent: u32,
}

#[derive(Clone, Copy, Default)]
struct Lane {
    /// Oldest request under way in this lane's part of the stamps.
    first: u16,
    /// Requests under way.
    len: u16,
    /// It may be given requests.
    usable: bool,
    /// It is in the queue of those that wait for one.
    queued: bool,
}

/// The times of all requests under way, and the plan for the next ones.
pub struct Book {
    /// What is carried out.
    pub plan: Plan,
    /// What came of it.
    pub tally: Tally,
    gauge: Arc<Gauge>,
    together: Arc<Together>,
    epoch: Instant,
    stage: Stage,
    /// This thread has said that its connections are open.
    reported: bool,
    /// When the stage ends.
    stage_until: Instant,
    /// The measurement, microseconds since the epoch: requests due in it count.
    from_us: u32,
    until_us: u32,
    /// When the first request of an open loop is due, and how many have been made.
    schedule_from_us: u32,
    scheduled: u64,
    /// Requests made since the measurement began.
    issued: u64,
    answered_all: u64,
    cpu_from: Duration,
    under_way: usize,
    depth: usize,
    stamps: Box<[Stamp]>,
    lanes: Box<[Lane]>,
    ready: VecDeque<u32>,
    next_to_wake: usize,
    waking: usize,
}

impl Book {
    /// A book for `plan` that is opened at `now`.
    ///
    /// # Errors
    /// See [`Tally::new`].
    pub fn new(plan: Plan, gauge: Arc<Gauge>, together: Arc<Together>, now: Instant) -> Result<Book> {
        let lanes = if plan.wake { plan.connections_all() } else { plan.connections };
        let depth = plan.pipeline.max(1);
        Ok(Book {
            tally: Tally::new()?,
            gauge,
            together,
            epoch: now,
            stage: Stage::Opening,
            reported: false,
            stage_until: now + plan.open_within,
            from_us: 0,
            until_us: u32::MAX,
            schedule_from_us: 0,
            scheduled: 0,
            issued: 0,
            answered_all: 0,
            cpu_from: Duration::ZERO,
            under_way: 0,
            depth,
            stamps: vec![Stamp::default(); lanes * depth].into(),
            lanes: vec![Lane::default(); lanes].into(),
            ready: VecDeque::with_capacity(lanes),
            next_to_wake: plan.connections,
            waking: 0,
            plan,
        })
    }

    /// Where the load is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    fn us(&self, now: Instant) -> u32 {
        now.micros_since(self.epoch) as u32
    }

    /// Looks at the time, once a turn. `all_open`: nobody waits to be opened any more; `open`, `idle`: connections that are.
    pub fn tick(&mut self, now: Instant, all_open: bool, open: usize, idle: usize) -> Stage {
        let stopped = self.together.stop.load(Ordering::Relaxed);
        match self.stage {
            Stage::Opening => {
                if !self.reported && (all_open || stopped || now >= self.stage_until) {
                    self.reported = true;
                    self.together.ready.fetch_add(1, Ordering::AcqRel);
                }
                if self.reported && self.together.ready.load(Ordering::Acquire) >= self.together.threads {
                    self.schedule_from_us = self.us(now);
                    self.tally.asking = (open - idle) as u64;
                    self.enter(Stage::Warm, now + self.plan.warm_up);
                }
            }
            Stage::Warm if stopped || now >= self.stage_until => {
                // What is under way counts as if it were made now: it will be answered in the measurement.
                (self.from_us, self.issued) = (self.us(now), self.under_way as u64);
                let until = now + self.plan.duration;
                self.until_us = self.us(until);
                self.tally.from_us = now.micros();
                self.cpu_from = cpu::spent_by_thread();
                self.enter(Stage::Measure, until);
            }
            Stage::Measure => {
                let enough = self.plan.requests.is_some_and(|n| self.tally.answered >= n);
                if stopped || enough || now >= self.stage_until {
                    self.end_measurement(now, idle);
                }
            }
            Stage::Drain if self.under_way == 0 || stopped || now >= self.stage_until => self.end_drain(now),
            Stage::Wake => {
                let all_asked = self.next_to_wake >= self.lanes.len();
                if stopped || (all_asked && self.waking == 0) || now >= self.stage_until {
                    self.enter(Stage::Over, now);
                }
            }
            _ => {}
        }
        self.gauge.answered.store(self.answered_all, Ordering::Relaxed);
        self.gauge.open.store(open, Ordering::Relaxed);
        self.gauge.errors.store(self.tally.errors_all(), Ordering::Relaxed);
        self.stage
    }

    fn enter(&mut self, stage: Stage, until: Instant) {
        (self.stage, self.stage_until) = (stage, until);
        self.gauge.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn end_measurement(&mut self, now: Instant, idle: usize) {
        self.until_us = self.us(now);
        self.tally.finish(Duration::from_micros(u64::from(self.until_us - self.from_us)));
        self.tally.cpu = cpu::spent_by_thread().saturating_sub(self.cpu_from);
        self.tally.idle_held = idle as u64;
        self.count_unsent();
        // A slow reader has no end that is worth waiting for.
        let grace = if self.plan.slow_bits_per_s.is_some() { Duration::ZERO } else { self.plan.timeout };
        self.enter(Stage::Drain, now + grace);
    }

    /// Requests that were due and found no connection: each has waited until now at least.
    fn count_unsent(&mut self) {
        while let Some(due_us) = self.due_us().filter(|due| *due < self.until_us) {
            self.scheduled += 1;
            if due_us >= self.from_us {
                self.tally.unsent += 1;
                self.tally.corrected_us.saturating_record(u64::from(self.until_us - due_us).max(1));
            }
        }
    }

    fn end_drain(&mut self, now: Instant) {
        if self.plan.slow_bits_per_s.is_none() {
            for id in 0..self.lanes.len() as u32 {
                if self.lanes[id as usize].len > 0 {
                    self.fail(now, id, Trouble::Timeout, || "an answer did not come before the end".into());
                }
            }
        }
        let idle = self.plan.wake && self.plan.idle > 0;
        self.enter(if idle { Stage::Wake } else { Stage::Over }, now + self.plan.open_within);
    }

    /// When the next request of an open loop is due; `None` in a closed loop.
    fn due_us(&self) -> Option<u32> {
        match self.plan.pace {
            Pace::Closed => None,
            Pace::Open { per_second } => {
                Some(self.schedule_from_us.saturating_add((self.scheduled as f64 * 1e6 / per_second) as u32))
            }
        }
    }

    /// When [`next`](Self::next) or [`tick`](Self::tick) has something to do although nothing comes.
    pub fn deadline(&self) -> Instant {
        let due = match self.stage {
            Stage::Warm | Stage::Measure if !self.ready.is_empty() => self.due_us(),
            _ => None,
        };
        due.map_or(self.stage_until, |us| self.epoch.plus_micros(us.into()).min(self.stage_until))
    }

    /// Connection `id` may be given requests.
    pub fn free(&mut self, id: u32) {
        let Some(lane) = self.lanes.get_mut(id as usize) else { return };
        lane.usable = true;
        if (id as usize) < self.plan.connections && !lane.queued && usize::from(lane.len) < self.depth {
            lane.queued = true;
            self.ready.push_back(id);
        }
    }

    /// The connection that is to ask once more now.
    #[inline]
    pub fn next(&mut self, now: Instant) -> Option<u32> {
        if !matches!(self.stage, Stage::Warm | Stage::Measure) {
            return self.next_woken(now);
        }
        let now_us = self.us(now);
        self.give_up(now_us);
        let due_us = match self.due_us() {
            Some(due) if due > now_us || due >= self.until_us => return None,
            Some(due) => due,
            None => now_us,
        };
        if self.plan.requests.is_some_and(|n| self.issued >= n) {
            return None;
        }
        loop {
            let id = self.ready.pop_front()?;
            let lane = &mut self.lanes[id as usize];
            lane.queued = false;
            if !lane.usable || usize::from(lane.len) >= self.depth {
                continue;
            }
            self.scheduled += 1;
            self.stamp(id, Stamp { due: due_us, sent: now_us });
            if usize::from(self.lanes[id as usize].len) < self.depth && !self.plan.fresh {
                self.lanes[id as usize].queued = true;
                self.ready.push_back(id);
            }
            return Some(id);
        }
    }

    /// Requests that found no connection for as long as an answer is waited for are not made any more: whoever wanted them
    /// has gone, and those that are due now must not wait behind them.
    fn give_up(&mut self, now_us: u32) {
        let patience_us = self.plan.timeout.as_micros().min(u32::MAX.into()) as u32;
        while let Some(due_us) = self.due_us().filter(|due| *due < self.until_us) {
            if now_us.saturating_sub(due_us) <= patience_us {
                return;
            }
            self.scheduled += 1;
            if self.stage == Stage::Measure && due_us >= self.from_us {
                self.tally.unsent += 1;
                self.tally.corrected_us.saturating_record(u64::from(now_us - due_us));
            }
        }
    }

    fn next_woken(&mut self, now: Instant) -> Option<u32> {
        if self.stage != Stage::Wake || self.waking >= self.plan.handshakes {
            return None;
        }
        while let Some(lane) = self.lanes.get(self.next_to_wake) {
            let id = self.next_to_wake as u32;
            self.next_to_wake += 1;
            if lane.usable {
                let now_us = self.us(now);
                self.waking += 1;
                self.stamp(id, Stamp { due: now_us, sent: now_us });
                return Some(id);
            }
        }
        None
    }

    #[inline]
    fn stamp(&mut self, id: u32, stamp: Stamp) {
        let lane = &mut self.lanes[id as usize];
        let place = (usize::from(lane.first) + usize::from(lane.len)) % self.depth;
        self.stamps[id as usize * self.depth + place] = stamp;
        lane.len += 1;
        self.issued += 1;
        self.under_way += 1;
    }

    /// Requests of connection `id` that are under way.
    #[inline]
    pub fn asked(&self, id: u32) -> usize {
        self.lanes.get(id as usize).map_or(0, |lane| usize::from(lane.len))
    }

    /// So many bytes of answers came.
    #[inline]
    pub fn received(&mut self, bytes: usize) {
        if self.stage == Stage::Measure {
            self.tally.bytes += bytes as u64;
        }
    }

    /// The oldest request of connection `id` was answered right. Says whether it is to ask again at once.
    #[inline]
    pub fn answered(&mut self, now: Instant, id: u32) -> bool {
        let now_us = self.us(now);
        if !self.settle(id, now_us) || id as usize >= self.plan.connections {
            return false;
        }
        if self.plan.fresh {
            self.lanes[id as usize].usable = false;
            return false;
        }
        let asks = matches!(self.stage, Stage::Warm | Stage::Measure)
            && self.plan.pace == Pace::Closed
            && self.plan.requests.is_none_or(|n| self.issued < n);
        if asks {
            self.stamp(id, Stamp { due: now_us, sent: now_us });
        } else {
            self.free(id);
        }
        asks
    }

    /// As [`answered`](Self::answered), and connection `id` takes no more requests: the server ends it with this answer.
    pub fn answered_last(&mut self, now: Instant, id: u32) {
        self.settle(id, self.us(now));
        self.closed(id);
    }

    /// Connection `id` takes no requests until it is [freed](Self::free) again.
    pub fn closed(&mut self, id: u32) {
        if let Some(lane) = self.lanes.get_mut(id as usize) {
            lane.usable = false;
        }
    }

    /// The oldest request of connection `id` is over; false: there was none.
    #[inline]
    fn settle(&mut self, id: u32, now_us: u32) -> bool {
        let Some(lane) = self.lanes.get_mut(id as usize).filter(|lane| lane.len > 0) else { return false };
        let stamp = self.stamps[id as usize * self.depth + usize::from(lane.first)];
        lane.first = if usize::from(lane.first) + 1 == self.depth { 0 } else { lane.first + 1 };
        lane.len -= 1;
        self.under_way -= 1;
        self.answered_all += 1;
        self.record(stamp, now_us);
        if id as usize >= self.plan.connections {
            self.waking = self.waking.saturating_sub(1);
            self.tally.woken += 1;
        }
        true
    }

    #[inline]
    fn record(&mut self, stamp: Stamp, now_us: u32) {
        let in_time = self.stage == Stage::Measure;
        let took_us = u64::from(now_us.saturating_sub(stamp.sent)).max(1);
        if self.plan.pace == Pace::Closed {
            if in_time {
                self.tally.answered += 1;
                self.tally.latency_us.saturating_record(took_us);
            }
            return;
        }
        let counts = self.stage >= Stage::Measure && (self.from_us..self.until_us).contains(&stamp.due);
        if counts {
            self.tally.answered += u64::from(in_time);
            self.tally.latency_us.saturating_record(took_us);
            self.tally.corrected_us.saturating_record(u64::from(now_us.saturating_sub(stamp.due)).max(1));
        }
    }

    /// A handshake that began at `since` has ended well.
    pub fn opened(&mut self, now: Instant, since: Instant) {
        self.tally.opened += 1;
        self.tally.handshake_us.saturating_record(now.micros_since(since).max(1));
    }

    /// Connection `id` is of no further use; what it had under way will not be answered.
    pub fn fail(&mut self, now: Instant, id: u32, trouble: Trouble, say: impl FnOnce() -> String) {
        self.tally.count(trouble, say);
        let now_us = self.us(now);
        let Some(lane) = self.lanes.get_mut(id as usize) else { return };
        lane.usable = false;
        let (first, len) = (usize::from(lane.first), usize::from(core::mem::take(&mut lane.len)));
        self.under_way -= len;
        if id as usize >= self.plan.connections {
            self.waking = self.waking.saturating_sub(len);
        }
        if self.plan.pace == Pace::Closed || self.stage < Stage::Measure {
            return;
        }
        for i in 0..len {
            let due = self.stamps[id as usize * self.depth + (first + i) % self.depth].due;
            if (self.from_us..self.until_us).contains(&due) {
                self.tally.corrected_us.saturating_record(u64::from(now_us.saturating_sub(due)).max(1));
            }
        }
    }

    /// Nobody is there: so many errors, and not one handshake that ended well. In words.
    pub fn hopeless(&self) -> Option<String> {
        let (tally, errors) = (&self.tally, self.tally.errors_all());
        (tally.opened == 0 && errors >= HOPELESS)
            .then(|| format!("{errors} connections in a row came to nothing: {}", tally.said.join("; ")))
    }

    /// Idle connection ended before its time.
    pub fn idle_lost(&mut self) {
        if self.stage < Stage::Drain {
            self.tally.idle_lost += 1;
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
