//! The socket filter: classic BPF that keeps only ARP, ICMP, ICMPv6 and TCP for our addresses, so that neither a busy
//! host nor a noisy network fills the ring.
//!
//! The kernel has taken the VLAN tag off before it runs the filter, so the offsets are those of an untagged frame.
//! The filter is a sieve, not a judge: what it lets through the stack looks at in full.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use libc::sock_filter;

/// More instructions than this and addresses are not compared: the kernel takes 4,096, and memory for filters is small.
const PROGRAM_MAX: usize = 2048;

const LD_WORD: u16 = 0x20;
const LD_HALF: u16 = 0x28;
const LD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: whom the frame is for.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// `PACKET_MULTICAST`; above it are frames for other hosts and those that this host sends.
const PACKET_MULTICAST: u32 = 2;
/// Keep the whole frame.
const ALL: u32 = 0x40000;

// Offsets into the frame.
const ETHERTYPE: u32 = 12;
const ARP_SENDER: u32 = 14 + 14;
const ARP_TARGET: u32 = 14 + 24;
const V4_PROTOCOL: u32 = 14 + 9;
const V4_DESTINATION: u32 = 14 + 16;
const V6_NEXT_HEADER: u32 = 14 + 6;
const V6_DESTINATION: u32 = 14 + 24;

const ICMPV6: u32 = 58;

fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Keeps nothing.
pub(super) fn nothing() -> Vec<sock_filter> {
    vec![op(RETURN, 0, 0, 0)]
}

/// The filter for `addresses`.
pub(super) fn program(addresses: &[IpAddr]) -> Vec<sock_filter> {
    let v4: Vec<Ipv4Addr> =
        addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None }).collect();
    let v6: Vec<Ipv6Addr> =
        addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None }).collect();
    let exact = assemble(Some(&v4), Some(&v6));
    if exact.len() <= PROGRAM_MAX {
        return exact;
    }
    assemble((v4.len() * 8 < PROGRAM_MAX).then_some(&*v4), (v6.len() * 16 < PROGRAM_MAX).then_some(&*v6))
}

/// `None`: any address.
fn assemble(v4: Option<&[Ipv4Addr]>, v6: Option<&[Ipv6Addr]>) -> Vec<sock_filter> {
    let blocks = [(0x0806, arp(v4)), (0x0800, ipv4(v4)), (0x86dd, ipv6(v6))];
    let mut program = vec![
        op(LD_BYTE, 0, 0, PACKET_TYPE),
        op(JUMP_GT, 0, 1, PACKET_MULTICAST),
        op(RETURN, 0, 0, 0),
        op(LD_HALF, 0, 0, ETHERTYPE),
    ];
    // Behind this table of two instructions a block, and one to refuse the rest, the blocks follow.
    let mut distance = 2 * blocks.len() + 1;
    for (ethertype, block) in &blocks {
        program.push(op(JUMP_EQ, 0, 1, *ethertype));
        program.push(op(JUMP, 0, 0, distance as u32 - 2));
        distance = distance - 2 + block.len();
    }
    program.push(op(RETURN, 0, 0, 0));
    blocks.into_iter().for_each(|(_, block)| program.extend(block));
    program
}

/// Requests for our addresses, and what anyone who claims to have one of them says (RFC 5227).
fn arp(addresses: Option<&[Ipv4Addr]>) -> Vec<sock_filter> {
    let mut block = Vec::new();
    for at in [ARP_TARGET, ARP_SENDER] {
        block.push(op(LD_WORD, 0, 0, at));
        accept_words(&mut block, addresses.map(|list| list.iter().map(|a| a.to_bits())));
    }
    block.push(op(RETURN, 0, 0, 0));
    block
}

fn ipv4(addresses: Option<&[Ipv4Addr]>) -> Vec<sock_filter> {
    let mut block = vec![op(LD_BYTE, 0, 0, V4_PROTOCOL)];
    refuse_bytes_but(&mut block, &[6, 1]);
    block.push(op(LD_WORD, 0, 0, V4_DESTINATION));
    accept_words(&mut block, addresses.map(|list| list.iter().map(|a| a.to_bits())));
    block.push(op(RETURN, 0, 0, 0));
    block
}

/// TCP, ICMPv6 and extension headers to our addresses; ICMPv6 to the groups that concern them.
fn ipv6(addresses: Option<&[Ipv6Addr]>) -> Vec<sock_filter> {
    let mut block = vec![op(LD_BYTE, 0, 0, V6_NEXT_HEADER)];
    refuse_bytes_but(&mut block, &[6, ICMPV6, 44, 0, 43, 60]);
    let Some(addresses) = addresses else {
        block.push(op(RETURN, 0, 0, ALL));
        return block;
    };
    addresses.iter().for_each(|a| accept_v6(&mut block, *a));
    block.push(op(LD_BYTE, 0, 0, V6_NEXT_HEADER));
    refuse_bytes_but(&mut block, &[ICMPV6]);
    if !addresses.is_empty() {
        accept_v6(&mut block, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    }
    let mut groups: Vec<Ipv6Addr> = addresses.iter().map(|a| solicited_node(*a)).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into_iter().for_each(|group| accept_v6(&mut block, group));
    block.push(op(RETURN, 0, 0, 0));
    block
}

/// Keeps the frame if the word just loaded is one of `words` (`None`: whatever it is).
fn accept_words(block: &mut Vec<sock_filter>, words: Option<impl Iterator<Item = u32>>) {
    let Some(words) = words else { return block.push(op(RETURN, 0, 0, ALL)) };
    for word in words {
        block.push(op(JUMP_EQ, 0, 1, word));
        block.push(op(RETURN, 0, 0, ALL));
    }
}

/// Drops the frame unless the byte just loaded is one of `values`.
fn refuse_bytes_but(block: &mut Vec<sock_filter>, values: &[u32]) {
    for (i, value) in values.iter().enumerate() {
        block.push(op(JUMP_EQ, (values.len() - i) as u8, 0, *value));
    }
    block.push(op(RETURN, 0, 0, 0));
}

/// Keeps the frame if its destination is `address`.
fn accept_v6(block: &mut Vec<sock_filter>, address: Ipv6Addr) {
    let bits = address.to_bits();
    for i in 0..4u8 {
        block.push(op(LD_WORD, 0, 0, V6_DESTINATION + 4 * u32::from(i)));
        let word = (bits >> (96 - 32 * u32::from(i))) as u32;
        block.push(op(JUMP_EQ, 0, 7 - 2 * i, word));
    }
    block.push(op(RETURN, 0, 0, ALL));
}

/// The group at which a neighbour asks for `address` (RFC 4291, 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let low = (address.to_bits() & 0xff_ffff) as u32;
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (low >> 16) as u16, low as u16)
}

/// The Ethernet group of an IPv6 group (RFC 2464, 7).
pub(super) fn ethernet_group(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with the program (net/core/filter.c), for the instructions used here.
    fn run(program: &[sock_filter], frame: &[u8], packet_type: u8) -> bool {
        let mut at = 0;
        let mut accumulator = 0u32;
        for _ in 0..program.len() {
            let i = program[at];
            at += 1;
            let load = |len: usize| -> Option<u32> {
                if i.k == PACKET_TYPE {
                    return Some(u32::from(packet_type));
                }
                let bytes = frame.get(i.k as usize..i.k as usize + len)?;
                Some(bytes.iter().fold(0, |sum, b| sum << 8 | u32::from(*b)))
            };
            match i.code {
                LD_WORD | LD_HALF | LD_BYTE => {
                    let len = if i.code == LD_WORD {
                        4
                    } else if i.code == LD_HALF {
                        2
                    } else {
                        1
                    };
                    let Some(value) = load(len) else { return false };
                    accumulator = value;
                }
                JUMP => at += i.k as usize,
                JUMP_EQ => at += usize::from(if accumulator == i.k { i.jt } else { i.jf }),
                JUMP_GT => at += usize::from(if accumulator > i.k { i.jt } else { i.jf }),
                RETURN => return i.k != 0,
                other => panic!("instruction {other}"),
            }
        }
        panic!("no end")
    }

    fn v4(protocol: u8, to: &str) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[23] = protocol;
        frame[30..34].copy_from_slice(&to.parse::<Ipv4Addr>().unwrap().octets());
        frame
    }

    fn v6(next: u8, to: &str) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[20] = next;
        frame[38..54].copy_from_slice(&to.parse::<Ipv6Addr>().unwrap().octets());
        frame
    }

    fn arp(sender: &str, target: &str) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[28..32].copy_from_slice(&sender.parse::<Ipv4Addr>().unwrap().octets());
        frame[38..42].copy_from_slice(&target.parse::<Ipv4Addr>().unwrap().octets());
        frame
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn keeps_ours_and_drops_the_rest() {
        let program = program(&addresses(&["198.18.0.2", "198.18.7.7", "fd00::2", "fd00::12:3456"]));
        for (keep, frame) in [
            (true, v4(6, "198.18.0.2")),
            (true, v4(1, "198.18.7.7")),
            (false, v4(17, "198.18.0.2")),
            (false, v4(6, "198.18.0.1")),
            (true, arp("198.18.0.1", "198.18.0.2")),
            (true, arp("198.18.0.2", "198.18.0.1")),
            (false, arp("198.18.0.1", "198.18.0.3")),
            (true, v6(6, "fd00::2")),
            (true, v6(58, "fd00::12:3456")),
            (true, v6(44, "fd00::2")),
            (false, v6(17, "fd00::2")),
            (false, v6(6, "fd00::3")),
            (true, v6(58, "ff02::1")),
            (true, v6(58, "ff02::1:ff00:2")),
            (true, v6(58, "ff02::1:ff12:3456")),
            (false, v6(6, "ff02::1:ff00:2")),
            (false, v6(58, "ff02::1:ff00:3")),
            (false, vec![0xff; 60]),
        ] {
            assert_eq!(run(&program, &frame, 0), keep, "{frame:02x?}");
            assert!(!run(&program, &frame, 3), "for another host");
            assert!(!run(&program, &frame, 4), "our own");
            assert!(!run(&program, &frame[..14], 0), "too short");
        }
        assert!(!run(&nothing(), &v4(6, "198.18.0.2"), 0));
    }

    #[test]
    fn one_family_alone_leaves_the_other() {
        let only_v4 = program(&addresses(&["198.18.0.2"]));
        assert!(!run(&only_v4, &v6(58, "ff02::1"), 0) && !run(&only_v4, &v6(6, "fd00::2"), 0));
        let only_v6 = program(&addresses(&["fd00::2"]));
        assert!(!run(&only_v6, &v4(6, "198.18.0.2"), 0) && !run(&only_v6, &arp("198.18.0.1", "198.18.0.2"), 0));
    }

    #[test]
    fn many_addresses_are_exact_and_far_too_many_are_let_through() {
        let many: Vec<IpAddr> = (0..100).map(|i| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, i, 2))).collect();
        let exact = program(&many);
        assert!(exact.len() <= PROGRAM_MAX);
        assert!(run(&exact, &v6(6, "fd00::63:2"), 0) && !run(&exact, &v6(6, "fd00::64:2"), 0));
        let mut far: Vec<IpAddr> = (0..20_000u32).map(|i| IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + i))).collect();
        far.push("fd00::2".parse().unwrap());
        let coarse = program(&far);
        assert!(coarse.len() <= PROGRAM_MAX);
        assert!(run(&coarse, &v4(6, "198.18.78.31"), 0) && !run(&coarse, &v4(17, "198.18.0.1"), 0));
        assert!(!run(&coarse, &v6(6, "fd00::3"), 0), "the family that fits stays exact");
    }

    #[test]
    fn groups() {
        let group = solicited_node("fd00::1:2:abcd:ef12".parse().unwrap());
        assert_eq!(group, "ff02::1:ffcd:ef12".parse::<Ipv6Addr>().unwrap());
        assert_eq!(ethernet_group(group), [0x33, 0x33, 0xff, 0xcd, 0xef, 0x12]);
    }
}
