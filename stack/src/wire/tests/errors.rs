//! ICMP errors about segments that we sent.

use super::*;

/// A frame that we sent.
fn sent(key: &FlowKey) -> Vec<u8> {
    let template = Template::new(&LinkHeader { dst: PEER_MAC, src: OUR_MAC, vlan: VlanTags::NONE }, key);
    let mut frame = vec![0; template.header_len() + 600];
    template.write(&mut frame, &Outgoing { payload_len: 600, ..ack() }, TxChecksum::Full).unwrap();
    frame
}

fn complaint4(kind: [u8; 2], word: u32, quoted: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut body = [&kind[..], &[0, 0], &word.to_be_bytes(), quoted].concat();
    let sum = !checksum::data(&body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    packet4(PROTO_ICMP, &[], &body, change)
}

fn complaint6(kind: [u8; 2], word: u32, quoted: &[u8]) -> Vec<u8> {
    let mut body = [&kind[..], &[0, 0], &word.to_be_bytes(), quoted].concat();
    let pseudo = checksum::icmp6_pseudo(&PEER_V6, &OUR_V6, body.len());
    let sum = !checksum::fold(u64::from(pseudo) + u64::from(checksum::data(&body)));
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    packet6(PROTO_ICMP6, &body, |_| {})
}

fn read(frame: &[u8]) -> Option<IcmpError> {
    icmp_error(frame, &parse(frame))
}

#[test]
fn fragmentation_needed() {
    let packet = &sent(&key4())[14..];
    let frame = complaint4([3, 4], 1400, &packet[..28], |_| {});
    let expected =
        IcmpError { key: key4(), seq: 1000, ack: None, trouble: Trouble::TooBig { mtu: 1400, quoted_len: 640 } };
    assert_eq!(read(&frame), Some(expected));
    // Whatever room was left, from the least that RFC 792 asks for.
    assert_eq!(read(&complaint4([3, 4], 1400, packet, |_| {})), Some(IcmpError { ack: Some(2000), ..expected }));
    assert_eq!(read(&complaint4([3, 4], 1400, &packet[..27], |_| {})), None);
    let mut wrong_sum = frame.clone();
    *wrong_sum.last_mut().unwrap() ^= 1;
    assert_eq!(read(&wrong_sum), None);
    let to_another = complaint4([3, 4], 1400, packet, |h| h[19] = 77);
    assert_eq!(read(&to_another), None);
    let mut udp = packet.to_vec();
    udp[9] = 17;
    assert_eq!(read(&complaint4([3, 4], 1400, &udp, |_| {})), None);
}

#[test]
fn packet_too_big() {
    let packet = &sent(&key6())[14..];
    let trouble = Trouble::TooBig { mtu: 1280, quoted_len: 660 };
    let expected = IcmpError { key: key6(), seq: 1000, ack: Some(2000), trouble };
    assert_eq!(read(&complaint6([2, 0], 1280, packet)), Some(expected));
    assert_eq!(read(&complaint6([2, 0], 1280, &packet[..48])), Some(IcmpError { ack: None, ..expected }));
    assert_eq!(read(&complaint6([2, 0], 1280, &packet[..47])), None);
}

#[test]
fn unreachable_and_expired() {
    let (four, six) = (&sent(&key4())[14..], &sent(&key6())[14..]);
    for kind in [[3, 0], [3, 1], [3, 11], [11, 0], [11, 1]] {
        assert_eq!(read(&complaint4(kind, 0, four, |_| {})).unwrap().trouble, Trouble::Unreachable);
    }
    for kind in [[1, 0], [1, 3], [3, 0]] {
        assert_eq!(read(&complaint6(kind, 0, six)).unwrap().trouble, Trouble::Unreachable);
    }
    for kind in [[3, 2], [3, 3], [3, 9], [3, 10], [3, 13], [12, 0]] {
        assert_eq!(read(&complaint4(kind, 0, four, |_| {})).unwrap().trouble, Trouble::Refused);
    }
    for kind in [[1, 1], [1, 4], [4, 1]] {
        assert_eq!(read(&complaint6(kind, 0, six)).unwrap().trouble, Trouble::Refused);
    }
    // A ping, a source quench (RFC 6633), and a frame that is no ICMP at all.
    assert_eq!(read(&complaint4([8, 0], 0, four, |_| {})), None);
    assert_eq!(read(&complaint4([4, 0], 0, four, |_| {})), None);
    assert_eq!(read(&complaint6([128, 0], 0, six)), None);
    assert_eq!(read(&sent(&key4())), None);
}
