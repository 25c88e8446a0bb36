//! Rings against an oracle, over plain memory, started near the wrap of their indices.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

fn ring(size: u32, start: u32) -> memory::Halves<u64> {
    memory::ring(size, 0, start, 0)
}

#[test]
fn nothing_shows_before_publish_and_no_slot_returns_before_release() {
    let (mut producer, mut consumer, _) = ring(4, u32::MAX - 1);
    for value in 0..4 {
        assert!(producer.push(value));
    }
    assert!(!producer.push(4), "the ring holds four");
    assert_eq!(consumer.available(), 0);
    producer.publish();
    assert_eq!(producer.backlog(), 4);
    assert_eq!(consumer.available(), 4);
    assert_eq!(consumer.pop(), Some(0));
    assert!(!producer.push(4), "read but not released");
    consumer.release();
    assert_eq!(producer.backlog(), 3);
    assert!(producer.push(4));
    assert!(!producer.push(5));
    assert_eq!([consumer.pop(), consumer.pop(), consumer.pop(), consumer.pop()], [Some(1), Some(2), Some(3), None]);
}

#[test]
fn the_wakeup_flag_is_read_afresh() {
    let (producer, _, memory) = ring(2, 0);
    assert!(!producer.needs_wakeup());
    memory.flags.store(NEED_WAKEUP, Ordering::Relaxed);
    assert!(producer.needs_wakeup());
    memory.flags.store(NEED_WAKEUP << 1, Ordering::Relaxed);
    assert!(!producer.needs_wakeup(), "only the flag itself counts");
}

#[test]
fn indices_out_of_range_are_not_believed() {
    let (mut producer, mut consumer, memory) = ring(8, 100);
    memory.producer.store(100 + 1000, Ordering::Relaxed);
    assert_eq!(consumer.available(), 8);
    memory.consumer.store(5000, Ordering::Relaxed);
    assert_eq!(producer.room(9), 8);
}

#[test]
fn a_half_continues_where_the_ring_stands() {
    let (mut producer, mut consumer, _) = memory::ring(4, 0u64, 7, 2);
    assert_eq!(consumer.available(), 2);
    assert_eq!(producer.room(4), 2);
    assert_eq!(producer.backlog(), 2);
}

#[test]
fn two_threads_pass_every_entry_once_and_in_order() {
    const COUNT: u64 = 200_000;
    let (mut producer, mut consumer, _) = ring(64, u32::MAX - 1000);
    let sender = std::thread::spawn(move || {
        let mut next = 0;
        while next < COUNT {
            while next < COUNT && producer.push(next * 3) {
                next += 1;
            }
            producer.publish();
            std::thread::yield_now();
        }
    });
    let mut expected = 0;
    while expected < COUNT {
        if consumer.available() == 0 {
            std::thread::yield_now();
            continue;
        }
        while let Some(value) = consumer.pop() {
            assert_eq!(value, expected * 3);
            expected += 1;
        }
        consumer.release();
    }
    sender.join().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Publish,
    Pop(u8),
    Release,
    Room(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..24u8).prop_map(Step::Push),
        Just(Step::Publish),
        (0..24u8).prop_map(Step::Pop),
        Just(Step::Release),
        (0..24u8).prop_map(Step::Room),
    ]
}

proptest! {
    #[test]
    fn behaves_like_a_queue(
        size_log in 0..5u32,
        start in prop_oneof![Just(0u32), (0..40u32).prop_map(|n| u32::MAX - n), any::<u32>()],
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let size = 1u32 << size_log;
        let (mut producer, mut consumer, _) = ring(size, start);
        // The oracle: what is written but hidden, what is visible, and what is read but not released.
        let (mut hidden, mut visible, mut held) = (VecDeque::new(), VecDeque::new(), 0u32);
        // What each side knows of the other: bounds that only a look refreshes.
        let mut value = 0u64;
        for step in steps {
            let used = hidden.len() as u32 + visible.len() as u32 + held;
            match step {
                Step::Push(n) => for _ in 0..n {
                    let used = hidden.len() as u32 + visible.len() as u32 + held;
                    let pushed = producer.push(value);
                    prop_assert_eq!(pushed, used < size, "full exactly when the oracle is");
                    if pushed {
                        hidden.push_back(value);
                        value += 1;
                    }
                },
                Step::Publish => {
                    producer.publish();
                    visible.append(&mut hidden);
                    prop_assert_eq!(producer.backlog(), visible.len() as u32 + held);
                }
                Step::Pop(n) => {
                    let told = consumer.available();
                    prop_assert!(told as usize <= visible.len());
                    prop_assert!(told > 0 || visible.is_empty(), "something is there and is told of");
                    for _ in 0..told.min(u32::from(n)) {
                        prop_assert_eq!(consumer.pop(), visible.pop_front());
                        held += 1;
                    }
                }
                Step::Release => {
                    consumer.release();
                    held = 0;
                }
                Step::Room(want) => {
                    let room = producer.room(u32::from(want));
                    prop_assert!(room <= size - used);
                    prop_assert!(room >= u32::from(want) || room == size - used, "short only when the ring is");
                }
            }
        }
    }
}
