//! What the wire tests ask on the host's rungs, asked of a real driver.

use crate::Case;
use crate::guest::{Guest, KERNEL_V4, STACK_V4, STACK_V6};
use crate::talk::{self, echo_with, fetch, upload};
use anyhow::{Result, ensure};
use khamsin_tests::command::run;
use std::process::Command;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    ("ping", ping),
    ("closed_port", closed_port),
    ("pages", pages),
    ("pages_over_ipv6", pages_over_ipv6),
    ("echo", |_| echo_with(STACK_V4, 1_000_003, || Ok(()))),
    ("upload", |_| upload(STACK_V4, 4_000_037)),
    ("keep_alive", keep_alive),
    ("side_by_side", side_by_side),
];

/// Longest that a program of the host's may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program of the host's in the namespace that this runs in.
pub(crate) fn program(line: &str) -> Result<khamsin_tests::command::Ran> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    run(command, LIMIT)
}

/// khamsin answers for its addresses, the guest's kernel for its own.
fn ping(_: &mut Guest) -> Result<()> {
    for (size, host) in [(56, STACK_V4), (1400, STACK_V4), (56, STACK_V6), (56, KERNEL_V4)] {
        let said = program(&format!("ping -c 2 -i 0.05 -w 10 -s {size} {host}"))?.ok()?.text();
        ensure!(said.contains(" 2 received") && !said.contains("wrong data"), "{said}");
    }
    Ok(())
}

fn closed_port(_: &mut Guest) -> Result<()> {
    for host in ["198.18.0.2", "[fd00:18::2]"] {
        let ran = program(&format!("curl -gsS --max-time 10 http://{host}:81/"))?;
        ensure!(ran.status.code() == Some(7), "{ran}");
    }
    Ok(())
}

fn pages(guest: &mut Guest) -> Result<()> {
    ["small", "page", "big"].iter().try_for_each(|name| fetch(STACK_V4, name, &guest.page(name)?))
}

fn pages_over_ipv6(guest: &mut Guest) -> Result<()> {
    ["small", "page", "big"].iter().try_for_each(|name| fetch(STACK_V6, name, &guest.page(name)?))
}

/// Many requests on each connection, without one error.
fn keep_alive(_: &mut Guest) -> Result<()> {
    let said = program("wrk -t1 -c32 -d1s http://198.18.0.2/page")?.ok()?.text();
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    Ok(())
}

/// Flows of both queues at the same time, every byte checked.
fn side_by_side(guest: &mut Guest) -> Result<()> {
    let page = guest.page("page")?;
    talk::side_by_side(16, |i| match i % 2 {
        0 => (0..4).try_for_each(|_| fetch(STACK_V4, "page", &page)),
        _ => echo_with(STACK_V4, 40_000, || Ok(())),
    })
}
