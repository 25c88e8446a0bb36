//! AF_PACKET rings against the kernel: a veth pair in namespaces of its own, kernel sockets on the far end.

#![allow(clippy::unwrap_used)]

mod link_netns;

use core::net::IpAddr;
use khamsin_drivers::af_packet::{self, Config, OpenError, PacketQueue};
use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::link::{self, NetNs};
use khamsin_stack::{Frame, Queue, TxOffload};
use link_netns::Netns;
use link_netns::peer::{Host, pattern};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// Our namespace with `kha`, the peer's with `khb` and 198.18.0.1/24, fd00::1/64.
fn pair(test: &str) -> Option<(Netns, Netns)> {
    let (ours, theirs) = (Netns::new(test)?, Netns::new(test)?);
    ours.run(|| {
        link::create_veth("kha", "khb", 2).unwrap();
        link::move_to_netns("khb", NetNs::Fd(theirs.file().as_fd())).unwrap();
        link::set_up("kha").unwrap();
    });
    theirs.run(|| {
        link::set_up("lo").unwrap();
        link::set_up("khb").unwrap();
        link::add_address("khb", "198.18.0.1".parse().unwrap(), 24).unwrap();
        link::add_address("khb", "fd00::1".parse().unwrap(), 64).unwrap();
    });
    Some((ours, theirs))
}

fn config() -> Config {
    Config::new("kha", ["198.18.0.2".parse().unwrap(), "fd00::2".parse::<IpAddr>().unwrap()])
}

fn open_one() -> PacketQueue {
    af_packet::open(&config(), 1).unwrap().pop().unwrap()
}

fn connect(to: &str) -> TcpStream {
    let to: SocketAddr = to.parse().unwrap();
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Sends `up` bytes, then reads `down` bytes, and checks both.
fn exchange(theirs: &Netns, to: &str, mut host: Host<PacketQueue>, up: usize, down: usize) -> Host<PacketQueue> {
    (host.request, host.answer) = (up, down);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            theirs.enter();
            let mut stream = connect(to);
            stream.write_all(&pattern(up)).unwrap();
            let mut got = vec![0; down];
            stream.read_exact(&mut got).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(got == pattern(down), "the answer is intact");
        });
        assert!(host.run_until(|host| host.finished), "no end: {} bytes came, {:?}", host.received.len(), host);
        client.join().unwrap();
    });
    assert!(host.received == pattern(up), "what was sent is intact");
    host.finished = false;
    host
}

#[test]
fn super_frames_and_partial_checksums_both_ways() {
    let Some((ours, theirs)) = pair("super_frames_and_partial_checksums_both_ways") else { return };
    ours.run(|| {
        let host = Host::new(open_one());
        assert_eq!(host.queue.caps().mtu, 1500);
        assert!(host.queue.caps().tx_checksum && host.queue.caps().tx_segment_max > 60_000);
        assert!(!host.queue.caps().rx_partial_checksums, "each frame says so itself");
        let host = exchange(&theirs, "198.18.0.2:80", host, 1_000_000, 600_000);
        assert!(host.frame_longest > 9000, "super-frames come whole: {}", host.frame_longest);
        assert_eq!(host.checksums.keys().collect::<Vec<_>>(), [&"partial"]);
        let host = exchange(&theirs, "[fd00::2]:80", host, 1_000_000, 600_000);
        let stats = host.queue.stats();
        assert_eq!((stats.rx_dropped, stats.tx_errors, stats.tx_exhausted), (0, 0, 0), "{stats:?}");
        assert!(stats.tx_frames < stats.tx_bytes / 1600, "answers went in super-frames: {stats:?}");
    });
    let retransmitted = theirs.command(&["cat", "/proc/net/netstat"]);
    assert!(retransmitted.contains("TcpExt"), "{retransmitted}");
}

#[test]
fn without_offloads_too() {
    let Some((ours, theirs)) = pair("without_offloads_too") else { return };
    ours.run(|| {
        let mut host = Host::new(open_one());
        host.offload = false;
        exchange(&theirs, "198.18.0.2:80", host, 1000, 100_000);
    });
}

#[test]
fn the_far_kernel_resolves_us_and_ours_keeps_silent() {
    let Some((ours, theirs)) = pair("the_far_kernel_resolves_us_and_ours_keeps_silent") else { return };
    ours.run(|| {
        // Nobody listens here: the kernel of our namespace sees the SYN too, and must neither answer ARP nor reset.
        let client = || {
            theirs.run(|| {
                let to: SocketAddr = "198.18.0.2:80".parse().unwrap();
                TcpStream::connect_timeout(&to, Duration::from_millis(300)).map(drop).unwrap_err().kind()
            })
        };
        assert_eq!(client(), std::io::ErrorKind::TimedOut, "no ARP answer, no RST");
        let mac = link::by_name("kha").unwrap().mac.map(|b| format!("{b:02x}")).join(":");
        theirs.command(&["ip", "neighbour", "replace", "198.18.0.2", "lladdr", &mac, "dev", "khb"]);
        assert_eq!(client(), std::io::ErrorKind::TimedOut, "no RST from the kernel that has not this address");
        theirs.command(&["ip", "neighbour", "del", "198.18.0.2", "dev", "khb"]);
        exchange(&theirs, "198.18.0.2:80", Host::new(open_one()), 10, 10);
    });
    let neighbours = theirs.command(&["ip", "neighbour", "show", "dev", "khb"]);
    assert!(neighbours.contains("198.18.0.2 lladdr"), "{neighbours}");
}

#[test]
fn tagged_frames_come_and_go_with_their_tag() {
    let Some((ours, theirs)) = pair("tagged_frames_come_and_go_with_their_tag") else { return };
    let mut asker =
        theirs.run(|| af_packet::open(&Config::new("khb", ["198.18.0.9".parse().unwrap()]), 1).unwrap().pop().unwrap());
    let mut host = ours.run(|| Host::new(open_one()));
    // An ARP request in VLAN 7 with priority 1.
    let mut request = [&[0xff; 6][..], &asker.caps().mac, &[0x81, 0, 0x20, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    request.extend(asker.caps().mac);
    request.extend([198, 18, 0, 9, 0, 0, 0, 0, 0, 0, 198, 18, 0, 2]);
    let mut frame = asker.alloc_tx().unwrap();
    frame.set_len(request.len());
    frame.bytes_mut().copy_from_slice(&request);
    asker.tx(frame, TxOffload::NONE);
    asker.end();
    assert!(host.run_until(|host| host.tagged == 1));
    asker.wait(Some(Duration::from_secs(5))).unwrap();
    let mut burst = Vec::with_capacity(64);
    assert_eq!(asker.rx_burst(&mut burst, 64), 1);
    let reply = burst.pop().unwrap();
    assert_eq!(reply.bytes()[..6], asker.caps().mac);
    assert_eq!(reply.bytes()[6..12], host.queue.caps().mac);
    assert_eq!(reply.bytes()[12..18], [0x81, 0, 0x20, 7, 8, 6]);
    assert_eq!(reply.bytes()[24..26], [0, 2], "an ARP reply");
    // A received frame can be sent back where it lies.
    asker.tx(reply, TxOffload::NONE);
    asker.end();
    assert_eq!((asker.stats().tx_frames, asker.stats().tx_errors), (2, 0));
}

#[test]
fn a_flow_stays_on_one_of_several_queues() {
    let Some((ours, theirs)) = pair("a_flow_stays_on_one_of_several_queues") else { return };
    ours.run(|| {
        let queues = af_packet::open(&config(), 4).unwrap();
        let (stop, count) = (std::sync::atomic::AtomicBool::new(false), 24);
        let accepted: Vec<u64> = std::thread::scope(|scope| {
            let workers: Vec<_> = queues
                .into_iter()
                .map(|queue| {
                    let stop = &stop;
                    scope.spawn(move || {
                        // A host that serves one connection at a time: a second flow, or half of one, would break it.
                        let mut host = Host::new(queue);
                        host.answer = 5000;
                        host.run_until(|_| stop.load(std::sync::atomic::Ordering::Relaxed));
                        host.queue.stats().rx_frames
                    })
                })
                .collect();
            theirs.run(|| {
                for _ in 0..count {
                    let mut stream = connect("198.18.0.2:80");
                    stream.write_all(b"hello").unwrap();
                    let mut got = vec![0; 5000];
                    stream.read_exact(&mut got).unwrap();
                    assert_eq!(got, pattern(5000));
                }
            });
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        assert!(accepted.iter().filter(|n| **n > 0).count() >= 2, "the flows spread: {accepted:?}");
    });
}

#[test]
fn the_filter_keeps_what_is_not_ours_out_of_the_ring() {
    let Some((ours, theirs)) = pair("the_filter_keeps_what_is_not_ours_out_of_the_ring") else { return };
    ours.run(|| {
        let mut queue = open_one();
        theirs.run(|| {
            let socket = std::net::UdpSocket::bind("198.18.0.1:0").unwrap();
            socket.set_broadcast(true).unwrap();
            for i in 0..1000u32 {
                socket.send_to(&i.to_be_bytes(), "198.18.0.255:9").unwrap();
            }
        });
        assert_eq!(queue.rx_burst(&mut Vec::new(), 64), 0);
        assert_eq!(queue.stats().rx_dropped, 0, "nor do they count as dropped");
    });
}

#[test]
fn a_full_ring_drops_and_counts() {
    let Some((ours, theirs)) = pair("a_full_ring_drops_and_counts") else { return };
    ours.run(|| {
        let mut queue = af_packet::open(&Config { rx_slots: 15, ..config() }, 1).unwrap().pop().unwrap();
        let mac = queue.caps().mac.map(|b| format!("{b:02x}")).join(":");
        theirs.command(&["ip", "neighbour", "replace", "198.18.0.2", "lladdr", &mac, "dev", "khb"]);
        theirs.run(|| {
            // A SYN for each: nobody answers.
            for port in 1000..1040 {
                let to: SocketAddr = format!("198.18.0.2:{port}").parse().unwrap();
                let _ = TcpStream::connect_timeout(&to, Duration::from_micros(1));
            }
        });
        let mut burst = Vec::with_capacity(64);
        assert_eq!(queue.rx_burst(&mut burst, 64), 15);
        let stats = queue.stats();
        assert!(stats.rx_dropped >= 25 && stats.rx_ring_starved == stats.rx_dropped, "{stats:?}");
        assert_eq!(queue.stats().rx_dropped, stats.rx_dropped, "reading does not forget");
        burst.into_iter().for_each(|frame| queue.release(frame));
    });
}

#[test]
fn buffers_end_and_errors_count() {
    let Some((ours, _theirs)) = pair("buffers_end_and_errors_count") else { return };
    ours.run(|| {
        let mut queue = open_one();
        let mut frames = Vec::new();
        while let Some(frame) = queue.alloc_tx() {
            frames.push(frame);
        }
        assert_eq!(queue.stats().tx_exhausted, 1);
        let mut send = |queue: &mut PacketQueue, len: usize, offload| {
            let mut frame = frames.pop().unwrap();
            frame.set_len(len);
            frame.bytes_mut().fill(2);
            queue.tx(frame, offload);
            queue.end();
            let stats = queue.stats();
            (stats.tx_frames, stats.tx_errors, stats.invalid_descs)
        };
        let nonsense = TxOffload { checksum_start: Some(4000), segment_size: None };
        assert_eq!(send(&mut queue, 60, nonsense), (0, 1, 1));
        assert_eq!(send(&mut queue, 9000, TxOffload::NONE), (0, 2, 2), "longer than the MTU and not to be cut");
        assert_eq!(send(&mut queue, 60, TxOffload::NONE), (1, 2, 2));
        assert!(queue.alloc_tx().is_some(), "the buffers came back");
        // A frame that cannot be sent does not keep those behind it.
        for offload in [nonsense, TxOffload::NONE, nonsense, TxOffload::NONE] {
            let mut frame = frames.pop().unwrap();
            frame.set_len(60);
            queue.tx(frame, offload);
        }
        queue.end();
        let stats = queue.stats();
        assert_eq!((stats.tx_frames, stats.tx_errors, stats.invalid_descs), (3, 4, 4));
        link::set_down("kha").unwrap();
        let mut frame = frames.pop().unwrap();
        frame.set_len(60);
        queue.tx(frame, TxOffload::NONE);
        queue.end();
        assert_eq!(queue.stats().tx_errors, 5, "down");
    });
}

#[test]
fn wait_ends_by_time_bell_frame_and_removal() {
    let Some((ours, theirs)) = pair("wait_ends_by_time_bell_frame_and_removal") else { return };
    ours.run(|| {
        let mut queue = open_one();
        queue.wait(Some(Duration::from_millis(1))).unwrap();
        let bell = Doorbell::new().unwrap();
        queue.set_doorbell(bell.clone());
        bell.ring();
        queue.wait(None).unwrap();
        assert!(!bell.answer(), "the queue answered it");
        // Down and up again passes; what comes afterwards is received.
        link::set_down("kha").unwrap();
        queue.wait(Some(Duration::from_millis(1))).unwrap();
        link::set_up("kha").unwrap();
        theirs.command(&["ip", "neighbour", "replace", "198.18.0.2", "lladdr", "02:00:00:00:00:02", "dev", "khb"]);
        let mac = queue.caps().mac.map(|b| format!("{b:02x}")).join(":");
        theirs.command(&["ip", "neighbour", "replace", "198.18.0.2", "lladdr", &mac, "dev", "khb"]);
        theirs.run(|| {
            let to: SocketAddr = "198.18.0.2:80".parse().unwrap();
            let _ = TcpStream::connect_timeout(&to, Duration::from_millis(1));
        });
        queue.wait(None).unwrap();
        let mut burst = Vec::with_capacity(64);
        assert!(queue.rx_burst(&mut burst, 64) >= 1);
        burst.into_iter().for_each(|frame| queue.release(frame));
        link::delete("kha").unwrap();
        let error = queue.wait(None).unwrap_err().to_string();
        assert!(error.contains("kha is gone"), "{error}");
        assert!(queue.wait(None).is_err(), "and stays so");
    });
}

#[test]
fn what_cannot_work_is_refused_with_a_sentence() {
    let Some((ours, _theirs)) = pair("what_cannot_work_is_refused_with_a_sentence") else { return };
    ours.run(|| {
        let open = |config: &Config| af_packet::open(config, 1).map(drop).unwrap_err();
        assert!(matches!(open(&Config::new("kha", [])), OpenError::NoAddress { .. }));
        assert!(matches!(open(&Config { interface: "khz".into(), ..config() }), OpenError::Link(_)));
        assert!(matches!(open(&Config { interface: "lo".into(), ..config() }), OpenError::NotEthernet { .. }));
        link::add_address("kha", "198.18.0.2".parse().unwrap(), 24).unwrap();
        let error = open(&config());
        assert!(matches!(&error, OpenError::KernelOwns { owner, .. } if owner == "kha"), "{error}");
        assert!(error.to_string().contains("ip address del 198.18.0.2 dev kha"), "{error}");
        link::set_down("kha").unwrap();
        assert!(matches!(open(&config()), OpenError::Down { .. }));
    });
}

/// The inner half of the next test: in a user and network namespace of its own, as nobody.
#[test]
#[ignore = "started by serves_in_an_unprivileged_user_namespace"]
fn inside_a_user_namespace() {
    link::create_veth("kha", "khb", 1).unwrap();
    link::set_up("kha").unwrap();
    link::set_up("khb").unwrap();
    link::add_address("khb", "198.18.0.1".parse().unwrap(), 24).unwrap();
    let mut host = Host::new(open_one());
    (host.request, host.answer) = (100_000, 300_000);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut stream = connect("198.18.0.2:80");
            stream.write_all(&pattern(100_000)).unwrap();
            let mut got = vec![0; 300_000];
            stream.read_exact(&mut got).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(got == pattern(300_000));
        });
        assert!(host.run_until(|host| host.finished), "{host:?}");
        client.join().unwrap();
    });
    assert!(host.received == pattern(100_000));
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    println!("served as {}", map.split_whitespace().collect::<Vec<_>>().join(" "));
}

#[test]
fn serves_in_an_unprivileged_user_namespace() {
    let test = "serves_in_an_unprivileged_user_namespace";
    let me = std::env::current_exe().unwrap();
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "unshare", "-Urn"];
    let possible = std::process::Command::new("setpriv").args(nobody).args(["test", "-x"]).arg(&me).status();
    if !possible.is_ok_and(|status| status.success()) {
        println!("SKIPPED {test}: nobody cannot make a user namespace here, or cannot reach {}", me.display());
        return;
    }
    let inner = ["--exact", "inside_a_user_namespace", "--ignored", "--nocapture"];
    let done = std::process::Command::new("setpriv").args(nobody).arg(&me).args(inner).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("served as 0 65534 1"),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
