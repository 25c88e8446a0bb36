//! Addresses of a replay in place of the recorded ones, all in ranges that are set aside for tests (RFC 2544, RFC 4193).

use super::flow::Flow;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// The server's addresses.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The same over IPv6.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Clients' addresses begin behind this one of 198.18.0.0/15.
const FIRST: u32 = 256;
/// And there are so many of them: ports tell further ones apart.
const COUNT: u32 = (1 << 17) - 2 * FIRST;

/// Gives out addresses: each recorded client, and each copy of it, has one of its own, and keeps its ports.
pub struct Mapping {
    known: HashMap<(IpAddr, usize), u32>,
    taken: HashSet<(SocketAddr, u16)>,
    next: u32,
    /// The server, and its port if all have the same.
    server: (Ipv4Addr, Option<u16>),
    /// First IPv4 address of the clients, and how many there are.
    clients: (u32, u32),
}

impl Default for Mapping {
    fn default() -> Self {
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
        Mapping::new((SERVER_V4, None), (base + FIRST, COUNT))
    }
}

impl Mapping {
    fn new(server: (Ipv4Addr, Option<u16>), clients: (u32, u32)) -> Mapping {
        Mapping { known: HashMap::new(), taken: HashSet::new(), next: 0, server, clients }
    }

    /// Towards a real server, whose port is the recorded one where 0 is given, from addresses `source.1` in number.
    pub fn on_wire(server: SocketAddrV4, source: (Ipv4Addr, u32)) -> Mapping {
        let port = (server.port() != 0).then(|| server.port());
        Mapping::new((*server.ip(), port), (source.0.into(), source.1.max(1)))
    }

    /// The client's end and the server's for one copy of a flow.
    pub fn ends(&mut self, flow: &Flow, copy: usize) -> (SocketAddr, SocketAddr) {
        let v4 = flow.client.is_ipv4();
        let port = self.server.1.unwrap_or(flow.server.port());
        let server = if v4 { self.server.0.into() } else { SERVER_V6.into() };
        let next = &mut self.next;
        let number = *self.known.entry((flow.client.ip(), copy)).or_insert_with(|| bump(next));
        let mut client = SocketAddr::new(self.address(v4, number), flow.client.port().max(1));
        // The same ports were used again, or towards another server.
        while !self.taken.insert((client, port)) {
            let number = bump(&mut self.next);
            client.set_ip(self.address(v4, number));
            if self.next > self.clients.1 {
                client.set_port(client.port().checked_add(1).unwrap_or(1024));
            }
        }
        (client, SocketAddr::new(server, port))
    }

    fn address(&self, v4: bool, number: u32) -> IpAddr {
        let (first, count) = self.clients;
        match v4 {
            true => IpAddr::V4(Ipv4Addr::from(first.wrapping_add(number % count))),
            false => {
                let net = u128::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0));
                IpAddr::V6(Ipv6Addr::from(net + u128::from(FIRST + number % COUNT)))
            }
        }
    }
}

fn bump(next: &mut u32) -> u32 {
    *next = next.wrapping_add(1);
    next.wrapping_sub(1)
}
