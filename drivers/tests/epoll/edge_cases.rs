//! Resets, panics, deadlines, drains, urgent data.

use crate::bench::{Bench, Habit, pattern, some};
use crate::patience::eventually;
use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::epoll::{Config, Host, OpenError, Trigger};
use khamsin_stack::{CloseReason, Instant, Listener};
use rustix::net::{SendFlags, send, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

crate::both_triggers!(
    a_reset_by_the_peer,
    a_reset_while_nothing_is_wanted,
    a_reset_after_data,
    an_abort_by_the_application,
    a_panic_costs_one_connection,
    a_panic_at_open_costs_one_connection,
    deadlines_come_when_they_should,
    a_silent_peer_after_our_end,
    drain_finishes_what_is_there,
    abort_all_resets,
    urgent_data_stays_in_line,
    a_hang_up_that_nobody_wants_to_read,
    both_families_on_one_port,
    the_doorbell_ends_a_wait,
);

/// Longest that a child of another test may hold a descriptor which was closed here.
const PATIENCE: Duration = Duration::from_secs(1);

/// Closes with RST.
fn reset(client: TcpStream) {
    sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
}

fn a_reset_by_the_peer(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let client = bench.connect(Habit::Echo);
    bench.until(|b| b.host.live() == 1);
    reset(client);
    bench.until(|b| b.app.reasons() == [CloseReason::PeerReset]);
    assert_eq!(bench.host.counters().closed_reset, 1);
    bench.settle();
}

fn a_reset_while_nothing_is_wanted(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Deaf);
    let load = pattern(500_000);
    while some(client.write(&load)) > 0 {
        bench.turn();
    }
    bench.settle();
    reset(client);
    bench.until(|b| b.app.reasons() == [CloseReason::PeerReset]);
}

fn a_reset_after_data(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Sink);
    client.write_all(b"last words").unwrap();
    reset(client);
    bench.until(|b| b.app.closed.len() == 1);
    assert_eq!(bench.app.reasons(), [CloseReason::PeerReset]);
}

fn an_abort_by_the_application(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Abort);
    client.write_all(b"x").unwrap();
    assert_eq!(bench.read_to_end(&mut client), (vec![], Some(ErrorKind::ConnectionReset)));
    assert_eq!(bench.app.reasons(), [CloseReason::Aborted]);
    assert_eq!(bench.host.counters().closed_aborted, 1);
}

fn a_panic_costs_one_connection(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut other = bench.connect(Habit::Panic);
    let mut client = bench.connect(Habit::Panic);
    bench.write(&mut other, b"before");
    bench.write(&mut client, b"p");
    assert_eq!(bench.read_to_end(&mut client), (vec![], Some(ErrorKind::ConnectionReset)));
    assert_eq!(bench.app.reasons(), [CloseReason::Panicked]);
    assert_eq!(bench.host.counters().closed_panicked, 1);
    assert_eq!(bench.read(&mut other, 6), b"before");
}

fn a_panic_at_open_costs_one_connection(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 1);
    let mut client = bench.connect(Habit::PanicAtOpen);
    assert_eq!(bench.read_to_end(&mut client), (vec![], Some(ErrorKind::ConnectionReset)));
    assert_eq!(bench.app.reasons(), [], "there was no session to close");
    assert_eq!(bench.host.counters().closed_panicked, 1);
    let mut client = bench.connect(Habit::Echo);
    bench.write(&mut client, b"its slot is free");
    assert_eq!(bench.read(&mut client, 16), b"its slot is free");
}

fn deadlines_come_when_they_should(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Timer);
    client.write_all(b"go").unwrap();
    bench.until(|b| b.host.deadline().is_some());
    bench.settle();
    let start = bench.now;
    for at_us in [0, 500_000, 600_000, 999_999] {
        bench.now = start.plus_micros(at_us);
        bench.settle();
        assert_eq!(client.read(&mut [0; 9]).map_err(|e| e.kind()), Err(ErrorKind::WouldBlock), "{at_us}");
        assert!(bench.host.deadline().unwrap() <= start.plus_micros(1_002_000));
    }
    bench.now = start.plus_micros(1_002_000);
    assert_eq!(bench.read(&mut client, 4), b"tick");
    bench.now = bench.now.plus_micros(1_002_000);
    assert_eq!(bench.read_to_end(&mut client), (b"bye".to_vec(), None));
    drop(client);
    bench.until(|b| b.app.reasons() == [CloseReason::Finished]);
    assert_eq!(bench.host.deadline(), None);
}

fn a_silent_peer_after_our_end(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::HangUp);
    assert_eq!(bench.read_to_end(&mut client), (vec![], None));
    bench.now = bench.now.plus_micros(59_000_000);
    bench.settle();
    // A peer that still sends is not silent.
    bench.write(&mut client, b"still here");
    bench.settle();
    bench.now = bench.now.plus_micros(59_000_000);
    bench.settle();
    assert_eq!(bench.host.live(), 1);
    bench.now = bench.now.plus_micros(2_000_000);
    bench.until(|b| b.app.reasons() == [CloseReason::TimedOut]);
    assert_eq!(bench.host.counters().closed_timed_out, 1);
}

fn drain_finishes_what_is_there(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 8);
    let mut old = bench.connect(Habit::Echo);
    bench.until(|b| b.host.live() == 1);
    // The kernel has completed this handshake; the host has not seen it.
    let mut waiting = bench.connect(Habit::Echo);
    let address = bench.address(Habit::Echo);
    let calls = bench.app.ready_calls;
    bench.host.drain(bench.now, &mut bench.app);
    bench.host.drain(bench.now, &mut bench.app);
    assert_eq!(bench.app.drained, 1);
    assert_eq!(bench.host.live(), 2);
    assert!(bench.app.ready_calls >= calls + 3, "one at open, one each for the drain");
    let refused = || TcpStream::connect(address).map_err(|e| e.kind()).err() == Some(ErrorKind::ConnectionRefused);
    assert!(eventually(PATIENCE, refused), "nobody listens any more");
    assert_eq!(bench.host.local_addrs(), []);
    for client in [&mut old, &mut waiting] {
        bench.write(client, b"in flight");
        assert_eq!(bench.read(client, 9), b"in flight");
        client.shutdown(Shutdown::Write).unwrap();
    }
    bench.until(|b| b.host.live() == 0);
    assert_eq!(bench.app.reasons(), [CloseReason::Finished; 2]);
}

fn abort_all_resets(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 8);
    let mut clients = [bench.connect(Habit::Echo), bench.connect(Habit::Deaf)];
    bench.until(|b| b.host.live() == 2);
    bench.host.abort_all(&mut bench.app, CloseReason::Drained);
    assert_eq!(bench.host.live(), 0);
    assert_eq!(bench.host.counters().closed_drained, 2);
    assert_eq!(bench.app.reasons(), [CloseReason::Drained; 2]);
    for client in &mut clients {
        assert_eq!(bench.read_to_end(client), (vec![], Some(ErrorKind::ConnectionReset)));
    }
}

fn urgent_data_stays_in_line(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Echo);
    bench.until(|b| b.host.live() == 1);
    // A read stops short at the urgent mark although more lies behind it.
    client.write_all(b"before").unwrap();
    assert_eq!(send(&client, b"!", SendFlags::OOB), Ok(1));
    client.write_all(b"behind").unwrap();
    assert_eq!(bench.read(&mut client, 13), b"before!behind");
}

fn a_hang_up_that_nobody_wants_to_read(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 4);
    let mut client = bench.connect(Habit::Deaf);
    // Less than the kernel's receive buffer, so that the FIN arrives behind it; more than the host keeps.
    bench.write(&mut client, &pattern(100_000));
    client.shutdown(Shutdown::Write).unwrap();
    bench.settle();
    assert_eq!(bench.host.live(), 1);
    bench.host.abort_all(&mut bench.app, CloseReason::Drained);
}

fn both_families_on_one_port(trigger: Trigger) {
    let open = |addresses: &[&str]| {
        let listeners =
            addresses.iter().map(|a| (a.parse().unwrap(), Listener { app: 0, port: 0 })).collect::<Vec<_>>();
        Host::open(
            &Config { listeners, trigger, connections: 4, per_source: 0, congestion: None, reuse_port: false },
            Doorbell::new().unwrap(),
        )
    };
    let mut dual: Host<crate::bench::TestApp> = match open(&["[::]:0"]) {
        Err(OpenError::Listen { step: "socket", .. }) => return println!("SKIPPED: this kernel has no IPv6"),
        other => other.unwrap(),
    };
    let port = dual.local_addrs()[0].port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut app = Bench::new(trigger, 1).app;
    dual.wait(Some(Duration::from_secs(5))).unwrap();
    dual.turn(Instant::ZERO, &mut app);
    dual.abort_all(&mut app, CloseReason::Drained);
    assert_eq!(app.closed, [(client.local_addr().unwrap(), CloseReason::Drained)], "the peer is named as IPv4");
    // Named side by side, each family has its own socket.
    drop(dual);
    let (v4, v6) = (format!("0.0.0.0:{port}"), format!("[::]:{port}"));
    let mut apart = open(&[&v4, &v6]);
    eventually(PATIENCE, || {
        let taken = matches!(apart, Err(OpenError::InUse(_)));
        if taken {
            apart = open(&[&v4, &v6]);
        }
        !taken
    });
    let apart = apart.unwrap();
    assert_eq!(apart.local_addrs().len(), 2);
    assert!(matches!(open(&[&v4]), Err(OpenError::InUse(_))));
    assert!(matches!(open(&["203.0.113.1:0"]), Err(OpenError::NotOurs(_))));
}

fn the_doorbell_ends_a_wait(trigger: Trigger) {
    let bell = Doorbell::new().unwrap();
    let config =
        Config { listeners: vec![], trigger, connections: 1, per_source: 0, congestion: None, reuse_port: false };
    let mut app = Bench::new(trigger, 1).app;
    let mut host: Host<crate::bench::TestApp> = Host::open(&config, bell.clone()).unwrap();
    bell.ring();
    host.wait(None).unwrap();
    assert_eq!(host.turn(Instant::ZERO, &mut app), 1);
    host.wait(Some(Duration::ZERO)).unwrap();
    assert_eq!(host.turn(Instant::ZERO, &mut app), 0, "the bell is silent once it was heard");
}
