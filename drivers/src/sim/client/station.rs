//! A small host over one end of a wire: addresses, neighbours, connections.

use super::frame::{self, ACK, Packet, RST, SYN, Segment, build, parse};
use super::tcp::Outgoing;
use super::{Client, Options, Problem};
use crate::sim::SimEnd;
use khamsin_stack::Instant;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Names a connection of a [`Station`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct ClientId(usize);

/// Any number of [`Client`]s behind the addresses of one host. It sends to the other end of its wire without asking for a
/// MAC address, and answers whoever asks for its own.
pub struct Station {
    end: SimEnd,
    addresses: Vec<IpAddr>,
    clients: Vec<Client>,
    by_flow: HashMap<(SocketAddr, SocketAddr), ClientId>,
    listening: HashMap<u16, Options>,
    accepted: Vec<ClientId>,
    next_port: u16,
    problems: Vec<Problem>,
    strangers: u64,
}

impl Station {
    /// A host with `addresses` at `end`.
    pub fn new(end: SimEnd, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Station {
            end,
            addresses: addresses.into_iter().collect(),
            clients: Vec::new(),
            by_flow: HashMap::new(),
            listening: HashMap::new(),
            accepted: Vec::new(),
            next_port: 49_152,
            problems: Vec::new(),
            strangers: 0,
        }
    }

    /// Opens a connection to `peer`, from the first address of its family and the next port. The SYN leaves in the next
    /// [`turn`](Self::turn).
    ///
    /// # Panics
    /// The station has no address of that family.
    pub fn connect(&mut self, peer: SocketAddr, options: Options) -> ClientId {
        let same = |ip: &&IpAddr| ip.is_ipv4() == peer.is_ipv4();
        let ip = *self.addresses.iter().find(same).expect("the station needs an address of the peer's family");
        loop {
            let local = SocketAddr::new(ip, self.next_port);
            self.next_port = if self.next_port == u16::MAX { 1024 } else { self.next_port + 1 };
            if !self.by_flow.contains_key(&(local, peer)) {
                return self.add(Client::connect(options, local, peer));
            }
        }
    }

    /// Takes connections to `port`.
    pub fn listen(&mut self, port: u16, options: Options) {
        self.listening.insert(port, options);
    }

    /// Connections that came since the last call, their handshake not necessarily done.
    pub fn take_accepted(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.accepted)
    }

    /// A connection.
    pub fn client(&mut self, id: ClientId) -> &mut Client {
        &mut self.clients[id.0]
    }

    /// Forgets what it knows of a connection, as after a power failure: its segments are answered with RST from now on.
    pub fn forget(&mut self, id: ClientId) {
        let client = &self.clients[id.0];
        self.by_flow.remove(&(client.local(), client.peer()));
    }

    /// The port of the next connection is `port`, or the next one behind it that is free.
    pub fn next_port(&mut self, port: u16) {
        self.next_port = port;
    }

    /// What was wrong with frames that arrived.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Segments that arrived for no connection, resets left out.
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// Takes what has arrived and sends what is due.
    pub fn turn(&mut self, now: Instant) {
        while let Some(frame) = self.end.recv() {
            match parse(&frame) {
                Ok(packet) => self.take(now, &frame, packet),
                Err(problem) => self.problems.push(problem),
            }
        }
        let (end, clients) = (&self.end, &mut self.clients);
        for client in clients {
            if client.deadline().is_some_and(|at| at <= now) {
                let (local, peer) = (client.local(), client.peer());
                let partial = client.options().partial_checksums;
                client.poll(now, |out| emit(end, local, peer, partial, &out));
            }
        }
    }

    /// When the station wants its next turn even if nothing arrives.
    pub fn deadline(&self) -> Option<Instant> {
        self.clients.iter().filter_map(Client::deadline).min()
    }

    fn add(&mut self, client: Client) -> ClientId {
        let id = ClientId(self.clients.len());
        self.by_flow.insert((client.local(), client.peer()), id);
        self.clients.push(client);
        id
    }

    fn take(&mut self, now: Instant, frame: &[u8], packet: Packet<'_>) {
        let (ours, theirs) = (self.end.side().mac(), sender(frame));
        match packet {
            Packet::ArpRequest { sender, target } if self.addresses.contains(&target.into()) => {
                self.end.send(&frame::arp_reply(ours, theirs, target, sender));
            }
            Packet::Solicitation { sender, target } if self.addresses.contains(&target.into()) => {
                self.end.send(&frame::advertisement(ours, theirs, target, sender));
            }
            Packet::Tcp(segment) if self.addresses.contains(&segment.to.ip()) && frame[..6] == ours => {
                self.take_segment(now, &segment);
            }
            _ => {}
        }
    }

    fn take_segment(&mut self, now: Instant, segment: &Segment<'_>) {
        if let Some(&id) = self.by_flow.get(&(segment.to, segment.from))
            && !self.clients[id.0].is_over()
        {
            return self.clients[id.0].take(now, segment);
        }
        if segment.flags & (SYN | ACK | RST) == SYN
            && let Some(options) = self.listening.get(&segment.to.port())
        {
            let id = self.add(Client::accept(options.clone(), segment));
            return self.accepted.push(id);
        }
        if segment.flags & RST != 0 {
            return;
        }
        self.strangers += 1;
        // RFC 9293 3.10.7.1.
        let (seq, ack, flags) = match segment.flags & ACK {
            0 => (0, segment.seq.wrapping_add(segment.sequence_len()), RST | ACK),
            _ => (segment.ack, 0, RST),
        };
        emit(&self.end, segment.to, segment.from, false, &Outgoing::bare(seq, ack, flags));
    }
}

fn emit(end: &SimEnd, local: SocketAddr, peer: SocketAddr, partial: bool, out: &Outgoing) {
    let segment = Segment {
        seq: out.seq,
        ack: out.ack,
        window: out.window,
        mss: out.mss,
        window_scale: out.window_scale,
        sack_permitted: out.sack_permitted,
        timestamps: out.timestamps,
        sack: out.sack,
        payload: &out.payload,
        ..Segment::new(local, peer, out.flags)
    };
    end.send(&build(end.side().mac(), end.side().other().mac(), &segment, partial));
}

fn sender(frame: &[u8]) -> [u8; 6] {
    let mut mac = [0; 6];
    mac.copy_from_slice(&frame[6..12]);
    mac
}
