//! What the command line means: the options of one server, checked against each other.

use crate::capture::CaptureTo;
use crate::cli::*;
use crate::ladder::Request;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A wrong command line, in one sentence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage(pub(crate) String);

/// Everything that one server is told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) services: Vec<Service>,
    pub(crate) network: Network,
    /// The echo application answers line by line.
    pub(crate) line: bool,
    /// Folder that the HTTP application serves.
    pub(crate) root: Option<PathBuf>,
    /// How often `root` is looked at for changes; `None`: only on SIGHUP.
    pub(crate) reload: Option<Duration>,
}

/// An application and the port it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Service {
    pub(crate) app: AppName,
    /// `None`: the application's own port on the rung that is taken.
    pub(crate) port: Option<u16>,
}

/// How the server reaches the network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) request: Request,
    pub(crate) interface: Option<String>,
    pub(crate) addresses: Vec<AddressPrefix>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) workers: usize,
    pub(crate) poll: Poll,
    pub(crate) trigger: Trigger,
    /// Most open connections, over all workers.
    pub(crate) connections: usize,
    /// Of one source, over all workers; 0: no limit.
    pub(crate) per_source: usize,
    pub(crate) congestion: Option<Congestion>,
    pub(crate) drain: Duration,
    pub(crate) capture: Option<CaptureTo>,
}

impl Service {
    /// The port on a rung; `loopback` where that is kernel sockets of 127.0.0.1 by default.
    pub(crate) fn port_on(self, loopback: bool) -> u16 {
        self.port.unwrap_or(if loopback { self.app.loopback_port() } else { self.app.port() })
    }
}

impl TryFrom<ServeArgs> for Options {
    type Error = Usage;

    fn try_from(args: ServeArgs) -> Result<Self, Usage> {
        let mut ports = BTreeSet::new();
        if let Some(twice) = args.apps.iter().find(|a| !ports.insert(a.port)) {
            return Err(Usage(format!(
                "--app names port {} twice; give each application a port of its own",
                twice.port
            )));
        }
        let has = |app| args.apps.iter().any(|a| a.app == app);
        if args.echo.line && !has(AppName::Echo) {
            return Err(Usage("--line is for the echo application; add --app echo:PORT or leave it out".into()));
        }
        if args.http.root.is_some() && !has(AppName::Http) {
            return Err(Usage("--root is for the HTTP application; add --app http:PORT or leave it out".into()));
        }
        let services = args.apps.iter().map(|a| Service { app: a.app, port: Some(a.port) }).collect();
        options(services, args.network, args.echo, args.http)
    }
}

impl TryFrom<EchoArgs> for Options {
    type Error = Usage;

    fn try_from(args: EchoArgs) -> Result<Self, Usage> {
        options(vec![Service { app: AppName::Echo, port: args.port }], args.network, args.echo, HttpOnly::default())
    }
}

impl TryFrom<HttpArgs> for Options {
    type Error = Usage;

    fn try_from(args: HttpArgs) -> Result<Self, Usage> {
        options(vec![Service { app: AppName::Http, port: args.port }], args.network, EchoOnly::default(), args.http)
    }
}

fn options(services: Vec<Service>, network: NetworkArgs, echo: EchoOnly, http: HttpOnly) -> Result<Options, Usage> {
    let reload = match http.reload {
        Some(0) => None,
        seconds => Some(Duration::from_secs(seconds.unwrap_or(5).into())),
    };
    Ok(Options { services, network: network.try_into()?, line: echo.line, root: http.root, reload })
}

impl TryFrom<NetworkArgs> for Network {
    type Error = Usage;

    fn try_from(args: NetworkArgs) -> Result<Self, Usage> {
        let request = Request {
            backend: args.backend,
            require: args.require,
            interface: args.interface.is_some(),
            own_address: !args.addresses.is_empty(),
            xdp_mode: args.xdp_mode.unwrap_or_default(),
            xdp_copy: args.xdp_copy.unwrap_or_default(),
            captures: args.capture.is_some(),
        };
        check_interface(&args).map_err(Usage)?;
        check_addresses(&args).map_err(Usage)?;
        check_backend(&args, &request).map_err(Usage)?;
        let capture = CaptureTo::new(args.capture.as_deref(), args.capture_filter.as_deref()).map_err(Usage)?;
        Ok(Network {
            request,
            interface: args.interface,
            addresses: args.addresses,
            gateways: args.gateways,
            workers: args.workers.into(),
            poll: args.poll,
            trigger: args.trigger.unwrap_or_default(),
            connections: args.connections as usize,
            congestion: args.congestion,
            per_source: args.connections_per_source.unwrap_or(0) as usize,
            drain: Duration::from_secs(args.drain.into()),
            capture,
        })
    }
}

impl Network {
    /// Whether `--interface` names a device that khamsin makes, and not one that must be there.
    pub(crate) fn makes_interface(&self) -> bool {
        self.request.backend == Backend::Tap
    }
}

/// Longest name of an interface, bytes (IFNAMSIZ less its terminator).
const INTERFACE_NAME_MAX: usize = 15;

fn check_interface(args: &NetworkArgs) -> Result<(), String> {
    if let Some(name) = &args.interface
        && (name.is_empty()
            || name.len() > INTERFACE_NAME_MAX
            || name.contains(['/', ':'])
            || name.contains(char::is_whitespace))
    {
        return Err(format!("--interface `{name}` cannot be an interface; `ip link` lists those there are"));
    }
    let backend = option_name(&args.backend);
    if matches!(args.backend, Backend::AfXdp | Backend::AfPacket) && args.interface.is_none() {
        return Err(format!("--backend {backend} needs an interface to serve on; add --interface IF"));
    }
    if args.backend == Backend::AfPacket && args.addresses.is_empty() {
        return Err("--backend af-packet needs an address that the kernel does not have, because the kernel answers \
                    on its own; add --address IP/LEN"
            .into());
    }
    Ok(())
}

fn check_addresses(args: &NetworkArgs) -> Result<(), String> {
    let kernel_sockets = args.backend == Backend::Epoll;
    let mut seen = BTreeSet::new();
    for &AddressPrefix { address, len } in &args.addresses {
        let bad = match address {
            _ if !seen.insert(address) => Some("is given twice; give each address once"),
            _ if address.is_multicast() || is_broadcast(address, len) => {
                Some("is not an address that a host can have; give one of a host")
            }
            _ if (address.is_loopback() || address.is_unspecified()) && !kernel_sockets => {
                Some("is served by kernel sockets only; add --backend epoll")
            }
            _ => None,
        };
        if let Some(bad) = bad {
            return Err(format!("--address {address}/{len} {bad}"));
        }
    }
    for gateway in &args.gateways {
        if kernel_sockets {
            return Err(format!(
                "--gateway {gateway} does nothing with --backend epoll, where the kernel routes; leave it out"
            ));
        }
        if !args.addresses.iter().any(|a| a.address.is_ipv4() == gateway.is_ipv4()) {
            return Err(format!("--gateway {gateway} needs an address of its family; add --address IP/LEN"));
        }
        if gateway.is_multicast() || gateway.is_unspecified() || gateway.is_loopback() || seen.contains(gateway) {
            return Err(format!("--gateway {gateway} cannot be a router; give the address of one"));
        }
    }
    Ok(())
}

/// Whether `address` stands for its whole network: its host bits are all ones, or (IPv4) all zeros. RFC 3021: not in a /31.
fn is_broadcast(address: IpAddr, len: u8) -> bool {
    match address {
        IpAddr::V4(v4) if len < 31 && !v4.is_unspecified() => {
            let host = u32::from(v4) & (u32::MAX >> len);
            host == 0 || host == u32::MAX >> len
        }
        _ => false,
    }
}

fn check_backend(args: &NetworkArgs, request: &Request) -> Result<(), String> {
    let backend = option_name(&args.backend);
    let xdp = matches!(args.backend, Backend::Auto | Backend::AfXdp);
    if !xdp && (args.xdp_mode.is_some() || args.xdp_copy.is_some()) {
        return Err(format!("--xdp-mode and --xdp-copy do nothing with --backend {backend}; leave them out"));
    }
    if request.xdp_mode == XdpMode::Generic && request.xdp_copy == XdpCopy::ZeroCopy {
        return Err("--xdp-mode generic always copies; take --xdp-mode native with --xdp-copy zero-copy".into());
    }
    if args.trigger.is_some() && !matches!(args.backend, Backend::Auto | Backend::Epoll) {
        return Err(format!("--trigger does nothing with --backend {backend}; leave it out"));
    }
    if args.capture.is_some() && args.backend == Backend::Epoll {
        return Err(
            "--capture writes frames, which kernel sockets never see; capture with tcpdump, or take another --backend"
                .into(),
        );
    }
    if args.capture.as_deref() == Some(Path::new("-")) {
        return Err(
            "--capture - cannot be had, since standard output has the ready line; give a file or a FIFO that somebody \
             reads (`./-` for a file of that name)"
                .into(),
        );
    }
    if let Some(require) = args.require
        && !request.is_possible()
    {
        return Err(format!(
            "--require {require} can never be met with these options; `khamsin doctor` lists what each rung needs"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rung::Rung;
    use clap::Parser;

    fn parse(line: &str) -> Result<Options, Usage> {
        let words = std::iter::once("khamsin").chain(line.split_whitespace());
        match Cli::try_parse_from(words).expect("clap takes it").command {
            Command::Serve(a) => a.try_into(),
            Command::Echo(a) => a.try_into(),
            Command::Http(a) => a.try_into(),
            other => panic!("{other:?} serves nothing"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let o = parse("http").unwrap();
        assert_eq!(
            (o.network.workers, o.network.drain, o.reload),
            (1, Duration::from_secs(10), Some(Duration::from_secs(5)))
        );
        assert_eq!((o.services[0].port_on(false), o.services[0].port_on(true)), (80, 8080));
        assert_eq!((o.network.poll, o.network.trigger), (Poll::Adaptive, Trigger::Level));
        let o = parse("echo --port 9").unwrap();
        assert_eq!((o.services[0].port_on(false), o.services[0].port_on(true)), (9, 9));
    }

    #[test]
    fn serve_hosts_several_applications() {
        let o = parse("serve --app echo:7 --app http:80 --line --root /srv --reload 0").unwrap();
        assert_eq!(o.services.len(), 2);
        assert!(o.line && o.reload.is_none());
    }

    #[test]
    fn an_own_address_on_an_interface() {
        let o =
            parse("http --interface eth0 --address 192.0.2.10/24 --address fd00::2/64 --gateway 192.0.2.1").unwrap();
        assert!(o.network.request.own_address && o.network.request.interface);
        assert_eq!(o.network.addresses[1].to_string(), "fd00::2/64");
    }

    #[test]
    fn what_cannot_work_is_a_usage_error_that_says_what_to_do() {
        for (line, says) in [
            ("serve --app echo:80 --app http:80", "port 80 twice"),
            ("serve --app http:80 --line", "--line"),
            ("serve --app echo:7 --root /srv", "--root"),
            ("http --backend af-xdp", "--interface"),
            ("http --backend af-packet --interface eth0", "--address"),
            ("http --interface much-too-long-a-name", "ip link"),
            ("http --interface eth0 --address 224.0.0.1/4", "host"),
            ("http --interface eth0 --address 192.0.2.255/24", "host"),
            ("http --interface eth0 --address 127.0.0.1/8", "--backend epoll"),
            ("http --interface eth0 --address 192.0.2.1/24 --address 192.0.2.1/24", "twice"),
            ("http --gateway 192.0.2.1", "--address"),
            ("http --interface eth0 --address 192.0.2.9/24 --gateway fd00::1", "--address"),
            ("http --interface eth0 --address 192.0.2.9/24 --gateway 192.0.2.9", "router"),
            ("http --backend tap --xdp-mode native", "--xdp-mode"),
            ("http --interface eth0 --xdp-mode generic --xdp-copy zero-copy", "--xdp-mode native"),
            ("http --backend tap --trigger edge", "--trigger"),
            ("http --backend epoll --capture a.pcapng", "tcpdump"),
            ("http --backend tap --capture -", "./-"),
            ("http --backend tap --require af-packet", "--require"),
            ("http --require af-xdp-native", "--require"),
        ] {
            let Err(Usage(said)) = parse(line) else { panic!("`{line}` was accepted") };
            assert!(said.contains(says) && !said.contains('\n') && said.contains(';'), "`{line}`: {said}");
        }
    }

    #[test]
    fn a_rung_can_be_required() {
        let o = parse("http --interface eth0 --require af-xdp-generic").unwrap();
        assert_eq!(o.network.request.require, Some(Rung::AfXdpGeneric));
        assert!(parse("http --backend epoll --require epoll").is_ok());
        assert!(parse("http --backend epoll --address 0.0.0.0/0").is_ok());
    }
}
