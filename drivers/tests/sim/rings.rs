//! Rings that run dry, fill up and move late; several queues at one end.

use khamsin_drivers::sim::{Rings, Side, SimConfig, SimQueue, Spans, Wire};
use khamsin_stack::{Frame, Instant, Queue, TxOffload};

fn wire(rings: Rings) -> Wire {
    Wire::new(SimConfig { latency_us: 0, tx_frames: 4, rings, ..SimConfig::default() })
}

fn take(queue: &mut SimQueue) -> usize {
    let mut burst = Vec::with_capacity(64);
    let count = queue.rx_burst(&mut burst, 64);
    burst.into_iter().for_each(|frame| queue.release(frame));
    count
}

fn give(queue: &mut SimQueue) -> bool {
    let Some(mut frame) = queue.alloc_tx() else { return false };
    frame.set_len(60);
    queue.tx(frame, TxOffload::NONE);
    true
}

#[test]
fn what_finds_no_buffer_is_lost_and_counted() {
    let starved = Spans::new([(100, 200)]);
    let wire = wire(Rings { rx_frames: 3, rx_burst_max: 2, starved, ..Rings::default() });
    let (mut queue, end) = (wire.queue(Side::Left), wire.end(Side::Right));
    (0..5).for_each(|_| end.send(&[0; 60]));
    wire.advance(Instant::from_micros(1));
    assert_eq!((take(&mut queue), take(&mut queue), take(&mut queue)), (2, 1, 0));
    assert_eq!(queue.stats().rx_dropped, 2);
    for (now, arrives) in [(99, 1), (100, 0), (199, 0), (200, 1)] {
        wire.advance(Instant::from_micros(now));
        end.send(&[0; 60]);
        wire.advance(Instant::from_micros(now));
        assert_eq!(take(&mut queue), arrives, "at {now}");
    }
    assert_eq!(queue.stats().rx_dropped, 4);
}

#[test]
fn a_full_ring_and_late_completions_leave_no_frame() {
    let tx_full = Spans::new([(100, 200)]);
    let wire = wire(Rings { tx_full, completion_us: 50, tx_burst_max: 3, tx_retry_us: 10, ..Rings::default() });
    let (mut queue, end) = (wire.queue(Side::Left), wire.end(Side::Right));
    queue.begin();
    assert!((0..4).all(|_| give(&mut queue)) && !give(&mut queue));
    queue.end();
    assert_eq!((queue.tx_out(), queue.completes_at()), (4, Some(Instant::from_micros(60))));
    wire.advance(Instant::from_micros(9));
    assert_eq!(std::iter::from_fn(|| end.recv()).count(), 3, "the fourth waits in the ring");
    wire.advance(Instant::from_micros(10));
    assert_eq!(std::iter::from_fn(|| end.recv()).count(), 1);
    wire.advance(Instant::from_micros(50));
    queue.begin();
    assert!((0..3).all(|_| give(&mut queue)) && !give(&mut queue), "one is not completed yet");
    wire.advance(Instant::from_micros(150));
    queue.begin();
    assert!(!give(&mut queue));
    wire.advance(Instant::from_micros(200));
    queue.begin();
    assert!(give(&mut queue));
    assert_eq!(queue.stats().tx_exhausted, 3);
}

#[test]
fn a_device_divides_frames_among_its_queues() {
    let wire = wire(Rings::default());
    let mut queues = wire.queues(Side::Left, 2, |at, frame| usize::from(frame[0]) + (at.micros() / 100) as usize);
    let ends = wire.ends(Side::Right, 2, |_, frame| frame[0].into());
    ends[0].send(&[0; 60]);
    ends[1].send(&[1; 60]);
    ends[1].send(&[1; 60]);
    wire.advance(Instant::from_micros(1));
    assert_eq!((take(&mut queues[0]), take(&mut queues[1])), (1, 2));
    wire.advance(Instant::from_micros(100));
    ends[0].send(&[0; 60]);
    wire.advance(Instant::from_micros(101));
    assert_eq!((take(&mut queues[0]), take(&mut queues[1])), (0, 1), "the rule has changed");
    give(&mut queues[1]);
    wire.advance(Instant::from_micros(102));
    assert_eq!((ends[0].recv().map(|frame| frame.len()), ends[1].recv()), (Some(60), None));
}
