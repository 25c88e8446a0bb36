//! Slow attacks: thousands of connections that send or read a byte now and then, beside clients in a hurry.
//!
//! Attackers come in over as long as the server gives a request head, so that what it ends it does not end at once, and rounds
//! last longer than that. Whatever it ends is opened again as soon as that shows; how many connections stand is what the
//! attackers' kernel says, once a second all through the measurement.

use crate::paced::{Outcome, Paced, drive};
use crate::{machine, median};
use anyhow::{Context, Result, anyhow, ensure};
use khamsin::output::say;
use khamsin_drivers::clock::Clock;
use khamsin_tools::bed::{Bed, CLIENT_LINK};
use khamsin_tools::deadline::wait_for;
use khamsin_tools::pages::Pages;
use khamsin_tools::rung::Rung;
use khamsin_tools::server::Server;
use khamsin_tools::socket::connect_as;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
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
    /// Seconds of each round; fewer than 11 are over before the first request head is
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Seconds in which the attackers come in
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    coming_in: u64,
    /// How khamsin's workers wait: adaptive, busy or sleep. One that spins before everything else on the machine is held up
    /// by the scheduler for a twentieth of each second
    #[arg(long, default_value = "sleep")]
    poll: String,
    /// Only this attack
    #[arg(long, value_enum)]
    attack: Option<Attack>,
    /// Only the rung of this name
    #[arg(long)]
    rung: Option<String>,
    /// Rounds without and with each attack
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// What the attackers do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
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
    machine::go_first()?;
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    say(format_args!(
        "{} attacking connections, {} other requests a second, on {}\n",
        options.connections,
        options.rate,
        machine::description()
    ))?;
    say(
        "| server | attack | p99 without, ms | with | ratio | bar | p50 without, ms | with | failed | connections held, least | median | opened again | rounds | load |",
    )?;
    say("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    let rungs = [Rung::XdpNative, Rung::Packet, Rung::EpollLevel];
    for rung in rungs.into_iter().filter(|rung| options.rung.as_ref().is_none_or(|name| name == rung.name())) {
        let attacks = [Attack::Header, Attack::Body, Attack::Read];
        for attack in attacks.into_iter().filter(|attack| options.attack.is_none_or(|only| only == *attack)) {
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
    let poll = ["--poll", &options.poll];
    let _server = Server::with(rung, &bed, pages.path(), if rung.has_own_stack() { &poll } else { &[] })?;
    let address = SocketAddr::new(rung.v4().parse()?, 80);
    let time = Duration::from_secs(options.seconds);
    let load = Paced { per_s: Some(options.rate), time, new_connections: false, core: None };
    drive(bed.client(), address, Paced { time: Duration::from_millis(300), ..load })?;
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    let (mut held, mut again) = (Vec::new(), 0);
    for _ in 0..options.rounds {
        quiet.push(drive(bed.client(), address, load)?);
        let attackers = Attackers::start(&bed, address, attack, options)?;
        let census = start_census(&bed, time)?;
        let outcome = drive(bed.client(), address, load);
        held.extend(census.join().map_err(|_| anyhow!("the census panicked"))???);
        again += attackers.stop()?;
        attacked.push(outcome?);
    }
    let of = |outcomes: &[Outcome], q: f64| median(outcomes.iter().map(|o| o.latency_us(q) / 1e3));
    let (without, with) = (of(&quiet, 0.99), of(&attacked, 0.99));
    say(format_args!(
        "| {rung} | {} | {without:.2} | {with:.2} | {:.2} | <= {BAR} | {:.2} | {:.2} | {} | {:.0} | {:.0} | {again} | {} | {} |",
        attack.name(),
        with / without,
        of(&quiet, 0.5),
        of(&attacked, 0.5),
        attacked.iter().map(|o| o.failed).sum::<u64>(),
        held.iter().copied().fold(f64::INFINITY, f64::min),
        median(held.iter().copied()),
        options.rounds,
        machine::load()?
    ))?;
    Ok(())
}

type Census = std::thread::JoinHandle<Result<Result<Vec<f64>>>>;

/// Counts the attackers' connections that stand, once a second for `time`.
fn start_census(bed: &Bed, time: Duration) -> Result<Census> {
    bed.client().spawn(move || {
        machine::stand_back()?;
        let end = Clock.now() + time;
        let mut counts = Vec::new();
        while Clock.now() < end {
            std::thread::sleep(Duration::from_secs(1));
            counts.push(standing(&std::fs::read_to_string("/proc/thread-self/net/tcp")?) as f64);
        }
        Ok(counts)
    })
}

/// Established connections from the attackers' addresses in a table of the kernel's; one that the other side has ended
/// stands no longer.
fn standing(table: &str) -> usize {
    let attackers = |own: &str| {
        let own = u32::from_str_radix(own.get(..8)?, 16).ok()?.swap_bytes();
        Some(own.wrapping_sub(source_address(0).into()) < SOURCES)
    };
    let stands = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        matches!(words[..], [_, own, _, "01"] if attackers(own) == Some(true))
    };
    table.lines().filter(stands).count()
}

fn source_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 100 + (number % SOURCES) as u8)
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Connections that have come in.
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
    fn start(bed: &Bed, server: SocketAddr, attack: Attack, options: &SlowOptions) -> Result<Attackers> {
        let (connections, coming_in) = (options.connections, Duration::from_secs(options.coming_in));
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = bed.client().spawn(move || {
            // What is measured is the server, not how long a client waits behind an attacker that lives on the same machine.
            machine::stand_back()?;
            let mut crowd =
                Crowd { server, attack, streams: Vec::new(), epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? };
            crowd.come_in(connections, coming_in, &theirs)?;
            crowd.go_on(&theirs)
        })?;
        wait_for("all attackers", coming_in + Duration::from_secs(60), || {
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

/// The attacking connections.
struct Crowd {
    server: SocketAddr,
    attack: Attack,
    streams: Vec<Option<TcpStream>>,
    /// Tells of connections that the server has ended.
    epoll: OwnedFd,
}

impl Crowd {
    fn come_in(&mut self, connections: u32, time: Duration, shared: &Shared) -> Result<()> {
        self.streams.resize_with(connections as usize, || None);
        let start = Clock.now();
        for number in 0..connections {
            std::thread::sleep((start + time * number / connections).since(Clock.now()));
            ensure!(self.open(number), "{number} attacking connections are all there can be");
            shared.held.fetch_add(1, Ordering::Relaxed);
            self.open_again(shared)?;
        }
        Ok(())
    }

    /// Each has its turn once in [`ROTATION`], and what was ended is opened again.
    fn go_on(&mut self, shared: &Shared) -> Result<()> {
        let (start, connections) = (Clock.now(), self.streams.len() as u64);
        let mut turns = 0u64;
        while !shared.stop.load(Ordering::Relaxed) {
            let due = Clock.now().micros_since(start) * connections / ROTATION.as_micros() as u64;
            for turn in turns..due.min(turns + 256) {
                let number = (turn % connections) as usize;
                match &mut self.streams[number] {
                    Some(stream) => a_little(stream, self.attack),
                    // It could not be opened when it should.
                    None => drop(self.open(number as u32)),
                }
            }
            turns = due;
            self.open_again(shared)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn open_again(&mut self, shared: &Shared) -> Result<()> {
        let mut ended = Vec::with_capacity(64);
        epoll::wait(&self.epoll, spare_capacity(&mut ended), Some(&Timespec::default()))?;
        for event in ended {
            let number = event.data.u64() as u32;
            self.streams[number as usize] = None;
            self.open(number);
            shared.again.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn open(&mut self, number: u32) -> bool {
        let connect = || -> Result<TcpStream> {
            let own = SocketAddr::new(source_address(number).into(), 0);
            let receive_buffer = (self.attack == Attack::Read).then_some(2048);
            let mut stream = connect_as(own, self.server, receive_buffer, Duration::from_secs(2))?;
            stream.write_all(self.attack.opening())?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number.into());
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::RDHUP)?;
            Ok(stream)
        };
        let slot = &mut self.streams[number as usize];
        *slot = connect().ok();
        slot.is_some()
    }
}

/// One more byte, one way or the other.
fn a_little(stream: &mut TcpStream, attack: Attack) {
    // That there is no room, or nobody left, shows elsewhere.
    let _ = match attack {
        Attack::Read => stream.read(&mut [0; 64]),
        Attack::Header | Attack::Body => stream.write(b"a"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_is_an_attacker_and_established() {
        let line = |own: &str, state: &str| format!("   0: {own}:9C40 020012C6:0050 {state} 00000000:00000000 0 0 1\n");
        let of = |address: Ipv4Addr| format!("{:08X}", u32::from(address).swap_bytes());
        let (first, last) = (of(source_address(0)), of(source_address(SOURCES - 1)));
        assert_eq!(first, "640012C6", "as the kernel writes 198.18.0.100");
        let table =
            ["  sl  local_address rem_address   st\n".to_owned(), line(&first, "01"), line(&last, "01")].concat();
        assert_eq!(standing(&table), 2);
        let others = [line(&first, "08"), line(&first, "06"), line(&of(Ipv4Addr::new(198, 18, 0, 1)), "01")].concat();
        assert_eq!(standing(&others), 0);
    }
}
