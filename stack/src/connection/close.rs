//! When a connection is over.

use super::{Connection, Fate};
use crate::CloseReason;
use smoltcp::socket::tcp::State;

impl<S> Connection<S> {
    /// Both streams have ended, both ends know it, and the application has seen everything.
    pub(super) fn after_close(&self) -> Fate {
        let over = self.tx.fin_acked && self.rx.finished;
        if over && !self.wants_service() { Fate::Over(CloseReason::Finished) } else { Fate::Live }
    }

    /// Whether we closed first, and so have to remember the flow for a while (RFC 9293 3.6.1).
    pub(crate) fn owes_time_wait(&self) -> bool {
        self.unit.state() == State::TimeWait
    }
}
