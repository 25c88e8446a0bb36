//! The gate, outwards: segments are cut from the byte store, the first time as any later time.
//!
//! smoltcp has no part in this but for the window it remembers. RECOVERY.md's prototype let smoltcp emit each data segment
//! once and kept the frame; since the product keeps bytes (DESIGN, Settled) it can cut a segment afresh at any time, and a
//! copy into smoltcp's ring, a second out of it and 925 instructions of egress buy nothing.

use super::{Connection, Env, Fate};
use crate::reassembly::HoldPool;
use crate::recovery::Timeout;
use crate::timestamps;
use crate::wire::{Flags, Outgoing, TxChecksum};
use crate::{CloseReason, Frame, Instant, Queue, TxOffload};
use arrayvec::ArrayVec;

/// No frame was free.
pub(super) struct Blocked;

impl<S> Connection<S> {
    /// Sends what may be sent now: what is to be repeated, new data, FIN, and an acknowledgement where none of them
    /// carried it.
    pub(super) fn flush<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        if self.path.is_stale(env.now) {
            self.renew_path(env);
        }
        if self.rx.edge_is_stale() {
            self.ask_for_edge(env);
        }
        if self.ecn.is_agreed() && self.tx.sender.take_cwr() {
            self.ecn.reduced();
        }
        let sent = self
            .send_again(env)
            .and_then(|()| self.send_new(env))
            .and_then(|()| if self.rx.ack_due() { self.send_ack(env) } else { Ok(()) });
        self.tx.blocked = sent.is_err();
    }

    fn send_again<Q: Queue>(&mut self, env: &mut Env<'_, Q>) -> Result<(), Blocked> {
        while let Some((offset, len)) = self.tx.sender.next_retransmission() {
            let len = u64::from(len).min(self.largest_frame(env));
            let stamp = self.tx.sender.stamp(env.now, offset, len);
            self.send_data(env, stamp, offset, len)?;
            env.world.counters.retransmitted += len.div_ceil(u64::from(self.tx.mss));
            self.tx.sender.retransmitted(env.now, offset, len);
        }
        Ok(())
    }

    fn send_new<Q: Queue>(&mut self, env: &mut Env<'_, Q>) -> Result<(), Blocked> {
        let mss = u64::from(self.tx.mss);
        let largest = self.largest_frame(env);
        loop {
            let (unsent, fin) = self.unsent();
            let all = unsent + u64::from(fin);
            let may = if all > 0 { self.tx.sender.allowance(env.now, unsent, fin) } else { 0 };
            if may == 0 {
                self.tx.sender.blocked(env.now, all);
                return Ok(());
            }
            // The FIN rides on the last payload and takes no room. Super-frames are cut into whole segments; only the
            // very last may be short.
            let payload = may.min(unsent).min(largest);
            let last = payload == unsent;
            let len = if last { may } else { payload - if payload > mss { payload % mss } else { 0 } };
            self.send_first(env, len)?;
        }
    }

    /// Payload that was never sent, bytes, and whether the FIN was not sent either.
    fn unsent(&self) -> (u64, bool) {
        let unsent = self.tx.store.end().saturating_sub(self.tx.sender.nxt());
        (unsent, self.tx.shutdown && !self.tx.fin_sent)
    }

    /// Sends `len` octets for the first time; one more than there is payload means the FIN.
    fn send_first<Q: Queue>(&mut self, env: &mut Env<'_, Q>, len: u64) -> Result<(), Blocked> {
        let (unsent, _) = self.unsent();
        let nxt = self.tx.sender.nxt();
        self.send_data(env, env.now, nxt, len)?;
        env.world.counters.tx_payload_bytes += len.min(unsent);
        self.tx.sender.sent(env.now, nxt, len);
        if len > unsent {
            self.tx.fin_sent = true;
            self.tell_machine_of_fin();
        }
        Ok(())
    }

    /// Most payload of one frame: a segment, or what the device cuts into segments.
    fn largest_frame<Q: Queue>(&self, env: &Env<'_, Q>) -> u64 {
        let mss = usize::from(self.tx.mss);
        let headers = self.template.header_len() + self.options_len();
        let room = env.world.caps.tx_segment_max.saturating_sub(headers);
        mss.max(room - room % mss) as u64
    }

    /// Cuts `len` octets of sequence space at `offset` from the store and sends them; the octet behind the stream's end is
    /// the FIN. The timestamp is that of `stamp`.
    fn send_data<Q: Queue>(
        &mut self,
        env: &mut Env<'_, Q>,
        stamp: Instant,
        offset: u64,
        len: u64,
    ) -> Result<(), Blocked> {
        let payload = len.min(self.tx.store.end().saturating_sub(offset));
        let mut flags = Flags::ACK;
        if payload > 0 && offset + payload == self.tx.store.end() {
            flags = flags | Flags::PSH;
        }
        if payload < len {
            flags = flags | Flags::FIN;
        }
        self.emit(env, stamp, self.tx.seq(offset), flags, offset, payload as usize)
    }

    pub(super) fn send_ack<Q: Queue>(&mut self, env: &mut Env<'_, Q>) -> Result<(), Blocked> {
        let seq = self.bare_seq();
        if seq != self.tx.seq(self.tx.sender.nxt()) {
            self.tx.sender.stamped(env.now);
        }
        self.emit(env, env.now, seq, Flags::ACK, 0, 0)?;
        env.world.counters.acks_sent += 1;
        Ok(())
    }

    /// The sequence number of a segment without text: the next one, but not beyond the peer's window, which a probe or a
    /// window that shrank may have left behind. The peer would drop it there, acknowledgement and all (Linux:
    /// `tcp_acceptable_seq`).
    #[inline]
    fn bare_seq(&self) -> u32 {
        let sender = &self.tx.sender;
        let edge = sender.una() + u64::from(sender.window());
        self.tx.seq(sender.nxt().min(edge))
    }

    /// A segment that the peer must answer: it lies before what it expects (RFC 9293 3.8.4). Lost ones are not repeated but by
    /// the next.
    pub(super) fn send_keep_alive<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        let seq = self.tx.seq(self.tx.sender.nxt()).wrapping_sub(1);
        let _ = self.emit(env, env.now, seq, Flags::ACK, 0, 0);
    }

    /// Whether the peer owes an acknowledgement, or the window for what waits.
    #[inline]
    pub(super) fn owed(&self) -> bool {
        let (unsent, fin) = self.unsent();
        !self.tx.sender.is_idle() || unsent > 0 || fin
    }

    /// Says that the connection is over, as far as one frame can. A lost one costs the peer a wait, nothing more.
    pub(crate) fn send_reset<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        let seq = self.bare_seq();
        let _ = self.emit(env, env.now, seq, Flags::RST | Flags::ACK, 0, 0);
    }

    /// What the sender's clock asks for.
    pub(super) fn on_sender_timeout<Q: Queue>(&mut self, env: &mut Env<'_, Q>) -> Fate {
        match self.tx.sender.on_timeout(env.now) {
            Timeout::None | Timeout::Resume => {}
            Timeout::TailLoss => env.world.counters.tail_probes += 1,
            Timeout::Late => env.world.counters.fast_retransmits += 1,
            Timeout::Retransmit if !self.is_hopeless() => {
                env.world.counters.rto_expired += 1;
                self.on_lost(env);
            }
            Timeout::Probe => self.send_probe(env),
            Timeout::Retransmit | Timeout::GiveUp => {
                self.send_reset(env);
                return Fate::Over(CloseReason::TimedOut);
            }
        }
        Fate::Live
    }

    /// A zero-window probe (RFC 9293 3.8.6.1): the least that the peer must answer.
    fn send_probe<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        let (offset, len) = self.tx.sender.probe();
        let (unsent, fin) = self.unsent();
        let sent = if offset < self.tx.sender.nxt() {
            let sent = self.send_data(env, env.now, offset, u64::from(len));
            if sent.is_ok() {
                self.tx.sender.retransmitted(env.now, offset, u64::from(len));
            }
            sent
        } else {
            match u64::from(len).min(unsent + u64::from(fin)) {
                0 => return,
                len => self.send_first(env, len),
            }
        };
        env.world.counters.window_probes += u64::from(sent.is_ok());
    }

    /// The device carries more than a frame of ours holds (loopback over IPv6): from the next turn on, segments are smaller.
    #[cold]
    fn cut_to_frame<Q: Queue>(&mut self, env: &mut Env<'_, Q>, frame: Q::Frame, payload: usize) {
        let capacity = frame.capacity();
        env.queue.release(frame);
        if payload > usize::from(self.tx.mss) {
            env.world.caps.tx_segment_max = capacity;
        } else {
            let headers = self.template.header_len() + self.options_len();
            let mss = capacity.saturating_sub(headers).clamp(1, usize::from(self.tx.mss));
            self.tx.mss = mss as u16;
            self.tx.sender.set_mss(mss);
        }
    }

    /// Bytes of options in every segment.
    #[inline]
    fn options_len(&self) -> usize {
        if self.stamps.is_some() { timestamps::OPTION_LEN } else { 0 }
    }

    /// The options of a segment with `payload` bytes. Holes are reported where there is room for it: data keeps its full
    /// size, and a segment that is full anyhow has others behind it, or an acknowledgement of its own.
    #[inline]
    fn options(&self, stamp: Instant, hold: &HoldPool, payload: usize) -> ArrayVec<u8, 40> {
        let mut options = ArrayVec::new();
        if let Some(stamps) = &self.stamps {
            options.extend(stamps.option(stamp));
        }
        // Four bytes of kind, length and padding, eight for each range.
        let spare = usize::from(self.tx.mss).saturating_sub(payload).min(options.remaining_capacity());
        if spare >= 12 {
            add_sack(&mut options, &self.rx.sack(hold, (spare - 4) / 8));
        }
        options
    }

    /// Writes one segment into a free frame and queues it.
    fn emit<Q: Queue>(
        &mut self,
        env: &mut Env<'_, Q>,
        stamp: Instant,
        seq: u32,
        flags: Flags,
        offset: u64,
        payload: usize,
    ) -> Result<(), Blocked> {
        let Some(frame) = env.queue.alloc_tx() else {
            env.world.counters.tx_exhausted += 1;
            return Err(Blocked);
        };
        let options = self.options(stamp, &env.world.hold, payload);
        let header = self.template.header_len() + options.len();
        if header + payload > frame.capacity() {
            self.cut_to_frame(env, frame, payload);
            return Err(Blocked);
        }
        let caps = &env.world.caps;
        let frame = env.frame.insert(frame);
        frame.set_len(header + payload);
        let bytes = frame.bytes_mut();
        if payload > 0 {
            let n = self.tx.store.read_at(&env.world.pool, offset, &mut bytes[header..]);
            debug_assert_eq!(n, payload, "the sender's offsets lie in the store");
        }
        let new_text = payload > 0 && offset >= self.tx.sender.nxt();
        // RFC 3168 6.1.6: no mark on, and no CWR in, a probe that may well be refused.
        let (ecn, ect) = self.ecn.bits(new_text && !self.tx.sender.is_probing());
        let window = self.rx.window();
        let segment = Outgoing {
            seq,
            ack: self.rx.seq(self.rx.next),
            flags: flags | ecn,
            window,
            options: &options,
            payload_len: payload,
        };
        let checksum = if caps.tx_checksum { TxChecksum::Partial } else { TxChecksum::Full };
        self.template.write(bytes, &segment, checksum);
        if ect {
            self.template.mark_ect(bytes);
        }
        let mss = usize::from(self.tx.mss);
        let offload = TxOffload {
            checksum_start: caps.tx_checksum.then_some((self.template.header_len() - 20) as u16),
            segment_size: (payload > mss).then_some(self.tx.mss),
        };
        if let Some(frame) = env.frame.take() {
            env.queue.tx(frame, offload);
        }
        env.world.counters.tx_frames += 1;
        self.rx.on_sent(env.now, window, payload == 0, options.len() > self.options_len());
        Ok(())
    }
}

/// Adds the SACK option (RFC 2018) for these ranges, padded to 32 bits.
#[inline]
fn add_sack(options: &mut ArrayVec<u8, 40>, ranges: &ArrayVec<(u32, u32), 4>) {
    if !ranges.is_empty() {
        options.extend([1, 1, 5, 2 + 8 * ranges.len() as u8]);
        for (left, right) in ranges {
            options.extend(left.to_be_bytes());
            options.extend(right.to_be_bytes());
        }
    }
}
