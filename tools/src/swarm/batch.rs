//! Many seeds: this process hands batches of them to children, so that what a shard leaves behind when it is dropped (its
//! receive buffers are made once, for the life of a process) never adds up.

use super::options::Options;
use anyhow::{Context, Result, bail};
use khamsin::output::say;
use khamsin_tools::sim::run::{keep_panics, run};
use khamsin_tools::sim::{Files, Scenario};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Seeds in one child.
const BATCH: u64 = 250;
/// Longest that one seed may take, seconds; then it is a failure of its own.
const SEED_MAX_S: u64 = 300;

/// A child's work: a line `at SEED` before each seed, `bad SEED WHAT` after one that failed, and `sum FRAMES MICROSECONDS` at
/// the end.
pub(super) fn child(options: &Options) -> Result<bool> {
    keep_panics();
    let files = Files::new()?;
    let mut out = std::io::stdout().lock();
    let (mut frames, mut virtual_us) = (0, 0);
    let seeds = options.from..options.from.saturating_add(options.seeds);
    watch(&AT);
    for seed in seeds {
        AT.store(seed, Ordering::Relaxed);
        writeln!(out, "at {seed}")?;
        let outcome = run(Scenario::new(seed), &files, |_| {});
        if let Some(failure) = outcome.failure {
            writeln!(out, "bad {seed} {}", failure.to_string().replace('\n', " "))?;
        }
        frames += outcome.frames;
        virtual_us += outcome.virtual_us;
    }
    writeln!(out, "sum {frames} {virtual_us}")?;
    Ok(true)
}

/// The seed that is running.
static AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Ends this process if a seed takes too long.
fn watch(at: &'static AtomicU64) {
    thread::spawn(move || {
        let (mut seen, mut seconds) = (u64::MAX, 0);
        loop {
            thread::sleep(Duration::from_secs(1));
            let now = at.load(Ordering::Relaxed);
            seconds = if now == seen { seconds + 1 } else { 0 };
            seen = now;
            if seconds > SEED_MAX_S {
                std::process::exit(3);
            }
        }
    });
}

/// What all batches share.
struct Swarm<'a> {
    options: &'a Options,
    next: AtomicU64,
    stop: AtomicBool,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    done: u64,
    frames: u64,
    virtual_us: u64,
    failed: Vec<u64>,
    shown: u64,
}

/// Runs all seeds; whether none failed.
pub(super) fn parent(options: &Options) -> Result<bool> {
    let jobs = options.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let swarm = Swarm {
        options,
        next: AtomicU64::new(options.from),
        stop: AtomicBool::new(false),
        tally: Mutex::new(Tally::default()),
    };
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| swarm.work().inspect_err(|_| swarm.stop()))).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a thread that waits for children panicked"))??;
        }
        Ok(())
    })?;
    let tally = swarm.tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let hours = tally.virtual_us as f64 / 3.6e9;
    let (done, frames, failed) = (tally.done, tally.frames, tally.failed.len());
    say(format_args!("{done} seeds, {frames} frames, {hours:.1} hours of virtual time: {failed} failed"))?;
    Ok(tally.failed.is_empty())
}

impl Swarm<'_> {
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn work(&self) -> Result<()> {
        let end = self.options.from.saturating_add(self.options.seeds);
        loop {
            let from = self.next.fetch_add(BATCH, Ordering::Relaxed);
            if from >= end || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut from = from;
            let to = (from + BATCH).min(end);
            while from < to {
                from = self.batch(from, to)?;
            }
        }
    }

    /// Runs seeds in a child; the seed to go on with.
    fn batch(&self, from: u64, to: u64) -> Result<u64> {
        let program = std::env::current_exe().context("finding this program again")?;
        let mut child = Command::new(program)
            .args(["--batch", "--from", &from.to_string(), "--seeds", &(to - from).to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a process for a batch of seeds")?;
        let Some(output) = child.stdout.take() else { bail!("a child without an output") };
        let mut at = from;
        for line in BufReader::new(output).lines() {
            let line = line.context("reading from a child")?;
            match line.split_once(' ') {
                Some(("at", seed)) => at = seed.parse().context("a child's report")?,
                Some(("bad", what)) => {
                    let (seed, what) = what.split_once(' ').unwrap_or((what, ""));
                    self.bad(seed.parse().context("a child's report")?, what)?;
                }
                Some(("sum", sums)) => {
                    let (frames, virtual_us) = sums.split_once(' ').context("a child's report")?;
                    self.sum(to - from, frames.parse()?, virtual_us.parse()?);
                }
                _ => bail!("a child said {line:?}"),
            }
        }
        let status = child.wait().context("waiting for a child")?;
        if status.success() {
            return Ok(to);
        }
        let took = if status.code() == Some(3) { "does not come to an end" } else { "killed its process" };
        self.bad(at, &format!("process: the seed {took} ({status})"))?;
        self.sum(at + 1 - from, 0, 0);
        Ok(at + 1)
    }

    fn bad(&self, seed: u64, what: &str) -> Result<()> {
        let mut tally = self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if tally.failed.len() < self.options.failures {
            say(format_args!("seed {seed}: {what}\n  repeat: khamsin-sim --seed {seed} -v"))?;
        }
        tally.failed.push(seed);
        if tally.failed.len() >= self.options.failures {
            self.stop();
        }
        Ok(())
    }

    fn sum(&self, seeds: u64, frames: u64, virtual_us: u64) {
        let mut tally = self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        tally.done += seeds;
        tally.frames += frames;
        tally.virtual_us += virtual_us;
        // On a terminal after every batch, in a log now and then.
        let terminal = std::io::stderr().is_terminal();
        if terminal || tally.done >= tally.shown + 20_000 {
            tally.shown = tally.done;
            let end = if terminal { "\r" } else { "\n" };
            let (done, seeds, failed) = (tally.done, self.options.seeds, tally.failed.len());
            let _ = write!(std::io::stderr(), "{done} of {seeds} seeds, {failed} failed{end}");
        }
    }
}
