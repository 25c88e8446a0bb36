//! The command line.

use super::client::Link;
use super::client::open::Device;
use super::crew::{Backend, Job};
use super::plan::{Pace, Plan, Poll, Question, Target};
use clap::{Parser, ValueEnum};
use khamsin_drivers::af_xdp::Mode;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

const ABOUT: &str = "Puts load on an HTTP/1.1 or echo server and says what came of it";

const LONG_ABOUT: &str = "\
Puts load on an HTTP/1.1 or echo server and says what came of it.

Every answer is verified: of HTTP the status and the length (and with --body every byte), of echo every byte. \
Without --rate the loop is closed: each connection asks again when it has its answer, and the server sets the pace. \
With --rate it is open: requests are due at even distances, whatever becomes of them, and latency counts from when a \
request was due, so that a server that stalls cannot hide behind a client that waits for it (coordinated omission); \
the uncorrected figure stands beside it.";

const EXAMPLES: &str = "\
Examples:
  khamsin-load http://198.18.0.2/small                           64 connections, 10 s
  khamsin-load http://198.18.0.2/page --rate 20000 --json out.json
  khamsin-load http://198.18.0.2/small --new-connections         one request a connection
  khamsin-load http://198.18.0.2/big --slow 28800 -c 1000        a thousand modems
  khamsin-load echo://198.18.0.2:7 --size 64 --pipeline 8
  khamsin-load echo://198.18.0.2:7 -c 10 --idle 10000 --wake     10,000 idle connections beside ten
  khamsin-load http://198.18.0.2/small --backend af-xdp --interface veth0 --source 198.18.1.0/26 --poll busy

Exit status: 0 if everything was answered right, 1 if anything failed or nothing was served, 2 for a wrong command line.";

/// Load for an HTTP/1.1 or echo server.
#[derive(Parser, Debug, Clone)]
#[command(name = "khamsin-load", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// http://HOST[:PORT]/PATH or echo://HOST:PORT
    #[arg(value_name = "URL")]
    url: String,

    /// Connections that ask
    #[arg(long, short, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// Requests under way on each connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pipeline: u16,
    /// Requests a second, due at even distances, over all connections
    #[arg(long, value_name = "R", value_parser = positive)]
    rate: Option<f64>,
    /// Each request has a connection of its own
    #[arg(long, conflicts_with_all = ["pipeline", "slow"])]
    new_connections: bool,
    /// Bytes of one echo request
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    size: u32,
    /// Connections held open beside those that ask, without a word
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: usize,
    /// Each idle connection asks once at the end, and must be answered
    #[arg(long, requires = "idle")]
    wake: bool,
    /// Each connection takes its answers no faster than this, as a modem would
    #[arg(long, value_name = "BITS/S", value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    slow: Option<u64>,

    /// The status that is right
    #[arg(long, value_name = "CODE", default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Every body must be what this file holds
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The Host field, where it is not the URL's
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    /// How long to measure, seconds
    #[arg(long, short, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Load before the measurement, seconds
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = seconds)]
    warm_up: f64,
    /// End the measurement after so many answers
    #[arg(long, short = 'n', value_name = "N")]
    requests: Option<u64>,
    /// A handshake, or a pause while an answer is awaited, that takes longer is an error, seconds
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    timeout: f64,
    /// How long opening all connections may take, seconds
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    open_within: f64,
    /// Handshakes under way at once
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    handshakes: u32,

    /// What carries the load
    #[arg(long, value_enum, default_value_t = Carrier::Sockets, help_heading = "Carrier")]
    backend: Carrier,
    /// The interface that frames go through; tap: the name of the device to make [default there: khload0]
    #[arg(long, value_name = "IF", help_heading = "Carrier")]
    interface: Option<String>,
    /// Addresses to ask from, in turn, such as 198.18.0.64/26, 64 at most; sockets: addresses that the kernel owns, all
    /// others: addresses that nobody has
    #[arg(long, value_name = "IP/LEN", help_heading = "Carrier")]
    source: Option<String>,
    /// Router to send everything to, where the server is not on the link
    #[arg(long, value_name = "IP", help_heading = "Carrier")]
    gateway: Option<Ipv4Addr>,
    /// MAC address of the server or router [default: asked for by ARP]
    #[arg(long, value_name = "MAC", value_parser = mac_address, help_heading = "Carrier")]
    mac: Option<[u8; 6]>,
    /// Where the XDP program runs
    #[arg(long, value_enum, default_value_t = XdpMode::Auto, help_heading = "Carrier")]
    xdp_mode: XdpMode,
    /// Receive window of each connection, bytes [default: the system's; frames: 65,535; with --slow 8,192]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=64 << 20), help_heading = "Carrier")]
    window: Option<u32>,
    /// Threads that share the load; frames have one
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Carrier")]
    threads: u16,
    /// How threads wait for answers
    #[arg(long, value_enum, default_value_t = Poll::Sleep, help_heading = "Carrier")]
    poll: Poll,

    /// Write the figures as JSON; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Neither progress nor table: the exit status says it all
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

/// What carries the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Carrier {
    /// Kernel sockets and epoll
    Sockets,
    /// A light TCP client of its own over AF_XDP (IPv4)
    AfXdp,
    /// The same over a ring of packet sockets
    AfPacket,
    /// The same over a TAP, for a server on this host's kernel: the TAP's far side gets the server's address
    Tap,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum XdpMode {
    /// The best place that the interface has
    Auto,
    /// In the driver
    Native,
    /// In the kernel's receive path
    Generic,
}

/// Most connections of one run: numbers have room for more, machines do not.
const CONNECTIONS_MAX: usize = 4_000_000;
/// The longest load, seconds.
const LOAD_MAX_S: f64 = 4200.0;
/// Most addresses to ask from: one XDP program looks for so many.
const SOURCES_MAX: usize = 64;
/// The TAP that is made when no name is given.
const TAP_NAME: &str = "khload0";

fn positive(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if rate > 0.0 && rate <= 1e8 { Ok(rate) } else { Err("a rate lies above 0 and below 100 million".into()) }
}

fn mac_address(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| format!("`{text}` is no MAC address such as 02:00:00:00:00:01"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("a load lasts an hour at most".into()) }
}

impl Cli {
    /// What a program that runs a load itself asks for, in the words of the command line without the program's name.
    ///
    /// # Errors
    /// What would stand on standard error.
    pub fn job_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Job, String> {
        let words = std::iter::once("khamsin-load").chain(words);
        Cli::try_parse_from(words).map_err(|e| e.to_string())?.job()
    }

    /// What the command line asks for.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn job(&self) -> Result<Job, String> {
        let target = self.target()?;
        if self.connections + self.idle == 0 {
            return Err("there is no load without connections: give --connections or --idle more than 0".into());
        }
        if self.connections + self.idle > CONNECTIONS_MAX {
            return Err(format!(
                "{} connections were asked for and {CONNECTIONS_MAX} are the most",
                self.connections + self.idle
            ));
        }
        if self.seconds == 0.0 {
            return Err("a measurement of 0 seconds measures nothing: give --seconds more".into());
        }
        // Every stage at its longest: times are kept in 32 bits, microseconds.
        let openings = self.open_within * if self.wake { 2.0 } else { 1.0 };
        if self.seconds + self.warm_up + openings + 2.0 * self.timeout > LOAD_MAX_S {
            return Err(format!(
                "a load lasts {LOAD_MAX_S} seconds at most, opening, warm-up and timeouts included: give less of them"
            ));
        }
        let sources = self.source.as_deref().map_or(Ok(Vec::new()), addresses)?;
        let all = self.connections + self.idle;
        let plan = Plan {
            target,
            connections: self.connections,
            pipeline: usize::from(self.pipeline),
            pace: self.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
            fresh: self.new_connections,
            idle: self.idle,
            wake: self.wake,
            slow_bits_per_s: self.slow,
            duration: Duration::from_secs_f64(self.seconds),
            warm_up: Duration::from_secs_f64(self.warm_up),
            requests: self.requests,
            handshakes: self.handshakes as usize,
            timeout: Duration::from_secs_f64(self.timeout),
            open_within: Duration::from_secs_f64(self.open_within),
            window: self.window,
            poll: self.poll,
        };
        let threads = usize::from(self.threads).min(all);
        let backend = match self.backend {
            Carrier::Sockets => {
                check_descriptors(all)?;
                Backend::Sockets { sources }
            }
            carrier => {
                if threads > 1 {
                    return Err("frames have one thread: leave out --threads, or use --backend sockets".into());
                }
                self.frames(carrier, &plan.target, &sources)?
            }
        };
        Ok(Job { plan, backend, threads, json: self.json.clone(), quiet: self.quiet })
    }

    /// The backends on a TCP of our own.
    fn frames(&self, carrier: Carrier, target: &Target, sources: &[IpAddr]) -> Result<Backend, String> {
        let IpAddr::V4(server) = target.address.ip() else {
            return Err(format!("{} is IPv6, which only --backend sockets speaks", target.address));
        };
        let sources: Vec<Ipv4Addr> =
            sources.iter().filter_map(|a| if let IpAddr::V4(v4) = a { Some(*v4) } else { None }).collect();
        if sources.is_empty() {
            return Err(
                "frames need IPv4 addresses of their own to come from: give --source, such as 198.18.0.64/26".into()
            );
        }
        if sources.contains(&server) {
            return Err(format!("{server} is the server's address and lies within --source: choose another network"));
        }
        let interface = || {
            self.interface.clone().ok_or_else(|| "frames need an interface to go through: give --interface".to_owned())
        };
        let device = match carrier {
            Carrier::AfPacket => Device::Packet { interface: interface()? },
            Carrier::Tap => {
                Device::Tap { interface: self.interface.clone().unwrap_or_else(|| TAP_NAME.into()), server }
            }
            _ => {
                let mode = match self.xdp_mode {
                    XdpMode::Auto => None,
                    XdpMode::Native => Some(Mode::Native),
                    XdpMode::Generic => Some(Mode::Generic),
                };
                Device::Xdp { interface: interface()?, mode }
            }
        };
        Ok(Backend::Frames { device, link: Link { sources, next_hop: self.gateway.unwrap_or(server), mac: self.mac } })
    }

    fn target(&self) -> Result<Target, String> {
        let wrong = || format!("`{}` is no target: write http://HOST[:PORT]/PATH or echo://HOST:PORT", self.url);
        let (scheme, rest) = self.url.split_once("://").ok_or_else(wrong)?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let address = resolve(authority, (scheme == "http").then_some(80)).ok_or_else(wrong)?;
        let question = match scheme {
            "http" => {
                let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
                let printable = |c: char| c.is_ascii_graphic();
                let host = self.host.clone().unwrap_or_else(|| authority.to_owned());
                if !path.chars().all(printable) || !host.chars().all(printable) {
                    return Err(format!(
                        "`{}` has characters that no request line may have: write them as %XX",
                        self.url
                    ));
                }
                let body = self.body.as_ref().map(|file| {
                    std::fs::read(file).map_err(|e| format!("--body {} cannot be read: {e}", file.display()))
                });
                Question::Get { host, path, status: self.status, body: body.transpose()?.map(Into::into) }
            }
            "echo" if path.is_empty() || path == "/" => Question::Echo { size: self.size as usize },
            _ => return Err(wrong()),
        };
        Ok(Target { address, question })
    }
}

/// An address of HOST[:PORT]; IPv6 in brackets.
fn resolve(authority: &str, default_port: Option<u16>) -> Option<SocketAddr> {
    let text = match (authority.rfind(':'), authority.ends_with(']'), default_port) {
        (Some(_), false, _) => authority.to_owned(),
        (_, _, Some(port)) => format!("{authority}:{port}"),
        _ => return None,
    };
    text.to_socket_addrs().ok()?.next()
}

/// The addresses of IP/LEN, the network's own and its broadcast left out; 64 at most.
fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let wrong = || format!("`{text}` names no addresses: write IP/LEN, such as 198.18.0.64/26");
    let (address, len) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let width = if address.is_ipv4() { 32u32 } else { 128 };
    let len = if len.is_empty() { width } else { len.parse().ok().filter(|l| *l <= width).ok_or_else(wrong)? };
    let count = 1usize << (width - len).min(8);
    let nth = |n: usize| -> Option<IpAddr> {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(width - len).unwrap_or(0);
                let bits = (u32::from(v4) & mask) + n as u32;
                (len >= 31 || !matches!(bits & 0xff, 0 | 0xff)).then(|| IpAddr::V4(bits.into()))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(width - len).unwrap_or(0);
                Some(IpAddr::V6(((u128::from(v6) & mask) + n as u128).into()))
            }
        }
    };
    Ok((0..count).filter_map(nth).take(SOURCES_MAX).collect())
}

/// Whether the process may have so many sockets; asks for as many as it may have.
fn check_descriptors(connections: usize) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A refusal shows in the next line.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = connections as u64 + 64;
    if needed > most {
        return Err(format!(
            "{connections} kernel sockets were asked for and this process may have {most} descriptors: \
             `ulimit -n {needed}`, or --backend af-xdp, whose connections need none"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
