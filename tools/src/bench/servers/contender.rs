//! Who is measured: servers of the same files, each at its best for this load.

use super::libevent;
use crate::contender::fetch;
use crate::nginx::{Nginx, family};
use anyhow::{Context, Result};
use khamsin_tools::bed::{Bed, KERNEL_V4, STACK_V4};
use khamsin_tools::command::{Running, is_installed};
use khamsin_tools::deadline::wait_for;
use khamsin_tools::rung::Rung;
use khamsin_tools::server::Server;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Contender {
    /// nginx on kernel sockets
    Nginx,
    /// A server of libevent's evhttp and its bufferevents, on kernel sockets
    Libevent,
    /// khamsin over AF_XDP in veth's driver
    AfXdp,
    /// khamsin over a TAP; kernel clients only, because its far side is this host's kernel
    Tap,
    /// khamsin on kernel sockets
    Epoll,
}

/// What a server must be able to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    /// Connections at a time.
    pub(crate) connections: u32,
    /// Processes of a server on kernel sockets, which ends at as many descriptors as one process may have.
    pub(crate) processes: u32,
}

impl Contender {
    /// All of them.
    pub(crate) const ALL: [Contender; 5] =
        [Contender::Nginx, Contender::Libevent, Contender::AfXdp, Contender::Tap, Contender::Epoll];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Nginx => "nginx",
            Contender::Libevent => "libevent",
            Contender::AfXdp => "khamsin af-xdp",
            Contender::Tap => "khamsin tap",
            Contender::Epoll => "khamsin epoll",
        }
    }

    /// Why it cannot be measured here, if it cannot: a sentence that says what to do about it.
    pub(crate) fn refusal(self) -> Option<String> {
        match self {
            Contender::Nginx if !is_installed("nginx") => {
                Some("nginx is not installed (apt-get install nginx-light)".to_owned())
            }
            Contender::Libevent => libevent::program().err().map(|e| format!("{e:#}")),
            Contender::Tap => Rung::Tap.refusal(),
            _ => None,
        }
    }

    /// Whether its TCP is the kernel's.
    pub(crate) fn is_on_kernel_sockets(self) -> bool {
        matches!(self, Contender::Nginx | Contender::Libevent | Contender::Epoll)
    }

    /// Whether it has an echo at port 7.
    pub(crate) fn echoes(self) -> bool {
        self != Contender::Nginx
    }

    /// The address that it serves.
    pub(crate) fn address(self) -> &'static str {
        if self.is_on_kernel_sockets() { KERNEL_V4 } else { STACK_V4 }
    }

    fn rung(self) -> Option<Rung> {
        match self {
            Contender::AfXdp => Some(Rung::XdpNative),
            Contender::Tap => Some(Rung::Tap),
            Contender::Epoll => Some(Rung::EpollLevel),
            Contender::Nginx | Contender::Libevent => None,
        }
    }

    /// Starts it in the server's namespace of `bed` and waits until it serves `/small` of `root`.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn start(self, bed: &Bed, root: &Path, room: Room, poll: &str) -> Result<Started> {
        let started = match self.rung() {
            Some(rung) => Started::Khamsin(khamsin(rung, bed, root, room, poll)?),
            None if self == Contender::Nginx => Started::Nginx(Nginx::start(bed, root, room.processes as usize)?),
            None => {
                let mut command = bed.server.command(&libevent::program()?.to_string_lossy());
                command.arg(room.processes.to_string()).arg(root);
                let mut running = Running::start(command, None)?;
                running.await_output("ready", Duration::from_secs(10))?;
                Started::Libevent(running)
            }
        };
        let address = SocketAddr::new(self.address().parse()?, 80);
        wait_for("a first page", Duration::from_secs(10), || {
            bed.client().enter(move || Ok(fetch(address).ok().map(drop)))?
        })
        .with_context(|| self.to_string())?;
        Ok(started)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn khamsin(rung: Rung, bed: &Bed, root: &Path, room: Room, poll: &str) -> Result<Vec<Server>> {
    let connections = room.connections.to_string();
    if rung.has_own_stack() {
        return Ok(vec![Server::with(rung, bed, root, &["--connections", &connections, "--poll", poll])?]);
    }
    // Two workers share the port, and so do two processes then.
    let workers = if room.processes > 1 { "2" } else { "1" };
    let more = ["--connections", &connections, "--workers", workers];
    (0..room.processes).map(|_| Server::with(rung, bed, root, &more)).collect()
}

/// A server that runs. Dropping it ends it.
pub(crate) enum Started {
    Nginx(Nginx),
    Libevent(Running),
    Khamsin(Vec<Server>),
}

impl Started {
    /// All its processes.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        match self {
            Started::Nginx(nginx) => nginx.pids(),
            Started::Libevent(running) => family(running.id()),
            Started::Khamsin(servers) => Ok(servers.iter().map(Server::id).collect()),
        }
    }
}
