//! A SYN flood from forged sources beside honest clients.
//!
//! Honest clients open a connection for each request and open the next as soon as they have the answer; the flood sends SYNs
//! from random addresses of 198.18.0.0/15 and random ports. Rounds without a flood, with one that goes nowhere, and with one
//! that reaches the server take turns. The server has one core, and clients and flood the other: what the flood takes from the
//! clients by being *made* is what the round with the flood that goes nowhere shows, and the bar is about the rest.

use crate::paced::{Outcome, Paced, drive, stay_on};
use crate::{machine, median};
use anyhow::{Context, Result, anyhow};
use khamsin::output::say;
use khamsin_drivers::af_packet;
use khamsin_drivers::clock::Clock;
use khamsin_drivers::link;
use khamsin_stack::key::FlowKey;
use khamsin_stack::wire::{Flags, LinkHeader, Outgoing, Template, TxChecksum, VlanTags};
use khamsin_stack::{Frame, Queue, TxOffload};
use khamsin_tools::bed::{Bed, CLIENT_LINK, CLIENT_V4, SERVER_LINK};
use khamsin_tools::pages::Pages;
use khamsin_tools::rung::Rung;
use khamsin_tools::server::Server;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(clap::Args, Debug)]
pub(crate) struct FloodOptions {
    /// SYNs a second; those of `--times` beside it
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    syns: u32,
    /// SYNs for each connection that the honest clients open while there is no flood
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// Honest connections a second instead of as many as there can be
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=100_000))]
    rate: Option<u32>,
    /// How khamsin's workers wait: adaptive, busy or sleep. One that spins before everything else on the machine is held up
    /// by the scheduler for a twentieth of each second
    #[arg(long, default_value = "sleep")]
    poll: String,
    /// Seconds of each round
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds of each kind
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// Where a flood goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Aim {
    Server,
    /// Over a link of its own to where nobody listens.
    Nowhere,
}

/// Both ends of the link to nowhere, and an address that neither has.
const SINK_LINKS: (&str, &str) = ("khx0", "khx1");
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// The server's core, and that of clients and flood.
const SERVER_CORE: usize = 1;
const CLIENT_CORE: usize = 0;
/// Address of the flood's own packet socket; nothing is ever sent from or to it.
const SENDER: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const BAR: f64 = 0.9;

/// Measures khamsin's stack, and the kernel's for comparison.
///
/// # Errors
/// The server does not start, or the flood cannot be sent.
pub(crate) fn measure(options: &FloodOptions) -> Result<()> {
    machine::go_first()?;
    let rate = options.rate.map_or("as many honest connections as there can be".to_owned(), |r| {
        format!("{r} honest connections a second")
    });
    say(format_args!(
        "{rate}, server on core {SERVER_CORE}, clients and flood on core {CLIENT_CORE}, {}\n",
        machine::description()
    ))?;
    say(
        "| server | flood | SYNs/s that came out | requests/s without | flood to nowhere | flood | flood / nowhere | bar | flood / without | p99 without, ms | nowhere | flood | failed | rounds | load |",
    )?;
    say("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    for rung in [Rung::XdpNative, Rung::Packet, Rung::EpollLevel] {
        one_rung(rung, options).with_context(|| format!("flood, {rung}"))?;
    }
    Ok(())
}

fn one_rung(rung: Rung, options: &FloodOptions) -> Result<()> {
    let (bed, pages) = (rung.bed()?, Pages::new()?);
    bed.client().sysctl("net.ipv4.ip_local_port_range", "1024 65000")?;
    bed.client().sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    bed.server.sysctl("net.core.somaxconn", "8192")?;
    bed.server.sysctl("net.ipv4.tcp_max_syn_backlog", "8192")?;
    let (sink, end) = SINK_LINKS;
    bed.client().ip(&["link", "add", sink, "type", "veth", "peer", "name", end])?;
    for link in [sink, end] {
        bed.client().ip(&["link", "set", link, "up"])?;
    }
    // Answers to forged sources have a way to go, for either stack.
    bed.server.ip(&["route", "add", "default", "via", CLIENT_V4])?;
    let own = ["--gateway", CLIENT_V4, "--poll", &options.poll];
    let more = if rung.has_own_stack() { &own[..] } else { &[] };
    let server = Server::with(rung, &bed, pages.path(), more)?;
    let pin = ["-a", "-p", "-c", &SERVER_CORE.to_string(), &server.id().to_string()];
    bed.server.run("taskset", &pin, Duration::from_secs(5))?;
    let address = SocketAddr::new(rung.v4().parse()?, 80);
    let time = Duration::from_secs(options.seconds);
    let load = Paced { per_s: options.rate, time, new_connections: true, core: Some(CLIENT_CORE) };
    // Both ends know each other before the first round, and it is known what ten times as much is.
    let first = drive(bed.client(), address, Paced { time: Duration::from_secs(2), ..load })?;
    for syns in [options.syns, (first.rate() * f64::from(options.times)) as u32] {
        let (mut quiet, mut nowhere, mut flooded, mut sent) = (vec![], vec![], vec![], vec![]);
        for _ in 0..options.rounds {
            quiet.push(drive(bed.client(), address, load)?);
            nowhere.push(under_flood(&bed, rung, address, load, syns, Aim::Nowhere)?.0);
            let (outcome, rate) = under_flood(&bed, rung, address, load, syns, Aim::Server)?;
            flooded.push(outcome);
            sent.push(rate);
        }
        let of = |outcomes: &[Outcome], figure: fn(&Outcome) -> f64| median(outcomes.iter().map(figure));
        let [without, idle, with] = [&quiet, &nowhere, &flooded].map(|o| of(o, Outcome::rate));
        let [p99, idle_p99, with_p99] = [&quiet, &nowhere, &flooded].map(|o| of(o, |o| o.latency_us(0.99) / 1e3));
        say(format_args!(
            "| {rung} | {syns} | {:.0} | {without:.0} | {idle:.0} | {with:.0} | {:.3} | >= {BAR} | {:.3} | {p99:.2} | {idle_p99:.2} | {with_p99:.2} | {} | {} | {} |",
            median(sent.into_iter()),
            with / idle,
            with / without,
            flooded.iter().map(|o| o.failed).sum::<u64>(),
            options.rounds,
            machine::load()?
        ))?;
    }
    Ok(())
}

/// One round beside a flood of `syns` a second; with the rate that the flood reached.
fn under_flood(bed: &Bed, rung: Rung, address: SocketAddr, load: Paced, syns: u32, aim: Aim) -> Result<(Outcome, f64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let flood = start_flood(bed, rung, syns, aim, Arc::clone(&stop))?;
    let outcome = drive(bed.client(), address, load);
    stop.store(true, Ordering::Relaxed);
    let rate = flood.join().map_err(|_| anyhow!("the flood panicked"))???;
    Ok((outcome?, rate))
}

type Flooding = std::thread::JoinHandle<Result<Result<f64>>>;

/// Sends `per_s` SYNs a second from inside the client's namespace until told to stop; gives the rate that it reached.
fn start_flood(bed: &Bed, rung: Rung, per_s: u32, aim: Aim, stop: Arc<AtomicBool>) -> Result<Flooding> {
    let server_mac = bed.server.enter(|| link::by_name(SERVER_LINK))??.mac;
    let server: Ipv4Addr = rung.v4().parse()?;
    bed.client().spawn(move || {
        stay_on(Some(CLIENT_CORE))?;
        let (name, dst) = match aim {
            Aim::Server => (CLIENT_LINK, server_mac),
            Aim::Nowhere => (SINK_LINKS.0, NOBODY),
        };
        let mac = link::by_name(name)?.mac;
        let config = af_packet::Config::new(name, [IpAddr::from(SENDER)]);
        let mut queue = af_packet::open(&config, 1)?.pop().context("one queue was asked for")?;
        let link = LinkHeader { dst, src: mac, vlan: VlanTags::default() };
        let start = Clock.now();
        let mut sent = 0u64;
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        while !stop.load(Ordering::Relaxed) {
            let due = Clock.now().micros_since(start) * u64::from(per_s) / 1_000_000;
            queue.begin();
            // A sender that was held up does not make up for it in one burst.
            for _ in sent..due.min(sent + 256) {
                send_syn(&mut queue, &link, server, &mut random);
            }
            queue.end();
            sent = due;
            std::thread::sleep(Duration::from_micros(500));
        }
        let frames = queue.stats().tx_frames;
        Ok(frames as f64 / Clock.now().since(start).as_secs_f64())
    })
}

/// One SYN as Linux would send it, from anywhere in 198.18.0.0/15 but the network of the bed.
fn send_syn(queue: &mut impl Queue, link: &LinkHeader, server: Ipv4Addr, random: &mut u64) {
    const OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let [a, b, c, d, e, f, g, h] = random.to_be_bytes();
    let source = [198, 18 + (a & 1), b.max(1), c];
    let port = 1024 + u16::from_be_bytes([d, e]) % 60_000;
    let Some(mut frame) = queue.alloc_tx() else { return };
    frame.set_len(frame.capacity());
    let template = Template::new(link, &FlowKey::v4(server.octets(), source, 80, port));
    let seq = u32::from_be_bytes([f, g, h, a]);
    let syn = Outgoing { seq, ack: 0, flags: Flags::SYN, window: 64_240, options: &OPTIONS, payload_len: 0 };
    match template.write(frame.bytes_mut(), &syn, TxChecksum::Full) {
        Some(len) => {
            frame.set_len(len);
            queue.tx(frame, TxOffload::NONE);
        }
        None => queue.release(frame),
    }
}
