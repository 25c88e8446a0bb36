//! The receive ring: slots of memory shared with the kernel, and the move-only right to one of them.
//!
//! `unsafe` is opened here for that memory. The protocol of a slot (TPACKET_V2, net/packet/af_packet.c): its first word,
//! the status, is 0 while the kernel may write to the slot, and has `TP_STATUS_USER` set from when the frame is complete
//! until we put 0 there again. The kernel fills slots in order and stops at one that it may not write to.
#![allow(unsafe_code)]

use crate::vnet;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use khamsin_stack::RxChecksum;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::BorrowedFd;

/// Where the slots are: blocks of memory in one piece, a whole number of slots in each, a rest that no slot uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Bytes of a slot: headers, frame and gaps. A multiple of 16.
    pub(super) slot_bytes: usize,
    pub(super) slots_per_block: usize,
    /// A multiple of the page size.
    pub(super) block_bytes: usize,
    pub(super) blocks: usize,
}

impl Layout {
    pub(super) fn slots(&self) -> usize {
        self.slots_per_block * self.blocks
    }

    fn bytes(&self) -> usize {
        self.block_bytes * self.blocks
    }

    /// Where slot `index` starts, in bytes.
    fn offset(&self, index: usize) -> usize {
        index / self.slots_per_block * self.block_bytes + index % self.slots_per_block * self.slot_bytes
    }
}

/// Tells rings apart for the life of the process, so that a slot never goes back to a ring it is not of.
static NEXT_RING: AtomicU32 = AtomicU32::new(0);

/// The reading side of a ring.
pub(super) struct RxRing {
    memory: NonNull<u8>,
    layout: Layout,
    id: u32,
    next: usize,
    /// For each slot, whether a [`Slot`] of it is out.
    held: Box<[bool]>,
    held_count: usize,
}

/// The exclusive right to one slot of a ring and the frame in it.
pub(super) struct Slot {
    /// The first byte of the frame.
    frame: NonNull<u8>,
    len: u32,
    /// Bytes from `frame` to the end of the slot.
    capacity: u32,
    index: u32,
    ring: u32,
    checksum: RxChecksum,
}

/// What the next slot holds.
pub(super) enum Next {
    /// Nothing yet.
    Empty,
    Frame(Slot),
    /// A frame that is longer than a slot, or headers that make no sense; the slot is the kernel's again.
    Unusable,
}

// SAFETY: nothing in either type is tied to a thread: the memory is a mapping of the whole process, a `RxRing` is the
// only reader of the statuses of its slots that are not held, and a `Slot` the only user of its own.
unsafe impl Send for RxRing {}
// SAFETY: as above.
unsafe impl Send for Slot {}

impl RxRing {
    /// Maps the ring that `socket` was set up with, which must be of this `layout`: the kernel refuses another size.
    pub(super) fn map(socket: BorrowedFd<'_>, layout: Layout) -> io::Result<Self> {
        // SAFETY: a null hint makes a fresh mapping, which overlaps nothing of ours.
        let memory = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                layout.bytes(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                socket,
                0,
            )?
        };
        Self::over(memory.cast(), layout)
    }

    /// A ring over memory that no kernel writes to.
    #[cfg(test)]
    fn plain(layout: Layout) -> io::Result<Self> {
        // SAFETY: as in `map`.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                layout.bytes(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        Self::over(memory.cast(), layout)
    }

    fn over(memory: *mut u8, layout: Layout) -> io::Result<Self> {
        assert!(layout.slot_bytes.is_multiple_of(16) && layout.slot_bytes >= size_of::<libc::tpacket2_hdr>() + 64);
        assert!(layout.slots_per_block * layout.slot_bytes <= layout.block_bytes && layout.slots() > 0);
        let memory = NonNull::new(memory).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(RxRing {
            memory,
            layout,
            id: NEXT_RING.fetch_add(1, Ordering::Relaxed),
            next: 0,
            held: vec![false; layout.slots()].into_boxed_slice(),
            held_count: 0,
        })
    }

    /// The start of slot `index`.
    #[inline]
    fn slot(&self, index: usize) -> NonNull<u8> {
        debug_assert!(index < self.layout.slots());
        // SAFETY: `index` is below the number of slots (`next` wraps there, and a `Slot`'s own was `next` once), and
        // every slot lies within the `bytes()` that are mapped at `memory` for as long as the ring lives.
        unsafe { self.memory.add(self.layout.offset(index)) }
    }

    /// The status word of slot `index`.
    #[inline]
    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the slot starts with the status, on a multiple of 16 bytes, mapped and initialised (the kernel hands
        // out zeroed pages) while `self` lives. Both sides use whole-word accesses, ours are atomic.
        unsafe { self.slot(index).cast::<AtomicU32>().as_ref() }
    }

    /// Whether a frame waits.
    #[inline]
    pub(super) fn ready(&self) -> bool {
        !self.held[self.next] && self.status(self.next).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Takes the next frame.
    #[inline]
    pub(super) fn take(&mut self) -> Next {
        let index = self.next;
        if self.held[index] {
            return Next::Empty;
        }
        let status = self.status(index).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return Next::Empty;
        }
        self.next = if index + 1 == self.layout.slots() { 0 } else { index + 1 };
        let base = self.slot(index);
        // SAFETY: the header lies at the start of the slot, aligned and at least that long (asserted in `over`); the
        // acquire load above saw the kernel's release of the slot, so it does not write to it until the status is 0.
        let header = unsafe { base.cast::<libc::tpacket2_hdr>().read() };
        let (mac, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        let fits = mac >= size_of::<libc::tpacket2_hdr>() + vnet::LEN + VLAN_TAG
            && len >= ETHERNET_ADDRESSES
            && mac.checked_add(len).is_some_and(|end| end <= self.layout.slot_bytes);
        if !fits || header.tp_len as usize != len {
            self.status(index).store(libc::TP_STATUS_KERNEL, Ordering::Release);
            return Next::Unusable;
        }
        self.held[index] = true;
        self.held_count += 1;
        let mut slot = Slot {
            // SAFETY: `mac` was just found to lie within the slot.
            frame: unsafe { base.add(mac) },
            len: len as u32,
            capacity: (self.layout.slot_bytes - mac) as u32,
            index: index as u32,
            ring: self.id,
            checksum: rx_checksum(status),
        };
        if status & libc::TP_STATUS_VLAN_VALID != 0 {
            let known = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
            slot.insert_vlan(if known { header.tp_vlan_tpid } else { 0x8100 }, header.tp_vlan_tci);
        }
        Next::Frame(slot)
    }

    /// Gives a slot back to the kernel. One of another ring is lost to its own, not given to this.
    #[inline]
    pub(super) fn release(&mut self, slot: Slot) {
        let index = slot.index as usize;
        debug_assert_eq!(slot.ring, self.id, "a frame went back to the wrong queue");
        if slot.ring != self.id {
            return;
        }
        self.held[index] = false;
        self.held_count -= 1;
        self.status(index).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

impl Drop for RxRing {
    fn drop(&mut self) {
        // A slot that is still out points into the memory: then it stays mapped for ever.
        if self.held_count == 0 {
            // SAFETY: the mapping is ours alone, of exactly this size, and no `Slot` and no reference points into it.
            let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.layout.bytes()) };
        }
    }
}

/// Both MAC addresses.
const ETHERNET_ADDRESSES: usize = 12;
const VLAN_TAG: usize = 4;

fn rx_checksum(status: u32) -> RxChecksum {
    if status & libc::TP_STATUS_CSUMNOTREADY != 0 {
        RxChecksum::Partial
    } else if status & libc::TP_STATUS_CSUM_VALID != 0 {
        RxChecksum::Valid
    } else {
        RxChecksum::Unknown
    }
}

impl Slot {
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `frame` lie within the slot (checked in `take`, `set_len`, `insert_vlan`), which is
        // initialised, mapped while any `Slot` of the ring is out, and ours alone: `held` lets no second `Slot` of the
        // same index exist, and the kernel leaves it alone until `release`.
        unsafe { core::slice::from_raw_parts(self.frame.as_ptr(), self.len as usize) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.frame.as_ptr(), self.len as usize) }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity as usize) as u32;
    }

    pub(super) fn rx_checksum(&self) -> RxChecksum {
        self.checksum
    }

    /// Writes the header that goes before the frame.
    pub(super) fn set_vnet(&mut self, header: [u8; vnet::LEN]) {
        // SAFETY: `take` found at least `vnet::LEN + VLAN_TAG` bytes of the slot before the frame, of which
        // `insert_vlan` takes at most `VLAN_TAG`; nothing borrows them while `self` is borrowed exclusively.
        unsafe { self.frame.sub(vnet::LEN).cast::<[u8; vnet::LEN]>().write(header) }
    }

    /// The header before the frame, and the frame.
    pub(super) fn wire(&self) -> &[u8] {
        // SAFETY: the bytes before the frame are there (see `set_vnet`) and initialised; the rest is as in `bytes`.
        unsafe { core::slice::from_raw_parts(self.frame.sub(vnet::LEN).as_ptr(), vnet::LEN + self.len as usize) }
    }

    /// Puts back the tag that the kernel took off: the addresses move four bytes to the front. At most once a frame.
    fn insert_vlan(&mut self, protocol: u16, control: u16) {
        // SAFETY: `take` found at least `VLAN_TAG` bytes of the slot before the frame, and calls this once.
        self.frame = unsafe { self.frame.sub(VLAN_TAG) };
        self.len += VLAN_TAG as u32;
        self.capacity += VLAN_TAG as u32;
        let bytes = self.bytes_mut();
        bytes.copy_within(VLAN_TAG..VLAN_TAG + ETHERNET_ADDRESSES, 0);
        bytes[12..14].copy_from_slice(&protocol.to_be_bytes());
        bytes[14..16].copy_from_slice(&control.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
