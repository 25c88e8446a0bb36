//! TAPs against the kernel, each in a namespace of its own, with kernel sockets on the host side.

#![allow(clippy::unwrap_used)]

mod link_netns;

use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::link;
use khamsin_drivers::tap::{self, Config, OpenError, TapQueue};
use khamsin_stack::{Frame, Queue, TxOffload};
use link_netns::peer::{Host, pattern};
use link_netns::{Netns, gone};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A namespace, or `None` where TAPs cannot be made.
fn namespace(test: &str) -> Option<Netns> {
    let ns = Netns::new(test)?;
    match ns.run(|| tap::open(&Config::default()).map(drop).map(|()| gone("khamsin0"))) {
        Ok(true) => Some(ns),
        Ok(false) => panic!("a TAP stays without its queue"),
        Err(OpenError::NoDevice | OpenError::DeviceNotPermitted | OpenError::NotPermitted) => {
            println!("SKIPPED {test}: no TAP to be made here");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

fn open_one() -> TapQueue {
    tap::open(&Config::default()).unwrap().pop().unwrap()
}

fn connect(to: &str) -> TcpStream {
    let to: SocketAddr = to.parse().unwrap();
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn exchange(ns: &Netns, to: &str, mut host: Host<TapQueue>, up: usize, down: usize) -> Host<TapQueue> {
    (host.request, host.answer) = (up, down);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            ns.enter();
            let mut stream = connect(to);
            stream.write_all(&pattern(up)).unwrap();
            let mut got = vec![0; down];
            stream.read_exact(&mut got).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(got == pattern(down), "the answer is intact");
        });
        assert!(host.run_until(|host| host.finished), "no end: {host:?}");
        client.join().unwrap();
    });
    assert!(host.received == pattern(up), "what was sent is intact");
    host.finished = false;
    host
}

#[test]
fn super_frames_and_partial_checksums_both_ways() {
    let Some(ns) = namespace("super_frames_and_partial_checksums_both_ways") else { return };
    ns.run(|| {
        let host = Host::new(open_one());
        let (caps, kernel) = (host.queue.caps(), link::by_name("khamsin0").unwrap());
        assert_eq!(
            (caps.mtu, caps.rx_partial_checksums),
            (1500, false),
            "each frame says itself what is known of its sum"
        );
        assert_ne!(caps.mac, kernel.mac);
        assert!(kernel.up && kernel.running);
        let host = exchange(&ns, "198.18.0.2:80", host, 1_000_000, 600_000);
        assert!(host.frame_longest > 9000, "super-frames come whole: {}", host.frame_longest);
        assert_eq!(host.checksums.keys().collect::<Vec<_>>(), [&"partial"]);
        let host = exchange(&ns, "[fd00::2]:80", host, 1_000_000, 600_000);
        let stats = host.queue.stats();
        assert_eq!((stats.rx_dropped, stats.tx_errors, stats.tx_exhausted), (0, 0, 0), "{stats:?}");
        assert!(stats.tx_frames < stats.tx_bytes / 1600, "answers went in super-frames: {stats:?}");
    });
}

#[test]
fn without_offloads_too() {
    let Some(ns) = namespace("without_offloads_too") else { return };
    ns.run(|| {
        let mut host = Host::new(open_one());
        host.offload = false;
        exchange(&ns, "198.18.0.2:80", host, 1000, 100_000);
    });
}

#[test]
fn several_queues_serve_one_interface() {
    let Some(ns) = namespace("several_queues_serve_one_interface") else { return };
    ns.run(|| {
        let queues = tap::open(&Config { queues: 2, ..Config::default() }).unwrap();
        let macs: Vec<_> = queues.iter().map(|q| q.caps().mac).collect();
        assert_eq!(macs[0], macs[1]);
        let stop = AtomicBool::new(false);
        let frames: Vec<u64> = std::thread::scope(|scope| {
            let workers: Vec<_> = queues
                .into_iter()
                .map(|queue| {
                    let stop = &stop;
                    scope.spawn(move || {
                        let mut host = Host::new(queue);
                        host.answer = 5000;
                        host.run_until(|_| stop.load(Ordering::Relaxed));
                        host.queue.stats().rx_frames
                    })
                })
                .collect();
            for _ in 0..24 {
                let mut stream = connect("198.18.0.2:80");
                stream.write_all(b"hello").unwrap();
                let mut got = vec![0; 5000];
                stream.read_exact(&mut got).unwrap();
                assert_eq!(got, pattern(5000));
            }
            stop.store(true, Ordering::Relaxed);
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        assert!(frames.iter().all(|n| *n > 3), "the flows spread: {frames:?}");
        assert!(gone("khamsin0"), "it went with its queues");
    });
}

#[test]
fn a_full_queue_drops_and_counts() {
    let Some(ns) = namespace("a_full_queue_drops_and_counts") else { return };
    ns.run(|| {
        let mut queue = open_one();
        let mac = queue.caps().mac.map(|b| format!("{b:02x}")).join(":");
        ns.command(&["ip", "neighbour", "replace", "198.18.0.2", "lladdr", &mac, "dev", "khamsin0"]);
        let socket = UdpSocket::bind("198.18.0.1:0").unwrap();
        for i in 0..1500u32 {
            let _ = socket.send_to(&i.to_be_bytes(), "198.18.0.2:9");
        }
        let dropped = queue.stats().rx_dropped;
        assert!(dropped > 0, "1,500 frames do not fit a queue of 1,000");
        let (mut burst, mut taken) = (Vec::with_capacity(64), 0);
        while queue.rx_burst(&mut burst, 64) > 0 {
            for frame in burst.drain(..) {
                taken += u64::from(frame.bytes()[12..14] == [8, 0]);
                queue.release(frame);
            }
        }
        assert!(taken + dropped >= 1500, "{taken} + {dropped}");
    });
}

#[test]
fn buffers_end_and_errors_count() {
    let Some(ns) = namespace("buffers_end_and_errors_count") else { return };
    ns.run(|| {
        let mut queue = open_one();
        let mut frames = Vec::new();
        while let Some(frame) = queue.alloc_tx() {
            frames.push(frame);
        }
        assert_eq!(queue.stats().tx_exhausted, 1);
        assert_eq!(queue.rx_burst(&mut Vec::new(), 64), 0, "nothing to receive into");
        let mut frame = frames.pop().unwrap();
        frame.set_len(60);
        let nonsense = TxOffload { checksum_start: Some(4000), segment_size: None };
        queue.tx(frame, nonsense);
        let stats = queue.stats();
        assert_eq!((stats.tx_frames, stats.tx_errors, stats.invalid_descs), (0, 1, 1));
        assert!(queue.alloc_tx().is_some(), "the buffer came back");
        link::set_down("khamsin0").unwrap();
        let mut frame = frames.pop().unwrap();
        frame.set_len(60);
        queue.tx(frame, TxOffload::NONE);
        assert_eq!(queue.stats().tx_errors, 2, "down");
        queue.wait(Some(Duration::from_millis(1))).expect("down is not gone");
    });
}

#[test]
fn wait_ends_by_time_bell_frame_and_removal() {
    let Some(ns) = namespace("wait_ends_by_time_bell_frame_and_removal") else { return };
    ns.run(|| {
        let mut queue = open_one();
        let mut burst = Vec::with_capacity(64);
        let bell = Doorbell::new().unwrap();
        queue.set_doorbell(bell.clone());
        bell.ring();
        queue.wait(None).unwrap();
        assert!(!bell.answer(), "the queue answered it");
        while queue.rx_burst(&mut burst, 64) > 0 {
            burst.drain(..).for_each(|frame| queue.release(frame));
        }
        UdpSocket::bind("198.18.0.1:0").unwrap().send_to(b"x", "198.18.0.2:9").unwrap();
        queue.wait(None).unwrap();
        assert!(queue.rx_burst(&mut burst, 64) >= 1, "an ARP request");
        burst.drain(..).for_each(|frame| queue.release(frame));
        link::delete("khamsin0").unwrap();
        let error = queue.wait(None).unwrap_err().to_string();
        assert!(error.contains("khamsin0 is gone"), "{error}");
        assert!(queue.wait(None).is_err(), "and stays so");
        assert_eq!(queue.rx_burst(&mut burst, 64), 0);
    });
}

#[test]
fn a_taken_name_is_refused_with_a_sentence() {
    let Some(ns) = namespace("a_taken_name_is_refused_with_a_sentence") else { return };
    ns.run(|| {
        let first = open_one();
        let error = tap::open(&Config::default()).map(drop).unwrap_err();
        assert!(matches!(&error, OpenError::Exists { name } if name == "khamsin0"), "{error}");
        let error = tap::open(&Config { queues: 2, ..Config::default() }).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Exists { .. }), "{error}");
        drop(first);
        assert!(gone("khamsin0"), "its name is free again");
        drop(open_one());
        assert!(gone("khamsin0"), "its name is free again");
        link::create_veth("khamsin0", "khb", 1).unwrap();
        assert!(matches!(tap::open(&Config::default()).map(drop).unwrap_err(), OpenError::Exists { .. }));
    });
}
