//! A small TCP client over frames, light enough not to be what is measured.
//!
//! A connection is one record of 64 bytes, so that a million of them fit; what it sends is a function of where in its
//! stream it is, so that nothing is kept for retransmission, and what it receives is judged where it lies. The price:
//! IPv4 only, segments out of order are dropped (and asked for again by a repeated ACK), no congestion control (at most
//! the peer's window is under way) and no options but MSS and window scale: neither SACK nor timestamps. That is for links
//! that lose next to nothing; where one frame in a hundred is lost, kernel sockets are the better client. An acknowledgement rides on the next
//! request where there is one; the others follow RFC 9293: every second segment at once, a single one within 40 ms.
//!
//! [`Client::turn`] is driven like a shard of the server: frames and `now` in, frames out, one clock reading a turn,
//! nothing allocated.

mod frame;
mod input;
pub mod open;
mod output;
mod ports;
mod record;
mod timers;

use super::book::{Book, Stage};
use super::judge::Judge;
use super::plan::{Poll, Question};
use super::speech::Speech;
use super::tally::Trouble;
use anyhow::{Context, Result, bail, ensure};
use frame::Headers;
use khamsin_drivers::clock::Clock;
use khamsin_stack::queue::BURST;
use khamsin_stack::wire::responder::{Responder, ResponderConfig};
use khamsin_stack::wire::{Addresses, Kind, Parsed, parse_into};
use khamsin_stack::{Counters, Frame, Instant, Queue, TxOffload};
use ports::Ports;
use record::{Connection, Flag, State};
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use timers::Timers;

/// Receive window of a connection, bytes, unless another is asked for: the most without window scaling.
const WINDOW: u32 = 65_535;
/// Receive window of a slow connection, bytes: little enough that the server waits for it.
const SLOW_WINDOW: u32 = 8 * 1024;
/// Bursts taken in one turn.
const BURSTS: usize = 2;
/// Connections opened, asked or closed in one turn, beside what answers bring about.
const STARTS: usize = 64;
/// Pauses between two looks at an empty ring: unpaused spinning bounces the ring's cache line (AF_XDP.md).
const PAUSES: u32 = 30;
/// The longest sleep.
const SLEEP_US: u64 = 20_000;
/// How long it may take to find the server's MAC address.
const NEIGHBOUR_US: u64 = 3_000_000;
/// How long resetting what is left may take.
const FAREWELL_US: u64 = 20_000_000;
/// Resets that each connection is sent: nobody answers one, so one that finds the server's ring full would leave it a connection
/// that is over.
const FAREWELLS: usize = 2;
/// Between two bursts of resets, microseconds: 430,000 a second.
const FAREWELL_GAP_US: u64 = 150;

/// What a client needs to know of its link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Our addresses, which nobody else has. At least one.
    pub sources: Vec<Ipv4Addr>,
    /// Whom to send everything to: the server itself where it is on the link.
    pub next_hop: Ipv4Addr,
    /// Its MAC address; `None`: it is asked for.
    pub mac: Option<[u8; 6]>,
}

/// How much of its answers a slow connection has taken.
#[derive(Clone, Copy, Default)]
struct Slow {
    /// Microseconds since the client began.
    since_us: u32,
    received: u64,
    /// Taken by the time that the peer was last told.
    told: u64,
}

/// Connections of our own over one queue of frames.
pub struct Client<Q: Queue> {
    /// Plan, times and figures.
    pub book: Book,
    judge: Judge,
    speech: Arc<Speech>,
    echo: bool,
    epoch: Instant,
    connections: Box<[Connection]>,
    slow: Box<[Slow]>,
    ports: Ports,
    headers: Headers,
    responder: Responder,
    link: Link,
    /// The next hop's MAC address is known.
    routed: bool,
    timers: Timers,
    to_open: VecDeque<u32>,
    /// Connections that want to say something at the end of the turn.
    touched: Vec<u32>,
    /// Those that found no frame to say it with.
    stuck: Vec<u32>,
    handshaking: usize,
    open: usize,
    idle_open: usize,
    window: u32,
    window_shift: u8,
    /// Most text in one of our frames, bytes.
    mss: u16,
    /// The server's address, IPv4-mapped, and port.
    server: ([u8; 16], u16),
    rx_partial_checksums: bool,
    burst: Vec<Q::Frame>,
    counters: Counters,
    figures: Figures,
    /// Next connection to reset at the end.
    farewell: usize,
}

/// What went on below the requests.
#[derive(Clone, Copy, Default, Debug)]
struct Figures {
    frames_in: u64,
    frames_out: u64,
    retransmitted: u64,
    out_of_order: u64,
    bad_checksums: u64,
    no_frame: u64,
}

impl<Q: Queue> Client<Q> {
    /// A client for what `book` plans over `queue`, which nothing is sent on yet.
    ///
    /// # Errors
    /// The target is not IPv4, or the connections want more ports than the addresses have.
    pub fn new(book: Book, link: Link, queue: &Q, now: Instant) -> Result<Client<Q>> {
        let plan = &book.plan;
        let IpAddr::V4(server) = plan.target.address.ip() else {
            bail!("the client of its own speaks IPv4 only: use --backend sockets for {}", plan.target.address);
        };
        let (all, fresh, caps) = (plan.connections_all(), plan.fresh, queue.caps());
        let ports = Ports::new(&link.sources, now.micros() as usize).context("an address to ask from is needed")?;
        ensure!(
            all <= ports.room() / 2,
            "{all} connections want more than half of the {} ports that {} addresses have: give --source more addresses",
            ports.room(),
            link.sources.len()
        );
        let speech = Arc::new(Speech::new(&plan.target.question, fresh));
        let judge = Judge::new(&plan.target.question, Arc::clone(&speech));
        let own = link.sources.iter().map(|a| (IpAddr::V4(*a), 32)).collect();
        let responder = Responder::new(ResponderConfig {
            mac: caps.mac,
            addresses: Addresses::Own(own),
            gateways: if link.mac.is_none() { vec![link.next_hop.into()] } else { vec![] },
            echo_limit_per_s: 100,
        });
        let window = plan.window.unwrap_or(if plan.slow_bits_per_s.is_some() { SLOW_WINDOW } else { WINDOW });
        let mss = (caps.mtu - 40).min(usize::from(u16::MAX)) as u16;
        let mut to_open: VecDeque<u32> = VecDeque::with_capacity(all);
        to_open.extend(plan.connections as u32..all as u32);
        if !fresh {
            to_open.extend(0..plan.connections as u32);
        }
        let mut client = Client {
            judge,
            speech,
            echo: matches!(plan.target.question, Question::Echo { .. }),
            epoch: now,
            connections: vec![Connection::default(); all].into(),
            slow: vec![Slow::default(); if plan.slow_bits_per_s.is_some() { all } else { 0 }].into(),
            ports,
            headers: Headers::new(caps.mac, link.mac.unwrap_or_default(), server, plan.target.address.port(), mss),
            responder,
            routed: link.mac.is_some(),
            link,
            timers: Timers::new(all),
            to_open,
            touched: Vec::with_capacity(all),
            stuck: Vec::with_capacity(all),
            handshaking: 0,
            open: 0,
            idle_open: 0,
            window,
            window_shift: (0..14).find(|shift| window >> shift <= 65_535).unwrap_or(14),
            mss,
            server: (server.to_ipv6_mapped().octets(), plan.target.address.port()),
            rx_partial_checksums: caps.rx_partial_checksums,
            burst: Vec::with_capacity(BURST),
            counters: Counters::default(),
            figures: Figures::default(),
            farewell: 0,
            book,
        };
        if fresh {
            (0..client.book.plan.connections as u32).for_each(|id| client.book.free(id));
        }
        Ok(client)
    }

    /// Microseconds since the client began; wraps after 71 minutes, which differences do not mind.
    #[inline]
    fn us(&self, now: Instant) -> u32 {
        now.micros_since(self.epoch) as u32
    }

    fn is_idle(&self, id: u32) -> bool {
        id as usize >= self.book.plan.connections
    }

    /// Takes in what has come, asks what is due, sends what is to be sent. Says whether anything was done.
    pub fn turn(&mut self, now: Instant, queue: &mut Q) -> bool {
        queue.begin();
        let mut received = 0;
        for _ in 0..BURSTS {
            let mut burst = core::mem::take(&mut self.burst);
            let n = queue.rx_burst(&mut burst, BURST);
            for frame in burst.drain(..) {
                self.on_frame(now, queue, &frame);
                queue.release(frame);
            }
            self.burst = burst;
            received += n;
            if n < BURST {
                break;
            }
        }
        self.figures.frames_in += received as u64;
        // A second look at the same moment would only measure itself: requests go out with this turn's time.
        let started = self.start(now, queue);
        self.on_timers(now, queue);
        self.flush(now, queue);
        self.send_own(now, queue);
        queue.end();
        let opening = !self.to_open.is_empty() || self.handshaking > 0;
        self.book.tick(now, self.routed && !opening, self.open, self.idle_open);
        received > 0 || started || !self.stuck.is_empty()
    }

    /// Opens connections and makes requests that are due.
    fn start(&mut self, now: Instant, queue: &mut Q) -> bool {
        if !self.routed {
            return false;
        }
        let mut started = 0;
        while started < STARTS && self.handshaking < self.book.plan.handshakes {
            let Some(id) = self.to_open.pop_front() else { break };
            self.connect(now, queue, id);
            started += 1;
        }
        while started < STARTS {
            let Some(id) = self.book.next(now) else { break };
            self.ask(now, queue, id);
            started += 1;
        }
        started > 0
    }

    /// One more request on connection `id`; opens it first where every request has its own.
    fn ask(&mut self, now: Instant, queue: &mut Q, id: u32) {
        let len = self.speech.request_len() as u32;
        let now_us = self.us(now);
        let connection = &mut self.connections[id as usize];
        match connection.state {
            State::Free => {
                self.connect(now, queue, id);
                let connection = &mut self.connections[id as usize];
                connection.snd_end = connection.snd_end.wrapping_add(len);
            }
            _ => {
                connection.progress_us = now_us;
                connection.snd_end = connection.snd_end.wrapping_add(len);
                self.touch(id);
            }
        }
        self.watch(now, id);
    }

    fn touch(&mut self, id: u32) {
        let connection = &mut self.connections[id as usize];
        if !connection.flags.has(Flag::Touched) {
            connection.flags.set(Flag::Touched);
            self.touched.push(id);
        }
    }

    fn on_frame(&mut self, now: Instant, queue: &mut Q, frame: &Q::Frame) {
        let mut parsed = Parsed::default();
        parse_into(frame.bytes(), &mut parsed);
        match &parsed.kind {
            Kind::Tcp(segment) => self.on_segment(now, queue, frame, &parsed.link, segment),
            Kind::Drop(reason) => reason.count(&mut self.counters),
            _ => self.on_other(now, queue, frame, &parsed),
        }
    }

    /// ARP, ping and the like.
    #[cold]
    fn on_other(&mut self, now: Instant, queue: &mut Q, frame: &Q::Frame, parsed: &Parsed) {
        let Some(mut reply) = queue.alloc_tx() else { return };
        reply.set_len(reply.capacity());
        match self.responder.answer(now, frame.bytes(), parsed, reply.bytes_mut(), &mut self.counters) {
            Some(len) => {
                reply.set_len(len);
                queue.tx(reply, TxOffload::NONE);
            }
            None => queue.release(reply),
        }
        self.look_for_route();
    }

    fn look_for_route(&mut self) {
        if self.link.mac.is_some() {
            return;
        }
        let mac = self.responder.route(&self.link.next_hop.to_ipv6_mapped().octets(), [0; 6]);
        if mac != [0; 6] {
            self.headers.set_next_hop(mac);
            self.routed = true;
        }
    }

    /// Announcements and questions for the next hop.
    fn send_own(&mut self, now: Instant, queue: &mut Q) {
        while self.responder.deadline().is_some_and(|at| at <= now) {
            let Some(mut frame) = queue.alloc_tx() else { return };
            frame.set_len(frame.capacity());
            match self.responder.poll(now, frame.bytes_mut(), &mut self.counters) {
                Some(len) => {
                    frame.set_len(len);
                    queue.tx(frame, TxOffload::NONE);
                }
                None => return queue.release(frame),
            }
        }
    }

    /// When the next turn is needed even if no frame comes.
    pub fn deadline(&self, now: Instant) -> Instant {
        let in_us = |us: u32| u64::from((us.wrapping_sub(self.us(now)) as i32).max(0).unsigned_abs());
        let timers = self.timers.first_us().map_or(Instant::FAR_FUTURE, |us| now.plus_micros(in_us(us)));
        let own = self.responder.deadline().unwrap_or(Instant::FAR_FUTURE);
        self.book.deadline().min(timers).min(own).min(now.plus_micros(SLEEP_US))
    }

    /// Connections that are open, idle ones included.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Carries the load through over `queue` and gives the book back.
    ///
    /// # Errors
    /// Nobody is found at the next hop, or the device is gone.
    pub fn run(mut self, mut queue: Q, clock: Clock) -> Result<Book> {
        loop {
            let now = clock.now();
            let busy = self.turn(now, &mut queue);
            if self.book.stage() == Stage::Over {
                break;
            }
            if !self.routed && now.micros_since(self.epoch) > NEIGHBOUR_US {
                bail!(
                    "nobody answers ARP for {} on this link: name the router with --gateway, or the MAC address with --mac",
                    self.link.next_hop
                );
            }
            if busy {
                continue;
            }
            if let Some(sentence) = self.book.hopeless() {
                bail!(sentence);
            }
            match self.book.plan.poll {
                Poll::Busy => (0..PAUSES).for_each(|_| spin_loop()),
                Poll::Sleep => {
                    let until = self.deadline(now);
                    if until > now {
                        queue.wait(Some(until.since(now))).context("wait for frames")?;
                    }
                }
            }
        }
        let mut next = clock.now();
        let until = next.plus_micros(FAREWELL_US);
        // A sleep between two bursts would take most of the time for a million of them.
        while !self.farewell(&mut queue) && next < until {
            next = next.plus_micros(FAREWELL_GAP_US).max(clock.now());
            while clock.now() < next {
                spin_loop();
            }
        }
        self.note(&queue);
        Ok(self.book)
    }

    /// Resets what is left, a burst at a time, all of it twice; says whether that was all.
    pub fn farewell(&mut self, queue: &mut Q) -> bool {
        queue.begin();
        let (all, mut sent) = (self.connections.len(), 0);
        while sent < BURST && self.farewell < FAREWELLS * all {
            let at = self.farewell % all;
            if self.connections[at].state != State::Free {
                if !self.send_reset(queue, at as u32) {
                    break;
                }
                if self.farewell + all >= FAREWELLS * all {
                    self.release(at as u32);
                }
                sent += 1;
            }
            self.farewell += 1;
        }
        queue.end();
        self.farewell == FAREWELLS * all
    }

    fn note(&mut self, queue: &Q) {
        let (f, stats) = (self.figures, queue.stats());
        self.book.tally.notes = vec![
            ("frames in", f.frames_in),
            ("frames out", f.frames_out),
            ("retransmitted", f.retransmitted),
            ("out of order", f.out_of_order),
            ("bad checksums", f.bad_checksums),
            ("rx dropped", stats.rx_dropped),
            ("no tx frame", f.no_frame),
            ("kicks", stats.kicks),
        ];
    }

    /// Connection `id` is of no further use.
    fn break_off(&mut self, now: Instant, id: u32, trouble: Trouble, say: impl FnOnce() -> String) {
        if self.is_idle(id) {
            self.book.idle_lost();
        }
        self.release(id);
        self.book.fail(now, id, trouble, say);
        if self.book.stage() >= Stage::Drain {
            return;
        }
        if self.book.plan.fresh && !self.is_idle(id) {
            self.book.free(id);
        } else {
            self.timers.open_later(self.us(now), id);
        }
    }

    /// Forgets a connection.
    fn release(&mut self, id: u32) {
        let idle = self.is_idle(id);
        let connection = &mut self.connections[id as usize];
        match connection.state {
            State::Free => return,
            State::Syn => self.handshaking -= 1,
            State::Open | State::Closing => {
                self.open -= 1;
                self.idle_open -= usize::from(idle);
            }
        }
        self.ports.free(connection.source, connection.port);
        *connection = Connection { flags: connection.flags.queues(), ..Connection::default() };
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
