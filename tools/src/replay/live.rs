//! `--live`: the recorded clients on a wire, against whatever server is there.
//!
//! Frames go through libpcap's packet socket, from addresses that this machine's kernel does not own: it would reset what it
//! does not know. ARP for them is answered here.

use super::client::{Client, Manner};
use super::mapping::Mapping;
use super::world::{Chosen, Order, Outcome};
use anyhow::{Context, Result, bail};
use khamsin_drivers::clock::Clock;
use khamsin_drivers::sim::client::{Packet, parse_partial};
use khamsin_stack::Counters;
use pcap::{Active, Capture};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread::sleep;
use std::time::Duration;

/// Where the clients are played.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The interface.
    pub interface: String,
    /// The server, and its port where the recorded one is not to be used.
    pub server: Ipv4Addr,
    /// See there.
    pub port: Option<u16>,
    /// First address of the clients, and how many there are.
    pub source: (Ipv4Addr, u32),
    /// The server's or a router's; `None`: asked for by ARP.
    pub mac: Option<[u8; 6]>,
    /// Whatever happens, it is over then.
    pub limit: Duration,
}

/// Frames taken from the interface in a row before clients are looked at again.
const BURST: usize = 64;
/// Sleep between two looks at the interface: libpcap's own wait has no end on Linux.
const PAUSE: Duration = Duration::from_micros(200);
/// How often a question is asked that nobody answers, a second apart.
const ARP_TRIES: u32 = 3;

/// The open interface.
struct Port {
    capture: Capture<Active>,
    mac: [u8; 6],
    /// Addresses that are answered for.
    mine: HashSet<Ipv4Addr>,
    frames: (u64, u64),
}

impl Port {
    fn open(wire: &Wire) -> Result<Port> {
        let name = &wire.interface;
        // Netlink, not /sys: the thread may live in another network namespace than the one that /sys was mounted in.
        let link = khamsin_drivers::link::by_name(name)?;
        if link.mac == [0; 6] && !link.loopback {
            bail!("{name} is no Ethernet");
        }
        let mac = link.mac;
        let refused = || format!("{name} cannot be opened for raw frames; run as root or with CAP_NET_RAW");
        let capture = Capture::from_device(name.as_str()).with_context(refused)?;
        let capture = capture.immediate_mode(true).promisc(true).snaplen(65_535);
        let mut capture = capture.open().and_then(Capture::setnonblock).with_context(refused)?;
        capture.filter(&format!("arp or (tcp and src host {})", wire.server), true).context("the filter")?;
        Ok(Port { capture, mac, mine: HashSet::new(), frames: (0, 0) })
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.frames.1 += 1;
        self.capture.sendpacket(frame).context("a frame cannot be sent; is the interface up, and its MTU 1500?")
    }

    /// The next frame of somebody else's, if there is one.
    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        match self.capture.next_packet() {
            Ok(packet) => {
                self.frames.0 += 1;
                Ok(Some(packet.data.to_vec()))
            }
            Err(pcap::Error::TimeoutExpired | pcap::Error::NoMorePackets) => Ok(None),
            Err(error) => Err(error).context("frames cannot be received"),
        }
    }

    fn arp(&mut self, operation: u8, to: [u8; 6], from: Ipv4Addr, target: Ipv4Addr) -> Result<()> {
        let asked = if operation == 1 { [0; 6] } else { to };
        let frame = [
            &to[..],
            &self.mac,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
            &self.mac,
            &from.octets(),
            &asked,
            &target.octets(),
        ];
        self.send(&frame.concat())
    }

    /// Answers a question for one of our addresses.
    fn answer(&mut self, frame: &[u8]) -> Result<()> {
        if let Ok(Packet::ArpRequest { sender, target }) = parse_partial(frame)
            && self.mine.contains(&target)
            && let Some(mac) = frame.get(6..12).and_then(|mac| <[u8; 6]>::try_from(mac).ok())
        {
            self.arp(2, mac, target, sender)?;
        }
        Ok(())
    }

    /// Asks who has `server`.
    fn resolve(&mut self, from: Ipv4Addr, server: Ipv4Addr) -> Result<[u8; 6]> {
        for _ in 0..ARP_TRIES {
            self.arp(1, [0xff; 6], from, server)?;
            let end = Clock.now().plus_micros(1_000_000);
            while Clock.now() < end {
                let Some(frame) = self.receive()? else {
                    sleep(PAUSE);
                    continue;
                };
                // A reply (RFC 826) of the server's.
                if frame.get(12..14) == Some(&[8, 6])
                    && frame.get(20..22) == Some(&[0, 2])
                    && frame.get(28..32) == Some(&server.octets()[..])
                    && let Some(mac) = frame.get(22..28).and_then(|mac| <[u8; 6]>::try_from(mac).ok())
                {
                    return Ok(mac);
                }
                self.answer(&frame)?;
            }
        }
        bail!("nobody on the link answers for {server}; give the router's address with --mac if it is not on the link")
    }
}

/// Plays the clients of `chosen`.
///
/// # Errors
/// The interface cannot be used, or nobody has the server's address.
pub(super) fn play<'t>(chosen: &Chosen<'t>, order: &Order, wire: &Wire) -> Result<Outcome<'t>> {
    let mut port = Port::open(wire)?;
    port.mine.insert(wire.source.0);
    let server_mac = match wire.mac {
        Some(mac) => mac,
        None => port.resolve(wire.source.0, wire.server)?,
    };
    let began_us = Clock.now().micros() + 10_000;
    let mut stage = Stage {
        port,
        server_mac,
        clients: Vec::new(),
        by_ends: HashMap::new(),
        due: BTreeSet::new(),
        dues: Vec::new(),
    };
    stage.enlist(chosen, order, wire, began_us);
    let end_us = began_us + wire.limit.as_micros() as u64;
    while !stage.due.is_empty() && Clock.now().micros() < end_us {
        stage.act()?;
        stage.hear()?;
    }
    stage.farewell()?;
    let counters = Counters { rx_frames: stage.port.frames.1, tx_frames: stage.port.frames.0, ..Counters::default() };
    Ok(Outcome {
        clients: stage.clients.into_iter().map(|client| (client, None)).collect(),
        left_out: Vec::new(),
        counters,
        virtual_us: Clock.now().micros().saturating_sub(began_us),
        shots: Vec::new(),
    })
}

struct Stage<'t> {
    port: Port,
    server_mac: [u8; 6],
    clients: Vec<Client<'t>>,
    by_ends: HashMap<(SocketAddr, u16), usize>,
    due: BTreeSet<(u64, usize)>,
    dues: Vec<Option<u64>>,
}

impl<'t> Stage<'t> {
    fn enlist(&mut self, chosen: &Chosen<'t>, order: &Order, wire: &Wire, began_us: u64) {
        let manner = Manner { fast: order.fast, speed: order.speed, scripted: false, live: true };
        let mut mapping = Mapping::on_wire(SocketAddrV4::new(wire.server, wire.port.unwrap_or(0)), wire.source);
        let round_us = super::world::round_us(chosen, order.speed);
        for round in 0..order.rounds {
            for copy in 0..order.copies {
                for (flow, plan) in chosen {
                    let ends = mapping.ends(flow, round * order.copies + copy);
                    let client = Client::new(flow, plan, ends, began_us + round_us * round as u64, manner);
                    if let IpAddr::V4(mine) = client.local.ip() {
                        self.port.mine.insert(mine);
                    }
                    self.by_ends.insert((client.local, client.remote.port()), self.clients.len());
                    self.clients.push(client);
                    self.dues.push(None);
                    self.reschedule(self.clients.len() - 1);
                }
            }
        }
    }

    fn reschedule(&mut self, index: usize) {
        let due = self.clients[index].deadline();
        if let Some(old) = self.dues[index] {
            self.due.remove(&(old, index));
        }
        self.due.extend(due.map(|at| (at, index)));
        self.dues[index] = due;
    }

    /// Clients do what is due.
    fn act(&mut self) -> Result<()> {
        for _ in 0..BURST {
            let now_us = Clock.now().micros();
            let Some(&(at, index)) = self.due.first() else { break };
            if at > now_us {
                break;
            }
            let mut frames = Vec::new();
            let done = self.clients[index].act(now_us, &mut |frame| frames.push(frame));
            self.send(frames)?;
            self.reschedule(index);
            if done {
                self.due.retain(|(_, other)| *other != index);
                self.dues[index] = None;
            }
        }
        Ok(())
    }

    fn send(&mut self, frames: Vec<Vec<u8>>) -> Result<()> {
        for mut frame in frames {
            frame[..6].copy_from_slice(&self.server_mac);
            frame[6..12].copy_from_slice(&self.port.mac);
            self.port.send(&frame)?;
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        for _ in 0..BURST {
            let Some(frame) = self.port.receive()? else {
                if self.due.first().is_some_and(|(at, _)| *at > Clock.now().micros()) {
                    sleep(PAUSE);
                }
                break;
            };
            let now_us = Clock.now().micros();
            match parse_partial(&frame) {
                Ok(Packet::Tcp(segment)) => {
                    let Some(&index) = self.by_ends.get(&(segment.to, segment.from.port())) else { continue };
                    if self.dues[index].is_some() {
                        self.clients[index].take(now_us, &segment);
                        self.reschedule(index);
                    }
                }
                _ => self.port.answer(&frame)?,
            }
        }
        Ok(())
    }

    /// Connections that the trace leaves open are reset: nobody would answer for them any more.
    fn farewell(&mut self) -> Result<()> {
        let mut frames = Vec::new();
        self.clients.iter().for_each(|client| client.farewell(&mut |frame| frames.push(frame)));
        self.send(frames)
    }
}

/// Six bytes as `ip link` writes them.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).with_context(|| format!("{text} is no MAC address"))
}
