//! What a sender that rests is remembered by, and how it goes on from there.

use super::{Mode, Sender, Setup, Tail};
use crate::Instant;
use crate::recovery::Algorithm;

/// What outlives a pause: the round trip and the congestion window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct History {
    /// Smoothed round-trip time, microseconds; 0: not measured.
    pub srtt_us: u32,
    /// Its variation, microseconds.
    pub variation_us: u32,
    /// The SYN|ACK had to be sent again, and nothing was measured since.
    pub handshake_lost: bool,
    /// Doublings of the retransmission timeout, until the next measurement.
    pub backoffs: u8,
    /// Congestion window, bytes.
    pub cwnd: u32,
    /// Slow start threshold, bytes; `u32::MAX`: no loss yet.
    pub ssthresh: u32,
    /// What moves the window.
    pub algorithm: Algorithm,
    /// The next new segment says that the window was reduced.
    pub cwr: bool,
}

impl Sender {
    /// What to remember of a sender with nothing to do; `None` while it has. `now` is when the peer was last heard of: what
    /// the pause before has cost the window is paid ([`resumed`](Self::resumed) counts from there).
    pub fn history(&self, now: Instant) -> Option<History> {
        let off = Instant::FAR_FUTURE;
        let timers = [self.timer, self.reorder_at, self.release_at];
        // A probe of the tail that was answered and not judged: what it may still cost is forgiven.
        let tail = matches!(self.tail, Tail::Quiet | Tail::Out(..));
        let rests = self.is_idle() && self.mode == Mode::Open && tail && timers == [off; 3];
        if !rests || self.probing || self.waiting || self.more {
            return None;
        }
        let mut congestion = self.congestion;
        let pause_us = now.micros_since(self.last_sent);
        if self.last_sent > Instant::ZERO && pause_us > self.rtt.rto() {
            congestion.after_idle(pause_us / self.rtt.rto().max(1), self.mss());
        }
        let (srtt_us, variation_us, handshake_lost) = self.rtt.parts();
        Some(History {
            srtt_us,
            variation_us,
            handshake_lost,
            backoffs: self.backoffs,
            cwnd: congestion.cwnd(),
            ssthresh: congestion.ssthresh(),
            algorithm: congestion.algorithm(),
            cwr: self.cwr,
        })
    }

    /// A sender that goes on where another was at `since`, with new offsets from 0. Its window shrinks with the pause when
    /// it next sends, like any other's.
    pub fn resumed(setup: &Setup, history: &History, since: Instant) -> Self {
        let mut sender = Sender::new(&Setup { algorithm: history.algorithm, ..*setup });
        sender.rtt.restore(since, history.srtt_us, history.variation_us, history.handshake_lost);
        sender.congestion.restore(history.cwnd, history.ssthresh, sender.mss());
        sender.backoffs = history.backoffs;
        sender.cwr = history.cwr;
        sender.last_sent = since;
        sender
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::Ack;

    fn setup() -> Setup {
        Setup { mss: 1000, window: 1 << 20, sack: true, algorithm: Algorithm::Cubic }
    }

    fn ack(ack: u64) -> Ack<'static> {
        Ack { ack, window: Some(1 << 20), pure: true, sack: &[], echoed: None, ece: false }
    }

    #[test]
    fn a_sender_with_something_in_flight_has_no_history_yet() {
        let now = Instant::from_millis(1000);
        let mut sender = Sender::new(&setup());
        sender.sent(now, 0, 1000);
        sender.blocked(now, 0);
        assert_eq!(sender.history(now), None);
        sender.on_ack(now.plus_micros(20_000), &ack(1000));
        sender.blocked(now, 0);
        let history = sender.history(now.plus_micros(20_000)).expect("it rests");
        assert_eq!((history.srtt_us, history.variation_us), (20_000, 10_000));
        assert_eq!((history.cwnd, history.ssthresh), (sender.cwnd(), u32::MAX));
    }

    /// RFC 2861: awake or parked, a pause costs the window the same.
    #[test]
    fn the_window_shrinks_with_a_pause_as_if_nothing_had_happened() {
        let now = Instant::from_millis(1000);
        let mut awake = Sender::new(&setup());
        awake.seed_rtt(now, 20_000);
        for round in 0..6 {
            let (at, nxt) = (now.plus_micros(round * 20_000), awake.nxt());
            let len = awake.allowance(at, 1 << 20, false);
            awake.sent(at, nxt, len);
            awake.blocked(at, 0);
            awake.on_ack(at.plus_micros(20_000), &ack(nxt + len));
        }
        let heard = now.plus_micros(6 * 20_000);
        assert!(awake.cwnd() > 100_000);
        for pause_us in [0, 100_000, 230_000, 500_000, 60_000_000] {
            let (mut awake, later) = (awake.clone(), heard.plus_micros(pause_us));
            let history = awake.history(heard).expect("it rests");
            let mut woken = Sender::resumed(&setup(), &history, heard);
            assert_eq!(woken.rto_us(), awake.rto_us());
            // One counts from what it sent last, the other from the answer: a round trip later.
            let [a, b] = [&mut awake, &mut woken].map(|s| s.allowance(later, 1 << 20, false));
            assert!(b == a || b == 2 * a, "{pause_us}: {a} awake, {b} woken");
        }
    }
}
