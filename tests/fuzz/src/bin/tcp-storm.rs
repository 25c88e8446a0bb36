//! Dice against the stack: hostile segments by the hundred million, and whether the process grows on them.

use anyhow::{Context, ensure};
use clap::Parser;
use khamsin_fuzz::source::Dice;
use khamsin_fuzz::tcp::{Session, extremes};
use khamsin_fuzz::world::WORLDS;
use khamsin_stack::Counters;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What the process may need more at the end than near the start, KiB: rare buffers that are touched late.
const GROWTH_KIB: u64 = 16 * 1024;
/// Epochs between two floods.
const FLOOD_EVERY: u64 = 101;
/// Steps of one epoch: then everything is reset, and looked at.
const STEPS: usize = 2000;

#[derive(Parser)]
#[command(about)]
struct Options {
    /// Segments to send to connections that are live or half-open.
    #[arg(long, default_value_t = 10_000_000)]
    segments: u64,
    /// Where the dice start; an epoch takes the next number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Epochs at most; 1 repeats one that failed.
    #[arg(long, default_value_t = u64::MAX)]
    epochs: u64,
}

/// What came of it.
struct Outcome {
    segments: u64,
    epochs: u64,
    seconds: f64,
    start_kib: u64,
    end_kib: u64,
}

/// The epoch that is played, for those who want to see a failure again.
static EPOCH: AtomicU64 = AtomicU64::new(0);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        eprintln!("repeat it with --seed {} --epochs 1", EPOCH.load(Ordering::Relaxed));
    }));
    let mut sessions: Vec<Session> = (0..WORLDS).map(Session::new).collect();
    let outcome = play(&options, &mut sessions)?;
    let mut total = extremes::strays(options.seed);
    sessions.iter_mut().for_each(|session| session.drain(options.seed));
    sessions.iter().for_each(|session| total.add(session.world.shard.counters()));
    report(&options, &outcome, &total)
}

fn play(options: &Options, sessions: &mut [Session]) -> anyhow::Result<Outcome> {
    let begin = now();
    let mut outcome = Outcome { segments: 0, epochs: 0, seconds: 0.0, start_kib: 0, end_kib: 0 };
    while outcome.segments < options.segments && outcome.epochs < options.epochs {
        let seed = options.seed + outcome.epochs;
        EPOCH.store(seed, Ordering::Relaxed);
        let session = &mut sessions[seed as usize % WORLDS];
        session.verify_every(16);
        let before = session.segments;
        session.run(&mut Dice::new(seed, u64::MAX), STEPS);
        let millions = outcome.segments / 1_000_000;
        outcome.segments += session.segments - before;
        outcome.epochs += 1;
        if outcome.epochs.is_multiple_of(FLOOD_EVERY) {
            session.flood();
        }
        outcome.seconds = begin.elapsed().as_secs_f64();
        outcome.end_kib = rss_kib()?;
        // What is set aside once has been touched by then.
        if outcome.start_kib == 0 && outcome.segments > options.segments / 20 {
            outcome.start_kib = outcome.end_kib;
        }
        if outcome.segments / 1_000_000 > millions {
            let Outcome { segments, epochs, seconds, end_kib, .. } = outcome;
            eprintln!("{segments} segments, {epochs} epochs, {:.0}/s, {end_kib} KiB", segments as f64 / seconds);
        }
    }
    Ok(outcome)
}

fn report(options: &Options, outcome: &Outcome, total: &Counters) -> anyhow::Result<()> {
    for (name, value) in total.iter() {
        println!("{name:24} {value}");
    }
    let Outcome { segments, epochs, seconds, start_kib, end_kib } = *outcome;
    let rate = segments as f64 / seconds;
    println!("{segments} segments, {epochs} epochs, {seconds:.1} s, {rate:.0}/s; {start_kib} KiB, then {end_kib} KiB");
    if segments < options.segments {
        return Ok(());
    }
    ensure!(end_kib < start_kib + GROWTH_KIB, "the process grew from {start_kib} to {end_kib} KiB");
    // The application here never panics, and eight peers are too few to wake two thousand connections in a second
    // (`stack/tests/park_many.rs` does).
    let cannot = ["closed_panicked", "drop_wake_limit"];
    let moved = |(name, value): &(&'static str, u64)| *value > 0 || cannot.contains(name);
    let still: Vec<_> = total.iter().filter(|counter| !moved(counter)).map(|(name, _)| name).collect();
    ensure!(still.is_empty(), "counters that never moved: {}", still.join(", "));
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a rate is measured")]
fn now() -> Instant {
    Instant::now()
}

/// Memory of this process, KiB.
fn rss_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status cannot be read")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS is no number")
}
