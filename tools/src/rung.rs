//! The rungs of the ladder as the wire tests stand on them: the bed and the options of each.

use crate::bed::{Bed, KERNEL_V4, KERNEL_V6, SERVER_LINK, STACK_V4, STACK_V6};
use crate::command::is_installed;
use anyhow::Result;
use std::fmt;
use std::path::Path;

/// A way to reach the network, chosen outright: nothing here climbs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// A TAP device that the server makes.
    Tap,
    /// AF_XDP in veth's driver.
    XdpNative,
    /// AF_XDP in the kernel's generic hook.
    XdpGeneric,
    /// A ring of packet sockets.
    Packet,
    /// Kernel sockets, level-triggered.
    EpollLevel,
    /// Kernel sockets, edge-triggered.
    EpollEdge,
}

impl Rung {
    /// All of them.
    pub const ALL: [Rung; 6] =
        [Rung::XdpNative, Rung::XdpGeneric, Rung::Packet, Rung::Tap, Rung::EpollLevel, Rung::EpollEdge];

    /// The name that a test goes by.
    pub const fn name(self) -> &'static str {
        match self {
            Rung::Tap => "tap",
            Rung::XdpNative => "af-xdp-native",
            Rung::XdpGeneric => "af-xdp-generic",
            Rung::Packet => "af-packet",
            Rung::EpollLevel => "epoll-level",
            Rung::EpollEdge => "epoll-edge",
        }
    }

    /// What the ready line must say.
    pub const fn word(self) -> &'static str {
        match self {
            Rung::EpollLevel | Rung::EpollEdge => "epoll",
            _ => self.name(),
        }
    }

    /// Whether the stack is khamsin's own.
    pub const fn has_own_stack(self) -> bool {
        !matches!(self, Rung::EpollLevel | Rung::EpollEdge)
    }

    /// The address that clients connect to.
    pub const fn v4(self) -> &'static str {
        if self.has_own_stack() { STACK_V4 } else { KERNEL_V4 }
    }

    /// The IPv6 address that clients connect to.
    pub const fn v6(self) -> &'static str {
        if self.has_own_stack() { STACK_V6 } else { KERNEL_V6 }
    }

    /// The options that put a server on this rung in [`Rung::bed`].
    pub fn options(self) -> Vec<String> {
        let own = format!("--interface {SERVER_LINK} --address {STACK_V4}/24 --address {STACK_V6}/64");
        let kernel = format!("--address {KERNEL_V4}/24 --address {KERNEL_V6}/64");
        let line = match self {
            Rung::Tap => format!("--backend tap --address {STACK_V4}/24 --address {STACK_V6}/64"),
            Rung::XdpNative => format!("--backend af-xdp --xdp-mode native --require af-xdp-native {own}"),
            Rung::XdpGeneric => format!("--backend af-xdp --xdp-mode generic {own}"),
            Rung::Packet => format!("--backend af-packet {own}"),
            Rung::EpollLevel => format!("--backend epoll --trigger level {kernel}"),
            Rung::EpollEdge => format!("--backend epoll --trigger edge {kernel}"),
        };
        line.split(' ').map(str::to_owned).collect()
    }

    /// Where it is tested.
    ///
    /// # Errors
    /// The bed cannot be made.
    pub fn bed(self) -> Result<Bed> {
        match self {
            Rung::Tap => Bed::alone(),
            Rung::XdpGeneric => {
                let bed = Bed::veth(1)?;
                bed.client_segmentation(false)?;
                Ok(bed)
            }
            _ => Bed::veth(1),
        }
    }

    /// Why it cannot be tested on this machine, if it cannot.
    pub fn refusal(self) -> Option<String> {
        match self {
            Rung::Tap if !Path::new("/dev/net/tun").exists() => Some("there is no /dev/net/tun".to_owned()),
            Rung::XdpGeneric if !is_installed("ethtool") => {
                Some("`ethtool` is not installed (apt-get install ethtool)".to_owned())
            }
            _ => None,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
