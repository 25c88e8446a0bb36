//! Slow attacks: thousands of connections that send or read a byte now and then, beside clients in a hurry.

use crate::paced::{Outcome, Paced, drive};
use crate::{machine, median};
use anyhow::{Context, Result, anyhow, ensure};
use khamsin_drivers::clock::Clock;
use khamsin_tools::bed::{Bed, CLIENT_LINK};
use khamsin_tools::deadline::wait_for;
use khamsin_tools::pages::Pages;
use khamsin_tools::rung::Rung;
use khamsin_tools::server::Server;
use khamsin_tools::socket::connect_as;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

#[derive(clap::Args, Debug)]
pub(crate) struct SlowOptions {
    /// Attacking connections
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    connections: u32,
    /// Requests a second of the other clients, over connections that they keep
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(16..=100_000))]
    rate: u32,
    /// Seconds of each round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds without and with each attack
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// What the attackers do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Attack {
    /// A request head that never ends.
    Header,
    /// A request body that takes for ever.
    Body,
    /// A long answer, read through a tiny window.
    Read,
}

impl Attack {
    fn name(self) -> &'static str {
        match self {
            Attack::Header => "slow header",
            Attack::Body => "slow body",
            Attack::Read => "slow read",
        }
    }

    fn opening(self) -> &'static [u8] {
        match self {
            Attack::Header => b"GET /small HTTP/1.1\r\nHost: bench\r\nX-Slow: ",
            Attack::Body => b"POST /echo HTTP/1.1\r\nHost: bench\r\nContent-Length: 1000000\r\n\r\n",
            Attack::Read => b"GET /big HTTP/1.1\r\nHost: bench\r\n\r\n",
        }
    }
}

/// Addresses that the attackers come from, so that no limit for one source stands in for the rest.
const SOURCES: u32 = 64;
/// Time in which every attacking connection has its turn once.
const ROTATION: Duration = Duration::from_secs(2);
const BAR: f64 = 2.0;

/// Measures khamsin's stack, and the kernel's for comparison.
///
/// # Errors
/// The server does not start, or the attackers cannot connect.
pub(crate) fn measure(options: &SlowOptions) -> Result<()> {
    let _ = rustix::process::nice(-15);
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    println!(
        "{} attacking connections, {} other requests a second, on {}\n",
        options.connections,
        options.rate,
        machine::description()
    );
    println!(
        "| server | attack | p99 without, ms | with | ratio | bar | p50 without, ms | with | failed | connections held | opened again | rounds | load |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for rung in [Rung::XdpNative, Rung::Packet, Rung::EpollLevel] {
        for attack in [Attack::Header, Attack::Body, Attack::Read] {
            one_attack(rung, attack, options).with_context(|| format!("{}, {rung}", attack.name()))?;
        }
    }
    Ok(())
}

fn one_attack(rung: Rung, attack: Attack, options: &SlowOptions) -> Result<()> {
    let (bed, pages) = (rung.bed()?, Pages::new()?);
    for source in 0..SOURCES {
        bed.client().ip(&["address", "add", &format!("{}/24", source_address(source)), "dev", CLIENT_LINK])?;
    }
    bed.server.sysctl("net.core.somaxconn", "8192")?;
    let _server = Server::with(rung, &bed, pages.path(), &[])?;
    let address = SocketAddr::new(rung.v4().parse()?, 80);
    let load = Paced { per_s: options.rate, time: Duration::from_secs(options.seconds), new_connections: false };
    drive(bed.client(), address, Paced { time: Duration::from_millis(300), ..load })?;
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    let (mut held, mut again) = (u64::MAX, 0);
    for _ in 0..options.rounds {
        quiet.push(drive(bed.client(), address, load)?);
        let attackers = Attackers::start(&bed, address, attack, options.connections)?;
        let outcome = drive(bed.client(), address, load);
        held = held.min(attackers.shared.held.load(Ordering::Relaxed));
        again += attackers.stop()?;
        attacked.push(outcome?);
    }
    let of = |outcomes: &[Outcome], q: f64| median(outcomes.iter().map(|o| o.latency_us(q) / 1e3));
    let (without, with) = (of(&quiet, 0.99), of(&attacked, 0.99));
    println!(
        "| {rung} | {} | {without:.2} | {with:.2} | {:.2} | <= {BAR} | {:.2} | {:.2} | {} | {held} | {again} | {} | {} |",
        attack.name(),
        with / without,
        of(&quiet, 0.5),
        of(&attacked, 0.5),
        attacked.iter().map(|o| o.failed).sum::<u64>(),
        options.rounds,
        machine::load()?
    );
    Ok(())
}

fn source_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 100 + (number % SOURCES) as u8)
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Connections that are open.
    held: AtomicU64,
    /// Connections that the server ended and that were opened again.
    again: AtomicU64,
}

/// A thread that keeps the attacking connections going.
struct Attackers {
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<Result<Result<()>>>,
}

impl Attackers {
    /// Opens all connections and goes on with them.
    fn start(bed: &Bed, server: SocketAddr, attack: Attack, connections: u32) -> Result<Attackers> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = bed.client().spawn(move || keep_going(server, attack, connections, &theirs))?;
        wait_for("all attackers", Duration::from_secs(60), || {
            ensure!(!thread.is_finished(), "the attackers gave up");
            Ok((shared.held.load(Ordering::Relaxed) >= u64::from(connections)).then_some(()))
        })?;
        Ok(Attackers { shared, thread })
    }

    /// Ends them; how many connections had to be opened again.
    fn stop(self) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the attackers panicked"))???;
        Ok(self.shared.again.load(Ordering::Relaxed))
    }
}

fn keep_going(server: SocketAddr, attack: Attack, connections: u32, shared: &Shared) -> Result<()> {
    let mut streams = Vec::with_capacity(connections as usize);
    for number in 0..connections {
        streams.push(Some(open(server, attack, number)?));
        shared.held.fetch_add(1, Ordering::Relaxed);
    }
    let start = Clock.now();
    let mut turns = 0u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let due = Clock.now().micros_since(start) * u64::from(connections) / ROTATION.as_micros() as u64;
        for turn in turns..due.min(turns + 256) {
            let number = (turn % u64::from(connections)) as u32;
            let slot = &mut streams[number as usize];
            if slot.as_mut().is_some_and(|stream| go_on(stream, attack)) {
                continue;
            }
            if slot.take().is_some() {
                shared.held.fetch_sub(1, Ordering::Relaxed);
            }
            *slot = open(server, attack, number).ok();
            if slot.is_some() {
                shared.held.fetch_add(1, Ordering::Relaxed);
                shared.again.fetch_add(1, Ordering::Relaxed);
            }
        }
        turns = due;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn open(server: SocketAddr, attack: Attack, number: u32) -> Result<TcpStream> {
    let own = SocketAddr::new(source_address(number).into(), 0);
    let receive_buffer = (attack == Attack::Read).then_some(2048);
    let mut stream = connect_as(own, server, receive_buffer, Duration::from_secs(2))?;
    stream.write_all(attack.opening())?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// One more byte, one way or the other. False: the server has ended the connection.
fn go_on(stream: &mut TcpStream, attack: Attack) -> bool {
    let lives = |done: std::io::Result<usize>, at_end: bool| match done {
        Ok(n) => n > 0 || !at_end,
        Err(e) => e.kind() == ErrorKind::WouldBlock,
    };
    // What the server says meanwhile, and its end, show when it is read.
    lives(stream.read(&mut [0; 64]), true) && (attack == Attack::Read || lives(stream.write(b"a"), false))
}
