//! Figures for the table. An emulated machine: they compare the rows of one run, nothing else.

use crate::Case;
use crate::guest::{Guest, STACK_V4};
use crate::talk::{fetch, upload};
use crate::wire::program;
use anyhow::{Result, ensure};
use khamsin_drivers::clock::Clock;
use khamsin_tests::wrk::{latency, number_behind};

pub(crate) const CASES: &[Case] = &[("requests", requests), ("throughput", throughput)];

/// Seconds of load.
const LOAD_S: u32 = 2;

fn requests(guest: &mut Guest) -> Result<()> {
    let said = program(&format!("wrk -t1 -c16 -d{LOAD_S}s --latency http://{STACK_V4}/small"))?.ok()?.text();
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    guest.figure("requests_per_s", number_behind(&said, "Requests/sec:")?.round())?;
    guest.figure("p50_us", latency(&said, "50%")?.round())?;
    guest.figure("p99_us", latency(&said, "99%")?.round())
}

fn throughput(guest: &mut Guest) -> Result<()> {
    let big = guest.page("big")?;
    let down = mbit_s(4 * big.len(), || (0..4).try_for_each(|_| fetch(STACK_V4, "big", &big)))?;
    guest.figure("down_mbit_s", down)?;
    let up = mbit_s(4 * big.len(), || upload(STACK_V4, 4 * big.len()))?;
    guest.figure("up_mbit_s", up)
}

fn mbit_s(bytes: usize, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let from = Clock.now();
    work()?;
    Ok(bytes as u64 * 8 / Clock.now().micros_since(from).max(1))
}
