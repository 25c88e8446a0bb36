//! Many echo connections held by several client processes, each of them served, again while all are held.

use crate::contender::{Contender, Started};
use crate::machine::resident;
use crate::report::Report;
use crate::{Case, Options};
use anyhow::{Context, Result, bail, ensure};
use khamsin::output::say;
use khamsin_tools::bed::Bed;
use khamsin_tools::deadline::Deadline;
use khamsin_tools::pages::{Pages, pattern};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{BufRead, BufReader, Read, Write, stdin};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Client processes that share the connections.
const PROCESSES: u32 = 4;
/// Bytes that each connection echoes in each round.
const MESSAGE: usize = 200;
const LIMIT: Duration = Duration::from_secs(180);

/// Holds and serves the connections on khamsin's own stack and on kernel sockets.
///
/// # Errors
/// A connection was refused or reset, or echoed other bytes.
pub(crate) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    for contender in [Contender::AfXdp, Contender::Epoll] {
        let (bed, pages) = (Bed::veth(1)?, Pages::new()?);
        bed.client().sysctl("net.ipv4.ip_local_port_range", "1024 65000")?;
        bed.server.sysctl("net.core.somaxconn", "8192")?;
        let server = contender.start(&bed, &pages, 1, options)?;
        let before = resident(server.pid())?;
        let grown = hold_all(&bed, &server, contender, options.held)?.saturating_sub(before);
        let each = grown / u64::from(options.held);
        report.line(
            Case::Held,
            format!(
                "{contender}: {} echo connections held by {PROCESSES} processes, each served twice, all bytes right, \
                     none reset; {each} bytes of resident memory each ({} MiB before the first; on kernel sockets the kernel's own buffers come on top)",
                options.held,
                before >> 20
            ),
            serde_json::json!({"contender": contender.to_string(), "connections": options.held, "bytes_each": each}),
        );
    }
    Ok(())
}

/// Starts the holders and leads them through two rounds; the server's resident memory while all are held.
fn hold_all(bed: &Bed, server: &Started, contender: Contender, connections: u32) -> Result<u64> {
    let address = format!("{}:7", contender.address());
    let me = std::env::current_exe()?.to_string_lossy().into_owned();
    let mut holders = Vec::new();
    for number in 0..PROCESSES {
        let share = connections / PROCESSES + u32::from(number < connections % PROCESSES);
        let mut command = bed.client().command(&me);
        command.args(["hold", &address, &share.to_string(), &number.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start a holder")?;
        let said = BufReader::new(child.stdout.take().context("a holder's output")?);
        holders.push(Holder { child, said, number });
    }
    for holder in &mut holders {
        holder.expect("held")?;
    }
    let held = resident(server.pid())?;
    for holder in &mut holders {
        holder.child.stdin.as_mut().context("a holder's input")?.write_all(b"again\n")?;
    }
    for holder in &mut holders {
        holder.expect("served")?;
    }
    Ok(held)
}

/// A client process; dropping it ends it. It limits its own time.
struct Holder {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    number: u32,
}

impl Holder {
    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(line.trim() == word, "holder {} ended before it had {word} its connections", self.number);
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one holder does: connect, echo once on each, say `held`, wait for a line, echo again on each, say `served`.
///
/// # Errors
/// A connection was refused or reset, or echoed other bytes, or the time is over.
pub(crate) fn hold(address: SocketAddr, connections: u32, number: u32) -> Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let deadline = Deadline::after(LIMIT);
    let mut streams = Vec::new();
    for i in 0..connections {
        let stream =
            TcpStream::connect_timeout(&address, Duration::from_secs(20)).with_context(|| format!("connection {i}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        streams.push(stream);
        if deadline.is_over() {
            bail!("{i} connections after {LIMIT:?}");
        }
    }
    round(&mut streams, number, 1, deadline)?;
    say("held")?;
    stdin().read_line(&mut String::new())?;
    round(&mut streams, number, 2, deadline)?;
    say("served")?;
    Ok(())
}

fn round(streams: &mut [TcpStream], number: u32, round: u64, deadline: Deadline) -> Result<()> {
    let seed = |i: usize| (u64::from(number) << 40) | ((i as u64) << 8) | round;
    for (i, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&pattern(MESSAGE, seed(i))).with_context(|| format!("send on connection {i}"))?;
    }
    let mut back = [0u8; MESSAGE];
    for (i, stream) in streams.iter_mut().enumerate() {
        stream.read_exact(&mut back).with_context(|| format!("receive on connection {i}"))?;
        ensure!(back[..] == pattern(MESSAGE, seed(i)), "connection {i} echoes other bytes");
        ensure!(!deadline.is_over(), "round {round} is at connection {i} after {LIMIT:?}");
    }
    Ok(())
}
