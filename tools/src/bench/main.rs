//! khamsin beside nginx and its own epoll rung, in one run on one machine: requests a second and what they cost.
//!
//! Each case makes its own namespaces and takes turns between the contenders (A B C A B C), because a machine's speed
//! drifts; what it prints are medians. Run it on a machine that does nothing else.

mod contender;
mod flood;
mod held;
mod impaired;
mod links;
mod machine;
mod nginx;
mod paced;
mod report;
mod restart;
mod servers;
mod slow;
mod throughput;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use khamsin::output::note;
use khamsin_tools::bed;
use report::Report;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// khamsin beside nginx and its own epoll rung: requests/s, CPU, connections held, restarts
#[derive(Parser, Debug)]
#[command(name = "khamsin-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    inner: Option<Inner>,
    #[command(flatten)]
    options: Options,
}

#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// What to measure; nothing named: everything
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// Seconds of load in each run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=300))]
    seconds: u32,
    /// Runs of each contender, in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    runs: u32,
    /// Connections that wrk keeps
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// MTU of both ends of the link, bytes
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=3498))]
    mtu: u32,
    /// How khamsin's workers wait: adaptive, busy or sleep
    #[arg(long, default_value = "adaptive")]
    poll: String,
    /// Connections to hold in the case `held`
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(4..=60_000))]
    held: u32,
    /// Where to write every single run as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Case {
    /// wrk, a file of 64 bytes, server and client on a core each
    Small,
    /// wrk, a file of 8,046 bytes, server and client on a core each
    Page,
    /// wrk, one request a connection
    NewConnections,
    /// wrk on two queues and two workers, nothing pinned
    TwoQueues,
    /// Echo connections held by several processes and each served
    Held,
    /// `kill -9` under load until the next page is served
    Restart,
}

impl fmt::Display for Case {
    /// The name on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().as_ref().map_or("", |v| v.get_name()))
    }
}

#[derive(Subcommand, Debug)]
enum Inner {
    /// khamsin beside Linux over the same impaired link: loss, reordering, short flows, uploads
    Impaired(impaired::ImpairedOptions),
    /// Honest connections beside a SYN flood
    Flood(flood::FloodOptions),
    /// Other clients beside thousands of connections that send or read a byte now and then
    Slow(slow::SlowOptions),
    /// khamsin on AF_XDP, TAP and epoll beside nginx and libevent, with the same client in one run
    Servers(servers::ServersOptions),
    /// Draws the plots of a file that `servers --json` wrote
    Plot {
        /// The file
        file: PathBuf,
        /// Folder for the plots; it is made if need be
        folder: PathBuf,
    },
    /// (khamsin-load, as `servers` starts it)
    #[command(hide = true, disable_help_flag = true)]
    Load {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// (what the case `held` starts in the client's namespace)
    #[command(hide = true)]
    Hold { address: std::net::SocketAddr, connections: u32, number: u32 },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("khamsin-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.inner {
        Some(Inner::Hold { address, connections, number }) => return held::hold(address, connections, number),
        Some(Inner::Load { words }) => return servers::load(&words),
        Some(Inner::Plot { file, folder }) => return servers::plot_file(&file, &folder),
        _ => {}
    }
    if let Some(reason) = bed::refusal() {
        bail!("the benchmark needs network namespaces of its own: {reason}");
    }
    bed::sweep()?;
    match cli.inner {
        Some(Inner::Impaired(options)) => return impaired::measure(&options),
        Some(Inner::Flood(options)) => return flood::measure(&options),
        Some(Inner::Slow(options)) => return slow::measure(&options),
        Some(Inner::Servers(options)) => return servers::measure(&options),
        Some(Inner::Hold { .. } | Inner::Load { .. } | Inner::Plot { .. }) | None => {}
    }
    let options = cli.options;
    let cases = if options.cases.is_empty() { Case::value_variants().to_vec() } else { options.cases.clone() };
    let mut report = Report::new()?;
    for case in cases {
        match case {
            Case::Small | Case::Page | Case::NewConnections | Case::TwoQueues => {
                throughput::measure(case, &options, &mut report)?;
            }
            Case::Held => held::measure(&options, &mut report)?,
            Case::Restart => restart::measure(&options, &mut report)?,
        }
    }
    report.finish(options.json.as_deref())
}

/// The middle one of `values`; NaN if there is none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which the share `q` of `values` lies, between neighbours where it falls between them.
fn quantile(values: impl Iterator<Item = f64>, q: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let (below, share) = (at as usize, at.fract());
    let above = values[(below + 1).min(last)];
    values[below] + share * (above - values[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        let of = |values: &[f64], q| quantile(values.iter().copied(), q);
        assert_eq!(of(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        assert_eq!(of(&[4.0, 0.0], 0.25), 1.0);
        assert!(of(&[], 0.5).is_nan());
    }
}
