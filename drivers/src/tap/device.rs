//! `/dev/net/tun`: making a TAP and its queues (Documentation/networking/tuntap.rst, linux/if_tun.h).
//!
//! `unsafe` is opened here for two ioctls, `TUNSETIFF` and `TUNSETOFFLOAD`.
#![allow(unsafe_code)]

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The device that TAPs are made with.
pub(super) const DEVICE: &str = "/dev/net/tun";

/// What the device may leave to us, and takes from us: partial checksums and TCP super-frames, with ECN marks too.
const OFFLOADS: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// Which step failed.
pub(super) enum Failed {
    /// Opening [`DEVICE`].
    Open(io::Error),
    /// Making the interface or one more queue of it.
    Make(io::Error),
    /// Asking for the offloads.
    Offload(io::Error),
}

/// Opens one queue of the TAP `name`: the first makes it, and only if nothing of that name exists.
pub(super) fn open_queue(name: &str, multi_queue: bool, first: bool) -> Result<OwnedFd, Failed> {
    let fd = open_device()?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if first {
        flags |= libc::IFF_TUN_EXCL;
    }
    set_interface(&fd, name, flags).map_err(Failed::Make)?;
    set_offloads(&fd).map_err(Failed::Offload)?;
    Ok(fd)
}

/// Makes the TAP `name`, of one queue and without offloads: what is read and written are bare frames.
pub(super) fn open_plain(name: &str) -> Result<OwnedFd, Failed> {
    let fd = open_device()?;
    set_interface(&fd, name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL).map_err(Failed::Make)?;
    Ok(fd)
}

fn open_device() -> Result<OwnedFd, Failed> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(DEVICE, flags, Mode::empty()).map_err(|e| Failed::Open(e.into()))
}

fn set_interface(fd: impl AsFd, name: &str, flags: i32) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data for which all-zero bytes are a value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()).take(crate::link::NAME_MAX) {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: `TUNSETIFF` reads one `ifreq` with a NUL-terminated name (zeroed, at most 15 of 16 bytes written) and the
    // flags, and writes the name back to it; `request` is borrowed exclusively for the call.
    unsafe { ioctl(fd, Updater::<{ libc::TUNSETIFF as Opcode }, libc::ifreq>::new(&mut request))? };
    Ok(())
}

fn set_offloads(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: `TUNSETOFFLOAD` takes its argument by value, as an integer; no memory is touched.
    unsafe { ioctl(fd, IntegerSetter::<{ libc::TUNSETOFFLOAD as Opcode }>::new_usize(OFFLOADS as usize))? };
    Ok(())
}
