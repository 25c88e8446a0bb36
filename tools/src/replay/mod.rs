//! `khamsin-replay`: the clients of a recorded trace against khamsin's stack.
//!
//! A [`trace::Trace`] holds the TCP flows of a pcap or pcapng file. A trace may come from anybody: what it says is believed
//! no further than it is bounded.

pub mod cli;
pub mod flow;
pub mod half;
mod link;
pub mod list;
pub mod reader;
pub mod segment;
pub mod trace;

use clap::Parser;
use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("khamsin-replay: {error:#}");
            ExitCode::from(1)
        }
    }
}
