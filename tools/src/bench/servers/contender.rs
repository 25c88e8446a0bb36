//! Who is measured: servers of the same files, each at its best for this load.

use super::libevent;
use crate::contender::fetch;
use anyhow::{Context, Result};
use khamsin_tools::bed::{Bed, KERNEL_V4, STACK_V4};
use khamsin_tools::command::{Running, is_installed};
use khamsin_tools::deadline::wait_for;
use khamsin_tools::rung::Rung;
use khamsin_tools::server::Server;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

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
            None if self == Contender::Nginx => Started::Nginx(Nginx::start(bed, root, room)?),
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
            Started::Nginx(nginx) => family(nginx.running.id()),
            Started::Libevent(running) => family(running.id()),
            Started::Khamsin(servers) => Ok(servers.iter().map(Server::id).collect()),
        }
    }
}

/// A process and its children.
fn family(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(std::iter::once(pid).chain(children.split_whitespace().filter_map(|p| p.parse().ok())).collect())
}

/// nginx in the foreground, with a configuration of its own.
pub(crate) struct Nginx {
    running: Running,
    _folder: TempDir,
}

impl Nginx {
    fn start(bed: &Bed, root: &Path, room: Room) -> Result<Nginx> {
        let folder = tempfile::Builder::new().prefix("khamsin-nginx-").tempdir()?;
        let path = folder.path().join("nginx.conf");
        fs::write(&path, configuration(&folder.path().to_string_lossy(), &root.to_string_lossy(), room.processes))?;
        let mut command = bed.server.command("nginx");
        command.arg("-e").arg("stderr").arg("-p").arg(folder.path()).arg("-c").arg(&path);
        Ok(Nginx { running: Running::start(command, None)?, _folder: folder })
    }
}

/// nginx at its best for this load: files stay open, nothing is logged, connections are never closed for their age, nor
/// because nearly all that it may have are in use (more than it has descriptors for).
fn configuration(folder: &str, root: &str, workers: u32) -> String {
    format!(
        "daemon off;\nuser root;\nworker_processes {workers};\nworker_rlimit_nofile 20000;\npid {folder}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 32768; }}\n\
         http {{\n  access_log off;\n  sendfile off;\n  tcp_nodelay on;\n  keepalive_requests 1000000000;\n  keepalive_timeout 3600;\n\
         \x20 client_header_timeout 3600;\n\
         \x20 open_file_cache max=100 inactive=1h;\n  open_file_cache_valid 5s;\n  default_type application/octet-stream;\n\
         \x20 client_body_temp_path {folder}/b;\n  proxy_temp_path {folder}/p;\n  fastcgi_temp_path {folder}/f;\n\
         \x20 uwsgi_temp_path {folder}/u;\n  scgi_temp_path {folder}/s;\n\
         \x20 server {{ listen 80 backlog=8192 reuseport; root {root}; }}\n}}\n"
    )
}
