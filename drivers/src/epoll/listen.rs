//! Listening sockets, and what to do when a connection cannot be taken.

use super::{Config, OpenError};
use khamsin_stack::Listener;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, getsockname, ipproto, listen, socket_with, sockopt,
};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Connections that the kernel holds for us until we take them; `net.core.somaxconn` cuts it.
const BACKLOG: i32 = 4096;

/// One listening socket.
pub(super) struct Port {
    pub(super) fd: OwnedFd,
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    /// Connections may wait that no further event will tell of: the last turn's budget was used up.
    pub(super) unfinished: bool,
}

/// What a call for the next connection gave.
pub(super) enum Accepted {
    /// A connection, non-blocking.
    Connection(OwnedFd, SocketAddr),
    /// Nobody waits.
    Empty,
    /// One was there and is gone.
    Gone,
    /// There was no descriptor left: one connection was taken with the reserve and reset.
    Shed,
    /// The kernel has nothing to give, not even for the reserve: try again later.
    Exhausted,
}

/// Opens every listener of `config`.
pub(super) fn open(config: &Config) -> Result<Vec<Port>, OpenError> {
    config.listeners.iter().map(|&(address, listener)| open_one(config, address, listener)).collect()
}

fn open_one(config: &Config, address: SocketAddr, listener: Listener) -> Result<Port, OpenError> {
    let failed = |step| move |e: Errno| OpenError::Listen { address, step, source: e.into() };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).map_err(failed("socket"))?;
    sockopt::set_socket_reuseaddr(&fd, true).map_err(failed("SO_REUSEADDR"))?;
    if config.reuse_port {
        sockopt::set_socket_reuseport(&fd, true).map_err(failed("SO_REUSEPORT"))?;
    }
    if address.is_ipv6() {
        let own = config.listeners.iter().any(|(other, _)| other.is_ipv4() && other.port() == address.port());
        sockopt::set_ipv6_v6only(&fd, own).map_err(failed("IPV6_V6ONLY"))?;
    }
    // Accepted sockets inherit both options, which saves two calls for each connection. Urgent data stays in line, as
    // RFC 6093 asks and as the bypass stack has it.
    sockopt::set_tcp_nodelay(&fd, true).map_err(failed("TCP_NODELAY"))?;
    sockopt::set_socket_oobinline(&fd, true).map_err(failed("SO_OOBINLINE"))?;
    if let Some(name) = config.congestion {
        sockopt::set_tcp_congestion(&fd, name).map_err(failed("TCP_CONGESTION"))?;
    }
    bind(&fd, &address).map_err(|e| match e {
        Errno::ADDRINUSE => OpenError::InUse(address),
        Errno::ACCESS | Errno::PERM => OpenError::Forbidden(address),
        Errno::ADDRNOTAVAIL => OpenError::NotOurs(address),
        e => failed("bind")(e),
    })?;
    // Two sockets may bind one address before either listens; the second listen(2) finds out.
    listen(&fd, BACKLOG).map_err(|e| match e {
        Errno::ADDRINUSE => OpenError::InUse(address),
        e => failed("listen")(e),
    })?;
    let address = getsockname(&fd).and_then(SocketAddr::try_from).map_err(|e| OpenError::Listen {
        address,
        step: "getsockname",
        source: e.into(),
    })?;
    Ok(Port { fd, listener, address, unfinished: false })
}

/// A descriptor held back, so that with every other one taken a connection can still be accepted and reset: a client that
/// is told at once is better off than one that hangs in the backlog, and the backlog's event would come again and again.
pub(super) struct Reserve(Option<OwnedFd>);

impl Reserve {
    pub(super) fn new() -> Self {
        let mut reserve = Reserve(None);
        reserve.refill();
        reserve
    }

    fn refill(&mut self) {
        if self.0.is_none() {
            self.0 = eventfd(0, EventfdFlags::CLOEXEC).ok();
        }
    }

    /// Takes the next connection of `port`.
    pub(super) fn accept(&mut self, port: &Port) -> Accepted {
        match accept_once(port) {
            Err(Errno::MFILE | Errno::NFILE) => {}
            other => return sort(other),
        }
        if self.0.take().is_none() {
            self.refill();
            return Accepted::Exhausted;
        }
        let outcome = match accept_once(port) {
            Ok((fd, _)) => {
                reset(fd);
                Accepted::Shed
            }
            Err(Errno::MFILE | Errno::NFILE) => Accepted::Exhausted,
            Err(e) => sort(Err(e)),
        };
        self.refill();
        outcome
    }
}

fn accept_once(port: &Port) -> Result<(OwnedFd, SocketAddr), Errno> {
    let (fd, peer) = acceptfrom_with(&port.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.ok_or(Errno::CONNABORTED).and_then(SocketAddr::try_from)?;
    Ok((fd, unmapped(peer)))
}

/// accept(2): errors of the new connection itself are passed on by the listening socket; they concern nobody else.
fn sort(outcome: Result<(OwnedFd, SocketAddr), Errno>) -> Accepted {
    match outcome {
        Ok((fd, peer)) => Accepted::Connection(fd, peer),
        Err(Errno::AGAIN) => Accepted::Empty,
        Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Accepted::Exhausted,
        Err(_) => Accepted::Gone,
    }
}

/// An IPv4 peer of a socket for both families is an IPv4 peer.
fn unmapped(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => peer,
        },
        SocketAddr::V4(_) => peer,
    }
}

/// Closes with RST instead of FIN: a linger time of zero discards what is unsent (tcp_close in the kernel).
pub(super) fn reset(fd: impl AsFd + Into<OwnedFd>) {
    // A socket that refuses the option is closed all the same, with a FIN.
    let _ = sockopt::set_socket_linger(&fd, Some(Duration::ZERO));
    drop(fd.into());
}
