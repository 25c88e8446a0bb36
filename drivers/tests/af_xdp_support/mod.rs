//! What the privileged tests share: a veth pair between two namespaces, a kernel peer, and a loop that echoes pings.

#![allow(dead_code)]

use khamsin_drivers::af_xdp::{Config, CopyMode, Mode, Steering};
use khamsin_stack::{Frame, Queue, TxOffload};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Runs one command to its end; its words when it fails.
pub(crate) fn run(command: &str) -> Result<(), String> {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().map_err(|e| format!("{command}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// `veth0` (198.18.0.1) in a client namespace, `veth1` (no address) in a server namespace.
pub(crate) struct Pair {
    pub(crate) client: String,
    pub(crate) server: String,
}

impl Pair {
    /// `None`, and a line that says why, where the privilege is missing.
    pub(crate) fn new(queues: u32) -> Option<Pair> {
        Pair::with(
            &format!("numrxqueues {queues} numtxqueues {queues}"),
            &format!("numrxqueues {queues} numtxqueues {queues}"),
        )
    }

    /// With these options for each end.
    pub(crate) fn with(client_options: &str, server_options: &str) -> Option<Pair> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let pair = Pair { client: format!("khc{id}"), server: format!("khs{id}") };
        let (c, s) = (&pair.client, &pair.server);
        for ns in [c, s] {
            if let Err(why) = run(&format!("ip netns add {ns}")) {
                println!("SKIPPED: {why} (AF_XDP tests need root and iproute2)");
                return None;
            }
        }
        let steps = [
            format!(
                "ip -n {c} link add veth0 address 02:00:00:00:00:01 {client_options} type veth peer name veth1 \
                 address 02:00:00:00:00:02 {server_options} netns {s}"
            ),
            format!("ip netns exec {c} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"),
            format!("ip netns exec {s} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"),
            format!("ip -n {c} addr add {CLIENT}/24 dev veth0"),
            format!("ip -n {c} link set lo up"),
            format!("ip -n {c} link set veth0 up"),
            format!("ip -n {s} link set veth1 up"),
        ];
        steps.iter().for_each(|step| run(step).unwrap());
        Some(pair)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for ns in [&self.client, &self.server] {
            let _ = run(&format!("ip netns del {ns}"));
        }
    }
}

/// Runs `work` on a thread of its own inside a namespace.
pub(crate) fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(format!("/run/netns/{namespace}")).unwrap();
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))
                .unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn own(addresses: &[Ipv4Addr]) -> Steering {
    Steering::Own { addresses: addresses.iter().map(|a| IpAddr::V4(*a)).collect() }
}

pub(crate) fn config(mode: Mode) -> Config {
    Config { interface: "veth1".into(), mode, copy: CopyMode::Copy, steering: own(&[SERVER]), frames_per_queue: 4096 }
}

/// A raw ICMP socket of the kernel.
pub(crate) struct Pinger(OwnedFd);

impl Pinger {
    pub(crate) fn new() -> Pinger {
        let fd = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).unwrap();
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(2))).unwrap();
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 32 << 20);
        Pinger(fd)
    }

    /// Sends one echo request of `len` payload bytes that are made from `sequence`.
    pub(crate) fn send(&self, to: Ipv4Addr, sequence: u16, len: usize) {
        let mut message = vec![8, 0, 0, 0, 0x4b, 0x48, 0, 0];
        message[6..8].copy_from_slice(&sequence.to_be_bytes());
        message.extend((0..len).map(|i| pattern(sequence, i)));
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        rustix::net::sendto(&self.0, &message, SendFlags::empty(), &SocketAddrV4::new(to, 0)).unwrap();
    }

    /// The next echo reply: who sent it, its sequence number and how long its payload is. Checks every byte.
    pub(crate) fn reply(&self) -> Option<(Ipv4Addr, u16, usize)> {
        let mut bytes = [0u8; 4096];
        loop {
            let (_, len) = rustix::net::recv(&self.0, &mut bytes[..], RecvFlags::empty()).ok()?;
            let message = &bytes[20..len];
            if message[0] != 0 || message[4..6] != [0x4b, 0x48] {
                continue;
            }
            let sequence = u16::from_be_bytes([message[6], message[7]]);
            assert_eq!(checksum(message), 0, "checksum of reply {sequence}");
            assert!(
                message[8..].iter().enumerate().all(|(i, b)| *b == pattern(sequence, i)),
                "bytes of reply {sequence}"
            );
            return Some((Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]), sequence, message.len() - 8));
        }
    }
}

fn pattern(sequence: u16, i: usize) -> u8 {
    (usize::from(sequence) * 31 + i * 7) as u8
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Turns an ARP request or an ICMP echo request into its answer, in place. False: neither.
pub(crate) fn answer(frame: &mut [u8], mac: [u8; 6]) -> bool {
    if frame.len() < 42 {
        return false;
    }
    match (frame[12], frame[13]) {
        (8, 6) if frame[21] == 1 => {
            let (sender, target): ([u8; 10], [u8; 4]) =
                (frame[22..32].try_into().unwrap(), frame[38..42].try_into().unwrap());
            frame[21] = 2;
            frame[22..28].copy_from_slice(&mac);
            frame[28..32].copy_from_slice(&target);
            frame[32..42].copy_from_slice(&sender);
            frame[..6].copy_from_slice(&sender[..6]);
        }
        (8, 0) if frame[23] == 1 && frame[34] == 8 => {
            let (sender, source): ([u8; 6], [u8; 4]) =
                (frame[6..12].try_into().unwrap(), frame[26..30].try_into().unwrap());
            frame.copy_within(30..34, 26);
            frame[30..34].copy_from_slice(&source);
            frame[..6].copy_from_slice(&sender);
            frame[34] = 0;
            frame[36..38].fill(0);
            let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            let sum = checksum(&frame[34..14 + total]);
            frame[36..38].copy_from_slice(&sum.to_be_bytes());
        }
        _ => return false,
    }
    frame[6..12].copy_from_slice(&mac);
    true
}

/// Answers until `stop`, sleeping when there is nothing to do. Even frames are answered in place, odd ones in a fresh frame.
pub(crate) fn serve<Q: Queue>(queue: &mut Q, stop: &AtomicBool) {
    let mut burst = Vec::with_capacity(64);
    let mut count = 0u64;
    while !stop.load(Ordering::Relaxed) {
        if turn(queue, &mut burst, &mut count) == 0 {
            queue.wait(Some(Duration::from_millis(20))).unwrap();
        }
    }
}

/// One turn; returns the number of frames received.
pub(crate) fn turn<Q: Queue>(queue: &mut Q, burst: &mut Vec<Q::Frame>, count: &mut u64) -> usize {
    let mac = queue.caps().mac;
    queue.begin();
    let received = queue.rx_burst(burst, 64);
    for mut frame in burst.drain(..) {
        *count += 1;
        if !answer(frame.bytes_mut(), mac) {
            queue.release(frame);
        } else if (*count).is_multiple_of(2) {
            queue.tx(frame, TxOffload::NONE);
        } else {
            if let Some(mut fresh) = queue.alloc_tx() {
                fresh.set_len(frame.bytes().len());
                fresh.bytes_mut().copy_from_slice(frame.bytes());
                queue.tx(fresh, TxOffload::NONE);
            }
            queue.release(frame);
        }
    }
    queue.end();
    received
}

/// A UDP datagram from the server's port 9 to the client's `port`.
pub(crate) fn udp(frame: &mut [u8], port: u16) {
    let len = frame.len();
    frame.fill(0);
    frame[..6].copy_from_slice(&CLIENT_MAC);
    frame[6..12].copy_from_slice(&SERVER_MAC);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17]);
    frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    frame[26..30].copy_from_slice(&SERVER.octets());
    frame[30..34].copy_from_slice(&CLIENT.octets());
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[35] = 9;
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame[38..40].copy_from_slice(&((len - 34) as u16).to_be_bytes());
}

/// Sends a SYN; nobody waits for an answer.
pub(crate) fn connect_without_waiting(to: Ipv4Addr, port: u16) -> OwnedFd {
    let flags = rustix::net::SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let begun = rustix::net::connect(&socket, &SocketAddrV4::new(to, port));
    assert_eq!(begun, Err(rustix::io::Errno::INPROGRESS));
    socket
}
