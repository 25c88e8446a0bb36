//! AF_XDP against the kernel, over a veth pair between two namespaces of its own.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod af_xdp_support;
#[path = "link_netns/patience.rs"]
mod patience;

use af_xdp_support::*;
use khamsin_drivers::af_xdp::{ChunkCounts, Config, CopyMode, Mode, OpenError, Steering, XdpQueue, open};
use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::group::Group;
use khamsin_stack::{Frame, Queue, TxOffload};
use patience::eventually;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Pings `addresses` by turns, `count` times in all, a few at once, with every size up to the MTU; all must come back.
fn ping(addresses: &[Ipv4Addr], count: u16) {
    let pinger = Pinger::new();
    let mut missing: std::collections::HashMap<u16, (Ipv4Addr, usize)> = Default::default();
    for sequence in 0..count {
        let (to, len) = (addresses[usize::from(sequence) % addresses.len()], usize::from(sequence) * 37 % 1473);
        pinger.send(to, sequence, len);
        missing.insert(sequence, (to, len));
        if sequence % 8 == 7 || sequence + 1 == count {
            while !missing.is_empty() {
                let (from, sequence, len) =
                    pinger.reply().unwrap_or_else(|| panic!("{} replies missing", missing.len()));
                assert_eq!(missing.remove(&sequence), Some((from, len)));
            }
        }
    }
}

/// Opens `config` in the server's namespace, serves it on one thread and runs `client` in the client's namespace.
/// Returns the queues when both are done.
fn with_server(pair: &Pair, config: &Config, client: impl FnOnce() + Send) -> Vec<XdpQueue> {
    let stop = AtomicBool::new(false);
    let (queues, attachment) = inside(&pair.server, || open(config)).unwrap();
    let queues = std::thread::scope(|scope| {
        let servers: Vec<_> = queues
            .into_iter()
            .map(|mut queue| {
                let stop = &stop;
                scope.spawn(move || {
                    serve(&mut queue, stop);
                    queue
                })
            })
            .collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inside(&pair.client, client)));
        stop.store(true, Ordering::Relaxed);
        let queues: Vec<XdpQueue> = servers.into_iter().map(|s| s.join().unwrap()).collect();
        if let Err(panic) = result {
            for queue in &queues {
                println!("queue {}: {:?} {:?}", queue.queue_id(), queue.chunks(), queue.stats());
            }
            std::panic::resume_unwind(panic);
        }
        queues
    });
    drop(attachment);
    queues
}

/// Longest that the kernel may take for what it does behind our back.
const PATIENCE: Duration = Duration::from_secs(5);

/// After everything sent was completed, all chunks are free or with the kernel for receiving.
fn all_home(queue: &mut XdpQueue, chunks: u32) {
    eventually(PATIENCE, || {
        queue.begin();
        queue.chunks().tx == 0
    });
    let counts = queue.chunks();
    assert_eq!((counts.stack, counts.tx, counts.lost), (0, 0, 0), "{counts:?}");
    assert_eq!(counts.free + counts.fill, chunks);
}

fn echo(mode: Mode) {
    let Some(pair) = Pair::new(1) else { return };
    let mut queues = with_server(&pair, &config(mode), || ping(&[SERVER], 3000));
    assert_eq!(queues.len(), 1);
    let stats = queues[0].stats();
    assert!(stats.rx_frames > 3000 && stats.tx_frames == stats.rx_frames, "{stats:?}");
    assert!(stats.rx_bytes > 3000 * 60 && stats.tx_bytes == stats.rx_bytes && stats.kicks > 0, "{stats:?}");
    assert_eq!((stats.rx_dropped, stats.invalid_descs, stats.tx_errors), (0, 0, 0), "{stats:?}");
    assert!(!queues[0].is_zero_copy());
    all_home(&mut queues[0], 4096);
}

#[test]
fn native_echo() {
    echo(Mode::Native);
}

#[test]
fn generic_echo() {
    echo(Mode::Generic);
}

#[test]
fn caps_are_those_of_the_interface() {
    let Some(pair) = Pair::new(1) else { return };
    let (queues, _attachment) = inside(&pair.server, || open(&config(Mode::Native))).unwrap();
    let caps = queues[0].caps();
    assert_eq!((caps.mac, caps.mtu, caps.rx_partial_checksums), (SERVER_MAC, 1500, true));
    assert_eq!((caps.tx_checksum, caps.tx_segment_max), (false, 0));
}

#[test]
fn every_queue_serves() {
    let Some(pair) = Pair::new(2) else { return };
    let addresses: Vec<_> = (2..34).map(|n| Ipv4Addr::new(198, 18, 0, n)).collect();
    let config = Config { steering: own(&addresses), ..config(Mode::Native) };
    let mut queues = with_server(&pair, &config, || ping(&addresses, 2000));
    assert_eq!(queues.iter().map(XdpQueue::queue_id).collect::<Vec<_>>(), [0, 1]);
    for queue in &mut queues {
        assert!(queue.stats().rx_frames > 100, "queue {}: {:?}", queue.queue_id(), queue.stats());
        all_home(queue, 4096);
    }
}

#[test]
fn a_group_serves_both_queues_from_one_loop() {
    let Some(pair) = Pair::new(2) else { return };
    let addresses: Vec<_> = (2..34).map(|n| Ipv4Addr::new(198, 18, 0, n)).collect();
    let config = Config { steering: own(&addresses), ..config(Mode::Native) };
    let (queues, _attachment) = inside(&pair.server, || open(&config)).unwrap();
    let mut group = Group::new(queues).unwrap();
    let stop = AtomicBool::new(false);
    let bell = Doorbell::new().unwrap();
    group.set_doorbell(bell.clone());
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            serve(&mut group, &stop);
            group
        });
        let result = std::panic::catch_unwind(|| inside(&pair.client, || ping(&addresses, 2000)));
        stop.store(true, Ordering::Relaxed);
        bell.ring();
        let group = server.join().unwrap();
        assert!(result.is_ok(), "{:?}", group.stats());
        assert!(group.queues().iter().all(|q| q.stats().rx_frames > 100), "{:?}", group.stats());
        assert_eq!(group.stats().tx_errors, 0);
    });
}

#[test]
fn a_burst_of_a_thousand_arrives_whole() {
    for mode in [Mode::Native, Mode::Generic] {
        let Some(pair) = Pair::new(1) else { return };
        let (mut queues, _attachment) = inside(&pair.server, || open(&config(mode))).unwrap();
        let socket = inside(&pair.client, || UdpSocket::bind((CLIENT, 7777)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20);
        let queue = &mut queues[0];
        queue.begin();
        for _ in 0..1000 {
            let mut frame = queue.alloc_tx().expect("4096 chunks hold a thousand frames");
            frame.set_len(100);
            udp(frame.bytes_mut(), 7777);
            queue.tx(frame, TxOffload::NONE);
        }
        queue.end();
        let mut bytes = [0; 200];
        let arrived = (0..1000).take_while(|_| socket.recv(&mut bytes).is_ok()).count();
        assert_eq!(arrived, 1000, "{mode:?}: {:?} {:?}", queue.chunks(), queue.stats());
        assert_eq!(queue.chunks().tx, 1000, "completions are reaped in begin()");
        all_home(queue, 4096);
        println!("{mode:?}: {} kicks", queue.stats().kicks);
        assert!(queue.stats().kicks <= 1000 / 32 + 2, "one kick for each budget: {:?}", queue.stats());
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let Some(pair) = Pair::new(1) else { return };
    let config = Config { frames_per_queue: 256, ..config(Mode::Native) };
    let (mut queues, _attachment) = inside(&pair.server, || open(&config)).unwrap();
    let queue = &mut queues[0];
    inside(&pair.client, || {
        run(&format!("ip neigh replace {SERVER} lladdr 02:00:00:00:00:02 dev veth0 nud permanent")).unwrap();
        let pinger = Pinger::new();
        (0..500).for_each(|sequence| pinger.send(SERVER, sequence, 8));
    });
    eventually(PATIENCE, || queue.stats().rx_dropped >= 400);
    let stats = queue.stats();
    assert!(stats.rx_dropped >= 400 && stats.rx_ring_starved > 0, "64 chunks for receiving: {stats:?}");

    queue.begin();
    let frames: Vec<_> = std::iter::from_fn(|| queue.alloc_tx()).collect();
    assert_eq!(frames.len(), 192, "three quarters are not for receiving");
    assert_eq!(queue.stats().tx_exhausted, 1);
    for mut frame in frames {
        frame.set_len(60);
        udp(frame.bytes_mut(), 7777);
        queue.tx(frame, TxOffload::NONE);
    }
    assert_eq!(queue.stats().tx_errors, 128, "64 entries on the TX ring");
    queue.end();
    let mut burst = Vec::with_capacity(64);
    assert_eq!(queue.rx_burst(&mut burst, 64), 64);
    burst.drain(..).for_each(|f| queue.release(f));
    queue.end();
    all_home(queue, 256);
}

#[test]
fn a_ring_of_the_bell_ends_the_wait() {
    let Some(pair) = Pair::new(1) else { return };
    let (mut queues, _attachment) = inside(&pair.server, || open(&config(Mode::Native))).unwrap();
    let bell = Doorbell::new().unwrap();
    queues[0].set_doorbell(bell.clone());
    bell.ring();
    let clock = khamsin_drivers::clock::Clock;
    let start = clock.now();
    queues[0].wait(Some(Duration::from_secs(5))).unwrap();
    assert!(clock.now().since(start) < Duration::from_secs(1));
    assert!(!bell.answer(), "the ring was taken note of");
    let start = clock.now();
    queues[0].wait(Some(Duration::from_millis(30))).unwrap();
    assert!(clock.now().since(start) >= Duration::from_millis(29));
}

#[test]
fn a_removed_interface_ends_the_wait() {
    let Some(pair) = Pair::new(1) else { return };
    let (mut queues, _attachment) = inside(&pair.server, || open(&config(Mode::Native))).unwrap();
    queues[0].wait(Some(Duration::ZERO)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| run(&format!("ip -n {} link del veth1", pair.server)).unwrap());
        let clock = khamsin_drivers::clock::Clock;
        let start = clock.now();
        let error = queues[0].wait(Some(Duration::from_secs(10))).unwrap_err();
        assert!(error.to_string().contains("veth1 was removed"), "{error}");
        assert!(clock.now().since(start) < Duration::from_millis(2000));
    });
}

#[test]
fn link_and_peer_may_go_down_and_come_back() {
    let Some(pair) = Pair::new(1) else { return };
    let (client, server) = (&pair.client, &pair.server);
    let cycle = || {
        ping(&[SERVER], 50);
        run(&format!("ip -n {server} link set veth1 down")).unwrap();
        run(&format!("ip -n {server} link set veth1 up")).unwrap();
        ping(&[SERVER], 50);
        run(&format!("ip -n {client} link set veth0 down")).unwrap();
        run(&format!("ip -n {client} link set veth0 up")).unwrap();
        ping(&[SERVER], 50);
    };
    with_server(&pair, &config(Mode::Native), cycle);

    // Sending while the other end is down costs frames, not the queue.
    let (mut queues, _attachment) = inside(server, || open(&config(Mode::Native))).unwrap();
    run(&format!("ip -n {client} link set veth0 down")).unwrap();
    let queue = &mut queues[0];
    queue.begin();
    for _ in 0..40 {
        let mut frame = queue.alloc_tx().unwrap();
        frame.set_len(60);
        udp(frame.bytes_mut(), 7777);
        queue.tx(frame, TxOffload::NONE);
    }
    queue.end();
    assert!(queue.stats().tx_errors > 0, "{:?}", queue.stats());
    run(&format!("ip -n {client} link set veth0 up")).unwrap();
    queue.end();
    all_home(queue, 4096);
}

#[test]
fn another_program_is_named_and_left_alone() {
    for (first, second) in [(Mode::Native, Mode::Native), (Mode::Generic, Mode::Native)] {
        let Some(pair) = Pair::new(1) else { return };
        let held = inside(&pair.server, || open(&config(first))).unwrap();
        let error = inside(&pair.server, || open(&config(second))).err().expect("one program for an interface");
        let OpenError::Attached { id, name, tag, .. } = &error else { panic!("{error}") };
        assert!(*id > 0 && name == "khamsin" && tag.len() == 16, "{error}");
        assert!(error.to_string().contains(&format!("id {id}")), "{error}");
        drop(held);
        inside(&pair.server, || open(&config(second)).map(drop)).expect("free again");
    }
}

#[test]
fn an_interface_that_is_down_can_be_opened() {
    let Some(pair) = Pair::new(1) else { return };
    run(&format!("ip -n {} link set veth1 down", pair.server)).unwrap();
    let (mut queues, _attachment) = inside(&pair.server, || open(&config(Mode::Native))).unwrap();
    queues[0].wait(Some(Duration::from_millis(20))).expect("down is not gone");
    run(&format!("ip -n {} link set veth1 up", pair.server)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&mut queues[0], &stop));
        let result = std::panic::catch_unwind(|| inside(&pair.client, || ping(&[SERVER], 100)));
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap();
        assert!(result.is_ok());
    });
}

#[test]
fn steering_changes_without_a_gap() {
    let Some(pair) = Pair::new(1) else { return };
    let other = Ipv4Addr::new(198, 18, 0, 3);
    let (mut queues, mut attachment) = inside(&pair.server, || open(&config(Mode::Native))).unwrap();
    attachment.update(&own(&[other])).unwrap();
    assert!(!attachment.renew().unwrap(), "veth forgets no program");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&mut queues[0], &stop));
        let result = std::panic::catch_unwind(|| inside(&pair.client, || ping(&[other], 100)));
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap();
        assert!(result.is_ok());
    });
}

#[test]
fn the_device_lets_solicitations_of_our_addresses_in() {
    let Some(pair) = Pair::new(1) else { return };
    let groups = || {
        let output =
            std::process::Command::new("ip").args(["-n", &pair.server, "maddr", "show", "dev", "veth1"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let six = |address: &str| Steering::Own { addresses: vec![address.parse().unwrap(), SERVER.into()] };
    let config = Config { steering: six("fd00::12:3456"), ..config(Mode::Native) };
    let (queues, mut attachment) = inside(&pair.server, || open(&config)).unwrap();
    assert!(groups().contains("33:33:ff:12:34:56"), "{}", groups());
    attachment.update(&six("fd00::ab:cdef")).unwrap();
    assert!(groups().contains("33:33:ff:ab:cd:ef") && !groups().contains("33:33:ff:12:34:56"), "{}", groups());
    drop((queues, attachment));
    // A child that another test forks at this moment holds our sockets until its exec closes them.
    let gone = || !groups().contains("33:33:ff");
    let patience = std::iter::repeat_with(|| std::thread::sleep(std::time::Duration::from_millis(20))).take(100);
    assert!(gone() || patience.into_iter().any(|()| gone()), "{}", groups());
}

#[test]
fn refusals_say_what_to_do() {
    let Some(pair) = Pair::new(1) else { return };
    let refusal = |config: Config| inside(&pair.server, || open(&config)).err().expect("a refusal").to_string();
    let base = config(Mode::Native);
    assert!(refusal(Config { interface: "khnone".into(), ..base.clone() }).contains("ip link"));
    let zero_copy = Config { copy: CopyMode::ZeroCopy, ..base.clone() };
    assert!(refusal(zero_copy.clone()).contains("--xdp-copy copy"));
    assert!(refusal(Config { mode: Mode::Generic, ..zero_copy }).contains("generic mode always copies"));
    assert!(refusal(Config { steering: own(&[]), ..base.clone() }).contains("--address"));
    run(&format!("ip -n {} link set veth1 mtu 9000", pair.server)).unwrap();
    let sentence = refusal(base.clone());
    assert!(sentence.contains("9000") && sentence.contains("mtu 3498"), "{sentence}");
    run(&format!("ip -n {} link set veth1 mtu 3498", pair.server)).unwrap();
    run(&format!("ip -n {} link set veth0 mtu 3498", pair.client)).unwrap();
    let (queues, _attachment) = inside(&pair.server, || open(&base)).expect("4 KiB chunks carry it");
    assert_eq!(queues[0].caps().mtu, 3498);
}

#[test]
fn more_receive_than_transmit_queues_are_refused() {
    let Some(pair) = Pair::with("numrxqueues 1 numtxqueues 1", "numrxqueues 2 numtxqueues 1") else { return };
    let error = inside(&pair.server, || open(&config(Mode::Native))).err().expect("a refusal");
    assert!(matches!(error, OpenError::TransmitQueues { rx: 2, tx: 1, .. }), "{error}");
}

#[test]
fn a_frame_outlives_its_queue_and_its_socket() {
    let Some(pair) = Pair::new(1) else { return };
    let (mut queues, attachment) = inside(&pair.server, || open(&config(Mode::Native))).unwrap();
    let mut frame = queues[0].alloc_tx().unwrap();
    frame.set_len(60);
    assert_eq!(queues[0].chunks(), ChunkCounts { free: 3071, fill: 1024, stack: 1, ..Default::default() });
    drop((queues, attachment));
    frame.bytes_mut().fill(5);
    assert_eq!(frame.bytes(), [5; 60]);
}

/// Not a test of its own: what the tests below run as another process, in the server's namespace.
#[test]
fn holder() {
    if std::env::var_os("KHAMSIN_TEST_HOLDER").is_none() {
        return;
    }
    let shared = || Config { steering: Steering::Shared { ports: vec![80] }, ..config(Mode::Native) };
    // Each way to live on an interface has a program of its own.
    match open(&shared()).map(drop).and_then(|()| open(&config(Mode::Native))) {
        Ok((mut queues, _attachment)) => {
            println!("holding");
            serve(&mut queues[0], &AtomicBool::new(false));
        }
        Err(why) => println!("refused: {why}"),
    }
}

/// Starts [`holder`] behind `wrapper`, a command that runs another one; returns it and its first word, a line.
fn start_holder(pair: &Pair, wrapper: &[&str], program: &std::path::Path) -> (std::process::Child, String) {
    use std::io::{BufRead, BufReader};
    let mut child = std::process::Command::new("ip")
        .args(["netns", "exec", &pair.server])
        .args(wrapper)
        .arg(program)
        .args(["--exact", "holder", "--nocapture", "--test-threads=1"])
        .env("KHAMSIN_TEST_HOLDER", "1")
        .current_dir("/")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.into_iter().find(|line| line.contains("holding") || line.contains("refused"));
    (child, said.unwrap_or_default())
}

#[test]
fn a_killed_process_leaves_the_interface_free() {
    let Some(pair) = Pair::new(1) else { return };
    let (mut child, said) = start_holder(&pair, &[], &std::env::current_exe().unwrap());
    assert!(said.contains("holding"), "{said}");
    inside(&pair.client, || ping(&[SERVER], 50));
    child.kill().unwrap();
    let clock = khamsin_drivers::clock::Clock;
    let start = clock.now();
    let (queues, attachment) = inside(&pair.server, || open(&config(Mode::Native))).unwrap();
    let took = clock.now().since(start);
    println!("open again {took:?} after kill -9");
    assert!(took < Duration::from_secs(1), "{took:?}");
    child.wait().unwrap();
    drop((queues, attachment));
    with_server(&pair, &config(Mode::Native), || ping(&[SERVER], 50));
}

#[test]
fn three_capabilities_suffice_and_each_is_missed() {
    let Some(pair) = Pair::new(1) else { return };
    // As nobody, who may not read the build directory.
    let program = std::env::temp_dir().join(format!("khamsin-af-xdp-{}", std::process::id()));
    // By another process: a file that a child of another test's still has open for writing cannot be run.
    let copied = std::process::Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status();
    assert!(copied.unwrap().success());
    for (capabilities, wanted) in [
        ("+net_admin,+net_raw,+bpf", "holding"),
        ("+net_admin,+net_raw", "XSKMAP was refused"),
        ("+net_raw,+bpf", "was refused (not permitted): AF_XDP needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF"),
        ("+net_admin,+bpf", "was refused (not permitted)"),
    ] {
        let (inheritable, ambient) =
            (format!("--inh-caps=-all,{capabilities}"), format!("--ambient-caps=-all,{capabilities}"));
        let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &inheritable, &ambient];
        let (mut child, said) = start_holder(&pair, &wrapper, &program);
        child.kill().unwrap();
        child.wait().unwrap();
        if said.contains("locked in memory") {
            println!("SKIPPED: {said}");
            continue;
        }
        assert!(said.contains(wanted), "with {capabilities}: {said:?}");
    }
    std::fs::remove_file(program).unwrap();
}
