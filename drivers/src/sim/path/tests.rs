use super::*;
use crate::sim::{SimConfig, Wire};

fn us(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

/// `count` frames of 1,000 bytes from the left, one every `gap_us`.
fn verdicts(seed: u64, config: &PathConfig, count: u64, gap_us: u64) -> Vec<Verdict> {
    let mut path = Path::symmetric(seed, config.clone());
    (0..count).map(|i| path.offer(us(i * gap_us), Side::Left, 1000)).collect()
}

fn arrival(verdict: Verdict) -> Option<u64> {
    match verdict {
        Verdict::Delivered(delivery) => Some(delivery.at.micros()),
        Verdict::Dropped(_) => None,
    }
}

#[test]
fn the_default_delivers_at_once() {
    let fine = Verdict::Delivered(Delivery { at: us(7), copy_at: None, flipped_bit: None });
    assert_eq!(Path::symmetric(1, PathConfig::default()).offer(us(7), Side::Right, 60), fine);
}

#[test]
fn the_bottleneck_sends_one_frame_after_the_other_and_forgets_no_fraction() {
    // 1,000 bytes take 8/3 microseconds at 3 Gbit/s.
    let config = PathConfig { rate_bits_per_s: 3_000_000_000, delay_us: 100, ..PathConfig::default() };
    let mut path = Path::symmetric(0, config);
    for i in 1..=3_000 {
        let at = arrival(path.offer(us(0), Side::Left, 1000)).unwrap();
        assert!(at.abs_diff(100 + i * 8 / 3) <= 2, "frame {i} arrives at {at}");
    }
    assert_eq!(arrival(path.offer(us(0), Side::Right, 1000)), Some(103), "each direction has its own");
    assert_eq!(arrival(path.offer(us(9_000), Side::Left, 1000)), Some(9_103), "idle time is not saved up");
}

#[test]
fn a_full_queue_drops_at_its_tail_and_drains_at_the_rate() {
    // 10 microseconds a frame.
    let base = PathConfig { rate_bits_per_s: 800_000_000, ..PathConfig::default() };
    for queue in [QueueLimit::Bytes(5_999), QueueLimit::Frames(5)] {
        let mut path = Path::symmetric(0, PathConfig { queue, ..base.clone() });
        for i in 1..=5 {
            assert_eq!(arrival(path.offer(us(0), Side::Left, 1000)), Some(10 * i), "{queue:?}");
        }
        assert_eq!(path.offer(us(0), Side::Left, 1000), Verdict::Dropped(PathDrop::QueueFull), "{queue:?}");
        assert_eq!(arrival(path.offer(us(10), Side::Left, 1000)), Some(60), "{queue:?}: one has left");
        assert_eq!(path.stats(Side::Left).queue_full, 1);
        assert_eq!(path.stats(Side::Left).delivered, 6);
    }
}

#[test]
fn frequencies_are_as_asked_and_every_frame_is_accounted_for() {
    let config = PathConfig {
        loss_per_million: 200_000,
        duplicate_per_million: 50_000,
        duplicate_us: 40,
        reorder_per_million: 100_000,
        reorder_us: 10_000,
        corrupt_per_million: 10_000,
        ..PathConfig::default()
    };
    let mut path = Path::symmetric(7, config);
    let mut held = Vec::new();
    for i in 0..100_000 {
        let Verdict::Delivered(delivery) = path.offer(us(i), Side::Right, 60) else { continue };
        held.extend(Some(delivery.at.micros() - i).filter(|held| *held > 0));
        assert!(delivery.copy_at.is_none_or(|copy| (1..=40).contains(&copy.micros_since(delivery.at))));
        assert!(delivery.flipped_bit.is_none_or(|bit| (112..480).contains(&bit)));
    }
    let stats = path.stats(Side::Right);
    assert_eq!(stats.offered, 100_000);
    assert_eq!(stats.delivered + stats.lost, 100_000);
    assert!((19_000..21_000).contains(&stats.lost), "{stats:?}");
    assert!((3_600..4_400).contains(&stats.duplicated), "{stats:?}");
    assert!((7_600..8_400).contains(&stats.delayed), "{stats:?}");
    assert!((650..950).contains(&stats.corrupted), "{stats:?}");
    assert_eq!(held.len() as u64, stats.delayed);
    assert!(held.iter().all(|held| *held <= 10_000));
    let mean = held.iter().sum::<u64>() / held.len() as u64;
    assert!((4_800..5_200).contains(&mean), "uniform up to 10 ms: {mean}");
    assert_eq!(path.stats(Side::Left), PathStats::default());
}

#[test]
fn one_fault_leaves_the_others_alone() {
    let lossy = PathConfig { loss_per_million: 100_000, ..PathConfig::default() };
    let burst_loss = Some(BurstLoss { every_us: 500, lasts_us: 50, loss_per_million: 900_000 });
    let all = PathConfig {
        rate_bits_per_s: 100_000_000,
        jitter_us: 300,
        reorder_per_million: 300_000,
        reorder_us: 9,
        duplicate_per_million: 300_000,
        corrupt_per_million: 300_000,
        burst_loss,
        ..lossy.clone()
    };
    let lost = |seed, config: &PathConfig| {
        let verdicts = verdicts(seed, config, 10_000, 1);
        verdicts.iter().map(|v| *v == Verdict::Dropped(PathDrop::Loss)).collect::<Vec<_>>()
    };
    assert_eq!(lost(1, &lossy), lost(1, &all));
    assert_ne!(lost(1, &lossy), lost(2, &lossy));
    // Less loss loses a part of the same frames.
    let fewer = lost(1, &PathConfig { loss_per_million: 10_000, ..lossy.clone() });
    assert!(fewer.iter().zip(lost(1, &lossy)).all(|(few, more)| !few || more));
    assert!(fewer.contains(&true));
}

#[test]
fn fates_depend_on_the_index_and_not_on_time_or_length() {
    let config =
        PathConfig { loss_per_million: 100_000, reorder_per_million: 100_000, reorder_us: 50, ..PathConfig::default() };
    let run = |gap, len| {
        let mut path = Path::symmetric(3, config.clone());
        let held = |i: u64, verdict| arrival(verdict).map(|at| at - i * gap);
        (0..10_000).map(|i| held(i, path.offer(us(i * gap), Side::Left, len))).collect::<Vec<_>>()
    };
    assert_eq!(run(1, 60), run(1_000, 1500));
}

#[test]
fn bursts_are_as_long_and_as_frequent_as_asked() {
    let burst_loss = Some(BurstLoss { every_us: 1_000, lasts_us: 200, loss_per_million: 1_000_000 });
    let config = PathConfig { burst_loss, ..PathConfig::default() };
    let lost = |gap_us| -> Vec<bool> {
        let verdicts = verdicts(5, &config, 1_000_000 / gap_us, gap_us);
        verdicts.iter().map(|v| *v == Verdict::Dropped(PathDrop::BurstLoss)).collect()
    };
    let each = lost(1);
    let bursts: Vec<usize> = each.chunk_by(|a, b| a == b).filter(|run| run[0]).map(<[bool]>::len).collect();
    // Two that meet look like one.
    assert!((990..=1_000).contains(&bursts.len()), "{} bursts", bursts.len());
    let mean = bursts.iter().sum::<usize>() as f64 / bursts.len() as f64;
    assert!((96.0..106.0).contains(&mean), "{mean} us each");
    assert!(bursts.iter().all(|&len| len <= 400));
    // They come by the clock, whoever sends how much.
    let seldom = lost(37);
    assert!(seldom.iter().enumerate().all(|(i, lost)| *lost == each[37 * i]));
    assert!(seldom.contains(&true) && seldom.contains(&false));
}

#[test]
fn jitter_delays_and_keeps_the_order() {
    let config = PathConfig { delay_us: 100, jitter_us: 50, ..PathConfig::default() };
    let arrivals: Vec<u64> = verdicts(9, &config, 1_000, 10).into_iter().filter_map(arrival).collect();
    assert!(arrivals.is_sorted());
    let late: Vec<u64> = arrivals.iter().zip(0..).map(|(at, i)| at - 10 * i).collect();
    assert!(late.iter().all(|late| (100..=150).contains(late)));
    assert!(late.contains(&150) && late.iter().any(|late| *late < 120));
}

#[test]
fn a_partition_loses_what_is_sent_meanwhile() {
    let partitions = vec![(us(20), us(30)), (us(5), us(7))];
    let config = PathConfig { delay_us: 8, partitions, ..PathConfig::default() };
    let gone: Vec<u64> = (0..40)
        .zip(verdicts(1, &config, 40, 1))
        .filter(|(_, verdict)| *verdict == Verdict::Dropped(PathDrop::Partition))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(gone, [vec![5, 6], (20..30).collect()].concat());
    let mut path = Path::symmetric(1, config);
    path.offer(us(5), Side::Left, 60);
    assert_eq!(path.stats(Side::Left).partitioned, 1);
}

#[test]
fn a_wire_takes_a_path() {
    let config = PathConfig {
        rate_bits_per_s: 8_000_000,
        queue: QueueLimit::Frames(2),
        delay_us: 1_000,
        duplicate_per_million: 1_000_000,
        duplicate_us: 1,
        ..PathConfig::default()
    };
    let path = Rc::new(RefCell::new(Path::symmetric(1, config)));
    let wire = Wire::with_faults(SimConfig { latency_us: 0, ..SimConfig::default() }, Rc::clone(&path));
    let (left, right) = (wire.end(Side::Left), wire.end(Side::Right));
    for number in 0..3 {
        left.send(&[number; 100]);
    }
    let mut arrived = Vec::new();
    while let Some(at) = wire.next_arrival() {
        wire.advance(at);
        arrived.extend(right.recv().map(|frame| (at.micros(), frame[0])));
    }
    assert_eq!(arrived, [(1_100, 0), (1_101, 0), (1_200, 1), (1_201, 1)]);
    assert_eq!(path.borrow().stats(Side::Left).queue_full, 1);
    assert_eq!(wire.stats(Side::Left).lost, 1);
}
