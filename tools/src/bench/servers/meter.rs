//! What the server and the cores spend, looked at ten times a second while a load runs.

use crate::machine;
use anyhow::{Context, Result, anyhow};
use khamsin_drivers::clock::Clock;
use khamsin_stack::Instant;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(100);

/// One look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    at: Instant,
    /// Time that each core was busy since the machine started, seconds.
    cores: Vec<f64>,
    /// CPU time that the server's processes have had, user and system, seconds.
    server: f64,
    /// Their resident memory, bytes.
    pub(crate) resident: u64,
    /// What the kernel's own objects take on the whole machine (sockets among them), bytes.
    pub(crate) slab: u64,
}

/// What was spent between two looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    /// CPU of the server's processes, seconds.
    pub(crate) server: f64,
    /// Busy time of the server's core: its processes, and whatever receive work is billed there, seconds.
    pub(crate) core: f64,
    /// Busy time of all cores, seconds.
    pub(crate) machine: f64,
}

/// A thread that looks.
pub(crate) struct Meter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Reading>>>,
}

impl Meter {
    /// Starts to look at the machine and at the processes `pids`, before programs of real-time priority `others` if there
    /// are any. The files are opened here and stay open: see [`machine::go_before`].
    ///
    /// # Errors
    /// A process has ended, there is no /proc, or no privilege.
    pub(crate) fn start(pids: &[u32], others: Option<u32>) -> Result<Meter> {
        let sources = Sources::open(pids)?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let (ready, is_ready) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let placed = others.map_or(Ok(()), machine::go_before);
            let _ = ready.send(());
            placed?;
            let mut readings = vec![sources.look()?];
            while !theirs.load(Ordering::Relaxed) {
                std::thread::sleep(INTERVAL);
                readings.push(sources.look()?);
            }
            Ok(readings)
        });
        // What goes wrong is what `stop` says.
        let _ = is_ready.recv();
        Ok(Meter { stop, thread })
    }

    /// Everything seen.
    ///
    /// # Errors
    /// The server has ended, or there is no /proc.
    pub(crate) fn stop(self) -> Result<Vec<Reading>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the meter panicked"))?
    }
}

/// One look now.
///
/// # Errors
/// A process has ended, or there is no /proc.
pub(crate) fn look(pids: &[u32]) -> Result<Reading> {
    Sources::open(pids)?.look()
}

/// The kernel's files, open.
struct Sources {
    stat: File,
    memory: File,
    /// `stat` and `statm` of each process.
    processes: Vec<[File; 2]>,
}

impl Sources {
    fn open(pids: &[u32]) -> Result<Sources> {
        let open = |path: String| File::open(&path).with_context(|| format!("open {path}"));
        let process = |pid: &u32| Ok([open(format!("/proc/{pid}/stat"))?, open(format!("/proc/{pid}/statm"))?]);
        Ok(Sources {
            stat: open("/proc/stat".to_owned())?,
            memory: open("/proc/meminfo".to_owned())?,
            processes: pids.iter().map(process).collect::<Result<_>>()?,
        })
    }

    fn look(&self) -> Result<Reading> {
        let mut reading = Reading { at: Clock.now(), cores: cores(&text(&self.stat)?), ..Reading::default() };
        let page = rustix::param::page_size() as u64;
        for [stat, statm] in &self.processes {
            let line = text(stat).context("the server has ended")?;
            reading.server += process(&line).context("a strange /proc/PID/stat")?;
            let line = text(statm).context("the server has ended")?;
            let pages = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
            reading.resident += pages.context("a strange /proc/PID/statm")? * page;
        }
        let memory = text(&self.memory)?;
        let slab = memory.lines().find_map(|l| l.strip_prefix("Slab:")).and_then(|l| l.split_whitespace().next());
        reading.slab = slab.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
        Ok(reading)
    }
}

/// The first pages of a file of /proc, from its beginning.
fn text(file: &File) -> Result<String> {
    let mut bytes = vec![0; 1 << 14];
    let len = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Busy time of each core: user, nice, system, irq and softirq.
fn cores(stat: &str) -> Vec<f64> {
    let lines = stat.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu "));
    lines
        .map(|line| {
            let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
            seconds([0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum())
        })
        .collect()
}

/// User and system time in a line of /proc/PID/stat, fields 14 and 15; the name in field 2 may hold anything.
fn process(line: &str) -> Option<f64> {
    let rest = line.rsplit_once(')')?.1;
    let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    (ticks.len() == 2).then(|| seconds(ticks.iter().sum()))
}

/// What was spent between the looks that lie next to `from` and `until`; `None` if they are the same.
pub(crate) fn between(readings: &[Reading], from: Instant, until: Instant, core: usize) -> Option<Spent> {
    let near = |at: Instant| readings.iter().min_by_key(|r| r.at.micros().abs_diff(at.micros()));
    let (first, last) = (near(from)?, near(until)?);
    let seconds = last.at.micros().checked_sub(first.at.micros()).filter(|us| *us > 0)? as f64 / 1e6;
    Some(Spent {
        seconds,
        server: last.server - first.server,
        core: last.cores.get(core)? - first.cores.get(core)?,
        machine: last.cores.iter().sum::<f64>() - first.cores.iter().sum::<f64>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_to_work() {
        let pids = [std::process::id()];
        let meter = Meter::start(&pids, None).unwrap();
        let from = Clock.now();
        while Clock.now().micros_since(from) < 300_000 {
            std::hint::spin_loop();
        }
        let readings = meter.stop().unwrap();
        assert!(readings.len() >= 2 && readings[0].resident > 1 << 20 && readings[0].slab > 1 << 20, "{readings:?}");
        let used = readings[readings.len() - 1].server - readings[0].server;
        assert!(used > 0.02, "{used}");
        assert!(look(&[u32::MAX >> 1]).is_err());
    }

    #[test]
    fn times_are_taken_from_the_looks_around_them() {
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let stat = "cpu  9 9 9 9 9 9 9 0 0 0\ncpu0 1 2 3 1000 50 4 5 7 0 0\ncpu1 10 0 0 9 0 0 1 0 0 0\nintr 5\n";
        assert_eq!(cores(stat), [15.0 * tick, 11.0 * tick]);
        let line = "77 (a ) strange (name) S 1 1 1 0 -1 4194304 100 0 0 0 30 12 0 0 -20 0 1 0 500 1 2";
        assert!((process(line).unwrap() - 42.0 * tick).abs() < 1e-9);
        assert_eq!(process("nothing"), None);
        let reading = |ms: u64, busy: f64| Reading {
            at: Instant::from_millis(ms),
            cores: vec![busy, 2.0 * busy],
            server: busy,
            ..Reading::default()
        };
        let all = [reading(0, 0.0), reading(100, 0.05), reading(200, 0.15), reading(300, 0.2)];
        let spent = between(&all, Instant::from_millis(90), Instant::from_millis(290), 1).unwrap();
        assert!((spent.seconds - 0.2).abs() < 1e-9 && (spent.server - 0.15).abs() < 1e-9, "{spent:?}");
        assert!((spent.core - 0.3).abs() < 1e-9 && (spent.machine - 0.45).abs() < 1e-9, "{spent:?}");
        assert!(between(&all, Instant::from_millis(110), Instant::from_millis(120), 1).is_none());
    }
}
