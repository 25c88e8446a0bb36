//! Frames in memory, an echo that keeps nothing and peers that know three numbers: what the costs of the stack are measured
//! with.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

use khamsin_stack::limits::Limits;
use khamsin_stack::queue::QueueStats;
use khamsin_stack::wire::{Flags, Kind, LinkHeader, Outgoing, Template, TxChecksum, VlanTags, parse};
use khamsin_stack::*;
use std::net::SocketAddr;

pub struct Buffer {
    bytes: Box<[u8; 2048]>,
    pub len: usize,
}

impl Frame for Buffer {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
    fn capacity(&self) -> usize {
        2048
    }
    fn set_len(&mut self, len: usize) {
        self.len = len.min(2048);
    }
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Unknown
    }
}

#[derive(Default)]
pub struct Memory {
    pub rx: Vec<Buffer>,
    pub tx: Vec<Buffer>,
    pub free: Vec<Buffer>,
    /// Connections that ended, as far as the shard has told.
    pub ended: u32,
}

impl Memory {
    pub fn with_frames(frames: usize) -> Self {
        let free = (0..frames).map(|_| Buffer { bytes: Box::new([0; 2048]), len: 0 }).collect();
        Memory { free, ..Memory::default() }
    }
}

impl Queue for Memory {
    type Frame = Buffer;
    fn begin(&mut self) {}
    fn on_turn(&mut self, _: Instant, ended: u32) {
        self.ended += ended;
    }
    fn rx_burst(&mut self, burst: &mut Vec<Buffer>, limit: usize) -> usize {
        let n = self.rx.len().min(limit);
        burst.extend(self.rx.drain(..n));
        n
    }
    fn alloc_tx(&mut self) -> Option<Buffer> {
        self.free.pop()
    }
    fn tx(&mut self, frame: Buffer, _: TxOffload) {
        self.tx.push(frame);
    }
    fn release(&mut self, frame: Buffer) {
        self.free.push(frame);
    }
    fn end(&mut self) {}
    fn wait(&mut self, _: Option<core::time::Duration>) -> std::io::Result<()> {
        Ok(())
    }
    fn caps(&self) -> Caps {
        Caps { mac: [2; 6], mtu: 1500, rx_partial_checksums: false, tx_checksum: false, tx_segment_max: 0 }
    }
    fn stats(&self) -> QueueStats {
        QueueStats::default()
    }
}

pub struct Echo;

impl App for Echo {
    type Session = ();
    fn open(&mut self, _: Instant, _: Listener, _: SocketAddr) {}
    fn ready(&mut self, _: Instant, (): &mut (), stream: &mut impl Stream) {
        let mut text = [0u8; 2048];
        let mut n = 0;
        stream.recv(|bytes| {
            n = bytes.len().min(text.len());
            text[..n].copy_from_slice(&bytes[..n]);
            n
        });
        stream.send(|room| {
            room[..n].copy_from_slice(&text[..n]);
            n
        });
    }
    fn expired(&mut self, _: Instant, (): &mut (), _: &mut impl Stream) {}
    fn park(&self, (): &()) -> Option<u32> {
        Some(0)
    }
    fn unpark(&mut self, _: Instant, _: Listener, _: SocketAddr, _: u32) {}
    fn closed(&mut self, (): (), _: CloseReason) {}
}

pub struct Client {
    template: Template,
    pub seq: u32,
    pub ack: u32,
}

impl Client {
    pub fn new(i: usize) -> Self {
        let ip = (0xc613_0001u32 + (i / 50_000) as u32).to_be_bytes();
        let key = FlowKey::v4([198, 18, 0, 2], ip, 7, 10_000 + (i % 50_000) as u16);
        let link = LinkHeader { dst: [2; 6], src: [4; 6], vlan: VlanTags::NONE };
        Client { template: Template::new(&link, &key), seq: 1, ack: 0 }
    }

    pub fn send(&mut self, frame: &mut Buffer, flags: Flags, payload: &[u8]) {
        let at = self.template.header_len();
        frame.set_len(at + payload.len());
        frame.bytes_mut()[at..].copy_from_slice(payload);
        let s =
            Outgoing { seq: self.seq, ack: self.ack, flags, window: 65_535, options: &[], payload_len: payload.len() };
        self.template.write(frame.bytes_mut(), &s, TxChecksum::Full).unwrap();
        self.seq = self.seq.wrapping_add(payload.len() as u32 + u32::from(flags.syn()));
    }

    pub fn take(&mut self, frame: &Buffer) {
        let Kind::Tcp(s) = parse(frame.bytes()).kind else { panic!("not TCP") };
        self.ack = s.seq.wrapping_add(s.sequence_len());
    }
}

/// A shard that listens on port 7 of the address that clients connect to, after its announcements.
pub fn shard(limits: Limits, queue: &mut Memory) -> (Shard<Echo, Memory>, Instant) {
    let config = ShardConfig {
        listeners: vec![Listener { app: 0, port: 7 }],
        addresses: Addresses::Own(vec![("198.18.0.2".parse().unwrap(), 15)]),
        gateways: vec![],
        limits,
        secret: [7; 32],
        strays: None,
    };
    let mut shard = Shard::new(config, queue.caps());
    let mut now = Instant::from_millis(1000);
    for _ in 0..10 {
        now = now.plus_micros(1_000_000);
        shard.turn(now, queue, &mut Echo);
    }
    queue.free.append(&mut queue.tx);
    (shard, now)
}
