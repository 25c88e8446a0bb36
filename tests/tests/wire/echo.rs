//! Echo with nc and with Python's sockets.

use crate::{CLIENT_LIMIT, Case, Scene, everywhere};
use anyhow::{Context, Result, ensure};
use khamsin_tests::pages::pattern;

const PYTHON: &[&str] = &["python3"];

pub(crate) const CASES: &[Case] = &[
    Case { name: "nc", needs: &["nc"], on: everywhere, run: nc },
    Case { name: "nc_over_ipv6", needs: &["nc"], on: everywhere, run: nc_over_ipv6 },
    Case { name: "echo_a_byte_at_a_time", needs: PYTHON, on: everywhere, run: |s| python(s, "bytewise", &[]) },
    Case { name: "echo_reset", needs: PYTHON, on: everywhere, run: |s| python(s, "reset", &[]) },
    Case { name: "echo_half_close", needs: PYTHON, on: everywhere, run: |s| python(s, "half-close", &[]) },
    Case { name: "echo_slow_reader", needs: PYTHON, on: everywhere, run: |s| python(s, "slow", &[]) },
    Case {
        name: "echo_10_mb_both_ways",
        needs: PYTHON,
        on: everywhere,
        run: |s| python(s, "both-ways", &["10000000"]),
    },
    Case { name: "echo_200_connections", needs: PYTHON, on: everywhere, run: |s| python(s, "many", &["200"]) },
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

fn nc(scene: &mut Scene) -> Result<()> {
    nc_to(scene, scene.rung.v4())
}

fn nc_over_ipv6(scene: &mut Scene) -> Result<()> {
    nc_to(scene, scene.rung.v6())
}
