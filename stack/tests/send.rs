//! The sending side: what goes out, what goes out again, and what stops it.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;
use khamsin_stack::CloseReason::*;
use khamsin_stack::wire::Flags;

/// Collects what the server sends; acknowledges as a receiver with `window` would, `lose` says which data frames are lost.
fn download(w: &mut World, request_end: u32, mut lose: impl FnMut(u64, u32) -> bool) -> Vec<u8> {
    let mut got = Vec::new();
    let mut held: std::collections::BTreeMap<u32, Vec<u8>> = Default::default();
    let mut count = 0;
    for _ in 0..20_000 {
        let mut acks = Vec::new();
        while let Some(s) = w.next() {
            if s.payload.is_empty() {
                continue;
            }
            count += 1;
            if lose(count, s.seq) {
                continue;
            }
            held.insert(s.seq, s.payload);
            while let Some((&seq, _)) = held.first_key_value()
                && seq as usize <= got.len() + 1
            {
                let payload = held.remove(&seq).unwrap();
                let skip = got.len() + 1 - seq as usize;
                got.extend_from_slice(payload.get(skip..).unwrap_or(&[]));
            }
            acks.push(ack(request_end, 1 + got.len() as u32));
        }
        if got.len() == 100_000 {
            w.send(ack(request_end, 100_001));
            return got;
        }
        acks.iter().for_each(|a| w.queue(a));
        w.pass(10);
    }
    panic!("{} bytes came in {:?}", got.len(), w.now);
}

/// The SYN of a peer that cannot read SACK.
fn plain_syn() -> Seg {
    Seg { options: vec![2, 4, 5, 0xb4, 3, 3, 7, 1], ..syn() }
}

fn without_sack() -> World {
    let mut w = World::new();
    w.send(plain_syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(ack(1, 1));
    w
}

fn check(got: &[u8]) {
    assert_eq!(got.len(), 100_000);
    assert!(got.iter().enumerate().all(|(i, &b)| b == big_byte(i)));
}

#[test]
fn a_hundred_kilobytes_arrive_and_the_first_window_is_ten_segments() {
    let mut w = World::established();
    w.send(data(1, 1, b"big"));
    assert_eq!(w.queue.tx.len(), 10, "RFC 6928");
    let got = download(&mut w, 4, |_, _| false);
    check(&got);
    assert_eq!(w.counters().retransmitted, 0);
    assert_eq!(w.counters().tx_payload_bytes, 100_000);
    w.send(fin(4, 100_001));
    w.expect(Flags(0x11), 100_001, 5, b"");
    w.send(ack(5, 100_002));
    w.quiescent();
}

#[test]
fn one_loss_is_repaired_without_a_timeout() {
    let mut w = without_sack();
    w.send(data(1, 1, b"big"));
    let got = download(&mut w, 4, |n, _| n == 3);
    check(&got);
    let c = w.counters();
    assert_eq!((c.fast_retransmits, c.rto_expired, c.retransmitted), (1, 0, 1));
    assert!(c.dup_acks >= 3);
}

#[test]
fn many_losses_are_repaired() {
    for period in [5, 7, 11, 13] {
        let mut w = World::established();
        w.send(data(1, 1, b"big"));
        let got = download(&mut w, 4, |n, _| n % period == 0);
        check(&got);
    }
}

/// RFC 8985 7 needs SACK: without, the timer must find it.
#[test]
fn a_tail_loss_waits_for_the_timer() {
    let mut w = without_sack();
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.pass(190);
    w.silence();
    w.pass(30);
    w.expect_data(1, 6, b"hello");
    assert_eq!((w.counters().rto_expired, w.counters().retransmitted), (1, 1));
}

/// RFC 8985 7: with SACK, a probe comes long before the timer, and its report tells what is missing.
#[test]
fn a_tail_loss_is_probed_for() {
    let mut w = World::established();
    w.send(data(1, 1, &[b'x'; 1460]));
    w.send(data(1461, 1, &[b'y'; 1460]));
    w.queue.tx.clear();
    w.pass(150);
    let probe = w.next().unwrap();
    assert_eq!((probe.seq, probe.payload.len()), (1461, 1460));
    w.silence();
    let c = w.counters();
    assert_eq!((c.tail_probes, c.rto_expired, c.retransmitted), (1, 0, 1));
    w.send(ack(2921, 2921));
    w.pass(10_000);
    assert_eq!(w.counters().tail_probes, 1, "nothing waits for an answer");
}

fn sack(w: &World, blocks: &[(u32, u32)]) -> Vec<u8> {
    let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
    for &(left, right) in blocks {
        option.extend(w.server_isn.wrapping_add(left).to_be_bytes());
        option.extend(w.server_isn.wrapping_add(right).to_be_bytes());
    }
    option
}

/// RFC 3708: what went out again had arrived, so the window had no reason to become smaller.
#[test]
fn a_reduction_for_what_was_only_late_is_undone() {
    let mut w = World::new();
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.pass(20);
    w.send(ack(1, 1));
    w.send(data(1, 1, b"big"));
    w.queue.tx.clear();
    w.pass(20);
    w.send(Seg { options: sack(&w, &[(1461, 1 + 5 * 1460)]), ..ack(4, 1) });
    assert_eq!((w.counters().fast_retransmits, w.counters().reductions_undone), (1, 0));
    let sent: Vec<(u32, usize)> = std::iter::from_fn(|| w.next()).map(|s| (s.seq, s.payload.len())).collect();
    assert_eq!(sent, [(1, 1460), (14_601, 1460)]);
    w.pass(1);
    // The first copy, late; then the second.
    w.send(ack(4, 1 + 5 * 1460));
    w.send(Seg { options: sack(&w, &[(1, 1461)]), ..ack(4, 1 + 5 * 1460) });
    assert_eq!(w.counters().reductions_undone, 1);
}

/// RFC 5682: after a timeout, acknowledgements of what was sent once say that the path had only paused.
#[test]
fn a_timeout_for_a_pause_is_undone() {
    let mut w = World::established();
    w.send(data(1, 1, b"big"));
    w.pass(1_000);
    assert!(w.counters().rto_expired > 0);
    w.queue.tx.clear();
    for i in 1..=10 {
        w.send(ack(4, 1 + i * 1460));
    }
    assert_eq!(w.counters().reductions_undone, 1);
}

/// RFC 6298 2: the handshake is the first measurement.
#[test]
fn the_handshake_measures_the_path() {
    let mut w = World::new();
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.pass(100);
    w.send(ack(1, 1));
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    // 100 ms and twice its variation of 50 ms, doubled.
    w.pass(290);
    w.silence();
    w.pass(20);
    w.expect_data(1, 6, b"hello");
}

/// RFC 5681 3.1, RFC 6298 5.7: after a lost SYN|ACK, one segment and three seconds.
#[test]
fn a_lost_handshake_makes_a_careful_start() {
    let mut w = World::new();
    w.send(plain_syn());
    w.pass(1_100);
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(data(1, 1, b"big"));
    assert_eq!(w.queue.tx.len(), 1);
    w.queue.tx.clear();
    w.pass(2_900);
    w.silence();
    w.pass(200);
    assert_eq!(w.next().expect("again").seq, 1);
}

/// A SYN|ACK that was asked for twice measures nothing (Karn): the first timeout is a second.
#[test]
fn a_repeated_syn_spoils_the_measurement() {
    let mut w = World::new();
    w.send(syn());
    w.send(syn());
    w.queue.tx.clear();
    w.server_isn = 0;
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(data(1, 1, b"hello"));
    w.expect_data(1, 6, b"hello");
    w.pass(900);
    w.silence();
    w.pass(200);
    w.expect_data(1, 6, b"hello");
}

#[test]
fn a_dead_peer_is_given_up() {
    let mut w = World::established();
    w.send(data(1, 1, b"hello"));
    w.pass(3_000_000);
    assert_eq!(w.events().last(), Some(&Event::Closed(TimedOut)));
    let last = std::iter::from_fn(|| w.next()).last().unwrap();
    assert!(last.flags.rst());
    w.quiescent();
}

#[test]
fn a_closed_window_is_probed_until_it_opens() {
    let mut w = World::established();
    w.send(data(1, 1, b"hello").window(0));
    w.pass(50);
    w.expect_ack(1, 6);
    w.pass(1_500);
    w.expect(Flags::ACK, 1, 6, b"h");
    assert!(w.counters().window_probes >= 1);
    // Refused: still closed.
    w.send(ack(6, 1).window(0));
    w.pass(20_000);
    assert!(w.counters().window_probes >= 3, "{:?}", w.counters().window_probes);
    w.queue.tx.clear();
    // 1,000 in units of 2^7.
    w.send(ack(6, 1).window(8));
    let mut text = Vec::new();
    while let Some(s) = w.next() {
        assert_eq!(s.seq as usize, 1 + text.len());
        text.extend(s.payload);
    }
    assert_eq!(text, b"hello");
}

#[test]
fn a_small_window_is_never_overrun() {
    let mut w = World::established();
    w.send(data(1, 1, b"big").window(8)); // 1,024 bytes
    let mut end = 1;
    while let Some(s) = w.next() {
        end = s.seq + s.payload.len() as u32;
    }
    assert!(end <= 1 + 1024, "{end}");
}

#[test]
fn no_frame_to_send_with_is_counted_and_made_up_for() {
    let mut w = World::established();
    w.queue.tx_frames_left = 0;
    w.send(data(1, 1, b"hello"));
    w.silence();
    assert!(w.counters().tx_exhausted > 0);
    w.queue.tx_frames_left = usize::MAX;
    w.turn();
    w.expect_data(1, 6, b"hello");
}

#[test]
fn a_store_without_blocks_is_counted_and_retried() {
    let limits = khamsin_stack::limits::Limits { store_blocks: 1, ..small() };
    let mut w = World::with(limits, MemQueue::default());
    w.establish();
    w.send(data(1, 1, b"big"));
    let first = w.server_isn;
    assert!(w.counters().store_exhausted > 0);
    // Another connection finds no block at all; the application is asked again later.
    w.key.peer_port += 1;
    w.queue.tx.clear();
    w.send(syn());
    w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
    w.send(data(1, 1, b"big"));
    let second = w.server_isn;
    w.pass(5);
    // The first goes away, and with it its block.
    w.key.peer_port -= 1;
    w.server_isn = first;
    w.send(rst(4));
    w.queue.tx.clear();
    w.key.peer_port += 1;
    w.server_isn = second;
    w.pass(30);
    assert!(!w.next().expect("data").payload.is_empty());
}

#[test]
fn many_short_lives_leave_nothing_behind() {
    let mut w = World::new();
    for i in 0..200u16 {
        w.key.peer_port = 10_000 + i;
        w.establish();
        let word = format!("hello {i}");
        let n = word.len() as u32;
        w.send(data(1, 1, word.as_bytes()));
        w.expect_data(1, 1 + n, word.as_bytes());
        if i % 3 == 0 {
            w.send(rst(1 + n));
        } else {
            w.send(fin(1 + n, 1 + n));
            w.expect(Flags(0x11), 1 + n, 2 + n, b"");
            w.send(ack(2 + n, 2 + n));
        }
        w.silence();
        w.quiescent();
    }
    assert_eq!(w.counters().accepted, 200);
}

/// RFC 6675 2: an acknowledgement that reports a hole is a duplicate whatever its window says. (A Linux receiver moves its
/// window as it likes.) Without a report, RFC 5681 2 wants the same window.
#[test]
fn a_report_of_a_hole_is_a_duplicate_whatever_its_window() {
    for (reports, repaired) in [(true, 1), (false, 0)] {
        let mut w = World::established();
        w.send(data(1, 1, b"big"));
        w.queue.tx.clear();
        for i in 1..=3u32 {
            let mut sack = vec![1, 1, 5, 10];
            sack.extend(w.server_isn.wrapping_add(1461).to_be_bytes());
            sack.extend(w.server_isn.wrapping_add(1461 + i * 1460).to_be_bytes());
            let options = if reports { sack } else { vec![] };
            w.pass(1);
            w.send(Seg { options, ..ack(4, 1) }.window(60_000 - 100 * i as u16));
        }
        assert_eq!(w.counters().fast_retransmits, repaired);
        assert_eq!(std::iter::from_fn(|| w.next()).filter(|s| s.seq == 1).count() as u64, repaired);
        // What was received twice (RFC 2883) is no hole.
        let mut w = World::established();
        w.send(data(1, 1, b"big"));
        w.send(ack(4, 1461));
        let mut dsack = vec![1, 1, 5, 10];
        dsack.extend(w.server_isn.wrapping_add(1).to_be_bytes());
        dsack.extend(w.server_isn.wrapping_add(1461).to_be_bytes());
        for i in 1..=3 {
            w.send(Seg { options: dsack.clone(), ..ack(4, 1461) }.window(60_000 - 100 * i));
        }
        assert_eq!(w.counters().fast_retransmits, 0);
    }
}

/// A device may carry packets that no frame of ours can hold (loopback over IPv6: an MTU of 65,536).
#[test]
fn a_segment_is_never_larger_than_a_frame() {
    for segment_max in [0, 60_000] {
        let mut queue = MemQueue { tx_capacity: 1000, ..MemQueue::default() };
        queue.caps.tx_segment_max = segment_max;
        let mut w = World::with(small(), queue);
        w.establish();
        w.send(data(1, 1, b"big"));
        w.pass(1);
        let got = download(&mut w, 4, |_, _| false);
        check(&got);
        assert_eq!(w.queue.out, 0);
    }
}

/// Peers that ask for much and acknowledge nothing hold blocks for as long as they like. However many they are, one more
/// connection is served.
#[test]
fn slow_readers_leave_a_block_for_everybody() {
    let limits = khamsin_stack::limits::Limits { store_blocks: 32, ..small() };
    let mut w = World::with(limits, MemQueue::default());
    for n in 0..limits.connections {
        w.establish_more();
        w.queue.tx.clear();
        if n == limits.connections - 1 {
            w.send(data(1, 1, b"hello"));
            w.expect_data(1, 6, b"hello");
        } else {
            w.send(data(1, 1, b"big").window(0));
            w.queue.tx.clear();
        }
    }
    assert_eq!(w.shard.live(), limits.connections);
    assert!(w.shard.free_blocks() < 2, "the others hold nearly all of it");
}

/// After a probe of a closed window, what we acknowledge must still lie where the peer looks at it.
#[test]
fn an_acknowledgement_stays_inside_the_peers_window() {
    let mut w = World::new();
    w.app.mute = true;
    w.establish();
    w.app.mute = false;
    w.send(data(1, 1, b"hello").window(0));
    w.expect_ack(1, 6);
    w.pass(2_000);
    let probe = w.next().unwrap();
    assert_eq!((probe.seq, probe.payload.len()), (1, 1), "a probe of one byte");
    w.queue.tx.clear();
    w.app.mute = true;
    for at in [6, 7] {
        w.send(data(at, 1, b"x").window(0));
    }
    w.pass(100);
    let answers: Vec<_> = core::iter::from_fn(|| w.next()).filter(|s| s.payload.is_empty()).collect();
    assert!(!answers.is_empty());
    assert!(answers.iter().all(|s| s.seq == 1), "{answers:?}");
}
