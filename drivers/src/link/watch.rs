//! News of one interface (`RTMGRP_LINK`). poll() on an AF_XDP or packet socket is silent when its interface goes away
//! (AF_XDP.md, trap 6): a worker that sleeps must watch here too.

use super::netlink::messages;
use super::{Error, Link, by_name, link_by};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// `RTMGRP_LINK` of linux/rtnetlink.h.
const RTMGRP_LINK: u32 = 1;
/// Datagrams read by one call of [`Watch::poll`] before it returns, event or not.
const READS_PER_POLL: usize = 1024;

/// What became of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// It is gone: removed, or moved to another network namespace. Nothing follows.
    Removed,
    /// It was switched off or lost its carrier.
    Down,
    /// It is on and has a carrier again.
    Up,
    /// It now carries IP packets of this many bytes.
    MtuChanged(u32),
    /// It has another MAC address.
    MacChanged([u8; 6]),
    /// It now receives on this many queues.
    QueuesChanged(u32),
}

/// A subscription to the news of one interface.
pub struct Watch {
    socket: Socket,
    link: Link,
    gone: bool,
    /// The kernel dropped news because we were slow; what still waits is older than what was dropped.
    overrun: bool,
    events: VecDeque<LinkEvent>,
}

impl Watch {
    /// Watches interface `name`; events are told against its state now.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`], or netlink is not to be had.
    pub fn new(name: &str) -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, RTMGRP_LINK))?;
            Ok(socket)
        };
        // Subscribe first: what changes between the two calls is told twice rather than never.
        let socket = open().map_err(Error::Socket)?;
        let link = by_name(name)?;
        Ok(Watch { socket, link, gone: false, overrun: false, events: VecDeque::new() })
    }

    /// The interface as of the latest event told or waiting.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The next event, or `None` when nothing (more) happened. Never blocks.
    pub fn poll(&mut self) -> Option<LinkEvent> {
        for _ in 0..READS_PER_POLL {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.socket.recv_from_full() {
                Ok((bytes, _)) if !self.overrun => self.read(&bytes),
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => self.overrun = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.overrun => {
                    self.overrun = false;
                    self.look_again();
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// Looks whether the interface still receives on as many queues; no news of the kernel's tells of that, so whoever wants
    /// to know asks now and then. What it finds is the next event.
    pub fn check_queues(&mut self) {
        let Ok(now) = by_name(&self.link.name) else { return };
        if !self.gone && now.index == self.link.index && now.rx_queues != self.link.rx_queues {
            self.link.rx_queues = now.rx_queues;
            self.events.push_back(LinkEvent::QueuesChanged(now.rx_queues));
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        for message in messages(bytes) {
            // What this build cannot read may be about our link as well.
            let Ok(message) = message else { return self.look_again() };
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(m)) if m.header.index == self.link.index => {
                    self.compare(Link::from_message(&m));
                }
                // A bridge tells the departure of a port in its own address family.
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(m))
                    if m.header.index == self.link.index && m.header.interface_family == AddressFamily::Unspec =>
                {
                    self.removed();
                }
                _ => {}
            }
        }
    }

    /// Compares with what is now, where the news cannot be had.
    fn look_again(&mut self) {
        let mut message = LinkMessage::default();
        message.header.index = self.link.index;
        match link_by(message, &self.link.name) {
            Ok(link) => self.compare(link),
            Err(Error::NoSuchLink { .. }) => self.removed(),
            Err(_) => {}
        }
    }

    fn compare(&mut self, now: Link) {
        if self.gone {
            return;
        }
        if now.running != self.link.running {
            self.events.push_back(if now.running { LinkEvent::Up } else { LinkEvent::Down });
        }
        // Messages of other address families carry neither.
        if now.mtu != 0 && now.mtu != self.link.mtu {
            self.events.push_back(LinkEvent::MtuChanged(now.mtu));
            self.link.mtu = now.mtu;
        }
        if now.mac != [0; 6] && now.mac != self.link.mac {
            self.events.push_back(LinkEvent::MacChanged(now.mac));
            self.link.mac = now.mac;
        }
        (self.link.up, self.link.running) = (now.up, now.running);
    }

    fn removed(&mut self) {
        if !self.gone {
            self.gone = true;
            (self.link.up, self.link.running) = (false, false);
            self.events.push_back(LinkEvent::Removed);
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl core::fmt::Debug for Watch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Watch").field("link", &self.link).field("gone", &self.gone).finish_non_exhaustive()
    }
}
