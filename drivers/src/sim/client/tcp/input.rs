//! What comes in: RFC 9293 3.10.7, step by step, with a note of everything that a peer may not do.

use super::{ACK, Client, End, FIN, Phase, RST, SYN, Segment, position};
use khamsin_stack::Instant;

impl Client {
    /// Takes one segment.
    pub(in super::super) fn take(&mut self, now: Instant, segment: &Segment<'_>) {
        self.touched = true;
        match self.phase {
            Phase::Over(_) => {}
            Phase::SynSent => self.take_in_syn_sent(segment),
            Phase::SynReceived | Phase::Open | Phase::TimeWait => self.take_synchronized(now, segment),
        }
    }

    /// 3.10.7.3.
    fn take_in_syn_sent(&mut self, segment: &Segment<'_>) {
        let acked = position(segment.ack, self.options.isn, self.una);
        if segment.flags & ACK != 0 && acked != 1 {
            if segment.flags & RST == 0 {
                self.reset_due = Some((segment.ack, 0, RST));
            }
            return self.violation(format!("acknowledged {acked} when only a SYN was sent"));
        }
        if segment.flags & RST != 0 {
            if segment.flags & ACK != 0 {
                self.over(End::Refused);
            }
            return;
        }
        if segment.flags & (SYN | ACK) != SYN | ACK {
            return self.violation(format!("answered a SYN with flags {:#x}", segment.flags));
        }
        if !segment.payload.is_empty() || segment.flags & FIN != 0 {
            self.violation("text or FIN in a SYN,ACK".to_owned());
        }
        self.take_syn(segment);
        // RFC 2018 2, RFC 7323 3.2: in force only what both sides offered.
        if segment.sack_permitted && !self.options.sack || segment.timestamps.is_some() && !self.options.timestamps {
            self.violation("an option that was not offered".to_owned());
        }
        self.una = 1;
        self.next = 1;
        self.window_at = (0, 1);
        self.tries = 0;
        self.timer = None;
        self.phase = Phase::Open;
        self.ack_due = true;
    }

    /// Notes what a SYN says of its sender.
    pub(super) fn take_syn(&mut self, segment: &Segment<'_>) {
        self.irs = segment.seq;
        self.expected = 1;
        self.window = segment.window.into();
        self.offered = (1 + self.window, 1);
        // RFC 9293 3.7.1: without the option, 536 for IPv4 and 1220 for IPv6.
        let default = if segment.from.is_ipv4() { 536 } else { 1220 };
        self.peer_mss = usize::from(segment.mss.unwrap_or(default));
        self.sack = segment.sack_permitted && self.options.sack;
        self.stamps = segment.timestamps.is_some() && self.options.timestamps;
        self.recent = segment.timestamps.map_or(0, |(value, _)| value);
        // RFC 7323 2.2: scaling is in force only if both sides offered it.
        match segment.window_scale {
            Some(shift) if self.options.window_scale.is_some() => self.peer_shift = shift.min(14),
            Some(_) if self.phase == Phase::SynSent => self.violation("a window scale that was not offered".to_owned()),
            _ => {
                self.our_shift = 0;
                self.scaling = false;
            }
        }
    }

    /// 3.10.7.4.
    fn take_synchronized(&mut self, now: Instant, segment: &Segment<'_>) {
        let seq = position(segment.seq, self.irs, self.expected);
        self.compare_with_the_past(seq, segment.payload);
        if self.is_old(segment) {
            self.ack_due = true;
            return;
        }
        if !self.acceptable(seq, segment) {
            return self.take_unacceptable(seq, segment);
        }
        self.take_stamp(seq, segment);
        if segment.flags & RST != 0 && self.phase == Phase::TimeWait {
            // RFC 1337: it ends nothing that has ended.
            return;
        }
        if segment.flags & RST != 0 {
            // RFC 5961 3.2: exact, or it is a guess.
            if seq as u64 == self.expected {
                self.over(End::Reset);
            } else {
                self.violation(format!("a reset at {seq} instead of {}", self.expected));
                self.ack_due = true;
            }
            return;
        }
        if segment.flags & SYN != 0 {
            // To an old SYN that was on its way for long a peer without memory of us answers in good order.
            if self.phase != Phase::TimeWait {
                self.violation("a SYN inside the window".to_owned());
            }
            self.ack_due = true;
            return;
        }
        if segment.flags & ACK == 0 {
            return self.violation("a segment without ACK".to_owned());
        }
        if self.take_ack(seq, segment) {
            let holes = !self.ahead.is_empty();
            let in_order = self.take_text(seq, segment);
            self.delay(now, in_order && !holes);
            self.check_end(now);
        }
    }

    /// RFC 7323 5.3 R1: an old duplicate.
    fn is_old(&mut self, segment: &Segment<'_>) -> bool {
        if !self.stamps || segment.flags & RST != 0 {
            return false;
        }
        let Some((value, echo)) = segment.timestamps else {
            // RFC 7323 3.2: once agreed, every segment carries them.
            self.violation("a segment without the timestamps that were agreed".to_owned());
            return false;
        };
        let known = echo.wrapping_sub(self.first_stamp) <= self.clock_ms.wrapping_sub(self.first_stamp);
        if !known && segment.flags & ACK != 0 {
            self.violation(format!("echoed the timestamp {echo}, which was never sent"));
        }
        (value.wrapping_sub(self.recent) as i32) < 0
    }

    /// RFC 7323 5.3 R3, of a segment that is acceptable (R2): another SYN|ACK, with a timestamp that means something else, is
    /// not.
    fn take_stamp(&mut self, seq: i64, segment: &Segment<'_>) {
        if self.stamps
            && segment.flags & RST == 0
            && seq <= self.acked_last as i64
            && let Some((value, _)) = segment.timestamps
        {
            self.recent = value;
        }
    }

    /// Lets the acknowledgement of text in order wait for a second segment (RFC 9293 3.8.6.3).
    fn delay(&mut self, now: Instant, in_order: bool) {
        if self.options.ack_delay_us > 0 && in_order && self.ack_at.is_none() && !self.finished() {
            self.ack_due = false;
            self.ack_at = Some(now.plus_micros(self.options.ack_delay_us));
        }
    }

    /// Outside of the window, or nothing new: answered, and used only for what it acknowledges.
    fn take_unacceptable(&mut self, seq: i64, segment: &Segment<'_>) {
        if segment.flags & RST != 0 {
            return;
        }
        self.ack_due = true;
        let len = segment.payload.len() as i64;
        if len > 0 && seq >= 1 && seq + len <= self.expected as i64 {
            self.again = Some((seq as u64, (seq + len) as u64));
        }
        if segment.flags & SYN != 0 {
            // A SYN again: our answer has not arrived.
            if seq == 0 && self.phase == Phase::SynReceived {
                self.next = 0;
            }
        } else if segment.flags & ACK != 0 && (0..=1).contains(&(seq - self.edge as i64)) {
            // A probe of a closed window brings valid acknowledgements (3.10.7.4, the special allowance).
            self.take_ack(seq, segment);
        }
    }

    /// The sequence number test of 3.10.7.4.
    fn acceptable(&mut self, seq: i64, segment: &Segment<'_>) -> bool {
        let len =
            segment.payload.len() as i64 + i64::from(segment.flags & FIN != 0) + i64::from(segment.flags & SYN != 0);
        let (expected, edge) = (self.expected as i64, self.edge as i64);
        let payload = segment.payload.len();
        // One byte at a closed window is a probe, and so is one right behind the edge. A SYN belongs to other numbers.
        let probe = payload == 1 && seq == edge;
        if payload > 0 && seq + payload as i64 > edge && !probe && segment.flags & SYN == 0 {
            self.violation(format!(
                "text up to {} beyond the window's edge {edge}",
                seq + segment.payload.len() as i64
            ));
        }
        match len {
            // At the edge itself too: a sender that has filled the window acknowledges from there.
            0 => seq >= expected && seq <= edge,
            _ => seq < edge && seq + len > expected,
        }
    }

    /// False: the segment goes no further.
    fn take_ack(&mut self, seq: i64, segment: &Segment<'_>) -> bool {
        let acked = position(segment.ack, self.options.isn, self.una);
        if acked > self.furthest as i64 {
            self.violation(format!("acknowledged {acked}, sent were {}", self.furthest));
            self.ack_due = true;
            return false;
        }
        let acked = acked.max(0) as u64;
        if self.phase == Phase::SynReceived {
            if acked == 0 {
                return false;
            }
            self.phase = Phase::Open;
        }
        if acked > self.una {
            let text = acked.min(self.queued + 1).saturating_sub(self.una.max(1));
            self.unsent.drain(..text as usize);
            self.una = acked;
            self.next = self.next.max(acked);
            self.tries = 0;
            self.timer = None;
        }
        let seq = seq.max(0) as u64;
        let (seq_at, ack_at) = self.window_at;
        if acked >= self.una && (seq_at < seq || seq_at == seq && ack_at <= acked) {
            let window = u64::from(segment.window) << self.peer_shift;
            let offered = acked + window;
            // RFC 9293 3.8.6: a window once given is not taken back; what scaling rounds away is. Only a higher
            // acknowledgement proves that this is not an older segment that was overtaken.
            if acked > self.offered.1 && offered + (1 << self.peer_shift) <= self.offered.0 {
                self.violation(format!("took the window back from {} to {offered}", self.offered.0));
            }
            if offered > self.offered.0 {
                self.offered = (offered, acked);
            }
            if window == 0 && acked == ack_at {
                // An answer to a probe: the peer lives.
                self.tries = self.tries.min(1);
            }
            if self.window == 0 && window > 0 {
                self.tries = 0;
                self.timer = None;
                // What a probe carried may not have been kept.
                self.next = self.next.min(self.una.max(1));
            }
            self.window = window;
            self.window_at = (seq, acked);
        }
        true
    }

    /// Whether it was text in order, and nothing else.
    fn take_text(&mut self, seq: i64, segment: &Segment<'_>) -> bool {
        let fin = segment.flags & FIN != 0;
        if segment.payload.is_empty() && !fin {
            return false;
        }
        self.ack_due = true;
        let end = seq + segment.payload.len() as i64;
        if let Some(at) = self.fin_at
            && end > at as i64
        {
            self.violation(format!("text up to {end} behind the FIN at {at}"));
            return false;
        }
        if fin {
            if self.fin_at.is_some_and(|at| at as i64 != end) {
                self.violation(format!("a second FIN, at {end}"));
            }
            self.fin_at = Some(end as u64);
        }
        let skip = (self.expected as i64 - seq).clamp(0, segment.payload.len() as i64) as usize;
        let room = (self.edge as i64 - seq).clamp(0, segment.payload.len() as i64) as usize;
        let in_order = skip == 0 && seq == self.expected as i64;
        if skip > 0 && seq > 0 {
            self.again = Some((seq as u64, seq as u64 + skip as u64));
        }
        if skip < room {
            self.keep(seq.max(0) as u64 + skip as u64, &segment.payload[skip..room]);
        }
        // The FIN counts only behind all text before it.
        if self.fin_at == Some(self.expected) {
            self.expected += 1;
        }
        in_order && !fin
    }

    /// What comes again must be what came before.
    fn compare_with_the_past(&mut self, seq: i64, payload: &[u8]) {
        for (i, byte) in payload.iter().enumerate() {
            let at = seq + i as i64 - 1;
            if at >= 0 && self.received.get(at as usize).is_some_and(|before| before != byte) {
                return self.violation(format!("byte {at} was sent again with another value"));
            }
        }
    }

    fn keep(&mut self, at: u64, bytes: &[u8]) {
        if at > self.expected {
            let longer = self.ahead.get(&at).is_none_or(|kept| kept.len() < bytes.len());
            self.latest = at;
            if !longer {
                self.again = Some((at, at + bytes.len() as u64));
            }
            if longer {
                self.ahead.insert(at, bytes.to_vec());
            }
            return;
        }
        self.received.extend_from_slice(bytes);
        self.expected += bytes.len() as u64;
        while let Some(first) = self.ahead.first_entry()
            && *first.key() <= self.expected
        {
            let (at, bytes) = first.remove_entry();
            let skip = (self.expected - at) as usize;
            if skip < bytes.len() {
                self.received.extend_from_slice(&bytes[skip..]);
                self.expected += (bytes.len() - skip) as u64;
            }
        }
    }

    fn check_end(&mut self, now: Instant) {
        if !self.finished() || !self.closing || !self.all_acknowledged() {
            return;
        }
        if self.phase == Phase::Open {
            self.phase = Phase::TimeWait;
            self.timer = Some(now.plus_micros(self.options.time_wait_us));
        }
    }
}
