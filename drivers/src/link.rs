//! Network interfaces: what there is, making and changing them, and news of them; over netlink, never by calling `ip`.
//!
//! Everything here works in the network namespace of the calling thread and blocks for one kernel round trip; none of
//! it belongs on the data path, except [`Watch::poll`], which never blocks.
//! `unsafe` is opened in `link/ethtool.rs` only (one ioctl that netlink has no answer for on older kernels).

mod change;
mod error;
mod ethtool;
mod features;
mod netlink;
mod watch;

pub use change::{
    NetNs, add_address, create_veth, delete, move_to_netns, set_down, set_mac, set_master, set_mtu, set_up,
};
pub use error::Error;
pub use features::{XdpFeatures, xdp_features};
pub use watch::{LinkEvent, Watch};

use core::net::IpAddr;
use netlink::Netlink;
pub(crate) use netlink::check_name;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp};

/// Longest name of an interface, in bytes (`IFNAMSIZ` - 1).
pub const NAME_MAX: usize = 15;

/// A network interface as the kernel describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The kernel's number for it, unique in its network namespace.
    pub index: u32,
    /// Its name, such as `eth0`.
    pub name: String,
    /// MAC address; all zero where the link has none that is six bytes long.
    pub mac: [u8; 6],
    /// Largest IP packet it carries, in bytes.
    pub mtu: u32,
    /// Switched on (`IFF_UP`).
    pub up: bool,
    /// Switched on and with a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// Whether it is a loopback interface, which carries no Ethernet to anybody.
    pub loopback: bool,
    /// What kind of device it is (`veth`, `tun`, `bridge`), or else its driver (`virtio_net`, `ixgbe`), where known.
    pub kind: Option<String>,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
}

impl Link {
    /// Reads a link message; the counts of queues are those allocated.
    fn from_message(message: &LinkMessage) -> Link {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            kind: None,
            rx_queues: 1,
            tx_queues: 1,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::NumRxQueues(n) => link.rx_queues = (*n).max(1),
                LinkAttribute::NumTxQueues(n) => link.tx_queues = (*n).max(1),
                LinkAttribute::LinkInfo(infos) => link.kind = kind_of(infos),
                _ => {}
            }
        }
        link
    }

    /// Adds what only ethtool knows: the queues in use (netlink tells those allocated) and the driver's name.
    fn with_ethtool(mut self) -> Link {
        if let Some(channels) = ethtool::channels(&self.name) {
            self.rx_queues = channels.rx;
            self.tx_queues = channels.tx;
        }
        if self.kind.is_none() {
            self.kind = ethtool::driver(&self.name);
        }
        self
    }
}

fn kind_of(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// Every interface of this network namespace, in the kernel's order.
///
/// # Errors
/// Netlink is not to be had.
pub fn list() -> Result<Vec<Link>, Error> {
    let mut links = Vec::new();
    Netlink::open()?.dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        "list the interfaces",
        &mut |message| {
            if let RouteNetlinkMessage::NewLink(message) = message {
                links.push(Link::from_message(&message));
            }
        },
    )?;
    Ok(links.into_iter().map(Link::with_ethtool).collect())
}

/// The interface called `name`.
///
/// # Errors
/// [`Error::NoSuchLink`], or netlink is not to be had.
pub fn by_name(name: &str) -> Result<Link, Error> {
    netlink::check_name(name)?;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Ok(link_by(message, name)?.with_ethtool())
}

/// The link that a `GetLink` request names.
fn link_by(message: LinkMessage, name: &str) -> Result<Link, Error> {
    message_by(message, name).map(|message| Link::from_message(&message))
}

fn message_by(message: LinkMessage, name: &str) -> Result<LinkMessage, Error> {
    let answer = Netlink::open()?.ask(RouteNetlinkMessage::GetLink(message), &format!("look up interface {name}"))?;
    match answer {
        Some(RouteNetlinkMessage::NewLink(message)) => Ok(message),
        _ => Err(Error::NoSuchLink { name: name.to_owned() }),
    }
}

/// The id of the XDP program that is attached to interface `name`, in whichever mode; `None` where there is none.
///
/// # Errors
/// [`Error::NoSuchLink`], or netlink is not to be had.
pub fn xdp_program(name: &str) -> Result<Option<u32>, Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let xdp = message_by(message, name)?.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    Ok(xdp.unwrap_or_default().into_iter().find_map(|xdp| match xdp {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(id),
        _ => None,
    }))
}

/// Frames that an interface dropped since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// On the way in to the kernel.
    pub rx: u64,
    /// On the way out of the kernel.
    pub tx: u64,
}

/// What interface `name` dropped, over all its queues.
///
/// # Errors
/// [`Error::NoSuchLink`], or netlink is not to be had.
pub fn dropped(name: &str) -> Result<Dropped, Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let stats = message_by(message, name)?.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(Dropped { rx: stats.rx_dropped, tx: stats.tx_dropped }),
        _ => None,
    });
    Ok(stats.unwrap_or_default())
}

/// The addresses, each with its prefix length, that the kernel has on interface `name`.
///
/// # Errors
/// [`Error::NoSuchLink`], or netlink is not to be had.
pub fn addresses(name: &str) -> Result<Vec<(IpAddr, u8)>, Error> {
    let index = by_name(name)?.index;
    Ok(all_addresses()?.into_iter().filter(|entry| entry.0 == index).map(|entry| (entry.1, entry.2)).collect())
}

/// The name of the interface on which the kernel owns `address`, or `None` where it does not own it.
///
/// What the kernel owns it answers itself: a stack of ours on the same address would fight with it over every SYN.
///
/// # Errors
/// Netlink is not to be had.
pub fn kernel_owner(address: IpAddr) -> Result<Option<String>, Error> {
    let Some(entry) = all_addresses()?.into_iter().find(|entry| entry.1 == address) else { return Ok(None) };
    let name = list()?.into_iter().find(|link| link.index == entry.0).map(|link| link.name);
    Ok(Some(name.unwrap_or_else(|| format!("interface {}", entry.0))))
}

/// Whether the kernel forwards IPv4 packets that come in on interface `name`; false where it cannot be told.
///
/// A forwarding kernel tries to pass on what is for an address of ours that it does not own.
pub fn forwards_ipv4(name: &str) -> bool {
    let setting = check_name(name).ok().and_then(|()| {
        // The files under /proc/sys/net are those of the network namespace of the thread that opens them.
        std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/forwarding")).ok()
    });
    setting.is_some_and(|text| text.trim() == "1")
}

/// Interface index, address and prefix length of every address of this network namespace.
fn all_addresses() -> Result<Vec<(u32, IpAddr, u8)>, Error> {
    let mut found = Vec::new();
    Netlink::open()?.dump(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        "list the addresses",
        &mut |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message
                && let Some(address) = own_address(&message)
            {
                found.push((message.header.index, address, message.header.prefix_len));
            }
        },
    )?;
    Ok(found)
}

/// On a point-to-point link `IFA_ADDRESS` is the peer and `IFA_LOCAL` is ours; IPv6 has only the former.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
