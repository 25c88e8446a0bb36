//! Which frames leave the kernel: the XDP program, assembled from the configuration.
//!
//! Only branches that are configured are emitted. Whatever the program does not know it passes to the kernel; what it
//! knows it redirects to the socket of the queue that the frame came in on, and a queue without a socket passes it to the
//! kernel too (the flags of `bpf_redirect_map` hold the action for that case).
//!
//! A SYN for us also needs the worker's leave ([`admission`](super::admission)). Where it takes more than a look to see that a
//! segment is one, because of options or fragments, it goes to the worker as everything else does.

use super::admission::{GRANTED, REFUSED};
use super::asm::{Assembler, Insn, Label, Reg, Width};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Most addresses, or ports, of one steering program.
pub const STEERING_MAX: usize = 64;

/// Which frames are taken from the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Steering {
    /// Addresses that the kernel does not own: their ARP and neighbour discovery, ICMP and TCP, fragments included.
    Own {
        /// At least one, at most [`STEERING_MAX`].
        addresses: Vec<IpAddr>,
    },
    /// Addresses that the kernel keeps: only TCP to these ports, and ICMP errors that quote a segment sent from them.
    /// Fragments stay with the kernel, and so does IPv6 with extension headers.
    Shared {
        /// At least one, at most [`STEERING_MAX`].
        ports: Vec<u16>,
    },
}

impl Steering {
    /// The Ethernet groups that solicitations of our IPv6 addresses are sent to (RFC 4291 2.7.1, RFC 2464 7): the
    /// device must let them in, which nobody else asks it for.
    pub(super) fn groups(&self) -> Vec<[u8; 6]> {
        let Steering::Own { addresses } = self else { return Vec::new() };
        let low_bytes = addresses.iter().filter_map(|a| match a {
            IpAddr::V6(a) => a.octets().last_chunk::<3>().copied(),
            IpAddr::V4(_) => None,
        });
        let mut groups: Vec<_> = low_bytes.map(|[d, e, f]| [0x33, 0x33, 0xff, d, e, f]).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// Why no program can be made of a [`Steering`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SteerError {
    /// Nothing to look for.
    #[error("the XDP program was given no address and no port to look for; name at least one with --address or --port")]
    Empty,
    /// Each address or port costs instructions on every packet.
    #[error("the XDP program was given {count} {what} and looks for at most {STEERING_MAX}; name fewer")]
    TooMany {
        /// "addresses" or "ports".
        what: &'static str,
        /// How many were given.
        count: usize,
    },
}

/// Actions of an XDP program (`enum xdp_action`).
pub(super) const XDP_DROP: i32 = 1;
pub(super) const XDP_PASS: i32 = 2;

/// Descriptors of the maps that a program uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maps {
    /// The XSKMAP.
    pub(super) sockets: i32,
    /// What each queue lets in.
    pub(super) admissions: i32,
}

const CONTEXT: Reg = Reg(6);
/// Start of the header that is being looked at.
const HEADER: Reg = Reg(7);
const DATA_END: Reg = Reg(8);
/// Value being compared.
const VALUE: Reg = Reg(5);
const SCRATCH: Reg = Reg(4);
const RESULT: Reg = Reg(0);
/// End of the program's stack.
const STACK: Reg = Reg(10);

/// Of `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;
/// Flags of a TCP header.
const SYN: u32 = 0x02;
const SYN_ACK: i32 = 0x12;

const MAP_LOOKUP_ELEM: i32 = 1;
const REDIRECT_MAP: i32 = 51;
const ETHERNET_LEN: i32 = 14;
const VLAN_LEN: i32 = 4;
const IPV6_LEN: i32 = 40;
/// Lengths that an IPv4 header can have, in words of 4 bytes.
const IPV4_HEADER_WORDS: core::ops::RangeInclusive<u32> = 5..=15;
const PROTO_ICMP: u32 = 1;
const PROTO_TCP: u32 = 6;
const PROTO_ICMPV6: u32 = 58;
/// "More fragments" and the offset, of an IPv4 header.
const FRAGMENT: u16 = 0x3fff;
/// Hop-by-hop options, routing, fragment, destination options: what may stand before TCP or ICMPv6.
const EXTENSION_HEADERS: [u32; 4] = [0, 43, 44, 60];

/// `value` as the machine loads it from a frame.
fn wire(value: u16) -> u32 {
    u32::from(value.to_be())
}

struct Program {
    asm: Assembler,
    pass: Label,
    redirect: Label,
    /// `HEADER` is at the TCP header of a segment for us.
    segment: Label,
}

/// The program for `steering` with these maps. `fallback` is the action for queues without a socket:
/// [`XDP_PASS`], but for tests.
pub(super) fn assemble(steering: &Steering, maps: Maps, fallback: i32) -> Result<Vec<Insn>, SteerError> {
    check(steering)?;
    let mut asm = Assembler::default();
    let (pass, redirect, segment) = (asm.label(), asm.label(), asm.label());
    let mut program = Program { asm, pass, redirect, segment };
    match steering {
        Steering::Own { addresses } => program.own(addresses),
        Steering::Shared { ports } => program.shared(ports),
    }
    program.end(maps, fallback);
    Ok(program.asm.finish())
}

fn check(steering: &Steering) -> Result<(), SteerError> {
    let (what, count) = match steering {
        Steering::Own { addresses } => ("addresses", addresses.len()),
        Steering::Shared { ports } => ("ports", ports.len()),
    };
    match count {
        0 => Err(SteerError::Empty),
        1..=STEERING_MAX => Ok(()),
        _ => Err(SteerError::TooMany { what, count }),
    }
}

impl Program {
    fn own(&mut self, addresses: &[IpAddr]) {
        let v4: Vec<Ipv4Addr> =
            addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None }).collect();
        let v6: Vec<Ipv6Addr> =
            addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None }).collect();
        let (arp, ipv4, ipv6) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.ethernet();
        if !v4.is_empty() {
            self.asm.jump_eq(VALUE, wire(0x0800), ipv4);
            self.asm.jump_eq(VALUE, wire(0x0806), arp);
        }
        if !v6.is_empty() {
            self.asm.jump_eq(VALUE, wire(0x86dd), ipv6);
        }
        self.asm.jump(self.pass);
        if !v4.is_empty() {
            self.asm.place(arp);
            self.need(28);
            self.load(Width::Word, 24); // target protocol address, in requests and replies alike
            self.one_of_v4(&v4, self.redirect);
            self.asm.place(ipv4);
            self.own_v4(&v4);
        }
        if !v6.is_empty() {
            self.asm.place(ipv6);
            self.own_v6(&v6);
        }
    }

    /// ICMP and TCP to us; the protocol field is there in every fragment.
    fn own_v4(&mut self, addresses: &[Ipv4Addr]) {
        let ours = self.asm.label();
        self.need(20);
        self.load(Width::Word, 16);
        self.one_of_v4(addresses, ours);
        self.asm.place(ours);
        let tcp = self.asm.label();
        self.load(Width::Byte, 9);
        self.asm.jump_eq(VALUE, PROTO_TCP, tcp);
        self.asm.jump_eq(VALUE, PROTO_ICMP, self.redirect);
        self.asm.jump(self.pass);
        self.asm.place(tcp);
        self.load(Width::Byte, 0);
        self.asm.jump_ne(VALUE, 0x45, self.redirect); // with options
        self.load(Width::Half, 6);
        self.asm.and_imm(VALUE, wire(FRAGMENT) as i32);
        self.asm.jump_ne(VALUE, 0, self.redirect);
        self.asm.add_imm(HEADER, 20);
        self.asm.jump(self.segment);
    }

    /// ICMPv6, TCP and extension headers to us; solicitations and advertisements about us, wherever they are sent.
    fn own_v6(&mut self, addresses: &[Ipv6Addr]) {
        let (ours, discovery) = (self.asm.label(), self.asm.label());
        self.need(IPV6_LEN);
        self.one_of_v6(24, addresses, ours);
        // Not to us: perhaps a solicitation sent to our solicited-node group, or somebody who claims our address.
        self.load(Width::Byte, 6);
        self.asm.jump_ne(VALUE, PROTO_ICMPV6, self.pass);
        self.need(IPV6_LEN + 24);
        self.load(Width::Byte, 40);
        self.asm.jump_eq(VALUE, 135, discovery);
        self.asm.jump_ne(VALUE, 136, self.pass);
        self.asm.place(discovery);
        self.one_of_v6(48, addresses, self.redirect);
        self.asm.jump(self.pass);
        self.asm.place(ours);
        let tcp = self.asm.label();
        self.load(Width::Byte, 6);
        self.asm.jump_eq(VALUE, PROTO_TCP, tcp);
        for next in [PROTO_ICMPV6].into_iter().chain(EXTENSION_HEADERS) {
            self.asm.jump_eq(VALUE, next, self.redirect);
        }
        self.asm.jump(self.pass);
        self.asm.place(tcp);
        self.asm.add_imm(HEADER, IPV6_LEN);
        self.asm.jump(self.segment);
    }

    fn shared(&mut self, ports: &[u16]) {
        let (ipv4, ipv6, tcp, quoted) = (self.asm.label(), self.asm.label(), self.asm.label(), self.asm.label());
        self.ethernet();
        self.asm.jump_eq(VALUE, wire(0x0800), ipv4);
        self.asm.jump_eq(VALUE, wire(0x86dd), ipv6);
        self.asm.jump(self.pass);
        self.asm.place(ipv4);
        self.shared_v4(tcp, quoted);
        self.asm.place(ipv6);
        self.shared_v6(tcp, quoted);
        self.asm.place(quoted);
        for p in ports {
            self.asm.jump_eq(VALUE, wire(*p), self.redirect);
        }
        self.asm.jump(self.pass);
        self.asm.place(tcp);
        self.need(4);
        self.load(Width::Half, 2);
        for p in ports {
            self.asm.jump_eq(VALUE, wire(*p), self.segment);
        }
    }

    /// Goes to `tcp` with `HEADER` at a TCP header, or to `quoted` with the source port of a quoted one in `VALUE`.
    fn shared_v4(&mut self, tcp: Label, quoted: Label) {
        let error = self.asm.label();
        self.need(20);
        self.load(Width::Half, 6);
        self.asm.and_imm(VALUE, wire(FRAGMENT) as i32);
        self.asm.jump_ne(VALUE, 0, self.pass);
        self.asm.load(Width::Byte, Reg(1), HEADER, 9);
        self.skip_v4_header();
        self.asm.jump_eq(Reg(1), PROTO_TCP, tcp);
        self.asm.jump_ne(Reg(1), PROTO_ICMP, self.pass);
        self.need(8 + 20);
        self.load(Width::Byte, 0);
        for kind in [3, 11, 12] {
            self.asm.jump_eq(VALUE, kind, error);
        }
        self.asm.jump(self.pass);
        self.asm.place(error);
        // The quoted header is one that we sent: its source port is ours.
        self.asm.add_imm(HEADER, 8);
        self.load(Width::Byte, 9);
        self.asm.jump_ne(VALUE, PROTO_TCP, self.pass);
        self.skip_v4_header();
        self.need(4);
        self.load(Width::Half, 0);
        self.asm.jump(quoted);
    }

    /// As [`shared_v4`](Self::shared_v4).
    fn shared_v6(&mut self, tcp: Label, quoted: Label) {
        let (segment, error) = (self.asm.label(), self.asm.label());
        self.need(IPV6_LEN);
        self.load(Width::Byte, 6);
        self.asm.jump_eq(VALUE, PROTO_TCP, segment);
        self.asm.jump_ne(VALUE, PROTO_ICMPV6, self.pass);
        self.need(IPV6_LEN + 8 + IPV6_LEN + 4);
        self.load(Width::Byte, 40);
        for kind in 1..=4 {
            self.asm.jump_eq(VALUE, kind, error);
        }
        self.asm.jump(self.pass);
        self.asm.place(error);
        self.load(Width::Byte, 40 + 8 + 6);
        self.asm.jump_ne(VALUE, PROTO_TCP, self.pass);
        self.load(Width::Half, 40 + 8 + 40);
        self.asm.jump(quoted);
        self.asm.place(segment);
        self.asm.add_imm(HEADER, IPV6_LEN);
        self.asm.jump(tcp);
    }

    /// Ends with the EtherType in `VALUE` and `HEADER` behind it, one 802.1Q tag skipped.
    fn ethernet(&mut self) {
        let untagged = self.asm.label();
        self.asm.mov(CONTEXT, Reg(1));
        self.asm.load(Width::Word, HEADER, CONTEXT, 0); // xdp_md.data
        self.asm.load(Width::Word, DATA_END, CONTEXT, 4); // xdp_md.data_end
        self.need(ETHERNET_LEN);
        self.load(Width::Half, 12);
        self.asm.add_imm(HEADER, ETHERNET_LEN);
        self.asm.jump_ne(VALUE, wire(0x8100), untagged);
        self.need(VLAN_LEN);
        self.load(Width::Half, 2);
        self.asm.add_imm(HEADER, VLAN_LEN);
        self.asm.place(untagged);
    }

    /// Moves `HEADER` behind the IPv4 header that it is at, options included; passes what is not IPv4.
    ///
    /// A branch for each length: adding a length that is not a constant to a packet pointer takes CAP_PERFMON, the right to
    /// read the kernel's memory, and steering does not need that.
    fn skip_v4_header(&mut self) {
        let behind = self.asm.label();
        self.load(Width::Byte, 0);
        for words in IPV4_HEADER_WORDS {
            let other = self.asm.label();
            self.asm.jump_ne(VALUE, 0x40 | words, other);
            self.asm.add_imm(HEADER, 4 * words as i32);
            self.asm.jump(behind);
            self.asm.place(other);
        }
        self.asm.jump(self.pass);
        self.asm.place(behind);
    }

    /// Passes the frame unless `len` bytes from `HEADER` on are there.
    fn need(&mut self, len: i32) {
        self.need_or(len, self.pass);
    }

    /// Goes to `short` unless `len` bytes from `HEADER` on are there.
    fn need_or(&mut self, len: i32, short: Label) {
        self.asm.mov(SCRATCH, HEADER);
        self.asm.add_imm(SCRATCH, len);
        self.asm.jump_gt(SCRATCH, DATA_END, short);
    }

    fn load(&mut self, width: Width, offset: i16) {
        self.asm.load(width, VALUE, HEADER, offset);
    }

    /// Goes to `then` when `VALUE` is one of `addresses`, passes the frame otherwise.
    fn one_of_v4(&mut self, addresses: &[Ipv4Addr], then: Label) {
        for address in addresses {
            self.asm.jump_eq(VALUE, u32::from_ne_bytes(address.octets()), then);
        }
        self.asm.jump(self.pass);
    }

    /// Goes to `then` when the address at `offset` is one of `addresses`, continues otherwise.
    fn one_of_v6(&mut self, offset: i16, addresses: &[Ipv6Addr], then: Label) {
        for address in addresses {
            let next = self.asm.label();
            let bytes = address.octets();
            // The last word differs most often.
            for word in [3usize, 2, 1, 0] {
                let value = [bytes[4 * word], bytes[4 * word + 1], bytes[4 * word + 2], bytes[4 * word + 3]];
                self.load(Width::Word, offset + 4 * word as i16);
                self.asm.jump_ne(VALUE, u32::from_ne_bytes(value), next);
            }
            self.asm.jump(then);
            self.asm.place(next);
        }
    }

    /// Takes a SYN, without ACK, off what the queue has been granted, or drops it; redirects everything else. What is too short
    /// to be told is for the worker to count.
    fn admit(&mut self, admissions: i32) {
        let refuse = self.asm.label();
        self.need_or(14, self.redirect);
        self.load(Width::Byte, 13);
        self.asm.and_imm(VALUE, SYN_ACK);
        self.asm.jump_ne(VALUE, SYN, self.redirect);
        self.asm.load(Width::Word, Reg(2), CONTEXT, RX_QUEUE_INDEX);
        self.asm.store_word(STACK, -4, Reg(2));
        self.asm.load_map(Reg(1), admissions);
        self.asm.mov(Reg(2), STACK);
        self.asm.add_imm(Reg(2), -4);
        self.asm.call(MAP_LOOKUP_ELEM);
        self.asm.jump_null(RESULT, self.redirect); // a queue of which nothing is known
        self.asm.load(Width::Word, Reg(1), RESULT, GRANTED);
        self.asm.jump_at_most(Reg(1), 0, refuse);
        self.asm.mov_imm(Reg(1), -1);
        self.asm.atomic_add_word(RESULT, GRANTED, Reg(1));
        self.asm.jump(self.redirect);
        self.asm.place(refuse);
        self.asm.mov_imm(Reg(1), 1);
        self.asm.atomic_add_double(RESULT, REFUSED, Reg(1));
        self.asm.mov_imm(RESULT, XDP_DROP);
        self.asm.exit();
    }

    fn end(&mut self, maps: Maps, fallback: i32) {
        debug_assert!(self.asm.used(self.pass) && self.asm.used(self.redirect), "no code is unreachable");
        self.asm.place(self.pass);
        self.asm.mov_imm(RESULT, XDP_PASS);
        self.asm.exit();
        self.asm.place(self.segment);
        self.admit(maps.admissions);
        self.asm.place(self.redirect);
        self.asm.load_map(Reg(1), maps.sockets);
        self.asm.load(Width::Word, Reg(2), CONTEXT, RX_QUEUE_INDEX);
        self.asm.mov_imm(Reg(3), fallback);
        self.asm.call(REDIRECT_MAP);
        self.asm.exit();
    }
}

#[cfg(test)]
#[path = "steer_tests.rs"]
mod tests;
