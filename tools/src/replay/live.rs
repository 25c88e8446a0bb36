//! `--live`: the recorded clients on a wire, against whatever server is there.

use super::client::{Client, Manner};
use super::flow::Flow;
use super::mapping::{Mapping, Sides};
use super::plan::Plan;
use super::port::{PAUSE, Port};
use super::world::{Chosen, Order, Outcome};
use anyhow::{Context, Result, bail};
use khamsin::output::note;
use khamsin_drivers::clock::Clock;
use khamsin_drivers::sim::client::{Packet, parse_partial};
use khamsin_stack::Counters;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

/// Where the clients are played.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The interface.
    pub interface: String,
    /// Servers and clients, of one address family or of both.
    pub sides: Vec<Sides>,
    /// The servers' or a router's; `None`: asked for by ARP and neighbour discovery.
    pub mac: Option<[u8; 6]>,
    /// Whatever happens, it is over then.
    pub limit: Duration,
}

impl Wire {
    /// Why a flow is not played here.
    pub(super) fn refuses(&self, flow: &Flow) -> Option<&'static str> {
        let v4 = flow.client.is_ipv4();
        let played = self.sides.iter().any(|sides| sides.server.is_ipv4() == v4);
        (!played).then_some(match v4 {
            true => "it is IPv4, and --server and --source name no IPv4 addresses; give those too",
            false => "it is IPv6, and --server and --source name no IPv6 addresses; give those too",
        })
    }
}

/// Frames taken from the interface in a row before clients are looked at again.
const BURST: usize = 64;

/// One client before it is on the wire.
struct Part<'t> {
    flow: &'t Flow,
    plan: &'t Plan,
    ends: (SocketAddr, SocketAddr),
    round: u64,
}

/// Who plays what.
fn cast<'t>(chosen: &Chosen<'t>, order: &Order, wire: &Wire) -> Result<Vec<Part<'t>>> {
    for sides in &wire.sides {
        let flows = chosen.iter().filter(|(flow, _)| flow.client.is_ipv4() == sides.server.is_ipv4()).count();
        let (clients, count) = (flows * order.copies * order.rounds, sides.count);
        if clients as u64 > sides.room() {
            bail!(
                "{clients} clients want more than half of the ports of the addresses in --source, of which there are {count}; give \
                 a larger range, or ask for fewer copies or rounds"
            );
        }
    }
    let mut mapping = Mapping::on_wire(&wire.sides);
    let mut parts = Vec::new();
    for round in 0..order.rounds {
        for copy in 0..order.copies {
            for &(flow, plan) in chosen {
                let ends = mapping.ends(flow, round * order.copies + copy);
                parts.push(Part { flow, plan, ends, round: round as u64 });
            }
        }
    }
    Ok(parts)
}

/// Plays the clients of `chosen`.
///
/// # Errors
/// The interface cannot be used, nobody has the server's address, or the clients have too few.
pub(super) fn play<'t>(chosen: &Chosen<'t>, order: &Order, wire: &Wire) -> Result<Outcome<'t>> {
    let parts = cast(chosen, order, wire)?;
    let talks = |sides: &&Sides| parts.iter().any(|part| part.ends.1.ip() == sides.server);
    let sides: Vec<Sides> = wire.sides.iter().filter(talks).copied().collect();
    let mut port = Port::open(wire, &sides, parts.iter().map(|part| part.ends.0.ip()).collect())?;
    let mut macs = HashMap::new();
    for sides in &sides {
        let mac = wire.mac.map_or_else(|| port.resolve(sides.server), Ok)?;
        macs.insert(sides.server, mac);
    }
    let began_us = Clock.now().micros() + 10_000;
    let mut stage =
        Stage { port, macs, clients: Vec::new(), by_ends: HashMap::new(), due: BTreeSet::new(), dues: Vec::new() };
    stage.enlist(parts, order, super::world::round_us(chosen, order.speed), began_us);
    let end_us = began_us + wire.limit.as_micros() as u64;
    while !stage.due.is_empty() && Clock.now().micros() < end_us {
        stage.port.speak()?;
        stage.act()?;
        stage.hear()?;
    }
    stage.farewell()?;
    let missing = stage.port.missing();
    if missing > 0 {
        note(format_args!(
            "khamsin-replay: {missing} frames came faster than they were taken, and were not heard; ask for fewer --flows"
        ));
    }
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
    /// Where each server is.
    macs: HashMap<IpAddr, [u8; 6]>,
    clients: Vec<Client<'t>>,
    by_ends: HashMap<(SocketAddr, u16), usize>,
    due: BTreeSet<(u64, usize)>,
    dues: Vec<Option<u64>>,
}

impl<'t> Stage<'t> {
    fn enlist(&mut self, parts: Vec<Part<'t>>, order: &Order, round_us: u64, began_us: u64) {
        let manner = Manner { fast: order.fast, speed: order.speed, scripted: false, live: true };
        for Part { flow, plan, ends, round } in parts {
            let client = Client::new(flow, plan, ends, began_us + round_us * round, manner);
            self.by_ends.insert((client.local, client.remote.port()), self.clients.len());
            self.clients.push(client);
            self.dues.push(None);
            self.reschedule(self.clients.len() - 1);
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
            self.send(index, frames)?;
            self.reschedule(index);
            if done && let Some(old) = self.dues[index].take() {
                self.due.remove(&(old, index));
            }
        }
        Ok(())
    }

    fn send(&mut self, index: usize, frames: Vec<Vec<u8>>) -> Result<()> {
        let server = self.macs.get(&self.clients[index].remote.ip()).copied().unwrap_or_default();
        for mut frame in frames {
            frame[..6].copy_from_slice(&server);
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
        for index in 0..self.clients.len() {
            let mut frames = Vec::new();
            self.clients[index].farewell(&mut |frame| frames.push(frame));
            self.send(index, frames)?;
        }
        Ok(())
    }
}

/// Six bytes as `ip link` writes them.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).with_context(|| format!("{text} is no MAC address"))
}
