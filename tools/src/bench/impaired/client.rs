//! The clients, on the kernel's own TCP.

use anyhow::{Context, Result, ensure};
use khamsin_drivers::clock::Clock;
use khamsin_tools::deadline::Deadline;
use khamsin_tools::socket::connect_from;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// How long any single step may take. Three lost SYNs in a row take 7 seconds.
const LIMIT: Duration = Duration::from_secs(40);

/// Bytes that arrive within `time` from the start of the connection, of `count` copies of the file `path`, asked for at once.
///
/// # Errors
/// The connection does not come about, or breaks.
pub(crate) fn download_for(port: u16, server: SocketAddr, path: &str, count: u64, time: Duration) -> Result<u64> {
    let end = Deadline::after(time);
    let mut stream = connect_from(port, server, LIMIT)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").repeat(count as usize);
    stream.write_all(request.as_bytes())?;
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    while !end.is_over() {
        stream.set_read_timeout(Some(end.left().max(Duration::from_micros(1))))?;
        match stream.read(&mut buffer) {
            Ok(0) => ensure!(end.is_over(), "the server ended the download after {bytes} bytes"),
            Ok(n) => bytes += n as u64,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e).with_context(|| format!("after {bytes} bytes")),
        }
    }
    Ok(bytes)
}

/// Time from the first SYN until all of the file `path`, `bytes` long, is there.
///
/// # Errors
/// The connection does not come about, or breaks, or what arrives is no such file.
pub(crate) fn flow(port: u16, server: SocketAddr, path: &str, bytes: usize) -> Result<Duration> {
    let start = Clock.now();
    let mut stream = connect_from(port, server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut answer = Vec::with_capacity(bytes + 1024);
    let mut piece = [0; 16_384];
    let mut wanted = usize::MAX;
    while answer.len() < wanted {
        let n = stream.read(&mut piece).with_context(|| format!("after {} bytes", answer.len()))?;
        ensure!(n > 0, "the server ended the answer after {} bytes", answer.len());
        answer.extend_from_slice(&piece[..n]);
        if wanted == usize::MAX
            && let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n")
        {
            ensure!(answer.starts_with(b"HTTP/1.1 200 "), "another answer than 200");
            wanted = head + 4 + bytes;
        }
    }
    ensure!(answer.len() == wanted, "{} bytes more than the file has", answer.len() - wanted);
    Ok(Clock.now().since(start))
}

/// Time from the first SYN until the server has said that it received all of `bytes`.
///
/// # Errors
/// The connection does not come about, or breaks, or the server counts otherwise.
pub(crate) fn upload(port: u16, server: SocketAddr, bytes: u64) -> Result<Duration> {
    let start = Clock.now();
    let mut stream = connect_from(port, server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let piece = vec![b'u'; 1 << 18];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(piece.len() as u64);
        stream.write_all(&piece[..n as usize]).with_context(|| format!("with {left} bytes to go"))?;
        left -= n;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("wait for the count")?;
    ensure!(answer.trim_end().parse() == Ok(bytes), "of {bytes} bytes the server says `{answer}`");
    Ok(Clock.now().since(start))
}
