//! The command line, as it is typed. What it means together is decided in `options`.

use crate::rung::Rung;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A TCP server that brings its own TCP/IP stack.
#[derive(Parser, Debug)]
#[command(name = "khamsin", version, about, disable_help_subcommand = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Several applications in one loop, each on its own port
    Serve(ServeArgs),
    /// Bytes back as they came
    Echo(EchoArgs),
    /// HTTP/1.1: static files and a few live routes
    Http(HttpArgs),
    /// Server and kernel clients in a private network namespace: verified bytes, live figures, no set-up
    Demo(DemoArgs),
    /// What this machine, its interfaces and these privileges allow, and the command that would mend what they do not
    Doctor(DoctorArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// An application and its TCP port, such as echo:7 or http:80; repeat it for more
    #[arg(long = "app", value_name = "NAME:PORT", required = true, num_args = 1..)]
    pub(crate) apps: Vec<AppPort>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) echo: EchoOnly,
    #[command(flatten)]
    pub(crate) http: HttpOnly,
}

#[derive(Args, Debug)]
pub(crate) struct EchoArgs {
    /// TCP port [default: 7; 7007 on kernel sockets of 127.0.0.1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) echo: EchoOnly,
}

#[derive(Args, Debug)]
pub(crate) struct HttpArgs {
    /// TCP port [default: 80; 8080 on kernel sockets of 127.0.0.1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) http: HttpOnly,
}

/// What only the echo application takes.
#[derive(Args, Debug, Default)]
pub(crate) struct EchoOnly {
    /// Answer each line with "You said: LINE"
    #[arg(long, help_heading = "Echo")]
    pub(crate) line: bool,
}

/// What only the HTTP application takes.
#[derive(Args, Debug, Default)]
pub(crate) struct HttpOnly {
    /// Folder of files to serve, held in memory
    #[arg(long, value_name = "DIR", help_heading = "HTTP")]
    pub(crate) root: Option<PathBuf>,
    /// Look every so often whether files under --root have changed; 0: only on SIGHUP [default: 5]
    #[arg(long, value_name = "SECONDS", requires = "root", help_heading = "HTTP")]
    pub(crate) reload: Option<u32>,
}

/// Where frames come from, and how they are served.
#[derive(Args, Debug, Default)]
pub(crate) struct NetworkArgs {
    /// How to reach the network; auto climbs down the ladder, any other tries only its own rungs
    #[arg(long, value_enum, default_value_t, help_heading = "Network")]
    pub(crate) backend: Backend,
    /// Refuse to start below this rung
    #[arg(long, value_name = "RUNG", value_enum, help_heading = "Network")]
    pub(crate) require: Option<Rung>,
    /// Interface to serve on; with --backend tap the name of the TAP device
    #[arg(long, value_name = "IF", help_heading = "Network")]
    pub(crate) interface: Option<String>,
    /// An address of khamsin's own, which the kernel must not have; without it khamsin shares the interface's addresses
    #[arg(long = "address", value_name = "IP/LEN", help_heading = "Network")]
    pub(crate) addresses: Vec<AddressPrefix>,
    /// Router for peers outside the prefix of --address
    #[arg(long = "gateway", value_name = "IP", help_heading = "Network")]
    pub(crate) gateways: Vec<IpAddr>,
    /// Worker threads, each on a core of its own with a stack of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Network")]
    pub(crate) workers: u16,
    /// Where the XDP program runs: in the driver or in the kernel's generic hook [default: auto]
    #[arg(long, value_enum, help_heading = "Network")]
    pub(crate) xdp_mode: Option<XdpMode>,
    /// Whether the NIC writes into khamsin's memory or the kernel copies [default: auto]
    #[arg(long, value_enum, help_heading = "Network")]
    pub(crate) xdp_copy: Option<XdpCopy>,
    /// What a worker does between frames: spin for a moment and then sleep, spin always, or sleep at once
    #[arg(long, value_enum, default_value_t, help_heading = "Network")]
    pub(crate) poll: Poll,
    /// How the kernel reports ready sockets on the epoll rung [default: level]
    #[arg(long, value_enum, help_heading = "Network")]
    pub(crate) trigger: Option<Trigger>,
    /// Most open connections, over all workers; idle ones are parked
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=16_777_216), help_heading = "Network")]
    pub(crate) connections: u32,
    /// Most live connections of one source, an IPv4 address or an IPv6 /64 [default: as many as there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Network")]
    pub(crate) connections_per_source: Option<u32>,
    /// What moves the congestion window [default: cubic; on the epoll rung: the kernel's own]
    #[arg(long, value_enum, help_heading = "Network")]
    pub(crate) congestion: Option<Congestion>,
    /// How long a stop waits for connections that are still busy
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Network")]
    pub(crate) drain: u32,
    /// Write every frame, both ways, into a pcapng file; a comment says how each connection ended
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub(crate) capture: Option<PathBuf>,
    /// Capture only frames that this expression of tcpdump's accepts
    #[arg(long, value_name = "EXPR", requires = "capture", help_heading = "Network")]
    pub(crate) capture_filter: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// How long to drive the server
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// Leave the server running afterwards, until Ctrl-C, and say how to reach it
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Look at this interface only
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// Print what connections cost in memory, by part, for 10k, 100k, 1M and 10M of them
    #[arg(long, conflicts_with = "interface")]
    pub(crate) cost: bool,
}

/// An application that the binary can host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AppName {
    Echo,
    Http,
    Sink,
}

impl AppName {
    /// The name on the command line and in the ready line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            AppName::Echo => "echo",
            AppName::Http => "http",
            AppName::Sink => "sink",
        }
    }

    /// The well-known port.
    pub(crate) const fn port(self) -> u16 {
        match self {
            AppName::Echo => 7,
            AppName::Http => 80,
            AppName::Sink => 9,
        }
    }

    /// The port on kernel sockets of 127.0.0.1, where the well-known one needs a privilege.
    pub(crate) const fn loopback_port(self) -> u16 {
        match self {
            AppName::Echo => 7007,
            AppName::Http => 8080,
            AppName::Sink => 9009,
        }
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `NAME:PORT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AppPort {
    pub(crate) app: AppName,
    pub(crate) port: u16,
}

impl FromStr for AppPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, port) = text.split_once(':').ok_or("write NAME:PORT, for example http:80")?;
        let app = match name {
            "echo" => AppName::Echo,
            "http" => AppName::Http,
            "sink" => AppName::Sink,
            _ => return Err(format!("there is no application `{name}`; there are echo, http and sink")),
        };
        match port.parse() {
            Ok(port) if port > 0 => Ok(AppPort { app, port }),
            _ => Err(format!("`{port}` is not a TCP port; write a number from 1 to 65535")),
        }
    }
}

/// `IP/LEN`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AddressPrefix {
    pub(crate) address: IpAddr,
    /// Length of the prefix that is on the link, in bits.
    pub(crate) len: u8,
}

impl FromStr for AddressPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, len) =
            text.split_once('/').ok_or("the prefix length is missing; write IP/LEN, for example 192.0.2.10/24")?;
        let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        match len.parse() {
            Ok(len) if len <= bits => Ok(AddressPrefix { address, len }),
            _ => Err(format!("`{len}` is not a prefix length; write a number from 0 to {bits}")),
        }
    }
}

impl fmt::Display for AddressPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Backend {
    #[default]
    Auto,
    AfXdp,
    AfPacket,
    Tap,
    Epoll,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum XdpMode {
    #[default]
    Auto,
    Native,
    Generic,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum XdpCopy {
    #[default]
    Auto,
    ZeroCopy,
    Copy,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Poll {
    #[default]
    Adaptive,
    Busy,
    Sleep,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Trigger {
    #[default]
    Level,
    Edge,
}

/// Congestion control.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Congestion {
    #[default]
    Cubic,
    NewReno,
}

/// The name that a value of an option has on the command line.
pub(crate) fn option_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

/// A usage error of clap's in one sentence: its first paragraph on one line, its tips, and where to read more.
pub(crate) fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut said = String::new();
    for paragraph in text.split("\n\n") {
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if said.is_empty() {
            said = line.strip_prefix("error: ").unwrap_or(&line).into();
        } else if let Some(tip) = line.strip_prefix("tip: ") {
            said = format!("{said}; {tip}");
        }
    }
    // What Rust's own parser says is meant for programmers.
    let said = said.replace("invalid digit found in string", "not a whole number");
    format!("{said}; `khamsin --help` and `khamsin COMMAND --help` say what can be written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_finds_nothing_wrong_with_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn prefixes_are_taken_apart_and_judged() {
        let p: AddressPrefix = "198.18.0.2/24".parse().unwrap();
        assert_eq!((p.address.to_string(), p.len), ("198.18.0.2".into(), 24));
        assert_eq!("fd00::2/64".parse::<AddressPrefix>().unwrap().len, 64);
        for wrong in ["198.18.0.2", "198.18.0.2/33", "fd00::2/129", "198.18.0/24", "x/8", "198.18.0.2/-1", "/"] {
            assert!(wrong.parse::<AddressPrefix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn application_ports_are_taken_apart_and_judged() {
        assert_eq!("echo:7".parse(), Ok(AppPort { app: AppName::Echo, port: 7 }));
        for wrong in ["echo", "ftp:21", "http:0", "http:65536", "http:", ":80"] {
            assert!(wrong.parse::<AppPort>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn usage_errors_are_one_line() {
        let cases: [&[&str]; 5] = [
            &["khamsin", "serve"],
            &["khamsin", "http", "--line"],
            &["khamsin", "http", "--backend", "dpdk"],
            &["khamsin", "echo", "--address", "192.0.2.1"],
            &["khamsin", "frobnicate"],
        ];
        for arguments in cases {
            let said = sentence(&Cli::try_parse_from(arguments).unwrap_err());
            assert!(!said.contains('\n') && !said.starts_with("error") && said.len() > 40, "{said}");
        }
    }

    #[test]
    fn usage_errors_say_what_was_probably_meant() {
        for (arguments, says) in [
            (&["khamsin", "htpp"][..], "'http'"),
            (&["khamsin", "http", "--prot", "80"], "'--port'"),
            (&["khamsin", "http", "--backend", "epol"], "'epoll'"),
            (&["khamsin", "http", "--port", "eighty"], "not a whole number"),
        ] {
            let said = sentence(&Cli::try_parse_from(arguments).unwrap_err());
            assert!(said.contains(says) && !said.contains('\n'), "{said}");
        }
    }
}
