use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// Slots looked at to find an entry, for every entry.
fn probe_lengths(table: &FlowTable) -> Vec<usize> {
    let occupied = table.slots.iter().enumerate().filter(|(_, slot)| **slot != 0);
    occupied.map(|(at, slot)| table.distance(table.home((slot >> 32) as u32), at) + 1).collect()
}

/// No empty slot between an entry and its home: every probe reaches it.
fn assert_reachable(table: &FlowTable) {
    for (at, slot) in table.slots.iter().enumerate().filter(|(_, slot)| **slot != 0) {
        let mut probe = table.home((slot >> 32) as u32);
        while probe != at {
            assert_ne!(table.slots[probe], 0, "hole at {probe} before the entry at {at}");
            probe = table.after(probe);
        }
    }
}

#[test]
fn finds_what_was_inserted_and_nothing_else() {
    let mut table = FlowTable::new(100, KEY);
    let a = FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 1000, 80);
    let b = FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 1001, 80);
    let ha = table.hash(&a);
    assert_eq!(table.find(ha, |_| true), None);
    table.insert(ha, 7).unwrap();
    assert_eq!(table.find(ha, |v| v == 7), Some(7));
    assert_eq!(table.find(ha, |_| false), None, "the caller has the last word");
    assert_eq!(table.find(table.hash(&b), |_| true), None);
    assert!(table.replace(ha, 7, 9));
    assert!(!table.replace(ha, 7, 9));
    assert_eq!(table.find(ha, |_| true), Some(9));
    assert!(!table.remove(ha, 7));
    assert!(table.remove(ha, 9));
    assert!(table.is_empty());
}

#[test]
fn every_value_of_a_u32_can_be_stored() {
    let mut table = FlowTable::new(8, KEY);
    for value in [0, 1, u32::MAX] {
        // The hash whose tag would be 0 is the one that looks most like an empty slot.
        table.insert(0, value).unwrap();
    }
    for value in [0, 1, u32::MAX] {
        assert_eq!(table.find(0, |v| v == value), Some(value));
        assert!(table.remove(0, value));
    }
    assert!(table.slots.iter().all(|slot| *slot == 0));
}

#[test]
fn is_full_at_half_of_its_slots() {
    let mut table = FlowTable::new(5, KEY);
    assert_eq!((table.capacity(), table.slots.len()), (5, 10));
    for value in 0..5 {
        table.insert(u64::from(value) << 60, value).unwrap();
    }
    assert_eq!(table.insert(1, 99), Err(Full));
    assert_eq!(table.find(1, |v| v == 99), None);
    assert!(table.remove(3 << 60, 3));
    assert_eq!(table.insert(1, 99), Ok(()));
    assert_eq!(table.len(), 5);
}

#[test]
fn a_chain_across_the_end_of_the_table_survives_removals() {
    // All at home in the last slot, so that the chain goes on at slot 0; and one at home in slot 0, which it pushes away.
    let mut table = FlowTable::new(8, KEY);
    let last = u64::MAX << 60;
    for value in 0..4 {
        table.insert(last, value).unwrap();
    }
    table.insert(0, 4).unwrap();
    for value in [0, 2, 1, 3] {
        assert!(table.remove(last, value));
        assert_reachable(&table);
        assert_eq!(table.find(0, |v| v == 4), Some(4));
    }
    assert_eq!(probe_lengths(&table), [1], "the last one has come home");
}

#[test]
fn probes_stay_short_with_neighbouring_addresses_and_ports() {
    // What a client farm or a scanner looks like: a few hundred hosts, consecutive ports.
    let mut table = FlowTable::new(1 << 16, KEY);
    let mut value = 0;
    for host in 0..256u32 {
        for port in 0..256 {
            let mut peer = [10, 0, 0, 0];
            peer[2..].copy_from_slice(&(host as u16).to_be_bytes());
            let key = FlowKey::v4(peer, [198, 18, 0, 2], 32_768 + port, 80);
            table.insert(table.hash(&key), value).unwrap();
            value += 1;
        }
    }
    assert_eq!(table.len(), table.capacity());
    let lengths = probe_lengths(&table);
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    // Knuth: linear probing at load 1/2 takes 1.5 probes a hit on average; the longest run grows with log n.
    assert!(mean < 1.6, "mean probe {mean}");
    assert!(lengths.iter().max().unwrap() < &60, "longest probe {:?}", lengths.iter().max());
}

#[test]
fn ipv6_neighbours_spread_as_well() {
    let mut table = FlowTable::new(1 << 14, KEY);
    for value in 0..1u32 << 14 {
        let mut peer = [0; 16];
        peer[0] = 0xfd;
        peer[4..8].copy_from_slice(&(value >> 4).to_be_bytes());
        let key = FlowKey::v6(peer, [0xfd; 16], 1024 + (value & 15) as u16, 443);
        table.insert(table.hash(&key), value).unwrap();
    }
    let lengths = probe_lengths(&table);
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    assert!(mean < 1.6, "mean probe {mean}");
}

#[test]
fn every_bit_of_flow_and_key_moves_the_tag() {
    let table = FlowTable::new(4, KEY);
    let base = FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 1000, 80);
    let before = table.hash(&base);
    let mut flipped = Vec::new();
    for bit in 0..128 {
        let (mut peer, mut local) = (base, base);
        peer.peer[bit / 8] ^= 1 << (bit % 8);
        local.local[bit / 8] ^= 1 << (bit % 8);
        flipped.extend([peer, local]);
    }
    for bit in 0..16 {
        let (mut peer, mut local) = (base, base);
        peer.peer_port ^= 1 << bit;
        local.local_port ^= 1 << bit;
        flipped.extend([peer, local]);
    }
    let mut moved = 0;
    for key in &flipped {
        let changed = (table.hash(key) ^ before) >> 32;
        assert_ne!(changed, 0, "{key:?}");
        moved += changed.count_ones();
    }
    let mean = f64::from(moved) / flipped.len() as f64;
    assert!((14.0..18.0).contains(&mean), "a flipped bit moves {mean} of 32 tag bits");
    for bit in 0..64 {
        for key in [[KEY[0] ^ 1 << bit, KEY[1]], [KEY[0], KEY[1] ^ 1 << bit]] {
            assert_ne!((FlowTable::new(4, key).hash(&base) ^ before) >> 32, 0);
        }
    }
}

#[test]
fn flows_that_collide_under_one_key_part_under_another() {
    // An attacker's set of flows with equal homes in one table is an ordinary set in the next.
    let (known, other) = (FlowTable::new(1 << 12, KEY), FlowTable::new(1 << 12, [KEY[1], KEY[0] ^ 1]));
    let keys = (0..1u32 << 19).map(|n| FlowKey::v4(n.to_be_bytes(), [198, 18, 0, 2], (n * 7) as u16, 80));
    let colliding: Vec<_> = keys.filter(|k| known.home(tag(known.hash(k))) < 8).collect();
    assert!(colliding.len() > 300);
    let homes: HashSet<_> = colliding.iter().map(|k| other.home(tag(other.hash(k)))).collect();
    assert!(homes.len() > colliding.len() * 9 / 10, "{} homes for {} flows", homes.len(), colliding.len());
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Remove(usize),
    RemoveWrong(u64, u32),
    Replace(usize),
    Find(u64),
}

/// Hashes that meet: few homes, mostly at both ends of the table, few tags.
fn hash() -> impl Strategy<Value = u64> {
    let homes = prop_oneof![Just(0u64), Just(1), Just(30), Just(31), 0..32u64];
    (homes, 0..4u64).prop_map(|(home, rest)| home << 59 | rest << 33)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => hash().prop_map(Op::Insert),
        3 => any::<usize>().prop_map(Op::Remove),
        1 => (hash(), 1_000_000..1_000_010u32).prop_map(|(h, v)| Op::RemoveWrong(h, v)),
        1 => any::<usize>().prop_map(Op::Replace),
        1 => hash().prop_map(Op::Find),
    ]
}

proptest! {
    #[test]
    fn behaves_like_a_hash_map(ops in proptest::collection::vec(op(), 1..200)) {
        let mut table = FlowTable::new(16, KEY);
        prop_assert_eq!(table.slots.len(), 32);
        let mut oracle: HashMap<u32, u64> = HashMap::new();
        let mut order: Vec<u32> = Vec::new();
        let mut next = 0;
        for op in ops {
            match op {
                Op::Insert(hash) => {
                    let fits = oracle.len() < 16;
                    prop_assert_eq!(table.insert(hash, next).is_ok(), fits);
                    if fits {
                        oracle.insert(next, hash);
                        order.push(next);
                    }
                    next += 1;
                }
                Op::Remove(which) if !order.is_empty() => {
                    let value = order.swap_remove(which % order.len());
                    let hash = oracle.remove(&value).unwrap();
                    prop_assert!(table.remove(hash, value));
                    prop_assert!(!table.remove(hash, value));
                }
                Op::Replace(which) if !order.is_empty() => {
                    let at = which % order.len();
                    let old = std::mem::replace(&mut order[at], next);
                    let hash = oracle.remove(&old).unwrap();
                    prop_assert!(table.replace(hash, old, next));
                    oracle.insert(next, hash);
                    next += 1;
                }
                Op::RemoveWrong(hash, value) => prop_assert!(!table.remove(hash, value)),
                Op::Find(hash) => {
                    let there = oracle.values().any(|h| tag(*h) == tag(hash));
                    prop_assert_eq!(table.find(hash, |_| true).is_some(), there);
                }
                Op::Remove(_) | Op::Replace(_) => {}
            }
            assert_reachable(&table);
            prop_assert_eq!(table.len(), oracle.len());
            for (value, hash) in &oracle {
                prop_assert_eq!(table.find(*hash, |v| v == *value), Some(*value));
            }
        }
    }
}
