//! The window that the peer is offered: its scale, its size, and what was promised.

use crate::Instant;
use crate::limits::{HOLD_BLOCK, RX_BUFFER};

/// The offer of one connection. Offsets are of the peer's stream.
///
/// It begins at 64 KiB, which smoltcp's ring always has, and grows with what the application consumes in a round trip
/// (Linux: `tcp_rcv_space_adjust`), as far as the pool for held text could honour it.
pub(super) struct Window {
    /// Bytes offered beyond what the application has consumed.
    space: u64,
    /// Right edge as sent, the largest ever: what the peer may use.
    pub(super) promised: u64,
    /// Of our windows (RFC 7323 2.2).
    shift: u8,
    /// Most bytes that were consumed in a round trip so far.
    best: u64,
    /// The peer's round trip, microseconds; 0: not known yet.
    rtt_us: u64,
    /// When to look at the size again; never for a peer that does not scale.
    look_at: Instant,
    /// When that was done last, and how much had been consumed.
    looked: (Instant, u64),
    /// A window's worth was asked for at this time; when this offset has come, a round trip is over.
    worth: (Instant, u64),
}

/// What a look at a window's size needs to know.
pub(super) struct Look {
    pub(super) now: Instant,
    pub(super) next: u64,
    pub(super) consumed: u64,
    /// Largest segment seen, bytes.
    pub(super) full_segment: u64,
    /// What the pool would hold for this connection, bytes.
    pub(super) share: usize,
    /// The largest window allowed, bytes.
    pub(super) most: usize,
}

/// The edge may wander this far beyond what is meant to be offered, bytes, before it is rounded down: a peer that sends
/// byte by byte would move it for ever, by the rounding of a scaled window.
const ROUNDING: u64 = 16 * 1024;
/// Shortest time between two looks, microseconds.
const LOOK_MIN_US: u64 = 1_000;
/// Longest, and the time between two while no round trip is known, microseconds.
const LOOK_MAX_US: u64 = 500_000;
const LOOK_BLIND_US: u64 = 10_000;

impl Window {
    /// The SYN|ACK has promised 65,535 bytes, unscaled (RFC 7323 2.2). `shift` is the one that it named, 0 without;
    /// `rtt_us` what the handshake took.
    pub(super) fn new(now: Instant, shift: u8, rtt_us: Option<u64>, full_segment: u64) -> Self {
        let space = u64::from(u16::MAX);
        let never = if shift == 0 { Instant::FAR_FUTURE } else { now };
        Window {
            space,
            promised: space,
            shift,
            // What Linux begins with too: an initial window of the peer's.
            best: 10 * full_segment,
            rtt_us: rtt_us.unwrap_or(0),
            look_at: never,
            looked: (now, 0),
            worth: (now, space),
        }
    }

    /// The offer of a connection that was parked: `promised` bytes are open to the peer, `space` was what it is worth.
    pub(super) fn resumed(now: Instant, shift: u8, rtt_us: u32, full_segment: u64, promised: u64, space: u64) -> Self {
        let rtt_us = (rtt_us > 0).then_some(u64::from(rtt_us));
        let worth = (now, promised.max(1));
        Window { space, promised, worth, ..Window::new(now, shift, rtt_us, full_segment) }
    }

    /// Whether the handshake agreed on scaling.
    pub(super) fn scales(&self) -> bool {
        self.shift > 0
    }

    /// Bytes offered beyond what the application has consumed.
    pub(super) fn space(&self) -> u64 {
        self.space
    }

    /// The least that the right edge moves, bytes (RFC 9293 3.8.6.2.2), and no less than the scale can express.
    #[inline]
    fn step(&self, full_segment: u64) -> u64 {
        full_segment.min(self.space / 2).max((1 << self.shift) - 1)
    }

    /// The window field. The right edge never moves back (RFC 9293 3.8.6.2.1): what scaling cannot express is rounded up.
    #[inline]
    pub(super) fn field(&self, next: u64, consumed: u64, full_segment: u64) -> u16 {
        let kept = self.promised.saturating_sub(next);
        let meant = (consumed + self.space).saturating_sub(next);
        let bytes = if meant >= kept + self.step(full_segment) {
            meant
        } else if self.promised > consumed + self.space + ROUNDING {
            kept
        } else {
            kept + (1 << self.shift) - 1
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

    /// A segment with text echoes what we sent `rtt_us` ago (RFC 7323 4).
    #[inline]
    pub(super) fn measured(&mut self, rtt_us: u64) {
        let rtt_us = rtt_us.max(1);
        self.rtt_us = if self.rtt_us == 0 { rtt_us } else { (7 * self.rtt_us + rtt_us).div_ceil(8) };
    }

    /// Whether it is time to [look](Self::look) at the size.
    #[inline]
    pub(super) fn look_due(&self, now: Instant) -> bool {
        now >= self.look_at
    }

    /// Grows the window if more was consumed since the last look than in any round trip before; takes back what the pool
    /// cannot honour, as far as it was not promised. True if it grew.
    pub(super) fn look(&mut self, at: &Look) -> bool {
        self.watch_a_windowful(at);
        let (since, then) = self.looked;
        self.looked = (at.now, at.consumed);
        let rtt_us = self.rtt_us;
        let gap_us = if rtt_us == 0 { LOOK_BLIND_US } else { rtt_us.clamp(LOOK_MIN_US, LOOK_MAX_US) };
        self.look_at = at.now.plus_micros(gap_us);
        // A block more is needed where the text does not begin with one.
        let share = at.share.saturating_sub(ROUNDING as usize + HOLD_BLOCK);
        let most = (RX_BUFFER + share).min(at.most).max(RX_BUFFER) as u64;
        self.space = self.space.min(most);
        let elapsed_us = at.now.micros_since(since).max(1);
        if rtt_us == 0 || elapsed_us < rtt_us {
            return false;
        }
        // The look may come late: what counts is one round trip.
        let consumed = (at.consumed - then).saturating_mul(rtt_us) / elapsed_us;
        if consumed <= self.best {
            return false;
        }
        // Twice that, for losses to be repaired without a stop, and more while it grows fast: slow start doubles.
        let wanted = 2 * consumed + 16 * at.full_segment;
        let wanted = wanted.saturating_add(wanted.saturating_mul(2 * (consumed - self.best)) / self.best);
        self.best = consumed;
        let grown = wanted.min(most) > self.space;
        self.space = self.space.max(wanted.min(most));
        grown
    }

    /// Without timestamps: a window's worth of text cannot come in less than a round trip (Linux: `tcp_rcv_rtt_measure`).
    fn watch_a_windowful(&mut self, at: &Look) {
        let (since, edge) = self.worth;
        if at.next < edge {
            return;
        }
        let took_us = at.now.micros_since(since).max(1);
        self.rtt_us = if self.rtt_us == 0 { took_us } else { self.rtt_us.min(took_us) };
        self.worth = (at.now, self.promised.max(at.next + 1));
    }
}
