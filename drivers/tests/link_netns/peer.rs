//! A host of a few lines over any queue, for a kernel peer to talk to: it answers ARP, neighbour solicitations and echo
//! requests, and serves one TCP connection at a time. It puts segments in order and sends again what is lost: received frames
//! wait in the backlog of the CPU that sent them, a sender changes its CPU, and what other tests send may fill a backlog.

use etherparse::{
    ArpOperation, EtherType, IcmpEchoHeader, Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};
use khamsin_drivers::clock::Clock;
use khamsin_stack::{Frame, Queue, RxChecksum, TxOffload};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const ISN: u32 = 0xffff_8000;
const MSS: u16 = 1448;
/// What has not been acknowledged for so long is sent again.
const REPEAT_AFTER: Duration = Duration::from_millis(300);

/// What a connection has seen and is about to send.
pub struct Host<Q: Queue> {
    pub queue: Q,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Bytes that make a request.
    pub request: usize,
    /// A request is answered with this many bytes of [`pattern`], in frames as long as the device takes.
    pub answer: usize,
    /// Uses the device's offloads; else cuts and sums itself.
    pub offload: bool,
    pub received: Vec<u8>,
    pub checksums: BTreeMap<&'static str, usize>,
    pub frame_longest: usize,
    pub tagged: usize,
    pub echoes: usize,
    pub finished: bool,
    rcv_next: u32,
    snd_next: u32,
    /// Sequence number, bytes and FIN of segments that came before their turn.
    early: Vec<(u32, Vec<u8>, bool)>,
    /// The last segment of the connection.
    last: Option<Segment>,
    answered: usize,
    acked: u32,
    window: u32,
}

/// The bytes that an answer consists of.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

impl<Q: Queue> std::fmt::Debug for Host<Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "next {} to receive, {} to send, {} acked, window {}, {} of {} answered, {:?}",
            self.rcv_next,
            self.snd_next,
            self.acked,
            self.window,
            self.answered,
            self.answer,
            self.queue.stats()
        )
    }
}

#[derive(Clone)]
struct Segment {
    link: Vec<u8>,
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

impl<Q: Queue> Host<Q> {
    pub fn new(queue: Q) -> Self {
        Host {
            queue,
            v4: Ipv4Addr::new(198, 18, 0, 2),
            v6: "fd00::2".parse().unwrap(),
            request: 1,
            answer: 0,
            offload: true,
            received: Vec::new(),
            checksums: BTreeMap::new(),
            frame_longest: 0,
            tagged: 0,
            echoes: 0,
            finished: false,
            rcv_next: 0,
            snd_next: 0,
            early: Vec::new(),
            last: None,
            answered: 0,
            acked: 0,
            window: 0,
        }
    }

    /// Runs until `done` says so, at most for ten seconds; returns whether it did.
    pub fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = Clock.now().plus_micros(10_000_000);
        let mut burst = Vec::with_capacity(64);
        let (mut acked, mut since) = (self.acked, Clock.now());
        while Clock.now() < end {
            self.queue.begin();
            while self.queue.rx_burst(&mut burst, 64) > 0 {
                for frame in burst.drain(..) {
                    let bytes = frame.bytes().to_vec();
                    let checksum = frame.rx_checksum();
                    self.queue.release(frame);
                    self.frame(&bytes, checksum);
                }
            }
            if acked != self.acked {
                (acked, since) = (self.acked, Clock.now());
            } else if Clock.now().since(since) > REPEAT_AFTER {
                since = Clock.now();
                self.repeat();
            }
            self.queue.end();
            if done(self) {
                return true;
            }
            self.queue.wait(Some(Duration::from_millis(20))).unwrap();
        }
        false
    }

    fn frame(&mut self, bytes: &[u8], checksum: RxChecksum) {
        let Ok(packet) = SlicedPacket::from_ethernet(bytes) else { return };
        let tag = if bytes[12..14] == [0x81, 0] { 4 } else { 0 };
        self.tagged += usize::from(tag > 0);
        // Towards the sender, from us, in the same VLAN.
        let link = [&bytes[6..12], &self.queue.caps().mac, &bytes[12..12 + tag]].concat();
        match (packet.net, packet.transport) {
            (Some(NetSlice::Arp(arp)), _)
                if arp.operation() == ArpOperation::REQUEST && arp.target_protocol_addr() == self.v4.octets() =>
            {
                let mut reply = [&link[..], &[8, 6], &bytes[14 + tag..42 + tag]].concat();
                let at = 14 + tag;
                reply[at + 7] = 2;
                reply[at + 8..at + 14].copy_from_slice(&self.queue.caps().mac);
                reply[at + 14..at + 18].copy_from_slice(&self.v4.octets());
                reply[at + 18..at + 28].copy_from_slice(&bytes[at + 8..at + 18]);
                self.send(&reply, TxOffload::NONE);
            }
            (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Icmpv4(icmp))) => {
                if let Icmpv4Type::EchoRequest(header) = icmp.icmp_type() {
                    self.echo4(&link, bytes, header, icmp.payload(), tag);
                }
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => match icmp.icmp_type() {
                Icmpv6Type::NeighborSolicitation if icmp.payload().starts_with(&self.v6.octets()) => {
                    self.advertise(&link, ip.header().source_addr());
                }
                Icmpv6Type::EchoRequest(header) => {
                    let mut reply = Vec::new();
                    PacketBuilder::ipv6(self.v6.octets(), ip.header().source(), 64)
                        .icmpv6_echo_reply(header.id, header.seq)
                        .write(&mut reply, icmp.payload())
                        .unwrap();
                    self.echoes += 1;
                    self.send(&[&link[..], &EtherType::IPV6.0.to_be_bytes(), &reply].concat(), TxOffload::NONE);
                }
                _ => {}
            },
            (Some(net), Some(TransportSlice::Tcp(tcp))) => {
                let (from, to) = match net {
                    NetSlice::Ipv4(ip) => {
                        (IpAddr::V4(ip.header().source_addr()), IpAddr::V4(ip.header().destination_addr()))
                    }
                    NetSlice::Ipv6(ip) => {
                        (IpAddr::V6(ip.header().source_addr()), IpAddr::V6(ip.header().destination_addr()))
                    }
                    NetSlice::Arp(_) => return,
                };
                *self.checksums.entry(["unknown", "partial", "valid"][checksum as usize]).or_default() += 1;
                self.frame_longest = self.frame_longest.max(bytes.len());
                let segment = Segment { link, from: (from, tcp.source_port()), to: (to, tcp.destination_port()) };
                self.segment(&segment, &tcp);
            }
            _ => {}
        }
    }

    fn echo4(&mut self, link: &[u8], bytes: &[u8], header: IcmpEchoHeader, payload: &[u8], tag: usize) {
        let source: [u8; 4] = bytes[26 + tag..30 + tag].try_into().unwrap();
        let mut reply = Vec::new();
        PacketBuilder::ipv4(self.v4.octets(), source, 64)
            .icmpv4_echo_reply(header.id, header.seq)
            .write(&mut reply, payload)
            .unwrap();
        self.echoes += 1;
        self.send(&[link, &EtherType::IPV4.0.to_be_bytes(), &reply].concat(), TxOffload::NONE);
    }

    fn advertise(&mut self, link: &[u8], to: Ipv6Addr) {
        let mut body = self.v6.octets().to_vec();
        body.extend([2, 1]);
        body.extend(self.queue.caps().mac);
        let mut reply = Vec::new();
        PacketBuilder::ipv6(self.v6.octets(), to.octets(), 255)
            .icmpv6_raw(136, 0, [0x60, 0, 0, 0])
            .write(&mut reply, &body)
            .unwrap();
        self.send(&[link, &EtherType::IPV6.0.to_be_bytes(), &reply].concat(), TxOffload::NONE);
    }

    fn segment(&mut self, segment: &Segment, tcp: &etherparse::TcpSlice<'_>) {
        if tcp.rst() {
            self.finished = true;
            return;
        }
        if tcp.syn() {
            self.rcv_next = tcp.sequence_number().wrapping_add(1);
            (self.snd_next, self.acked, self.answered) = (ISN, ISN, 0);
            self.received.clear();
            self.early.clear();
            self.last = Some(segment.clone());
            self.tcp(segment, &[], true);
            return;
        }
        if self.last.as_ref().is_none_or(|last| last.from != segment.from) {
            return;
        }
        self.last = Some(segment.clone());
        self.window = u32::from(tcp.window_size());
        self.acknowledged(tcp.acknowledgment_number());
        let (seq, data) = (tcp.sequence_number(), tcp.payload());
        if !data.is_empty() || tcp.fin() {
            // Before its turn.
            if (1..1 << 17).contains(&seq.wrapping_sub(self.rcv_next)) && self.early.len() < 256 {
                self.early.push((seq, data.to_vec(), tcp.fin()));
            }
            self.take(seq, data, tcp.fin());
            while let Some(next) = self.early.iter().position(|(seq, data, _)| self.known(*seq) <= data.len()) {
                let (seq, data, fin) = self.early.swap_remove(next);
                self.take(seq, &data, fin);
            }
            // Whether it was new or its acknowledgement was lost.
            self.tcp(segment, &[], false);
        }
        if self.received.len() >= self.request {
            self.send_answer(segment);
        }
    }

    /// How many bytes that begin at `seq` have come; more than any segment holds when something before them has not.
    fn known(&self, seq: u32) -> usize {
        self.rcv_next.wrapping_sub(seq) as usize
    }

    /// Takes the part of a segment that is new, if nothing before it is missing.
    fn take(&mut self, seq: u32, data: &[u8], fin: bool) {
        let Some(data) = data.get(self.known(seq)..) else { return };
        self.received.extend_from_slice(data);
        self.finished |= fin;
        self.rcv_next = self.rcv_next.wrapping_add(data.len() as u32 + u32::from(fin));
    }

    fn acknowledged(&mut self, ack: u32) {
        let newer = |a: u32, b: u32| a != b && a.wrapping_sub(b) < 1 << 31;
        if newer(ack, self.acked) {
            self.acked = ack;
        }
        // Of what was to be sent again, but had come.
        if newer(self.acked, self.snd_next) {
            self.answered += self.acked.wrapping_sub(self.snd_next) as usize;
            self.snd_next = self.acked;
        }
    }

    /// Sends again what is not acknowledged.
    fn repeat(&mut self) {
        let in_flight = self.snd_next.wrapping_sub(self.acked) as usize;
        let Some(segment) = self.last.clone().filter(|_| (1..=self.answered).contains(&in_flight)) else { return };
        self.answered -= in_flight;
        self.snd_next = self.acked;
        self.send_answer(&segment);
    }

    /// As much of the answer as the peer's window admits and, where the device cuts, in frames as long as it takes.
    fn send_answer(&mut self, segment: &Segment) {
        let all = pattern(self.answer);
        let frame_max = if self.offload { self.queue.caps().tx_segment_max.max(1600) - 100 } else { usize::from(MSS) };
        while self.answered < all.len() {
            let in_flight = self.snd_next.wrapping_sub(self.acked);
            let room = self.window.saturating_sub(in_flight) as usize;
            let len = (all.len() - self.answered).min(frame_max).min(room);
            if len == 0 {
                break;
            }
            self.tcp(segment, &all[self.answered..self.answered + len], false);
            self.answered += len;
        }
    }

    fn tcp(&mut self, segment: &Segment, payload: &[u8], syn: bool) {
        let (to, from) = (segment.from, segment.to);
        let build = |source: u16, destination: u16, sequence: u32| {
            let ip = match (from.0, to.0) {
                (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), 64),
                (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), 64),
                _ => unreachable!(),
            };
            ip.tcp(source, destination, sequence, 65_535)
        };
        let builder = build(from.1, to.1, self.snd_next).ack(self.rcv_next);
        let builder = if syn {
            let mss = etherparse::TcpOptionElement::MaximumSegmentSize(MSS + 12);
            builder.syn().options(&[mss]).unwrap()
        } else {
            builder.psh()
        };
        let mut packet = Vec::new();
        builder.write(&mut packet, payload).unwrap();
        self.snd_next = self.snd_next.wrapping_add(payload.len() as u32 + u32::from(syn));
        let (ethertype, ip_len) = if to.0.is_ipv4() { (EtherType::IPV4, 20) } else { (EtherType::IPV6, 40) };
        let mut frame = [&segment.link[..], &ethertype.0.to_be_bytes(), &packet].concat();
        let mut offload = TxOffload::NONE;
        if self.offload && self.queue.caps().tx_checksum {
            let start = segment.link.len() + 2 + ip_len;
            let sum = pseudo_sum(from.0, to.0, (frame.len() - start) as u32);
            frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
            offload.checksum_start = Some(start as u16);
            if payload.len() > usize::from(MSS) {
                offload.segment_size = Some(MSS);
            }
        }
        self.send(&frame, offload);
    }

    fn send(&mut self, bytes: &[u8], offload: TxOffload) {
        let mut frame = self.queue.alloc_tx().unwrap();
        frame.set_len(bytes.len());
        assert_eq!(frame.bytes().len(), bytes.len(), "the frame fits");
        frame.bytes_mut().copy_from_slice(bytes);
        self.queue.tx(frame, offload);
    }
}

/// The folded, not inverted sum of the TCP pseudo-header.
fn pseudo_sum(from: IpAddr, to: IpAddr, len: u32) -> u16 {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(a) => bytes.extend(a.octets()),
            IpAddr::V6(a) => bytes.extend(a.octets()),
        }
    }
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 6]);
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
