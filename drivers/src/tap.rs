//! TAP: an interface of the host whose far end is this process.
//!
//! The kernel keeps one address on it ("the host side") and routes to the stack's address, which lies in the same
//! network. Partial checksums and super-frames pass in both directions (`IFF_VNET_HDR`, `TUNSETOFFLOAD`); one system
//! call moves one frame. The interface vanishes with the process.
//!
//! `unsafe` is opened in `tap/device.rs` (two ioctls).

mod device;
mod queue;

pub use crate::pool::PoolFrame;
pub use queue::TapQueue;

use crate::link;
use crate::pool::Pool;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use device::{DEVICE, Failed};
use khamsin_stack::Caps;
use std::io;
use std::os::fd::OwnedFd;
use thiserror::Error;

/// Name of the interface, unless the configuration says otherwise.
pub const NAME: &str = "khamsin0";
/// The kernel's IPv4 address on it, with its prefix length.
pub const HOST_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 1), 24);
/// The stack's IPv4 address.
pub const STACK_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The kernel's IPv6 address on it, with its prefix length.
pub const HOST_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), 64);
/// The stack's IPv6 address.
pub const STACK_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Buffers of a queue, for both directions: a burst received, a burst being written, and as much again for what the
/// stack holds on to.
const BUFFERS: usize = 4 * khamsin_stack::queue::BURST;
/// Longest frame in either direction, in bytes: an IP packet of 65,535 bytes behind an Ethernet header and two tags.
const FRAME_MAX: usize = 65_535 + 14 + 8;
/// Longest frame to be cut by the kernel, in bytes: what it calls a legacy GSO frame.
const SEGMENT_MAX: usize = 65_535;
/// Most queues of a TAP (`MAX_TAP_QUEUES`, drivers/net/tun.c).
const QUEUES_MAX: usize = 256;

/// What to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name of the interface; nothing of that name may exist.
    pub name: String,
    /// The kernel's addresses on it, each with its prefix length. The stack's addresses lie in the same networks.
    pub host: Vec<(IpAddr, u8)>,
    /// Queues, 1 to 256. The kernel sends a flow's frames to the queue that last sent one of that flow.
    pub queues: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: NAME.to_owned(),
            host: vec![(HOST_V4.0.into(), HOST_V4.1), (HOST_V6.0.into(), HOST_V6.1)],
            queues: 1,
        }
    }
}

/// Why a TAP could not be made.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No such device file.
    #[error("{DEVICE} does not exist: `modprobe tun`, or `mkdir -p /dev/net && mknod {DEVICE} c 10 200`")]
    NoDevice,
    /// The device file may not be opened.
    #[error(
        "{DEVICE} may not be opened by this user: run as root, or `chmod 0666 {DEVICE}` (containers: `--device {DEVICE}`)"
    )]
    DeviceNotPermitted,
    /// The interface may not be made.
    #[error("a TAP needs CAP_NET_ADMIN, which is missing: run as root, or `setcap cap_net_admin+ep` the program")]
    NotPermitted,
    /// The name is taken.
    #[error(
        "interface {name} exists already: another khamsin may be running; stop it, `ip link del {name}`, or choose another name"
    )]
    Exists {
        /// The name asked for.
        name: String,
    },
    /// A number of queues that cannot be.
    #[error("a TAP of {queues} queues was asked for: choose 1 to {QUEUES_MAX} workers")]
    Queues {
        /// The number asked for.
        queues: usize,
    },
    /// Addresses, or switching on.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The kernel said no.
    #[error(
        "could not {wanted} TAP {name}: {source}; check that the kernel has CONFIG_TUN and, for several queues, is 3.8 or newer"
    )]
    Refused {
        /// What was wanted, as a verb phrase.
        wanted: &'static str,
        /// The name asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes the TAP, gives the kernel its addresses there and switches it on; one [`TapQueue`] for each queue.
///
/// # Errors
/// See [`OpenError`]. Nothing stays behind.
pub fn open(config: &Config) -> Result<Vec<TapQueue>, OpenError> {
    if !(1..=QUEUES_MAX).contains(&config.queues) {
        return Err(OpenError::Queues { queues: config.queues });
    }
    check_new_name(&config.name)?;
    let mut fds = Vec::with_capacity(config.queues);
    for number in 0..config.queues {
        fds.push(
            device::open_queue(&config.name, config.queues > 1, number == 0).map_err(|f| refused(&config.name, f))?,
        );
    }
    for (address, prefix) in &config.host {
        add_host_address(config, *address, *prefix)?;
    }
    link::set_up(&config.name)?;
    let link = link::by_name(&config.name)?;
    let caps = Caps {
        mac: stack_mac(&config.name, link.mac),
        mtu: link.mtu as usize,
        rx_partial_checksums: false,
        tx_checksum: true,
        tx_segment_max: SEGMENT_MAX,
    };
    let queue = |(number, fd)| TapQueue::new(fd, Pool::new(BUFFERS, FRAME_MAX), config.name.clone(), number == 0, caps);
    Ok(fds.into_iter().enumerate().map(queue).collect())
}

/// Makes a TAP of one queue without any offload, neither addressed nor up, for who wants its frames bare: each read or
/// write of the descriptor, which does not block, is one Ethernet frame. The interface vanishes with it.
///
/// # Errors
/// See [`OpenError`].
pub fn open_plain(name: &str) -> Result<OwnedFd, OpenError> {
    check_new_name(name)?;
    device::open_plain(name).map_err(|failed| refused(name, failed))
}

fn check_new_name(name: &str) -> Result<(), OpenError> {
    // The kernel would put a number for %d and call it success.
    if name.contains('%') {
        return Err(link::Error::BadName { name: name.to_owned() }.into());
    }
    Ok(link::check_name(name)?)
}

/// A host without IPv6 still serves IPv4, and the log says so.
fn add_host_address(config: &Config, address: IpAddr, prefix: u8) -> Result<(), OpenError> {
    match link::add_address(&config.name, address, prefix) {
        Err(error) if address.is_ipv6() && config.host.iter().any(|(other, _)| other.is_ipv4()) => {
            tracing::warn!("TAP {} serves IPv4 only: {error}", config.name);
            Ok(())
        }
        other => Ok(other?),
    }
}

fn refused(name: &str, failed: Failed) -> OpenError {
    let name = name.to_owned();
    match failed {
        Failed::Open(e) => match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => OpenError::NoDevice,
            Some(libc::EACCES | libc::EPERM) => OpenError::DeviceNotPermitted,
            _ => OpenError::Refused { wanted: "open the device of", name, source: e },
        },
        Failed::Make(e) => match e.raw_os_error() {
            Some(libc::EPERM) => OpenError::NotPermitted,
            Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) if link::by_name(&name).is_ok() => {
                OpenError::Exists { name }
            }
            _ => OpenError::Refused { wanted: "make", name, source: e },
        },
        Failed::Offload(e) => OpenError::Refused { wanted: "set the offloads of", name, source: e },
    }
}

/// The stack's MAC address: locally administered, the same for a name at every start so that nobody's neighbour table
/// goes stale, and never the kernel's own on the interface.
fn stack_mac(name: &str, kernel: [u8; 6]) -> [u8; 6] {
    // FNV-1a, 64 bits.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    let mac = [0x02, a, b, c, d, e];
    if mac == kernel { [0x06, a, b, c, d, e] } else { mac }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_has_a_mac_of_its_own() {
        let mac = stack_mac("khamsin0", [0; 6]);
        assert_eq!(mac, stack_mac("khamsin0", [1; 6]), "stable");
        assert_ne!(mac, stack_mac("khamsin1", [0; 6]));
        assert_eq!(mac[0] & 0b11, 0b10, "locally administered, unicast");
        let other = stack_mac("khamsin0", mac);
        assert_ne!(other, mac);
        assert_eq!(other[0] & 0b11, 0b10);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_made() {
        let open = |config| open(&config).map(drop).unwrap_err();
        assert!(matches!(open(Config { queues: 0, ..Config::default() }), OpenError::Queues { queues: 0 }));
        assert!(matches!(open(Config { queues: 257, ..Config::default() }), OpenError::Queues { .. }));
        for name in ["kh%d", "", "kh/0"] {
            assert!(matches!(open_plain(name), Err(OpenError::Link(link::Error::BadName { .. }))), "{name}");
            let config = Config { name: name.to_owned(), ..Config::default() };
            assert!(matches!(open(config), OpenError::Link(link::Error::BadName { .. })), "{name}");
        }
    }
}
