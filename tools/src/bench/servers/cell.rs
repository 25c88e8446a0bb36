//! What is measured: cells, each the same load for several servers.

use super::contender::Contender::{self, AfXdp, Epoll, Libevent, Nginx};
use super::contender::Room;
use clap::ValueEnum;
use std::fmt;

/// Cells that belong together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Case {
    /// Requests a second over kept connections: 64 B, 512 B and 8,046 B, at 64 and at 1,000 connections
    Rates,
    /// New connections a second, a file of 512 B each
    NewConnections,
    /// Echo of 64 B
    Echo,
    /// The same questions from wrk, a client on kernel sockets
    Wrk,
    /// Latency at 25, 50 and 75 % of nginx's peak, open loop
    Latency,
    /// Bytes a second of a file of 1 MB
    Large,
    /// Requests a second beside idle connections, and what each of those takes of memory
    Held,
    /// Right answers a second at half to ten times the server's peak, open loop
    Overload,
    /// 20,000 clients that each fetch 4 KB once a second
    Clients,
    /// `ab -n 100000 -c 1000` with a page of 8,046 B
    Ab,
    /// Thousands of clients behind modems of 28.8 kbit/s, a large file
    Modems,
}

impl Case {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

/// To whom the receive work of the server is billed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Billing {
    /// As the kernel does it: veth runs a frame's receive work on the sender's core.
    Default,
    /// All of it on the server's core.
    Pinned,
}

impl Billing {
    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Billing::Default => "default",
            Billing::Pinned => "pinned",
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Client {
    /// `khamsin-load` over AF_XDP.
    Light,
    Wrk,
    Ab,
}

/// When requests are made.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Pace {
    /// As soon as the last one is answered.
    Closed,
    /// So many a second.
    PerSecond(f64),
    /// A share of what nginx can do.
    OfNginx(f64),
    /// A share of what this server can do.
    OfOwn(f64),
}

/// One load.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Cell {
    pub(crate) case: Case,
    pub(crate) name: String,
    /// Where it stands on the axis of its plot; 0: nowhere.
    pub(crate) x: f64,
    pub(crate) billing: Billing,
    pub(crate) mtu: u32,
    pub(crate) client: Client,
    /// The file asked for; `None`: echo.
    pub(crate) path: Option<&'static str>,
    pub(crate) connections: u32,
    pub(crate) idle: u32,
    pub(crate) fresh: bool,
    pub(crate) slow_bits_per_s: u32,
    pub(crate) pace: Pace,
    /// How khamsin's workers wait, where it is not what the command line says.
    pub(crate) poll: Option<&'static str>,
    /// How long an answer is waited for, milliseconds; then the client has gone.
    pub(crate) timeout_ms: u32,
    /// Seconds, where it is not what the command line says.
    pub(crate) seconds: Option<u32>,
    pub(crate) room: Room,
    pub(crate) among: &'static [Contender],
}

/// Files that are asked for, and their lengths in bytes.
pub(crate) const FILES: [(&str, usize); 6] =
    [("small", 64), ("f512", 512), ("f4096", 4096), ("page", 8046), ("mega", 1_000_000), ("big", 10_000_000)];

const LIGHT: &[Contender] = &[Nginx, Libevent, AfXdp, Epoll];
/// Connections that a server on kernel sockets can have in one process where the limit is 20,000 descriptors.
const KERNEL_MOST: u32 = 19_000;

/// How large the large cells are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Most idle connections.
    pub(crate) held: u32,
    /// Seconds of 20,000 clients.
    pub(crate) clients_seconds: u32,
}

impl Cell {
    fn new(case: Case, name: impl Into<String>, path: &'static str) -> Cell {
        Cell {
            case,
            name: name.into(),
            x: 0.0,
            billing: Billing::Default,
            mtu: 1500,
            client: Client::Light,
            path: Some(path),
            connections: 64,
            idle: 0,
            fresh: false,
            slow_bits_per_s: 0,
            pace: Pace::Closed,
            poll: None,
            timeout_ms: 5000,
            seconds: None,
            room: Room { connections: 16_384, processes: 1 },
            among: LIGHT,
        }
    }

    /// What names it in files and bars.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}/{}", self.case, self.name, self.billing.name())
    }

    /// Whether servers and clients are to be real-time programs. The kernel takes 50 ms of a second from those for whoever
    /// else waits for the core (the fair server of its deadline scheduler), in one piece: what counts requests can bear that,
    /// a 99th percentile cannot.
    pub(crate) fn realtime(&self) -> bool {
        self.case != Case::Latency
    }

    /// Whether receiving comes before the server on its core, as softirqs do, where a thread does it. Otherwise they take turns: so
    /// a thread receives larger bursts, but frames are lost in front of it while an overloaded server has its turn.
    pub(crate) fn receives_first(&self) -> bool {
        self.case == Case::Overload
    }

    /// Whom it compares.
    pub(crate) fn contenders(&self) -> impl Iterator<Item = Contender> {
        // Those that come to an overloaded server are not all held.
        let most = if self.case == Case::Overload { 0 } else { self.idle + self.connections };
        let has_room = move |c: &Contender| !c.is_on_kernel_sockets() || most <= KERNEL_MOST * self.room.processes;
        let echo = self.path.is_none();
        self.among.iter().copied().filter(move |c| has_room(c) && (!echo || c.echoes()))
    }

    /// All cells of a case.
    pub(crate) fn of(case: Case, scale: Scale) -> Vec<Cell> {
        match case {
            Case::Rates => rates(),
            Case::NewConnections => both(Cell { fresh: true, x: 512.0, ..Cell::new(case, "512 B", "/f512") }).to_vec(),
            Case::Echo => vec![Cell { path: None, ..Cell::new(case, "64 B", "") }],
            Case::Wrk => wrk(),
            Case::Latency => [0.25, 0.5, 0.75]
                .map(|share| Cell {
                    x: share,
                    pace: Pace::OfNginx(share),
                    ..Cell::new(case, format!("{:.0} %", share * 100.0), "/small")
                })
                .to_vec(),
            Case::Large => vec![Cell { connections: 16, ..Cell::new(case, "1 MB", "/mega") }],
            Case::Held => held(scale.held),
            Case::Overload => overloads(),
            Case::Clients => vec![Cell {
                connections: 20_000,
                pace: Pace::PerSecond(20_000.0),
                // What is asked is how little of a core it takes.
                poll: Some("sleep"),
                seconds: Some(scale.clients_seconds),
                room: Room { connections: 24_000, processes: 2 },
                ..Cell::new(case, "20000 x 4 KB/s", "/f4096")
            }],
            Case::Ab => vec![Cell {
                client: Client::Ab,
                connections: 1000,
                fresh: true,
                among: &Contender::ALL,
                ..Cell::new(case, "-n 100000 -c 1000", "/page")
            }],
            Case::Modems => vec![Cell {
                connections: 10_000,
                slow_bits_per_s: 28_800,
                poll: Some("sleep"),
                seconds: Some(8),
                ..Cell::new(case, "10000 x 28.8 kbit/s", "/big")
            }],
        }
    }
}

/// The same with both ways of billing.
fn both(cell: Cell) -> [Cell; 2] {
    [cell.clone(), pinned(cell)]
}

/// Where its own core is to do the receive work, a server that never sleeps lets nobody else do it.
fn pinned(cell: Cell) -> Cell {
    Cell { billing: Billing::Pinned, poll: Some("sleep"), ..cell }
}

fn rates() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (path, bytes) in [("/small", 64), ("/f512", 512), ("/page", 8046)] {
        for connections in [64, 1000] {
            let name = format!("{bytes} B x {connections}");
            cells.extend(both(Cell { connections, x: f64::from(bytes), ..Cell::new(Case::Rates, name, path) }));
        }
    }
    cells
}

fn wrk() -> Vec<Cell> {
    let cell =
        |name: &str, path| Cell { client: Client::Wrk, among: &Contender::ALL, ..Cell::new(Case::Wrk, name, path) };
    vec![
        cell("64 B", "/small"),
        Cell { fresh: true, ..cell("64 B, one request a connection", "/small") },
        cell("8046 B", "/page"),
        Cell { mtu: 3498, among: &[Nginx, AfXdp, Epoll], ..cell("8046 B, MTU 3498", "/page") },
    ]
}

/// Ten connections ask; the others are idle.
fn held(most: u32) -> Vec<Cell> {
    let sizes = [10, 100, 1000, 10_000, 19_000, 100_000, 1_000_000];
    let cell = |all: u32| Cell {
        connections: 10,
        idle: all - 10,
        x: f64::from(all),
        room: Room { connections: 16_384.max(all + all / 16), processes: 1 },
        ..Cell::new(Case::Held, all.to_string(), "/small")
    };
    sizes.into_iter().filter(|all| *all <= most).map(cell).collect()
}

/// Every request has a connection of its own, and whoever gets no answer for a quarter of a second has gone. There are
/// connections for all who come in that time at ten times what any of these servers can do on one core. The curve has the
/// receive work on the server's core, where whoever is refused has cost a receive there; beside it stands its end as billed by
/// default, where it costs the client that, which then cannot ask as often.
fn overloads() -> Vec<Cell> {
    let of = |factor: f64, name: String| Cell {
        fresh: true,
        connections: 300_000,
        timeout_ms: 250,
        pace: Pace::OfOwn(factor),
        ..Cell::new(Case::Overload, name, "/f512")
    };
    let curve = [0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0];
    let mut cells = curve.map(|f| pinned(Cell { x: f, ..of(f, format!("{f}x")) })).to_vec();
    cells.push(of(10.0, "10x".to_owned()));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use Contender::Tap;

    #[test]
    fn every_cell_has_an_id_of_its_own_and_a_file() {
        let scale = Scale { held: 1_000_000, clients_seconds: 60 };
        let cells: Vec<Cell> = Case::value_variants().iter().flat_map(|case| Cell::of(*case, scale)).collect();
        let mut ids: Vec<String> = cells.iter().map(Cell::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), cells.len());
        for cell in &cells {
            let path = cell.path.map_or("small", |p| &p[1..]);
            assert!(FILES.iter().any(|(name, _)| *name == path), "{path}");
            assert!(cell.client != Client::Light || !cell.contenders().any(|c| c == Tap), "{}", cell.id());
        }
        let million = cells.iter().find(|c| c.id() == "held/1000000/default").unwrap();
        assert_eq!(million.contenders().collect::<Vec<_>>(), [AfXdp]);
        let echo = cells.iter().find(|c| c.case == Case::Echo).unwrap();
        assert!(!echo.contenders().any(|c| c == Nginx) && echo.contenders().any(|c| c == Libevent));
        assert_eq!(Cell::of(Case::Held, Scale { held: 10_000, ..scale }).len(), 4);
    }
}
