//! A queue in memory with the faults of a real one, whose buffers are used again and counted.

use core::time::Duration;
use khamsin_stack::queue::QueueStats;
use khamsin_stack::{Caps, Frame, Queue, RxChecksum, TxOffload};
use std::collections::VecDeque;

/// Bytes of a buffer for transmission, where no fault makes it smaller.
pub const FRAME: usize = 2048;
/// Frames that the transmit ring takes in one turn.
pub const RING: usize = 256;

/// One buffer.
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    checksum: RxChecksum,
}

impl Frame for Buffer {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
    fn capacity(&self) -> usize {
        self.bytes.len()
    }
    fn set_len(&mut self, len: usize) {
        self.len = len.min(self.bytes.len());
    }
    fn rx_checksum(&self) -> RxChecksum {
        self.checksum
    }
}

/// What the stack sent.
pub struct Sent {
    /// The frame.
    pub frame: Buffer,
    /// What it left to the device.
    pub offload: TxOffload,
}

/// The queue.
pub struct Ring {
    rx: VecDeque<Buffer>,
    free: Vec<Buffer>,
    /// What was sent and not yet looked at.
    pub tx: Vec<Sent>,
    /// Buffers that the stack holds.
    pub out: usize,
    /// Frames that the transmit ring takes in the next turns, a fault; `None`: [`RING`].
    pub starved: Option<usize>,
    /// Bytes of the buffers for transmission.
    pub capacity: usize,
    room: usize,
    caps: Caps,
    /// Frames put in, taken by the stack, and sent by it, ever.
    pub fed: u64,
    /// Frames that the stack took, ever.
    pub taken: u64,
    /// Frames that the stack sent, ever.
    pub sent: u64,
}

impl Ring {
    /// An empty queue of a device that can do `caps`.
    pub fn new(caps: Caps) -> Self {
        Ring {
            rx: VecDeque::new(),
            free: Vec::new(),
            tx: Vec::new(),
            out: 0,
            starved: None,
            capacity: FRAME.max(caps.tx_segment_max).max(caps.mtu + 64),
            room: 0,
            caps,
            fed: 0,
            taken: 0,
            sent: 0,
        }
    }

    /// A buffer of `len` bytes to fill and give to [`receive`](Self::receive). What is in it means nothing.
    pub fn blank(&mut self, len: usize) -> Buffer {
        let mut buffer = self.spare(len);
        buffer.len = len;
        buffer
    }

    /// Puts a frame on the wire towards the stack.
    pub fn receive(&mut self, mut frame: Buffer, checksum: RxChecksum) {
        frame.checksum = checksum;
        self.fed += 1;
        self.rx.push_back(frame);
    }

    /// Frames on the wire towards the stack.
    pub fn waiting(&self) -> usize {
        self.rx.len()
    }

    /// Takes back what was sent and has been looked at.
    pub fn complete(&mut self, sent: Sent) {
        self.free.push(sent.frame);
    }

    fn spare(&mut self, len: usize) -> Buffer {
        let mut buffer = self.free.pop().unwrap_or(Buffer { bytes: Vec::new(), len: 0, checksum: RxChecksum::Unknown });
        if buffer.bytes.len() < len {
            buffer.bytes.resize(len, 0xaa);
        }
        buffer
    }
}

impl Queue for Ring {
    type Frame = Buffer;
    fn begin(&mut self) {
        self.room = self.starved.unwrap_or(RING);
    }
    fn rx_burst(&mut self, burst: &mut Vec<Buffer>, limit: usize) -> usize {
        let n = self.rx.len().min(limit);
        burst.extend(self.rx.drain(..n));
        self.out += n;
        self.taken += n as u64;
        n
    }
    fn alloc_tx(&mut self) -> Option<Buffer> {
        self.room = self.room.checked_sub(1)?;
        self.out += 1;
        let mut buffer = self.spare(self.capacity);
        // Super-frames pass through buffers of the same pool: the stack must see the size that it is promised.
        buffer.bytes.truncate(self.capacity);
        buffer.len = 0;
        buffer.checksum = RxChecksum::Unknown;
        Some(buffer)
    }
    fn tx(&mut self, frame: Buffer, offload: TxOffload) {
        self.out -= 1;
        self.sent += 1;
        self.tx.push(Sent { frame, offload });
    }
    fn release(&mut self, frame: Buffer) {
        self.out -= 1;
        self.free.push(frame);
    }
    fn end(&mut self) {}
    fn wait(&mut self, _: Option<Duration>) -> std::io::Result<()> {
        Ok(())
    }
    fn caps(&self) -> Caps {
        self.caps
    }
    fn stats(&self) -> QueueStats {
        QueueStats::default()
    }
}
