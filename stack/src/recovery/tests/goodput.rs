//! Goodput against RECOVERY.md's reference (a RACK + CUBIC sender in the same virtual link, SACK, no timestamps).

use crate::recovery::link::{Link, Outcome, Reader, transfer};

/// Payload Mbit/s of `seconds` over 20 ms, mean of `seeds`.
fn goodput(mbit: u64, loss: u64, reorder: u64, seconds: u64, seeds: u64, reader: &Reader) -> (f64, Vec<Outcome>) {
    let outcomes: Vec<Outcome> = (0..seeds)
        .map(|seed| {
            let link = Link {
                bits_per_second: mbit * 1_000_000,
                queue_bytes: mbit * 2500,
                loss,
                reorder: (reorder, 10_000),
                ack_reorder: (reorder, 10_000),
                seed: 77 + 7919 * seed,
                ..Link::default()
            };
            transfer(1460, 1 << 40, link, reader.clone(), seconds)
        })
        .collect();
    let bytes: u64 = outcomes.iter().map(|out| out.delivered).sum();
    (bytes as f64 * 8e-6 / (seconds * seeds) as f64, outcomes)
}

/// Mean ms until `total` bytes have arrived.
fn mean_ms(total: u64, loss: u64, seeds: u64, reader: &Reader) -> f64 {
    let sum: u64 = (0..seeds)
        .map(|seed| {
            let link = Link { loss, seed: 99 + 104_729 * seed, queue_bytes: 250_000, ..Link::default() };
            let out = transfer(1460, total, link, reader.clone(), 60);
            assert!(out.finished_us.is_some());
            out.arrived_us
        })
        .sum();
    sum as f64 / 1000.0 / seeds as f64
}

/// The reference reaches 96.97, 28.20, 7.84, 3.99 and 93.55 at 100 Mbit/s, where its frames have less overhead than ours,
/// and 36.3, 8.16, 4.42 at 1 Gbit/s.
#[test]
fn loss_and_reordering_cost_what_they_cost_the_reference() {
    // Mbit/s, lost and reordered of 1000, seconds, seeds, least goodput.
    let cells = [
        (100, 0, 0, 5, 1, 90.0),
        (100, 1, 0, 10, 2, 25.0),
        (100, 10, 0, 20, 3, 7.3),
        (100, 30, 0, 20, 3, 3.75),
        (100, 0, 50, 5, 1, 90.0),
        (1000, 0, 0, 1, 1, 700.0),
        (1000, 1, 0, 10, 1, 33.0),
        (1000, 10, 0, 20, 3, 7.2),
        (1000, 30, 0, 20, 3, 3.8),
    ];
    for (mbit, loss, reorder, seconds, seeds, least) in cells {
        for stamps in [false, true] {
            let reader = Reader { stamps, buffer: 16 << 20, ..Reader::default() };
            let (rate, out) = goodput(mbit, loss, reorder, seconds, seeds, &reader);
            println!(
                "{mbit} Mbit/s, loss {loss}, reordering {reorder}, stamps {stamps}: {rate:.2} Mbit/s {:?}",
                out[0]
            );
            assert!(rate > least, "{rate}");
            assert!(out.iter().all(|out| out.timeouts == 0), "no loss here needs the timer");
        }
    }
}

/// The reference needs 14, 73 and 545 ms.
#[test]
fn short_flows_at_one_percent_loss_arrive_when_those_of_the_reference_do() {
    for (total, most_ms) in [(14_000, 14.5), (100_000, 75.0), (1_000_000, 520.0)] {
        let ms = mean_ms(total, 10, 50, &Reader::default());
        println!("{total} bytes: {ms:.1} ms");
        assert!(ms < most_ms, "{total} bytes: {ms} ms");
    }
}

/// Segments and acknowledgements arrive out of order, and reports are late besides.
#[test]
fn reordering_in_both_directions_costs_little() {
    let (mut bytes, mut refused) = (0, 0);
    for seed in 0..20 {
        let link = Link {
            bits_per_second: 100_000_000,
            queue_bytes: 250_000,
            reorder: (50, 10_000),
            ack_reorder: (50, 10_000),
            seed: 77 + 7919 * seed,
            ..Link::default()
        };
        let reader = Reader { stamps: true, buffer: 16 << 20, ..Reader::default() };
        let out = transfer(1448, 1 << 40, link, reader, 2);
        println!("{:5.1} {out:?}", out.delivered as f64 * 8e-6 / 2.0);
        assert!(out.timeouts == 0, "{out:?}");
        bytes += out.delivered;
        refused += out.refused;
    }
    let rate = bytes as f64 * 8e-6 / 2.0 / 20.0;
    println!("{rate:.1} Mbit/s, {refused} refused");
    assert!(rate > 84.0, "{rate} Mbit/s");
}
