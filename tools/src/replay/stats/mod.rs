//! `khamsin-replay stats`: throughput, round trip, windows and sequence of each flow over time, as SVG.

mod draw;
mod series;

pub use draw::svg;
pub use series::{Direction, Pictures, Points, pictures};

use super::cli::unwritable;
use super::flow::Flow;
use super::reader::Bounds;
use super::trace::Trace;
use anyhow::{Result, bail};
use clap::Args;
use khamsin::output::{note, say};
use std::path::PathBuf;

/// Draws a trace.
#[derive(Args, Debug, Clone)]
pub struct Stats {
    /// A pcap or pcapng file; `-`: standard input
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// Folder for the pictures, one file a flow
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// Only the flow of this number in --list
    #[arg(long, value_name = "NUMBER")]
    only: Option<usize>,
    /// Pictures drawn, of the flows with the most bytes
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    most: u32,
}

impl Stats {
    /// Does what it says; whether the trace was sound.
    ///
    /// # Errors
    /// The trace cannot be read, or a picture not be written.
    pub fn run(&self) -> Result<bool> {
        let trace = Trace::read(&self.trace, &Bounds::default())?;
        for trouble in trace.troubles() {
            note(format_args!("khamsin-replay: {}: {trouble}", self.trace.display()));
        }
        let mut flows: Vec<&Flow> =
            trace.flows.iter().filter(|f| self.only.is_none_or(|only| only == f.number)).collect();
        if flows.is_empty() {
            bail!("the trace has no flow {}; --list shows them", self.only.unwrap_or(0));
        }
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.up.bytes() + flow.down.bytes()));
        let most = self.most as usize;
        let untold = flows.len().saturating_sub(most);
        flows.truncate(most);
        flows.sort_by_key(|flow| flow.number);
        std::fs::create_dir_all(&self.out).map_err(|error| unwritable(&self.out, &error))?;
        // Nobody wants files whose names begin like options.
        let stem = self.trace.file_stem().filter(|stem| *stem != "-");
        let stem = stem.map_or("trace".into(), |stem| stem.to_string_lossy().into_owned());
        for flow in flows {
            let path = self.out.join(format!("{stem}-flow-{}.svg", flow.number));
            let title = format!("{stem}, flow {}: {} to {}, {}", flow.number, flow.client, flow.server, flow.state());
            let text = svg(&title, &pictures(flow))?;
            std::fs::write(&path, text).map_err(|error| unwritable(&path, &error))?;
            say(path.display())?;
        }
        if untold > 0 {
            note(format_args!(
                "khamsin-replay: {untold} smaller flows are not drawn; --most N or --only NUMBER draws them"
            ));
        }
        Ok(trace.is_sound())
    }
}
