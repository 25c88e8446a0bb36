//! The command line.

use super::list::list;
use super::live::{self, Wire};
use super::mapping::Sides;
use super::reader::Bounds;
use super::report::report;
use super::server::Against;
use super::stats::Stats;
use super::trace::Trace;
use super::world::{Order, Plans, Shot, replay};
use anyhow::{Result, anyhow, bail};
use clap::{Parser, Subcommand};
use khamsin::http::{Loader, SiteConfig};
use khamsin::output::{self, note, say};
use khamsin_drivers::capture::create;
use khamsin_drivers::capture::pcapng::{About, Packet, Pcapng};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ABOUT: &str = "Replays the clients of a recorded trace against khamsin's TCP stack";

const LONG_ABOUT: &str = "\
Replays the clients of a recorded trace against khamsin's TCP stack, in virtual time.

Reads pcap and pcapng files. Each packet of a client goes to the stack as it was recorded, numbers translated, when what \
it acknowledges has come; the server says what the recorded server said, when it has read what that had read. The report \
says what was accepted and answered, and where and why that differs from the recording. With --app echo or http, text that \
is another than the recorded is a difference too: what khamsin recorded with --capture replays to the same bytes. \
Segments that the stack sends again because an acknowledgement was recorded later than its timers wait are told, and are \
no difference: a server that was busy finds both at once, and sends nothing again.";

const EXAMPLES: &str = "\
Examples:
  khamsin-replay trace.pcap --list                     the TCP flows of a trace
  khamsin-replay trace.pcap                            all of them against the stack
  khamsin-replay trace.pcap --strict --fast            exit status 1 if anything is answered otherwise
  khamsin-replay trace.pcap --app http --flows 100     a hundred copies of each against the web server
  khamsin-replay trace.pcap --write new.pcapng         the new conversation, for Wireshark
  tcpdump -c 1000 -w - tcp | khamsin-replay -          what tcpdump records, when it ends
  khamsin-replay trace.pcap --live --interface veth0 --server 198.18.0.2:80 --source 198.18.1.0/24 --loop 10
  khamsin-replay stats trace.pcap --out pictures       its flows as SVG

Exit status: 0, 1 if the trace is damaged or, with --strict, something was answered otherwise, 2 for a wrong command line.";

/// Replays recorded clients.
#[derive(Parser, Debug, Clone)]
#[command(name = "khamsin-replay", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// A pcap or pcapng file; `-`: standard input
    #[arg(value_name = "TRACE", required = true)]
    trace: Option<PathBuf>,

    /// Show the flows of the trace, and replay nothing
    #[arg(long, conflicts_with_all = ["app", "fast", "speed", "flows", "rounds", "strict"])]
    list: bool,

    /// Who answers the clients
    #[arg(long, value_enum, default_value_t = Against::Scripted)]
    app: Against,
    /// The folder that --app http serves [default: the page that khamsin serves without files]
    #[arg(long, value_name = "DIR", requires = "app", conflicts_with_all = ["list", "live"])]
    root: Option<PathBuf>,
    /// Leave out the recorded pauses
    #[arg(long, conflicts_with = "speed")]
    fast: bool,
    /// Divide the recorded pauses by this
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Copies of each flow, all at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    flows: u32,
    /// Times that the trace is replayed, one after the other
    #[arg(long = "loop", id = "rounds", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rounds: u32,
    /// Only the flow of this number in --list
    #[arg(long, value_name = "NUMBER")]
    only: Option<usize>,
    /// Exit with 1 if the stack answers anything otherwise than the recorded server did
    #[arg(long)]
    strict: bool,
    /// Write the new conversation as pcapng; `-`: to standard output, and the report to standard error
    #[arg(long, value_name = "OUT.pcapng", conflicts_with = "list")]
    write: Option<PathBuf>,

    /// Play the clients on a wire, against the servers that are there
    #[arg(long, requires_all = ["interface", "server", "source"], conflicts_with_all = ["list", "write", "app"])]
    live: bool,
    /// The interface that frames go through
    #[arg(long, value_name = "IF", requires = "live", help_heading = "Live")]
    interface: Option<String>,
    /// The server, with a port if all flows are to go to that one; once for IPv4 and once for IPv6
    #[arg(long, value_name = "IP[:PORT]", requires = "live", value_parser = end, help_heading = "Live")]
    server: Vec<(IpAddr, Option<u16>)>,
    /// Addresses of the clients, which nobody may have, such as 198.18.0.64/26; once for IPv4 and once for IPv6
    #[arg(long, value_name = "IP/LEN", requires = "live", value_parser = range, help_heading = "Live")]
    source: Vec<Range>,
    /// MAC address of the server or router [default: asked for by ARP and neighbour discovery]
    #[arg(long, value_name = "MAC", requires = "live", value_parser = mac, help_heading = "Live")]
    mac: Option<[u8; 6]>,
    /// Longest that it may take, seconds
    #[arg(long, value_name = "S", default_value_t = 60, requires = "live", value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = "Live")]
    seconds: u64,
}

/// An address, or one with a port; IPv6 with a port stands in brackets.
fn end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let with_port = text.parse().map(|end: SocketAddr| (end.ip(), Some(end.port())));
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    with_port.or_else(|_| bare.parse().map(|ip| (ip, None))).map_err(|_| {
        "must be an IP address such as 198.18.0.2 or fd00::2, or one with a port such as 198.18.0.2:80 or [fd00::2]:80".to_owned()
    })
}

/// The first of some addresses, and how many there are.
type Range = (IpAddr, u32);

fn range(text: &str) -> Result<Range, String> {
    let wrong = || "must be a range such as 198.18.0.64/26, from /15 on, or fd00::1:0/112".to_owned();
    let (ip, len) = text.split_once('/').ok_or_else(wrong)?;
    let (ip, len): (IpAddr, u32) = (ip.parse().map_err(|_| wrong())?, len.parse().map_err(|_| wrong())?);
    // The first address of a network is nobody's or every router's, and the last of an IPv4 one is everybody's.
    match (ip, len) {
        (IpAddr::V4(ip), 15..=30) => {
            let first = Ipv4Addr::from((u32::from(ip) & (u32::MAX << (32 - len))) + 1);
            Ok((first.into(), (1 << (32 - len)) - 2))
        }
        (_, 31 | 32) if ip.is_ipv4() => Ok((ip, 1)),
        (IpAddr::V6(ip), 8..=126) => {
            let first = Ipv6Addr::from((u128::from(ip) & (u128::MAX << (128 - len))) + 1);
            Ok((first.into(), ((1_u128 << (128 - len)) - 1).min(SOURCES_MAX) as u32))
        }
        (IpAddr::V6(_), 127 | 128) => Ok((ip, 1)),
        _ => Err(wrong()),
    }
}

/// Addresses of clients that are used at most: as many as an IPv4 range may have.
const SOURCES_MAX: u128 = 1 << 17;

fn mac(text: &str) -> Result<[u8; 6], String> {
    live::parse_mac(text).map_err(|error| error.to_string())
}

#[derive(Subcommand, Debug, Clone)]
enum Command {
    /// Draw throughput, round trip, windows and sequence of each flow over time, as SVG
    Stats(Stats),
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let sane = (0.001..=1e6).contains(&speed);
    sane.then_some(speed).ok_or_else(|| "must be between 0.001 and 1,000,000".to_owned())
}

/// Standard input as a trace, and standard output for the conversation.
const DASH: &str = "-";

/// Bytes of a conversation that are kept until it is written: twice what is read of a trace.
const SHOTS_MAX: usize = 2 << 30;

/// Where the conversation goes.
enum Destination<'a> {
    Stdout,
    File(&'a Path, File),
}

impl<'a> Destination<'a> {
    fn open(out: &'a Path, trace: &Path) -> Result<Self> {
        if out == Path::new(DASH) {
            return Ok(Destination::Stdout);
        }
        let stdin = Path::new("/dev/stdin");
        if is_same(out, if trace == Path::new(DASH) { stdin } else { trace }) {
            bail!("--write {} would overwrite the trace that is replayed; name another file", out.display());
        }
        Ok(Destination::File(out, create(out).map_err(|error| unwritable(out, &error))?))
    }

    fn write(self, trace: &Path, shots: &[Shot]) -> Result<()> {
        match self {
            Destination::Stdout => Ok(output::with(|out| pcapng(out, trace, shots))?),
            Destination::File(path, file) => pcapng(file, trace, shots).map_err(|error| unwritable(path, &error)),
        }
    }
}

/// Why it cannot be written, and what to do.
pub(super) fn unwritable(path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!(
        "{} cannot be written: {error}; make room there, or name another place, where this user may write",
        path.display()
    )
}

/// The conversation as a pcapng file.
fn pcapng(out: impl Write, trace: &Path, shots: &[Shot]) -> io::Result<()> {
    let comment = format!("{} replayed against khamsin's stack in virtual time", trace.display());
    let about = About {
        program: concat!("khamsin-replay ", env!("CARGO_PKG_VERSION")),
        comment: Some(&comment),
        interface: "khamsin-replay",
        workers: &["the server's side".to_owned()],
        filter: None,
    };
    let mut file = Pcapng::new(BufWriter::new(out), &about)?;
    for shot in shots {
        let (received, bytes) = (!shot.from_stack, Cow::Borrowed(&*shot.bytes));
        file.packet(&Packet { received, stamp_ns: shot.at_ns, bytes, ..Packet::default() })?;
    }
    file.flush()
}

/// Whether both name one file, links included.
fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|m| (m.dev(), m.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

impl Cli {
    /// Does what it says; whether all is as it should be.
    ///
    /// # Errors
    /// The trace cannot be used.
    pub fn run(&self) -> Result<bool> {
        if let Some(Command::Stats(stats)) = &self.command {
            return stats.run();
        }
        let path = self.trace.as_deref().unwrap_or(Path::new(DASH));
        let trace = Trace::read(path, &Bounds::default())?;
        for trouble in trace.troubles() {
            note(format_args!("khamsin-replay: {}: {trouble}", path.display()));
        }
        let sound = trace.is_sound();
        if self.list {
            say(list(&trace))?;
            return Ok(sound);
        }
        if self.only.is_some_and(|only| only == 0 || only > trace.flows.len()) {
            bail!("the trace has flows 1 to {}; --list shows them", trace.flows.len());
        }
        // A replay may take its time: what cannot be written is said before.
        let destination = self.write.as_deref().map(|out| Destination::open(out, path)).transpose()?;
        let plans = Plans::new(&trace.flows);
        let outcome = replay(&trace.flows, &plans, &self.order()?)?;
        let (text, same) = report(&outcome, if self.live { Against::Sink } else { self.app });
        match destination {
            Some(Destination::Stdout) => note(text),
            _ => say(text)?,
        }
        destination.map(|out| out.write(path, &outcome.shots)).transpose()?;
        Ok(sound && (same || !self.strict))
    }

    fn order(&self) -> Result<Order> {
        let site = |root: &PathBuf| Loader::start(SiteConfig { reload: Duration::ZERO, ..SiteConfig::new(root) });
        Ok(Order {
            against: self.app,
            fast: self.fast,
            speed: self.speed,
            copies: self.flows as usize,
            rounds: self.rounds as usize,
            only: self.only,
            record: if self.write.is_some() { SHOTS_MAX } else { 0 },
            site: self.root.as_ref().map(site).transpose()?.map(|(site, _)| site),
            live: self.wire()?,
        })
    }

    fn wire(&self) -> Result<Option<Wire>> {
        let Some(interface) = self.interface.clone() else { return Ok(None) };
        let sides = self.server.iter().map(|server| self.sides(*server)).collect::<Result<Vec<Sides>>>()?;
        let one = |v4: bool| sides.iter().filter(|sides| sides.server.is_ipv4() == v4).count() <= 1;
        if sides.len() < self.source.len() || !one(true) || !one(false) {
            bail!("--live wants one --server and one --source of each address family, and there are more");
        }
        Ok(Some(Wire { interface, sides, mac: self.mac, limit: Duration::from_secs(self.seconds) }))
    }

    /// A server, and the clients' addresses of its family.
    fn sides(&self, (server, port): (IpAddr, Option<u16>)) -> Result<Sides> {
        let Some(&(first, count)) = self.source.iter().find(|(first, _)| first.is_ipv4() == server.is_ipv4()) else {
            bail!("there is no --source of the address family of --server {server}; give one");
        };
        let sides = Sides { server, port, first, count };
        if sides.holds(server) {
            bail!("--server {server} lies in the range of --source; give clients addresses that nobody has");
        }
        Ok(sides)
    }
}
