//! The name of a flow: addresses and ports of both ends.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A TCP 4-tuple as this server sees it: the peer's end and our own. IPv4 addresses are kept IPv4-mapped
/// (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2), so that both families share one table and one comparison.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The peer's address, IPv4-mapped, as it stands on the wire.
    pub peer: [u8; 16],
    /// Our address, IPv4-mapped, as it stands on the wire.
    pub local: [u8; 16],
    /// The peer's port.
    pub peer_port: u16,
    /// Our port.
    pub local_port: u16,
}

const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl FlowKey {
    /// The key of an IPv4 flow; addresses in wire order.
    #[inline]
    pub fn v4(peer: [u8; 4], local: [u8; 4], peer_port: u16, local_port: u16) -> Self {
        FlowKey { peer: mapped(peer), local: mapped(local), peer_port, local_port }
    }

    /// The key of an IPv6 flow; addresses in wire order.
    #[inline]
    pub fn v6(peer: [u8; 16], local: [u8; 16], peer_port: u16, local_port: u16) -> Self {
        FlowKey { peer, local, peer_port, local_port }
    }

    /// Whether both addresses are IPv4. (An IPv6 packet from a mapped address is a martian and gets no key.)
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.local[..12] == V4_MAPPED
    }

    /// The peer's end.
    pub fn peer_addr(&self) -> SocketAddr {
        SocketAddr::new(address(&self.peer), self.peer_port)
    }

    /// Our end.
    pub fn local_addr(&self) -> SocketAddr {
        SocketAddr::new(address(&self.local), self.local_port)
    }
}

#[inline]
fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let mut a = [0; 16];
    a[10] = 0xff;
    a[11] = 0xff;
    a[12..].copy_from_slice(&v4);
    a
}

fn address(bytes: &[u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(*bytes);
    match v6.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(Ipv4Addr::from(v4.octets())),
        None => IpAddr::V6(v6),
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.peer_addr(), self.local_addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_addresses_come_back_as_v4() {
        let k = FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 1234, 80);
        assert!(k.is_v4());
        assert_eq!(format!("{k:?}"), "198.18.0.1:1234 -> 198.18.0.2:80");
    }

    #[test]
    fn v6_addresses_stay_v6() {
        let a = "fd00::1".parse::<Ipv6Addr>().unwrap().octets();
        let b = "fd00::2".parse::<Ipv6Addr>().unwrap().octets();
        let k = FlowKey::v6(a, b, 1, 2);
        assert!(!k.is_v4());
        assert_eq!(k.peer_addr(), "[fd00::1]:1".parse().unwrap());
    }
}
