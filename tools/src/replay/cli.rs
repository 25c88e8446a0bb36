//! The command line.

use super::list::list;
use super::reader::Bounds;
use super::trace::Trace;
use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;

const ABOUT: &str = "Replays the clients of a recorded trace against khamsin's TCP stack";

/// Replays recorded clients.
#[derive(Parser, Debug, Clone)]
#[command(name = "khamsin-replay", version, about = ABOUT, max_term_width = 110)]
pub struct Cli {
    /// A pcap or pcapng file; `-`: standard input
    #[arg(value_name = "TRACE")]
    trace: PathBuf,

    /// Show the flows of the trace, and replay nothing
    #[arg(long)]
    list: bool,
}

impl Cli {
    /// Does what it says; whether all is as it should be.
    ///
    /// # Errors
    /// The trace cannot be used.
    pub fn run(&self) -> Result<bool> {
        let trace = Trace::read(&self.trace, &Bounds::default())?;
        for trouble in trace.troubles() {
            eprintln!("khamsin-replay: {}: {trouble}", self.trace.display());
        }
        println!("{}", list(&trace));
        Ok(trace.damage.is_none() && trace.malformed_count == 0)
    }
}
