//! A shard, a queue in memory and a peer that speaks packets by hand, in relative sequence numbers.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, unreachable_pub)] // each test file uses its part

mod diary;
mod dice;
pub mod parked;
pub use diary::{Diary, Event};
pub use dice::Dice;

use core::time::Duration;
use khamsin_stack::limits::Limits;
use khamsin_stack::queue::QueueStats;
use khamsin_stack::wire::checksum::{Verdict, verify_tcp};
use khamsin_stack::wire::{self, Flags, Kind, LinkHeader, Outgoing, Template, TxChecksum, VlanTags, tcp_options};
use khamsin_stack::*;
use std::collections::{BTreeMap, VecDeque};

pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_ISN: u32 = 0xffff_ff00; // wraps soon

pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    known: RxChecksum,
}

impl Frame for Buffer {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
    fn capacity(&self) -> usize {
        self.bytes.len()
    }
    fn set_len(&mut self, len: usize) {
        self.len = len.min(self.bytes.len());
    }
    fn rx_checksum(&self) -> RxChecksum {
        self.known
    }
}

/// A queue in memory. Counts buffers, so that a test can see that all come home.
pub struct MemQueue {
    pub rx: VecDeque<Vec<u8>>,
    pub tx: VecDeque<Vec<u8>>,
    pub out: usize,
    pub tx_frames_left: usize,
    /// Of every frame to transmit, bytes.
    pub tx_capacity: usize,
    pub caps: Caps,
    /// What is known of the checksums of received frames.
    pub known: RxChecksum,
}

impl Default for MemQueue {
    fn default() -> Self {
        let caps =
            Caps { mac: SERVER_MAC, mtu: 1500, rx_partial_checksums: false, tx_checksum: false, tx_segment_max: 0 };
        MemQueue {
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            out: 0,
            tx_frames_left: usize::MAX,
            tx_capacity: 2048,
            caps,
            known: RxChecksum::Unknown,
        }
    }
}

impl Queue for MemQueue {
    type Frame = Buffer;
    fn begin(&mut self) {}
    fn rx_burst(&mut self, burst: &mut Vec<Buffer>, limit: usize) -> usize {
        let n = self.rx.len().min(limit);
        for bytes in self.rx.drain(..n) {
            self.out += 1;
            burst.push(Buffer { len: bytes.len(), bytes, known: self.known });
        }
        n
    }
    fn alloc_tx(&mut self) -> Option<Buffer> {
        self.tx_frames_left = self.tx_frames_left.checked_sub(1)?;
        self.out += 1;
        Some(Buffer { bytes: vec![0xaa; self.tx_capacity], len: 0, known: RxChecksum::Unknown })
    }
    fn tx(&mut self, frame: Buffer, _: TxOffload) {
        self.out -= 1;
        self.tx.push_back(frame.bytes().to_vec());
    }
    fn release(&mut self, _: Buffer) {
        self.out -= 1;
    }
    fn end(&mut self) {}
    fn wait(&mut self, _: Option<Duration>) -> std::io::Result<()> {
        Ok(())
    }
    fn caps(&self) -> Caps {
        self.caps
    }
    fn stats(&self) -> QueueStats {
        QueueStats::default()
    }
}

pub fn big_byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// A segment in relative numbers: `seq` counts from the sender's ISN, `ack` from the other's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seg {
    pub flags: Flags,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

pub fn seg(flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Seg {
    Seg { flags, seq, ack, window: 65_535, options: vec![], payload: payload.to_vec() }
}
pub fn syn() -> Seg {
    Seg { options: vec![2, 4, 5, 0xb4, 3, 3, 7, 1, 4, 2, 1, 1], ..seg(Flags::SYN, 0, 0, b"") }
}
pub fn ack(seq: u32, ack: u32) -> Seg {
    seg(Flags::ACK, seq, ack, b"")
}
pub fn data(seq: u32, ack: u32, payload: &[u8]) -> Seg {
    seg(Flags::ACK | Flags::PSH, seq, ack, payload)
}
pub fn fin(seq: u32, ack: u32) -> Seg {
    seg(Flags::ACK | Flags::FIN, seq, ack, b"")
}
pub fn rst(seq: u32) -> Seg {
    seg(Flags::RST, seq, 0, b"")
}
impl Seg {
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }
}

pub struct World {
    pub shard: Shard<Diary, MemQueue>,
    pub queue: MemQueue,
    pub app: Diary,
    pub now: Instant,
    pub key: FlowKey,
    pub server_isn: u32,
    /// Of every connection so far, by the peer's port.
    pub isns: BTreeMap<u16, u32>,
    pub tags: VlanTags,
    pub peer_mac: [u8; 6],
}

pub fn config(limits: Limits) -> ShardConfig {
    ShardConfig {
        listeners: vec![Listener { app: 0, port: 7 }],
        addresses: Addresses::Own(vec![("198.18.0.2".parse().unwrap(), 24), ("fd00::2".parse().unwrap(), 64)]),
        gateways: vec![],
        limits,
        secret: *b"a secret of 32 bytes, for tests.",
        strays: None,
    }
}

pub fn small() -> Limits {
    Limits {
        connections: 16,
        live: 16,
        warm: 16,
        park_after_us: None,
        syn_backlog: 16,
        time_wait: 8,
        store_blocks: 256,
        hold_blocks: 256,
        rx_window_max: 4 << 20,
        per_source: 0,
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(small(), MemQueue::default())
    }
    pub fn with(limits: Limits, queue: MemQueue) -> Self {
        let mut world = World {
            shard: Shard::new(config(limits), queue.caps),
            queue,
            app: Diary::default(),
            now: Instant::from_millis(10_000),
            key: FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 40_000, 7),
            server_isn: 0,
            isns: BTreeMap::new(),
            tags: VlanTags::NONE,
            peer_mac: PEER_MAC,
        };
        world.turn();
        world.pass(5_000); // announcements go out
        world.queue.tx.clear();
        world
    }
    pub fn v6() -> Self {
        let mut world = Self::new();
        let ip = |s: &str| s.parse::<std::net::Ipv6Addr>().unwrap().octets();
        world.key = FlowKey::v6(ip("fd00::1"), ip("fd00::2"), 40_000, 7);
        world
    }
    pub fn events(&self) -> Vec<Event> {
        self.app.events.borrow().clone()
    }
    pub fn counters(&self) -> Counters {
        *self.shard.counters()
    }
    pub fn turn(&mut self) -> Turn {
        self.shard.turn(self.now, &mut self.queue, &mut self.app)
    }
    /// Lets time pass, stopping at every deadline as a real loop does.
    pub fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        for _ in 0..100_000 {
            let turn = self.turn();
            if turn.busy {
                continue;
            }
            match turn.deadline {
                Some(at) if at < end => self.now = at.max(self.now.plus_micros(100)),
                _ => {
                    self.now = end;
                    self.turn();
                    return;
                }
            }
        }
        panic!("no end of turns");
    }
    pub fn frame(&self, s: &Seg) -> Vec<u8> {
        let theirs = FlowKey {
            peer: self.key.local,
            local: self.key.peer,
            peer_port: self.key.local_port,
            local_port: self.key.peer_port,
        };
        let template = Template::new(&LinkHeader { dst: SERVER_MAC, src: self.peer_mac, vlan: self.tags }, &theirs);
        let at = template.header_len() + s.options.len();
        let mut frame = vec![0; at + s.payload.len()];
        frame[at..].copy_from_slice(&s.payload);
        let out = Outgoing {
            seq: PEER_ISN.wrapping_add(s.seq),
            ack: if s.flags.ack() { self.server_isn.wrapping_add(s.ack) } else { 0 },
            flags: s.flags,
            window: s.window,
            options: &s.options,
            payload_len: s.payload.len(),
        };
        template.write(&mut frame, &out, TxChecksum::Full).expect("room");
        frame
    }
    /// Puts a segment on the wire without a turn.
    pub fn queue(&mut self, s: &Seg) {
        let frame = self.frame(s);
        self.queue.rx.push_back(frame);
    }
    pub fn send(&mut self, s: Seg) {
        self.queue(&s);
        self.turn();
    }
    /// The next segment from the server, checked as a receiver would.
    pub fn next(&mut self) -> Option<Seg> {
        let frame = self.queue.tx.pop_front()?;
        let parsed = wire::parse(&frame);
        let Kind::Tcp(s) = parsed.kind else { panic!("not TCP: {parsed:?}") };
        assert_eq!(verify_tcp(&frame, &s), Verdict::Valid);
        let ip = s.packet(&frame);
        assert!(ip[0] >> 4 == 6 || ip[6..8] == [0x40, 0], "Don't Fragment (RFC 1191)");
        assert_eq!((s.key.local, s.key.peer), (self.key.peer, self.key.local));
        assert_eq!((s.key.local_port, s.key.peer_port), (self.key.peer_port, self.key.local_port));
        assert_eq!((parsed.link.dst, parsed.link.src), (self.peer_mac, SERVER_MAC));
        assert_eq!(parsed.link.vlan, self.tags);
        if s.flags.syn() {
            self.server_isn = s.seq;
            self.isns.insert(self.key.peer_port, s.seq);
        }
        Some(Seg {
            flags: s.flags,
            seq: s.seq.wrapping_sub(self.server_isn),
            ack: if s.flags.ack() { s.ack.wrapping_sub(PEER_ISN) } else { 0 },
            window: s.window,
            options: s.header(&frame)[20..].to_vec(),
            payload: s.payload(&frame).to_vec(),
        })
    }
    #[track_caller]
    pub fn expect(&mut self, flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Seg {
        let got = self.next().expect("a segment");
        assert_eq!((got.flags, got.seq, got.ack, &got.payload[..]), (flags, seq, ack, payload), "{got:?}");
        got
    }
    #[track_caller]
    pub fn expect_ack(&mut self, seq: u32, ack: u32) -> Seg {
        self.expect(Flags::ACK, seq, ack, b"")
    }
    #[track_caller]
    pub fn expect_data(&mut self, seq: u32, ack: u32, payload: &[u8]) -> Seg {
        self.expect(Flags::ACK | Flags::PSH, seq, ack, payload)
    }
    #[track_caller]
    pub fn silence(&mut self) {
        let next = self.next();
        assert_eq!(next, None);
    }
    /// SYN, SYN|ACK, ACK.
    pub fn established() -> Self {
        let mut world = World::new();
        world.establish();
        world
    }
    pub fn establish(&mut self) {
        self.send(syn());
        self.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
        self.send(ack(1, 1));
        self.silence();
        assert_eq!(self.shard.live(), 1);
    }
    /// A connection without window scaling, either way.
    pub fn unscaled() -> Self {
        let mut w = World::new();
        w.send(Seg { options: vec![2, 4, 5, 0xb4, 4, 2, 1, 1], ..syn() });
        w.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
        w.send(ack(1, 1));
        w.silence();
        w
    }
    /// What follows is of the connection from `port`.
    pub fn turn_to(&mut self, port: u16) {
        self.key.peer_port = port;
        self.server_isn = self.isns[&port];
    }
    /// The next port's connection, beside those that are.
    pub fn establish_more(&mut self) {
        let before = self.shard.live();
        self.key.peer_port += 1;
        self.send(syn());
        self.expect(Flags::SYN | Flags::ACK, 0, 1, b"");
        self.send(ack(1, 1));
        self.silence();
        assert_eq!(self.shard.live(), before + 1);
    }
    /// Every buffer is back and nothing is held for anybody.
    #[track_caller]
    pub fn quiescent(&self) {
        assert_eq!(self.queue.out, 0, "frames out");
        assert_eq!(self.shard.live(), 0);
        assert_eq!(self.shard.free_blocks(), small().store_blocks);
        assert_eq!(self.shard.free_hold_blocks(), small().hold_blocks);
    }
}

/// The blocks of a segment's SACK option in the peer's relative numbers.
pub fn sack_blocks(s: &Seg) -> Vec<(u32, u32)> {
    let header = [&[0; 20][..], &s.options].concat();
    let relative = |seq: u32| seq.wrapping_sub(PEER_ISN);
    tcp_options(&header).sack.iter().map(|&(left, right)| (relative(left), relative(right))).collect()
}

/// All that the application was given.
pub fn text(w: &World) -> Vec<u8> {
    let pieces = w.events().into_iter().filter_map(|e| if let Event::Data(text) = e { Some(text) } else { None });
    pieces.flatten().collect()
}

/// The timestamps option (RFC 7323), padded.
pub fn stamp(tsval: u32, tsecr: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &tsval.to_be_bytes(), &tsecr.to_be_bytes()].concat()
}

/// TSval and TSecr of a segment.
pub fn stamps(seg: &Seg) -> Option<(u32, u32)> {
    let header = [&[0; 20][..], &seg.options].concat();
    wire::tcp_options(&header).timestamps
}

/// The segment with that option behind its others.
pub fn with_stamp(mut seg: Seg, tsval: u32, tsecr: u32) -> Seg {
    seg.options.extend(stamp(tsval, tsecr));
    seg
}
