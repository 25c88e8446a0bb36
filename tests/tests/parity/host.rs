//! The server's side over the kernel: a thread in the server's namespace that turns one shard, or one epoll host.

use crate::apps::{Recorded, listeners, recorded};
use crate::recording::Record;
use anyhow::{Context, Result, bail};
use khamsin::http::Site;
use khamsin_drivers::clock::Clock;
use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::epoll::{self, Trigger};
use khamsin_drivers::{af_packet, af_xdp, tap};
use khamsin_stack::limits::Limits;
use khamsin_stack::shard::{Shard, ShardConfig};
use khamsin_stack::wire::Addresses;
use khamsin_stack::{Instant, Queue};
use khamsin_tests::bed::{Bed, CLIENT_V4, KERNEL_V4, SERVER_LINK, STACK_V4};
use khamsin_tests::deadline::wait_for;
use khamsin_tests::rung::Rung;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the test and the server's thread share.
#[derive(Default)]
struct Shared {
    ready: AtomicBool,
    stop: AtomicBool,
    closed: AtomicUsize,
}

/// A server in its thread.
pub(crate) struct Hosted {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Result<Vec<Record>>>>>,
    /// The address it serves.
    pub(crate) address: IpAddr,
}

/// Longest sleep, so that the word to stop is heard.
const SLEEP_MAX: Duration = Duration::from_millis(20);
const CONNECTIONS: usize = 64;
/// Shorter than the pauses of a client, so that waking is in every conversation, microseconds.
const PARK_AFTER_US: u64 = 40;

impl Hosted {
    /// Starts a server on `rung`.
    ///
    /// # Errors
    /// The driver cannot be opened.
    pub(crate) fn start(rung: Rung, bed: &Bed, site: Site) -> Result<Hosted> {
        let address = if rung.has_own_stack() { STACK_V4 } else { KERNEL_V4 }.parse()?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = bed.server.spawn(move || serve(rung, address, site, &theirs))?;
        let mut hosted = Hosted { shared, thread: Some(thread), address };
        let ready = wait_for("the driver", Duration::from_secs(20), || {
            let over = hosted.thread.as_ref().is_none_or(JoinHandle::is_finished);
            Ok((over || hosted.shared.ready.load(Ordering::Acquire)).then_some(over))
        })?;
        if ready {
            hosted.finish()?;
            bail!("the server's thread ended at once");
        }
        Ok(hosted)
    }

    /// Waits until the application has been told the end of `count` connections.
    ///
    /// # Errors
    /// It has not in time: a host that forgets `closed`.
    pub(crate) fn await_closed(&self, count: usize) -> Result<()> {
        wait_for("`closed` of the last connection", Duration::from_secs(10), || {
            Ok((self.shared.closed.load(Ordering::Acquire) >= count).then_some(()))
        })
    }

    /// Ends the thread; what the application saw.
    ///
    /// # Errors
    /// The driver failed.
    pub(crate) fn finish(&mut self) -> Result<Vec<Record>> {
        self.shared.stop.store(true, Ordering::Release);
        match self.thread.take().context("finished already")?.join() {
            Ok(done) => done?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(rung: Rung, address: IpAddr, site: Site, shared: &Shared) -> Result<Vec<Record>> {
    let app = recorded(site);
    match rung {
        Rung::EpollLevel => serve_sockets(Trigger::Level, address, app, shared),
        Rung::EpollEdge => serve_sockets(Trigger::Edge, address, app, shared),
        Rung::Packet => {
            let queues = af_packet::open(&af_packet::Config::new(SERVER_LINK, [address]), 1)?;
            serve_frames(only(queues)?, address, app, shared)
        }
        Rung::Tap => {
            let config = tap::Config { host: vec![(CLIENT_V4.parse()?, 24)], ..tap::Config::default() };
            serve_frames(only(tap::open(&config)?)?, address, app, shared)
        }
        Rung::XdpNative => serve_xdp(af_xdp::Mode::Native, address, app, shared),
        Rung::XdpGeneric => serve_xdp(af_xdp::Mode::Generic, address, app, shared),
    }
}

fn only<Q>(queues: Vec<Q>) -> Result<Q> {
    queues.into_iter().next().context("a driver without a queue")
}

fn serve_xdp(mode: af_xdp::Mode, address: IpAddr, app: Recorded, shared: &Shared) -> Result<Vec<Record>> {
    let steering = af_xdp::Steering::Own { addresses: vec![address] };
    let config = af_xdp::Config { interface: SERVER_LINK.to_owned(), mode, steering, ..af_xdp::Config::default() };
    let (queues, attachment) = af_xdp::open(&config)?;
    let records = serve_frames(only(queues)?, address, app, shared);
    drop(attachment);
    records
}

fn serve_sockets(trigger: Trigger, address: IpAddr, mut app: Recorded, shared: &Shared) -> Result<Vec<Record>> {
    let listeners = listeners().into_iter().map(|l| (SocketAddr::new(address, l.port), l)).collect();
    let config = epoll::Config {
        listeners,
        trigger,
        connections: CONNECTIONS,
        per_source: 0,
        congestion: None,
        reuse_port: false,
    };
    let mut host = epoll::Host::open(&config, Doorbell::new()?)?;
    shared.ready.store(true, Ordering::Release);
    while !shared.stop.load(Ordering::Acquire) {
        host.wait(Some(sleep_until(host.deadline())))?;
        host.turn(Clock.now(), &mut app);
        shared.closed.store(app.closed(), Ordering::Release);
    }
    Ok(app.into_records())
}

fn serve_frames<Q: Queue>(mut queue: Q, address: IpAddr, mut app: Recorded, shared: &Shared) -> Result<Vec<Record>> {
    let config = shard_config(address);
    let mut shard = Shard::new(config, queue.caps());
    shared.ready.store(true, Ordering::Release);
    while !shared.stop.load(Ordering::Acquire) {
        let turn = shard.turn(Clock.now(), &mut queue, &mut app);
        shared.closed.store(app.closed(), Ordering::Release);
        if !turn.busy {
            queue.wait(Some(sleep_until(turn.deadline)))?;
        }
    }
    Ok(app.into_records())
}

/// The one address, and as much as a few connections need.
pub(crate) fn shard_config(address: IpAddr) -> ShardConfig {
    ShardConfig {
        listeners: listeners(),
        addresses: Addresses::Own(vec![(address, 24)]),
        gateways: Vec::new(),
        limits: Limits { park_after_us: Some(PARK_AFTER_US), ..Limits::with_parking(CONNECTIONS) },
        secret: [7; 32],
        strays: None,
    }
}

fn sleep_until(deadline: Option<Instant>) -> Duration {
    deadline.map_or(SLEEP_MAX, |d| d.since(Clock.now()).min(SLEEP_MAX))
}
