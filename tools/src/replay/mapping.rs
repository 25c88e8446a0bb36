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

/// Gives out addresses: each recorded client, and each copy of it, has one of its own, and keeps its ports.
#[derive(Default)]
pub struct Mapping {
    known: HashMap<(IpAddr, usize), u32>,
    taken: HashSet<(SocketAddr, u16)>,
    next: u32,
}

impl Mapping {
    /// The client's end and the server's for one copy of a flow.
    pub fn ends(&mut self, flow: &Flow, copy: usize) -> (SocketAddr, SocketAddr) {
        let v4 = flow.client.is_ipv4();
        let port = flow.server.port();
        let server = if v4 { SERVER_V4.into() } else { SERVER_V6.into() };
        let known = *self.known.entry((flow.client.ip(), copy)).or_insert_with(|| bump(&mut self.next));
        let mut client = SocketAddr::new(address(v4, known), flow.client.port().max(1));
        // The same ports were used again, or towards another server.
        while !self.taken.insert((client, port)) {
            client.set_ip(address(v4, bump(&mut self.next)));
            if self.next > COUNT {
                client.set_port(client.port().checked_add(1).unwrap_or(1024));
            }
        }
        (client, SocketAddr::new(server, port))
    }
}

fn bump(next: &mut u32) -> u32 {
    *next += 1;
    *next - 1
}

fn address(v4: bool, number: u32) -> IpAddr {
    let number = FIRST + number % COUNT;
    match v4 {
        true => IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number)),
        false => {
            IpAddr::V6(Ipv6Addr::from(u128::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)) + u128::from(number)))
        }
    }
}
