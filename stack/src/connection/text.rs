//! The gate, inwards: payload and FIN of a segment that was found good, on their way to smoltcp.

use super::{Connection, Env};
use crate::Queue;
use crate::wire::{self, Flags, Segment};

/// The part of a segment's payload that goes to smoltcp.
struct Cut {
    /// Bytes to leave out in front: received before.
    front: usize,
    /// Payload bytes to pass.
    len: usize,
    fin: bool,
}

impl<S> Connection<S> {
    /// Payload and FIN: cut to the window, handed to smoltcp, and what came of it noted.
    pub(super) fn on_text<Q: Queue>(
        &mut self,
        env: &mut Env<'_, Q>,
        segment: &Segment,
        distance: i32,
        frame: &mut [u8],
    ) {
        if self.rx.finished {
            // Nothing can follow the peer's FIN; it has not seen our acknowledgement of it.
            self.rx.ack_now();
            return;
        }
        let Some(cut) = self.cut(env, segment, distance) else {
            self.rx.ack_now();
            return;
        };
        let (lead, end) = if segment.plain {
            (segment.ip_at as usize, segment.payload_at as usize + cut.front + cut.len)
        } else {
            let whole = wire::plain_copy(frame, segment, &mut env.world.plain).unwrap_or(0);
            let behind = segment.payload_len() - cut.front - cut.len;
            (0, whole.saturating_sub(behind))
        };
        let bytes = if segment.plain { frame } else { &mut env.world.plain[..] };
        let Some(packet) = bytes.get_mut(lead..end) else { return };
        let seq = segment.seq.wrapping_add(cut.front as u32);
        let Some(packet) = rewrite(packet, &cut, seq, self.tx.machine_ack) else { return };
        let reply = env.world.machine.feed(&mut self.unit, packet);
        self.after_feed(env, reply);
        if self.rx.early_fin_is_next() {
            let mut packet = [0u8; 128];
            let (seq, ack) = (self.rx.seq(self.rx.next), Some(self.tx.machine_ack));
            let n = wire::synthetic(&self.key, seq, ack, Flags::FIN, u16::MAX, &[], &mut packet);
            let reply = env.world.machine.feed(&mut self.unit, &packet[..n]);
            self.after_feed(env, reply);
        }
    }

    /// RFC 9293: trim what was received before and what lies beyond the window. `None`: nothing is left.
    fn cut<Q: Queue>(&mut self, env: &mut Env<'_, Q>, segment: &Segment, distance: i32) -> Option<Cut> {
        let counters = &mut env.world.counters;
        let len = segment.payload_len();
        let mut fin = segment.flags.fin();
        let front = distance.min(0).unsigned_abs() as usize;
        if front > len || (front == len && !fin) {
            counters.gate_trimmed += 1;
            return None;
        }
        let room = (self.rx.edge - self.rx.next) as i64;
        let end = i64::from(distance) + len as i64;
        let beyond = (end - room).clamp(0, len as i64) as usize;
        if front > 0 || beyond > 0 {
            counters.gate_trimmed += 1;
        }
        // A FIN on the edge leaves smoltcp with a window that starts behind its end: a panic later (SMOLTCP.md, 1). A FIN
        // beyond it would be taken although text before it is missing. The peer sends it again once there is room.
        if fin && end >= room {
            counters.gate_fin_held += 1;
            fin = false;
            self.rx.ack_now();
        }
        if beyond > 0 {
            self.rx.ack_now();
        }
        // smoltcp would forget it (1741).
        if fin && distance > 0 {
            self.rx.early_fin.get_or_insert(self.rx.next.saturating_add_signed(end));
            fin = false;
        }
        let len = len - front - beyond.min(len - front);
        (len > 0 || fin).then_some(Cut { front, len, fin })
    }

    fn after_feed<Q: Queue>(&mut self, env: &mut Env<'_, Q>, reply: Option<crate::machine::Reply>) {
        self.rx.finished = self.unit.peer_finished();
        let next = self.rx.consumed + self.unit.unread() as u64 + u64::from(self.rx.finished);
        let fresh = next - self.rx.next;
        env.world.counters.rx_payload_bytes += fresh.saturating_sub(u64::from(self.rx.finished));
        self.rx.next = next;
        match reply {
            // It speaks at once only about holes: a duplicate acknowledgement, or one that fills a gap.
            Some(reply) => {
                self.rx.on_reply(&reply);
                self.rx.ack_now();
            }
            None => self.rx.sack.clear(),
        }
        if fresh > 0 {
            self.rx.on_progress(env.now, self.tx.mss);
            self.wishes.ready = true;
        } else {
            self.rx.ack_now();
        }
        if self.rx.finished {
            self.fin_wait_2_ends = None;
        }
    }
}

/// Makes the packet one that smoltcp takes: `packet` ends where the passed payload ends; its IP header is at the start and
/// carries no options. With `cut.front` or TCP options, which say nothing here and of which smoltcp would take a senseless
/// one for a reason to drop the text, the headers move up to the payload that is left. Checksums are not touched:
/// smoltcp's are off.
fn rewrite<'p>(packet: &'p mut [u8], cut: &Cut, seq: u32, ack: u32) -> Option<&'p mut [u8]> {
    let tcp_at = if packet.first()? >> 4 == 4 { 20 } else { 40 };
    let skip = packet.len().checked_sub(tcp_at + 20 + cut.len)?;
    if skip > 0 {
        packet.copy_within(..tcp_at + 20, skip);
    }
    let packet = packet.get_mut(skip..)?;
    let total = packet.len();
    if tcp_at == 20 {
        packet.get_mut(2..4)?.copy_from_slice(&(total.min(65_535) as u16).to_be_bytes());
    } else {
        packet.get_mut(4..6)?.copy_from_slice(&((total - 40).min(65_535) as u16).to_be_bytes());
    }
    let tcp: &mut [u8; 20] = packet.get_mut(tcp_at..)?.first_chunk_mut()?;
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = if cut.fin { (Flags::ACK | Flags::FIN).0 } else { Flags::ACK.0 };
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    Some(packet)
}
