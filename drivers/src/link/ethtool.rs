//! The two questions that netlink does not answer everywhere: how many queues are in use, and which driver it is.
//!
//! `unsafe` is opened here for one ioctl (`SIOCETHTOOL`; linux/ethtool.h). No privilege is needed for either question.
#![allow(unsafe_code)]

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::os::fd::{AsRawFd, OwnedFd};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// Queues in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Channels {
    pub(super) rx: u32,
    pub(super) tx: u32,
}

/// `struct ethtool_channels`: command, four maxima, then receive, transmit, other and combined.
type RawChannels = [u32; 9];
/// `struct ethtool_drvinfo` is 196 bytes: the command, then the driver's name in 32 bytes.
type RawDriver = [u32; 49];

/// Queues in use on `name`; `None` where the device has no such notion.
pub(super) fn channels(name: &str) -> Option<Channels> {
    let mut raw: RawChannels = [0; 9];
    raw[0] = ETHTOOL_GCHANNELS;
    ask(name, &mut raw)?;
    let [_, _, _, _, _, rx, tx, _, combined] = raw;
    (rx + combined > 0).then(|| Channels { rx: rx + combined, tx: (tx + combined).max(1) })
}

/// The name of the driver of `name`.
pub(super) fn driver(name: &str) -> Option<String> {
    let mut raw: RawDriver = [0; 49];
    raw[0] = ETHTOOL_GDRVINFO;
    ask(name, &mut raw)?;
    let bytes: Vec<u8> = raw[1..9].iter().flat_map(|w| w.to_ne_bytes()).take_while(|b| *b != 0).collect();
    String::from_utf8(bytes).ok().filter(|s| !s.is_empty())
}

/// `N` words are the whole of the structure that the command in the first word names.
fn ask<const N: usize>(name: &str, raw: &mut [u32; N]) -> Option<()> {
    let socket: OwnedFd = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    // SAFETY: `ifreq` is plain data for which all-zero bytes are a value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()).take(super::NAME_MAX) {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_data = raw.as_mut_ptr().cast();
    // SAFETY: the socket is open; `request` is a whole `ifreq` with a NUL-terminated name (it was zeroed and at most
    // 15 of 16 bytes written); its data pointer is to `raw`, exclusively borrowed for the call. The kernel writes
    // `struct ethtool_channels` (36 bytes) or `struct ethtool_drvinfo` (196 bytes), as the first word says, and the
    // two callers pass arrays of exactly these sizes.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    (done == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_neither_and_nothing_is_invented() {
        assert_eq!(channels("lo"), None);
        assert_eq!(channels("kh-not-there"), None);
        assert_eq!(driver("kh-not-there"), None);
    }
}
