//! The reassembly against a model that keeps every byte on its own.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const BLOCK: u64 = HOLD_BLOCK as u64;

/// Every byte on its own: what came first stays.
#[derive(Default)]
struct Model(BTreeMap<u64, u8>);

impl Model {
    fn ranges(&self) -> Vec<[u64; 2]> {
        let mut out: Vec<[u64; 2]> = Vec::new();
        for &at in self.0.keys() {
            match out.last_mut() {
                Some(last) if last[1] == at => last[1] += 1,
                _ => out.push([at, at + 1]),
            }
        }
        out
    }

    fn blocks(&self) -> usize {
        let mut blocks: Vec<u64> = self.0.keys().map(|at| at / BLOCK).collect();
        blocks.dedup();
        blocks.len()
    }
}

fn check(held: &Reassembly, pool: &HoldPool, model: &Model, total: usize) {
    assert_eq!(held.ranges(pool), model.ranges());
    assert_eq!(held.blocks(), model.blocks());
    assert_eq!(pool.free() + held.blocks(), total);
    if let Some(&[start, end]) = held.ranges(pool).first() {
        let mut at = start;
        while at < end {
            let chunk = held.chunk_at(pool, at, usize::MAX);
            assert!(!chunk.is_empty());
            for (i, byte) in chunk.iter().enumerate() {
                assert_eq!(model.0[&(at + i as u64)], *byte, "at {}", at + i as u64);
            }
            at += chunk.len() as u64;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Offset beyond the floor, length, content.
    Insert(u64, usize, u8),
    /// So much of the first range.
    Release(u64),
    DropFurthest,
}

fn step() -> impl Strategy<Value = Step> {
    let far = prop_oneof![0u64..100, 0u64..20_000, 3_900..4_300u64, 0u64..200_000];
    let len = prop_oneof![1usize..4, 1usize..1461, 1usize..9_000];
    prop_oneof![
        12 => (far, len, any::<u8>()).prop_map(|(at, len, byte)| Step::Insert(at, len, byte)),
        3 => prop_oneof![1u64..10, 1u64..20_000].prop_map(Step::Release),
        1 => Just(Step::DropFurthest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_comes_is_kept_as_it_came_first(steps in prop::collection::vec(step(), 1..48), blocks in 2usize..64) {
        let mut pool = HoldPool::new(blocks);
        let mut held = Reassembly::default();
        let mut model = Model::default();
        let mut floor = 0u64;
        for step in steps {
            match step {
                Step::Insert(far, len, byte) => {
                    let at = floor + far;
                    let bytes: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
                    let got = held.insert(&mut pool, floor, at, &bytes);
                    prop_assert_eq!(got.refused.is_some(), got.end < at + len as u64);
                    let first_copy = (at..got.end).find(|at| model.0.contains_key(at));
                    prop_assert_eq!(got.duplicate.map(|d| d.0), first_copy);
                    if let Some((from, to)) = got.duplicate {
                        prop_assert!((from..to).all(|at| model.0.contains_key(&at)));
                    }
                    for (i, byte) in bytes.iter().enumerate().take((got.end - at) as usize) {
                        model.0.entry(at + i as u64).or_insert(*byte);
                    }
                }
                Step::Release(n) => {
                    if let Some(&[start, end]) = held.ranges(&pool).first() {
                        let to = end.min(start + n);
                        held.release_to(&mut pool, to);
                        model.0.retain(|&at, _| at >= to);
                        floor = to;
                    }
                }
                Step::DropFurthest => {
                    let last = model.ranges().pop();
                    prop_assert_eq!(held.drop_furthest(&mut pool, floor), last.is_some_and(|r| r[0] > floor));
                    if let Some([from, _]) = last.filter(|r| r[0] > floor) {
                        model.0.retain(|&at, _| at < from);
                    }
                }
            }
            check(&held, &pool, &model, blocks);
        }
        held.clear(&mut pool);
        check(&held, &pool, &Model::default(), blocks);
        // The tracker that comes back is as good as new.
        prop_assert_eq!(held.insert(&mut pool, 0, 5, b"x").end, 6);
        prop_assert_eq!(held.chunk_at(&pool, 5, 9), b"x");
    }
}

fn sack(held: &Reassembly, pool: &HoldPool, next: u64, room: usize) -> Vec<(u64, u64)> {
    let mut out = ArrayVec::new();
    held.sack(pool, next, room, &mut out);
    out.to_vec()
}

/// RFC 2018 4: the block that the latest segment is in comes first, the others in the order of their news.
#[test]
fn the_latest_block_is_told_first() {
    let mut pool = HoldPool::new(64);
    let mut held = Reassembly::default();
    for at in [10, 30, 50, 70, 90] {
        held.insert(&mut pool, 0, at, &[1; 10]);
    }
    assert_eq!(sack(&held, &pool, 0, 4), [(90, 100), (70, 80), (50, 60), (30, 40)]);
    assert_eq!(sack(&held, &pool, 0, 3), [(90, 100), (70, 80), (50, 60)]);
    // A duplicate is news too; so is what joins two.
    held.insert(&mut pool, 0, 32, &[1; 2]);
    assert_eq!(sack(&held, &pool, 0, 4)[..2], [(30, 40), (90, 100)]);
    held.insert(&mut pool, 0, 60, &[1; 10]);
    assert_eq!(sack(&held, &pool, 0, 4), [(50, 80), (30, 40), (90, 100), (10, 20)]);
    // What is in order is acknowledged, not told.
    assert_eq!(sack(&held, &pool, 10, 4), [(50, 80), (30, 40), (90, 100)]);
    held.clear(&mut pool);
    assert_eq!(sack(&held, &pool, 0, 4), []);
}

/// One-byte segments with one-byte gaps: as many ranges as are allowed, and no more.
#[test]
fn ranges_are_bounded() {
    let mut pool = HoldPool::new(4096);
    let mut held = Reassembly::default();
    let step = RX_WINDOW_MAX as u64 / RANGES as u64;
    for i in 0..RANGES as u64 {
        assert_eq!(held.insert(&mut pool, 0, 1 + i * step, b"x").refused, None);
    }
    let got = held.insert(&mut pool, 0, 5, b"x");
    assert_eq!((got.end, got.refused), (5, Some(Refused::Ranges)));
    // What touches one is no further range.
    assert_eq!(held.insert(&mut pool, 0, 2, b"x").refused, None);
    assert_eq!(held.ranges(&pool).len(), RANGES);
    // One that spans them all leaves one.
    let all = vec![7; RX_WINDOW_MAX];
    let got = held.insert(&mut pool, 0, 0, &all);
    assert_eq!((got.end, got.duplicate), (RX_WINDOW_MAX as u64, Some((1, 3))));
    assert_eq!(held.ranges(&pool), [[0, RX_WINDOW_MAX as u64]]);
    assert_eq!(held.chunk_at(&pool, 0, 9), b"\x07xx\x07\x07\x07\x07\x07\x07");
    held.clear(&mut pool);
    assert_eq!(pool.free(), 4096);
}

/// Nobody takes it all: the first gets half, the next half of the rest.
#[test]
fn a_pool_is_shared() {
    let mut pool = HoldPool::new(100);
    let mut held: Vec<Reassembly> = (0..5).map(|_| Reassembly::default()).collect();
    let text = vec![1; 200 * HOLD_BLOCK];
    let got: Vec<usize> = held
        .iter_mut()
        .map(|held| {
            let share = pool.share(held.blocks());
            let got = held.insert(&mut pool, 0, 0, &text);
            assert_eq!(got.refused, Some(Refused::Memory));
            assert_eq!(held.blocks(), got.end as usize / HOLD_BLOCK);
            assert!(share.abs_diff(got.end as usize) <= HOLD_BLOCK, "{share} {got:?}");
            held.blocks()
        })
        .collect();
    assert_eq!(got, [50, 25, 13, 6, 3]);
    for held in &mut held {
        held.clear(&mut pool);
    }
    assert_eq!(pool.free(), 100);
}

/// Further away than blocks can be numbered: nothing is overwritten.
#[test]
fn the_span_is_bounded() {
    let mut pool = HoldPool::new(64);
    let mut held = Reassembly::default();
    held.insert(&mut pool, 0, 0, b"near");
    let span = (INDEX * HOLD_BLOCK) as u64;
    let got = held.insert(&mut pool, 0, span - 1, b"far");
    assert_eq!((got.end, got.refused), (span, Some(Refused::Memory)));
    assert_eq!(held.insert(&mut pool, 0, span, b"far").end, span);
    assert_eq!(held.chunk_at(&pool, 0, 9), b"near");
    held.clear(&mut pool);
    assert_eq!(pool.free(), 64);
}
