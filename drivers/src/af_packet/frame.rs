//! A frame of an AF_PACKET queue: received, in its slot of the ring, or to be sent, in a buffer of the pool.

use super::ring::Slot;
use crate::pool::PoolFrame;
use crate::vnet;
use khamsin_stack::{Frame, RxChecksum};

/// The move-only right to a slot of the receive ring or to a transmit buffer.
pub struct PacketFrame(pub(super) Place);

pub(super) enum Place {
    Ring(Slot),
    Pool(PoolFrame),
}

impl PacketFrame {
    pub(super) fn set_vnet(&mut self, header: [u8; vnet::LEN]) {
        match &mut self.0 {
            Place::Ring(slot) => slot.set_vnet(header),
            Place::Pool(frame) => frame.set_vnet(header),
        }
    }

    /// The `virtio_net_hdr` and the frame in one piece.
    pub(super) fn wire(&self) -> &[u8] {
        match &self.0 {
            Place::Ring(slot) => slot.wire(),
            Place::Pool(frame) => frame.wire(),
        }
    }
}

impl Frame for PacketFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Place::Ring(slot) => slot.bytes(),
            Place::Pool(frame) => frame.bytes(),
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Place::Ring(slot) => slot.bytes_mut(),
            Place::Pool(frame) => frame.bytes_mut(),
        }
    }

    #[inline]
    fn capacity(&self) -> usize {
        match &self.0 {
            Place::Ring(slot) => slot.capacity(),
            Place::Pool(frame) => frame.capacity(),
        }
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        match &mut self.0 {
            Place::Ring(slot) => slot.set_len(len),
            Place::Pool(frame) => frame.set_len(len),
        }
    }

    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        match &self.0 {
            Place::Ring(slot) => slot.rx_checksum(),
            Place::Pool(frame) => frame.rx_checksum(),
        }
    }
}

impl core::fmt::Debug for PacketFrame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PacketFrame({} of {} bytes)", self.bytes().len(), self.capacity())
    }
}
