//! What an echo of 64 bytes costs the stack: `echo_cost CONNECTIONS ECHOES [BURST]`.
//!
//! Instructions: `valgrind --tool=callgrind --toggle-collect='*measured*' target/release/examples/echo_cost 10000 20000`,
//! then divide by the echoes. Time is printed by a plain run. Frames come from memory; only [`measured`] is counted.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use khamsin_stack::limits::Limits;
use khamsin_stack::queue::QueueStats;
use khamsin_stack::wire::{Flags, Kind, LinkHeader, Outgoing, Template, TxChecksum, VlanTags, parse};
use khamsin_stack::*;
use std::net::SocketAddr;

struct Buffer {
    bytes: Box<[u8; 2048]>,
    len: usize,
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
struct Memory {
    rx: Vec<Buffer>,
    tx: Vec<Buffer>,
    free: Vec<Buffer>,
}

impl Queue for Memory {
    type Frame = Buffer;
    fn begin(&mut self) {}
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

struct Echo;

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
    fn closed(&mut self, (): (), _: CloseReason) {}
}

struct Client {
    template: Template,
    seq: u32,
    ack: u32,
}

impl Client {
    fn new(i: usize) -> Self {
        let ip = (0xc613_0001u32 + (i / 50_000) as u32).to_be_bytes();
        let key = FlowKey::v4([198, 18, 0, 2], ip, 7, 10_000 + (i % 50_000) as u16);
        let link = LinkHeader { dst: [2; 6], src: [4; 6], vlan: VlanTags::NONE };
        Client { template: Template::new(&link, &key), seq: 1, ack: 0 }
    }

    fn send(&mut self, frame: &mut Buffer, flags: Flags, payload: &[u8]) {
        let at = self.template.header_len();
        frame.set_len(at + payload.len());
        frame.bytes_mut()[at..].copy_from_slice(payload);
        let s =
            Outgoing { seq: self.seq, ack: self.ack, flags, window: 65_535, options: &[], payload_len: payload.len() };
        self.template.write(frame.bytes_mut(), &s, TxChecksum::Full).unwrap();
        self.seq = self.seq.wrapping_add(payload.len() as u32 + u32::from(flags.syn()));
    }

    fn take(&mut self, frame: &Buffer) {
        let Kind::Tcp(s) = parse(frame.bytes()).kind else { panic!("not TCP") };
        self.ack = s.seq.wrapping_add(s.sequence_len());
    }
}

/// The part that is counted.
#[inline(never)]
fn measured(shard: &mut Shard<Echo, Memory>, now: Instant, queue: &mut Memory) {
    shard.turn(now, queue, &mut Echo);
}

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let (n, echoes, burst) = (args[0], args[1], args.get(2).copied().unwrap_or(32).min(n_max(args[0])));
    let mut queue = Memory::default();
    queue.free.extend((0..1024).map(|_| Buffer { bytes: Box::new([0; 2048]), len: 0 }));
    let config = ShardConfig {
        listeners: vec![Listener { app: 0, port: 7 }],
        addresses: Addresses::Own(vec![("198.18.0.2".parse().unwrap(), 15)]),
        gateways: vec![],
        limits: Limits::for_connections(n),
        secret: [7; 32],
        strays: None,
    };
    let mut shard = Shard::<Echo, Memory>::new(config, queue.caps());
    let mut now = Instant::from_millis(1000);
    for _ in 0..10 {
        now = now.plus_micros(1_000_000);
        shard.turn(now, &mut queue, &mut Echo);
    }
    let memory = &mut queue;
    memory.free.append(&mut memory.tx);
    let mut clients: Vec<Client> = (0..n).map(Client::new).collect();
    for client in &mut clients {
        for flags in [Flags::SYN, Flags::ACK] {
            let mut frame = queue.free.pop().unwrap();
            client.send(&mut frame, flags, &[]);
            queue.rx.push(frame);
            shard.turn(now, &mut queue, &mut Echo);
            for frame in queue.tx.drain(..) {
                client.take(&frame);
                queue.free.push(frame);
            }
        }
    }
    assert_eq!(shard.live(), n);
    let (mut dice, mut done, mut spent) = (1u64, 0, std::time::Duration::ZERO);
    let mut chosen = Vec::new();
    while done < echoes {
        chosen.clear();
        while chosen.len() < burst {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let i = (dice >> 33) as usize % n;
            if !chosen.contains(&i) {
                chosen.push(i);
            }
        }
        for &i in &chosen {
            let mut frame = queue.free.pop().unwrap();
            clients[i].send(&mut frame, Flags::ACK | Flags::PSH, &[b'x'; 64]);
            queue.rx.push(frame);
        }
        now = now.plus_micros(20);
        let start = std::time::Instant::now();
        measured(&mut shard, now, &mut queue);
        spent += start.elapsed();
        assert_eq!(queue.tx.len(), burst);
        for (frame, &i) in queue.tx.drain(..).zip(&chosen) {
            assert_eq!(frame.len, 54 + 64);
            clients[i].take(&frame);
            queue.free.push(frame);
        }
        done += burst;
    }
    println!("{n} connections, {done} echoes: {:.1} ns each", spent.as_nanos() as f64 / done as f64);
}

fn n_max(connections: usize) -> usize {
    connections.clamp(1, 64)
}
