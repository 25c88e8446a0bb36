//! Ends, restarts, neighbours and privileges.

use crate::Case;
use crate::guest::{Guest, STACK_V4};
use crate::talk::{echo_with, fetch};
use anyhow::{Result, ensure};
use khamsin_drivers::clock::Clock;
use khamsin_tests::command::Running;
use khamsin_tests::deadline::wait_for;
use std::process::Command;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    ("kill_and_restart", kill_and_restart),
    ("a_second_program", a_second_program),
    ("capabilities_are_dropped", capabilities_are_dropped),
    ("documented_capabilities_suffice", documented_capabilities_suffice),
];

/// CAP_NET_ADMIN (12), CAP_NET_RAW (13) and CAP_BPF (39), as /proc shows them.
const DOCUMENTED: &str = "0000008000003000";

/// `kill -9` under load: what is left behind does not keep the next start from serving.
fn kill_and_restart(guest: &mut Guest) -> Result<()> {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c32", "-d3s", "http://198.18.0.2/page"]);
    let load = Running::start(command, None)?;
    fetch(STACK_V4, "page", &guest.page("page")?)?;
    guest.ok("kill -9 $(cat /run/main.pid)")?;
    let code = guest.ended("main")?;
    ensure!(code == "137", "it was not killed: exit code {code:?}");
    let from = Clock.now();
    guest.serving()?;
    let page = guest.page("page")?;
    wait_for("a served page", Duration::from_secs(20), || Ok(fetch(STACK_V4, "page", &page).ok()))?;
    let took = Clock.now().since(from);
    load.finish(Duration::from_secs(30))?;
    guest.on_the_right_rung()?;
    // Emulated: ten times of what the host is given.
    ensure!(took < Duration::from_secs(10), "serving again only after {took:?}");
    fetch(STACK_V4, "big", &guest.page("big")?)
}

/// Where an XDP program is attached already, AF_XDP ends with a sentence that says so, `auto` goes on to packet sockets, and
/// neither disturbs the first server.
fn a_second_program(guest: &mut Guest) -> Result<()> {
    let options = "--interface eth0 --address 198.18.0.3/24 --backend af-xdp";
    let said = guest.sh(&format!("AS= serve second {options}"))?;
    let told = said.text.contains("already has an XDP program");
    ensure!(said.code == 1 && told && guest.ended("second")? == "1", "{} {}", said.code, said.text);
    let page = guest.page("page")?;
    fetch(STACK_V4, "page", &page)?;
    let ready = guest.start("second", "", "--interface eth0 --address 198.18.0.3/24")?;
    let log = guest.log("second");
    ensure!(ready.rung == "af-packet" && log.contains("already has an XDP program"), "{ready:?} {log}");
    fetch("198.18.0.3", "page", &page)?;
    fetch(STACK_V4, "page", &page)?;
    guest.stop("second")
}

/// No thread of a server that root started holds more than the documented set.
fn capabilities_are_dropped(guest: &mut Guest) -> Result<()> {
    let held = guest.ok("grep -h -E 'Cap(Eff|Prm|Bnd)' /proc/$(cat /run/main.pid)/task/*/status")?;
    let wrong: Vec<&str> = held.lines().filter(|l| !l.ends_with(DOCUMENTED)).collect();
    ensure!(held.lines().count() >= 6 && wrong.is_empty(), "{held}");
    Ok(())
}

/// A user with nothing but the documented set takes the same rung.
fn documented_capabilities_suffice(guest: &mut Guest) -> Result<()> {
    guest.stop("main")?;
    let set = "-all,+net_admin,+net_raw,+bpf";
    let user =
        format!("/sbin/setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps={set} --ambient-caps={set}");
    let options = guest.main_options();
    guest.start("main", &user, &options)?;
    guest.on_the_right_rung()?;
    let held = guest.ok("grep -h -E '^(Uid|CapEff|CapPrm)' /proc/$(cat /run/main.pid)/status")?;
    ensure!(held.matches(DOCUMENTED).count() == 2 && held.contains("65534"), "{held}");
    fetch(STACK_V4, "big", &guest.page("big")?)?;
    echo_with(STACK_V4, 300_007, || Ok(()))?;
    guest.stop("main")
}
