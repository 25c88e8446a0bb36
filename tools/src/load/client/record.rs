//! What is known of one connection: a cache line.

use crate::load::judge::Reader;

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(super) enum State {
    #[default]
    Free,
    /// Our SYN is under way.
    Syn,
    Open,
    /// Our FIN is sent or waits to be.
    Closing,
}

/// One bit of [`Flags`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Flag {
    /// In the list of those that want to say something.
    Touched = 1,
    /// In the list of those that found no frame.
    Stuck = 2,
    /// In the queue of those that are looked after.
    Watched = 4,
    /// In the queue of those that owe an acknowledgement by and by.
    AckQueued = 8,
    /// Owes an acknowledgement at the end of the turn.
    AckNow = 16,
    /// The peer has ended its stream.
    PeerFin = 32,
    /// The peer scales no windows.
    Unscaled = 64,
    /// The hole that repeated ACKs told of has been filled once.
    Repaired = 128,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Flags(u8);

impl Flags {
    #[inline]
    pub(super) fn has(self, flag: Flag) -> bool {
        self.0 & flag as u8 != 0
    }

    #[inline]
    pub(super) fn set(&mut self, flag: Flag) {
        self.0 |= flag as u8;
    }

    #[inline]
    pub(super) fn clear(&mut self, flag: Flag) {
        self.0 &= !(flag as u8);
    }

    /// What outlives a connection: which queues its number is in.
    pub(super) fn queues(self) -> Flags {
        let of = [Flag::Touched, Flag::Stuck, Flag::Watched, Flag::AckQueued];
        Flags(of.iter().fold(0, |bits, flag| bits | (self.0 & *flag as u8)))
    }
}

/// A connection. Sequence numbers as in RFC 9293 3.3.1.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Connection {
    pub(super) snd_una: u32,
    pub(super) snd_nxt: u32,
    /// Behind the last byte of the requests made so far; a FIN would have this number.
    pub(super) snd_end: u32,
    pub(super) rcv_nxt: u32,
    /// Where in the speech `snd_una` is.
    pub(super) una_offset: u32,
    /// The peer's window, bytes.
    pub(super) snd_wnd: u32,
    pub(super) reader: Reader,
    /// When something last went forward, microseconds since the client began; while `Syn`: when it was sent.
    pub(super) progress_us: u32,
    pub(super) port: u16,
    /// The peer's maximum segment size, bytes.
    pub(super) mss: u16,
    pub(super) source: u8,
    pub(super) state: State,
    pub(super) flags: Flags,
    /// Retransmissions without progress.
    pub(super) backoff: u8,
    /// Shift of the windows that the peer offers.
    pub(super) snd_shift: u8,
    /// Segments with text since the last acknowledgement.
    pub(super) unacked: u8,
    /// Acknowledgements in a row that acknowledged nothing new.
    pub(super) repeats: u8,
}

impl Connection {
    /// Whether something is sent and not acknowledged, or not sent yet.
    #[inline]
    pub(super) fn owes(&self) -> bool {
        match self.state {
            State::Free => false,
            State::Syn | State::Closing => true,
            State::Open => self.snd_una != self.snd_end,
        }
    }

    /// The last sequence number that can be sent now, plus one: a FIN counts.
    #[inline]
    pub(super) fn snd_limit(&self) -> u32 {
        self.snd_end.wrapping_add(u32::from(self.state == State::Closing))
    }
}

/// Whether sequence number `a` lies before `b`.
#[inline]
pub(super) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_cache_line() {
        assert_eq!(size_of::<Connection>(), 64);
    }

    #[test]
    fn sequence_numbers_wrap() {
        assert!(before(u32::MAX, 0) && before(5, 6) && !before(6, 6) && !before(0, u32::MAX));
    }
}
