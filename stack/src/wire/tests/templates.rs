//! Templates: partial checksums, moving peers, bounds, and resets.

use super::checksum::{Verdict, verify_tcp};
use super::*;

fn link(vlan: VlanTags) -> LinkHeader {
    LinkHeader { dst: OUR_MAC, src: PEER_MAC, vlan }
}

#[test]
fn a_template_is_small() {
    assert!(size_of::<Template>() <= 100, "{}", size_of::<Template>());
}

#[test]
fn a_partial_checksum_is_the_pseudo_header_sum() {
    for key in [key4(), key6()] {
        let template = Template::new(&link(VlanTags::NONE), &reversed(&key));
        let mut frame = vec![0x5a; template.header_len() + 4 + 100];
        let seg = Outgoing { options: &[1, 1, 1, 0], payload_len: 100, ..ack() };
        template.write(&mut frame, &seg, TxChecksum::Partial).unwrap();
        let segment = segment_of(&frame);
        assert_eq!(verify_tcp(&frame, &segment), Verdict::PseudoHeaderOnly);
        // What the device does: sum from the TCP header on, invert, store (virtio 1.2 5.1.6.2).
        let (tcp_at, end) = (template.tcp_at(), frame.len());
        let sum = !checksum::data(&frame[tcp_at..end]);
        frame[tcp_at + 16..tcp_at + 18].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(verify_tcp(&frame, &segment), Verdict::Valid);
    }
}

#[test]
fn a_frame_of_nothing_but_zeros_has_its_checksum() {
    // The sum of sums where folding to 0 or to 0xffff makes a difference.
    let key = FlowKey { peer_port: 0, local_port: 0, ..key4() };
    for seq in [0, 1, 0xffff_ffff, 0xffff_0000, 0x1234_5678] {
        let seg = Outgoing { seq, ack: !seq, flags: Flags::default(), window: 0, ..ack() };
        let frame = frame_from_peer(&key, VlanTags::NONE, &seg, &[0; 64]);
        assert_eq!(verify_tcp(&frame, &segment_of(&frame)), Verdict::Valid);
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let template = Template::new(&link(VlanTags::NONE), &key4());
    let mut frame = vec![0; 70_000];
    let write = |seg: &Outgoing<'_>, frame: &mut [u8]| template.write(frame, seg, TxChecksum::Full);
    assert_eq!(write(&Outgoing { payload_len: 10, ..ack() }, &mut frame[..63]), None);
    assert_eq!(write(&Outgoing { payload_len: 10, ..ack() }, &mut frame[..64]), Some(64));
    assert_eq!(write(&Outgoing { options: &[1, 1, 0], ..ack() }, &mut frame), None);
    assert_eq!(write(&Outgoing { options: &[1; 44], ..ack() }, &mut frame), None);
    assert_eq!(write(&Outgoing { options: &[1; 40], ..ack() }, &mut frame), Some(94));
    assert_eq!(write(&Outgoing { payload_len: 65_496, ..ack() }, &mut frame), None);
    assert_eq!(write(&Outgoing { payload_len: 65_495, ..ack() }, &mut frame), Some(65_549));
    assert_eq!(write(&Outgoing { payload_len: usize::MAX, ..ack() }, &mut frame), None);
}

#[test]
fn a_peer_that_moves_is_noticed() {
    let tags = [VlanTags::NONE, VlanTags::dot1q(7, 0), VlanTags::dot1q(8, 0), VlanTags::dot1q(7, 0).inside(9, 0)];
    for (nth, &from) in tags.iter().enumerate() {
        // The peer's frame, and our template that answers it.
        let frame = frame_from_peer(&key4(), from, &ack(), b"");
        let seen = parse(&frame).link;
        let mut template = Template::new(&LinkHeader::answering(&seen, OUR_MAC), &key4());
        assert!(!template.link_differs(&seen));
        for (other, &vlan) in tags.iter().enumerate() {
            let moved = parse(&frame_from_peer(&key4(), vlan, &ack(), b"")).link;
            assert_eq!(template.link_differs(&moved), nth != other);
        }
        let elsewhere = LinkView { src: [2, 0, 0, 0, 0, 9], ..seen };
        assert!(template.link_differs(&elsewhere));
        template.set_link(&LinkHeader::answering(&elsewhere, OUR_MAC));
        assert!(!template.link_differs(&elsewhere));
        let mut out = [0; 100];
        let len = template.write(&mut out, &ack(), TxChecksum::Full).unwrap();
        let sent = parse(&out[..len]);
        assert_eq!((sent.link.dst, sent.link.src, sent.link.vlan), ([2, 0, 0, 0, 0, 9], OUR_MAC, from));
        assert_eq!((template.l2_len(), template.header_len()), (usize::from(seen.l2_len), len));
    }
}

#[test]
fn resets_by_the_book() {
    let seg = |flags: Flags, payload: &[u8]| {
        reset_for(&segment_of(&frame_from_peer(&key4(), VlanTags::NONE, &Outgoing { flags, ..ack() }, payload)))
    };
    // <SEQ=SEG.ACK><CTL=RST>
    let reset = seg(Flags::ACK, b"abc").unwrap();
    assert_eq!((reset.seq, reset.ack, reset.flags), (2000, 0, Flags::RST));
    assert_eq!(seg(Flags::SYN | Flags::ACK, b"").unwrap().seq, 2000);
    // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
    let reset = seg(Flags::SYN, b"").unwrap();
    assert_eq!((reset.seq, reset.ack, reset.flags), (0, 1001, Flags::RST | Flags::ACK));
    assert_eq!(seg(Flags::SYN | Flags::FIN, b"abc").unwrap().ack, 1005);
    assert_eq!(seg(Flags::FIN, b"").unwrap().ack, 1001);
    // Never answer a reset, nor a group.
    assert_eq!(seg(Flags::RST, b""), None);
    assert_eq!(seg(Flags::RST | Flags::ACK, b""), None);
    let mut broadcast = frame_from_peer(&key4(), VlanTags::NONE, &ack(), b"");
    broadcast[..6].fill(0xff);
    assert_eq!(reset_for(&segment_of(&broadcast)), None);
}
