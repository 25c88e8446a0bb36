//! One seed, looked at closely.

use super::options::Options;
use anyhow::{Context, Result};
use khamsin::output::{note, say};
use khamsin_tools::script::run_virtual;
use khamsin_tools::sim::packets::{Title, script};
use khamsin_tools::sim::run::{keep_panics, run as run_scenario};
use khamsin_tools::sim::shrink::Shrinking;
use khamsin_tools::sim::trace::Teller;
use khamsin_tools::sim::witness::Witness;
use khamsin_tools::sim::{Cuts, Failure, Files, Scenario};
use std::path::Path;

/// Whether nothing was violated.
pub(super) fn run(seed: u64, options: &Options) -> Result<bool> {
    keep_panics();
    let files = Files::new()?;
    let cuts = if options.shrink { shrink(seed, &options.cuts(), &files) } else { options.cuts() };
    let scenario = cuts.apply(Scenario::new(seed));
    say(scenario.describe())?;
    let verbose = options.verbose;
    let mut witness = None;
    let outcome = run_scenario(scenario, &files, |world| {
        if options.script.is_some() {
            world.witness().borrow_mut().record();
            witness = Some(world.witness());
        }
        if verbose {
            Teller::of(world.wire(), |line| {
                // A full disk is told of at the end, when it can end something.
                let _ = say(line);
            });
        }
    });
    let seconds = outcome.virtual_us as f64 / 1e6;
    say(format_args!("{} frames in {seconds:.3} s of virtual time", outcome.frames))?;
    let counted = outcome.counters.iter().filter(|&(_, n)| n > 0).map(|(name, n)| format!("{name} {n}"));
    say(format_args!("the server counts: {}", counted.collect::<Vec<_>>().join(", ")))?;
    match &outcome.failure {
        None => say(format_args!("seed {seed}: nothing was violated"))?,
        Some(failure) => {
            say(format_args!("seed {seed}: VIOLATED {failure}\nrepeat: khamsin-sim --seed {seed}{cuts} -v"))?
        }
    }
    if let (Some(file), Some(witness)) = (&options.script, witness) {
        let failure = outcome.failure.as_ref().map_or("nothing was violated".to_owned(), Failure::to_string);
        let title = Title { seed, failure, command: format!("khamsin-sim --seed {seed}{cuts} -v") };
        write_script(file, title, &witness.borrow())?;
    }
    Ok(outcome.failure.is_none())
}

/// Writes the script, and says whether the stack alone behaves as it says.
fn write_script(file: &Path, title: Title, witness: &Witness) -> Result<()> {
    // Whose flow it is stands in what the witness says.
    let said = title.failure.split(", to ").nth(1).and_then(|rest| rest.split_once(": "));
    let peer = said.and_then(|(peer, _)| peer.parse().ok());
    let script = script(title, witness, peer).context("no TCP has passed, so there is nothing to write a script of")?;
    std::fs::write(file, script.to_string()).with_context(|| format!("writing {}", file.display()))?;
    say(format_args!("wrote {} lines to {}", script.lines.len(), file.display()))?;
    match run_virtual(&script, false) {
        Ok(_) => say("the stack behaves as the script says under it, too")?,
        Err(mismatch) => {
            let (line, seen) = (mismatch.line, mismatch.seen);
            say(format_args!("under the script the stack goes another way from line {line} on: {seen}"))?
        }
    }
    Ok(())
}

/// What can be taken away, beside `cuts`, so that the seed still fails.
fn shrink(seed: u64, cuts: &Cuts, files: &Files) -> Cuts {
    let Some(mut shrinking) = Shrinking::new(files, seed, cuts.clone()) else { return cuts.clone() };
    note(format_args!("to shrink: {}", shrinking.failure));
    shrinking.run(|cuts, runs| note(format_args!("after {runs} runs:{cuts}")));
    shrinking.cuts
}
