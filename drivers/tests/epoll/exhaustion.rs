//! Limits: connections, descriptors, blocks.

use crate::bench::{Bench, Habit, some};
use khamsin_drivers::epoll::{Trigger, raise_descriptor_limit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;

crate::both_triggers!(
    more_connections_than_allowed,
    more_of_one_source_than_allowed,
    no_descriptor_left,
    a_pool_that_runs_dry
);

fn more_connections_than_allowed(trigger: Trigger) {
    let mut bench = Bench::new(trigger, 2);
    let mut clients: Vec<_> = (0..3).map(|_| bench.connect(Habit::Echo)).collect();
    bench.until(|b| b.host.counters().drop_accept_full == 1);
    let mut third = clients.pop().unwrap();
    assert_eq!(bench.read_to_end(&mut third), (vec![], Some(ErrorKind::ConnectionReset)));
    // A place that becomes free is given out again.
    clients.pop();
    bench.until(|b| b.host.live() == 1);
    let mut next = bench.connect(Habit::Echo);
    bench.write(&mut next, b"room again");
    assert_eq!(bench.read(&mut next, 10), b"room again");
    assert_eq!(bench.host.counters().accepted, 3);
}

fn more_of_one_source_than_allowed(trigger: Trigger) {
    let mut bench = Bench::with_limits(trigger, 8, 2);
    let mut clients: Vec<_> = (0..3).map(|_| bench.connect(Habit::Echo)).collect();
    bench.until(|b| b.host.counters().drop_source_limit == 1);
    let mut third = clients.pop().unwrap();
    assert_eq!(bench.read_to_end(&mut third), (vec![], Some(ErrorKind::ConnectionReset)));
    clients.pop();
    bench.until(|b| b.host.live() == 1);
    let mut next = bench.connect(Habit::Echo);
    bench.write(&mut next, b"room again");
    assert_eq!(bench.read(&mut next, 10), b"room again");
}

/// Runs in a process of its own, because the limit is the process's.
fn no_descriptor_left(trigger: Trigger) {
    let name = std::thread::current().name().expect("tests have names").to_owned();
    if std::env::var_os("KHAMSIN_NO_DESCRIPTORS").is_none() {
        let me = std::env::current_exe().unwrap();
        let output = Command::new(me)
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .env("KHAMSIN_NO_DESCRIPTORS", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("descriptors ran out"));
        return;
    }
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: hard }).unwrap();
    assert_eq!(raise_descriptor_limit(), (64, hard.unwrap_or(u64::MAX)));
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: hard }).unwrap();

    let mut bench = Bench::new(trigger, 100);
    let mut clients = Vec::new();
    // Client ends count against the limit too, so connect from descriptors set aside: fill up what is left afterwards.
    for _ in 0..8 {
        clients.push(bench.connect(Habit::Echo));
    }
    let mut ballast = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        ballast.push(file);
    }
    // Two descriptors for eight connections.
    ballast.truncate(ballast.len() - 2);
    bench.until(|b| b.host.counters().drop_accept_full == 6);
    bench.settle();
    assert_eq!(bench.host.counters().accepted, 2);
    let mut reset = 0;
    for client in &mut clients {
        if client.write_all(b"x").is_err() {
            reset += 1;
            continue;
        }
        assert_eq!(bench.read(client, 1), b"x");
    }
    assert_eq!(reset, 6);
    // Not even one to refuse with: nobody is asked for until later, and the loop sleeps.
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: hard }).unwrap();
    ballast.truncate(ballast.len() - 1);
    let waiting = in_limit(64, hard, || bench.connect(Habit::Echo));
    bench.until(|b| b.host.deadline().is_some());
    bench.settle();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: hard }).unwrap();
    bench.settle();
    assert_eq!(bench.host.live(), 2);
    bench.now = bench.now.plus_micros(100_000);
    ballast.truncate(ballast.len() - 2);
    bench.until(|b| b.host.live() == 3);
    clients.push(waiting);
    println!("descriptors ran out");
    drop(clients);
    bench.until(|b| b.host.live() == 0);
    drop(ballast);
    let mut client = bench.connect(Habit::Echo);
    bench.write(&mut client, b"served again");
    assert_eq!(bench.read(&mut client, 12), b"served again");
}

/// Runs `work` with another limit on descriptors.
fn in_limit<T>(soft: u64, hard: Option<u64>, work: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: hard }).unwrap();
    let result = work();
    setrlimit(Resource::Nofile, before).unwrap();
    result
}

fn a_pool_that_runs_dry(trigger: Trigger) {
    // Room for sixteen full stores and one; many clients ask for more than that and do not read.
    let mut bench = Bench::new(trigger, 40);
    let mut clients: Vec<TcpStream> = (0..40).map(|_| bench.connect(Habit::Amplifier)).collect();
    for client in &mut clients {
        bench.write(client, &[b'.'; 1000]);
    }
    bench.settle();
    assert!(bench.host.counters().store_exhausted > 0);
    let mut left = vec![10_000_000usize; clients.len()];
    let mut piece = vec![0; 200_000];
    bench.until(|_| {
        for (client, left) in clients.iter_mut().zip(&mut left) {
            if *left > 0 {
                *left -= some(client.read(&mut piece));
            }
        }
        left.iter().all(|&left| left == 0)
    });
    bench.settle();
    drop(clients);
    bench.until(|b| b.host.live() == 0);
    assert_eq!(bench.host.counters().closed_finished, 40);
}
