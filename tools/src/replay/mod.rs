//! `khamsin-replay`: the clients of a recorded trace against khamsin's stack.
//!
//! A [`trace::Trace`] holds the TCP flows of a pcap or pcapng file. A trace may come from anybody: what it says is believed
//! no further than it is bounded. A [`plan::Plan`] says when the client of a flow sends what, and what the server answers;
//! [`world::replay`] makes it happen against the stack, and [`judge`] says where the outcome differs from the recorded one.

pub mod cli;
pub mod client;
pub mod encode;
pub mod flow;
mod fragments;
pub mod half;
pub mod judge;
mod link;
pub mod list;
pub mod live;
pub mod mapping;
pub mod plan;
mod port;
pub mod reader;
pub mod report;
pub mod segment;
pub mod server;
mod source;
pub mod stats;
pub mod trace;
pub mod world;

use clap::Parser;
use khamsin::output::note;
use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            note(format_args!("khamsin-replay: {error:#}"));
            ExitCode::from(1)
        }
    }
}
