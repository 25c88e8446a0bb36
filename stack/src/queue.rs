//! What the stack asks of a source and sink of frames.
//!
//! A [`Queue`] is one receive and one transmit ring of one interface, or anything that looks like it. The contract of
//! a turn is `begin`, then any mix of `rx_burst`, `alloc_tx`, `tx` and `release`, then `end`: implementations reap
//! completions in `begin`, and publish, refill and kick once in `end`.

use crate::Instant;
use core::time::Duration;

/// Frames that one call of [`Queue::rx_burst`] takes at most.
pub const BURST: usize = 64;

/// What is known of the TCP or ICMP checksum of a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RxChecksum {
    /// Nothing: the stack verifies it.
    #[default]
    Unknown,
    /// The sender left it to hardware that never saw the frame (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, `TP_STATUS_CSUMNOTREADY`):
    /// the field holds the pseudo-header sum, the bytes never left this machine, there is nothing to verify.
    Partial,
    /// The device or the kernel verified it.
    Valid,
}

/// The move-only right to one buffer and the bytes of one Ethernet frame in it.
///
/// Dropping a frame without giving it back to its queue loses the buffer; [`Queue::release`] gives it back.
pub trait Frame {
    /// The frame, from the destination MAC on.
    fn bytes(&self) -> &[u8];
    /// The frame, from the destination MAC on.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// The longest frame this buffer can hold, in bytes.
    fn capacity(&self) -> usize;
    /// Sets the length of the frame; at most [`capacity`](Self::capacity), longer is cut. Bytes that come to light by
    /// this hold whatever a former frame left there.
    fn set_len(&mut self, len: usize);
    /// What is known of the checksum of a received frame.
    fn rx_checksum(&self) -> RxChecksum;
}

/// Work that a frame leaves to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TxOffload {
    /// Where the one's-complement sum that completes a partial TCP checksum starts, in bytes from the start of the
    /// frame: the first byte of the TCP header. The checksum field itself, 16 bytes further, holds the folded,
    /// not inverted, pseudo-header sum. `None`: the checksum is complete.
    pub checksum_start: Option<u16>,
    /// Payload bytes of each segment that the device is to cut this frame into. `None`: the frame goes as it is.
    pub segment_size: Option<u16>,
}

impl TxOffload {
    /// Nothing left to do.
    pub const NONE: TxOffload = TxOffload { checksum_start: None, segment_size: None };
}

/// What a queue's device can do. Fixed for the life of the queue, but for the MTU ([`Shard::set_mtu`](crate::Shard::set_mtu)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caps {
    /// Our MAC address on this link.
    pub mac: [u8; 6],
    /// Largest IP packet the link carries, in bytes.
    pub mtu: usize,
    /// Received TCP checksums may be partial without a sign of it (AF_XDP on veth): a field that equals the
    /// pseudo-header sum is accepted too. False on physical NICs.
    pub rx_partial_checksums: bool,
    /// The device completes TCP checksums ([`TxOffload::checksum_start`]).
    pub tx_checksum: bool,
    /// Longest frame, headers included, that the device cuts into segments ([`TxOffload::segment_size`]); 0 where it
    /// cuts none.
    pub tx_segment_max: usize,
}

/// Running totals of one queue, in frames unless a name says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames handed to the device.
    pub tx_frames: u64,
    /// Bytes handed to the device.
    pub tx_bytes: u64,
    /// Frames that the kernel dropped because we were late or the frame did not fit.
    pub rx_dropped: u64,
    /// SYNs dropped before they cost anything, because more frames wait already than are dealt with in good time. Their senders
    /// try again.
    pub rx_syns_refused: u64,
    /// Times the kernel found the fill ring (or the receive ring) without room.
    pub rx_ring_starved: u64,
    /// Descriptors that the kernel refused.
    pub invalid_descs: u64,
    /// Times [`Queue::alloc_tx`] had nothing to give.
    pub tx_exhausted: u64,
    /// Frames that the device refused on transmit.
    pub tx_errors: u64,
    /// System calls made to send, receive or wake.
    pub kicks: u64,
}

/// One receive and one transmit ring of frames.
pub trait Queue {
    /// The move-only right to a buffer of this queue.
    type Frame: Frame;

    /// Opens a turn: reaps completions so that [`alloc_tx`](Self::alloc_tx) can give their buffers out again.
    fn begin(&mut self);

    /// The time of the turn that was just opened, and how many connections have ended since the last one: for a queue that lets
    /// no more new connections in than are served in good time, and has no clock.
    fn on_turn(&mut self, now: Instant, ended: u32) {
        let _ = (now, ended);
    }

    /// Appends at most `limit` (itself at most [`BURST`]) received frames to `burst` and returns how many.
    /// `burst` has room for them: the caller keeps its capacity, so that nothing is allocated here.
    fn rx_burst(&mut self, burst: &mut Vec<Self::Frame>, limit: usize) -> usize;

    /// A buffer to write a frame into, of length 0 until [`Frame::set_len`]; `None` when all are in flight.
    fn alloc_tx(&mut self) -> Option<Self::Frame>;

    /// Queues a frame for transmission; it leaves at the latest in [`end`](Self::end).
    fn tx(&mut self, frame: Self::Frame, offload: TxOffload);

    /// Gives back a buffer: a received frame that has been dealt with, or an allocated one that is not needed.
    fn release(&mut self, frame: Self::Frame);

    /// Closes a turn: publishes what was queued, refills, and wakes the kernel at most once for each direction where it asks
    /// for it.
    fn end(&mut self);

    /// Sleeps until a frame is there, the doorbell of this queue's worker rings, or `timeout` is over (`None`: no limit).
    ///
    /// # Errors
    /// The device is gone (interface removed) and nothing more will come of this queue.
    fn wait(&mut self, timeout: Option<Duration>) -> std::io::Result<()>;

    /// What the device can do.
    fn caps(&self) -> Caps;

    /// Running totals.
    fn stats(&self) -> QueueStats;
}
