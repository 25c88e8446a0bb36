//! Bytes both ways, and the ends of a stream.

use crate::bench::{Bench, Habit, pattern, some};
use khamsin_drivers::epoll::Trigger;
use khamsin_stack::CloseReason;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

crate::both_triggers!(
    ten_megabytes_both_ways,
    a_byte_at_a_time,
    an_application_that_takes_a_byte_at_a_time,
    half_close_of_the_peer,
    shared_content_then_our_end,
    a_slow_reader_holds_the_sender_back,
    a_thousand_connections,
    a_fast_sender_starves_nobody,
    replies_that_need_all_of_their_room_at_once,
    data_and_fin_in_one_go,
);

fn ten_megabytes_both_ways(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Echo);
    let sent = pattern(10_000_000);
    let mut got = Vec::new();
    let mut piece = vec![0; 100_000];
    let mut at = 0;
    bench.until(|_| {
        if at < sent.len() {
            at += some(client.write(&sent[at..]));
        }
        let n = some(client.read(&mut piece));
        got.extend_from_slice(&piece[..n]);
        got.len() == sent.len()
    });
    assert!(got == sent);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.read_to_end(&mut client), (vec![], None));
    bench.until(|b| b.host.live() == 0);
    assert_eq!(bench.app.reasons(), [CloseReason::Finished]);
    let counters = bench.host.counters();
    assert_eq!((counters.accepted, counters.closed_finished), (1, 1));
    assert_eq!((counters.rx_payload_bytes, counters.tx_payload_bytes), (10_000_000, 10_000_000));
}

fn a_byte_at_a_time(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Echo);
    for byte in 0..=255 {
        bench.write(&mut client, &[byte]);
        assert_eq!(bench.read(&mut client, 1), [byte]);
    }
}

fn an_application_that_takes_a_byte_at_a_time(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::EchoByOne);
    let sent = pattern(100_000);
    bench.write(&mut client, &sent);
    assert!(bench.read(&mut client, sent.len()) == sent);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.read_to_end(&mut client), (vec![], None));
    bench.until(|b| b.app.reasons() == [CloseReason::Finished]);
}

fn half_close_of_the_peer(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Echo);
    let sent = pattern(200_000);
    bench.write(&mut client, &sent);
    client.shutdown(Shutdown::Write).unwrap();
    // The answer comes although the peer has ended its side, and only then the end.
    let (got, error) = bench.read_to_end(&mut client);
    assert!(got == sent);
    assert_eq!(error, None);
    bench.until(|b| b.app.reasons() == [CloseReason::Finished]);
}

fn data_and_fin_in_one_go(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 64);
    for len in [0, 1, 65_535, 65_536, 65_537, 131_072] {
        // All of it lies in the kernel before the host looks for the first time.
        let mut client = bench.connect(Habit::Echo);
        client.set_nonblocking(false).unwrap();
        client.write_all(&pattern(len)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.set_nonblocking(true).unwrap();
        let (got, error) = bench.read_to_end(&mut client);
        assert!(got == pattern(len), "{len}");
        assert_eq!(error, None);
    }
    bench.until(|b| b.app.reasons() == [CloseReason::Finished; 6]);
}

fn shared_content_then_our_end(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Source);
    let (got, error) = bench.read_to_end(&mut client);
    let body = bench.app.body.bytes();
    assert!(got[..body.len()] == *body);
    assert_eq!(&got[body.len()..], b"trailer");
    assert_eq!(error, None);
    assert_eq!(bench.app.body.references(), 1, "the store has let go of it");
    // Our side has ended; the peer's has not, and a connection is open until it has.
    assert_eq!(bench.host.live(), 1);
    drop(client);
    bench.until(|b| b.app.reasons() == [CloseReason::Finished]);
}

fn a_slow_reader_holds_the_sender_back(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Echo);
    let sent = pattern(32_000_000);
    let mut at = 0;
    // The client sends and does not read, until nothing moves any more.
    let mut quiet = 0;
    bench.until(|b| {
        let n = some(client.write(&sent[at..]));
        at += n;
        quiet = if n == 0 && b.turn() == 0 { quiet + 1 } else { 0 };
        quiet == 200
    });
    assert!(at < sent.len(), "the kernel's buffers swallowed the whole load");
    let counters = *bench.host.counters();
    let held = counters.rx_payload_bytes - counters.tx_payload_bytes;
    assert!(held > 0 && held < 400_000, "{held} bytes held for one connection");
    // Unread input and a hung-up peer must not keep the loop spinning; `settle` fails if they do.
    bench.settle();
    let mut got = Vec::new();
    let mut piece = vec![0; 50_000];
    bench.until(|_| {
        if at < sent.len() {
            at += some(client.write(&sent[at..]));
        }
        let n = some(client.read(&mut piece));
        got.extend_from_slice(&piece[..n]);
        got.len() == sent.len()
    });
    assert!(got == sent);
}

fn a_thousand_connections(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 1000);
    let mut clients: Vec<_> = (0..1000)
        .map(|i| {
            let client = bench.connect(Habit::Echo);
            if i % 100 == 99 {
                bench.turn();
            }
            client
        })
        .collect();
    bench.until(|b| b.host.live() == 1000);
    for round in 0..3u32 {
        for (i, client) in clients.iter_mut().enumerate() {
            client.write_all(&(i as u32 * 3 + round).to_be_bytes()).unwrap();
        }
        for (i, client) in clients.iter_mut().enumerate() {
            assert_eq!(bench.read(client, 4), (i as u32 * 3 + round).to_be_bytes());
        }
    }
    drop(clients);
    bench.until(|b| b.host.live() == 0);
    assert_eq!(bench.host.counters().closed_finished, 1000);
    assert_eq!(bench.host.counters().drop_accept_full, 0);
}

fn a_fast_sender_starves_nobody(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut fast = bench.connect(Habit::Sink);
    let fast_name = fast.local_addr().unwrap();
    // The kernel holds far more for one connection than it may use up in a turn.
    bench.until(|b| b.host.live() == 1);
    let load = pattern(4_000_000);
    while some(fast.write(&load)) > 0 {}
    bench.turn();
    let mut slow = bench.connect(Habit::Sink);
    slow.write_all(b"me too").unwrap();
    let slow_name = slow.local_addr().unwrap();
    bench.app.sunk.clear();
    while some(fast.write(&load)) > 0 {}
    bench.until(|b| b.app.sunk.contains(&(slow_name, 6)));
    let before: usize = bench.app.sunk.iter().filter(|s| s.0 == fast_name).map(|s| s.1).sum();
    assert!(before <= 1 << 20, "{before} bytes of the fast sender came first");
    // What was left when the budget was used up is not lost: no further event comes for it in edge-triggered mode.
    fast.shutdown(Shutdown::Write).unwrap();
    drop(slow);
    bench.until(|b| b.app.closed.len() == 2);
    assert_eq!(bench.app.reasons(), [CloseReason::Finished; 2]);
}

fn replies_that_need_all_of_their_room_at_once(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Amplifier);
    bench.write(&mut client, &[b'.'; 1000]);
    bench.settle();
    assert!(bench.read(&mut client, 10_000_000).iter().all(|&b| b == b'x'));
    bench.settle();
    assert_eq!(client.read(&mut [0; 1]).map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));
    assert_eq!(bench.host.deadline(), None);
    bench.host.wait(Some(Duration::ZERO)).unwrap();
}
