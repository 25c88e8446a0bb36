use super::*;
use crate::Coarse;
use crate::recovery::Algorithm;
use arrayvec::ArrayVec;
use proptest::prelude::*;

const MINUTE_US: u64 = 60_000_000;

fn resting(n: u16) -> Resting {
    Resting {
        key: FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], n, 7),
        snd_nxt: 0xffff_fff0,
        rcv_nxt: 77,
        window: 65_535 << 7,
        peer_shift: Some(7),
        peer_mss: 1460,
        sack: true,
        ecn: [true, false, true],
        recent: Some(0xdead_beef),
        history: History {
            srtt_us: 0,
            variation_us: 0,
            handshake_lost: true,
            backoffs: 3,
            cwnd: 123_457,
            ssthresh: u32::MAX,
            algorithm: Algorithm::NewReno,
            cwr: false,
        },
        room: 65_536,
        space: 65_535,
        mac: [2, 3, 4, 5, 6, 7],
        tci: Some(0x5064),
        heard: Instant::from_micros(5 << 16),
        asks: None,
        wake_at: None,
        token: 0x1234_5678,
    }
}

fn v6(rest: Resting) -> Resting {
    let key = FlowKey::v6([0xfd; 16], [0xfe; 16], rest.key.peer_port, 7);
    Resting { key, ..rest }
}

#[test]
fn what_can_be_exact_comes_back_as_it_was() {
    let mut parked = Parked::new(10);
    for rest in [resting(1), v6(resting(2))] {
        let at = parked.insert(&rest).unwrap();
        assert!(parked.is(at, &rest.key));
        assert!(!parked.is(at, &resting(3).key) && !parked.is(at, &v6(resting(3)).key));
        assert_eq!(parked.get(at, None), Some(rest));
    }
    assert_eq!(parked.len(), 2);
}

#[test]
fn what_has_no_place_in_a_record_is_not_parked() {
    let mut parked = Parked::new(10);
    let history = History { backoffs: 8, ..resting(1).history };
    let late = Instant::from_micros(u64::MAX / 2);
    let wide = 70_000 << 7;
    for rest in [
        Resting { history, ..resting(1) },
        Resting { heard: late, ..resting(1) },
        Resting { window: wide, ..resting(1) },
        Resting { room: 1 << 24, ..resting(1) },
        resting(0),
    ] {
        assert_eq!(parked.insert(&rest), None, "{rest:?}");
    }
    assert_eq!(parked.len(), 0);
}

#[test]
fn places_are_used_again() {
    let mut parked = Parked::new(3);
    let places: Vec<u32> = (1..=3).map(|n| parked.insert(&resting(n)).unwrap()).collect();
    for &at in &places {
        parked.remove(at);
        parked.remove(at);
        assert_eq!(parked.get(at, None), None);
    }
    assert_eq!(parked.len(), 0);
    for n in 4..=6 {
        let at = parked.insert(&resting(n)).unwrap();
        assert!(places.contains(&at));
    }
    assert_eq!(parked.len(), 3);
}

fn all_due(parked: &mut Parked, now: Instant) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let mut budget = 1000;
        let due: ArrayVec<u32, GROUP> = parked.due(now, &mut budget);
        if due.is_empty() {
            assert!(budget > 0, "an end within the budget");
            return all;
        }
        all.extend(due);
    }
}

/// The keep-alive's deadline or the application's, whichever comes first; never before it, at most 1/15 s behind it.
#[test]
fn each_comes_up_when_it_is_due() {
    let mut parked = Parked::new(1000);
    let mut want = Vec::new();
    for n in 1..=500u16 {
        let at = Instant::from_micros(u64::from(n) * 1_234_567);
        let rest = match n % 3 {
            0 => Resting { wake_at: Some(at), asks: Some((at.plus_micros(MINUTE_US), MINUTE_US)), ..resting(n) },
            1 => Resting { asks: Some((at, MINUTE_US)), ..resting(n) },
            _ => resting(n),
        };
        let place = parked.insert(&if n % 2 == 0 { rest } else { v6(rest) }).unwrap();
        if n % 3 != 2 {
            want.push((at, place));
        }
    }
    let (mut got, mut now) = (Vec::new(), Instant::ZERO);
    while let Some(at) = parked.deadline() {
        assert!(at >= now);
        now = at;
        for place in all_due(&mut parked, now) {
            got.push((now, place));
            parked.remove(place);
        }
    }
    got.sort_by_key(|&(_, place)| want.iter().position(|w| w.1 == place));
    assert_eq!(got.len(), want.len());
    for ((got, place), (want, same)) in got.into_iter().zip(want) {
        assert_eq!(place, same);
        assert!(got >= want && got.micros_since(want) <= 65_536, "{want:?} came up at {got:?}");
    }
    assert_eq!(parked.len(), 167, "those without a deadline");
}

#[test]
fn nothing_is_due_when_nobody_is_left() {
    let mut parked = Parked::new(2);
    let at = Instant::from_micros(1 << 20);
    let place = parked.insert(&Resting { wake_at: Some(at), ..resting(1) }).unwrap();
    assert_eq!(parked.deadline(), Some(at));
    parked.remove(place);
    assert_eq!(parked.deadline(), None);
    let late = at.plus_micros(1 << 20);
    let place = parked.insert(&Resting { wake_at: Some(late), ..resting(2) }).unwrap();
    assert!(all_due(&mut parked, at).is_empty());
    assert_eq!(all_due(&mut parked, late), [place]);
}

#[test]
fn what_is_put_off_comes_again_and_a_lap_is_cut_by_its_budget() {
    let mut parked = Parked::new(10_000);
    let at = Instant::from_micros(1 << 20);
    for n in 1..=10_000u16 {
        parked.insert(&Resting { wake_at: (n == 9_999).then_some(at), ..resting(n) }).unwrap();
    }
    let mut calls = 0;
    let due = loop {
        calls += 1;
        let due = parked.due(at, &mut 10);
        if !due.is_empty() {
            break due;
        }
        assert!(parked.is_due(at), "the lap is not over");
    };
    assert_eq!((due.len(), calls), (1, 16));
    let later = at.plus_micros(1 << 20);
    parked.put_off(due[0], later);
    assert!(all_due(&mut parked, at).is_empty());
    assert_eq!(parked.deadline(), Some(later));
    assert_eq!(all_due(&mut parked, later), due.to_vec());
}

#[test]
fn a_walk_finds_everybody_once() {
    let mut parked = Parked::new(100);
    let mut all: Vec<u32> =
        (1..=100).map(|n| parked.insert(&if n % 2 == 0 { resting(n) } else { v6(resting(n)) }).unwrap()).collect();
    for gone in [3, 50, 97] {
        parked.remove(all[gone]);
    }
    all = all.into_iter().enumerate().filter(|(i, _)| ![3, 50, 97].contains(i)).map(|(_, at)| at).collect();
    let (mut place, mut seen) = (0, Vec::new());
    assert_eq!(parked.next_from(&mut place, &mut 0), None);
    while let Some(at) = parked.next_from(&mut place, &mut 50) {
        seen.push(at);
        place += 1;
    }
    assert_eq!(place, 100);
    seen.sort_unstable();
    all.sort_unstable();
    assert_eq!(seen, all);
}

proptest! {
    /// Whatever is rounded is rounded to the safe side: the peer may use what it was told, nothing is due early.
    #[test]
    fn rounding_is_on_the_safe_side(
        srtt_us in 1u32..60_000_000, variation_us in 0u32..60_000_000, ssthresh in 2_000u32..1 << 30,
        cwnd in 1u32..1 << 30, room in 0u64..4 << 20, space in 65_535u64..4 << 20, window in 0u32..65_536,
        shift in proptest::option::of(0u8..15), heard in 0u64..1 << 47, wake in 0u64..1 << 47,
        keep_alive_us in 1u64..1 << 40, asks in any::<bool>(), recent in any::<u32>(),
    ) {
        let history = History { srtt_us, variation_us, ssthresh, cwnd, handshake_lost: false, ..resting(1).history };
        let heard = Instant::from_micros(heard);
        let (window, peer_shift) = (window << shift.unwrap_or(0), shift);
        let rest = Resting {
            history, room, space, window, peer_shift, heard, recent: Some(recent),
            wake_at: Some(Instant::from_micros(wake)),
            asks: asks.then(|| (heard.plus_micros(keep_alive_us), keep_alive_us)),
            ..resting(1)
        };
        let mut parked = Parked::new(2);
        let at = parked.insert(&rest).unwrap();
        let back = parked.get(at, asks.then_some(keep_alive_us)).unwrap();
        prop_assert_eq!((back.window, back.peer_shift, back.recent), (window, shift, Some(recent)));
        prop_assert_eq!(back.history.cwnd, cwnd);
        prop_assert!(back.room >= room && back.room - room < 128);
        prop_assert!(back.space <= space && space - back.space < 128);
        prop_assert!(back.wake_at >= rest.wake_at);
        prop_assert!(back.heard.micros_since(heard) <= 65_536 && heard.micros_since(back.heard) <= 65_536);
        if let (Some((back, _)), Some((was, _))) = (back.asks, rest.asks) {
            prop_assert!(back >= was && Coarse::after(was).instant() == back);
        }
        let part = |n: u32| n / 2048;
        prop_assert!(srtt_us - back.history.srtt_us <= part(srtt_us));
        prop_assert!(variation_us - back.history.variation_us <= part(variation_us));
        prop_assert!(ssthresh - back.history.ssthresh <= part(ssthresh));
        // What is rounded once does not creep: a second stay changes nothing.
        let again = parked.insert(&back);
        prop_assert_eq!(again.and_then(|at| parked.get(at, asks.then_some(keep_alive_us))), Some(back));
    }
}
