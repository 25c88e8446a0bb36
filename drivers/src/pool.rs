//! Frames in plain memory, each with room for a `virtio_net_hdr` right before it, so that one pointer and one length
//! hand both to the kernel.

use crate::vnet;
use khamsin_stack::{Frame, RxChecksum};

/// Bytes before each frame; keeps the frame's IP header (14 bytes further) off a 4-byte boundary by two, as Ethernet
/// in memory always is, and leaves room for [`vnet::LEN`].
const HEADROOM: usize = 16;

/// A frame in a buffer of its own.
pub struct PoolFrame {
    bytes: Box<[u8]>,
    len: usize,
    checksum: RxChecksum,
}

impl PoolFrame {
    fn new(capacity: usize) -> Self {
        PoolFrame { bytes: vec![0; HEADROOM + capacity].into_boxed_slice(), len: 0, checksum: RxChecksum::Unknown }
    }

    /// Writes the header that goes before the frame.
    pub(crate) fn set_vnet(&mut self, header: [u8; vnet::LEN]) {
        self.bytes[HEADROOM - vnet::LEN..HEADROOM].copy_from_slice(&header);
    }

    /// The header that lies before the frame.
    pub(crate) fn vnet(&self) -> [u8; vnet::LEN] {
        let mut header = vnet::NONE;
        header.copy_from_slice(&self.bytes[HEADROOM - vnet::LEN..HEADROOM]);
        header
    }

    /// The header and the frame in one piece.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.bytes[HEADROOM - vnet::LEN..HEADROOM + self.len]
    }

    /// The header and all the room for a frame, in one piece, to receive into.
    pub(crate) fn wire_room(&mut self) -> &mut [u8] {
        &mut self.bytes[HEADROOM - vnet::LEN..]
    }

    /// Says what is known of the checksum.
    pub(crate) fn set_rx_checksum(&mut self, checksum: RxChecksum) {
        self.checksum = checksum;
    }
}

impl Frame for PoolFrame {
    fn bytes(&self) -> &[u8] {
        &self.bytes[HEADROOM..HEADROOM + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[HEADROOM..HEADROOM + self.len]
    }

    fn capacity(&self) -> usize {
        self.bytes.len() - HEADROOM
    }

    fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity());
    }

    fn rx_checksum(&self) -> RxChecksum {
        self.checksum
    }
}

impl core::fmt::Debug for PoolFrame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PoolFrame({} of {} bytes)", self.len, self.capacity())
    }
}

/// Buffers of one size. All are set aside at start; a page is touched when a frame first reaches into it, and the buffer
/// given back last goes out first, so that few are ever touched at light load.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<PoolFrame>,
}

impl Pool {
    pub(crate) fn new(buffers: usize, capacity: usize) -> Self {
        Pool { free: (0..buffers).map(|_| PoolFrame::new(capacity)).collect() }
    }

    /// A frame of length 0.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<PoolFrame> {
        let mut frame = self.free.pop()?;
        frame.len = 0;
        frame.checksum = RxChecksum::Unknown;
        Some(frame)
    }

    #[inline]
    pub(crate) fn give(&mut self, frame: PoolFrame) {
        // A frame of another pool would make this one grow: its list never does.
        if self.free.len() < self.free.capacity() {
            self.free.push(frame);
        }
    }

    /// Buffers that are not in use.
    #[inline]
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_and_header_lie_in_one_piece() {
        let mut pool = Pool::new(1, 100);
        let mut frame = pool.take().unwrap();
        frame.set_len(1000);
        assert_eq!(frame.bytes().len(), 100, "cut to the capacity");
        frame.set_len(3);
        frame.bytes_mut().copy_from_slice(b"abc");
        frame.set_vnet([7; vnet::LEN]);
        assert_eq!(frame.wire(), b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07abc");
        assert_eq!(frame.wire_room().len(), vnet::LEN + 100);
    }

    #[test]
    fn a_pool_ends_and_recycles_without_history() {
        let mut pool = Pool::new(2, 100);
        let mut a = pool.take().unwrap();
        let b = pool.take().unwrap();
        assert!(pool.take().is_none());
        a.set_len(50);
        a.set_rx_checksum(RxChecksum::Partial);
        pool.give(a);
        let a = pool.take().unwrap();
        assert_eq!((a.bytes().len(), a.rx_checksum()), (0, RxChecksum::Unknown));
        pool.give(a);
        pool.give(b);
        pool.give(PoolFrame::new(1));
        assert_eq!(pool.free(), 2);
    }
}
