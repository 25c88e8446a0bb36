//! Whatever comes, in whatever order.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Ack { by: u64, window: Option<u64>, pure: bool, sack: Vec<(u64, u64)>, echoed_ms: Option<u64>, ece: bool },
    Pump(u64, bool),
    Resend(u64, u64),
    Timeout(u64),
    Expire,
    Mss(usize),
    PathShrank(usize),
    Blocked(u64),
}

fn ack_op() -> impl Strategy<Value = Op> {
    let window = prop_oneof![
        Just(Some(0)),
        Just(None),
        (0..5000u64).prop_map(Some),
        any::<u64>().prop_map(Some),
        Just(Some(100_000))
    ];
    let by = prop_oneof![Just(1000u64), 0..12_000u64];
    let block = prop_oneof![
        8 => (0..30_000u64, 0..5000u64),
        1 => (any::<u64>(), any::<u64>()),
    ];
    let sack = proptest::collection::vec(block, 0..5);
    (by, window, any::<bool>(), sack, proptest::option::of(0..4000u64), proptest::bool::weighted(0.05))
        .prop_map(|(by, window, pure, sack, echoed_ms, ece)| Op::Ack { by, window, pure, sack, echoed_ms, ece })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => ack_op(),
        4 => (prop_oneof![0..40_000u64, Just(MUCH)], any::<bool>()).prop_map(|(n, fin)| Op::Pump(n, fin)),
        4 => (1..5u64, 1..5000u64).prop_map(|(many, most)| Op::Resend(many, most)),
        1 => any::<u64>().prop_map(Op::Timeout),
        3 => Just(Op::Expire),
        1 => prop_oneof![1..3000usize, any::<usize>()].prop_map(Op::Mss),
        1 => (1..3000usize).prop_map(Op::PathShrank),
        1 => (0..10_000u64).prop_map(Op::Blocked),
    ]
}

fn assert_sound(s: &Sender) {
    assert!(s.una() <= s.nxt());
    assert!(s.cwnd() >= s.mss(), "cwnd {} mss {}", s.cwnd(), s.mss());
    assert!((RTO_MIN_US..=RTO_MAX_US).contains(&s.rto_us()));
    s.board().audit(s.una(), s.nxt());
    if let Some((offset, len)) = s.next_retransmission() {
        assert!(len > 0 && offset >= s.una() && offset + u64::from(len) <= s.nxt(), "{offset} {len} {s:?}");
    }
    if !s.is_idle() {
        assert!(s.deadline().is_some(), "something is in flight and nothing will wake us: {s:?}");
    }
}

/// A probe goes out as the caller would send it.
fn send_probe(s: &mut Sender, now: Instant) {
    let (offset, len) = s.probe();
    if offset == s.nxt() {
        s.sent(now, offset, u64::from(len));
    } else {
        s.retransmitted(now, offset, u64::from(len));
    }
}

/// Applies one event; says whether the connection goes on.
fn apply(s: &mut Sender, now: &mut Instant, op: &Op) -> bool {
    match op {
        // From a little below una to nxt: what the caller lets through.
        Op::Ack { by, window, pure, sack, echoed_ms, ece } => {
            let (before, now) = (s.una(), *now);
            let ack = s.nxt().min((s.una() + by).saturating_sub(1000));
            let block = |(at, len): &(u64, u64)| {
                let left = (s.una() + at).saturating_sub(2000);
                (left, left.saturating_add(*len))
            };
            let sack: Vec<(u64, u64)> = sack.iter().map(|b| if b.0 > 1 << 32 { *b } else { block(b) }).collect();
            let echoed = echoed_ms.map(|ago| ms((now.micros() / 1000).saturating_sub(ago)));
            let outcome = s.on_ack(now, &Ack { ack, window: *window, pure: *pure, sack: &sack, echoed, ece: *ece });
            assert_eq!(outcome.newly_acked, s.una() - before);
        }
        Op::Pump(unsent, fin) => {
            let allowed = s.allowance(*now, *unsent, *fin);
            assert!(allowed <= unsent + u64::from(*fin));
            assert!(allowed == 0 || s.nxt() + allowed <= s.una() + u64::from(s.window()));
            if allowed > 0 {
                s.sent(*now, s.nxt(), allowed);
            }
        }
        Op::Resend(many, most) => {
            for _ in 0..*many {
                if let Some((offset, len)) = s.next_retransmission() {
                    s.retransmitted(*now, offset, u64::from(len).min(*most));
                }
            }
        }
        Op::Timeout(at) => {
            let at = Instant::from_micros(*at);
            let early = s.deadline().is_none_or(|d| at < d);
            assert!(s.clone().on_timeout(at) == Timeout::None || !early);
        }
        Op::Expire => {
            *now = s.deadline().unwrap_or(*now).max(*now);
            match s.on_timeout(*now) {
                Timeout::GiveUp => return false,
                Timeout::Retransmit => {
                    s.next_retransmission().expect("a timeout names something");
                }
                Timeout::Probe => send_probe(s, *now),
                _ => {}
            }
        }
        Op::Mss(mss) => s.set_mss(*mss),
        Op::PathShrank(mss) => s.path_shrank(*now, *mss),
        Op::Blocked(unsent) => s.blocked(*now, *unsent),
    }
    true
}

/// Adds a part to others, none of which touch each other, in their order.
fn join(islands: &mut Vec<(u64, u64)>, (mut from, mut to): (u64, u64)) {
    islands.retain(|island| {
        let apart = island.1 < from || island.0 > to;
        if !apart {
            (from, to) = (from.min(island.0), to.max(island.1));
        }
        apart
    });
    let place = islands.partition_point(|island| island.0 < from);
    islands.insert(place, (from, to));
}

/// Steps in a row that may bring a peer that answers everything nothing new: timers expire, one after the other, and what was
/// sent once too often comes.
const IDLE_STEPS: u32 = 8;

/// From any state, a peer that answers everything gets everything. There is no telling how soon: without SACK it is one segment
/// a round trip, and segments may be tiny. But as long as something is missing, something missing comes.
fn finish(s: &mut Sender, mut now: Instant) {
    let end = s.nxt() + 20_000;
    let (mut received, mut had, mut idle) = (s.una(), 0, 0);
    let mut islands: Vec<(u64, u64)> = vec![];
    while s.una() < end {
        let has = received + islands.iter().map(|(from, to)| to - from).sum::<u64>();
        idle = if has > had { 0 } else { idle + 1 };
        had = has;
        assert!(idle <= IDLE_STEPS, "no progress: {s:?}");
        let mut arrived: Vec<(u64, u64)> = vec![];
        while let Some((offset, len)) = s.next_retransmission() {
            s.retransmitted(now, offset, u64::from(len));
            arrived.push((offset, offset + u64::from(len)));
        }
        loop {
            let unsent = end - s.nxt();
            let n = s.allowance(now, unsent, false);
            if n == 0 {
                s.blocked(now, unsent);
                break;
            }
            let n = n.min(u64::from(s.mss()));
            arrived.push((s.nxt(), s.nxt() + n));
            s.sent(now, s.nxt(), n);
        }
        assert_sound(s);
        if arrived.is_empty() && s.una() < end {
            now = s.deadline().expect("it waits for something").max(now);
            match s.on_timeout(now) {
                Timeout::GiveUp => panic!("it gave up on a peer that answers: {s:?}"),
                Timeout::Probe => {
                    let (offset, len) = s.probe();
                    let len = u64::from(len).min(end - offset);
                    if offset == s.nxt() {
                        s.sent(now, offset, len);
                    } else {
                        s.retransmitted(now, offset, len);
                    }
                    arrived.push((offset, offset + len));
                }
                _ => {}
            }
        }
        now = now.plus_micros(20_000);
        for part in arrived {
            join(&mut islands, part);
            while islands.first().is_some_and(|island| island.0 <= received) {
                received = received.max(islands.remove(0).1);
            }
            s.on_ack(now, &Ack { ack: received, window: Some(200_000), pure: true, ..Ack::default() });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_events_breaks_it(
        mss in 1..3000usize,
        window in 0..200_000u64,
        sack in proptest::bool::weighted(0.8),
        cubic in any::<bool>(),
        ops in proptest::collection::vec((op(), prop_oneof![3 => 0..30_000u64, 1 => 0..3_000_000u64]), 1..300),
    ) {
        let algorithm = if cubic { Algorithm::Cubic } else { Algorithm::NewReno };
        let mut s = Sender::new(&Setup { mss, window, sack, algorithm });
        let mut now = Instant::ZERO;
        for (op, later) in &ops {
            now = now.plus_micros(*later);
            if !apply(&mut s, &mut now, op) {
                return Ok(());
            }
            assert_sound(&s);
        }
        s.set_mss(mss.max(100));
        finish(&mut s, now);
    }
}
