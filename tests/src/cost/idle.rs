//! What an idle connection takes of memory: by what a process with very many of them has grown.

use super::client::Client;
use super::counted::{Bench, ECHO};
use super::{Case, Work};
use anyhow::{Context, Result, ensure};
use khamsin_stack::wire::Flags;

/// As the budget names it.
pub const IDLE: &str = "idle-bytes-1m";
/// Connections that are held.
pub const HELD: usize = 1_000_000;

/// Longer than it takes to be parked, in steps, microseconds.
const REST_US: [u64; 60] = [50_000; 60];

/// Opens `connections`, with the bounds that a server has by default, has each echo once, waits until all are parked, and
/// returns by how many bytes of resident memory the process has grown for each since its server had started. To be run in a
/// process of its own. Some of them speak once more at the end, and must be answered.
///
/// # Errors
/// When an answer is missing or wrong, or a connection is not parked.
pub fn bytes_each(connections: usize) -> Result<f64> {
    let case = Case { name: IDLE, work: Work::Rest, connections, v6: false, timestamps: true };
    let mut bench = Bench::new(&case)?;
    let (before, step) = (resident()?, (connections / 100).max(1));
    let mut sample = Vec::with_capacity(connections / step + 1);
    for number in 0..connections {
        let mut client = Client::new(&case, number);
        bench.say(&mut client, Flags::SYN, &[], true)?;
        bench.say(&mut client, Flags::ACK, &[], false)?;
        echo(&mut bench, &mut client).with_context(|| format!("connection {number}"))?;
        if number % step == 0 {
            sample.push(client);
        }
    }
    REST_US.into_iter().for_each(|us| bench.rest(us));
    let grown = resident()?.saturating_sub(before);
    ensure!(bench.parked() == connections, "{} of {connections} are parked", bench.parked());
    for client in &mut sample {
        echo(&mut bench, client).context("a connection that was parked")?;
    }
    Ok(grown as f64 / connections as f64)
}

fn echo(bench: &mut Bench, client: &mut Client) -> Result<()> {
    bench.say(client, Flags::ACK | Flags::PSH, &ECHO, true)?;
    bench.say(client, Flags::ACK, &[], false)
}

/// Resident memory of this process, bytes.
fn resident() -> Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split_whitespace().nth(1).context("statm has no second figure")?.parse()?;
    Ok(pages * rustix::param::page_size())
}
