//! What a driver says of its own XDP support: the generic netlink family `netdev`, Linux 6.3 and later
//! (Documentation/netlink/specs/netdev.yaml, include/uapi/linux/netdev.h).

use super::{Error, Link};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

/// What a driver can do with XDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XdpFeatures {
    /// Programs run in the driver and can redirect, which AF_XDP needs (native mode).
    pub native: bool,
    /// The device writes into an AF_XDP socket's own memory.
    pub zero_copy: bool,
    /// Frames of several buffers (jumbo frames) reach the program.
    pub multi_buffer: bool,
}

/// The features of `link`, or `None` where the kernel is too old to tell.
///
/// # Errors
/// Netlink is not to be had, or its answer made no sense.
pub fn xdp_features(link: &Link) -> Result<Option<XdpFeatures>, Error> {
    let wanted = format!("read the XDP features of {}", link.name);
    let garbled = |reason: &str| Error::Garbled { wanted: wanted.clone(), reason: reason.to_owned() };
    let open = || -> io::Result<Socket> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    };
    let socket = open().map_err(Error::Socket)?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let Some(family) = ask(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name, &wanted)? else { return Ok(None) };
    let id = find(&family, CTRL_ATTR_FAMILY_ID).and_then(|v| v.try_into().ok()).map(u16::from_ne_bytes);
    let id = id.ok_or_else(|| garbled("no family id"))?;
    let index = attribute(NETDEV_A_DEV_IFINDEX, &link.index.to_ne_bytes());
    let Some(device) = ask(&socket, id, NETDEV_CMD_DEV_GET, &index, &wanted)? else { return Ok(None) };
    let bits = find(&device, NETDEV_A_DEV_XDP_FEATURES).and_then(|v| v.try_into().ok()).map(u64::from_ne_bytes);
    let bits = bits.ok_or_else(|| garbled("no feature bits"))?;
    Ok(Some(XdpFeatures::from_bits(bits)))
}

impl XdpFeatures {
    fn from_bits(bits: u64) -> Self {
        let has = |flags| bits & flags == flags;
        XdpFeatures {
            native: has(XDP_ACT_BASIC | XDP_ACT_REDIRECT),
            zero_copy: has(XDP_ACT_BASIC | XDP_ACT_REDIRECT | XDP_ACT_XSK_ZEROCOPY),
            multi_buffer: has(XDP_ACT_RX_SG),
        }
    }
}

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const XDP_ACT_BASIC: u64 = 1;
const XDP_ACT_REDIRECT: u64 = 2;
const XDP_ACT_XSK_ZEROCOPY: u64 = 8;
const XDP_ACT_RX_SG: u64 = 32;
/// `struct nlmsghdr` and `struct genlmsghdr`, bytes.
const NETLINK_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const NLMSG_ERROR: u16 = 2;

/// One attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(4));
    bytes.extend_from_slice(&(len as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// Sends one generic netlink request and returns the attributes of its answer; `None` where the kernel knows no such
/// family, command or device.
fn ask(socket: &Socket, family: u16, command: u8, attributes: &[u8], wanted: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut request = Vec::with_capacity(NETLINK_HEADER + GENERIC_HEADER + attributes.len());
    request.extend_from_slice(&((NETLINK_HEADER + GENERIC_HEADER + attributes.len()) as u32).to_ne_bytes());
    request.extend_from_slice(&family.to_ne_bytes());
    request.extend_from_slice(&netlink_packet_core::NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[command, 1, 0, 0]);
    request.extend_from_slice(attributes);
    socket.send(&request, 0).map_err(|e| Error::from_kernel(wanted, e))?;
    let (answer, _) = socket.recv_from_full().map_err(|e| Error::from_kernel(wanted, e))?;
    let kind = answer.get(4..6).and_then(|v| v.try_into().ok()).map(u16::from_ne_bytes);
    let code = || answer.get(NETLINK_HEADER..NETLINK_HEADER + 4)?.try_into().ok().map(i32::from_ne_bytes);
    match kind {
        Some(NLMSG_ERROR) => match code().unwrap_or(0).unsigned_abs() as i32 {
            libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV => Ok(None),
            code => Err(Error::from_kernel(wanted, io::Error::from_raw_os_error(code))),
        },
        _ => Ok(answer.get(NETLINK_HEADER + GENERIC_HEADER..).map(<[u8]>::to_vec)),
    }
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *attributes {
        let (len, kind) = (u16::from_ne_bytes([a, b]) as usize, u16::from_ne_bytes([c, d]));
        if kind & 0x3fff == wanted {
            return attributes.get(4..len);
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others() {
        let bytes = [attribute(7, b"odd"), attribute(3, &9u64.to_ne_bytes())].concat();
        assert_eq!(find(&bytes, 3), Some(&9u64.to_ne_bytes()[..]));
        assert_eq!(find(&bytes, 7), Some(&b"odd"[..]));
        assert_eq!(find(&bytes, 1), None);
        for cut in 0..bytes.len() {
            // Whatever the kernel may cut, nothing panics.
            find(&bytes[..cut], 3);
        }
    }

    #[test]
    fn zero_copy_needs_redirection_too() {
        assert_eq!(XdpFeatures::from_bits(0), XdpFeatures::default());
        assert!(XdpFeatures::from_bits(XDP_ACT_BASIC | XDP_ACT_REDIRECT).native);
        assert!(!XdpFeatures::from_bits(XDP_ACT_XSK_ZEROCOPY).zero_copy);
        assert!(XdpFeatures::from_bits(0x7f).zero_copy && XdpFeatures::from_bits(0x7f).multi_buffer);
    }

    #[test]
    fn the_kernel_tells_of_loopback() {
        let Ok(lo) = super::super::by_name("lo") else {
            println!("SKIPPED: this network namespace has no lo");
            return;
        };
        match xdp_features(&lo).unwrap() {
            // Loopback has no native XDP in any kernel.
            Some(features) => assert_eq!(features, XdpFeatures::default()),
            None => println!("SKIPPED: this kernel is too old to tell of XDP features"),
        }
    }
}
