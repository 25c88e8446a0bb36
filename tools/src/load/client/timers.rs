//! Timers that cost nothing to set: queues in which everybody waits equally long.

use super::Client;
use super::Slow;
use super::record::{Flag, State};
use crate::load::tally::Trouble;
use khamsin_stack::{Instant, Queue};
use std::collections::VecDeque;

/// Between two looks at a connection that waits for something, microseconds.
const WATCH_US: u32 = 20_000;
/// First wait before something is sent again, microseconds; it doubles with each repetition.
const RTO_US: u32 = 200_000;
/// The same before a SYN is (RFC 6298 2.1, as Linux does): who is not let in does not knock five times a second.
const SYN_RTO_US: u32 = 1_000_000;
/// The wait doubles so often at most.
const BACKOFF_MAX: u8 = 6;
/// Longest an acknowledgement waits for a request to ride on, microseconds.
const ACK_US: u32 = 40_000;
/// Before a connection that failed is opened again, microseconds.
const REOPEN_US: u32 = 100_000;
/// Between two readings of a slow connection, microseconds.
const DRIP_US: u32 = 200_000;
/// Entries of one queue looked at in one turn.
const PER_TURN: usize = 256;

type Waiting = VecDeque<(u32, u32)>;

/// The queues: when, microseconds since the client began, and who.
pub(super) struct Timers {
    watch: Waiting,
    acks: Waiting,
    reopen: Waiting,
    drips: Waiting,
}

impl Timers {
    /// Room for `all` connections in each queue.
    pub(super) fn new(all: usize) -> Timers {
        let queue = || VecDeque::with_capacity(all);
        Timers { watch: queue(), acks: queue(), reopen: queue(), drips: VecDeque::new() }
    }

    /// When the first of all is due.
    pub(super) fn first_us(&self) -> Option<u32> {
        let fronts = [&self.watch, &self.acks, &self.reopen, &self.drips].map(|q| q.front().map(|e| e.0));
        // All lie within a second or so of each other, so that their order as signed differences is theirs in time.
        fronts.into_iter().flatten().reduce(|a, b| if (a.wrapping_sub(b) as i32) < 0 { a } else { b })
    }

    pub(super) fn open_later(&mut self, now_us: u32, id: u32) {
        self.reopen.push_back((now_us.wrapping_add(REOPEN_US), id));
    }

    pub(super) fn drip_later(&mut self, now_us: u32, id: u32) {
        self.drips.push_back((now_us.wrapping_add(DRIP_US), id));
    }

    pub(super) fn ack_later(&mut self, now_us: u32, id: u32) {
        self.acks.push_back((now_us.wrapping_add(ACK_US), id));
    }
}

/// The first of `queue`, if it is due.
fn due(queue: &mut Waiting, now_us: u32) -> Option<u32> {
    let (at, id) = *queue.front()?;
    if (now_us.wrapping_sub(at) as i32) < 0 {
        return None;
    }
    queue.pop_front();
    Some(id)
}

impl<Q: Queue> Client<Q> {
    /// Looks after connection `id` until nothing is awaited there.
    pub(super) fn watch(&mut self, now: Instant, id: u32) {
        let at = self.us(now).wrapping_add(WATCH_US);
        let connection = &mut self.connections[id as usize];
        if !connection.flags.has(Flag::Watched) {
            connection.flags.set(Flag::Watched);
            self.timers.watch.push_back((at, id));
        }
    }

    pub(super) fn on_timers(&mut self, now: Instant, queue: &mut Q) {
        let now_us = self.us(now);
        for _ in 0..PER_TURN {
            let Some(id) = due(&mut self.timers.watch, now_us) else { break };
            self.connections[id as usize].flags.clear(Flag::Watched);
            self.look_after(now, queue, id);
        }
        for _ in 0..PER_TURN {
            let Some(id) = due(&mut self.timers.acks, now_us) else { break };
            let connection = &mut self.connections[id as usize];
            connection.flags.clear(Flag::AckQueued);
            if connection.unacked > 0 && connection.state != State::Free {
                connection.flags.set(Flag::AckNow);
                self.touch(id);
            }
        }
        for _ in 0..PER_TURN {
            let Some(id) = due(&mut self.timers.reopen, now_us) else { break };
            self.to_open.push_back(id);
        }
        for _ in 0..PER_TURN {
            let Some(id) = due(&mut self.timers.drips, now_us) else { break };
            self.drip(now_us, id);
        }
    }

    /// Something is awaited on connection `id`, or was: says it again, or gives up.
    fn look_after(&mut self, now: Instant, queue: &mut Q, id: u32) {
        let (now_us, asked) = (self.us(now), self.book.asked(id));
        let connection = &mut self.connections[id as usize];
        let owes = connection.owes();
        if connection.state == State::Free || (!owes && asked == 0) {
            return;
        }
        let silent_us = now_us.wrapping_sub(connection.progress_us);
        if silent_us as u64 >= self.book.plan.timeout.as_micros() as u64 {
            let opening = connection.state == State::Syn;
            let address = self.book.plan.target.address;
            let seconds = self.book.plan.timeout.as_secs_f64();
            if opening {
                let sentence = || format!("{address} did not answer a SYN for {seconds} s");
                return self.break_off(now, id, Trouble::Connect, sentence);
            }
            self.send_reset(queue, id);
            return self.break_off(now, id, Trouble::Timeout, || format!("nothing came for {seconds} s"));
        }
        let rto_us = if connection.state == State::Syn { SYN_RTO_US } else { RTO_US };
        if owes && silent_us >= (rto_us << (connection.backoff + 1).min(BACKOFF_MAX)) - rto_us {
            connection.backoff = connection.backoff.saturating_add(1);
            connection.repeats = 0;
            connection.flags.clear(Flag::Repaired);
            self.repeat(now, queue, id);
        }
        self.watch(now, id);
    }

    /// A slow connection has taken some more: tells the peer when that makes room worth telling of.
    fn drip(&mut self, now_us: u32, id: u32) {
        let (window, taken) = (u64::from(self.window), self.slow_taken(now_us, id));
        let Some(slow) = self.slow.get_mut(id as usize) else { return };
        if self.connections[id as usize].state == State::Free {
            return;
        }
        if taken - slow.told.min(taken) >= (window / 2).min(1460) {
            slow.told = taken;
            self.connections[id as usize].flags.set(Flag::AckNow);
            self.touch(id);
        }
        self.timers.drip_later(now_us, id);
    }

    /// Bytes that a slow connection has taken by now.
    pub(super) fn slow_taken(&self, now_us: u32, id: u32) -> u64 {
        let bits = self.book.plan.slow_bits_per_s.unwrap_or(0);
        let Some(Slow { since_us, received, .. }) = self.slow.get(id as usize) else { return 0 };
        (u64::from(now_us.wrapping_sub(*since_us)) * bits / 8_000_000).min(*received)
    }
}
