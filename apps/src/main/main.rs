//! khamsin: the one place where applications meet a backend.

#![forbid(unsafe_code)]

mod apps;
mod capture;
mod cli;
mod demo;
mod doctor;
mod engine;
mod frames;
mod ladder;
mod open;
mod options;
mod privileges;
mod ready;
mod rung;
mod serve;
mod server;
mod signals;
mod watch;
mod worker;

use clap::Parser;
use clap::error::ErrorKind;
use cli::{Cli, Command};
use khamsin::output::note;
use options::Usage;
use std::io::IsTerminal;
use std::process::ExitCode;

/// Exit code of a run-time failure.
const FAILED: u8 = 1;
/// Exit code of a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    start_log(&cli.command);
    let done = match cli.command {
        Command::Serve(args) => args.try_into().map(serve::run),
        Command::Echo(args) => args.try_into().map(serve::run),
        Command::Http(args) => args.try_into().map(serve::run),
        Command::Demo(args) => Ok(demo::run(&args)),
        Command::Doctor(args) => Ok(doctor::run(&args)),
    };
    match done {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            note(format_args!("khamsin: {}", chain(&error)));
            ExitCode::from(FAILED)
        }
        Err(Usage(sentence)) => {
            note(format_args!("khamsin: {sentence}"));
            ExitCode::from(USAGE)
        }
    }
}

/// An error and its causes in one sentence. What quotes its cause already does not say it twice.
fn chain(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !said.contains(&cause) {
            said = if said.is_empty() { cause } else { format!("{said}: {cause}") };
        }
    }
    said
}

fn not_parsed(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
        _ => {
            note(format_args!("khamsin: {}", cli::sentence(error)));
            ExitCode::from(USAGE)
        }
    }
}

/// The log goes to stderr; `KHAMSIN_LOG` filters it, as `RUST_LOG` does elsewhere.
fn start_log(command: &Command) {
    // What demo and doctor have to say is their output; a log in between would tell it twice.
    let level = match command {
        Command::Demo(_) | Command::Doctor(_) => tracing::Level::WARN,
        _ => tracing::Level::INFO,
    };
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("KHAMSIN_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A line that a full disk does not take would be complained of on the same disk, by a panic.
        .log_internal_errors(false)
        .init();
}
