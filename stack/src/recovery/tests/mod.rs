//! Traces: each line is an event and what the sender answers. Offsets count segments of 1000 bytes.

mod any_order;
mod closed_window;
mod ecn_and_pacing;
mod fast_retransmit;
mod goodput;
mod hard_links;
mod new_data;
mod over_a_link;
mod rack;
mod runs;
mod tail;
mod timer;
mod undo;

use super::*;
use crate::Instant;

const MSS: u64 = 1000;
const MUCH: u64 = 1 << 40;

fn ms(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn new(mss: usize, window: u64) -> Sender {
    Sender::new(&Setup { mss, window, sack: false, algorithm: Algorithm::NewReno })
}

fn on_ack(s: &mut Sender, now: Instant, ack: u64, window: Option<u64>, pure: bool) -> AckOutcome {
    s.on_ack(now, &Ack { ack, window, pure, ..Ack::default() })
}

/// A sender whose peer reports what it has, with a round trip of 20 ms.
fn sacker() -> Sender {
    let mut s = Sender::new(&Setup { mss: MSS as usize, window: 1 << 20, sack: true, algorithm: Algorithm::Cubic });
    s.seed_rtt(ms(0), 20_000);
    s
}

/// An ACK with SACK blocks, in segments.
fn sacked(s: &mut Sender, now: Instant, ack: u64, blocks: &[(u64, u64)]) -> AckOutcome {
    let blocks: Vec<(u64, u64)> = blocks.iter().map(|(left, right)| (left * MSS, right * MSS)).collect();
    let news = Ack { ack: ack * MSS, window: Some(1 << 20), pure: true, sack: &blocks, ..Ack::default() };
    let outcome = s.on_ack(now, &news);
    s.board().audit(s.una(), s.nxt());
    outcome
}

fn sender() -> Sender {
    new(MSS as usize, 1 << 20)
}

/// Sends what the sender lets go, in full segments; returns the bytes.
fn send(s: &mut Sender, now: Instant, unsent: u64) -> u64 {
    let mut done = 0;
    while let n @ 1.. = s.allowance(now, unsent - done, false) {
        let n = n.min(u64::from(s.mss()));
        s.sent(now, s.nxt(), n);
        done += n;
    }
    s.blocked(now, unsent - done);
    done
}

/// Sends again what the sender names; returns the segments.
fn resend(s: &mut Sender, now: Instant) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    while let Some((offset, len)) = s.next_retransmission() {
        let len = len.min(s.mss());
        s.retransmitted(now, offset, u64::from(len));
        all.push((offset, len));
    }
    all
}

fn ack(s: &mut Sender, now: Instant, ack: u64) -> AckOutcome {
    on_ack(s, now, ack, Some(1 << 20), true)
}

#[test]
fn a_sender_is_small() {
    println!("Sender {} bytes", size_of::<Sender>());
    assert!(size_of::<Sender>() <= 448);
}
