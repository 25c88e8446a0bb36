//! The command line.

use super::list::list;
use super::pcapng::Writer;
use super::reader::Bounds;
use super::report::report;
use super::server::Against;
use super::trace::Trace;
use super::world::{Order, Plans, Shot, replay};
use anyhow::{Context, Result};
use clap::Parser;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

const ABOUT: &str = "Replays the clients of a recorded trace against khamsin's TCP stack";

/// Replays recorded clients.
#[derive(Parser, Debug, Clone)]
#[command(name = "khamsin-replay", version, about = ABOUT, max_term_width = 110)]
pub struct Cli {
    /// A pcap or pcapng file; `-`: standard input
    #[arg(value_name = "TRACE")]
    trace: PathBuf,

    /// Show the flows of the trace, and replay nothing
    #[arg(long, conflicts_with_all = ["app", "fast", "speed", "flows", "rounds", "strict"])]
    list: bool,

    /// Who answers the clients
    #[arg(long, value_enum, default_value_t = Against::Scripted)]
    app: Against,
    /// Leave out the recorded pauses
    #[arg(long, conflicts_with = "speed")]
    fast: bool,
    /// Divide the recorded pauses by this
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Copies of each flow, all at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    flows: u32,
    /// Times that the trace is replayed, one after the other
    #[arg(long = "loop", id = "rounds", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rounds: u32,
    /// Only the flow of this number in --list
    #[arg(long, value_name = "NUMBER")]
    only: Option<usize>,
    /// Exit with 1 if the stack answers anything otherwise than the recorded server did
    #[arg(long)]
    strict: bool,
    /// Write the new conversation as pcapng
    #[arg(long, value_name = "OUT.pcapng", conflicts_with = "list")]
    write: Option<PathBuf>,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let sane = (0.001..=1e6).contains(&speed);
    sane.then_some(speed).ok_or_else(|| "must be between 0.001 and 1,000,000".to_owned())
}

/// The conversation as a pcapng file.
fn write(path: &Path, trace: &Path, shots: &[Shot]) -> Result<()> {
    let comment = format!("{} replayed against khamsin's stack in virtual time", trace.display());
    let mut writer = Writer::new(BufWriter::new(File::create(path)?), "khamsin-replay", &comment)?;
    for shot in shots {
        writer.packet(shot.at_ns, shot.from_stack, &shot.bytes, None)?;
    }
    Ok(writer.finish()?)
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
        let sound = trace.damage.is_none() && trace.malformed_count == 0;
        if self.list {
            println!("{}", list(&trace));
            return Ok(sound);
        }
        let plans = Plans::new(&trace.flows);
        let outcome = replay(&trace.flows, &plans, &self.order())?;
        let (text, same) = report(&outcome, self.app);
        if let Some(path) = &self.write {
            write(path, &self.trace, &outcome.shots)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        println!("{text}");
        Ok(sound && (same || !self.strict))
    }

    fn order(&self) -> Order {
        Order {
            against: self.app,
            fast: self.fast,
            speed: self.speed,
            copies: self.flows as usize,
            rounds: self.rounds as usize,
            only: self.only,
            record: self.write.is_some(),
        }
    }
}
