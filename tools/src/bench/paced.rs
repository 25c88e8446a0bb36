//! Clients that ask at a given rate, whatever the server makes of it, and what it does not answer in time is missing; or
//! clients that ask again as soon as they are answered.

use anyhow::{Context, Result, anyhow, ensure};
use khamsin_drivers::clock::Clock;
use khamsin_stack::Instant;
use khamsin_tools::netns::Netns;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Threads that share the requests; so many may be under way at a time.
const THREADS: u64 = 16;

/// What to ask for, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paced {
    /// Requests a second, over all threads; `None`: each thread asks as soon as it has its answer.
    pub(crate) per_s: Option<u32>,
    pub(crate) time: Duration,
    /// Each request over a connection of its own, handshake included in its latency.
    pub(crate) new_connections: bool,
    /// The core that all threads run on.
    pub(crate) core: Option<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Latency of each request that was answered, from when it was due, microseconds; sorted.
    latencies_us: Vec<u64>,
    /// Requests that were due and not answered.
    pub(crate) failed: u64,
    time: Duration,
}

impl Outcome {
    /// Answered requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_us.len() as f64 / self.time.as_secs_f64()
    }

    /// The latency that the share `q` of the requests stays below, microseconds.
    pub(crate) fn latency_us(&self, q: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get((q * last as f64).round() as usize).map_or(f64::NAN, |us| *us as f64)
    }
}

/// Keeps the calling thread on one core.
///
/// # Errors
/// There is no such core.
pub(crate) fn stay_on(core: Option<usize>) -> Result<()> {
    let Some(core) = core else { return Ok(()) };
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).with_context(|| format!("run on core {core}"))
}

/// Asks `server` for `/small` from inside `netns`.
///
/// # Errors
/// The threads cannot work there. That requests fail is no error but counted.
pub(crate) fn drive(netns: &Netns, server: SocketAddr, load: Paced) -> Result<Outcome> {
    let start = Clock.now().plus_micros(20_000);
    let gap_us = load.per_s.map_or(0, |per_s| 1_000_000 * THREADS / u64::from(per_s));
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let first = start.plus_micros(gap_us * number / THREADS);
        threads.push(netns.spawn(move || {
            stay_on(load.core)?;
            anyhow::Ok(one_thread(server, load, first, gap_us))
        })?);
    }
    let mut all = Outcome { time: load.time, ..Outcome::default() };
    for thread in threads {
        let outcome = thread.join().map_err(|_| anyhow!("a client panicked"))???;
        all.latencies_us.extend(outcome.latencies_us);
        all.failed += outcome.failed;
    }
    all.latencies_us.sort_unstable();
    Ok(all)
}

fn one_thread(server: SocketAddr, load: Paced, first: Instant, gap_us: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut kept = None;
    let end = first + load.time;
    let mut due = first;
    while due < end {
        if gap_us == 0 {
            due = Clock.now().max(first);
        }
        thread::sleep(due.since(Clock.now()));
        // A thread that fell behind by more than the time that is left asks no more: what was due is missing.
        if Clock.now() >= end && gap_us > 0 {
            outcome.failed += end.micros_since(due).div_ceil(gap_us);
            return outcome;
        }
        match ask(server, load.new_connections, &mut kept) {
            Ok(()) => outcome.latencies_us.push(Clock.now().micros_since(due)),
            Err(_) => {
                kept = None;
                outcome.failed += 1;
            }
        }
        due = due.plus_micros(gap_us);
    }
    outcome
}

fn ask(server: SocketAddr, new_connection: bool, kept: &mut Option<TcpStream>) -> Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream
        }
    };
    let how = if new_connection { "close" } else { "keep-alive" };
    stream.write_all(format!("GET /small HTTP/1.1\r\nHost: bench\r\nConnection: {how}\r\n\r\n").as_bytes())?;
    let mut answer = [0; 2048];
    let mut len = 0;
    loop {
        let n = stream.read(&mut answer[len..])?;
        len += n;
        let head = answer[..len].windows(4).position(|w| w == b"\r\n\r\n");
        match (new_connection, n) {
            (true, 0) => break,
            (false, 0) => anyhow::bail!("the server ended the connection"),
            (false, _) if head.is_some_and(|head| len >= head + 4 + 64) => break,
            _ => ensure!(len < answer.len(), "an answer longer than the file"),
        }
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "another answer than 200");
    answer[..len].windows(4).position(|w| w == b"\r\n\r\n").context("no head")?;
    if !new_connection {
        *kept = Some(stream);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_is_no_rate() {
        let time = Duration::from_secs(2);
        let outcome = Outcome { latencies_us: (1..=100).collect(), failed: 7, time };
        assert_eq!(outcome.rate(), 50.0);
        assert_eq!((outcome.latency_us(0.5), outcome.latency_us(0.99), outcome.latency_us(1.0)), (51.0, 99.0, 100.0));
        assert!(Outcome::default().latency_us(0.5).is_nan());
    }

    #[test]
    fn nobody_there_is_counted() {
        // A port of our own on which nobody listens.
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = held.local_addr().unwrap();
        drop(held);
        let load = Paced { per_s: Some(1600), time: Duration::from_millis(50), new_connections: true, core: None };
        let outcome = one_thread(server, load, Clock.now(), 10_000);
        assert_eq!((outcome.failed, outcome.latencies_us.len()), (5, 0));
        let outcome = one_thread(server, Paced { per_s: None, ..load }, Clock.now(), 0);
        assert!(outcome.failed > 5, "nobody waits in a closed loop: {}", outcome.failed);
    }
}
