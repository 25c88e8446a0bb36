//! The receiving half: what has arrived, what was promised to the peer, and when to say so.

use crate::Instant;
use crate::limits::{DELAYED_ACK_US, RX_BUFFER};
use crate::machine::Reply;
use arrayvec::ArrayVec;

/// Offsets are of the peer's stream: 0 is its first payload byte, its FIN counts one.
pub(super) struct Receive {
    /// Sequence number of offset 0.
    base: u32,
    /// The next offset expected: RCV.NXT.
    pub(super) next: u64,
    /// How far the application has read.
    pub(super) consumed: u64,
    /// Right edge of the window that smoltcp remembers. Never promised beyond: smoltcp would cut there.
    pub(super) edge: u64,
    /// RCV.NXT as last sent.
    pub(super) acked: u64,
    /// Right edge as last sent.
    pub(super) promised: u64,
    /// When an acknowledgement that waits for data to ride on goes on its own.
    pub(super) ack_deadline: Option<Instant>,
    ack_now: bool,
    /// The peer has sent its FIN and all before it.
    pub(super) finished: bool,
    /// Where a FIN stands that came before the text in front of it.
    pub(super) early_fin: Option<u64>,
    sack_permitted: bool,
    /// What smoltcp holds beyond `next`, for the next acknowledgement.
    pub(super) sack: ArrayVec<(u32, u32), 4>,
}

impl Receive {
    pub(super) fn new(base: u32, sack_permitted: bool) -> Self {
        let edge = RX_BUFFER as u64;
        Receive {
            base,
            next: 0,
            consumed: 0,
            edge,
            acked: 0,
            promised: edge,
            ack_deadline: None,
            ack_now: false,
            finished: false,
            early_fin: None,
            sack_permitted,
            sack: ArrayVec::new(),
        }
    }

    #[inline]
    pub(super) fn seq(&self, offset: u64) -> u32 {
        self.base.wrapping_add(offset as u32)
    }

    /// How far `seq` lies from what is expected next; negative: it is old. Meaningful within 2^31.
    #[inline]
    pub(super) fn distance(&self, seq: u32) -> i32 {
        seq.wrapping_sub(self.seq(self.next)) as i32
    }

    /// The window to put on the wire, bytes: 65,535 at most because the buffer is no larger (shift 0).
    #[inline]
    pub(super) fn window(&self) -> u16 {
        self.edge.saturating_sub(self.next).min(u64::from(u16::MAX)) as u16
    }

    /// Whether the FIN that came early is next, and the window has room for it (see `Connection::cut`).
    #[inline]
    pub(super) fn early_fin_is_next(&self) -> bool {
        self.early_fin == Some(self.next) && !self.finished && self.next < self.edge
    }

    /// Takes note of what smoltcp said, and with it remembers.
    pub(super) fn on_reply(&mut self, reply: &Reply) {
        let ack = self.next.wrapping_add_signed(i64::from(self.distance(reply.ack)));
        // smoltcp counts the peer's FIN in its window's start; the edge is where it said.
        self.edge = self.edge.max(ack + u64::from(reply.window));
        if self.sack_permitted {
            self.sack = reply.sack.clone();
        }
    }

    /// Whether smoltcp should be asked for a later edge: only worth its price when it brings a good part of a window.
    #[inline]
    pub(super) fn edge_is_stale(&self) -> bool {
        self.consumed + RX_BUFFER as u64 >= self.edge + RX_BUFFER as u64 / 4
    }

    /// New bytes in order, or a FIN: acknowledge every second full segment at once (RFC 9293 3.8.6.3), else soon.
    pub(super) fn on_progress(&mut self, now: Instant, mss: u16) {
        if self.next - self.acked >= 2 * u64::from(mss) || self.finished {
            self.ack_now = true;
        } else if self.ack_deadline.is_none() {
            self.ack_deadline = Some(now.plus_micros(DELAYED_ACK_US));
        }
    }

    pub(super) fn ack_now(&mut self) {
        self.ack_now = true;
    }

    /// Whether an acknowledgement must go even if no data does: asked for, or the peer is nearly out of window while we
    /// have room (RFC 9293 3.8.6.2.2: no small steps).
    #[inline]
    pub(super) fn ack_due(&self) -> bool {
        let left = self.promised.saturating_sub(self.next);
        self.ack_now || (left < RX_BUFFER as u64 / 2 && self.edge >= self.promised + RX_BUFFER as u64 / 4)
    }

    /// A segment with our acknowledgement and window has gone out.
    #[inline]
    pub(super) fn on_sent(&mut self) {
        self.acked = self.next;
        self.promised = self.promised.max(self.next + u64::from(self.window()));
        self.ack_deadline = None;
        self.ack_now = false;
    }
}
