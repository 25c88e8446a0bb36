//! One seed, looked at closely.

use super::options::Options;
use anyhow::Result;
use khamsin_tools::sim::run::{keep_panics, run as run_scenario};
use khamsin_tools::sim::shrink::Shrinking;
use khamsin_tools::sim::trace::Teller;
use khamsin_tools::sim::{Cuts, Files, Scenario};
use std::io::Write;

/// Whether nothing was violated.
pub(super) fn run(seed: u64, options: &Options) -> Result<bool> {
    keep_panics();
    let files = Files::new()?;
    let cuts = if options.shrink { shrink(seed, &options.cuts(), &files) } else { options.cuts() };
    let scenario = cuts.apply(Scenario::new(seed));
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", scenario.describe())?;
    let verbose = options.verbose;
    let outcome = run_scenario(scenario, &files, |world| {
        if verbose {
            Teller::of(world.wire(), |line| {
                // A reader that has seen enough closes the pipe.
                let _ = writeln!(std::io::stdout(), "{line}");
            });
        }
    });
    let seconds = outcome.virtual_us as f64 / 1e6;
    writeln!(out, "{} frames in {seconds:.3} s of virtual time", outcome.frames)?;
    let counted = outcome.counters.iter().filter(|&(_, n)| n > 0).map(|(name, n)| format!("{name} {n}"));
    writeln!(out, "the server counts: {}", counted.collect::<Vec<_>>().join(", "))?;
    match &outcome.failure {
        None => writeln!(out, "seed {seed}: nothing was violated")?,
        Some(failure) => writeln!(out, "seed {seed}: VIOLATED {failure}\nrepeat: khamsin-sim --seed {seed}{cuts} -v")?,
    }
    Ok(outcome.failure.is_none())
}

/// What can be taken away, beside `cuts`, so that the seed still fails.
fn shrink(seed: u64, cuts: &Cuts, files: &Files) -> Cuts {
    let Some(mut shrinking) = Shrinking::new(files, seed, cuts.clone()) else { return cuts.clone() };
    eprintln!("to shrink: {}", shrinking.failure);
    shrinking.run(|cuts, runs| eprintln!("after {runs} runs:{cuts}"));
    shrinking.cuts
}
