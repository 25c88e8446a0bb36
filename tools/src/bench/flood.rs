//! A SYN flood from forged sources beside honest clients.
//!
//! Honest clients open a connection for each request, at a fixed rate; the flood sends a multiple of that rate in SYNs from
//! random addresses of 198.18.0.0/15 and random ports. Rounds with and without it take turns. Sender and clients run on the
//! same machine as the server, so the rate is to leave it room: the bar is about what the server turns away, not about the
//! cores that the flood itself takes.

use crate::paced::{Outcome, Paced, drive};
use crate::{machine, median};
use anyhow::{Context, Result, anyhow};
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
    /// Honest requests a second, each over a new connection
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(16..=100_000))]
    rate: u32,
    /// SYNs for each of them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// Seconds of each round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds without and with the flood
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// Address of the flood's own packet socket; nothing is ever sent from or to it.
const SENDER: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const BAR: f64 = 0.9;

/// Measures khamsin's stack, and the kernel's for comparison.
///
/// # Errors
/// The server does not start, or the flood cannot be sent.
pub(crate) fn measure(options: &FloodOptions) -> Result<()> {
    let _ = rustix::process::nice(-15);
    println!(
        "{} honest connections a second, {} SYNs, on {}\n",
        options.rate,
        options.rate * options.times,
        machine::description()
    );
    println!(
        "| server | requests/s without | with | ratio | bar | p99 without, ms | with | SYNs/s sent | rounds | load |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for rung in [Rung::XdpNative, Rung::Packet, Rung::EpollLevel] {
        one_rung(rung, options).with_context(|| format!("flood, {rung}"))?;
    }
    Ok(())
}

fn one_rung(rung: Rung, options: &FloodOptions) -> Result<()> {
    let (bed, pages) = (rung.bed()?, Pages::new()?);
    bed.client().sysctl("net.ipv4.ip_local_port_range", "1024 65000")?;
    // Answers to forged sources have a way to go, for either stack.
    bed.server.ip(&["route", "add", "default", "via", CLIENT_V4])?;
    let more = if rung.has_own_stack() { &["--gateway", CLIENT_V4][..] } else { &[] };
    let _server = Server::with(rung, &bed, pages.path(), more)?;
    let address = SocketAddr::new(rung.v4().parse()?, 80);
    let load = Paced { per_s: options.rate, time: Duration::from_secs(options.seconds), new_connections: true };
    // Both ends know each other before the first round.
    drive(bed.client(), address, Paced { time: Duration::from_millis(300), ..load })?;
    let (mut quiet, mut flooded, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        quiet.push(drive(bed.client(), address, load)?);
        let stop = Arc::new(AtomicBool::new(false));
        let flood = start_flood(&bed, rung, options.rate * options.times, Arc::clone(&stop))?;
        let outcome = drive(bed.client(), address, load);
        stop.store(true, Ordering::Relaxed);
        let rate = flood.join().map_err(|_| anyhow!("the flood panicked"))???;
        flooded.push(outcome?);
        sent.push(rate);
    }
    let of = |outcomes: &[Outcome], figure: fn(&Outcome) -> f64| median(outcomes.iter().map(figure));
    let (without, with) = (of(&quiet, Outcome::rate), of(&flooded, Outcome::rate));
    let p99 = |outcomes: &[Outcome]| of(outcomes, |o| o.latency_us(0.99) / 1e3);
    println!(
        "| {rung} | {without:.0} | {with:.0} | {:.3} | >= {BAR} | {:.2} | {:.2} | {:.0} | {} | {} |",
        with / without,
        p99(&quiet),
        p99(&flooded),
        median(sent.into_iter()),
        options.rounds,
        machine::load()?
    );
    Ok(())
}

type Flooding = std::thread::JoinHandle<Result<Result<f64>>>;

/// Sends `per_s` SYNs a second from inside the client's namespace until told to stop; gives the rate that it reached.
fn start_flood(bed: &Bed, rung: Rung, per_s: u32, stop: Arc<AtomicBool>) -> Result<Flooding> {
    let server_mac = bed.server.enter(|| link::by_name(SERVER_LINK))??.mac;
    let server: Ipv4Addr = rung.v4().parse()?;
    bed.client().spawn(move || {
        let mac = link::by_name(CLIENT_LINK)?.mac;
        let config = af_packet::Config::new(CLIENT_LINK, [IpAddr::from(SENDER)]);
        let mut queue = af_packet::open(&config, 1)?.pop().context("one queue was asked for")?;
        let link = LinkHeader { dst: server_mac, src: mac, vlan: VlanTags::default() };
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
