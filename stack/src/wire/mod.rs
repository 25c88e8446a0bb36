//! Bytes on the wire: Ethernet, IPv4, IPv6, TCP headers, and the small protocols that are answered below TCP.
//!
//! [`parse()`] takes a frame apart in one pass and names what it is; it is total: any bytes give a [`Parsed`].
//! [`Template`] writes the headers of a connection's segments, [`Responder`] answers ARP, neighbour discovery and ping
//! and keeps the gateways' addresses fresh, [`icmp_error`] says which flow a router complains about, [`checksum`] and [`tcp_options`] do what their names say, and [`plain_copy`]
//! and [`synthetic`] make the packets that smoltcp is fed where the frame itself will not do.

pub mod checksum;
mod copy;
mod error;
mod extensions;
mod ip;
mod link;
mod options;
mod parse;
mod parsed;
pub mod responder;
pub mod template;

#[cfg(test)]
mod tests;

pub use copy::{HEADERS_MAX, plain_copy, synthetic, text_header, whole_headers, write_fragment};
pub use error::{IcmpError, Trouble, icmp_error};
pub(crate) use ip::is_v4;
pub use link::{LinkHeader, LinkView, VlanTags};
pub use options::{TcpOptions, tcp_options};
pub use parse::{parse, parse_into};
pub use parsed::{Datagram, DropReason, Flags, Fragment, Kind, Parsed, Problem, Segment};
pub use responder::{Addresses, Responder, ResponderConfig};
pub use template::{Outgoing, Template, TxChecksum, reset_for};

/// IP protocol number of TCP.
pub const PROTO_TCP: u8 = 6;
const PROTO_ICMP: u8 = 1;
const PROTO_ICMP6: u8 = 58;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q C-tag.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// IEEE 802.1ad S-tag.
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Two bytes of `bytes` at `at`, big-endian. Callers pass arrays, so that the index is known to lie inside.
#[inline(always)]
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Four bytes of `bytes` at `at`, big-endian. Callers pass arrays, so that the index is known to lie inside.
#[inline(always)]
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
