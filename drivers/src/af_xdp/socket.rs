//! The AF_XDP socket and its mappings: what the kernel is asked for, one function for each request.
//!
//! Follows Documentation/networking/af_xdp.rst and net/xdp/xsk.c of Linux 6.18.
//!
//! This file contains `unsafe` code: mmap, munmap and the calls that no crate wraps.
#![allow(unsafe_code)]

use super::ring::{Consumer, Parts, Producer};
use super::supply::Supply;
use super::umem::{Rings, Umem};
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h, known from Linux 6.17 on.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// Where a limit on locked memory shows.
pub(super) const REGISTER: &str = "registering memory for frames";
const HUGE_PAGE: usize = 2 << 20;

/// Memory from mmap, given back when dropped.
pub(super) struct Mapping {
    /// What mmap returned.
    whole: NonNull<u8>,
    whole_len: usize,
    /// The part that is used: aligned to a huge page where there is one.
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory of the process; who may access which part is settled by its users.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared reference gives out nothing but the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` zeroed bytes that are present: from huge pages where the machine has some set aside, else ordinary ones with
    /// the wish for transparent huge pages.
    pub(super) fn anonymous(len: usize) -> Result<Self, Errno> {
        let (read_write, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        if len.is_multiple_of(HUGE_PAGE) {
            // SAFETY: a fresh mapping at an address of the kernel's choice.
            let huge = unsafe {
                rustix::mm::mmap_anonymous(
                    ptr::null_mut(),
                    len,
                    read_write,
                    private | MapFlags::HUGETLB | MapFlags::POPULATE,
                )
            };
            if let Some(whole) = huge.ok().and_then(|p| NonNull::new(p.cast())) {
                return Ok(Mapping { whole, whole_len: len, base: whole, len });
            }
        }
        let whole_len = len + HUGE_PAGE;
        // SAFETY: as above.
        let whole = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), whole_len, read_write, private)? };
        let whole: NonNull<u8> = NonNull::new(whole.cast()).ok_or(Errno::NOMEM)?;
        let skip = whole.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: the mapping is one huge page longer than `len`, and `skip` is less than a huge page.
        let mapping = Mapping { whole, whole_len, base: unsafe { whole.add(skip) }, len };
        // Both are wishes: an old kernel refuses them, and the pages then come one by one as they are touched.
        for advice in [Advice::LinuxHugepage, Advice::LinuxPopulateWrite] {
            // SAFETY: the range is inside the mapping made above, which nobody uses yet.
            let _ = unsafe { rustix::mm::madvise(mapping.base.as_ptr().cast(), len, advice) };
        }
        Ok(mapping)
    }

    /// `len` bytes of what the kernel shows of a descriptor from `offset` on.
    pub(super) fn shared(fd: BorrowedFd<'_>, len: usize, offset: u64) -> Result<Self, Errno> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base =
            unsafe { rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, fd, offset)? };
        let whole: NonNull<u8> = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Mapping { whole, whole_len: len, base: whole, len })
    }

    /// The first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that mmap returned; whoever used it is gone, or leaked the mapping (`Umem::drop`).
        let _ = unsafe { rustix::mm::munmap(self.whole.as_ptr().cast(), self.whole_len) };
    }
}

/// Entries of each ring, powers of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSizes {
    pub(super) fill: u32,
    pub(super) completion: u32,
    pub(super) rx: u32,
    pub(super) tx: u32,
}

/// An AF_XDP socket.
pub(super) struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Socket {
    pub(super) fn new() -> Result<Self, Errno> {
        let fd = rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Socket(fd))
    }

    /// Makes `memory` the socket's UMEM, in chunks of `chunk_size` bytes, and maps the four rings. The kernel pins the pages.
    ///
    /// # Errors
    /// What was asked of the kernel, and what it said.
    pub(super) fn umem(
        &self,
        memory: Mapping,
        chunk_size: u32,
        sizes: RingSizes,
        supply: Supply,
    ) -> Result<Umem<Mapping>, (&'static str, Errno)> {
        let umem = XdpUmemReg {
            addr: memory.base().as_ptr() as u64,
            len: memory.len() as u64,
            chunk_size,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(self, umem).map_err(|e| (REGISTER, e))?;
        let rings = self.rings(sizes).map_err(|e| ("making the rings", e))?;
        // SAFETY: the rings are of this socket, the memory was registered with it just now, a socket takes one registration
        // only, and the kernel keeps to the protocol that the contract describes.
        Ok(unsafe { Umem::new(memory, chunk_size, supply, rings) })
    }

    fn rings(&self, sizes: RingSizes) -> Result<Rings<Mapping>, Errno> {
        sockopt::set_xdp_umem_fill_ring_size(self, sizes.fill)?;
        sockopt::set_xdp_umem_completion_ring_size(self, sizes.completion)?;
        sockopt::set_xdp_rx_ring_size(self, sizes.rx)?;
        sockopt::set_xdp_tx_ring_size(self, sizes.tx)?;
        let offsets = sockopt::xdp_mmap_offsets(self)?;
        let (fill, fill_map) = self.map(&offsets.fr, sizes.fill, libc::XDP_UMEM_PGOFF_FILL_RING)?;
        let (completion, completion_map) =
            self.map(&offsets.cr, sizes.completion, libc::XDP_UMEM_PGOFF_COMPLETION_RING)?;
        let (rx, rx_map) = self.map(&offsets.rx, sizes.rx, libc::XDP_PGOFF_RX_RING as u64)?;
        let (tx, tx_map) = self.map(&offsets.tx, sizes.tx, libc::XDP_PGOFF_TX_RING as u64)?;
        // SAFETY: `map` made pointers into mappings that the halves keep, with the offsets that the kernel gave for rings
        // of these sizes; the kernel is the only other side, and each half is made once for a socket that is ours alone.
        // Descriptors are plain integers: every bit pattern is one.
        unsafe {
            Ok(Rings {
                fill: Producer::new(fill, fill_map),
                completion: Consumer::new(completion, completion_map),
                rx: Consumer::new(rx, rx_map),
                tx: Producer::new(tx, tx_map),
            })
        }
    }

    fn map<T>(&self, offset: &XdpRingOffset, size: u32, page_offset: u64) -> Result<(Parts<T>, Mapping), Errno> {
        // Kernels before 5.4 have no flags and no wakeup protocol.
        let flags = offset.flags.ok_or(Errno::NOTSUP)?;
        let len = offset.desc as usize + size as usize * size_of::<T>();
        let mapping = Mapping::shared(self.as_fd(), len, page_offset)?;
        for part in [offset.producer, offset.consumer, flags] {
            if part as usize + size_of::<AtomicU32>() > len || !part.is_multiple_of(align_of::<AtomicU32>() as u64) {
                return Err(Errno::PROTO);
            }
        }
        let base = mapping.base();
        // SAFETY: the offsets were just checked against the length of the mapping, which is page-aligned.
        let parts = unsafe {
            Parts {
                producer: base.add(offset.producer as usize).cast(),
                consumer: base.add(offset.consumer as usize).cast(),
                flags: base.add(flags as usize).cast(),
                entries: base.add(offset.desc as usize).cast(),
                size,
            }
        };
        Ok((parts, mapping))
    }

    /// Lets one system call send `frames` frames instead of 32. False where the kernel does not know the wish.
    pub(super) fn set_tx_budget(&self, frames: u32) -> bool {
        set_option(&self.0, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &frames).is_ok()
    }

    /// Bytes of packets that may be on their way through the kernel at once (copy mode).
    pub(super) fn set_send_buffer(&self, bytes: usize) {
        if sockopt::set_socket_send_buffer_size_force(self, bytes).is_err() {
            // Without CAP_NET_ADMIN: as much as net.core.wmem_max allows.
            let _ = sockopt::set_socket_send_buffer_size(self, bytes);
        }
    }

    pub(super) fn bind(&self, interface_index: u32, queue: u32, zero_copy: bool) -> Result<(), Errno> {
        // Never leave the choice to the kernel: with a generic program it may choose zero-copy and then receive nothing.
        let copy = if zero_copy { SocketAddrXdpFlags::XDP_ZEROCOPY } else { SocketAddrXdpFlags::XDP_COPY };
        let address = SocketAddrXdp::new(copy | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP, interface_index, queue);
        rustix::net::bind(self, &address)
    }

    /// Asks the kernel to work on the TX ring.
    #[inline]
    pub(super) fn kick_tx(&self) -> Result<(), Errno> {
        rustix::net::send(self, &[], SendFlags::DONTWAIT).map(drop)
    }

    /// Asks the driver to work on the fill ring.
    #[inline]
    pub(super) fn kick_rx(&self) -> Result<(), Errno> {
        rustix::net::recv(self, &mut [0u8; 0][..], RecvFlags::DONTWAIT).map(drop)
    }
}

/// `struct packet_mreq` of linux/if_packet.h.
#[repr(C)]
struct Membership {
    index: libc::c_int,
    kind: u16,
    address_len: u16,
    address: [u8; 8],
}

/// The Ethernet groups that an interface receives for us, for as long as this lives. The packet socket behind it is
/// bound to no protocol and receives nothing; it stays in the network namespace that it was made in.
pub(super) struct Groups {
    socket: OwnedFd,
    interface_index: u32,
    joined: Vec<[u8; 6]>,
}

impl Groups {
    /// No group yet.
    pub(super) fn new(interface_index: u32) -> Result<Self, Errno> {
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Groups { socket, interface_index, joined: Vec::new() })
    }

    /// Joins what is new in `macs` and leaves what is not there any more.
    pub(super) fn set(&mut self, macs: Vec<[u8; 6]>) -> Result<(), Errno> {
        for mac in macs.iter().filter(|mac| !self.joined.contains(mac)) {
            self.ask(libc::PACKET_ADD_MEMBERSHIP, *mac)?;
        }
        for mac in self.joined.iter().filter(|mac| !macs.contains(mac)) {
            self.ask(libc::PACKET_DROP_MEMBERSHIP, *mac)?;
        }
        self.joined = macs;
        Ok(())
    }

    fn ask(&self, option: libc::c_int, [a, b, c, d, e, f]: [u8; 6]) -> Result<(), Errno> {
        let membership = Membership {
            index: self.interface_index as libc::c_int,
            kind: libc::PACKET_MR_MULTICAST as u16,
            address_len: 6,
            address: [a, b, c, d, e, f, 0, 0],
        };
        set_option(&self.socket, libc::SOL_PACKET, option, &membership)
    }
}

/// `value` is the structure of the option, without addresses in it.
fn set_option<T>(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: the descriptor is open; the kernel reads `size_of::<T>()` bytes of `value`, which is borrowed for the call.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const *value).cast(), size_of::<T>() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}
