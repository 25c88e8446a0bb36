//! A server in its namespace, with the cores and the billing of receive work that a cell asks for.

use super::cell::{Billing, Cell};
use super::contender::{Contender, Room, Started};
use super::{CLIENT_CORE, REALTIME, SERVER_CORE, ServersOptions, meter};
use crate::links::{make_roomy, set_mtu};
use anyhow::{Context, Result, ensure};
use khamsin_tools::bed::{Bed, SERVER_LINK};
use khamsin_tools::command::{is_installed, run};
use khamsin_tools::deadline::wait_for;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// What two cells must have in common to share a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) contender: Contender,
    billing: Billing,
    mtu: u32,
    poll: Option<&'static str>,
    /// Runs before everything else on its core, not just before most.
    realtime: bool,
    /// Receiving comes before it.
    receives_first: bool,
    room: Room,
}

impl Key {
    /// The same with room for next to nobody.
    pub(crate) fn small(self) -> Key {
        Key { room: Room { connections: 1024, ..self.room }, ..self }
    }

    /// What `cell` needs of `contender`.
    pub(crate) fn of(cell: &Cell, contender: Contender) -> Key {
        Key {
            contender,
            billing: cell.billing,
            mtu: cell.mtu,
            poll: cell.poll,
            realtime: cell.realtime(),
            receives_first: cell.receives_first(),
            room: cell.room,
        }
    }
}

/// A server that is ready.
pub(crate) struct Lane {
    pub(crate) key: Key,
    pub(crate) bed: Bed,
    pub(crate) pids: Vec<u32>,
    /// Resident memory and the kernel's objects when it had started.
    pub(crate) fresh: meter::Reading,
    /// Resident memory of such a server that has room for next to nobody, bytes.
    pub(crate) base_resident: u64,
    /// What it can do at most, requests a second, once somebody asked.
    pub(crate) peak_per_s: Option<f64>,
    _server: Started,
}

impl Lane {
    /// Starts the server.
    ///
    /// # Errors
    /// It does not serve, or the machine refuses what the billing needs.
    pub(crate) fn open(key: Key, root: &Path, options: &ServersOptions) -> Result<Lane> {
        let bed = prepared_bed(key)?;
        let server = key.contender.start(&bed, root, key.room, key.poll.unwrap_or(&options.poll))?;
        let pids = server.pids()?;
        for pid in &pids {
            pin(*pid, SERVER_CORE, (key.realtime && !options.ordinary).then_some(REALTIME))?;
        }
        if key.billing == Billing::Pinned {
            bill_to_server(key, &bed, options)?;
        }
        let fresh = meter::look(&pids)?;
        Ok(Lane { key, bed, pids, base_resident: fresh.resident, fresh, peak_per_s: None, _server: server })
    }
}

/// A bed on which no contender runs out of ports, and whose links have the MTU that was asked for.
fn prepared_bed(key: Key) -> Result<Bed> {
    let bed = if key.contender == Contender::Tap { Bed::alone()? } else { Bed::veth(1)? };
    if key.contender != Contender::Tap {
        set_mtu(&bed, key.mtu)?;
    }
    make_roomy(&bed)?;
    Ok(bed)
}

/// Keeps all threads of a process on one core, and with a real-time priority before everything else there.
fn pin(pid: u32, core: usize, priority: Option<u32>) -> Result<()> {
    let mut command = Command::new("taskset");
    command.args(["-a", "-p", "-c", &core.to_string(), &pid.to_string()]);
    run(command, LIMIT)?.ok()?;
    if let Some(priority) = priority {
        let mut command = Command::new("chrt");
        command.args(["-a", "-r", "-p", &priority.to_string(), &pid.to_string()]);
        run(command, LIMIT)?.ok()?;
    }
    Ok(())
}

/// The words in front of a client's own: its core, and its place before everything else there.
pub(crate) fn client_words(realtime: bool) -> Vec<String> {
    let mut words: Vec<String> = ["taskset", "-c", &CLIENT_CORE.to_string()].map(str::to_owned).into();
    if realtime {
        words.extend(["chrt", "-r", &REALTIME.to_string()].map(str::to_owned));
    }
    words
}

/// Has the server's core do the receive work of the server's end of the link.
fn bill_to_server(key: Key, bed: &Bed, options: &ServersOptions) -> Result<()> {
    let shell = |line: String| bed.server.run("sh", &["-c", &line], LIMIT);
    if key.contender.is_on_kernel_sockets() {
        let mask = 1u64 << SERVER_CORE;
        shell(format!("echo {mask:x} > /sys/class/net/{SERVER_LINK}/queues/rx-0/rps_cpus"))
            .context("have RPS do the receive work")?;
        return Ok(());
    }
    ensure!(is_installed("ethtool"), "`ethtool` is not installed (apt-get install ethtool)");
    bed.server.run("ethtool", &["-K", SERVER_LINK, "gro", "on"], LIMIT)?;
    shell(format!("echo 1 > /sys/class/net/{SERVER_LINK}/threaded")).context("have a thread do the receive work")?;
    let threads = wait_for("the NAPI thread of the server's link", LIMIT, || {
        let threads = napi_threads()?;
        Ok((!threads.is_empty()).then_some(threads))
    })?;
    // Those of other lanes stay where they are: all servers live on the same core.
    let priority = REALTIME + u32::from(key.receives_first);
    threads.into_iter().try_for_each(|pid| pin(pid, SERVER_CORE, (!options.ordinary).then_some(priority)))
}

/// The kernel's NAPI threads of links with our name.
fn napi_threads() -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.starts_with(&format!("napi/{SERVER_LINK}-")) {
            pids.push(pid);
        }
    }
    Ok(pids)
}
