//! What goes out: text, its repetition, probes, acknowledgements.

use super::{ACK, Client, End, FIN, Outgoing, PSH, Phase, SYN};
use khamsin_stack::Instant;

impl Client {
    /// Emits what is due at `now`.
    pub(in super::super) fn poll(&mut self, now: Instant, mut emit: impl FnMut(Outgoing)) {
        self.touched = false;
        if let Some((seq, ack, flags)) = self.reset_due.take() {
            emit(Outgoing { seq, ack, flags, window: 0, handshake: false, window_scale: None, payload: Vec::new() });
        }
        if self.timer.is_some_and(|at| at <= now) {
            self.timer = None;
            self.expire();
        }
        while self.can_send() {
            let outgoing = self.next_segment();
            emit(outgoing);
            self.ack_due = false;
        }
        if std::mem::take(&mut self.ack_due) && !matches!(self.phase, Phase::Over(_)) {
            let next = self.next;
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
        let most = self.peer_mss.min(self.options.segment_max) as u64;
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
        let window_scale = self.options.window_scale.filter(|_| handshake && self.scaling);
        Outgoing { seq: self.sequence(position), ack, flags, window, handshake, window_scale, payload }
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
