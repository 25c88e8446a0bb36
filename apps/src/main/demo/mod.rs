//! `khamsin demo`: a server and kernel clients in a namespace of their own; every byte verified, figures shown live.

mod exchange;
mod load;
pub(crate) mod namespace;
mod report;

use crate::apps::{Files, Recipe};
use crate::cli::{AddressPrefix, AppName, Backend, DemoArgs, Poll, Trigger};
use crate::ladder::Request;
use crate::options::{Network, Options, Service};
use crate::privileges;
use crate::rung::Rung;
use crate::server::{Event, Server, channel_closed};
use crate::signals::{self, Wish};
use crate::{serve, server};
use anyhow::{Context, Result, bail};
use khamsin::output::{note, say};
use khamsin_drivers::clock::Clock;
use load::{Load, Target};
use namespace::{SERVER_LINK, SERVER_V4, SERVER_V6};
use report::{Live, Summary};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// Time between two looks at the figures.
const TICK: Duration = Duration::from_secs(1);
/// How long answers that are due at the end may take.
const FINISH: Duration = Duration::from_secs(3);

/// Where the demo takes place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// A network namespace of its own; with IPv6, or without.
    Private { v6: bool },
    /// Kernel sockets on 127.0.0.1 of this machine.
    Loopback,
}

/// Runs the demo. The exit code is 1 when a byte was wrong or an answer missing.
///
/// # Errors
/// It cannot be set up.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    if namespace::is_probe() {
        return Ok(namespace::probe_child());
    }
    let caught = signals::catch().context("signals cannot be caught")?;
    let place = find_place()?;
    let (events, inbox) = channel();
    let mut server = start(place, &events)?;
    let wishes = events.clone();
    caught.forward(move |wish| drop(wishes.send(Event::Wish(wish)))).context("signals cannot be waited for")?;
    for (rungs, reason) in server.ladder.tried() {
        note(format_args!("{rungs} refused: {reason}"));
    }
    note(&server.ready);
    let good = drive(args, &server, &inbox)?;
    if args.keep && good != Outcome::Stopped {
        tell_how_to_reach(place, &server);
        wait_for_stop(&inbox)?;
    }
    serve::drain(&mut server, &inbox, Duration::from_secs(1))?;
    server.join();
    Ok(if good == Outcome::Wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn find_place() -> Result<Place> {
    if let Err(reason) = namespace::probe() {
        note(format_args!("no private network namespace: {reason}"));
        note("the demo uses kernel sockets on 127.0.0.1 instead");
        return Ok(Place::Loopback);
    }
    let v6 = namespace::enter().and_then(|()| namespace::furnish()).map_err(anyhow::Error::msg)?;
    Ok(Place::Private { v6 })
}

/// Takes the highest rung that can be taken: on the interface, else TAP, else kernel sockets.
fn start(place: Place, events: &Sender<Event>) -> Result<Server> {
    let mut candidates = Vec::new();
    if let Place::Private { v6 } = place {
        candidates.push(options(on_interface(v6), None)?);
        candidates.push(options(plain_tap(), None)?);
    }
    candidates.push(options(plain_epoll(), Some(free_ports()?))?);
    let mut failure = None;
    for options in candidates {
        let files = Files::load(&options)?;
        match Server::start(&options, &Recipe::new(&options, &files), events) {
            Ok(server) => return Ok(server),
            Err(error) => {
                note(crate::chain(&error));
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(server::channel_closed))
}

/// The options of a server on exactly `rung`, in a furnished namespace.
///
/// # Errors
/// No free ports for kernel sockets.
pub(crate) fn trial_options(rung: Rung, v6: bool) -> Result<Options> {
    match rung {
        Rung::Epoll => options(plain_epoll(), Some(free_ports()?)),
        Rung::Tap => options(plain_tap(), None),
        _ => options(on_interface(v6), None),
    }
}

fn plain_tap() -> Network {
    Network { request: Request { backend: Backend::Tap, ..Request::default() }, ..plain() }
}

fn plain() -> Network {
    Network {
        request: Request::default(),
        interface: None,
        addresses: Vec::new(),
        gateways: Vec::new(),
        workers: 1,
        poll: Poll::Adaptive,
        trigger: Trigger::Level,
        connections: 1024,
        per_source: 0,
        congestion: None,
        drain: Duration::from_secs(1),
        capture: None,
    }
}

fn plain_epoll() -> Network {
    Network { request: Request { backend: Backend::Epoll, ..Request::default() }, ..plain() }
}

fn on_interface(v6: bool) -> Network {
    let mut addresses = vec![AddressPrefix { address: SERVER_V4.into(), len: 24 }];
    if v6 {
        addresses.push(AddressPrefix { address: SERVER_V6.into(), len: 64 });
    }
    // Kernel sockets would need the address to be the kernel's: they are a candidate of their own.
    let require = Some(Rung::AfPacket);
    let request = Request { interface: true, own_address: true, require, ..Request::default() };
    Network { request, interface: Some(SERVER_LINK.into()), addresses, ..plain() }
}

fn options(network: Network, ports: Option<[u16; 2]>) -> Result<Options> {
    let service = |app, port| Service { app, port };
    let services = vec![service(AppName::Http, ports.map(|p| p[0])), service(AppName::Echo, ports.map(|p| p[1]))];
    Ok(Options { services, network, line: false, root: None, reload: None })
}

/// Two ports of 127.0.0.1 that nobody has.
fn free_ports() -> Result<[u16; 2]> {
    let bind = || TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1");
    let (a, b) = (bind()?, bind()?);
    Ok([a.local_addr()?.port(), b.local_addr()?.port()])
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Every byte was right.
    Right,
    /// Something was not.
    Wrong,
    /// The user stopped it, and every byte until then was right.
    Stopped,
}

fn drive(args: &DemoArgs, server: &Server, inbox: &Receiver<Event>) -> Result<Outcome> {
    let clock = Clock;
    // The one worker has the first core of the list; clients beside it would be measured as a slow server.
    privileges::pin(privileges::cores().get(1..).unwrap_or_default());
    let mut load = Load::open(target(server), clock)?;
    let length = Duration::from_secs(args.seconds.into());
    let mut live = Live::new(server.ready.rung, length);
    let start = clock.now();
    let (end, mut shown, mut stopped) = (start + length, start, false);
    while !stopped && clock.now() < end {
        load.run((shown + TICK).min(end))?;
        let now = clock.now();
        let open = load.open_connections();
        live.show(&mut load.figures, open, now.since(start), now.since(shown));
        shown = now;
        stopped = is_stopped(inbox)?;
    }
    let elapsed = clock.now().since(start);
    load.finish(clock.now() + FINISH)?;
    live.finish();
    let (rung, figures) = (server.ready.rung, &load.figures);
    say(Summary { rung, connections: CONNECTIONS, elapsed, figures })?;
    Ok(match (figures.failures > 0 || figures.answered == 0, stopped) {
        (true, _) => Outcome::Wrong,
        (false, true) => Outcome::Stopped,
        (false, false) => Outcome::Right,
    })
}

fn target(server: &Server) -> Target {
    let of = |wanted| -> Vec<SocketAddr> {
        let ports = server.ready.listen.iter().filter(|(app, _)| *app == wanted);
        ports.flat_map(|&(_, port)| server.ready.addresses.iter().map(move |&ip| SocketAddr::new(ip, port))).collect()
    };
    Target { http: of(AppName::Http), echo: of(AppName::Echo), connections: CONNECTIONS }
}

/// Whether the user wants it to end.
///
/// # Errors
/// The server failed.
fn is_stopped(inbox: &Receiver<Event>) -> Result<bool> {
    loop {
        match inbox.try_recv() {
            Ok(Event::Wish(Wish::Stop)) => return Ok(true),
            Ok(event) => serve::failure(event)?,
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => bail!(channel_closed()),
        }
    }
}

fn wait_for_stop(inbox: &Receiver<Event>) -> Result<()> {
    loop {
        match inbox.recv().map_err(|_| channel_closed())? {
            Event::Wish(Wish::Stop) => return Ok(()),
            event => serve::failure(event)?,
        }
    }
}

fn tell_how_to_reach(place: Place, server: &Server) {
    let url = server.ready.url();
    note("still serving until Ctrl-C; from another terminal:");
    match place {
        Place::Loopback => note(format_args!("  curl {url}")),
        Place::Private { .. } => {
            let user = if namespace::in_user_namespace() { "--preserve-credentials -U " } else { "" };
            note(format_args!("  nsenter {user}-n -t {} curl {url}", std::process::id()));
        }
    }
}
