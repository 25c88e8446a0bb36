//! Hosts applications over kernel sockets: the rung that works everywhere.
//!
//! A [`Host`] is one worker's world, as a shard is on the bypass rungs, and keeps the promises written on
//! [`App`](khamsin_stack::App). Workers share nothing: each has its own listening sockets (`SO_REUSEPORT`), its own epoll
//! instance, buffers and counters. A loop is `wait`, then `turn(now, app)`; a worker that polls instead of sleeping waits
//! for no time at all.
//!
//! Both readiness modes of epoll(7) are real. *Level*: the kernel repeats what is still so; the host asks only for what it
//! would act on, because input that the application does not want yet would keep the loop spinning. *Edge*: the kernel
//! says a change once; the host remembers it until the call that proves it used up (EAGAIN, or a read or write that fell
//! short), and puts a connection whose budget for a turn ended earlier on a list of its own.

mod descriptors;
mod host;
mod link;
mod listen;
mod outbox;
mod socket;

pub use descriptors::raise_descriptor_limit;
pub use host::Host;

use khamsin_stack::Listener;
use std::io;
use std::net::SocketAddr;

/// How epoll tells of readiness.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Trigger {
    /// As long as it is so.
    Level,
    /// Once for each change (`EPOLLET`).
    #[default]
    Edge,
}

/// What a [`Host`] listens on and how much it holds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on, and whose they are. Port 0 lets the kernel choose: [`Host::local_addrs`] says what. An IPv6
    /// wildcard also takes IPv4 unless an IPv4 listener with the same port is named.
    pub listeners: Vec<(SocketAddr, Listener)>,
    /// How epoll tells of readiness.
    pub trigger: Trigger,
    /// Most connections at a time; further ones are reset and counted.
    pub connections: usize,
    /// Most connections of one source, an IPv4 address or an IPv6 /64; 0: as many as there are. Further ones are reset and
    /// counted.
    pub per_source: usize,
    /// The kernel's name of the congestion control to use, such as `cubic`; `None`: whatever the kernel uses.
    pub congestion: Option<&'static str>,
    /// Lets the other workers of this process listen on the same addresses; the kernel spreads connections over them.
    pub reuse_port: bool,
}

/// Why a host could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody listens there already.
    #[error("wanted to listen on {0}, but the address is in use: stop the other server or choose another port")]
    InUse(SocketAddr),
    /// The port is privileged.
    #[error(
        "wanted to listen on {0}, but this process may not: choose a port above 1023 or grant CAP_NET_BIND_SERVICE"
    )]
    Forbidden(SocketAddr),
    /// The kernel does not own the address.
    #[error(
        "wanted to listen on {0}, but this machine does not own that address: add it to an interface, or choose another"
    )]
    NotOurs(SocketAddr),
    /// The kernel refused a step that normally succeeds.
    #[error("wanted to listen on {address}, but {step} failed: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No epoll instance, or no descriptor for it.
    #[error("wanted an epoll instance, but {step} failed: {source}; raise the limit on open files (ulimit -n)")]
    Epoll {
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
