//! What must be known of an interface before a socket is bound to it.

use super::attach::{CHUNK_LARGE, CHUNK_SMALL, LINK_HEADER_MAX};
use super::error::OpenError;
use super::umem::RX_HEADROOM;
use crate::link::{self, Link};
use khamsin_stack::Caps;

/// Drivers whose frames come from memory of this machine: their checksums may be partial.
const VIRTUAL_DRIVERS: [&str; 10] =
    ["veth", "tun", "bridge", "virtio_net", "netkit", "macvlan", "macvtap", "dummy", "vif", "netdevsim"];
/// Largest MTU of a veth with a native program: its bookkeeping shares the page with the frame.
const VETH_MTU_MAX: usize = 3498;

/// The interface as AF_XDP needs to know it.
pub(super) fn query(interface: &str) -> Result<Link, OpenError> {
    let device = link::by_name(interface)?;
    if device.mac == [0; 6] && !device.loopback {
        return Err(OpenError::NotEthernet { interface: interface.into() });
    }
    if device.tx_queues < device.rx_queues {
        return Err(OpenError::TransmitQueues { interface: device.name, rx: device.rx_queues, tx: device.tx_queues });
    }
    Ok(device)
}

/// The name of the driver, for decisions and sentences.
pub(super) fn driver(device: &Link) -> &str {
    device.kind.as_deref().unwrap_or("(unknown)")
}

/// Whether the driver loses its XDP program when its rings are made anew: see [`renew`](super::Attachment::renew). A list,
/// because nothing that a user may ask tells, and because a driver that resets its card whenever it is handed a program
/// would go down and up again at each.
pub(super) fn forgets_program(device: &Link) -> bool {
    driver(device) == "vmxnet3"
}

/// What a queue of the device can do.
pub(super) fn caps(device: &Link) -> Caps {
    Caps {
        mac: device.mac,
        mtu: device.mtu as usize,
        rx_partial_checksums: device.loopback || VIRTUAL_DRIVERS.contains(&driver(device)),
        tx_checksum: false,
        tx_segment_max: 0,
    }
}

/// The largest IP packet whose frame fits into a chunk behind the kernel's headroom, in bytes.
const fn room(chunk: u32) -> usize {
    (chunk - RX_HEADROOM) as usize - LINK_HEADER_MAX
}

/// The largest MTU with which every AF_XDP rung of the interface works, in bytes.
pub fn mtu_max(device: &Link) -> usize {
    if driver(device) == "veth" { VETH_MTU_MAX } else { room(CHUNK_LARGE) }
}

/// The smallest chunk, in bytes, that holds every frame of the interface behind the kernel's headroom.
pub(super) fn chunk_size(device: &Link) -> Result<u32, OpenError> {
    match device.mtu as usize {
        mtu if mtu <= room(CHUNK_SMALL) => Ok(CHUNK_SMALL),
        mtu if mtu <= room(CHUNK_LARGE) => Ok(CHUNK_LARGE),
        mtu => Err(OpenError::Mtu { interface: device.name.clone(), mtu, most: mtu_max(device) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Option<&str>, loopback: bool) -> Link {
        Link {
            index: 1,
            name: "eth0".into(),
            mac: [2; 6],
            mtu: 1500,
            up: true,
            running: true,
            loopback,
            kind: kind.map(Into::into),
            rx_queues: 1,
            tx_queues: 1,
        }
    }

    /// A damaged segment from a real network must not pass for one that was never summed.
    #[test]
    fn only_links_inside_the_machine_may_bring_partial_checksums() {
        for kind in [Some("ixgbe"), Some("mlx5_core"), Some("e1000e"), Some("ena"), Some("igb"), None] {
            assert!(!caps(&link(kind, false)).rx_partial_checksums, "{kind:?}");
        }
        for kind in VIRTUAL_DRIVERS {
            assert!(caps(&link(Some(kind), false)).rx_partial_checksums, "{kind}");
        }
        assert!(caps(&link(None, true)).rx_partial_checksums, "loopback");
    }
}
