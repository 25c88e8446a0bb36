//! What a recorded client makes of what it hears.

use super::{Client, MSS};
use crate::sim::witness::Ranges;
use khamsin_drivers::sim::client as wire;

impl Client<'_> {
    /// Takes a segment of the stack's.
    pub fn take(&mut self, now_us: u64, segment: &wire::Segment<'_>) {
        if segment.flags & wire::ACK != 0 {
            let up = self.flow.up.isn.unwrap_or(0);
            let position =
                self.accepted + i64::from(segment.ack.wrapping_sub(up.wrapping_add(self.accepted as u32)) as i32);
            self.accepted = self.accepted.max(position);
        }
        if segment.flags & wire::RST != 0 {
            self.resets += 1;
            // Behind the end of both streams there is no connection left to reset.
            if !self.is_reset() && !self.is_over() {
                self.reset_by_stack = Some(self.last_packet);
            }
            return;
        }
        if segment.flags & wire::SYN != 0 {
            return self.answered(now_us, segment);
        }
        self.stamp = segment.timestamps.map(|(value, _)| value).or(self.stamp);
        let Some(isn) = self.isn else { return };
        let from = self.have + i64::from(segment.seq.wrapping_sub(isn.wrapping_add(self.have as u32)) as i32);
        let to = from + i64::from(segment.sequence_len());
        if to == from || from < 1 {
            return;
        }
        if to <= self.highest && self.received.cover(from as u64, to as u64) {
            self.again += 1;
            return self.note_timer(now_us, from, to);
        }
        self.fin_seen |= segment.flags & wire::FIN != 0;
        if self.wrong_at.is_none() {
            self.wrong_at = self.plan.text.difference(self.flow, from, segment.payload);
        }
        self.received.add(from as u64, to as u64);
        self.have = self.received.end_from(self.have as u64) as i64;
        self.highest = self.highest.max(to);
        self.heard_us = now_us;
    }

    /// Whether a timer of the stack's sent that again: no packet of the client's did, and none has acknowledged it.
    fn note_timer(&mut self, now_us: u64, from: i64, to: i64) {
        if from < self.timed_to {
            self.timed += 1;
        } else if to > self.acked && now_us > self.acted_us && self.next < self.plan.steps.len() {
            self.timed += 1;
            self.timed_to = self.highest;
            self.timed_us = self.timed_us.max(self.planned().saturating_sub(self.acted_us));
        }
    }

    /// Both streams have ended, and both sides know.
    pub(super) fn is_over(&self) -> bool {
        self.fin_seen && self.fin_sent && self.accepted >= self.sent_to && self.acked >= self.highest
    }

    fn answered(&mut self, now_us: u64, segment: &wire::Segment<'_>) {
        self.syn_acks += 1;
        if self.isn == Some(segment.seq) {
            self.note_timer(now_us, 0, 1);
        }
        self.stamp = segment.timestamps.map(|(value, _)| value);
        self.mss = segment.mss.map_or(MSS, usize::from).clamp(64, 1460);
        if self.acked == 0 && self.isn != Some(segment.seq) {
            self.isn = Some(segment.seq);
            self.received = Ranges::default();
            self.received.add(0, 1);
            (self.have, self.highest, self.heard_us) = (1, 1, now_us);
        }
    }
}
