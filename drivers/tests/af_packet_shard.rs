//! The whole stack over an AF_PACKET ring and over a TAP, with kernel sockets as clients. What is ignored here measures:
//! `cargo test --profile fast -p khamsin-drivers --test af_packet_shard -- --ignored --nocapture --test-threads 1`.

#![allow(clippy::unwrap_used)]

mod link_netns;

use core::net::{IpAddr, SocketAddr};
use khamsin_drivers::af_packet::{self, Config};
use khamsin_drivers::clock::Clock;
use khamsin_drivers::link::{self, NetNs};
use khamsin_drivers::tap;
use khamsin_stack::limits::Limits;
use khamsin_stack::shard::{Shard, ShardConfig};
use khamsin_stack::wire::Addresses;
use khamsin_stack::{
    App, Caps, CloseReason, Content, Counters, Instant, Listener, Queue, QueueStats, Stream, TxOffload,
};
use link_netns::peer::pattern;
use link_netns::{Netns, gone};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Eight bytes ask for that many bytes of the content.
struct Download(Content);

impl App for Download {
    type Session = u64;

    fn open(&mut self, _: Instant, _: Listener, _: SocketAddr) -> u64 {
        0
    }

    fn ready(&mut self, _: Instant, owed: &mut u64, stream: &mut impl Stream) {
        let mut asked = None;
        stream.recv(|bytes| {
            asked = bytes.first_chunk::<8>().map(|n| u64::from_be_bytes(*n));
            asked.map_or(0, |_| 8)
        });
        *owed += asked.unwrap_or(0);
        while *owed > 0 {
            let piece = (*owed).min(self.0.len() as u64);
            if !stream.send_shared(&self.0, 0..piece as usize) {
                break;
            }
            *owed -= piece;
        }
        if stream.finished() {
            stream.shutdown();
        }
    }

    fn expired(&mut self, _: Instant, _: &mut u64, _: &mut impl Stream) {}

    fn closed(&mut self, _: u64, _: CloseReason) {}
}

/// A queue that leaves nothing to its device.
struct Plain<Q>(Q);

impl<Q: Queue> Queue for Plain<Q> {
    type Frame = Q::Frame;

    fn begin(&mut self) {
        self.0.begin();
    }
    fn rx_burst(&mut self, burst: &mut Vec<Q::Frame>, limit: usize) -> usize {
        self.0.rx_burst(burst, limit)
    }
    fn alloc_tx(&mut self) -> Option<Q::Frame> {
        self.0.alloc_tx()
    }
    fn tx(&mut self, frame: Q::Frame, offload: TxOffload) {
        assert_eq!(offload, TxOffload::NONE);
        self.0.tx(frame, offload);
    }
    fn release(&mut self, frame: Q::Frame) {
        self.0.release(frame);
    }
    fn end(&mut self) {
        self.0.end();
    }
    fn wait(&mut self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.0.wait(timeout)
    }
    fn caps(&self) -> Caps {
        Caps { tx_checksum: false, tx_segment_max: 0, ..self.0.caps() }
    }
    fn stats(&self) -> QueueStats {
        self.0.stats()
    }
}

fn serve<Q: Queue>(mut queue: Q, stop: &AtomicBool) -> (Counters, QueueStats) {
    let addresses: Vec<(IpAddr, u8)> = vec![("198.18.0.2".parse().unwrap(), 24), ("fd00::2".parse().unwrap(), 64)];
    let config = ShardConfig {
        listeners: vec![Listener { app: 0, port: 80 }],
        addresses: Addresses::Own(addresses),
        gateways: Vec::new(),
        limits: Limits::for_connections(256),
        secret: [7; 32],
        strays: None,
    };
    let mut app = Download(Content::new(pattern(1 << 20)));
    let mut shard = Shard::new(config, queue.caps());
    while !stop.load(Ordering::Relaxed) {
        let now = Clock.now();
        let turn = shard.turn(now, &mut queue, &mut app);
        if !turn.busy {
            let longest = Duration::from_millis(50);
            queue.wait(Some(turn.deadline.map_or(longest, |at| at.since(now).min(longest)))).unwrap();
        }
    }
    (*shard.counters(), queue.stats())
}

/// Runs a server over `open`'s queue on a thread in `ours` while `client` runs in `theirs`.
fn with_server<Q: Queue, T: Send>(
    (ours, theirs): (&Netns, &Netns),
    open: impl FnOnce() -> Q + Send,
    client: impl FnOnce() -> T + Send,
) -> (T, Counters, QueueStats) {
    let stop = AtomicBool::new(false);
    let opened = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            ours.enter();
            let queue = open();
            opened.wait();
            serve(queue, &stop)
        });
        opened.wait();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| theirs.run(client)));
        stop.store(true, Ordering::Relaxed);
        let (counters, stats) = server.join().unwrap();
        match outcome {
            Ok(outcome) => (outcome, counters, stats),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn download(to: &str, len: u64, check: bool) -> Duration {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_nodelay(true).unwrap();
    let start = Clock.now();
    stream.write_all(&len.to_be_bytes()).unwrap();
    let content = if check { pattern(1 << 20) } else { Vec::new() };
    let (mut got, mut buffer) = (0u64, vec![0; 1 << 18]);
    while got < len {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the end after {got} of {len} bytes");
        if check {
            for (at, byte) in buffer[..n].iter().enumerate() {
                assert_eq!(*byte, content[(got as usize + at) & 0xf_ffff], "byte {}", got + at as u64);
            }
        }
        got += n as u64;
    }
    Clock.now().since(start)
}

fn pair(test: &str) -> Option<(Netns, Netns)> {
    let (ours, theirs) = (Netns::new(test)?, Netns::new(test)?);
    ours.run(|| {
        link::create_veth("kha", "khb", 1).unwrap();
        link::move_to_netns("khb", NetNs::Fd(theirs.file().as_fd())).unwrap();
        link::set_up("kha").unwrap();
    });
    theirs.run(|| {
        link::set_up("khb").unwrap();
        link::add_address("khb", "198.18.0.1".parse().unwrap(), 24).unwrap();
        link::add_address("khb", "fd00::1".parse().unwrap(), 64).unwrap();
    });
    Some((ours, theirs))
}

fn open_packet() -> af_packet::PacketQueue {
    let addresses: Vec<IpAddr> = vec!["198.18.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    af_packet::open(&Config::new("kha", addresses), 1).unwrap().pop().unwrap()
}

fn open_tap() -> tap::TapQueue {
    tap::open(&tap::Config::default()).unwrap().pop().unwrap()
}

fn tap_namespace(test: &str) -> Option<Netns> {
    let ns = Netns::new(test)?;
    match ns.run(|| tap::open(&tap::Config::default()).map(drop).map(|()| gone("khamsin0"))) {
        Ok(true) => Some(ns),
        Ok(false) => panic!("a TAP stays without its queue"),
        Err(error) => {
            println!("SKIPPED {test}: {error}");
            None
        }
    }
}

fn downloads() {
    for to in ["198.18.0.2:80", "[fd00::2]:80"] {
        for len in [1, 1448, 100_000, 20_000_000] {
            download(to, len, true);
        }
    }
}

/// Probes of a tail (RFC 8985 7) go out when a busy machine holds the peer up for some milliseconds; repairs do not.
fn nothing_was_lost(counters: &Counters) {
    assert!(counters.retransmitted < 40, "of 28,000 segments: {counters:?}");
    assert_eq!(counters.rto_expired, 0, "{counters:?}");
}

#[test]
fn downloads_over_af_packet() {
    let Some((ours, theirs)) = pair("downloads_over_af_packet") else { return };
    let ((), counters, stats) = with_server((&ours, &theirs), open_packet, downloads);
    assert_eq!((counters.accepted, stats.rx_dropped, stats.tx_errors), (8, 0, 0));
    nothing_was_lost(&counters);
    assert!(stats.tx_bytes / stats.tx_frames > 5000, "super-frames: {stats:?}");
    let ((), counters, _) = with_server((&ours, &theirs), || Plain(open_packet()), downloads);
    assert_eq!(counters.accepted, 8);
    nothing_was_lost(&counters);
}

#[test]
fn downloads_over_tap() {
    let Some(ns) = tap_namespace("downloads_over_tap") else { return };
    let ((), counters, stats) = with_server((&ns, &ns), open_tap, downloads);
    assert_eq!((counters.accepted, stats.rx_dropped, stats.tx_errors), (8, 0, 0));
    nothing_was_lost(&counters);
    assert!(stats.tx_bytes / stats.tx_frames > 5000, "super-frames: {stats:?}");
}

fn rate(len: u64) -> f64 {
    len as f64 * 8.0 / download("198.18.0.2:80", len, false).as_secs_f64() / 1e9
}

/// Requests a second of one connection, and the median round trip in microseconds.
fn round_trips(len: u64) -> (f64, u128) {
    let mut stream = TcpStream::connect_timeout(&"198.18.0.2:80".parse().unwrap(), Duration::from_secs(5)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; len as usize];
    let begin = Clock.now();
    let mut times: Vec<u128> = (0..5000)
        .map(|_| {
            let start = Clock.now();
            stream.write_all(&len.to_be_bytes()).unwrap();
            stream.read_exact(&mut buffer).unwrap();
            Clock.now().since(start).as_micros()
        })
        .collect();
    let rate = 5000.0 / Clock.now().since(begin).as_secs_f64();
    times.sort_unstable();
    (rate, times[2500])
}

fn measure() -> (f64, (f64, u128), (f64, u128)) {
    (rate(500_000_000), round_trips(64), round_trips(8046))
}

fn report(what: &str, (gbit, small, page): (f64, (f64, u128), (f64, u128))) {
    println!(
        "{what:28} {gbit:6.2} Gbit/s   64 B {:6.0}/s p50 {:4} us   8,046 B {:6.0}/s p50 {:4} us",
        small.0, small.1, page.0, page.1
    );
}

#[test]
#[ignore = "measures"]
fn measure_offloads() {
    let Some((ours, theirs)) = pair("measure_offloads") else { return };
    let Some(ns) = tap_namespace("measure_offloads") else { return };
    for _ in 0..3 {
        report("af-packet, offloads", with_server((&ours, &theirs), open_packet, measure).0);
        report("af-packet, none", with_server((&ours, &theirs), || Plain(open_packet()), measure).0);
        report("tap, offloads", with_server((&ns, &ns), open_tap, measure).0);
        report("tap, none", with_server((&ns, &ns), || Plain(open_tap()), measure).0);
    }
}

/// Hosts and containers of Docker forward: their kernel then tries to pass on what is for us.
#[test]
fn a_forwarding_kernel_does_not_break_connections() {
    let Some((ours, theirs)) = pair("a_forwarding_kernel_does_not_break_connections") else { return };
    ours.run(|| link::add_address("kha", "198.18.0.3".parse().unwrap(), 24).unwrap());
    ours.command(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    ours.run(|| assert!(link::forwards_ipv4("kha") && !link::forwards_ipv4("kh/../all")));
    let client = || {
        assert!(!link::forwards_ipv4("khb"));
        // Longer than the kernel takes to find that nobody answers its ARP: three tries, a second each.
        let start = Clock.now();
        while Clock.now().since(start) < Duration::from_millis(3500) {
            download("198.18.0.2:80", 1_000_000, true);
        }
    };
    let ((), counters, _) = with_server((&ours, &theirs), open_packet, client);
    assert_eq!((counters.closed_reset, counters.closed_timed_out), (0, 0));
    assert!(counters.accepted > 3);
}
