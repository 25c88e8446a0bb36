//! The window that the peer is offered: its size, its scale, and what was promised.

/// The offer of one connection. Offsets are of the peer's stream.
pub(super) struct Window {
    /// Bytes offered beyond what the application has consumed.
    space: u64,
    /// Right edge as sent, the largest ever: what the peer may use.
    pub(super) promised: u64,
    /// Of our windows (RFC 7323 2.2).
    shift: u8,
}

/// The edge may wander this far beyond what is meant to be offered, bytes, before it is rounded down: a peer that sends
/// byte by byte would move it for ever, by the rounding of a scaled window.
const ROUNDING: u64 = 16 * 1024;

impl Window {
    /// The SYN|ACK has promised `space` bytes, unscaled (RFC 7323 2.2).
    pub(super) fn new(space: u16, shift: u8) -> Self {
        Window { space: u64::from(space), promised: u64::from(space), shift }
    }

    /// The least that the right edge moves, bytes (RFC 9293 3.8.6.2.2), and no less than the scale can express.
    #[inline]
    fn step(&self, full_segment: u64) -> u64 {
        full_segment.min(self.space / 2).max((1 << self.shift) - 1)
    }

    /// The window field. The right edge moves in steps of a segment at least (RFC 9293 3.8.6.2.2), and never back (3.8.6.2.1):
    /// what scaling cannot express is rounded up.
    #[inline]
    pub(super) fn field(&self, next: u64, consumed: u64, full_segment: u64) -> u16 {
        let kept = self.promised.saturating_sub(next);
        let meant = (consumed + self.space).saturating_sub(next);
        let up = (1 << self.shift) - 1;
        let bytes = if meant >= kept + self.step(full_segment) {
            meant
        } else if kept > meant + ROUNDING {
            kept
        } else {
            kept + up
        };
        (bytes >> self.shift).min(u64::from(u16::MAX)) as u16
    }

    /// Whether the peer should hear of more room although nothing else is to be said: it has less than half of what it could
    /// have (Linux: `tcp_cleanup_rbuf`).
    #[inline]
    pub(super) fn update_due(&self, next: u64, consumed: u64, full_segment: u64) -> bool {
        let kept = self.promised.saturating_sub(next);
        let meant = (consumed + self.space).saturating_sub(next);
        meant >= 2 * kept && meant >= kept + self.step(full_segment)
    }

    /// A segment with this window field and acknowledgement number `next` has gone out.
    #[inline]
    pub(super) fn promise(&mut self, next: u64, field: u16) {
        self.promised = self.promised.max(next + (u64::from(field) << self.shift));
    }
}
