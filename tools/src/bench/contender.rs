//! Who is measured: a server that serves the same files in the same namespace.

use crate::Options;
use crate::nginx::Nginx;
use anyhow::{Context, Result};
use khamsin::output::note;
use khamsin_tools::bed::{Bed, KERNEL_V4, STACK_V4};
use khamsin_tools::command::is_installed;
use khamsin_tools::deadline::wait_for;
use khamsin_tools::pages::Pages;
use khamsin_tools::rung::Rung;
use khamsin_tools::server::Server;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contender {
    /// nginx on kernel sockets.
    Nginx,
    /// khamsin over AF_XDP in veth's driver.
    AfXdp,
    /// khamsin on kernel sockets.
    Epoll,
}

impl Contender {
    /// Those that can be measured here; nginx is left out, with a word, where it is not installed.
    pub(crate) fn here() -> Vec<Contender> {
        let mut all = vec![Contender::AfXdp, Contender::Epoll];
        if is_installed("nginx") {
            all.insert(0, Contender::Nginx);
        } else {
            note("nginx is not installed (apt-get install nginx-light): measured without it");
        }
        all
    }

    /// The address that it serves.
    pub(crate) fn address(self) -> &'static str {
        if self == Contender::AfXdp { STACK_V4 } else { KERNEL_V4 }
    }

    /// Starts it with `workers` workers and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn start(self, bed: &Bed, pages: &Pages, workers: usize, options: &Options) -> Result<Started> {
        let count = workers.to_string();
        let started = match self {
            Contender::Nginx => Started::Nginx(Nginx::start(bed, pages.path(), workers)?),
            Contender::AfXdp => {
                let more = ["--workers", &count, "--poll", &options.poll];
                Started::Khamsin(Server::with(Rung::XdpNative, bed, pages.path(), &more)?)
            }
            Contender::Epoll => {
                Started::Khamsin(Server::with(Rung::EpollLevel, bed, pages.path(), &["--workers", &count])?)
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
        f.pad(match self {
            Contender::Nginx => "nginx",
            Contender::AfXdp => "khamsin af-xdp-native",
            Contender::Epoll => "khamsin epoll",
        })
    }
}

/// Gets `/small` once over a fresh connection.
///
/// # Errors
/// No connection, or no answer of 200 within a second.
pub(crate) fn fetch(address: SocketAddr) -> Result<Vec<u8>> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 "), "another answer than 200");
    Ok(answer)
}

/// A server that runs. Dropping it ends it.
pub(crate) enum Started {
    Nginx(Nginx),
    Khamsin(Server),
}

impl Started {
    /// The process that holds the connections' memory, where it is one.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Started::Nginx(nginx) => nginx.id(),
            Started::Khamsin(server) => server.id(),
        }
    }

    /// Pins all its threads to one core.
    ///
    /// # Errors
    /// `taskset` is missing or refuses.
    pub(crate) fn pin(&self, bed: &Bed, core: usize) -> Result<()> {
        let pids = match self {
            Started::Nginx(nginx) => nginx.pids()?,
            Started::Khamsin(server) => vec![server.id()],
        };
        for pid in pids {
            let arguments = ["-a", "-p", "-c", &core.to_string(), &pid.to_string()];
            bed.server.run("taskset", &arguments, Duration::from_secs(5))?;
        }
        Ok(())
    }
}
