//! What must be known of an interface before a socket is bound to it.

use super::error::OpenError;
use super::socket::{Ethtool, ethtool};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Drivers whose frames come from memory of this machine: their checksums may be partial.
const VIRTUAL_DRIVERS: [&str; 10] =
    ["veth", "tun", "bridge", "virtio_net", "netkit", "macvlan", "macvtap", "dummy", "vif", "netdevsim"];

/// One interface, as it is now.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    pub(super) mtu: usize,
    pub(super) driver: String,
    /// Queues in use.
    pub(super) rx_queues: u32,
    pub(super) tx_queues: u32,
    /// Id of the attached XDP program.
    pub(super) program_id: Option<u32>,
    /// `lo`: frames never leave the machine, whatever the driver says.
    loopback: bool,
}

impl Device {
    pub(super) fn query(interface: &str) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Interface { interface: interface.into(), source };
        let link = link(interface).map_err(failed)?;
        let Ethtool { driver, channels } = ethtool(interface).map_err(|e| failed(e.into()))?;
        let mut device = Device {
            name: interface.into(),
            index: link.header.index,
            mac: [0; 6],
            mtu: 0,
            driver,
            rx_queues: 1,
            tx_queues: 1,
            program_id: None,
            loopback: link.header.link_layer_type == LinkLayerType::Loopback,
        };
        if !device.loopback && link.header.link_layer_type != LinkLayerType::Ether {
            return Err(OpenError::NotEthernet { interface: interface.into() });
        }
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Address(mac) => device.mac = mac.try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => device.mtu = mtu as usize,
                LinkAttribute::NumRxQueues(n) => device.rx_queues = n,
                LinkAttribute::NumTxQueues(n) => device.tx_queues = n,
                LinkAttribute::Xdp(xdp) => device.program_id = program_id(&xdp),
                _ => {}
            }
        }
        // The attributes count what was set aside, the channels what is in use: only a driver without channels is
        // believed by the former.
        if let Some((rx, tx)) = channels {
            (device.rx_queues, device.tx_queues) = (rx.max(1), tx.max(1));
        }
        Ok(device)
    }

    /// Whether received TCP checksums may be partial without a sign of it.
    pub(super) fn partial_checksums(&self) -> bool {
        self.loopback || VIRTUAL_DRIVERS.contains(&self.driver.as_str())
    }
}

/// Id of the program that is attached to `interface` now.
pub(super) fn attached_program(interface: &str) -> Option<u32> {
    link(interface)
        .ok()?
        .attributes
        .iter()
        .find_map(|a| if let LinkAttribute::Xdp(x) = a { program_id(x) } else { None })
}

fn program_id(xdp: &[LinkXdp]) -> Option<u32> {
    if xdp.contains(&LinkXdp::Attached(XdpAttached::None)) {
        return None;
    }
    xdp.iter().find_map(|x| match x {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    })
}

/// One RTM_GETLINK by name, in the network namespace of this thread.
fn link(interface: &str) -> io::Result<LinkMessage> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(interface.into()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(message));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel's answer to RTM_GETLINK is no link")),
    }
}
