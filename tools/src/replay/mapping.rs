//! Addresses of a replay in place of the recorded ones, all in ranges that are set aside for tests (RFC 2544, RFC 4193).

use super::flow::Flow;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The server's addresses.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The same over IPv6.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Clients' addresses begin behind this one of 198.18.0.0/15.
const FIRST: u32 = 256;
/// And there are so many of them: ports tell further ones apart.
const COUNT: u32 = (1 << 17) - 2 * FIRST;

/// Lowest port that takes the place of a recorded one.
const PORT_MIN: u16 = 1024;
/// Clients of one address towards one port: half of the ports, so that a free one is soon found.
const CLIENTS_EACH: u32 = (1 << 15) - 512;

/// Both sides of one address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sides {
    /// The server.
    pub server: IpAddr,
    /// Its port, where the recorded ones are not to be used.
    pub port: Option<u16>,
    /// The first address of the clients.
    pub first: IpAddr,
    /// How many addresses they have; at least one.
    pub count: u32,
}

impl Sides {
    /// Whether `address` is one of the clients'.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let behind = match (address, self.first) {
            (IpAddr::V4(address), IpAddr::V4(first)) => u128::from(u32::from(address).wrapping_sub(first.into())),
            (IpAddr::V6(address), IpAddr::V6(first)) => u128::from(address).wrapping_sub(first.into()),
            _ => return false,
        };
        behind < u128::from(self.count)
    }

    /// Clients for which its addresses have ports.
    pub(super) fn room(&self) -> u64 {
        u64::from(self.count) * u64::from(CLIENTS_EACH)
    }

    fn address(&self, number: u32) -> IpAddr {
        let behind = number % self.count.max(1);
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(behind)).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(behind.into())).into(),
        }
    }
}

/// Gives out addresses: each recorded client, and each copy of it, has one of its own, and keeps its ports.
pub struct Mapping {
    known: HashMap<(IpAddr, usize), u32>,
    taken: HashSet<(SocketAddr, u16)>,
    /// By a client's address and a server's port: the client's port that was given out last in place of a recorded one.
    ports: HashMap<(IpAddr, u16), u16>,
    next: u32,
    v4: Sides,
    v6: Sides,
}

impl Default for Mapping {
    fn default() -> Self {
        let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + FIRST);
        let v6 = Ipv6Addr::from(u128::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)) + u128::from(FIRST));
        Mapping {
            known: HashMap::new(),
            taken: HashSet::new(),
            ports: HashMap::new(),
            next: 0,
            v4: Sides { server: SERVER_V4.into(), port: None, first: v4.into(), count: COUNT },
            v6: Sides { server: SERVER_V6.into(), port: None, first: v6.into(), count: COUNT },
        }
    }
}

impl Mapping {
    /// Towards real servers: one of each family that there are flows of.
    pub fn on_wire(sides: &[Sides]) -> Mapping {
        let mut mapping = Mapping::default();
        for sides in sides {
            *if sides.server.is_ipv4() { &mut mapping.v4 } else { &mut mapping.v6 } = *sides;
        }
        mapping
    }

    /// The client's end and the server's for one copy of a flow.
    pub fn ends(&mut self, flow: &Flow, copy: usize) -> (SocketAddr, SocketAddr) {
        let sides = if flow.client.is_ipv4() { self.v4 } else { self.v6 };
        let port = sides.port.unwrap_or(flow.server.port());
        let next = &mut self.next;
        let number = *self.known.entry((flow.client.ip(), copy)).or_insert_with(|| bump(next));
        let mut client = SocketAddr::new(sides.address(number), flow.client.port().max(1));
        // The same ports were used again, or towards another server.
        while !self.taken.insert((client, port)) {
            let number = bump(&mut self.next);
            client.set_ip(sides.address(number));
            if self.next > sides.count {
                let last = self.ports.entry((client.ip(), port)).or_insert(client.port());
                *last = last.checked_add(1).unwrap_or(PORT_MIN);
                client.set_port(*last);
            }
        }
        (client, SocketAddr::new(sides.server, port))
    }
}

fn bump(next: &mut u32) -> u32 {
    *next = next.wrapping_add(1);
    next.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::segment::{Content, dissect};
    use khamsin_drivers::sim::client::{SYN, Segment, build};

    /// A flow of one SYN.
    fn flow() -> Flow {
        let (from, to) = ("192.0.2.1:40000".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
        let frame = build([2; 6], [4; 6], &Segment::new(from, to, SYN), false);
        let Content::Tcp(from, to, first) = dissect(1, 0, &frame[14..]) else { panic!("a SYN is TCP") };
        Flow::new(1, from, to, &first)
    }

    /// Who shares an address has a port of his own, and it takes no longer the more there are.
    #[test]
    fn one_address_serves_as_many_as_it_has_room_for() {
        let (server, first) = ("198.18.0.2".parse().unwrap(), "198.18.1.1".parse().unwrap());
        let sides = Sides { server, port: None, first, count: 1 };
        let (mut mapping, flow) = (Mapping::on_wire(&[sides]), flow());
        let ends: HashSet<SocketAddr> = (0..sides.room() as usize).map(|copy| mapping.ends(&flow, copy).0).collect();
        assert_eq!(ends.len() as u64, sides.room());
        assert!(ends.iter().all(|end| end.ip() == first && end.port() >= PORT_MIN));
    }
}
