//! Clients on sockets of the host's kernel that check every byte.

use anyhow::{Context, Result, anyhow, bail, ensure};
use khamsin_tests::pages::pattern;
use rustix::net::sockopt;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// Longest silence of a connection before it counts as lost.
pub(crate) const SILENCE: Duration = Duration::from_secs(40);

/// Connects, and gives up a connection that says nothing for long.
pub(crate) fn connect(host: &str, port: u16) -> Result<TcpStream> {
    let to = SocketAddr::new(host.parse::<IpAddr>()?, port);
    let stream = TcpStream::connect_timeout(&to, SILENCE).with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// Sends a request for a page.
fn ask(stream: &mut TcpStream, path: &str) -> Result<()> {
    let request = format!("GET /{path} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("send a request")
}

/// What follows the head of a response.
fn body(response: &[u8]) -> Result<&[u8]> {
    let end = response.windows(4).position(|w| w == b"\r\n\r\n").context("no end of the response's head")?;
    ensure!(response.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&response[..end]));
    Ok(&response[end + 4..])
}

/// Fetches a page and wants these bytes.
pub(crate) fn fetch(host: &str, path: &str, want: &[u8]) -> Result<()> {
    fetch_with(host, path, want, || Ok(()))
}

/// Fetches a page and wants these bytes; `midway` happens when the first of it is here and most of it is not, because the
/// receive buffer is small.
pub(crate) fn fetch_with(host: &str, path: &str, want: &[u8], midway: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut stream = connect(host, 80)?;
    sockopt::set_socket_recv_buffer_size(&stream, 128 << 10)?;
    ask(&mut stream, path)?;
    let mut got = vec![0; want.len().min(64 << 10)];
    let n = stream.read(&mut got).context("the first of a page")?;
    got.truncate(n);
    midway()?;
    stream.read_to_end(&mut got).with_context(|| format!("/{path} from {host} after {} bytes", got.len()))?;
    same(body(&got)?, want).with_context(|| format!("/{path} from {host}"))
}

/// Sends `len` bytes to the echo application and wants them back; `midway` happens when half of them are back.
pub(crate) fn echo_with(host: &str, len: usize, midway: impl FnOnce() -> Result<()>) -> Result<()> {
    let stream = connect(host, 7)?;
    sockopt::set_socket_recv_buffer_size(&stream, 128 << 10)?;
    let bytes = pattern(len, 7);
    let (mut out, want) = (stream.try_clone()?, bytes.clone());
    let writer = thread::spawn(move || -> Result<()> {
        out.write_all(&bytes).context("send to echo")?;
        out.shutdown(Shutdown::Write).context("end of what is sent")
    });
    let (mut stream, mut got) = (stream, vec![0; len / 2]);
    let result = (|| {
        stream.read_exact(&mut got).context("the first half of an echo")?;
        midway()?;
        stream.read_to_end(&mut got).with_context(|| format!("an echo after {} bytes", got.len()))?;
        same(&got, &want).context("an echo")
    })();
    if result.is_err() {
        // The writer may wait for room that never comes.
        let _ = stream.shutdown(Shutdown::Both);
    }
    match writer.join() {
        Ok(sent) => result.and(sent),
        Err(_) => bail!("the writer panicked"),
    }
}

/// Sends `len` bytes to the sink, which counts them.
pub(crate) fn upload(host: &str, len: usize) -> Result<()> {
    let mut stream = connect(host, 9)?;
    stream.write_all(&pattern(len, 9)).context("send to the sink")?;
    stream.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said).context("what the sink counted")?;
    ensure!(said.trim() == len.to_string(), "the sink counted {said} of {len} bytes");
    Ok(())
}

/// So many clients at the same time, by number: all of them must succeed.
pub(crate) fn side_by_side(count: usize, client: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..count).map(|i| (i, &client)).map(|(i, client)| scope.spawn(move || client(i))).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

fn same(got: &[u8], want: &[u8]) -> Result<()> {
    ensure!(got.len() == want.len(), "{} bytes instead of {}", got.len(), want.len());
    if let Some(at) = got.iter().zip(want).position(|(g, w)| g != w) {
        bail!("another byte at {at} of {}", want.len());
    }
    Ok(())
}
