//! Forty worlds that nobody thought of: every knob turned by a seed, the same echo in each.

use crate::server::echoes;
use khamsin_drivers::sim::SimConfig;
use khamsin_drivers::sim::client::Options;

/// The `n`th choice of a seed.
fn pick<T: Copy>(seed: u64, n: u64, among: &[T]) -> T {
    let mut z = (seed * 64 + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    among[(z >> 33) as usize % among.len()]
}

fn world(seed: u64) -> (SimConfig, Options, usize, &'static str) {
    let offload = pick(seed, 0, &[false, true]);
    let config = SimConfig {
        latency_us: pick(seed, 1, &[50, 500, 5_000, 50_000]),
        loss_per_million: pick(seed, 2, &[0, 10_000, 50_000, 200_000]),
        duplicate_per_million: pick(seed, 3, &[0, 50_000]),
        corrupt_per_million: pick(seed, 4, &[0, 10_000]),
        reorder_per_million: pick(seed, 5, &[0, 100_000]),
        reorder_us: pick(seed, 6, &[100, 3_000, 300_000]),
        mtu: pick(seed, 7, &[700, 1500, 9000]),
        tx_checksum: offload,
        tx_segment_max: if offload { pick(seed, 8, &[0, 65_000]) } else { 0 },
        // With three frames in flight at most, the server runs out of them again and again.
        tx_frames: pick(seed, 9, &[4096, 3]),
        seed,
        ..SimConfig::default()
    };
    // Small windows without scaling, large ones with it.
    let (window, window_scale) =
        pick(seed, 10, &[(300, None), (5_000, Some(0)), (65_535, Some(7)), (65_535, None), (1 << 20, Some(5))]);
    let options = Options {
        mss: pick(seed, 11, &[60, 536, 1460, 8940]).min(config.mtu as u16 - 60),
        segment_max: pick(seed, 12, &[1, 100, 100_000]).min(config.mtu - 60),
        flight_max: pick(seed, 13, &[3_000, 50_000, 1_000_000]),
        isn: pick(seed, 14, &[0, 0x7fff_fff0, u32::MAX - 100]),
        window,
        window_scale,
        // Longer than the server tries: a last ACK that is lost every time is no failure.
        time_wait_us: 2_000_000_000,
        ..Options::default()
    };
    let len = pick(seed, 15, &[1, 3_000, 30_000]);
    // Go-back-N sends every single byte again.
    let len = if options.segment_max == 1 { len.min(300) } else { len };
    (config, options, len, pick(seed, 16, &["198.18.0.2:7", "[fd00::2]:7"]))
}

#[test]
fn forty_worlds() {
    for seed in 0..40 {
        let (config, options, len, peer) = world(seed);
        echoes(config, options, len, peer);
    }
}
