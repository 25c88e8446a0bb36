//! When a connection is over.

use super::{Connection, Fate};
use crate::limits::UNREAD_US;
use crate::{CloseReason, Instant};

impl<S> Connection<S> {
    /// Both streams have ended, both ends know it, and the application has seen everything, or had time for it.
    pub(super) fn after_close(&mut self, now: Instant) -> Fate {
        if !(self.tx.fin_acked && self.rx.finished) || self.wants_service() {
            return Fate::Live;
        }
        if self.rx.is_consumed() {
            return Fate::Over(CloseReason::Finished);
        }
        match self.unread_ends {
            None => self.unread_ends = Some(now.plus_micros(UNREAD_US)),
            Some(at) if at <= now => return Fate::Over(CloseReason::Finished),
            Some(_) => {}
        }
        Fate::Live
    }

    /// Whether we closed first, and so have to remember the flow for a while (RFC 9293 3.6.1).
    pub(crate) fn owes_time_wait(&self) -> bool {
        self.rx.finished_second
    }
}
