//! The queues of frames that a client can stand on, and the client run over them.

use super::{Client, Link};
use crate::load::book::Book;
use anyhow::{Context, Result, bail};
use khamsin_drivers::af_xdp::{self, Attachment, CopyMode, Mode, Steering, XdpQueue};
use khamsin_drivers::clock::Clock;
use khamsin_drivers::group::Group;
use khamsin_drivers::{af_packet, tap};
use khamsin_stack::Queue;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

/// Which queues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Device {
    /// AF_XDP on every receive queue of an interface.
    Xdp {
        /// Its name.
        interface: String,
        /// Where the program runs; `None`: the best place that the interface has.
        mode: Option<Mode>,
    },
    /// A ring of packet sockets on an interface.
    Packet {
        /// Its name.
        interface: String,
    },
    /// A TAP device of our own, on whose far side this host's kernel has the server's address.
    Tap {
        /// Its name; nothing of that name may exist.
        interface: String,
        /// The server's address.
        server: Ipv4Addr,
    },
}

/// The length of the prefix that the kernel's side of a TAP has: all of 198.18.0.0/15.
const TAP_PREFIX: u8 = 15;

/// Carries what `book` plans over `device`; gives the book back, and what the device turned out to be.
///
/// # Errors
/// The device cannot be had, or nobody answers there.
pub fn run(book: Book, device: &Device, link: Link, clock: Clock) -> Result<(Book, String)> {
    match device {
        Device::Xdp { interface, mode } => {
            let (queues, _attachment, name) = xdp(interface, *mode, &link)?;
            Ok((over(book, queues, link, clock)?, name))
        }
        Device::Packet { interface } => {
            let config = af_packet::Config::new(interface.clone(), addresses(&link));
            let queues = af_packet::open(&config, 1)?;
            Ok((over(book, queues, link, clock)?, "af-packet".into()))
        }
        Device::Tap { interface, server } => {
            let host = vec![(IpAddr::V4(*server), TAP_PREFIX)];
            let queues = tap::open(&tap::Config { name: interface.clone(), host, queues: 1 })?;
            Ok((over(book, queues, link, clock)?, "tap".into()))
        }
    }
}

fn addresses(link: &Link) -> Vec<IpAddr> {
    link.sources.iter().map(|a| IpAddr::V4(*a)).collect()
}

/// The best mode that the interface has.
fn xdp(interface: &str, mode: Option<Mode>, link: &Link) -> Result<(Vec<XdpQueue>, Attachment, String)> {
    let ways = [
        (Mode::Native, CopyMode::ZeroCopy, "af-xdp-zero-copy"),
        (Mode::Native, CopyMode::Copy, "af-xdp-native"),
        (Mode::Generic, CopyMode::Copy, "af-xdp-generic"),
    ];
    let mut refusals = Vec::new();
    for (way, copy, name) in ways.into_iter().filter(|(way, ..)| mode.is_none_or(|m| m == *way)) {
        let steering = Steering::Own { addresses: addresses(link) };
        let config =
            af_xdp::Config { interface: interface.to_owned(), mode: way, copy, steering, ..af_xdp::Config::default() };
        match af_xdp::open(&config) {
            Ok((queues, attachment)) => return Ok((queues, attachment, name.to_owned())),
            Err(error) => refusals.push(format!("{name}: {error}")),
        }
    }
    bail!("{}", refusals.join("; "))
}

/// Over one queue, or several as one.
fn over<Q: Queue + AsFd>(book: Book, mut queues: Vec<Q>, link: Link, clock: Clock) -> Result<Book> {
    let now = clock.now();
    if queues.len() == 1 {
        let queue = queues.pop().context("the device has no queue")?;
        return Client::new(book, link, &queue, now)?.run(queue, clock);
    }
    let group = Group::new(queues).context("the device has no queue")?;
    Client::new(book, link, &group, now)?.run(group, clock)
}
