//! The rungs of the ladder by name.

use std::fmt;

/// A way to get at frames or, on the last rung, at byte streams. The order of declaration is the order of the ladder,
/// best first, and so is `Ord`: a *smaller* rung is a *higher* one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, clap::ValueEnum)]
pub(crate) enum Rung {
    /// AF_XDP, the NIC writes into our memory.
    AfXdpZeroCopy,
    /// AF_XDP in the driver, one copy.
    AfXdpNative,
    /// AF_XDP after the driver, in the kernel's generic hook.
    AfXdpGeneric,
    /// A ring of packet sockets.
    AfPacket,
    /// A virtual interface of our own.
    Tap,
    /// Kernel sockets.
    Epoll,
}

impl Rung {
    /// Every rung, highest first.
    pub(crate) const ALL: [Rung; 6] =
        [Rung::AfXdpZeroCopy, Rung::AfXdpNative, Rung::AfXdpGeneric, Rung::AfPacket, Rung::Tap, Rung::Epoll];

    /// The name that users, scripts and logs know it by.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Rung::AfXdpZeroCopy => "af-xdp-zero-copy",
            Rung::AfXdpNative => "af-xdp-native",
            Rung::AfXdpGeneric => "af-xdp-generic",
            Rung::AfPacket => "af-packet",
            Rung::Tap => "tap",
            Rung::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn the_command_line_and_the_ready_line_use_the_same_names() {
        for rung in Rung::ALL {
            assert_eq!(rung.to_possible_value().unwrap().get_name(), rung.name());
        }
        assert_eq!(Rung::value_variants(), Rung::ALL);
    }
}
