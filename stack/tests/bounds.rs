//! The work of one turn has a bound, whatever waits.

mod common;
use common::*;
use khamsin_stack::queue::BURST;

/// smoltcp takes frames from its device until there are none: whoever sends fast enough keeps it there (xarxa 063). Here a
/// turn takes one burst, so that timers and the other connections have theirs.
#[test]
fn a_turn_takes_one_burst_however_many_frames_wait() {
    let mut w = World::established();
    let before = w.counters().rx_frames;
    for _ in 0..10 * BURST {
        w.queue(&data(1, 1, b"again"));
    }
    for turns in 1..=10 {
        assert!(w.turn().busy, "more waits");
        assert_eq!(w.counters().rx_frames - before, (turns * BURST) as u64);
    }
    assert!(!w.turn().busy);
}
