//! Clients on kernel sockets: connections that ask and verify, as fast as answers come.

use super::exchange::{Bytes, Exchange, Talk, page_of};
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use khamsin_drivers::clock::Clock;
use khamsin_stack::Instant;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Whom to talk to, and about what.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Addresses of the HTTP application; connections take turns.
    pub(crate) http: Vec<SocketAddr>,
    /// Addresses of the echo application.
    pub(crate) echo: Vec<SocketAddr>,
    pub(crate) connections: usize,
}

/// What came of it so far.
pub(crate) struct Figures {
    /// Connections opened.
    pub(crate) opened: u64,
    /// Requests answered right.
    pub(crate) answered: u64,
    /// Bytes that were compared and right.
    pub(crate) verified: u64,
    /// Whatever went wrong; the first few in words.
    pub(crate) failures: u64,
    pub(crate) said: Vec<String>,
    /// Time from request to whole answer, microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// The same since it was last reset.
    pub(crate) recent_us: Histogram<u64>,
}

/// Connections, their exchanges and the figures.
pub(crate) struct Load {
    target: Target,
    clock: Clock,
    epoll: rustix::fd::OwnedFd,
    clients: Vec<Client>,
    page: Vec<u8>,
    scratch: Box<[u8]>,
    events: Vec<epoll::Event>,
    stopping: bool,
    pub(crate) figures: Figures,
}

struct Client {
    stream: Option<TcpStream>,
    peer: SocketAddr,
    host: String,
    bytes: Bytes,
    exchange: Exchange,
    sent: usize,
    answer: Vec<u8>,
    since: Instant,
    /// Exchanges left before this connection makes room for a new one.
    left: usize,
    /// Whether the kernel is asked to tell of room to send.
    waits_for_room: bool,
}

/// Exchanges on one connection before it ends in good order and another takes its place.
const EXCHANGES: usize = 2000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer that takes longer is a failure.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const SCRATCH: usize = 64 * 1024;
/// Failures that are told in words.
const SAID_MAX: usize = 5;
/// Failures after which there is no point in going on.
const FAILURES_MAX: u64 = 100;

impl Load {
    /// Fetches the page once, so that every later one can be compared, and opens the connections.
    ///
    /// # Errors
    /// Nobody answers at the target.
    pub(crate) fn open(target: Target, clock: Clock) -> Result<Load> {
        let first = *target.http.first().context("the demo has no HTTP address to talk to")?;
        let page = fetch_page(first).with_context(|| format!("fetching http://{first}/ failed"))?;
        let latency_us = Histogram::new_with_bounds(1, 60_000_000, 3).context("no histogram")?;
        let (recent_us, said) = (latency_us.clone(), Vec::new());
        let figures = Figures { opened: 0, answered: 0, verified: 0, failures: 0, said, latency_us, recent_us };
        let clients = (0..target.connections).map(|i| Client::new(i, &target)).collect();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("no epoll instance for the clients")?;
        let (scratch, events) = (vec![0; SCRATCH].into(), Vec::with_capacity(256));
        let mut load = Load { target, clock, epoll, clients, page, scratch, events, stopping: false, figures };
        for i in 0..load.target.connections {
            load.connect(i).with_context(|| format!("connection {} of the demo failed", i + 1))?;
        }
        Ok(load)
    }

    /// Asks and verifies until `until`.
    ///
    /// # Errors
    /// So much went wrong that there is no point in going on.
    pub(crate) fn run(&mut self, until: Instant) -> Result<()> {
        loop {
            let now = self.clock.now();
            if now >= until {
                break;
            }
            self.turn(until.since(now).min(Duration::from_millis(100)))?;
            if self.figures.failures > FAILURES_MAX {
                bail!("too much went wrong: {}", self.figures.said.join("; "));
            }
        }
        self.look_for_silence();
        Ok(())
    }

    /// Lets the answers that are due come, at most until `until`, and closes the connections.
    ///
    /// # Errors
    /// The clients' own epoll instance failed.
    pub(crate) fn finish(&mut self, until: Instant) -> Result<()> {
        self.stopping = true;
        while self.open_connections() > 0 {
            let now = self.clock.now();
            if now >= until {
                self.fail(format!("{} connections were still without an answer at the end", self.open_connections()));
                break;
            }
            self.turn(until.since(now).min(Duration::from_millis(100)))?;
        }
        Ok(())
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.clients.iter().filter(|c| c.stream.is_some()).count()
    }

    fn turn(&mut self, timeout: Duration) -> Result<()> {
        let timeout = timeout.try_into().context("no such timeout")?;
        let mut events = std::mem::take(&mut self.events);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("the clients' epoll_wait failed"),
        }
        for event in events.drain(..) {
            let i = event.data.u64() as usize;
            if let Err(what) = self.progress(i) {
                let talk_to = self.clients[i].peer;
                self.fail(format!("{talk_to}: {what}"));
                self.clients[i].stream = None;
                if !self.stopping {
                    self.reopen(i);
                }
            }
        }
        self.events = events;
        Ok(())
    }

    /// Reads what came, judges it, and sends what is next.
    fn progress(&mut self, i: usize) -> Result<(), String> {
        let client = &mut self.clients[i];
        let Some(stream) = &mut client.stream else { return Ok(()) };
        loop {
            match stream.read(&mut self.scratch) {
                Ok(0) => return Err("the server ended the connection in the middle".into()),
                Ok(n) => {
                    client.answer.extend_from_slice(&self.scratch[..n]);
                    if n < self.scratch.len() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        if !client.answer.is_empty() && client.exchange.judge(&client.answer, &self.page)? {
            let now = self.clock.now();
            self.figures.answered += 1;
            self.figures.verified += client.answer.len() as u64;
            let latency_us = now.micros_since(client.since).max(1);
            self.figures.latency_us.saturating_record(latency_us);
            self.figures.recent_us.saturating_record(latency_us);
            client.left -= 1;
            if client.left == 0 || self.stopping {
                return self.retire(i);
            }
            client.renew(now);
        }
        self.send(i).map_err(|e| e.to_string())
    }

    /// Ends a connection in good order and puts another in its place.
    fn retire(&mut self, i: usize) -> Result<(), String> {
        self.clients[i].stream = None;
        if !self.stopping {
            self.reopen(i);
        }
        Ok(())
    }

    fn reopen(&mut self, i: usize) {
        if let Err(error) = self.connect(i) {
            self.fail(format!("connecting to {} failed: {error}", self.clients[i].peer));
        }
    }

    fn connect(&mut self, i: usize) -> io::Result<()> {
        let client = &mut self.clients[i];
        let stream = TcpStream::connect_timeout(&client.peer, CONNECT_TIMEOUT)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)?;
        client.stream = Some(stream);
        client.left = EXCHANGES / 2 + client.bytes.below(EXCHANGES);
        client.waits_for_room = false;
        client.renew(self.clock.now());
        self.figures.opened += 1;
        self.send(i)
    }

    fn send(&mut self, i: usize) -> io::Result<()> {
        let client = &mut self.clients[i];
        let Some(stream) = &mut client.stream else { return Ok(()) };
        while client.sent < client.exchange.request.len() {
            match stream.write(&client.exchange.request[client.sent..]) {
                Ok(n) => client.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let short = client.sent < client.exchange.request.len();
        if short != client.waits_for_room {
            client.waits_for_room = short;
            let flags = if short { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(&self.epoll, &*stream, epoll::EventData::new_u64(i as u64), flags)?;
        }
        Ok(())
    }

    /// A connection whose answer is overdue is a failure, and makes room for another.
    fn look_for_silence(&mut self) {
        let now = self.clock.now();
        for i in 0..self.clients.len() {
            let client = &mut self.clients[i];
            if client.stream.is_none() {
                self.reopen(i);
            } else if now.since(client.since) > ANSWER_TIMEOUT {
                client.stream = None;
                let peer = client.peer;
                self.fail(format!("{peer}: no answer for {} s", ANSWER_TIMEOUT.as_secs()));
                self.reopen(i);
            }
        }
    }

    fn fail(&mut self, what: String) {
        self.figures.failures += 1;
        if self.figures.said.len() < SAID_MAX {
            self.figures.said.push(what);
        }
    }
}

impl Client {
    /// Half of the connections fetch the page, a quarter posts, a quarter talks to echo.
    fn new(i: usize, target: &Target) -> Self {
        let talk = match i % 4 {
            1 if !target.echo.is_empty() => Talk::Echo,
            3 => Talk::Post,
            _ => Talk::Page,
        };
        let addresses = if talk == Talk::Echo { &target.echo } else { &target.http };
        let peer = addresses[i / 4 % addresses.len()];
        let (bytes, exchange) = (Bytes::new(i as u64 + 1), Exchange::new(talk));
        let (host, answer) = (peer.to_string(), Vec::with_capacity(SCRATCH));
        let since = Instant::ZERO;
        Client { stream: None, peer, host, bytes, exchange, sent: 0, answer, since, left: 0, waits_for_room: false }
    }

    fn renew(&mut self, now: Instant) {
        self.exchange.renew(&self.host, &mut self.bytes);
        (self.sent, self.since) = (0, now);
        self.answer.clear();
    }
}

fn fetch_page(address: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece)? {
            0 => bail!("the server ended the connection in the middle of its answer"),
            n => answer.extend_from_slice(&piece[..n]),
        }
        if let Some(page) = page_of(&answer).map_err(anyhow::Error::msg)? {
            return Ok(page.to_vec());
        }
        if answer.len() > 1 << 20 {
            bail!("the first page is longer than a page should be");
        }
    }
}
