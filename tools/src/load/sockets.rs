//! The engine on kernel sockets: edge-triggered epoll, no system call that is not needed.

mod peer;

use super::book::{Book, Stage};
use super::judge::Judge;
use super::plan::Poll;
use super::speech::Speech;
use super::tally::Trouble;
use anyhow::{Context, Result, bail};
use khamsin_drivers::clock::Clock;
use khamsin_stack::Instant;
use peer::{Peer, State};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Bytes read at once.
const SCRATCH: usize = 128 * 1024;
const EVENTS: usize = 512;
/// Between two looks at who has waited for too long.
const SWEEP_US: u64 = 100_000;
/// Before a connection that failed is tried again.
const RETRY_US: u64 = 100_000;
/// Between two readings of a slow connection.
const DRIP_US: u64 = 200_000;

/// One thread's connections.
pub struct Sockets {
    book: Book,
    judge: Judge,
    speech: Arc<Speech>,
    address: SocketAddr,
    sources: Vec<IpAddr>,
    epoll: OwnedFd,
    peers: Vec<Peer>,
    /// Connections to open, and those to open again at a time.
    to_open: VecDeque<u32>,
    retry: VecDeque<(Instant, u32)>,
    /// Slow connections, by when they read next.
    drips: VecDeque<(Instant, u32)>,
    handshaking: usize,
    open: usize,
    idle_open: usize,
    swept_at: Instant,
    scratch: Box<[u8]>,
}

impl Sockets {
    /// An engine for what `book` plans, from these addresses in turn; none: the kernel's choice.
    ///
    /// # Errors
    /// No descriptors, or fewer than the connections need.
    pub fn new(book: Book, sources: Vec<IpAddr>, now: Instant) -> Result<Sockets> {
        let plan = &book.plan;
        let (all, fresh) = (plan.connections_all(), plan.fresh);
        let speech = Arc::new(Speech::new(&plan.target.question, fresh));
        let judge = Judge::new(&plan.target.question, Arc::clone(&speech));
        let mut to_open: VecDeque<u32> = VecDeque::with_capacity(all);
        to_open.extend(plan.connections as u32..all as u32);
        if !fresh {
            to_open.extend(0..plan.connections as u32);
        }
        let address = plan.target.address;
        let mut engine = Sockets {
            judge,
            speech,
            address,
            sources,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll instance")?,
            peers: (0..all).map(|_| Peer::default()).collect(),
            to_open,
            retry: VecDeque::with_capacity(all),
            drips: VecDeque::with_capacity(if plan.slow_bits_per_s.is_some() { all } else { 0 }),
            handshaking: 0,
            open: 0,
            idle_open: 0,
            swept_at: now,
            scratch: vec![0; SCRATCH].into(),
            book,
        };
        if fresh {
            (0..engine.book.plan.connections as u32).for_each(|id| engine.book.free(id));
        }
        Ok(engine)
    }

    /// Carries the load through and gives the book back.
    ///
    /// # Errors
    /// Nobody answers at the target, or epoll fails.
    pub fn run(mut self, clock: Clock) -> Result<Book> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        loop {
            let now = clock.now();
            self.turn(now, &mut events)?;
            let waits = !self.to_open.is_empty() || !self.retry.is_empty() || self.handshaking > 0;
            if self.book.tick(now, !waits, self.open, self.idle_open) == Stage::Over {
                return Ok(self.book);
            }
            let timeout = self.timeout(now);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("wait for the sockets"),
            }
        }
    }

    fn timeout(&self, now: Instant) -> Timespec {
        let can_open = !self.to_open.is_empty() && self.handshaking < self.book.plan.handshakes;
        if self.book.plan.poll == Poll::Busy || can_open {
            return Timespec { tv_sec: 0, tv_nsec: 0 };
        }
        let first = |queue: &VecDeque<(Instant, u32)>| queue.front().map_or(Instant::FAR_FUTURE, |&(at, _)| at);
        let until = self.book.deadline().min(first(&self.retry)).min(first(&self.drips));
        let left = until.since(now).min(Duration::from_micros(SWEEP_US));
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
    }

    fn turn(&mut self, now: Instant, events: &mut Vec<epoll::Event>) -> Result<()> {
        for event in events.drain(..) {
            self.on_event(now, event.data.u64() as u32, event.flags);
        }
        while self.retry.front().is_some_and(|&(at, _)| at <= now) {
            self.to_open.extend(self.retry.pop_front().map(|(_, id)| id));
        }
        while self.handshaking < self.book.plan.handshakes
            && let Some(id) = self.to_open.pop_front()
        {
            self.connect(now, id);
        }
        while self.drips.front().is_some_and(|&(at, _)| at <= now) {
            if let Some((_, id)) = self.drips.pop_front() {
                self.drip(now, id);
            }
        }
        while let Some(id) = self.book.next(now) {
            self.ask(now, id);
        }
        if now.micros_since(self.swept_at) >= SWEEP_US {
            self.swept_at = now;
            self.sweep(now);
            if let Some(sentence) = self.book.hopeless() {
                bail!(sentence);
            }
        }
        Ok(())
    }

    fn is_idle(&self, id: u32) -> bool {
        id as usize >= self.book.plan.connections
    }

    /// One more request on connection `id`; opens it first where every request has its own.
    fn ask(&mut self, now: Instant, id: u32) {
        let len = self.speech.request_len();
        let peer = &mut self.peers[id as usize];
        peer.unsent += len;
        match peer.state {
            State::Closed => self.connect(now, id),
            State::Open => {
                if peer.waits_from.is_none() {
                    peer.waits_from = Some(now);
                }
                self.send(now, id);
            }
            _ => {}
        }
    }

    fn connect(&mut self, now: Instant, id: u32) {
        let source = self.sources.get(id as usize % self.sources.len().max(1)).copied();
        let plan = &self.book.plan;
        let window = plan.window.or(plan.slow_bits_per_s.map(|_| peer::SLOW_WINDOW));
        let (reader, offset) = (self.judge.open(id), self.speech.start(id));
        let peer = &mut self.peers[id as usize];
        let unsent = if self.book.plan.fresh { peer.unsent } else { 0 };
        *peer = Peer { unsent, reader, offset, waits_from: Some(now), since: now, ..Peer::default() };
        match peer.connect(self.address, source, window, &self.epoll, id) {
            Ok(()) => self.handshaking += 1,
            Err(errno) => self.refuse(now, id, errno),
        }
    }

    /// A connection did not come about.
    fn refuse(&mut self, now: Instant, id: u32, errno: Errno) {
        let (address, trouble) = (self.address, Trouble::Connect);
        self.peers[id as usize] = Peer::default();
        self.book.fail(now, id, trouble, || format!("connecting to {address} failed: {errno}"));
        self.open_again(now, id);
    }

    /// Another connection takes the place of `id`, if that still makes sense.
    fn open_again(&mut self, now: Instant, id: u32) {
        if self.book.stage() >= Stage::Drain {
            return;
        }
        if self.book.plan.fresh && !self.is_idle(id) {
            self.book.free(id);
        } else {
            self.retry.push_back((now.plus_micros(RETRY_US), id));
        }
    }

    fn on_event(&mut self, now: Instant, id: u32, flags: epoll::EventFlags) {
        if self.peers[id as usize].state == State::Connecting {
            if let Err(errno) = self.peers[id as usize].connected() {
                self.handshaking -= 1;
                return self.refuse(now, id, errno);
            }
            if !flags.contains(epoll::EventFlags::OUT) {
                return;
            }
            self.on_open(now, id);
        }
        let readable =
            epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if flags.intersects(readable) && self.book.plan.slow_bits_per_s.is_none() {
            let ends = flags.intersects(readable & !epoll::EventFlags::IN);
            self.receive(now, id, usize::MAX, ends);
        }
        if flags.contains(epoll::EventFlags::OUT) && self.peers[id as usize].unsent > 0 {
            self.send(now, id);
        }
    }

    fn on_open(&mut self, now: Instant, id: u32) {
        self.handshaking -= 1;
        self.open += 1;
        let idle = self.is_idle(id);
        self.idle_open += usize::from(idle);
        let peer = &mut self.peers[id as usize];
        peer.state = State::Open;
        peer.waits_from = (peer.unsent > 0).then_some(now);
        self.book.opened(now, peer.since);
        if !self.book.plan.fresh || idle {
            self.book.free(id);
        }
        if self.book.plan.slow_bits_per_s.is_some() {
            self.drips.push_back((now.plus_micros(DRIP_US), id));
        }
    }

    /// Reads until there is no more, or `limit` bytes; `ends`: the server has ended its stream or reset it.
    fn receive(&mut self, now: Instant, id: u32, limit: usize, ends: bool) {
        let mut left = limit;
        while left > 0 {
            let peer = &mut self.peers[id as usize];
            let Some(socket) = &peer.socket else { return };
            let room = left.min(SCRATCH);
            match rustix::io::read(socket, &mut self.scratch[..room]) {
                Ok(0) => return self.on_end(now, id),
                Ok(n) => {
                    left -= n;
                    if !self.on_bytes(now, id, n) || (n < room && !ends) {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(errno) => return self.on_broken(now, id, errno),
            }
        }
    }

    /// Judges `n` bytes and asks again; says whether the connection lives on.
    fn on_bytes(&mut self, now: Instant, id: u32, n: usize) -> bool {
        self.book.received(n);
        let asked = self.book.asked(id);
        let peer = &mut self.peers[id as usize];
        peer.taken += n as u64;
        match self.judge.take(id, &mut peer.reader, &self.scratch[..n], asked) {
            Ok(ended) => {
                self.on_answers(now, id, ended);
                true
            }
            Err(fault) => {
                self.break_off(now, id, fault.into(), || fault.to_string());
                false
            }
        }
    }

    fn on_answers(&mut self, now: Instant, id: u32, ended: usize) {
        let (mut again, last) = (0, self.peers[id as usize].reader.is_last());
        for n in 1..=ended {
            if last && n == ended {
                self.book.answered_last(now, id);
            } else {
                again += usize::from(self.book.answered(now, id));
            }
        }
        let waits = self.book.asked(id) > 0;
        let peer = &mut self.peers[id as usize];
        peer.waits_from = waits.then_some(now);
        if again > 0 {
            peer.unsent += again * self.speech.request_len();
            self.send(now, id);
        } else if ended > 0 && !self.is_idle(id) && (last || self.book.plan.fresh) {
            // An HTTP server ends the connection by itself, and so keeps TIME-WAIT.
            self.peers[id as usize].finish(now, !last);
        }
    }

    fn send(&mut self, now: Instant, id: u32) {
        let peer = &mut self.peers[id as usize];
        let Some(socket) = &peer.socket else { return };
        while peer.unsent > 0 {
            let bytes = self.speech.at(peer.offset, peer.unsent);
            let asked = bytes.len();
            match rustix::net::send(socket, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(n) => {
                    peer.offset = self.speech.advance(peer.offset, n);
                    peer.unsent -= n;
                    if n < asked {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(errno) => return self.on_broken(now, id, errno),
            }
        }
    }

    fn on_broken(&mut self, now: Instant, id: u32, errno: Errno) {
        self.break_off(now, id, Trouble::Reset, || format!("the server broke a connection: {errno}"));
    }

    /// The server has ended its stream.
    fn on_end(&mut self, now: Instant, id: u32) {
        let ended = self.judge.end(&mut self.peers[id as usize].reader);
        if ended == Ok(1) && self.book.asked(id) > 0 {
            self.book.answered_last(now, id);
        }
        if ended.is_err() || self.book.asked(id) > 0 || self.is_idle(id) {
            let sentence = || "the server ended a connection before everything was answered".into();
            return self.break_off(now, id, Trouble::Reset, sentence);
        }
        self.book.closed(id);
        self.close(id);
        if self.book.plan.fresh {
            self.book.free(id);
        } else if self.book.stage() < Stage::Drain {
            self.to_open.push_back(id);
        }
    }

    fn break_off(&mut self, now: Instant, id: u32, trouble: Trouble, say: impl FnOnce() -> String) {
        if self.is_idle(id) {
            self.book.idle_lost();
        }
        self.close(id);
        self.book.fail(now, id, trouble, say);
        self.open_again(now, id);
    }

    fn close(&mut self, id: u32) {
        let idle = self.is_idle(id);
        let peer = core::mem::take(&mut self.peers[id as usize]);
        match peer.state {
            State::Connecting => self.handshaking -= 1,
            State::Closed => {}
            State::Open | State::Finishing => {
                self.open -= 1;
                self.idle_open -= usize::from(idle);
            }
        }
    }

    /// Whoever has waited for too long has waited in vain.
    fn sweep(&mut self, now: Instant) {
        for id in 0..self.peers.len() as u32 {
            let peer = &self.peers[id as usize];
            let Some(from) = peer.waits_from.filter(|from| now.since(*from) >= self.book.plan.timeout) else {
                continue;
            };
            let waited = now.since(from);
            match peer.state {
                State::Connecting => {
                    self.close(id);
                    self.refuse(now, id, Errno::TIMEDOUT);
                }
                _ => self.break_off(now, id, Trouble::Timeout, || format!("nothing came for {waited:?}")),
            }
        }
    }

    /// A slow connection takes what it may by now.
    fn drip(&mut self, now: Instant, id: u32) {
        let Some(bits) = self.book.plan.slow_bits_per_s else { return };
        let peer = &self.peers[id as usize];
        if !matches!(peer.state, State::Open | State::Finishing) {
            return;
        }
        let may = now.micros_since(peer.since) * bits / 8_000_000;
        self.receive(now, id, may.saturating_sub(peer.taken) as usize, false);
        if matches!(self.peers[id as usize].state, State::Open | State::Finishing) {
            self.drips.push_back((now.plus_micros(DRIP_US), id));
        }
    }
}
