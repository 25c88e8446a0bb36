//! What the machine as a whole spends, and what it is.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// Time that all cores together were busy since the machine started: user, nice, system, irq and softirq.
///
/// The kernel bills receive work to the core that does it, wherever the frames were meant to go; only the sum over the
/// whole machine is the same question for every contender.
///
/// # Errors
/// There is no /proc/stat.
pub(crate) fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal guest guest_nice
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(busy as f64 / per_second as f64))
}

/// The share of one core that the machine spends while nothing of ours runs, 0 to its number of cores.
///
/// # Errors
/// There is no /proc/stat.
pub(crate) fn idle_load() -> Result<f64> {
    let before = busy()?;
    std::thread::sleep(Duration::from_secs(2));
    Ok((busy()? - before).as_secs_f64() / 2.0)
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// It has ended.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS in /proc/PID/status")?;
    let kib: u64 = line.split_whitespace().next().context("no number behind VmRSS")?.parse()?;
    Ok(kib * 1024)
}

/// How many threads were running or waiting for a core, on average over the last minute.
///
/// # Errors
/// There is no /proc/loadavg.
pub(crate) fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split_whitespace().next().context("/proc/loadavg is empty")?.to_owned())
}

/// Has this process, and what it starts, run before everything else on the machine (`SCHED_FIFO`): latencies of a busy
/// machine are otherwise those of its other programs.
///
/// # Errors
/// `chrt` (util-linux) is missing, or the privilege.
pub(crate) fn go_first() -> Result<()> {
    schedule(&["-a", "-f", "-p", "1", &std::process::id().to_string()])
}

/// The place of this process, and of what it starts, before everything else that is scheduled fairly. The session's is given
/// back when this is dropped; the process keeps its nice value.
///
/// A nice value alone counts only among the programs of one session where the kernel groups them by session (`autogroup` in
/// sched(7)): beside the builds of another terminal, nice -20 and `SCHED_IDLE` are worth the same. So the session as a whole
/// is moved as well.
pub(crate) struct Favour {
    /// The session's own nice value as it was, where sessions have one.
    before: Option<String>,
}

const AUTOGROUP: &str = "/proc/self/autogroup";

/// Takes that place.
///
/// # Errors
/// No privilege.
pub(crate) fn favour() -> Result<Favour> {
    rustix::process::setpriority_process(None, -20).context("be nice -20")?;
    // `/autogroup-821 nice 0`; there is no such file where the kernel does not group.
    let before = fs::read_to_string(AUTOGROUP).ok();
    let before = before.and_then(|line| line.split_whitespace().last().map(str::to_owned));
    if before.is_some() {
        fs::write(AUTOGROUP, "-20").context("put this session before others")?;
    }
    Ok(Favour { before })
}

impl Drop for Favour {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The kernel takes ten changes a second; one that it refuses leaves this session in front, which hurts nobody.
            let _ = fs::write(AUTOGROUP, before);
        }
    }
}

/// Has the calling thread run before programs of real-time priority `others`, whom it is to watch. It must not wait for the
/// kernel's locks then (no paths looked up, no processes reaped): whoever holds one may never get a core again.
///
/// # Errors
/// As [`go_first`].
pub(crate) fn go_before(others: u32) -> Result<()> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    schedule(&["-r", "-p", &(others + 1).to_string(), &thread])
}

/// Takes that back for the calling thread: it runs where the others leave a core.
///
/// # Errors
/// As [`go_first`].
pub(crate) fn stand_back() -> Result<()> {
    schedule(&["-o", "-p", "0", &rustix::thread::gettid().as_raw_nonzero().to_string()])
}

fn schedule(arguments: &[&str]) -> Result<()> {
    let mut command = std::process::Command::new("chrt");
    command.args(arguments);
    khamsin_tools::command::run(command, Duration::from_secs(5))?.ok().context("set who runs first")?;
    Ok(())
}

/// Kernel, cores and processor in one line.
pub(crate) fn description() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": ")).map_or("", |m| m.1);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {cores} cores, {model}", read("/proc/sys/kernel/osrelease").trim())
}
