//! Making interfaces and changing them (`RTM_NEWLINK`, `RTM_SETLINK`, `RTM_DELLINK`, `RTM_NEWADDR`).

use super::netlink::{Netlink, check_name};
use super::{Error, by_name};
use core::net::IpAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Most queues that [`create_veth`] makes on each end.
const VETH_QUEUES_MAX: u32 = 256;

/// Which network namespace.
#[derive(Clone, Copy, Debug)]
pub enum NetNs<'fd> {
    /// The one that the process or thread of this id lives in.
    Pid(u32),
    /// The one that this descriptor (of `/proc/PID/ns/net` or `/run/netns/NAME`) stands for.
    Fd(BorrowedFd<'fd>),
}

/// Makes a pair of Ethernet interfaces `a` and `b`, each the other's far end, with `queues` (1 to 256) queues each way.
/// Both are down.
///
/// # Errors
/// [`Error::Exists`], [`Error::NotPermitted`], [`Error::Unsupported`] and the like.
pub fn create_veth(a: &str, b: &str, queues: u32) -> Result<(), Error> {
    check_name(a)?;
    check_name(b)?;
    let queues = queues.clamp(1, VETH_QUEUES_MAX);
    let end = |name: &str| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::NumTxQueues(queues));
        message.attributes.push(LinkAttribute::NumRxQueues(queues));
        message
    };
    let mut message = end(a);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(b)))),
    ]));
    let taken = if by_name(b).is_ok() { b } else { a };
    new_link(message, NLM_F_CREATE | NLM_F_EXCL, &format!("make the veth pair {a} and {b}")).map_err(|e| e.about(taken))
}

/// Switches interface `name` on.
///
/// # Errors
/// [`Error::NoSuchLink`], [`Error::NotPermitted`] and the like.
pub fn set_up(name: &str) -> Result<(), Error> {
    set_flag(name, LinkFlags::Up, &format!("switch interface {name} on"))
}

/// Switches interface `name` off.
///
/// # Errors
/// [`Error::NoSuchLink`], [`Error::NotPermitted`] and the like.
pub fn set_down(name: &str) -> Result<(), Error> {
    set_flag(name, LinkFlags::empty(), &format!("switch interface {name} off"))
}

fn set_flag(name: &str, flags: LinkFlags, wanted: &str) -> Result<(), Error> {
    let mut message = named(name)?;
    message.header.flags = flags;
    message.header.change_mask = LinkFlags::Up;
    new_link(message, 0, wanted).map_err(|e| e.about(name))
}

/// Sets the largest IP packet that interface `name` carries, in bytes.
///
/// # Errors
/// [`Error::NoSuchLink`], [`Error::NotPermitted`], [`Error::Refused`] where the device cannot.
pub fn set_mtu(name: &str, mtu: u32) -> Result<(), Error> {
    change(name, LinkAttribute::Mtu(mtu), &format!("set the MTU of interface {name} to {mtu}"))
}

/// Sets the MAC address of interface `name`.
///
/// # Errors
/// [`Error::NoSuchLink`], [`Error::NotPermitted`], [`Error::Refused`] where the device cannot.
pub fn set_mac(name: &str, mac: [u8; 6]) -> Result<(), Error> {
    change(name, LinkAttribute::Address(mac.to_vec()), &format!("set the MAC address of interface {name}"))
}

/// Makes interface `name` a port of the bridge (or bond) `master`.
///
/// # Errors
/// [`Error::NoSuchLink`] for either, [`Error::NotPermitted`] and the like.
pub fn set_master(name: &str, master: &str) -> Result<(), Error> {
    let index = by_name(master)?.index;
    change(name, LinkAttribute::Controller(index), &format!("put interface {name} under {master}"))
}

/// Moves interface `name` into another network namespace; it loses its addresses and is down there.
///
/// # Errors
/// [`Error::NoSuchLink`], [`Error::NotPermitted`], [`Error::Refused`] where there is no such namespace.
pub fn move_to_netns(name: &str, netns: NetNs<'_>) -> Result<(), Error> {
    let attribute = match netns {
        NetNs::Pid(pid) => LinkAttribute::NetNsPid(pid),
        NetNs::Fd(fd) => LinkAttribute::NetNsFd(fd.as_raw_fd()),
    };
    change(name, attribute, &format!("move interface {name} to another network namespace"))
}

/// Removes interface `name`; of a veth pair, both ends.
///
/// # Errors
/// [`Error::NoSuchLink`], [`Error::NotPermitted`], [`Error::Unsupported`] for hardware.
pub fn delete(name: &str) -> Result<(), Error> {
    let message = named(name)?;
    let wanted = format!("remove interface {name}");
    Netlink::open()?.request(RouteNetlinkMessage::DelLink(message), 0, &wanted).map_err(|e| e.about(name))?;
    Ok(())
}

/// Gives the kernel `address`/`prefix` on interface `name`, usable at once (IPv6 without duplicate address detection).
/// An address that is there already is no error.
///
/// # Errors
/// [`Error::NoSuchLink`], [`Error::NotPermitted`], [`Error::Refused`] for a prefix longer than the address.
pub fn add_address(name: &str, address: IpAddr, prefix: u8) -> Result<(), Error> {
    let mut message = AddressMessage::default();
    message.header.index = by_name(name)?.index;
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            AddressFamily::Inet6
        }
    };
    let wanted = format!("add the address {address}/{prefix} to interface {name}");
    let added = Netlink::open()?.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, &wanted);
    match added {
        Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        Err(e) => Err(e.about(name)),
        Ok(_) => Ok(()),
    }
}

/// The start of a message about the interface called `name`.
fn named(name: &str) -> Result<LinkMessage, Error> {
    let mut message = LinkMessage::default();
    message.header.index = by_name(name)?.index;
    Ok(message)
}

fn change(name: &str, attribute: LinkAttribute, wanted: &str) -> Result<(), Error> {
    let mut message = named(name)?;
    message.attributes.push(attribute);
    new_link(message, 0, wanted).map_err(|e| e.about(name))
}

fn new_link(message: LinkMessage, flags: u16, wanted: &str) -> Result<(), Error> {
    Netlink::open()?.request(RouteNetlinkMessage::NewLink(message), flags, wanted)?;
    Ok(())
}
