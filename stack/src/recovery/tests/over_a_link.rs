//! What becomes of it all over a link.

use crate::recovery::link::{Link, OVERHEAD, Reader, transfer};

/// Payload Mbit/s of a full pipe.
fn full(mbit: f64) -> f64 {
    mbit * 1448.0 / (1448 + OVERHEAD) as f64
}

#[test]
fn without_loss_it_fills_the_pipe() {
    let out = transfer(
        1448,
        60_000_000,
        Link { queue_bytes: 1 << 30, ..Link::default() },
        Reader { buffer: 1 << 20, ..Reader::default() },
        60,
    );
    println!("no loss: {:.1} Mbit/s {out:?}", out.steady_mbit());
    assert!(out.steady_mbit() > 0.95 * full(100.0));
    assert_eq!((out.timeouts, out.resent), (0, 0));
}

#[test]
fn a_queue_that_overflows_is_no_disaster() {
    let out = transfer(1448, 60_000_000, Link { ..Link::default() }, Reader::default(), 60);
    println!("queue of one BDP: {:.1} Mbit/s {out:?}", out.steady_mbit());
    assert!(out.steady_mbit() > 0.85 * full(100.0));
}

#[test]
fn a_single_loss_is_repaired_without_the_timer() {
    for lost in [0, 1, 5, 30, 100, 333] {
        let link = Link { lost: vec![(lost, lost + 1)], queue_bytes: 1 << 30, ..Link::default() };
        let out = transfer(1448, 2_000_000, link, Reader { buffer: 1 << 20, ..Reader::default() }, 60);
        assert_eq!((out.timeouts, out.fast_retransmits, out.resent), (0, 1, 1), "segment {lost}: {out:?}");
    }
}

#[test]
fn a_burst_of_losses_is_repaired() {
    for (first, many) in [(20, 3), (20, 10), (50, 40), (100, 100), (0, 10), (400, 1)] {
        let link = Link { lost: vec![(first, first + many)], queue_bytes: 1 << 30, ..Link::default() };
        let out = transfer(1448, 2_000_000, link, Reader { buffer: 1 << 20, ..Reader::default() }, 60);
        println!("{many} lost from {first}: {out:?}");
        assert!(out.finished_us.is_some_and(|us| us < 4_000_000), "{many} lost from {first}: {out:?}");
    }
}

#[test]
fn the_tail_and_the_fin_are_repaired_by_a_probe() {
    // 10 segments and the FIN: the last ones are lost, nothing comes behind them.
    let link = Link { lost: vec![(8, 11)], ..Link::default() };
    let out = transfer(1448, 14_480, link, Reader::default(), 60);
    assert_eq!((out.timeouts, out.tail_probes), (0, 1), "{out:?}");
    assert!(out.finished_us.is_some_and(|us| us < 130_000), "{out:?}");
    // A peer without SACK gets no probe: it takes the timer.
    let link = Link { lost: vec![(8, 11)], ..Link::default() };
    let out = transfer(1448, 14_480, link, Reader { sack: false, ..Reader::default() }, 60);
    assert_eq!((out.timeouts, out.tail_probes), (1, 0), "{out:?}");
    assert!(out.finished_us.is_some_and(|us| us < 600_000), "{out:?}");
}

#[test]
fn random_loss_both_ways_delivers_everything() {
    for seed in 0..60 {
        let loss = [5, 10, 30, 100, 300][seed as usize % 5];
        let link = Link { loss, ack_loss: loss, seed, ..Link::default() };
        let out = transfer(1448, 300_000, link, Reader::default(), 36_000);
        assert_eq!(out.delivered, 300_001, "seed {seed}, loss {loss}/1000: {out:?}");
        // 300 in 1000 both ways is beyond what TCP is made for; it still must not crawl from one minute to the next.
        let limit_s = if loss == 300 { 1500 } else { 20 };
        assert!(out.finished_us.is_some_and(|us| us < limit_s * 1_000_000), "seed {seed}, loss {loss}/1000: {out:?}");
    }
}

#[test]
fn a_blackout_ends_the_connection_after_the_stated_time() {
    let link = Link { blackout: 100_000..u64::MAX, ..Link::default() };
    let out = transfer(1448, 60_000_000, link, Reader::default(), 3600);
    let after = out.gave_up_us.expect("it gave up") - 100_000;
    // 9 doublings of 220 ms, then 7 waits of 60 s.
    assert!((532_000_000..534_000_000).contains(&after), "{after} us");
}

#[test]
fn a_blackout_that_ends_is_survived() {
    let link = Link { blackout: 100_000..30_000_000, ..Link::default() };
    let out = transfer(1448, 5_000_000, link, Reader::default(), 3600);
    assert!(out.finished_us.is_some_and(|us| us < 60_000_000), "{out:?}");
}

#[test]
fn a_reader_that_sleeps_is_probed_and_served_when_it_wakes() {
    for update_lost in [false, true] {
        let reader = Reader { buffer: 100_000, asleep: 50_000..20_000_000, update_lost, ..Reader::default() };
        let out = transfer(1448, 1_000_000, Link::default(), reader, 3600);
        println!("update lost {update_lost}: {out:?}");
        assert!(out.probes >= 6 && out.timeouts == 0, "{out:?}");
        let limit = if update_lost { 31_000_000 } else { 21_000_000 };
        assert!(out.finished_us.is_some_and(|us| us < limit), "{out:?}");
    }
}

#[test]
fn a_path_that_becomes_slower_than_the_timeout_is_measured_again() {
    // 20 ms become up to 3000 ms in the middle: every segment is sent again before its ACK can come, until a
    // doubled timeout waits for one.
    for delay_ms in [150, 300, 450, 600, 1000, 1200, 1400, 1500] {
        let link = Link { slower: (150_000, delay_ms * 1000), queue_bytes: 1 << 30, ..Link::default() };
        let out = transfer(1448, 3_000_000, link, Reader::default(), 3600);
        println!("{delay_ms} ms: {out:?}");
        assert!(out.timeouts <= 8, "{delay_ms} ms one way: {out:?}");
        assert!(out.finished_us.is_some_and(|us| us < 100 * 2000 * delay_ms), "{delay_ms} ms one way: {out:?}");
    }
}
