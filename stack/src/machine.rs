//! smoltcp behind the gate: the state machine and the receive buffer of a connection, and nothing on the wire.
//!
//! One shared `Interface` without addresses (`any_ip`), one one-slot `SocketSet` for each connection. smoltcp is fed
//! segments that the gate has judged, over a device whose transmit side is a scratch buffer: what smoltcp would say is an
//! opinion ([`Reply`]), the gate writes the segment. It never sees a byte of what we send, so none of its timers,
//! retransmissions or window probes can start; its clock stands still for the same reason.
//!
//! Line numbers in comments are of smoltcp 0.14.0, `src/socket/tcp.rs`.

use crate::FlowKey;
use crate::limits::{Limits, RX_BUFFER};
use crate::wire::{self, Flags};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as Frozen;
use smoltcp::wire::HardwareAddress;

/// smoltcp's only time. With it no timer of smoltcp ever fires: the gate owns them all.
const NOW: Frozen = Frozen::from_millis_const(1000);
const NO_OPTIONS: &[u8] = &[];

/// One recycled socket and its receive buffer. Lives as long as the process; connections come and go in it.
pub(crate) struct Unit {
    set: SocketSet<'static>,
}

impl Unit {
    #[inline]
    fn socket(&self) -> &tcp::Socket<'static> {
        self.set.get(SocketHandle::default())
    }

    #[inline]
    fn socket_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(SocketHandle::default())
    }

    /// Where the connection stands, as the gate needs to know it.
    #[inline]
    pub(crate) fn state(&self) -> tcp::State {
        self.socket().state()
    }

    /// Bytes received in order and not yet read.
    #[inline]
    pub(crate) fn unread(&self) -> usize {
        self.socket().recv_queue()
    }

    /// Whether the peer's FIN has been taken, in order.
    #[inline]
    pub(crate) fn peer_finished(&self) -> bool {
        use tcp::State::*;
        matches!(self.state(), CloseWait | LastAck | Closing | TimeWait)
    }

    /// Shows the unread bytes, of which there must be some, in one piece to `read` and takes away as many as it says.
    #[inline]
    pub(crate) fn recv(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize {
        let taken = self.socket_mut().recv(|bytes| {
            let n = read(bytes).min(bytes.len());
            (n, n)
        });
        taken.unwrap_or(0)
    }

    /// Our side has sent its FIN: from now on smoltcp accepts an acknowledgement of it.
    pub(crate) fn close(&mut self) {
        self.socket_mut().close();
    }

    /// Forgets the connection. `listen` (in [`Machine::open`]) resets what is left.
    pub(crate) fn recycle(&mut self) {
        self.socket_mut().abort();
    }
}

/// Where units come from: leaked, so that sockets may borrow their buffers for ever without `unsafe`.
pub(crate) struct Arena {
    storage: core::slice::ChunksMut<'static, SocketStorage<'static>>,
    /// Sockets that are not in `storage` yet. An empty one is not all zeros: memory for all of them would be in use from the
    /// start.
    sockets: usize,
    buffers: Vec<core::slice::ChunksExactMut<'static, u8>>,
}

/// Bytes of a socket in its one-slot set.
pub(crate) const SOCKET: usize = size_of::<SocketStorage<'static>>();

/// Receive buffers in one allocation, 64 MiB: larger than the 32 MiB above which glibc always maps an allocation on its own
/// (`DEFAULT_MMAP_THRESHOLD_MAX`), so that its pages stay untouched, and unpaid for, until a connection uses them.
const BUFFERS_IN_CHUNK: usize = 1024;
/// Sockets in one allocation.
const SOCKETS_IN_CHUNK: usize = 64;

impl Arena {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut left = limits.units();
        let mut buffers = Vec::new();
        while left > 0 {
            let n = left.min(BUFFERS_IN_CHUNK);
            buffers.push(vec![0u8; n * RX_BUFFER].leak().chunks_exact_mut(RX_BUFFER));
            left -= n;
        }
        Arena { storage: [].chunks_mut(1), sockets: limits.units(), buffers }
    }

    fn slot(&mut self) -> Option<&'static mut [SocketStorage<'static>]> {
        if self.storage.len() == 0 && self.sockets > 0 {
            let n = self.sockets.min(SOCKETS_IN_CHUNK);
            let mut more: Vec<SocketStorage<'static>> = Vec::new();
            more.resize_with(n, || SocketStorage::EMPTY);
            self.storage = more.leak().chunks_mut(1);
            self.sockets -= n;
        }
        self.storage.next()
    }

    /// A unit never used before; `None` when all are out.
    pub(crate) fn unit(&mut self) -> Option<Unit> {
        let slot = self.slot()?;
        let buffer = loop {
            match self.buffers.last_mut()?.next() {
                Some(buffer) => break buffer,
                None => drop(self.buffers.pop()),
            }
        };
        let empty: &'static mut [u8] = &mut [];
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(buffer), tcp::SocketBuffer::new(empty));
        // The gate owns the timing of ACKs: whenever smoltcp is asked, it is to answer at once.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let mut set = SocketSet::new(slot);
        set.add(socket);
        Some(Unit { set })
    }
}

/// What smoltcp would have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Acknowledgement number: the next byte it waits for.
    pub(crate) ack: u32,
    /// Window it remembers having offered, in bytes (its scale is 0: see `limits::RX_BUFFER`).
    pub(crate) window: u16,
    /// Its own sequence number; only meaningful on a SYN.
    seq: u32,
    pub(crate) flags: Flags,
}

/// What smoltcp must know of a finished handshake.
pub(crate) struct Handshake<'a> {
    pub(crate) key: &'a FlowKey,
    /// The peer's initial sequence number.
    pub(crate) irs: u32,
}

/// The one `Interface` of a shard.
pub(crate) struct Machine {
    iface: Interface,
    caps: DeviceCapabilities,
    said: Scratch,
    seed: u64,
}

/// smoltcp refused a handshake that the SYN table had accepted; the connection cannot be opened.
#[derive(Debug)]
pub(crate) struct Refused;

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        // Packets here are super-frames at most, and never leave: no MTU applies.
        caps.max_transmission_unit = 65_535;
        caps.checksum = ChecksumCapabilities::ignored();
        let mut said = Scratch::default();
        let iface = interface(&caps, &mut said, seed);
        Machine { iface, caps, said, seed }
    }

    /// After a panic inside smoltcp: with `Medium::Ip` an `Interface` holds no state worth saving.
    pub(crate) fn rebuild(&mut self) {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.iface = interface(&self.caps, &mut self.said, self.seed);
    }

    /// Passes one IP packet to the connection in `unit` and returns what smoltcp answers.
    #[inline]
    pub(crate) fn feed(&mut self, unit: &mut Unit, packet: &[u8]) -> Option<Reply> {
        self.said.len = 0;
        let mut device = OneFrame { packet: Some(packet), said: &mut self.said, caps: &self.caps };
        self.iface.poll_ingress_single(NOW, &mut device, &mut unit.set);
        self.said.reply()
    }

    /// Asks smoltcp what it would send now. It answers when data has arrived since it last spoke, or when its window
    /// has at least doubled (2415), and remembers the window that it names.
    pub(crate) fn ask(&mut self, unit: &mut Unit) -> Option<Reply> {
        self.said.len = 0;
        let mut device = OneFrame { packet: None, said: &mut self.said, caps: &self.caps };
        self.iface.poll_egress(NOW, &mut device, &mut unit.set);
        self.said.reply()
    }

    /// Brings a fresh or recycled unit to ESTABLISHED by replaying the handshake. Returns smoltcp's own next sequence
    /// number: the acknowledgement that every later segment must carry for it.
    pub(crate) fn open(&mut self, unit: &mut Unit, handshake: &Handshake<'_>) -> Result<u32, Refused> {
        let key = handshake.key;
        unit.recycle();
        unit.socket_mut().listen(key.local_port).map_err(|_| Refused)?;
        let mut packet = [0u8; 128];
        // Window scale 0 lets smoltcp keep its window as it is.
        let n = wire::synthetic(key, handshake.irs, None, Flags::SYN, u16::MAX, &[3, 3, 0, 0], &mut packet);
        self.feed(unit, &packet[..n]);
        let syn_ack = self.ask(unit).ok_or(Refused)?;
        let next = syn_ack.seq.wrapping_add(1);
        let first = handshake.irs.wrapping_add(1);
        let n = wire::synthetic(key, first, Some(next), Flags::ACK, u16::MAX, NO_OPTIONS, &mut packet);
        self.feed(unit, &packet[..n]);
        if unit.state() == tcp::State::Established { Ok(next) } else { Err(Refused) }
    }
}

fn interface(caps: &DeviceCapabilities, said: &mut Scratch, seed: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut device = OneFrame { packet: None, said, caps };
    let mut iface = Interface::new(config, &mut device, NOW);
    iface.set_any_ip(true);
    iface
}

/// Where smoltcp writes: large enough for headers, which is all it ever has to say.
struct Scratch {
    bytes: [u8; 160],
    len: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { bytes: [0; 160], len: 0 }
    }
}

impl Scratch {
    #[inline]
    fn reply(&self) -> Option<Reply> {
        if self.len == 0 {
            return None;
        }
        let packet = &self.bytes[..self.len];
        let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let tcp = packet.get(header..)?;
        let fixed: &[u8; 20] = tcp.first_chunk()?;
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, flags, w0, w1, ..] = *fixed;
        Some(Reply {
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            window: u16::from_be_bytes([w0, w1]),
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            flags: Flags(flags),
        })
    }
}

struct OneFrame<'a> {
    packet: Option<&'a [u8]>,
    said: &'a mut Scratch,
    caps: &'a DeviceCapabilities,
}

struct Received<'a>(&'a [u8]);
struct Say<'a>(&'a mut Scratch);

impl RxToken for Received<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Say<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let len = len.min(self.0.bytes.len());
        self.0.len = len;
        f(&mut self.0.bytes[..len])
    }
}

impl Device for OneFrame<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Say<'t>
    where
        Self: 't;

    #[inline]
    fn receive(&mut self, _: Frozen) -> Option<(Received<'_>, Say<'_>)> {
        Some((Received(self.packet.take()?), Say(self.said)))
    }

    #[inline]
    fn transmit(&mut self, _: Frozen) -> Option<Say<'_>> {
        Some(Say(self.said))
    }

    #[inline]
    fn capabilities(&self) -> DeviceCapabilities {
        self.caps.clone()
    }
}
