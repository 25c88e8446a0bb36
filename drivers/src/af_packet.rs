//! AF_PACKET: a ring of frames that needs nothing but CAP_NET_RAW, so that it works in a default container and in an
//! unprivileged user namespace.
//!
//! The interface keeps its MAC address and the kernel keeps its own IP addresses; this socket sees a copy of what comes
//! for *our* addresses, which the kernel does not own and therefore ignores: it answers neither ARP nor TCP for them.
//! Where the host forwards ([`link::forwards_ipv4`], usual under Docker), its kernel also tries to pass these frames on,
//! in vain, and tells the sender so by ICMP; connections survive that, as a test shows, and
//! `sysctl net.ipv4.ip_forward=0` ends it.
//!
//! **Receiving** is a TPACKET_V2 ring, one slot a frame, each long enough for a super-frame of 64 KiB. The design said
//! V3, whose blocks hold frames of any length closely packed; but the kernel hands over a block when it is full or when
//! a timer of at least 1 ms ends, and wakes nobody before. Measured on veth with a kernel client that waits for each
//! answer, same program, same machine: V3 p50 1,000 us whether the server polls or spins, whether blocks are of 128 KiB
//! or 1 MiB; V2 p50 69 us sleeping in poll() and 35 us spinning (with a busy machine around them); with 64 requests in
//! flight V2 answers 1.6 times as many as V3. The price is memory: 68 KiB a slot, set aside by the kernel.
//! Frames are used where they lie and a slot goes back when its frame is released.
//!
//! **Sending** is `sendmmsg` of up to 64 frames, each behind a `virtio_net_hdr`, so that the kernel completes checksums
//! and cuts super-frames (or passes them on whole, as veth does). Measured with the whole stack and one kernel client:
//! 6 to 20 Gbit/s instead of 0.7 to 0.9, and 8,046 B answers at p50 25-31 us instead of 68-92
//! (`tests/af_packet_shard.rs`, `measure_offloads`). A transmit ring would give the same copies on veth and a completion
//! to wait for. The queueing discipline is not bypassed: bypassing saves nothing that could be measured (1.7-2.0 us a
//! frame on veth either way), loses frames where a NIC's queue is full instead of pushing back, and hides what we send
//! from tcpdump.
//!
//! `unsafe` is opened in `af_packet/ring.rs` (memory shared with the kernel) and `af_packet/socket.rs` (socket calls).

mod filter;
mod frame;
mod queue;
mod ring;
mod socket;

pub use frame::PacketFrame;
pub use queue::PacketQueue;

use crate::link::{self, Link};
use crate::pool::Pool;
use core::net::IpAddr;
use khamsin_stack::Caps;
use queue::Parts;
use ring::{Layout, RxRing};
use socket::PacketSocket;
use std::io;
use thiserror::Error;

/// Slots of the receive ring of a queue, unless the configuration says otherwise.
pub const RX_SLOTS: usize = 510;
/// Transmit buffers of a queue. They are needed only for the length of one turn; what the kernel has not room for waits
/// in them.
const TX_BUFFERS: usize = 256;
/// Longest frame sent, in bytes: what the kernel calls a legacy GSO frame, which every receiver takes.
const SEGMENT_MAX: usize = 65_535;
/// Bytes of a slot: a super-frame of 65,535 + 14 bytes, the headers before it (90) and room, in whole pages.
const SLOT_BYTES: usize = 17 * 4096;
/// Slots in a block: 255 pages, one short of what the page allocator hands out in one piece.
const SLOTS_PER_BLOCK: usize = 15;
/// Bytes asked of the kernel for what the device has not sent yet; it takes twice that, some 30 super-frames, and then
/// no more until there is room again.
const SEND_BUFFER: i32 = 1 << 20;

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name of the interface.
    pub interface: String,
    /// Our own addresses on it, which the kernel must not have. At least one.
    pub addresses: Vec<IpAddr>,
    /// Slots of the receive ring of each queue, 68 KiB each; rounded up to a multiple of 15.
    pub rx_slots: usize,
}

impl Config {
    /// The usual sizes.
    pub fn new(interface: impl Into<String>, addresses: impl Into<Vec<IpAddr>>) -> Self {
        Config { interface: interface.into(), addresses: addresses.into(), rx_slots: RX_SLOTS }
    }
}

/// Why an AF_PACKET ring could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No address.
    #[error(
        "AF_PACKET serves an address of its own on interface {interface}, and none was given: add `--address IP/LEN`"
    )]
    NoAddress {
        /// The interface asked for.
        interface: String,
    },
    /// The kernel has the address.
    #[error(
        "the kernel has {address} on {owner} and would reset our connections: choose a free address or `ip address del {address} dev {owner}`"
    )]
    KernelOwns {
        /// The address asked for.
        address: IpAddr,
        /// The interface on which the kernel has it.
        owner: String,
    },
    /// No raw sockets.
    #[error("a packet socket needs CAP_NET_RAW, which is missing: run as root, or `setcap cap_net_raw+ep` the program")]
    NotPermitted,
    /// Not an Ethernet.
    #[error(
        "interface {interface} is no Ethernet: AF_PACKET serves Ethernet interfaces such as eth0 or one end of a veth pair"
    )]
    NotEthernet {
        /// The interface asked for.
        interface: String,
    },
    /// Switched off.
    #[error("interface {interface} is down: `ip link set {interface} up`")]
    Down {
        /// The interface asked for.
        interface: String,
    },
    /// The interface could not be looked up.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The kernel said no.
    #[error(
        "could not {wanted} on interface {interface}: {source}; Linux 4.20 or newer is needed, and {memory_mib} MiB of memory a queue"
    )]
    Refused {
        /// What was wanted, as a verb phrase.
        wanted: &'static str,
        /// The interface asked for.
        interface: String,
        /// Memory of one ring, in MiB.
        memory_mib: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Opens `queues` rings on an interface. With more than one, the kernel keeps the frames of a flow on one of them
/// (`PACKET_FANOUT_HASH`).
///
/// # Errors
/// See [`OpenError`]. Nothing stays open.
pub fn open(config: &Config, queues: usize) -> Result<Vec<PacketQueue>, OpenError> {
    let interface = || config.interface.clone();
    if config.addresses.is_empty() {
        return Err(OpenError::NoAddress { interface: interface() });
    }
    let link = link::by_name(&config.interface)?;
    if link.loopback || link.mac == [0; 6] {
        return Err(OpenError::NotEthernet { interface: interface() });
    }
    if !link.up {
        return Err(OpenError::Down { interface: interface() });
    }
    for address in &config.addresses {
        if let Some(owner) = link::kernel_owner(*address)? {
            return Err(OpenError::KernelOwns { address: *address, owner });
        }
    }
    let layout = Layout {
        slot_bytes: SLOT_BYTES,
        slots_per_block: SLOTS_PER_BLOCK,
        block_bytes: SLOT_BYTES * SLOTS_PER_BLOCK,
        blocks: config.rx_slots.clamp(1, 1 << 16).div_ceil(SLOTS_PER_BLOCK),
    };
    let mut opened = Vec::with_capacity(queues);
    let mut group = None;
    for _ in 0..queues.max(1) {
        opened.push(open_one(config, &link, layout, queues > 1, &mut group)?);
    }
    // Until here every socket dropped everything: a frame that came between two of these calls would have reached
    // several queues, or the wrong one.
    let mut program = filter::program(&config.addresses);
    for queue in &opened {
        queue.socket.set_filter(&mut program).map_err(|e| refused(config, layout, "set the filter", e))?;
    }
    Ok(opened.into_iter().map(PacketQueue::new).collect())
}

fn refused(config: &Config, layout: Layout, wanted: &'static str, source: io::Error) -> OpenError {
    if source.raw_os_error() == Some(libc::EPERM) {
        return OpenError::NotPermitted;
    }
    let memory_mib = (layout.block_bytes * layout.blocks) >> 20;
    OpenError::Refused { wanted, interface: config.interface.clone(), memory_mib, source }
}

/// One queue that drops everything; joins the fanout group, or founds it where there is none yet.
fn open_one(
    config: &Config,
    link: &Link,
    layout: Layout,
    fanout: bool,
    group: &mut Option<u16>,
) -> Result<Parts, OpenError> {
    let fail = |wanted| move |e| refused(config, layout, wanted, e);
    let socket = PacketSocket::open().map_err(fail("open a packet socket"))?;
    socket.set_filter(&mut filter::nothing()).map_err(fail("set the filter"))?;
    for (option, value) in [
        (libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as i32),
        (libc::PACKET_VNET_HDR, 1),
        (libc::PACKET_RESERVE, RESERVE),
        (libc::PACKET_IGNORE_OUTGOING, 1),
    ] {
        socket.set(option, value).map_err(fail("set up the packet socket"))?;
    }
    socket.want_send_buffer(SEND_BUFFER);
    socket.set_rx_ring(layout).map_err(fail("make the receive ring"))?;
    let ring = RxRing::map(std::os::fd::AsFd::as_fd(&socket), layout).map_err(fail("map the receive ring"))?;
    socket.bind(link.index).map_err(fail("bind the packet socket"))?;
    for address in &config.addresses {
        if let IpAddr::V6(address) = address {
            for joined in [filter::solicited_node(*address), ALL_NODES] {
                socket.join(link.index, filter::ethernet_group(joined)).map_err(fail("join a multicast group"))?;
            }
        }
    }
    if fanout {
        *group = Some(join_fanout(&socket, *group).map_err(fail("join the queues"))?);
    }
    Ok(Parts {
        ring,
        socket,
        pool: Pool::new(TX_BUFFERS, SEGMENT_MAX),
        frames_max: TX_BUFFERS + layout.slots(),
        interface: link.name.clone(),
        index: link.index,
        caps: Caps {
            mac: link.mac,
            mtu: link.mtu as usize,
            rx_partial_checksums: false,
            tx_checksum: true,
            tx_segment_max: SEGMENT_MAX,
        },
    })
}

/// Two bytes that bring the IP header of a received frame to a multiple of four.
const RESERVE: i32 = 2;

const ALL_NODES: core::net::Ipv6Addr = core::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Joins the group, or founds one with a number that no other process uses; returns the number.
fn join_fanout(socket: &PacketSocket, group: Option<u16>) -> io::Result<u16> {
    let founding = if group.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    let join = |flags: u32| {
        let kind = libc::PACKET_FANOUT_HASH | founding | flags;
        socket.set(libc::PACKET_FANOUT, (kind << 16 | u32::from(group.unwrap_or(0))).cast_signed())
    };
    // Kernels before 5.11 lack the flag; there the filter drops what we send ourselves.
    if join(libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING).is_err() {
        join(0)?;
    }
    socket.fanout_group()
}
