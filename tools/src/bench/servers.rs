//! Servers beside each other, asked by the same clients in one run, in turns.
//!
//! The server has one core and the client another, both before everything else that the machine does: as real-time programs,
//! or where single delays count (`latency`) as the most favoured of all others, whom the kernel never holds up. All servers of a case
//! are started first, each in namespaces of its own, and asked one after the other (A B C A B C): a machine's speed drifts.

mod bars;
mod cell;
mod contender;
mod drive;
mod lane;
mod libevent;
mod meter;
mod plot;
mod record;
mod table;

use crate::machine;
use anyhow::{Context, Result, anyhow, ensure};
use cell::{Case, Cell, FILES, Pace, Scale};
use clap::ValueEnum;
use contender::Contender;
use khamsin::output::{note, say};
use khamsin_tools::command::is_installed;
use khamsin_tools::load::{cli, crew, report};
use khamsin_tools::pages::pattern;
use lane::{Key, Lane};
use record::{Record, Report};
use std::path::{Path, PathBuf};

/// The server's core and the client's.
const SERVER_CORE: usize = 1;
const CLIENT_CORE: usize = 0;
/// Real-time priority of servers and clients.
const REALTIME: u32 = 1;

#[derive(clap::Args, Debug)]
pub(crate) struct ServersOptions {
    /// What to measure; nothing named: everything
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// Only these servers
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Only what a bar needs
    #[arg(long)]
    bars: bool,
    /// Only cells whose name has these words in it
    #[arg(long, value_name = "WORDS")]
    cell: Option<String>,
    /// Runs of each server, in turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    runs: u32,
    /// Seconds of load in each run
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=300))]
    seconds: u32,
    /// Seconds of the 20,000 clients
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    clients_seconds: u32,
    /// Most connections that are held open
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10..=2_000_000))]
    most: u32,
    /// How khamsin's workers wait where nothing is pinned: adaptive, busy or sleep
    #[arg(long, default_value = "adaptive")]
    poll: String,
    /// Do not put servers and clients before everything else on the machine: for a look at a machine that others use
    #[arg(long)]
    ordinary: bool,
    /// Where to write every single run as JSON, after each case
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for plots (SVG); it is made if need be
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// Measures what the options ask for and prints it.
///
/// # Errors
/// Something is missing that all need, or the files cannot be written. That a server fails is part of the report.
pub(crate) fn measure(options: &ServersOptions) -> Result<()> {
    for program in ["taskset", "chrt"] {
        ensure!(is_installed(program), "`{program}` is not installed (apt-get install util-linux)");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(cores > SERVER_CORE, "server and client want a core each, and there is one");
    let _favour = if options.ordinary { None } else { Some(machine::favour()?) };
    let mut report = start_report()?;
    let contenders = contenders(options, &mut report);
    let folder = tempfile::Builder::new().prefix("khamsin-pages-").tempdir()?;
    for (seed, (name, len)) in FILES.iter().enumerate() {
        std::fs::write(folder.path().join(name), pattern(*len, seed as u64))?;
    }
    let cases = if options.cases.is_empty() { Case::value_variants() } else { &options.cases };
    for case in cases {
        let mut turns = Turns { options, root: folder.path(), lanes: Vec::new(), report: &mut report };
        turns.case(*case, &contenders);
        report.load[1] = machine::load()?;
        // After each case: a long run that is broken off leaves what it has found.
        report.save(options.json.as_deref())?;
    }
    libevent::remove();
    say(table::markdown(&report))?;
    if let Some(folder) = &options.plots {
        plot::all(&report, folder)?;
    }
    ensure!(!report.records.is_empty(), "nothing could be measured");
    Ok(())
}

/// Draws the plots of a report that was written before.
///
/// # Errors
/// The file is no such report, or the folder cannot be written.
pub(crate) fn plot_file(file: &Path, folder: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    plot::all(&Report::parse(&text).with_context(|| format!("read {}", file.display()))?, folder)
}

/// Carries a load, as `khamsin-load` would.
///
/// # Errors
/// What `khamsin-load` would say. That requests fail is no error: it is in what it prints.
pub(crate) fn load(words: &[String]) -> Result<()> {
    let job = cli::Cli::job_of(words.iter().map(String::as_str)).map_err(|e| anyhow!(e))?;
    let outcome = crew::run(&job)?;
    report::show(&job, &outcome).map(drop)
}

fn start_report() -> Result<Report> {
    let command = std::env::args().skip(1).fold("khamsin-bench".to_owned(), |line, word| line + " " + &word);
    Ok(Report {
        machine: machine::description(),
        command,
        idle_load: machine::idle_load()?,
        load: [machine::load()?, machine::load()?],
        skipped: Vec::new(),
        records: Vec::new(),
    })
}

/// Those that were asked for and can be measured; of the others it is said why not.
fn contenders(options: &ServersOptions, report: &mut Report) -> Vec<Contender> {
    let wanted = |c: &Contender| options.only.is_empty() || options.only.contains(c);
    let mut all = Vec::new();
    for contender in Contender::ALL.into_iter().filter(wanted) {
        match contender.refusal() {
            None => all.push(contender),
            Some(reason) => {
                note(format_args!("SKIPPED {contender}: {reason}"));
                report.skipped.push(format!("{contender}: {reason}"));
            }
        }
    }
    all
}

/// The servers of a case, and whose turn it is.
struct Turns<'a> {
    options: &'a ServersOptions,
    root: &'a Path,
    lanes: Vec<Lane>,
    report: &'a mut Report,
}

impl Turns<'_> {
    fn case(&mut self, case: Case, contenders: &[Contender]) {
        let options = self.options;
        let scale = Scale { held: options.most, clients_seconds: options.clients_seconds };
        let mut cells = Cell::of(case, scale);
        cells.retain(|c| options.cell.as_ref().is_none_or(|words| c.name.contains(words.as_str())));
        // A minute and more, or the same hundred thousand requests: thrice says what there is to say.
        let runs = match case {
            Case::Clients => 1,
            Case::Ab | Case::Modems => options.runs.min(3),
            _ => options.runs,
        };
        let mut given_up: Vec<(String, Contender)> = Vec::new();
        for run in 1..=runs {
            for cell in &cells {
                let wanted =
                    |c: &Contender| contenders.contains(c) && (!options.bars || bars::any_needs(&cell.id(), *c));
                for contender in cell.contenders().filter(wanted) {
                    let place = (cell.id(), contender);
                    if given_up.contains(&place) {
                        continue;
                    }
                    if let Err(error) = self.one(cell, contender) {
                        let why: String =
                            error.chain().map(|e| format!("{e}; ")).collect::<String>().chars().take(400).collect();
                        note(format_args!("{} {contender}, run {run}: {why}", place.0));
                        self.report.skipped.push(format!("{} of {contender}: {why}", place.0));
                        given_up.push(place);
                    }
                }
            }
        }
    }

    fn one(&mut self, cell: &Cell, contender: Contender) -> Result<()> {
        let at = self.lane(Key::of(cell, contender))?;
        let rate = match cell.pace {
            Pace::Closed => None,
            Pace::PerSecond(rate) => Some(rate),
            Pace::OfNginx(share) => {
                let nginx = self.lane(Key::of(cell, Contender::Nginx))?;
                Some(self.peak(cell, nginx)? * share)
            }
            Pace::OfOwn(factor) => Some(self.peak(cell, at)? * factor),
        };
        let lane = &self.lanes[at];
        let (mut figures, said) = drive::once(cell, lane, rate, self.options)?;
        if let Some(peak) = lane.peak_per_s {
            figures.insert("peak_per_s".to_owned(), peak);
        }
        let of = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
        note(format_args!(
            "{} {contender}: {:.0} requests/s, p99 {:.0} us, {:.2} us of the server's core each, {:.0} errors",
            cell.id(),
            of("requests_per_s"),
            of("p99_us"),
            of("core_us"),
            of("errors"),
        ));
        self.report.records.push(Record {
            case: cell.case.name(),
            name: cell.name.clone(),
            billing: cell.billing.name().to_owned(),
            contender: contender.name().to_owned(),
            x: cell.x,
            figures,
            said,
        });
        Ok(())
    }

    /// The lane of this key, which is started if it is the first to ask for it.
    fn lane(&mut self, key: Key) -> Result<usize> {
        if let Some(at) = self.lanes.iter().position(|l| l.key == key) {
            return Ok(at);
        }
        let mut lane = Lane::open(key, self.root, self.options).with_context(|| format!("start {}", key.contender))?;
        if key.small() != key && key.contender == Contender::AfXdp {
            lane.base_resident = Lane::open(key.small(), self.root, self.options)?.fresh.resident;
        }
        self.lanes.push(lane);
        Ok(self.lanes.len() - 1)
    }

    /// What the server of this lane can do at most of what `cell` asks: the median of three runs in which 64 connections ask
    /// again as soon as they are answered.
    fn peak(&mut self, cell: &Cell, at: usize) -> Result<f64> {
        if let Some(peak) = self.lanes[at].peak_per_s {
            return Ok(peak);
        }
        let closed = Cell { pace: Pace::Closed, connections: 64, seconds: Some(1), ..cell.clone() };
        let mut rates = Vec::new();
        for _ in 0..3 {
            let (figures, _) = drive::once(&closed, &self.lanes[at], None, self.options)?;
            rates.extend(figures.get("requests_per_s"));
        }
        let peak = crate::median(rates.into_iter());
        ensure!(peak > 0.0, "nothing was served");
        self.lanes[at].peak_per_s = Some(peak);
        Ok(peak)
    }
}
