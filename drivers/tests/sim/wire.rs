//! Frames through a wire: time, faults, buffers, offloads.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeaderSlice, TransportSlice};
use khamsin_drivers::sim::{Fate, Side, Sighting, SimConfig, Wire};
use khamsin_stack::{Frame, Instant, Queue, TxOffload};

const fn us(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

#[test]
fn a_frame_takes_its_time() {
    let wire = Wire::new(SimConfig { latency_us: 100, ..SimConfig::default() });
    let (left, right) = (wire.end(Side::Left), wire.end(Side::Right));
    wire.advance(us(1000));
    left.send(&[1; 60]);
    left.send(&[2; 60]);
    assert_eq!(wire.next_arrival(), Some(us(1100)));
    wire.advance(us(1099));
    assert_eq!(right.recv(), None);
    wire.advance(us(1100));
    assert!(wire.has_arrived(Side::Right) && !wire.has_arrived(Side::Left));
    assert_eq!(right.recv(), Some(vec![1; 60]));
    assert_eq!(right.recv(), Some(vec![2; 60]));
    assert_eq!((right.recv(), left.recv(), wire.next_arrival()), (None, None, None));
}

#[test]
fn a_policy_decides_by_index() {
    let wire =
        Wire::with_faults(SimConfig { latency_us: 10, ..SimConfig::default() }, |seen: &Sighting<'_>| {
            match seen.index {
                0 => Fate::LOST,
                1 => Fate { delay_us: 50, ..Fate::FINE },
                2 => Fate { copy_after_us: Some(5), ..Fate::FINE },
                3 => Fate { flipped_bit: Some(9), ..Fate::FINE },
                _ => Fate::FINE,
            }
        });
    wire.record();
    let (left, right) = (wire.end(Side::Left), wire.end(Side::Right));
    for i in 0..5 {
        left.send(&[i; 20]);
    }
    wire.advance(us(1000));
    let arrived: Vec<_> = std::iter::from_fn(|| right.recv()).collect();
    let mut flipped = [3; 20];
    flipped[1] = 1;
    assert_eq!(arrived, [[2; 20], flipped, [4; 20], [2; 20], [1; 20]]);
    let stats = wire.stats(Side::Left);
    assert_eq!((stats.sent, stats.delivered, stats.lost), (5, 5, 1));
    assert_eq!((stats.duplicated, stats.delayed, stats.corrupted), (1, 1, 1));
    let recorded = wire.take_recorded();
    assert_eq!(recorded.len(), 5);
    assert!(recorded[0].lost && recorded[0].from == Side::Left && recorded[3].bytes == [3; 20]);
    wire.set_faults(|_: &Sighting<'_>| Fate::LOST);
    right.send(&[9; 20]);
    assert_eq!(wire.stats(Side::Right).lost, 1);
}

#[test]
fn the_same_seed_is_the_same_world() {
    let world = |seed| {
        let wire = Wire::new(SimConfig {
            loss_per_million: 100_000,
            duplicate_per_million: 100_000,
            reorder_per_million: 100_000,
            corrupt_per_million: 100_000,
            seed,
            ..SimConfig::default()
        });
        let (left, right) = (wire.end(Side::Left), wire.end(Side::Right));
        let mut arrived = Vec::new();
        for i in 0..200u64 {
            wire.advance(us(i * 100));
            left.send(&i.to_be_bytes());
            arrived.extend(std::iter::from_fn(|| right.recv()));
        }
        arrived
    };
    assert_eq!(world(5), world(5));
    assert_ne!(world(5), world(6));
}

#[test]
fn a_queue_keeps_its_contract() {
    let wire = Wire::new(SimConfig { tx_frames: 2, latency_us: 0, mtu: 100, ..SimConfig::default() });
    let (mut queue, end) = (wire.queue(Side::Left), wire.end(Side::Right));
    assert_eq!(queue.caps().mac, Side::Left.mac());
    queue.begin();
    let mut frame = queue.alloc_tx().unwrap();
    assert_eq!(frame.bytes(), b"");
    frame.set_len(usize::MAX);
    assert_eq!(frame.bytes().len(), 118);
    frame.bytes_mut().fill(7);
    let second = queue.alloc_tx().unwrap();
    assert!(queue.alloc_tx().is_none());
    assert_eq!((queue.stats().tx_exhausted, queue.held()), (1, 2));
    queue.tx(frame, TxOffload::NONE);
    assert!(queue.alloc_tx().is_none(), "a sent frame is in flight until the next turn");
    queue.release(second);
    queue.end();
    // One tag and 100 bytes would fit; without a tag the packet is four bytes too long.
    assert_eq!(wire.stats(Side::Left).oversize, 1);
    queue.begin();
    let mut frame = queue.alloc_tx().unwrap();
    frame.set_len(114);
    queue.tx(frame, TxOffload { checksum_start: Some(34), segment_size: None });
    assert_eq!((queue.stats().tx_errors, wire.stats(Side::Left).refused), (1, 1), "not what this device can do");
    queue.end();
    assert_eq!(queue.stats().tx_frames, 2);

    for i in 0..5 {
        end.send(&[i; 60]);
    }
    wire.advance(us(1));
    let mut burst = Vec::with_capacity(4);
    assert_eq!(queue.rx_burst(&mut burst, 4), 4);
    assert_eq!(burst[3].bytes(), [3; 60]);
    // A received frame can be turned around.
    queue.tx(burst.pop().unwrap(), TxOffload::NONE);
    burst.drain(..).for_each(|frame| queue.release(frame));
    assert_eq!(queue.rx_burst(&mut burst, 4), 1);
    assert_eq!(queue.held(), 1);
    wire.advance(us(2));
    assert_eq!(end.recv(), Some(vec![3; 60]));
    assert!(queue.wait(None).is_ok());
}

/// A frame as a host leaves it to a device that segments: `len` bytes of payload, pseudo-header sum in the checksum field.
fn super_frame(v6: bool, len: usize) -> (Vec<u8>, usize) {
    let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    let builder = PacketBuilder::ethernet2(Side::Left.mac(), Side::Right.mac());
    let builder = match v6 {
        true => builder.ipv6([1; 16], [2; 16], 64),
        false => builder.ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64),
    };
    let builder = builder.tcp(80, 5000, u32::MAX - 1000, 4096).ack(77).psh().fin();
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).unwrap();
    let start = if v6 { 54 } else { 34 };
    let tcp_len = (frame.len() - start) as u32;
    let addresses = if v6 { 22..54 } else { 26..34 };
    let mut sum = frame[addresses].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>() + 6 + tcp_len;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    frame[start + 16..start + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    (frame, start)
}

/// Sends `frame` with `offload`; what arrives at the other end.
fn through(config: SimConfig, frame: &[u8], offload: TxOffload) -> Vec<Vec<u8>> {
    let wire = Wire::new(config);
    let (mut queue, end) = (wire.queue(Side::Left), wire.end(Side::Right));
    let mut out = queue.alloc_tx().unwrap();
    out.set_len(frame.len());
    out.bytes_mut().copy_from_slice(frame);
    queue.tx(out, offload);
    wire.advance(us(1_000_000));
    std::iter::from_fn(|| end.recv()).collect()
}

/// Verifies every checksum and length with a parser that is not ours; returns the TCP header and payload.
fn verified(frame: &[u8]) -> (TcpHeaderSlice<'_>, &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
    let checksum = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap()
        }
        NetSlice::Ipv6(ip) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap(),
        NetSlice::Arp(_) => panic!("no IP"),
    };
    assert_eq!(tcp.checksum(), checksum);
    (TcpHeaderSlice::from_slice(tcp.header_slice()).unwrap(), tcp.payload())
}

#[test]
fn partial_checksums_are_completed() {
    for v6 in [false, true] {
        let (frame, start) = super_frame(v6, 333);
        let config = SimConfig { tx_checksum: true, ..SimConfig::default() };
        let offload = TxOffload { checksum_start: Some(start as u16), segment_size: None };
        let arrived = through(config, &frame, offload);
        assert_eq!(arrived.len(), 1);
        assert_eq!(verified(&arrived[0]).1.len(), 333);
    }
}

#[test]
fn super_frames_are_cut() {
    for v6 in [false, true] {
        for len in [1, 999, 1000, 1001, 60_000] {
            let (frame, start) = super_frame(v6, len);
            let config = SimConfig { tx_checksum: true, tx_segment_max: 65_550, ..SimConfig::default() };
            let offload = TxOffload { checksum_start: Some(start as u16), segment_size: Some(1000) };
            let arrived = through(config, &frame, offload);
            assert_eq!(arrived.len(), len.div_ceil(1000));
            let mut at = 0;
            for (i, frame) in arrived.iter().enumerate() {
                let (tcp, payload) = verified(frame);
                let last = i + 1 == arrived.len();
                assert_eq!(tcp.sequence_number(), (u32::MAX - 1000).wrapping_add(at as u32));
                assert_eq!((tcp.ack(), tcp.psh(), tcp.fin()), (true, last, last));
                assert!(payload.iter().enumerate().all(|(j, &b)| b == ((at + j) % 251) as u8));
                at += payload.len();
            }
            assert_eq!(at, len);
        }
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let (mut frame, start) = super_frame(false, 3000);
    let config = SimConfig { tx_checksum: true, tx_segment_max: 65_550, ..SimConfig::default() };
    let offload = TxOffload { checksum_start: Some(start as u16), segment_size: Some(1000) };
    frame[23] = 17;
    assert!(through(config.clone(), &frame, offload).is_empty());
    frame[23] = 6;
    assert!(through(config, &frame, TxOffload { segment_size: Some(0), ..offload }).is_empty());
}
