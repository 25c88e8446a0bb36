use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const TICK_US: u64 = 1 << TICK_SHIFT;

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

/// Everything due at `now`, sorted.
fn due(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
    let mut budget = u32::MAX;
    let mut ids: Vec<u32> = std::iter::from_fn(|| wheel.pop_expired(now, &mut budget)).collect();
    ids.sort_unstable();
    ids
}

/// Every ring is sound, the bitmaps say what the rings hold, every armed id is in one.
fn check(wheel: &Wheel) {
    let capacity = wheel.capacity();
    let mut linked = 0;
    for list in 0..=DUE {
        let head = capacity + list;
        let (mut node, mut count) = (head, 0);
        loop {
            let next = wheel.entries[node].links[NEXT] as usize;
            assert_eq!(wheel.entries[next].links[PREVIOUS] as usize, node);
            if next == head {
                break;
            }
            assert_ne!(wheel.entries[next].tick, 0, "a linked id is armed");
            node = next;
            count += 1;
        }
        linked += count;
        if list < DUE {
            assert_eq!(wheel.occupied[list / SLOTS] >> (list % SLOTS) & 1 == 1, count > 0);
        }
    }
    for level in 0..LEVELS {
        assert_eq!(wheel.levels >> level & 1 == 1, wheel.occupied[level] != 0);
    }
    assert_eq!(linked, wheel.len());
    assert_eq!(wheel.entries.iter().filter(|entry| entry.tick != 0).count(), wheel.len());
}

#[test]
fn fires_in_the_tick_after_and_never_before() {
    let mut wheel = Wheel::new(4);
    wheel.arm(2, at(5000));
    assert_eq!(wheel.armed(2), Some(at(5120)));
    assert_eq!(wheel.next_deadline(), Some(at(5120)));
    assert_eq!(due(&mut wheel, at(5000)), []);
    assert_eq!(due(&mut wheel, at(5119)), []);
    assert_eq!(due(&mut wheel, at(5120)), [2]);
    assert_eq!((wheel.armed(2), wheel.next_deadline(), wheel.len()), (None, None, 0));
}

#[test]
fn an_entry_moves_forward_only() {
    let mut wheel = Wheel::new(1);
    wheel.arm(0, at(50 * TICK_US));
    wheel.arm(0, at(90 * TICK_US));
    assert_eq!(wheel.armed(0), Some(at(50 * TICK_US)), "pushing a deadline back touches nothing");
    wheel.arm(0, at(20 * TICK_US));
    assert_eq!(wheel.armed(0), Some(at(20 * TICK_US)));
    assert_eq!(wheel.len(), 1);
    wheel.disarm(0);
    wheel.disarm(0);
    assert_eq!(due(&mut wheel, at(1 << 40)), []);
    check(&wheel);
}

#[test]
fn an_entry_for_the_past_is_due_at_once() {
    let mut wheel = Wheel::new(2);
    assert_eq!(due(&mut wheel, at(1_000_000_000)), []);
    wheel.arm(1, at(5));
    assert!(wheel.next_deadline().unwrap() <= at(1_000_000_000));
    assert_eq!(due(&mut wheel, at(1_000_000_000)), [1]);
}

#[test]
fn who_arms_again_for_the_past_waits_behind_the_others() {
    let mut wheel = Wheel::new(3);
    for id in 0..3 {
        wheel.arm(id, at(0));
    }
    let mut seen = Vec::new();
    for _ in 0..6 {
        let id = wheel.pop_expired(at(0), &mut 1).unwrap();
        wheel.arm(id, at(0));
        seen.push(id);
    }
    assert_eq!(seen, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_jump_of_hours_costs_a_call_no_more_than_its_budget() {
    const N: u32 = 10_000;
    let mut wheel = Wheel::new(N as usize);
    for id in 0..N {
        wheel.arm(id, at(3_600_000_000 + u64::from(id) * 1_000_003));
    }
    let (now, mut out, mut calls) = (at(1 << 45), 0, 0);
    while wheel.next_deadline().is_some() {
        let mut budget = 64;
        let before = wheel.len();
        while wheel.pop_expired(now, &mut budget).is_some() {}
        out += before - wheel.len();
        calls += 1;
        assert!(wheel.next_deadline().is_none_or(|t| t <= now), "what is left is known to be late");
    }
    assert_eq!(out, N as usize);
    // Each entry is handed out once and moved at most once for each level.
    assert!(calls <= N as usize * (LEVELS + 1) / 64 + 1, "{calls} calls");
}

#[test]
fn an_idle_server_wakes_at_most_once_for_each_level() {
    for micros in [1, 70_000, 75_000_000, 7_200_000_000, 86_400_000_000, 31_536_000_000_000, u64::MAX - 5000] {
        for start in [0, 12_345_678_901_234] {
            let mut wheel = Wheel::new(1);
            assert_eq!(due(&mut wheel, at(start)), []);
            let deadline = at(start).plus_micros(micros);
            wheel.arm(0, deadline);
            let mut wakes = 0;
            loop {
                let sleep = wheel.next_deadline().unwrap();
                assert!(sleep.micros() <= deadline.micros().saturating_add(TICK_US));
                wakes += 1;
                if due(&mut wheel, sleep) == [0] {
                    assert!(sleep >= deadline || deadline.micros() > TICK_MAX << TICK_SHIFT);
                    break;
                }
            }
            assert!(wakes <= LEVELS, "{wakes} wake-ups for {micros} us");
        }
    }
}

#[test]
fn the_end_of_time_is_a_deadline_like_any_other() {
    let mut wheel = Wheel::new(2);
    wheel.arm(0, Instant::FAR_FUTURE);
    wheel.arm(1, at(1000));
    assert_eq!(due(&mut wheel, at(u64::MAX / 2)), [1]);
    assert_eq!(wheel.len(), 1);
    assert_eq!(due(&mut wheel, Instant::FAR_FUTURE), [0]);
}

#[test]
fn disarming_the_rest_of_an_opened_slot_leaves_no_trace() {
    let mut wheel = Wheel::new(8);
    for id in 0..8 {
        wheel.arm(id, at((64 * 64 + u64::from(id)) * TICK_US));
    }
    // Opens the slot of a higher level and takes only some entries down.
    assert_eq!(wheel.pop_expired(at((64 * 64 - 1) * TICK_US), &mut 3), None);
    let mut budget = 3;
    assert_eq!(wheel.pop_expired(at(64 * 64 * TICK_US), &mut budget), Some(0));
    assert!(wheel.opened.is_some(), "only as many as the budget allows were moved");
    for id in 0..8 {
        wheel.disarm(id);
    }
    check(&wheel);
    assert_eq!(wheel.next_deadline(), None);
    wheel.arm(5, at(64 * 65 * TICK_US));
    assert_eq!(wheel.next_deadline().map(|t| t <= at(64 * 65 * TICK_US)), Some(true));
    assert_eq!(due(&mut wheel, at(64 * 65 * TICK_US)), [5]);
}

#[derive(Clone, Debug)]
enum Op {
    Arm(u32, u64),
    ArmPast(u32, u64),
    Disarm(u32),
    Advance(u64),
    Sleep,
    Step(u64, u32),
}

/// Spans from microseconds to years, and those around the seams of levels.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..5_000u64,
        0..200_000u64,
        0..100_000_000u64,
        0..1u64 << 42,
        (0..54u32, 0..3u64).prop_map(|(bit, off)| ((1u64 << bit) << TICK_SHIFT).wrapping_add(off).wrapping_sub(1)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..24u32, span()).prop_map(|(id, s)| Op::Arm(id, s)),
        1 => (0..24u32, span()).prop_map(|(id, s)| Op::ArmPast(id, s)),
        1 => (0..24u32).prop_map(Op::Disarm),
        2 => span().prop_map(Op::Advance),
        2 => Just(Op::Sleep),
        2 => (span(), 0..6u32).prop_map(|(s, b)| Op::Step(s, b)),
    ]
}

fn begin() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..10_000_000u64, any::<u64>(), (0..3_000_000u64).prop_map(|n| u64::MAX - n)]
}

proptest! {
    #[test]
    fn behaves_like_a_sorted_map(start in begin(), ops in proptest::collection::vec(op(), 1..150)) {
        let mut wheel = Wheel::new(24);
        let mut oracle: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = at(start);
        due(&mut wheel, now);
        for op in ops {
            match op {
                Op::Arm(id, span) | Op::ArmPast(id, span) => {
                    let time = if matches!(op, Op::Arm(..)) { now.plus_micros(span) } else { at(now.micros().saturating_sub(span)) };
                    wheel.arm(id, time);
                    let tick = tick_after(time);
                    let entry = oracle.entry(id).or_insert(tick);
                    *entry = tick.min(*entry);
                }
                Op::Disarm(id) => {
                    wheel.disarm(id);
                    oracle.remove(&id);
                }
                Op::Advance(_) | Op::Sleep => {
                    now = match op {
                        Op::Advance(span) => now.plus_micros(span),
                        _ => wheel.next_deadline().unwrap_or(now).max(now),
                    };
                    let tick = now.micros() >> TICK_SHIFT;
                    let expected: Vec<u32> = oracle.iter().filter(|(_, t)| **t <= tick).map(|(id, _)| *id).collect();
                    oracle.retain(|_, t| *t > tick);
                    prop_assert_eq!(due(&mut wheel, now), expected);
                }
                Op::Step(span, budget) => {
                    now = now.plus_micros(span);
                    let mut left = budget;
                    while let Some(id) = wheel.pop_expired(now, &mut left) {
                        let tick = oracle.remove(&id);
                        prop_assert!(tick.is_some_and(|t| t <= now.micros() >> TICK_SHIFT), "{id} came too early");
                    }
                    if left > 0 {
                        prop_assert!(oracle.values().all(|t| *t > now.micros() >> TICK_SHIFT), "gave up with budget left");
                    }
                }
            }
            check(&wheel);
            prop_assert_eq!(wheel.len(), oracle.len());
            for id in 0..24 {
                let tick = oracle.get(&id).map(|t| at(t << TICK_SHIFT));
                prop_assert_eq!(wheel.armed(id), tick);
            }
            let first = oracle.values().min();
            prop_assert_eq!(wheel.next_deadline().is_some(), first.is_some());
            if let (Some(deadline), Some(first)) = (wheel.next_deadline(), first) {
                let current = at(wheel.current << TICK_SHIFT);
                prop_assert!(deadline <= at(first << TICK_SHIFT).max(current), "would oversleep");
            }
        }
    }
}
