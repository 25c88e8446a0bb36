//! What is taken back when a reduction turns out to have been wrong, and how that is found out: DSACK (RFC 3708),
//! timestamps (Eifel, RFC 3522 and 4015), forward progress after a timeout (F-RTO, RFC 5682).

use super::congestion::Congestion;

/// One reduction that may still be taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undo {
    /// The window as it was.
    pub(super) before: Congestion,
    /// `una` when it began: duplicates of older bytes say nothing about it.
    from: u64,
    /// Something went out again.
    resent: bool,
    /// Bytes sent again and not yet reported as received twice.
    outstanding: u64,
}

impl Undo {
    pub(super) fn new(before: Congestion, una: u64) -> Self {
        Undo { before, from: una, resent: false, outstanding: 0 }
    }

    /// `len` bytes went out again.
    pub(super) fn resent(&mut self, len: u64) {
        self.resent = true;
        self.outstanding += len;
    }

    /// Whether the peer may still report all of it as received twice.
    pub(super) fn is_open(&self) -> bool {
        self.resent && self.outstanding > 0
    }

    /// The peer received `left..right` twice. Whether that was true of everything sent again.
    pub(super) fn duplicated(&mut self, left: u64, right: u64) -> bool {
        if !self.resent || left < self.from {
            return false;
        }
        self.outstanding = self.outstanding.saturating_sub(right - left);
        self.outstanding == 0
    }
}
