//! What happens to an interface while the server stands on it.

use crate::Case;
use crate::guest::{Guest, STACK_V4};
use crate::talk::{connect, echo_with, fetch, fetch_with, side_by_side};
use crate::wire::program;
use anyhow::{Context, Result, bail, ensure};
use khamsin_tests::deadline::wait_for;
use std::io::{Read, Write};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    ("down_and_up_while_downloading", |g| down_and_up(g, |midway, page| fetch_with(STACK_V4, "big", page, midway))),
    ("down_and_up_while_echoing", |g| down_and_up(g, |midway, _| echo_with(STACK_V4, 2_000_003, midway))),
    ("mtu", mtu),
    ("queue_count", queue_count),
    ("removal", removal),
];

/// The link goes for a second and a half in the middle of a transfer: not a byte of it is lost.
fn down_and_up(
    guest: &mut Guest,
    transfer: impl FnOnce(&mut dyn FnMut() -> Result<()>, &[u8]) -> Result<()>,
) -> Result<()> {
    let page = guest.page("big")?;
    let mut midway = || guest.ok("ip link set eth0 down; sleep 1.5; ip link set eth0 up").map(drop);
    transfer(&mut midway, &page)?;
    ensure!(guest.is_running("main")?, "the server ended");
    let log = guest.log("main");
    ensure!(log.contains("eth0 is down") && log.contains("eth0 is up again"), "the log does not tell");
    fetch(STACK_V4, "page", &guest.page("page")?)
}

/// A smaller MTU in the middle of a download, and the old one again: new connections are told of it, none is lost.
fn mtu(guest: &mut Guest) -> Result<()> {
    let page = guest.page("big")?;
    fetch_with(STACK_V4, "big", &page, || guest.ok("ip link set eth0 mtu 1400").map(drop))?;
    fetch(STACK_V4, "big", &page)?;
    let stream = connect(STACK_V4, 7)?;
    let shown = program("ss -tinH dst 198.18.0.2:7")?.ok()?.text();
    // 1,400 less 40 of headers and 12 of timestamps.
    ensure!(shown.contains(" mss:1348 "), "the server's MSS is not that of an MTU of 1,400: {shown}");
    drop(stream);
    fetch_with(STACK_V4, "big", &page, || guest.ok("ip link set eth0 mtu 1500").map(drop))?;
    echo_with(STACK_V4, 500_009, || Ok(()))?;
    ensure!(guest.log("main").contains("now has MTU"), "the log does not tell");
    Ok(())
}

/// Fewer queues than are bound, and more than were there at the start. The kernel refuses what would take a queue away from a
/// socket, and a driver with a native program refuses both. Where it makes one more, what comes on that one is not ours: the
/// server says so, and serves every flow when the number is what it was.
fn queue_count(guest: &mut Guest) -> Result<()> {
    if guest.sh("ethtool -l eth0 | grep -c 'Combined:.*2'")?.text.trim() != "2" {
        println!("SKIPPED vm queue_count on {}: its network card has one queue", guest.row);
        return Ok(());
    }
    let fewer = guest.sh("ethtool -L eth0 combined 1")?;
    ensure!(fewer.code != 0, "a queue with a socket on it went away: {}", fewer.text);
    many_flows(guest)?;
    guest.stop("main")?;
    let alone = guest.sh("ethtool -L eth0 combined 1")?;
    guest.serving()?;
    if alone.text.contains("Operation not supported") {
        println!("SKIPPED vm queue_count on {}: its driver keeps the number of queues that it started with", guest.row);
        return many_flows(guest);
    }
    ensure!(alone.code == 0, "no queue less without a socket: {}", alone.text);
    let grown = guest.sh("ethtool -L eth0 combined 2")?;
    if guest.rung == "af-xdp-generic" {
        ensure!(grown.code == 0, "no queue more: {}", grown.text);
        wait_for("a word about queues", Duration::from_secs(10), || {
            Ok(guest.log("main").contains("now receives on 2 queue").then_some(()))
        })?;
        // The sockets are bound to the first queue only, so that the second one may go.
        guest.ok("ethtool -L eth0 combined 1")?;
    } else {
        ensure!(grown.code != 0, "the driver made a queue more under a native program");
    }
    many_flows(guest)?;
    guest.stop("main")?;
    guest.ok("ethtool -L eth0 combined 2")?;
    guest.serving()?;
    many_flows(guest)
}

/// Enough flows that each queue has some.
fn many_flows(guest: &mut Guest) -> Result<()> {
    let page = guest.page("page")?;
    side_by_side(24, |_| fetch(STACK_V4, "page", &page))
}

/// The network card goes: the server ends with exit code 1 and the reason. The card comes back: the next server serves, and
/// what is left of old connections is reset.
fn removal(guest: &mut Guest) -> Result<()> {
    let mut old = connect(STACK_V4, 7)?;
    old.write_all(b"before")?;
    old.read_exact(&mut [0; 6]).context("an echo before the removal")?;
    guest.ok(
        "d=$(readlink -f /sys/class/net/eth0/device); until [ -e $d/remove ]; do d=${d%/*}; done; echo 1 >$d/remove",
    )?;
    let code = guest.ended("main")?;
    let log = guest.log("main");
    // The watch or a worker sees it first.
    ensure!(code == "1" && log.contains("start khamsin again when it is back"), "exit code {code}: {log}");
    let back =
        "echo 1 >/sys/bus/pci/rescan; for i in $(seq 200); do [ -e /sys/class/net/eth0 ] && break; usleep 50000; done";
    guest.ok(&format!("{back}; ip address add 198.18.0.9/24 dev eth0; ip link set eth0 up"))?;
    guest.serving()?;
    fetch(STACK_V4, "big", &guest.page("big")?)?;
    old.write_all(b"after")?;
    match old.read(&mut [0; 8]) {
        Ok(n @ 1..) => bail!("a connection of the former server answers {n} bytes"),
        _ => Ok(()),
    }
}
