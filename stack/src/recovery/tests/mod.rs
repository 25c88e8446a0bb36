//! Traces: each line is an event and what the sender answers. Offsets count segments of 1000 bytes.

mod closed_window;
mod fast_retransmit;
mod goodput;
mod new_data;
mod over_a_link;
mod timer;

use super::*;
use crate::Instant;
use proptest::prelude::*;

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

#[derive(Clone, Debug)]
enum Op {
    Ack(u64, Option<u64>, bool),
    Pump(u64, bool),
    Resend(u64),
    Timeout(u64),
    Expire,
    Mss(usize),
    Blocked(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let window = prop_oneof![
        Just(Some(0)),
        Just(None),
        (0..5000u64).prop_map(Some),
        any::<u64>().prop_map(Some),
        Just(Some(100_000))
    ];
    prop_oneof![
        4 => (0..12_000u64, window, any::<bool>()).prop_map(|(a, w, p)| Op::Ack(a, w, p)),
        3 => (prop_oneof![0..40_000u64, Just(MUCH)], any::<bool>()).prop_map(|(n, fin)| Op::Pump(n, fin)),
        2 => (1..5u64).prop_map(Op::Resend),
        1 => any::<u64>().prop_map(Op::Timeout),
        2 => Just(Op::Expire),
        1 => prop_oneof![0..3000usize, any::<usize>()].prop_map(Op::Mss),
        1 => (0..10_000u64).prop_map(Op::Blocked),
    ]
}

fn assert_sound(s: &Sender) {
    assert!(s.una() <= s.nxt());
    assert!(s.cwnd() >= s.mss(), "cwnd {} mss {}", s.cwnd(), s.mss());
    assert!((RTO_MIN_US..=RTO_MAX_US).contains(&s.rto_us()));
    if let Some((offset, len)) = s.next_retransmission() {
        assert!(len > 0 && offset >= s.una() && offset + u64::from(len) <= s.nxt());
    }
    if !s.is_idle() {
        assert!(s.deadline().is_some(), "something is in flight and nothing will wake us: {s:?}");
    }
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_it(mss in 1..3000usize, window in 0..200_000u64, ops in proptest::collection::vec((op(), 0..3_000_000u64), 1..200)) {
        let mut s = new(mss, window);
        let mut now = Instant::ZERO;
        for (op, later) in ops {
            now = now.plus_micros(later);
            match op {
                // From a little below una to nxt: what the caller lets through.
                Op::Ack(by, window, pure) => {
                    let before = s.una();
                    let ack = s.nxt().min((s.una() + by).saturating_sub(1000));
                    let outcome = on_ack(&mut s, now, ack, window, pure);
                    prop_assert_eq!(outcome.newly_acked, s.una() - before);
                }
                Op::Pump(unsent, fin) => {
                    let allowed = s.allowance(now, unsent, fin);
                    prop_assert!(allowed <= unsent + u64::from(fin));
                    prop_assert!(s.nxt() + allowed <= s.una().max(s.nxt()) + u64::from(s.window()) || allowed == 0);
                    if allowed > 0 {
                        s.sent(now, s.nxt(), allowed);
                    }
                }
                Op::Resend(most) => {
                    for _ in 0..most {
                        if let Some((offset, len)) = s.next_retransmission() {
                            s.retransmitted(now, offset, u64::from(len));
                        }
                    }
                }
                Op::Timeout(at) => {
                    let at = Instant::from_micros(at);
                    let early = s.deadline().is_none_or(|d| at < d);
                    let mut copy = s.clone();
                    prop_assert!(copy.on_timeout(at) == Timeout::None || !early);
                }
                Op::Expire => {
                    now = s.deadline().unwrap_or(now).max(now);
                    match s.on_timeout(now) {
                        Timeout::GiveUp => return Ok(()),
                        Timeout::Retransmit => prop_assert_eq!(s.next_retransmission().map(|r| r.0), Some(s.una())),
                        Timeout::Probe => {
                            let (offset, len) = s.probe();
                            if offset == s.nxt() {
                                s.sent(now, offset, u64::from(len));
                            } else {
                                s.retransmitted(now, offset, u64::from(len));
                            }
                        }
                        Timeout::None | Timeout::Resume | Timeout::Late | Timeout::TailLoss => {}
                    }
                }
                Op::Mss(mss) => s.set_mss(mss),
                Op::Blocked(unsent) => s.blocked(now, unsent),
            }
            assert_sound(&s);
        }
    }
}
