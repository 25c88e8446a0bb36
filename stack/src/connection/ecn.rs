//! Explicit congestion notification (RFC 3168), both halves of one connection.

use crate::wire::{Flags, Segment};

/// What this connection owes its peer of what routers said.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ecn {
    /// The handshake agreed on it.
    agreed: bool,
    /// A router marked a segment of the peer's, and the peer has not said that it slowed down: every ACK says so (6.1.3).
    echo: bool,
    /// We slowed down and the peer has not been told (6.1.2).
    reduced: bool,
}

impl Ecn {
    pub(super) fn new(agreed: bool) -> Self {
        Ecn { agreed, ..Ecn::default() }
    }

    /// What is remembered while the connection is parked: agreed, echo, reduced.
    pub(super) fn parts(&self) -> [bool; 3] {
        [self.agreed, self.echo, self.reduced]
    }

    /// Goes on from [`parts`](Self::parts).
    pub(super) fn from_parts([agreed, echo, reduced]: [bool; 3]) -> Self {
        Ecn { agreed, echo, reduced }
    }

    /// Takes note of a segment with text; says whether its ACK cannot wait: the peer is to hear of congestion at once.
    #[inline]
    pub(super) fn on_text(&mut self, segment: &Segment) -> bool {
        if !self.agreed {
            return false;
        }
        // The mark on the very segment that says "reduced" is of a later queue.
        if segment.flags.intersects(Flags::CWR) {
            self.echo = false;
        }
        let news = segment.congested && !self.echo;
        self.echo |= segment.congested;
        news
    }

    /// Whether the peer says that a router marked what we sent.
    #[inline]
    pub(super) fn echoed(&self, flags: Flags) -> bool {
        self.agreed && flags.intersects(Flags::ECE)
    }

    #[inline]
    pub(super) fn is_agreed(&self) -> bool {
        self.agreed
    }

    /// The congestion window was reduced: the next new text says so.
    pub(super) fn reduced(&mut self) {
        self.reduced = self.agreed;
    }

    /// The bits of the next segment, and whether routers may mark it: new text only (6.1.4, 6.1.5, 6.1.6).
    #[inline]
    pub(super) fn bits(&mut self, new_text: bool) -> (Flags, bool) {
        if !self.agreed {
            return (Flags::default(), false);
        }
        let mut flags = if self.echo { Flags::ECE } else { Flags::default() };
        if new_text && core::mem::take(&mut self.reduced) {
            flags = flags | Flags::CWR;
        }
        (flags, new_text)
    }
}
