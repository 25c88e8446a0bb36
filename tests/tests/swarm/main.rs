//! The simulator's swarm: many seeds, none of which may violate anything, and each the same whenever it is run.

use khamsin_tools::sim::run::{keep_panics, run};
use khamsin_tools::sim::trace::Digest;
use khamsin_tools::sim::{Files, Scenario};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Seeds that CI runs; `KHAMSIN_SEEDS` says otherwise.
const SEEDS: u64 = 2_000;

fn seeds() -> u64 {
    std::env::var("KHAMSIN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn no_seed_violates_anything() {
    keep_panics();
    let next = AtomicU64::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let files = Files::new().expect("a folder for temporary files");
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds() {
                return failures;
            }
            if let Some(failure) = run(Scenario::new(seed), &files, |_| {}).failure {
                failures.push(format!(
                    "seed {seed}: {failure}\n  repeat: cargo run --profile swarm -p khamsin-tools --bin khamsin-sim -- --seed {seed} -v"
                ));
            }
        }
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("panics are kept")).collect()
    });
    assert!(failures.is_empty(), "{} of {} seeds:\n{}", failures.len(), seeds(), failures.join("\n"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    keep_panics();
    let files = Files::new().expect("a folder for temporary files");
    let digest = |seed| {
        let mut digest = None;
        let outcome = run(Scenario::new(seed), &files, |world| digest = Some(Digest::of(world.wire())));
        (digest.map(|digest| digest.value()), outcome.frames, outcome.virtual_us)
    };
    let runs: Vec<_> = (0..60).map(digest).collect();
    let again: Vec<_> = (0..60).map(digest).collect();
    assert_eq!(runs, again);
    let mut different = runs.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), runs.len(), "every seed is another run");
}
