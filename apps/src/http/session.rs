//! What HTTP keeps for a connection.

use super::exchange::Exchange;
use khamsin_stack::{Coarse, Instant};

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

    /// What stands for it between two requests: when the last one came, and whether that still counts.
    pub(crate) fn token(&self) -> Option<u32> {
        let since = Coarse::after(self.since).bits();
        let idle = matches!(self.state, State::Idle) && since < 1 << 31;
        idle.then_some(since << 1 | u32::from(self.level != 0))
    }

    /// The session that `token` stands for; its deadline is asked for anew.
    pub(crate) fn from_token(token: u32) -> Self {
        // Something was unacknowledged when it was last looked at, and is not any more: the peer took it.
        let level = if token & 1 == 0 { 0 } else { u64::MAX };
        HttpSession { level, ..HttpSession::new(Coarse::from_bits(token >> 1).instant()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idle_sessions_have_a_token_and_it_brings_them_back() {
        let now = Instant::from_millis(1_234_567);
        let mut session = HttpSession { level: 17, ..HttpSession::new(now) };
        for level in [17, 0] {
            session.level = level;
            let back = HttpSession::from_token(session.token().unwrap());
            assert!(back.since >= now && back.since.micros_since(now) <= 65_536, "{:?}", back.since);
            assert_eq!((back.level != 0, back.due), (level != 0, Instant::FAR_FUTURE));
            assert!(matches!(back.state, State::Idle));
        }
        for state in [State::Head(vec![b'G']), State::Lingering] {
            session.state = state;
            assert_eq!(session.token(), None);
        }
    }
}
