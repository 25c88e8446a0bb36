//! The receiving half: what has arrived, what of it smoltcp has, and what was promised to the peer.

use super::acks::Acks;
use super::window::Window;
use crate::Instant;
use crate::limits::RX_BUFFER;
use crate::machine::Reply;
use crate::reassembly::{HoldPool, Reassembly};
use arrayvec::ArrayVec;

/// Where a FIN stands that nobody has seen.
const NOWHERE: u64 = u64::MAX;

/// Offsets are of the peer's stream: 0 is its first payload byte, its FIN counts one.
///
/// Three of them walk through the stream: `consumed <= fed <= next`. smoltcp is only ever fed in order, what fits its ring;
/// what came too early, and what waits for the ring, is `held`. What the application takes from the frame it came in is
/// not shown to smoltcp at all: its own count of the stream lags behind by the bytes `passed_by`.
pub(super) struct Receive {
    /// Sequence number of offset 0.
    base: u32,
    /// The next offset expected, RCV.NXT: everything below will reach the application.
    pub(super) next: u64,
    /// smoltcp, or the application, has had everything below.
    pub(super) fed: u64,
    /// Bytes that smoltcp has never seen.
    passed_by: u64,
    /// How far the application has read.
    pub(super) consumed: u64,
    /// Right edge of the window that smoltcp remembers: what lies beyond, it would cut.
    edge: u64,
    /// RCV.NXT as last sent.
    pub(super) acked: u64,
    /// The peer has sent its FIN and all before it.
    pub(super) finished: bool,
    /// It did so after we had sent ours.
    pub(super) finished_second: bool,
    /// The FIN stands here, once one was seen that can be believed.
    fin_at: u64,
    sack_permitted: bool,
    /// What came early or waits for room.
    pub(super) held: Reassembly,
    /// What came twice and has not been reported (RFC 2883).
    duplicate: Option<(u32, u32)>,
    pub(super) window: Window,
    pub(super) acks: Acks,
}

impl Receive {
    pub(super) fn new(base: u32, sack_permitted: bool, window: Window, acks: Acks) -> Self {
        Receive {
            base,
            next: 0,
            fed: 0,
            passed_by: 0,
            consumed: 0,
            edge: RX_BUFFER as u64,
            acked: 0,
            finished: false,
            finished_second: false,
            fin_at: NOWHERE,
            sack_permitted,
            held: Reassembly::default(),
            duplicate: None,
            window,
            acks,
        }
    }

    #[inline]
    pub(super) fn seq(&self, offset: u64) -> u32 {
        self.base.wrapping_add(offset as u32)
    }

    /// The sequence number that smoltcp expects next.
    #[inline]
    pub(super) fn machine_seq(&self) -> u32 {
        self.seq(self.fed - self.passed_by)
    }

    /// Bytes that smoltcp holds for the application.
    #[inline]
    pub(super) fn unread(&self) -> u64 {
        self.fed.min(self.fin_at) - self.consumed
    }

    /// The application has taken the next `n` bytes, and smoltcp is not to know of them.
    #[inline]
    pub(super) fn pass_by(&mut self, n: u64) {
        debug_assert!(self.unread() == 0, "what smoltcp holds comes first");
        self.fed += n;
        self.passed_by += n;
        self.consumed += n;
        // smoltcp's window stays where it is in smoltcp's own count.
        self.edge += n;
    }

    /// How far `seq` lies from what is expected next; negative: it is old. Meaningful within 2^31.
    #[inline]
    pub(super) fn distance(&self, seq: u32) -> i32 {
        seq.wrapping_sub(self.seq(self.next)) as i32
    }

    /// The window field of a segment sent now.
    #[inline]
    pub(super) fn window(&self) -> u16 {
        self.window.field(self.next, self.consumed, self.acks.full_segment())
    }

    /// How far beyond what is expected next the peer may send, bytes: the largest edge it was ever told (RFC 7323 2.4).
    #[inline]
    pub(super) fn room(&self) -> u64 {
        self.window.promised.saturating_sub(self.next)
    }

    /// Whether `len` bytes of text that is expected next can go to smoltcp as they came, and nothing else is to be done.
    #[inline]
    pub(super) fn goes_straight(&self, len: u64) -> bool {
        let end = self.next + len;
        self.held.is_empty() && self.fin_at == NOWHERE && end <= self.window.promised && end <= self.edge
    }

    /// Whether something is acknowledged that smoltcp has not had.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.fed < self.next
    }

    /// How far smoltcp may be fed now.
    #[inline]
    pub(super) fn ring_room(&self) -> u64 {
        self.edge.saturating_sub(self.fed)
    }

    /// Takes note of what smoltcp said, and with it remembers.
    pub(super) fn on_reply(&mut self, reply: &Reply) {
        let ack = self.fed.wrapping_add_signed(i64::from(reply.ack.wrapping_sub(self.machine_seq()) as i32));
        // smoltcp counts the peer's FIN in its window's start; the edge is where it said.
        self.edge = self.edge.max(ack + u64::from(reply.window));
    }

    /// Whether smoltcp could name a later edge.
    #[inline]
    pub(super) fn edge_lags(&self) -> bool {
        self.consumed + RX_BUFFER as u64 > self.edge && !self.fin_fed()
    }

    /// Whether smoltcp should be asked for a later edge: only worth its price when it brings a good part of a window.
    #[inline]
    pub(super) fn edge_is_stale(&self) -> bool {
        self.consumed + RX_BUFFER as u64 >= self.edge + RX_BUFFER as u64 / 4 && !self.fin_fed()
    }

    #[inline]
    fn fin_fed(&self) -> bool {
        self.fed > self.fin_at
    }

    /// Whether everything that came has reached the application, and no end is in sight.
    pub(super) fn is_settled(&self) -> bool {
        self.consumed == self.next && self.fed == self.next && self.held.is_empty() && self.fin_at == NOWHERE
    }

    /// Whether the peer reads SACK.
    pub(super) fn sack_permitted(&self) -> bool {
        self.sack_permitted
    }

    /// Whether the application has had the whole stream.
    #[inline]
    pub(super) fn is_consumed(&self) -> bool {
        self.consumed == self.fin_at
    }

    /// A FIN stands at offset `at`. The first one that can be true is believed: none in front of text that was taken.
    pub(super) fn take_fin(&mut self, pool: &HoldPool, at: u64) -> bool {
        let last = self.held.ranges(pool).last().map_or(0, |range| range[1]);
        let sound = at >= self.next && at >= last && at <= self.window.promised;
        if sound && self.fin_at == NOWHERE {
            self.fin_at = at;
        }
        self.fin_at == at
    }

    /// Where text must end: at the FIN, and at the window's edge.
    #[inline]
    pub(super) fn text_ends(&self) -> u64 {
        self.fin_at.min(self.window.promised)
    }

    /// Moves RCV.NXT over what is there now, the FIN included.
    pub(super) fn advance(&mut self, pool: &HoldPool) {
        if self.finished {
            return;
        }
        self.next = self.held.end_of_run(pool, self.fed).max(self.fed);
        if self.next == self.fin_at {
            self.next += 1;
            self.finished = true;
        }
    }

    /// Whether something came that lies behind a hole.
    pub(super) fn has_hole(&self, pool: &HoldPool) -> bool {
        self.held.ranges(pool).last().is_some_and(|range| range[1] > self.next)
    }

    /// Whether the FIN is what smoltcp is to be fed next.
    pub(super) fn fin_is_next(&self) -> bool {
        self.fed == self.fin_at
    }

    /// Notes the offsets `from..to` as received twice.
    pub(super) fn note_duplicate(&mut self, from: u32, to: u32) {
        if self.sack_permitted {
            self.duplicate = Some((from, to));
        }
    }

    /// Whether a report of something received twice has not gone out.
    pub(super) fn owes_report(&self) -> bool {
        self.duplicate.is_some()
    }

    /// The blocks of a SACK option with room for `room` of them: what came twice (RFC 2883 4), then what is held beyond
    /// RCV.NXT (RFC 2018 4).
    #[inline]
    pub(super) fn sack(&self, pool: &HoldPool, room: usize) -> ArrayVec<(u32, u32), 4> {
        let mut blocks = ArrayVec::new();
        if self.sack_permitted && (!self.held.is_empty() || self.duplicate.is_some()) {
            self.write_sack(pool, room, &mut blocks);
        }
        blocks
    }

    #[cold]
    fn write_sack(&self, pool: &HoldPool, room: usize, blocks: &mut ArrayVec<(u32, u32), 4>) {
        let room = room.min(4);
        blocks.extend(self.duplicate.into_iter().take(room));
        let mut ranges = ArrayVec::new();
        self.held.sack(pool, self.next, room - blocks.len(), &mut ranges);
        blocks.extend(ranges.iter().map(|&(left, right)| (self.seq(left), self.seq(right))));
    }

    pub(super) fn ack_now(&mut self) {
        self.acks.at_once();
    }

    /// Whether an acknowledgement must go even if no data does.
    #[inline]
    pub(super) fn ack_due(&self) -> bool {
        self.acks.due() || self.window.update_due(self.next, self.consumed, self.acks.full_segment())
    }

    /// A segment with our acknowledgement and this window field has gone out: without text, if `pure`; with our blocks, if
    /// it `reported`.
    #[inline]
    pub(super) fn on_sent(&mut self, now: Instant, window: u16, pure: bool, reported: bool) {
        self.window.promise(self.next, window);
        self.acked = self.next;
        self.acks.on_sent(now, pure);
        if reported {
            self.acks.on_report();
            self.duplicate = None;
        }
    }
}
