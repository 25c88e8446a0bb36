//! The ring over plain memory: this file plays the kernel, and an oracle counts.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const LAYOUT: Layout = Layout { slot_bytes: 512, slots_per_block: 7, block_bytes: 4096, blocks: 2 };
const MAC: usize = 76;

/// The kernel's half: writes frames in order, stops at a slot that is not its own.
struct Kernel {
    head: usize,
}

impl Kernel {
    fn put(&mut self, ring: &RxRing, frame: &[u8], status: u32, vlan: (u16, u16)) -> bool {
        let base = ring.slot(self.head);
        if ring.status(self.head).load(Ordering::Acquire) != libc::TP_STATUS_KERNEL {
            return false;
        }
        let len = frame.len() as u32;
        self.put_header(ring, len, len, MAC as u16, vlan);
        // SAFETY: the slot is the kernel's, which this is, and the frame fits behind `MAC`.
        unsafe {
            assert!(MAC + frame.len() <= LAYOUT.slot_bytes);
            base.add(MAC).copy_from_nonoverlapping(NonNull::from(frame).cast(), frame.len());
        }
        self.publish(ring, status);
        true
    }

    fn put_header(&self, ring: &RxRing, len: u32, snaplen: u32, mac: u16, vlan: (u16, u16)) {
        // SAFETY: the header fits at the start of every slot, and the slot is the kernel's.
        unsafe {
            let header = &mut *ring.slot(self.head).cast::<libc::tpacket2_hdr>().as_ptr();
            (header.tp_len, header.tp_snaplen, header.tp_mac) = (len, snaplen, mac);
            (header.tp_vlan_tpid, header.tp_vlan_tci) = vlan;
        }
    }

    fn publish(&mut self, ring: &RxRing, status: u32) {
        ring.status(self.head).store(libc::TP_STATUS_USER | status, Ordering::Release);
        self.head = (self.head + 1) % LAYOUT.slots();
    }
}

fn take(ring: &mut RxRing) -> Slot {
    match ring.take() {
        Next::Frame(slot) => slot,
        Next::Empty => panic!("empty"),
        Next::Unusable => panic!("unusable"),
    }
}

#[test]
fn frames_come_in_order_with_their_checksum_state() {
    let mut ring = RxRing::plain(LAYOUT).unwrap();
    let mut kernel = Kernel { head: 0 };
    assert!(!ring.ready());
    for (i, (status, expected)) in [
        (0, RxChecksum::Unknown),
        (libc::TP_STATUS_CSUMNOTREADY, RxChecksum::Partial),
        (libc::TP_STATUS_CSUM_VALID | libc::TP_STATUS_LOSING, RxChecksum::Valid),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(kernel.put(&ring, &[i as u8; 60], status, (0, 0)));
        assert!(ring.ready());
        let slot = take(&mut ring);
        assert_eq!((slot.bytes(), slot.rx_checksum()), (&[i as u8; 60][..], expected));
        assert_eq!(slot.capacity(), LAYOUT.slot_bytes - MAC);
        ring.release(slot);
    }
    assert!(matches!(ring.take(), Next::Empty));
}

#[test]
fn the_tag_comes_back() {
    let mut ring = RxRing::plain(LAYOUT).unwrap();
    let mut kernel = Kernel { head: 0 };
    let frame: Vec<u8> = (0..60).collect();
    kernel.put(&ring, &frame, libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID, (0x88a8, 0x2007));
    kernel.put(&ring, &frame, libc::TP_STATUS_VLAN_VALID, (0, 5));
    for tag in [[0x88, 0xa8, 0x20, 0x07], [0x81, 0x00, 0x00, 0x05]] {
        let mut slot = take(&mut ring);
        assert_eq!(slot.bytes(), [&frame[..12], &tag, &frame[12..]].concat());
        slot.set_vnet([9; vnet::LEN]);
        assert_eq!(slot.wire(), [&[9; vnet::LEN][..], &frame[..12], &tag, &frame[12..]].concat());
        ring.release(slot);
    }
}

#[test]
fn headers_that_make_no_sense_cost_their_slot_nothing() {
    let mut ring = RxRing::plain(LAYOUT).unwrap();
    let mut kernel = Kernel { head: 0 };
    for (len, snaplen, mac) in
        [(70_000, 400, 76), (60, 60, 20), (60, 60, 500), (u32::MAX, u32::MAX, 76), (11, 11, 76), (60, 60, u16::MAX)]
    {
        kernel.put_header(&ring, len, snaplen, mac, (0, 0));
        kernel.publish(&ring, libc::TP_STATUS_VLAN_VALID);
        assert!(matches!(ring.take(), Next::Unusable), "{len} {snaplen} {mac}");
    }
    assert_eq!(ring.held_count, 0);
    for i in 0..3 * LAYOUT.slots() {
        assert!(kernel.put(&ring, &[i as u8; 14], 0, (0, 0)));
        let slot = take(&mut ring);
        assert_eq!(slot.bytes(), [i as u8; 14]);
        ring.release(slot);
    }
}

#[test]
fn a_held_slot_is_not_taken_again_and_keeps_the_memory() {
    let mut ring = RxRing::plain(LAYOUT).unwrap();
    let mut kernel = Kernel { head: 0 };
    kernel.put(&ring, &[1; 60], 0, (0, 0));
    let held = take(&mut ring);
    for _ in 1..LAYOUT.slots() {
        kernel.put(&ring, &[2; 60], 0, (0, 0));
        let slot = take(&mut ring);
        ring.release(slot);
    }
    assert!(!kernel.put(&ring, &[3; 60], 0, (0, 0)), "the kernel stops at the held slot");
    assert!(!ring.ready() && matches!(ring.take(), Next::Empty), "and so do we");
    drop(ring);
    assert_eq!(held.bytes(), [1; 60], "the memory outlives the ring while a slot is out");
}

proptest! {
    /// Any mix of the kernel's puts, our takes and releases in any order: each frame once, in order, unspoilt.
    #[test]
    fn against_an_oracle(steps in proptest::collection::vec((0u8..3, any::<u8>(), 14usize..400), 1..400)) {
        let mut ring = RxRing::plain(LAYOUT).unwrap();
        let mut kernel = Kernel { head: 0 };
        let (mut waiting, mut out) = (VecDeque::new(), Vec::<(Slot, Vec<u8>)>::new());
        for (step, value, len) in steps {
            match step {
                0 => {
                    let room = waiting.len() + out.len() < LAYOUT.slots();
                    let put = kernel.put(&ring, &vec![value; len], 0, (0, 0));
                    prop_assert!(room || !put);
                    if put {
                        waiting.push_back(vec![value; len]);
                    }
                }
                1 => match (ring.take(), waiting.pop_front()) {
                    (Next::Frame(slot), Some(frame)) => {
                        prop_assert_eq!(slot.bytes(), &frame[..]);
                        out.push((slot, frame));
                    }
                    (Next::Empty, None) => {}
                    (_, expected) => prop_assert!(false, "expected {:?}", expected),
                },
                _ if out.is_empty() => {}
                _ => {
                    let (slot, frame) = out.swap_remove(usize::from(value) % out.len());
                    prop_assert_eq!(slot.bytes(), &frame[..]);
                    ring.release(slot);
                }
            }
            prop_assert_eq!(ring.held_count, out.len());
        }
        out.into_iter().for_each(|(slot, _)| ring.release(slot));
    }
}
