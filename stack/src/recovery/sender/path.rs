//! What a smaller path MTU does to a sender.

use super::{Sender, Tail};
use crate::Instant;

impl Sender {
    /// The path takes no more than `mss` bytes of payload in a segment, and what is in flight in longer ones is lost: it
    /// goes again at once, and says nothing about congestion (RFC 1191 6.5, RFC 8201 5.4; Linux: `tcp_simple_retransmit`).
    /// Nothing is sent again while the peer's window is closed.
    pub fn path_shrank(&mut self, now: Instant, mss: usize) {
        self.set_mss(mss);
        if self.is_idle() || self.probing || self.window == 0 {
            return;
        }
        let mss = self.mss;
        self.board.settle();
        self.board.lose_where(|run| run.segment > mss && run.len > u32::from(mss));
        let (una, nxt) = (self.una, self.nxt);
        let repair = self.repair();
        repair.lost_from = una;
        // Without SACK, duplicate ACKs until then are of what is sent again.
        repair.guard = nxt;
        self.left = 0;
        self.dup_acks = 0;
        self.tail = Tail::Quiet;
        self.base = now;
        self.seek_lost();
        self.arm(now);
    }
}
