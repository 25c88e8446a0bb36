//! One worker's loop over kernel sockets.

use super::link::{Call, Link, Shared};
use super::listen::{self, Port, Reserve};
use super::outbox::OutboxPool;
use super::{Config, OpenError, Trigger};
use crate::doorbell::Doorbell;
use khamsin_stack::limits::Limits;
use khamsin_stack::sources::Sources;
use khamsin_stack::wheel::Wheel;
use khamsin_stack::{App, CloseReason, Counters, Instant};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

mod accept;
mod visit;

/// Events that one system call brings at most.
const BATCH: usize = 256;
/// Longest sleep; a longer wish wakes up once in between.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// Names the doorbell among events, in the half where connections have their index.
const DOORBELL: u32 = u32::MAX;
/// Names a listener among events; its number is in the other half.
const LISTENER: u32 = u32::MAX - 1;

/// A key that nobody else knows.
fn random_key() -> Result<[u8; 16], Errno> {
    let mut key = [0; 16];
    // As few bytes as this come whole.
    getrandom(&mut key, GetRandomFlags::empty())?;
    Ok(key)
}

/// Names one life of one slot, so that an event for a connection that is gone finds nobody.
#[derive(Clone, Copy)]
struct Ticket {
    index: u32,
    generation: u32,
}

impl Ticket {
    fn data(self) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | u64::from(self.index))
    }

    fn of(data: EventData) -> Self {
        Ticket { index: data.u64() as u32, generation: (data.u64() >> 32) as u32 }
    }
}

struct Connection<S> {
    link: Link,
    session: S,
    source: [u8; 16],
}

struct Slot<S> {
    generation: u32,
    connection: Option<Connection<S>>,
}

/// Hosts one application, or several behind one type, over kernel sockets on one thread.
pub struct Host<A: App> {
    epoll: OwnedFd,
    trigger: Trigger,
    events: Vec<Event>,
    doorbell: Doorbell,
    ports: Vec<Port>,
    reserve: Reserve,
    draining: bool,
    /// Set while the kernel could not give us connections: when to ask again.
    accept_again_at: Option<Instant>,
    slots: Vec<Slot<A::Session>>,
    free: Vec<u32>,
    live: usize,
    live_max: usize,
    per_source: u32,
    /// Only where the number of one source's connections is limited.
    live_by: Option<Sources>,
    shared: Shared,
    /// Connections that go on in the next turn without an event.
    queued: Vec<Ticket>,
    /// The list being worked on; kept for its memory.
    spare: Vec<Ticket>,
    /// Connections that wait for blocks of the pool.
    starved: Vec<Ticket>,
}

impl<A: App> Host<A> {
    /// Listens as `config` says. `doorbell` ends a [`wait`](Self::wait).
    ///
    /// # Errors
    /// An address cannot be listened on, or the process has no descriptor left.
    pub fn open(config: &Config, doorbell: Doorbell) -> Result<Self, OpenError> {
        let failed = |step| move |e: Errno| OpenError::Epoll { step, source: e.into() };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed("epoll_create1"))?;
        let data = Ticket { index: DOORBELL, generation: 0 }.data();
        epoll::add(&epoll, &doorbell, data, EventFlags::IN).map_err(failed("epoll_ctl"))?;
        let ports = listen::open(config)?;
        let limits = Limits::for_connections(config.connections);
        let shared = Shared::new(
            OutboxPool::new(limits.store_blocks.max(2 * limits.connections)),
            Wheel::new(limits.connections),
        );
        let live_by = (config.per_source > 0)
            .then(|| random_key().map(|key| Sources::new(limits.connections, &key)))
            .transpose()
            .map_err(failed("getrandom"))?;
        let host = Host {
            epoll,
            trigger: config.trigger,
            events: Vec::with_capacity(BATCH),
            doorbell,
            ports,
            reserve: Reserve::new(),
            draining: false,
            accept_again_at: None,
            slots: Vec::with_capacity(limits.connections),
            free: Vec::new(),
            live: 0,
            live_max: limits.connections,
            per_source: config.per_source.min(u32::MAX as usize) as u32,
            live_by,
            shared,
            queued: Vec::new(),
            spare: Vec::new(),
            starved: Vec::new(),
        };
        for (number, port) in host.ports.iter().enumerate() {
            epoll::add(&host.epoll, &port.fd, port_data(number), host.port_interest()).map_err(failed("epoll_ctl"))?;
        }
        Ok(host)
    }

    /// Sleeps until something happens, the doorbell rings, or `timeout` is over (`None`: no limit). Returns at once when
    /// an earlier turn left work. What has happened is dealt with in [`turn`](Self::turn).
    ///
    /// # Errors
    /// The kernel does not know our epoll instance any more: a defect, and nothing will come of this host.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout =
            if self.has_more_to_do() { Duration::ZERO } else { timeout.map_or(SLEEP_MAX, |t| t.min(SLEEP_MAX)) };
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Deals with what the last [`wait`](Self::wait) brought, with what earlier turns left, and with deadlines up to
    /// `now`. Returns how many events and callbacks there were to deal with; 0 is an idle turn.
    pub fn turn(&mut self, now: Instant, app: &mut A) -> usize {
        let mut work = self.go_on(now, app);
        let events = std::mem::take(&mut self.events);
        work += events.len();
        for event in &events {
            let ticket = Ticket::of(event.data);
            match ticket.index {
                DOORBELL => drop(self.doorbell.answer()),
                LISTENER => self.accept(now, app, ticket.generation as usize),
                _ => self.on_event(now, app, ticket, event.flags),
            }
        }
        self.events = events;
        self.events.clear();
        work += self.expire(now, app);
        self.feed_starved(now, app);
        work
    }

    /// When [`turn`](Self::turn) wants to be called even if nothing happens. It may change with every turn.
    pub fn deadline(&self) -> Option<Instant> {
        if self.has_more_to_do() {
            return Some(Instant::ZERO);
        }
        match (self.shared.wheel.next_deadline(), self.accept_again_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Stops accepting: takes the connections that the kernel has completed for us already, closes the listeners, tells
    /// the application, and calls `ready` for every connection. A second call does nothing.
    pub fn drain(&mut self, now: Instant, app: &mut A) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        for number in 0..self.ports.len() {
            self.accept(now, app, number);
        }
        self.ports.clear();
        self.accept_again_at = None;
        // An application that panics here has each of its connections to answer for itself.
        let _ = catch_unwind(AssertUnwindSafe(|| app.draining()));
        for index in 0..self.slots.len() as u32 {
            self.visit(now, app, index, Call::Ready);
        }
    }

    /// Resets every connection.
    pub fn abort_all(&mut self, app: &mut A, reason: CloseReason) {
        for index in 0..self.slots.len() as u32 {
            self.close(app, index, reason);
        }
    }

    /// Open connections.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Running totals. Those that count frames, segments or handshakes stay 0: the kernel has them.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Where this host listens, in the order of [`Config::listeners`]. Empty once it drains.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|port| port.address).collect()
    }

    fn has_more_to_do(&self) -> bool {
        !self.queued.is_empty() || self.ports.iter().any(|port| port.unfinished)
    }

    fn port_interest(&self) -> EventFlags {
        match self.trigger {
            Trigger::Level => EventFlags::IN,
            Trigger::Edge => EventFlags::IN | EventFlags::ET,
        }
    }

    fn connection(&mut self, ticket: Ticket) -> Option<&mut Connection<A::Session>> {
        let slot = self.slots.get_mut(ticket.index as usize)?;
        if slot.generation != ticket.generation {
            return None;
        }
        slot.connection.as_mut()
    }
}

fn port_data(number: usize) -> EventData {
    Ticket { index: LISTENER, generation: number as u32 }.data()
}
