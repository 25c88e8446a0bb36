//! What goes out: text, its repetition, probes, acknowledgements.

use super::{ACK, Blocks, Client, End, FIN, Outgoing, PSH, Phase, SYN};
use khamsin_stack::Instant;

impl Client {
    /// Emits what is due at `now`.
    pub(in super::super) fn poll(&mut self, now: Instant, mut emit: impl FnMut(Outgoing)) {
        self.touched = false;
        self.tell_time(now);
        if let Some((seq, ack, flags)) = self.reset_due.take() {
            emit(Outgoing::bare(seq, ack, flags));
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_due = true;
        }
        if self.timer.is_some_and(|at| at <= now) {
            self.timer = None;
            self.expire();
        }
        while self.can_send() {
            let outgoing = self.next_segment();
            emit(outgoing);
            self.ack_due = false;
            self.ack_at = None;
        }
        if std::mem::take(&mut self.ack_due) && !matches!(self.phase, Phase::Over(_)) {
            // Behind a probe of a closed window the peer would drop it, acknowledgement and all.
            let next = self.next.min(self.una + self.window);
            self.ack_at = None;
            emit(self.outgoing(next, ACK, Vec::new()));
        }
        self.arm(now);
    }

    fn expire(&mut self) {
        match self.phase {
            Phase::TimeWait => return self.over(End::Finished),
            Phase::Over(_) => return,
            _ => {}
        }
        self.tries += 1;
        // RFC 9293 3.8.6.1: a window that stays closed is no reason to give up, as long as probes are answered.
        if self.tries > self.options.retries_max {
            return self.over(End::TimedOut);
        }
        if self.una < self.next {
            self.next = self.una;
        }
        self.probe = self.window == 0;
    }

    /// Whether something may go out now that is not a mere acknowledgement.
    pub(super) fn can_send(&self) -> bool {
        match self.phase {
            Phase::SynSent | Phase::SynReceived => self.next == 0,
            Phase::Open => self.next < self.limit(),
            Phase::TimeWait | Phase::Over(_) => false,
        }
    }

    /// The position up to which may be sent.
    fn limit(&self) -> u64 {
        let end = self.queued + 1 + u64::from(self.closing);
        let window = if self.probe { 1 } else { self.window };
        end.min(self.una + window.min(self.options.flight_max as u64))
    }

    fn next_segment(&mut self) -> Outgoing {
        if self.next == 0 {
            self.next = 1;
            self.furthest = self.furthest.max(1);
            let flags = if self.phase == Phase::SynSent { SYN } else { SYN | ACK };
            return self.outgoing(0, flags, Vec::new());
        }
        let at = self.next;
        let text_end = self.queued + 1;
        // RFC 6691: the MSS counts what options leave.
        let options = if self.stamps { 12 } else { 0 } + if self.holes() == 0 { 0 } else { 4 + 8 * self.holes() };
        let most = self.peer_mss.saturating_sub(options).clamp(1, self.options.segment_max) as u64;
        let end = self.limit().min(text_end).min(at + most);
        let from = (at - self.una.max(1)) as usize;
        let payload: Vec<u8> = match end > at {
            true => self.unsent.range(from..from + (end - at) as usize).copied().collect(),
            false => Vec::new(),
        };
        self.next = at + payload.len() as u64;
        let mut flags = ACK;
        if self.next == text_end && !payload.is_empty() {
            flags |= PSH;
        }
        if self.closing && self.next == text_end && self.next < self.limit() {
            flags |= FIN;
            self.next += 1;
        }
        self.furthest = self.furthest.max(self.next);
        self.probe = false;
        self.outgoing(at, flags, payload)
    }

    fn outgoing(&mut self, position: u64, flags: u8, payload: Vec<u8>) -> Outgoing {
        let handshake = flags & SYN != 0;
        let ack = if flags & ACK != 0 { self.acknowledgement() } else { 0 };
        // The window field of a SYN is never scaled (RFC 7323 2.2).
        let window = match handshake {
            true => self.free().min(65_535),
            false => (self.free() >> self.our_shift).min(65_535),
        } as u16;
        let shift = if handshake { 0 } else { self.our_shift };
        self.edge = self.edge.max(self.expected.max(1) + (u64::from(window) << shift));
        let opening = handshake && flags & ACK == 0;
        let timestamps = (self.stamps || opening && self.options.timestamps).then_some((self.clock_ms, self.recent));
        if flags & ACK != 0 {
            self.acked_last = self.expected;
        }
        Outgoing {
            seq: self.sequence(position),
            ack,
            flags,
            window,
            mss: handshake.then_some(self.options.mss),
            window_scale: self.options.window_scale.filter(|_| handshake && self.scaling),
            sack_permitted: handshake && (self.sack || opening && self.options.sack),
            timestamps,
            sack: if handshake { Blocks::default() } else { self.blocks() },
            payload,
        }
    }

    fn tell_time(&mut self, now: Instant) {
        // Near the wrap, so that long runs cross it.
        let ms = ((now.micros() / 1000) as u32).wrapping_add(self.options.isn);
        if self.first_stamp == 0 && self.clock_ms == 0 {
            self.first_stamp = ms;
        }
        self.clock_ms = ms;
    }

    /// Runs of text that lie behind a hole, each from its first position to behind its last.
    fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (&at, bytes) in &self.ahead {
            let end = at + bytes.len() as u64;
            match runs.last_mut() {
                Some(last) if at <= last.1 => last.1 = last.1.max(end),
                _ => runs.push((at, end)),
            }
        }
        runs
    }

    /// Blocks that the next SACK option has.
    fn holes(&self) -> usize {
        if !self.sack || self.ahead.is_empty() && self.again.is_none() {
            return 0;
        }
        let most = if self.stamps { 3 } else { 4 };
        (self.runs().len() + usize::from(self.again.is_some())).min(most)
    }

    /// The SACK option: what came twice (RFC 2883), then the run that grew last, then the others (RFC 2018 4).
    fn blocks(&mut self) -> Blocks {
        let (mut blocks, most) = (Blocks::default(), self.holes());
        let again = self.again.take();
        let mut runs = self.runs();
        runs.sort_by_key(|&(from, to)| (!(from..to).contains(&self.latest), core::cmp::Reverse(from)));
        let number = |at: u64| self.irs.wrapping_add(at as u32);
        for (from, to) in again.into_iter().chain(runs).take(most) {
            blocks.push(number(from), number(to));
        }
        blocks
    }

    /// Sets the timer for what is in flight, or for a probe of a closed window.
    fn arm(&mut self, now: Instant) {
        let waiting = self.una < self.next || self.una <= self.queued && self.phase == Phase::Open && self.window == 0;
        let closing = self.phase == Phase::Open && self.closing && !self.all_acknowledged();
        if !waiting && !closing {
            if self.phase != Phase::TimeWait {
                self.timer = None;
            }
            return;
        }
        if self.timer.is_none() && !matches!(self.phase, Phase::TimeWait | Phase::Over(_)) {
            self.timer = Some(now.plus_micros(self.options.rto_us << self.tries.min(6)));
        }
    }
}
