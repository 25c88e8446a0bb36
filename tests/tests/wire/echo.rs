//! Echo with nc and with Python's sockets; discard with nc.

use crate::{CLIENT_LIMIT, Case, Scene, everywhere};
use anyhow::{Context, Result, ensure};
use khamsin_tests::pages::pattern;

const PYTHON: &[&str] = &["python3"];

pub(crate) const CASES: &[Case] = &[
    Case::new("nc", &["nc"], everywhere, nc),
    Case::new("nc_over_ipv6", &["nc"], everywhere, nc_over_ipv6),
    Case::new("discard_counts", &["nc"], everywhere, discard),
    Case::new("echo_a_byte_at_a_time", PYTHON, everywhere, |s| python(s, "bytewise", &[])),
    Case::new("echo_reset", PYTHON, everywhere, |s| python(s, "reset", &[])),
    Case::new("echo_half_close", PYTHON, everywhere, |s| python(s, "half-close", &[])),
    Case::new("echo_slow_reader", PYTHON, everywhere, |s| python(s, "slow", &[])),
    Case::new("echo_10_mb_both_ways", PYTHON, everywhere, |s| python(s, "both-ways", &["10000000"])),
    Case::new("echo_200_connections", PYTHON, everywhere, |s| python(s, "many", &["200"])),
];

fn python(scene: &mut Scene, case: &str, more: &[&str]) -> Result<()> {
    scene.python("echo.py", case, 7, more).map(drop)
}

/// `nc -N` ends its half after its input: what comes back, and the server's own end, end it.
fn nc_to(scene: &Scene, address: &str) -> Result<()> {
    for len in [1, 5000, 1_000_000] {
        let input = pattern(len, 11);
        let running = scene.start_client("nc", &["-N", "-w", "20", address, "7"], Some(input.clone()))?;
        let ran = running.finish(CLIENT_LIMIT)?.ok().with_context(|| format!("{len} bytes"))?;
        ensure!(ran.stdout == input, "{} of {len} bytes came back, or others", ran.stdout.len());
    }
    Ok(())
}

/// All of an upload is read, and its length is the answer to its end.
fn discard(scene: &mut Scene) -> Result<()> {
    for len in [0, 1, 3_000_001] {
        let arguments = ["-N", "-w", "20", scene.rung.v4(), "9"];
        let ran = scene.start_client("nc", &arguments, Some(pattern(len, 12)))?.finish(CLIENT_LIMIT)?.ok()?;
        ensure!(ran.text() == format!("{len}\n"), "of {len} bytes the server says `{}`", ran.text());
    }
    Ok(())
}

fn nc(scene: &mut Scene) -> Result<()> {
    nc_to(scene, scene.rung.v4())
}

fn nc_over_ipv6(scene: &mut Scene) -> Result<()> {
    nc_to(scene, scene.rung.v6())
}
