//! What HTTP keeps for a connection.

use super::exchange::Exchange;
use khamsin_stack::Instant;

/// One connection. 48 bytes while it is idle; a buffer only while a head is incomplete, an exchange only while an
/// answer cannot be given at once.
#[derive(Debug)]
pub struct HttpSession {
    pub(crate) state: State,
    /// Since when the peer's progress counts; a head counts from its first byte.
    pub(crate) since: Instant,
    /// The deadline that the stream was asked for, or [`Instant::FAR_FUTURE`].
    pub(crate) due: Instant,
    /// What the peer had to take then, or at most since then, in bytes.
    pub(crate) level: u64,
}

/// Where a connection stands.
#[derive(Debug)]
pub(crate) enum State {
    /// Between requests.
    Idle,
    /// A request head has begun.
    Head(Vec<u8>),
    /// A request is being answered.
    Exchange(Box<Exchange>),
    /// The last answer is given and our stream ended; what still comes is thrown away.
    Lingering,
}

impl HttpSession {
    pub(crate) fn new(now: Instant) -> Self {
        HttpSession { state: State::Idle, since: now, due: Instant::FAR_FUTURE, level: 0 }
    }
}
