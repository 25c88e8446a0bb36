//! `khamsin-sim`: seeds, faults and workloads in virtual time.

mod batch;
mod one;
mod options;

use anyhow::Result;
use clap::Parser;
use khamsin::output::note;
use options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            note(format_args!("khamsin-sim: {error:#}"));
            ExitCode::from(1)
        }
    }
}

/// Whether nothing was violated.
fn run(options: &Options) -> Result<bool> {
    match options.seed {
        Some(seed) => one::run(seed, options),
        None if options.batch => batch::child(options),
        None => batch::parent(options),
    }
}
