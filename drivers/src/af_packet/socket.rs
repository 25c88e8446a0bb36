//! The packet socket: its options, its filter, and sending a burst (packet(7), linux/if_packet.h).
//!
//! `unsafe` is opened here for `setsockopt`, `getsockopt`, `bind` and `sendmmsg`, for which rustix has no packet-socket
//! types.
#![allow(unsafe_code)]

use super::frame::PacketFrame;
use super::ring::Layout;
use libc::{c_int, c_uint, sock_filter, socklen_t};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Frames that one `sendmmsg` takes at most.
pub(super) const SEND_BURST: usize = 64;

/// `struct tpacket_req`.
#[repr(C)]
struct RingRequest {
    block_bytes: c_uint,
    blocks: c_uint,
    slot_bytes: c_uint,
    slots: c_uint,
}

/// `struct packet_mreq`.
#[repr(C)]
struct Membership {
    index: c_int,
    kind: u16,
    address_len: u16,
    address: [u8; 8],
}

pub(super) struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// A socket that receives nothing until it is bound.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(PacketSocket { fd: socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)? })
    }

    /// Sets an integer option of the packet level.
    pub(super) fn set(&self, option: c_int, value: c_int) -> io::Result<()> {
        self.set_raw(libc::SOL_PACKET, option, &value)
    }

    /// Makes the kernel cut the ring.
    pub(super) fn set_rx_ring(&self, layout: Layout) -> io::Result<()> {
        let request = RingRequest {
            block_bytes: layout.block_bytes as c_uint,
            blocks: layout.blocks as c_uint,
            slot_bytes: layout.slot_bytes as c_uint,
            slots: layout.slots() as c_uint,
        };
        self.set_raw(libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
    }

    /// Also receives frames to the Ethernet group `mac` on interface `index`.
    pub(super) fn join(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let [a, b, c, d, e, f] = mac;
        let membership = Membership {
            index: index as c_int,
            kind: libc::PACKET_MR_MULTICAST as u16,
            address_len: 6,
            address: [a, b, c, d, e, f, 0, 0],
        };
        self.set_raw(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
    }

    /// Replaces the filter.
    pub(super) fn set_filter(&self, program: &mut [sock_filter]) -> io::Result<()> {
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        self.set_raw(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Asks for room for `bytes` in flight; what the system allows is what we get.
    pub(super) fn want_send_buffer(&self, bytes: c_int) {
        if self.set_raw(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
            let _ = self.set_raw(libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
        }
    }

    fn set_raw<T>(&self, level: c_int, option: c_int, value: &T) -> io::Result<()> {
        // SAFETY: the descriptor is open, and the kernel reads `size_of::<T>()` bytes of `value`, which is borrowed for
        // the call. The callers pass the structure of the option; a pointer inside (the filter's) is to a slice that
        // its caller borrows for the call, of the length that stands beside it.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as socklen_t,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads an option of the packet level, as two words.
    fn read(&self, option: c_int) -> io::Result<[u32; 2]> {
        let mut value = [0u32; 2];
        let mut len = size_of_val(&value) as socklen_t;
        // SAFETY: the descriptor is open; the kernel writes at most `len` bytes to `value`, which is that long.
        let done = unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_PACKET, option, value.as_mut_ptr().cast(), &raw mut len)
        };
        if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
    }

    /// Frames dropped because the ring was full, since the last call.
    pub(super) fn take_drops(&self) -> u64 {
        self.read(libc::PACKET_STATISTICS).map_or(0, |[_, drops]| u64::from(drops))
    }

    /// The number of the fanout group that this socket is in.
    pub(super) fn fanout_group(&self) -> io::Result<u16> {
        Ok(self.read(libc::PACKET_FANOUT)?[0] as u16)
    }

    /// Starts receiving every frame of interface `index`.
    pub(super) fn bind(&self, index: u32) -> io::Result<()> {
        // SAFETY: `sockaddr_ll` is plain data for which all-zero bytes are a value.
        let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as c_int;
        // SAFETY: the descriptor is open and the kernel reads one whole `sockaddr_ll`.
        let done = unsafe {
            libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as socklen_t)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends frames, each behind its `virtio_net_hdr`, in one system call; says how many of the first it took.
    /// An error is about the first frame.
    pub(super) fn send(&self, frames: &[PacketFrame]) -> io::Result<usize> {
        let count = frames.len().min(SEND_BURST);
        // SAFETY: both are plain data for which all-zero bytes are a value.
        let (mut pieces, mut messages): ([libc::iovec; SEND_BURST], [libc::mmsghdr; SEND_BURST]) =
            unsafe { (core::mem::zeroed(), core::mem::zeroed()) };
        for ((piece, message), frame) in pieces.iter_mut().zip(&mut messages).zip(&frames[..count]) {
            let wire = frame.wire();
            *piece = libc::iovec { iov_base: wire.as_ptr().cast_mut().cast(), iov_len: wire.len() };
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the descriptor is open; the first `count` messages each point to one element of `pieces`, which
        // lives on this stack frame and does not move, and that to the bytes of a frame borrowed for the call. Sending
        // only reads them.
        let sent =
            unsafe { libc::sendmmsg(self.fd.as_raw_fd(), messages.as_mut_ptr(), count as c_uint, libc::MSG_DONTWAIT) };
        if sent >= 0 { Ok(sent as usize) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
