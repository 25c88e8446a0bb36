//! Links and peers that ask for more than loss by chance.

use crate::recovery::Algorithm;
use crate::recovery::link::{Link, Outcome, Reader, transfer};

fn run(total: u64, link: Link, reader: Reader) -> Outcome {
    let out = transfer(1460, total, link, reader, 600);
    assert_eq!(out.delivered, total + 1, "{out:?}");
    out
}

/// Seconds until everything was acknowledged.
fn seconds(out: &Outcome) -> f64 {
    out.finished_us.expect("it finished") as f64 / 1e6
}

/// A third of the ACKs lost: the next one says the same.
#[test]
fn lost_acks_cost_little() {
    let whole = seconds(&run(20_000_000, Link::default(), Reader::default()));
    let link = Link { ack_loss: 300, ..Link::default() };
    let out = run(20_000_000, link, Reader::default());
    println!("{whole:.2} s, {:.2} s {out:?}", seconds(&out));
    assert!(seconds(&out) < 1.1 * whole && out.timeouts == 0);
}

/// One ACK for 44 segments, as receivers send them that merge; and ACKs that come in heaps every 5 ms.
#[test]
fn few_acks_and_heaps_of_acks_do_not_slow_it() {
    let whole = seconds(&run(20_000_000, Link::default(), Reader::default()));
    for (stretch, compress_us) in [(1, 0), (44, 0), (2, 5_000), (44, 5_000)] {
        let link = Link { compress_us, ..Link::default() };
        let out = run(20_000_000, link, Reader { stretch, ..Reader::default() });
        println!("{stretch} {compress_us}: {whole:.2} s, {:.2} s {out:?}", seconds(&out));
        assert!(seconds(&out) < 1.15 * whole && out.timeouts == 0, "{stretch} {compress_us}: {out:?}");
    }
}

#[test]
fn a_peer_without_sack_is_served_well() {
    for (loss, most_s) in [(1, 8.0), (10, 16.0)] {
        for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
            let link = Link { loss, queue_bytes: 1 << 30, ..Link::default() };
            let out = run(10_000_000, link, Reader { sack: false, algorithm, ..Reader::default() });
            println!("loss {loss} {algorithm:?}: {:.2} s {out:?}", seconds(&out));
            assert!(seconds(&out) < most_s && out.timeouts <= 6, "{out:?}");
        }
    }
}

/// The simplest of all receivers: it has no place for what comes early.
#[test]
fn a_peer_that_keeps_nothing_early_is_served() {
    for seed in 0..20 {
        for (loss, most_s) in [(4, 10.0), (20, 30.0)] {
            let link = Link { loss, seed, queue_bytes: 1 << 30, ..Link::default() };
            let reader = Reader { sack: false, discards: true, buffer: 65_535, ..Reader::default() };
            let out = run(2_000_000, link, reader);
            println!("seed {seed} loss {loss}: {:.2} s {out:?}", seconds(&out));
            assert!(seconds(&out) < most_s, "seed {seed} loss {loss}: {out:?}");
        }
    }
}

/// A hundred segments in a row, in slow start and later.
#[test]
fn bursts_of_losses_need_no_timer() {
    for (from, many) in [(20, 10), (60, 40), (300, 100), (2000, 200)] {
        for stamps in [false, true] {
            let link = Link { lost: vec![(from, from + many)], queue_bytes: 1 << 30, ..Link::default() };
            let out = run(5_000_000, link, Reader { stamps, ..Reader::default() });
            println!("{many} from {from}: {:.3} s {out:?}", seconds(&out));
            assert!(out.timeouts == 0 && out.resent <= many + 2, "{many} from {from}: {out:?}");
            assert!(seconds(&out) < 2.0, "{out:?}");
        }
    }
}

/// RFC 8985 7: the last segments, without anything behind them.
#[test]
fn a_lost_tail_takes_a_probe_and_not_the_timer() {
    for many in 1..=10 {
        let link = Link { lost: vec![(70 - many, 70)], ..Link::default() };
        let out = run(69 * 1460 + 100, link, Reader::default());
        println!("{many}: {:.3} s {out:?}", seconds(&out));
        assert_eq!((out.timeouts, out.tail_probes.min(1)), (0, 1), "{many}: {out:?}");
        // A lone segment waits for the peer's delayed acknowledgement, too.
        assert!(seconds(&out) < if many == 1 { 0.4 } else { 0.3 }, "{many}: {out:?}");
    }
}

/// The same segment lost again and again.
#[test]
fn lost_retransmissions_need_no_timer() {
    // Segment 100 and what follows the detection: its first two copies.
    let whole = Link { queue_bytes: 1 << 30, ..Link::default() };
    let first = run(5_000_000, Link { lost: vec![(100, 101)], ..whole.clone() }, Reader::default());
    assert_eq!((first.timeouts, first.resent), (0, 1));
    let mut timeouts = 0;
    for seed in 0..20 {
        let out = run(2_000_000, Link { loss: 100, seed, ..whole.clone() }, Reader::default());
        timeouts += out.timeouts;
        assert!(out.resent > 100);
    }
    println!("{timeouts} timeouts in 20 transfers at 10 % loss");
    assert!(timeouts <= 60, "{timeouts}");
}

/// Everything is held for 300 ms and then arrives: nothing was lost, and the window stays what it was.
#[test]
fn a_spike_of_delay_is_forgiven() {
    for (stamps, sack) in [(false, true), (true, true), (true, false), (false, false)] {
        let link = Link { held: 400_000..900_000, queue_bytes: 1 << 30, ..Link::default() };
        let out = run(10_000_000, link, Reader { stamps, sack, buffer: 400_000, ..Reader::default() });
        println!("stamps {stamps} sack {sack}: {:.3} s {out:?}", seconds(&out));
        assert!(out.timeouts >= 1 && out.undone >= 1, "stamps {stamps} sack {sack}: {out:?}");
        assert!(out.resent <= 3, "stamps {stamps} sack {sack}: {out:?}");
        assert!(seconds(&out) < 1.9, "{out:?}");
    }
}

/// RFC 2018 8.
#[test]
fn a_peer_that_throws_away_what_it_reported_is_served() {
    for at in [60_000, 85_000, 100_000, 150_000] {
        let link = Link { lost: vec![(40, 42), (90, 91), (160, 170)], queue_bytes: 1 << 30, ..Link::default() };
        let out = run(3_000_000, link, Reader { reneges_at: at, ..Reader::default() });
        println!("{at}: {:.3} s {out:?}", seconds(&out));
        assert!(seconds(&out) < 2.0, "{at}: {out:?}");
    }
}

/// Windows of a few hundred bytes, and buffers of one and a half segments.
#[test]
fn tiny_windows_get_there() {
    for buffer in [100, 700, 1460, 2200, 4000] {
        let out = run(60_000, Link { loss: 10, ..Link::default() }, Reader { buffer, ..Reader::default() });
        println!("{buffer}: {:.2} s {out:?}", seconds(&out));
        assert!(seconds(&out) < 200.0, "{buffer}: {out:?}");
    }
}

/// A queue of twenty segments before a bottleneck of 100 Mbit/s: pacing keeps more of it out of the queue.
#[test]
fn a_short_queue_is_lived_with() {
    let link = Link { queue_bytes: 30_000, ..Link::default() };
    let out = run(40_000_000, link, Reader::default());
    println!("{:.1} Mbit/s {out:?}", out.steady_mbit());
    assert!(out.steady_mbit() > 60.0 && out.timeouts == 0, "{out:?}");
}
