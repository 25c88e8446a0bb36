//! `khamsin-load`: load for any server that speaks HTTP/1.1 or echoes, and what came of it.
//!
//! A [`plan::Plan`] says what is asked of whom. An engine opens the connections and moves the bytes: kernel sockets
//! behind epoll ([`sockets`]), or frames and a small TCP client of its own ([`client`]). Neither knows why it asks or whether an
//! answer is right: a [`book::Book`] decides when a connection asks and keeps the times, a [`judge::Judge`] reads the
//! answers byte by byte. [`report`] prints what the [`tally::Tally`] of all threads adds up to.

pub mod book;
pub mod cli;
pub mod client;
mod cpu;
pub mod crew;
mod head;
pub mod judge;
pub mod plan;
mod progress;
pub mod report;
pub mod sockets;
pub mod speech;
pub mod tally;

use clap::Parser;
use cli::Cli;
use khamsin::output::note;
use std::process::ExitCode;

/// The program: reads the command line, runs the load, reports.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let job = match cli.job() {
        Ok(job) => job,
        Err(sentence) => {
            note(format_args!("khamsin-load: {sentence}"));
            return ExitCode::from(2);
        }
    };
    match crew::run(&job).and_then(|outcome| report::show(&job, &outcome)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            note(format_args!("khamsin-load: {error:#}"));
            ExitCode::from(1)
        }
    }
}
