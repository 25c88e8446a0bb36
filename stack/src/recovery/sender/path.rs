//! What a smaller path MTU does to a sender.

use super::{Mode, Sender};
use crate::Instant;

impl Sender {
    /// The path takes no more than `mss` bytes of payload in a segment, and what is in flight was longer: all of it is lost
    /// and goes again at once, and none of it says anything about congestion (RFC 1191 6.5, RFC 8201 5.4; Linux:
    /// `tcp_simple_retransmit`). Nothing is sent again while the peer's window is closed.
    pub fn path_shrank(&mut self, now: Instant, mss: usize) {
        self.set_mss(mss);
        if self.is_idle() || self.probing || self.window == 0 {
            return;
        }
        // As after a timeout, but for its cut: duplicate ACKs until then are of what is sent again.
        self.mode = Mode::Loss;
        self.recover = self.nxt;
        self.resend = self.una;
        self.lost_to = self.nxt;
        self.left = 0;
        self.dup_acks = 0;
        self.timed_end = 0;
        self.deadline = now.plus_micros(self.rto_us());
    }
}
