//! Dice against the stack: hostile segments by the hundred million, and whether the process grows on them.

use anyhow::{Context, ensure};
use clap::Parser;
use khamsin_fuzz::source::Dice;
use khamsin_fuzz::tcp::{Session, extremes};
use khamsin_fuzz::world::KINDS;
use std::time::Instant;

/// Epochs between two floods.
const FLOOD_EVERY: u64 = 501;
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

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut sessions: Vec<Session> = (0..KINDS).map(Session::new).collect();
    let begin = now();
    let (mut epochs, mut segments, mut start_kib) = (0, 0, 0);
    let mut shown = 0;
    while segments < options.segments && epochs < options.epochs {
        let seed = options.seed + epochs;
        let session = &mut sessions[seed as usize % KINDS];
        session.verify_every(16);
        let before = session.segments;
        session.run(&mut Dice::new(seed, u64::MAX), STEPS);
        segments += session.segments - before;
        epochs += 1;
        if epochs % FLOOD_EVERY == 0 {
            session.flood();
        }
        // What is set aside once has been touched by then.
        if start_kib == 0 && segments > options.segments / 20 {
            start_kib = rss_kib()?;
        }
        if segments / 1_000_000 > shown {
            shown = segments / 1_000_000;
            eprintln!(
                "{shown} M segments, epoch {seed}, {:.0}/s, {} KiB",
                segments as f64 / begin.elapsed().as_secs_f64(),
                rss_kib()?
            );
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let end_kib = rss_kib()?;
    let mut total = extremes::strays(options.seed);
    sessions.iter_mut().for_each(|session| session.drain(options.seed));
    sessions.iter().for_each(|session| total.add(session.world.shard.counters()));
    for (name, value) in total.iter() {
        println!("{name:24} {value}");
    }
    println!(
        "{segments} segments in {epochs} epochs, {seconds:.1} s, {:.0}/s; {start_kib} KiB, then {end_kib} KiB",
        segments as f64 / seconds
    );
    ensure!(end_kib < start_kib + 8192, "the process grew");
    let still: Vec<_> =
        total.iter().filter(|(name, value)| *value == 0 && *name != "closed_panicked").map(|(name, _)| name).collect();
    ensure!(still.is_empty() || options.epochs < u64::MAX, "counters that never moved: {}", still.join(", "));
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
