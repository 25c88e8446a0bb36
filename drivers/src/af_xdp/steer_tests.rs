//! The steering program in the kernel's own interpreter, case by case (BPF_PROG_TEST_RUN; needs root).

use super::*;
use crate::af_xdp::admission::{Admission, Admissions};
use crate::af_xdp::bpf;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The action for a frame that is ours, in programs made for tests: no socket is in the map, and the program returns its
/// fallback. XDP_TX stands out.
const OURS: u32 = 3;
const PASS: u32 = XDP_PASS as u32;
const DROP: u32 = XDP_DROP as u32;
/// For programs that never run.
const MAPS: Maps = Maps { sockets: 0, admissions: 0 };

struct Steer {
    program: OwnedFd,
    /// Of queue 0, which is where frames come from here.
    admission: Admission,
    _map: OwnedFd,
    _admissions: Admissions,
}

/// SYNs that may pass at once here.
const MOST: u32 = 1000;

/// `None`, and a line that says why, where programs cannot be loaded.
fn load(steering: &Steering) -> Option<Steer> {
    let map = match bpf::xskmap(4) {
        Ok(map) => map,
        Err(why) => {
            println!("SKIPPED: {why} (steering tests need CAP_BPF and CAP_NET_ADMIN)");
            return None;
        }
    };
    let admissions = Admissions::new(4).unwrap();
    let maps = Maps { sockets: map.as_raw_fd(), admissions: admissions.raw_fd() };
    let code = assemble(steering, maps, OURS as i32).unwrap();
    let program = bpf::load(&code).unwrap_or_else(|e| panic!("{}: {}\n{}", code.len(), e.errno, e.log));
    let mut admission = admissions.of(0);
    admission.grant(MOST);
    Some(Steer { program, admission, _map: map, _admissions: admissions })
}

impl Steer {
    /// Checks the action for `frame`, and for the same frame under a VLAN tag and a priority tag; and that no cut of it
    /// is ours that is too short to be known.
    fn check(&self, what: &str, frame: &[u8], action: u32) {
        assert_eq!(self.run(frame), action, "{what}");
        for vid in [0u16, 7] {
            let mut tagged = frame[..12].to_vec();
            tagged.extend([0x81, 0]);
            tagged.extend(vid.to_be_bytes());
            tagged.extend(&frame[12..]);
            assert_eq!(self.run(&tagged), action, "{what}, VLAN {vid}");
        }
    }

    fn run(&self, frame: &[u8]) -> u32 {
        bpf::test_run(self.program.as_fd(), frame).unwrap()
    }

    /// The shortest cut of `frame` that is ours.
    fn shortest(&self, frame: &[u8]) -> usize {
        (14..=frame.len()).find(|n| self.run(&frame[..*n]) == OURS).expect("the whole frame is ours")
    }
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet from 198.18.0.1 with `options` words of options and the raw flags-and-offset field.
fn ipv4(to: [u8; 4], protocol: u8, options: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45 + options, 0, 0, 0, 0, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 198, 18, 0, 1]);
    packet.extend(to);
    packet.extend(vec![1; 4 * usize::from(options)]);
    packet.extend(payload);
    packet
}

fn ipv6(to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
    packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(to.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(payload);
    packet
}

/// The start of a segment between two ports.
fn tcp(from: u16, to: u16) -> Vec<u8> {
    let mut segment = from.to_be_bytes().to_vec();
    segment.extend(to.to_be_bytes());
    segment.extend([0; 16]);
    segment
}

fn arp(operation: u8, target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(target);
    ethernet(0x0806, &packet)
}

/// An ICMPv6 message of `kind` about `target`.
fn discovery(kind: u8, target: &str) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    message
}

const V4: [u8; 4] = [198, 18, 0, 2];
const OTHER_V4: [u8; 4] = [198, 18, 0, 3];
const V6: &str = "fd00::2";

fn v4(to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &ipv4(to, protocol, 0, 0x4000, payload))
}

fn v6(to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(0x86dd, &ipv6(to, next, payload))
}

#[test]
fn own_addresses_take_arp_icmp_tcp_and_fragments() {
    let addresses = vec![IpAddr::from([198, 19, 8, 7]), V4.into(), V6.parse().unwrap()];
    let Some(steer) = load(&Steering::Own { addresses }) else { return };
    let check = |what, frame: Vec<u8>, action| steer.check(what, &frame, action);
    check("ARP request", arp(1, V4), OURS);
    check("ARP reply", arp(2, V4), OURS);
    check("ARP for the first address", arp(1, [198, 19, 8, 7]), OURS);
    check("ARP for another", arp(1, OTHER_V4), PASS);
    check("TCP", v4(V4, 6, &tcp(1000, 80)), OURS);
    check("TCP to any port", v4(V4, 6, &tcp(1000, 22)), OURS);
    check("TCP to another address", v4(OTHER_V4, 6, &tcp(1000, 80)), PASS);
    check("ICMP", v4(V4, 1, &[8, 0, 0, 0]), OURS);
    check("UDP", v4(V4, 17, &tcp(1000, 80)), PASS);
    check("IGMP", v4(V4, 2, &[0; 8]), PASS);
    check("a first fragment", ethernet(0x0800, &ipv4(V4, 6, 0, 0x2000, &tcp(1, 80))), OURS);
    check("a later fragment", ethernet(0x0800, &ipv4(V4, 6, 0, 0x0010, &[0; 8])), OURS);
    check("IPv4 options", ethernet(0x0800, &ipv4(V4, 6, 10, 0, &tcp(1, 80))), OURS);
    check("an EtherType of nobody", ethernet(0x88cc, &ipv4(V4, 6, 0, 0, &tcp(1, 80))), PASS);
    assert_eq!(steer.shortest(&arp(1, V4)), 14 + 28);
    assert_eq!(steer.shortest(&v4(V4, 6, &tcp(1, 80))), 14 + 20);
}

#[test]
fn own_addresses_take_neighbour_discovery() {
    let Some(steer) = load(&Steering::Own { addresses: vec![V6.parse().unwrap(), "fd00::3:2".parse().unwrap()] })
    else {
        return;
    };
    let check = |what, frame: Vec<u8>, action| steer.check(what, &frame, action);
    let group = "ff02::1:ff00:2";
    check("solicitation to our group", v6(group, 58, &discovery(135, V6)), OURS);
    check("solicitation of the second address", v6("ff02::1:ff03:2", 58, &discovery(135, "fd00::3:2")), OURS);
    check("solicitation to our group about another", v6(group, 58, &discovery(135, "fd00::9:2")), PASS);
    check("solicitation to ourselves", v6(V6, 58, &discovery(135, V6)), OURS);
    check("advertisement to us", v6(V6, 58, &discovery(136, "fd00::1")), OURS);
    check("somebody claims our address", v6("ff02::1", 58, &discovery(136, V6)), OURS);
    check("somebody claims another address", v6("ff02::1", 58, &discovery(136, "fd00::1")), PASS);
    check("router advertisement", v6("ff02::1", 58, &discovery(134, V6)), PASS);
    check("echo request", v6(V6, 58, &[128, 0, 0, 0, 0, 0, 0, 0]), OURS);
    check("TCP", v6(V6, 6, &tcp(1, 80)), OURS);
    check("TCP to another", v6("fd00::1:2", 6, &tcp(1, 80)), PASS);
    check("UDP", v6(V6, 17, &tcp(1, 80)), PASS);
    check("fragment", v6(V6, 44, &[6, 0, 0, 0, 0, 0, 0, 0]), OURS);
    check("destination options", v6(V6, 60, &[6, 0, 0, 0, 0, 0, 0, 0]), OURS);
    check("hop-by-hop options", v6(V6, 0, &[6, 0, 0, 0, 0, 0, 0, 0]), OURS);
    check("no IPv4 is configured", v4(V4, 6, &tcp(1, 80)), PASS);
    check("no ARP is configured", arp(1, V4), PASS);
    assert_eq!(steer.shortest(&v6(group, 58, &discovery(135, V6))), 14 + 40 + 24);
}

#[test]
fn shared_addresses_give_only_tcp_to_our_ports() {
    let Some(steer) = load(&Steering::Shared { ports: vec![80, 7] }) else { return };
    let check = |what, frame: Vec<u8>, action| steer.check(what, &frame, action);
    check("TCP to the first port", v4(V4, 6, &tcp(22, 80)), OURS);
    check("TCP to the second port", v4(OTHER_V4, 6, &tcp(22, 7)), OURS);
    check("ssh", v4(V4, 6, &tcp(80, 22)), PASS);
    check("a port with the bytes swapped", v4(V4, 6, &tcp(1, 0x5000)), PASS);
    check("UDP to our port", v4(V4, 17, &tcp(1, 80)), PASS);
    for options in 1..=10 {
        check("IPv4 options", ethernet(0x0800, &ipv4(V4, 6, options, 0, &tcp(1, 80))), OURS);
        check("IPv4 options, ssh", ethernet(0x0800, &ipv4(V4, 6, options, 0, &tcp(80, 22))), PASS);
    }
    check("a first fragment", ethernet(0x0800, &ipv4(V4, 6, 0, 0x2000, &tcp(1, 80))), PASS);
    check("a later fragment", ethernet(0x0800, &ipv4(V4, 6, 0, 1, &tcp(1, 80))), PASS);
    check("ARP", arp(1, V4), PASS);
    check("ping", v4(V4, 1, &[8, 0, 0, 0, 0, 0, 0, 0]), PASS);
    check("TCP over IPv6", v6(V6, 6, &tcp(1, 80)), OURS);
    check("ssh over IPv6", v6(V6, 6, &tcp(80, 22)), PASS);
    check("IPv6 with extension headers", v6(V6, 60, &[6, 0, 0, 0, 0, 0, 0, 0]), PASS);
    check("neighbour discovery", v6("ff02::1:ff00:2", 58, &discovery(135, V6)), PASS);
    assert_eq!(steer.shortest(&v4(V4, 6, &tcp(1, 80))), 14 + 20 + 4);
    assert_eq!(steer.shortest(&v6(V6, 6, &tcp(1, 80))), 14 + 40 + 4);
    let not_ipv4 = {
        let mut f = v4(V4, 6, &tcp(1, 80));
        f[14] = 0x65;
        f
    };
    check("a version that is not 4", not_ipv4, PASS);
    let too_short = {
        let mut f = v4(V4, 6, &tcp(1, 80));
        f[14] = 0x44;
        f
    };
    check("a header length below the least", too_short, PASS);
}

#[test]
fn shared_addresses_give_icmp_errors_about_our_ports() {
    let Some(steer) = load(&Steering::Shared { ports: vec![80] }) else { return };
    let check = |what: &str, frame: Vec<u8>, action| steer.check(what, &frame, action);
    let about = |kind: u8, options: u8, protocol: u8, from: u16| {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(ipv4([198, 18, 0, 1], protocol, options, 0, &tcp(from, 1000)[..8]));
        v4(V4, 1, &message)
    };
    for kind in [3, 11, 12] {
        check("an error about our port", about(kind, 0, 6, 80), OURS);
        check("quoting IPv4 options", about(kind, 5, 6, 80), OURS);
        check("an error about ssh", about(kind, 0, 6, 22), PASS);
        check("an error about UDP", about(kind, 0, 17, 80), PASS);
    }
    for kind in [0, 4, 5, 8] {
        check("not an error", about(kind, 0, 6, 80), PASS);
    }
    let about = |kind: u8, next: u8, from: u16| {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(ipv6("fd00::1", next, &tcp(from, 1000)[..8]));
        v6(V6, 58, &message)
    };
    for kind in 1..=4 {
        check("an ICMPv6 error about our port", about(kind, 6, 80), OURS);
        check("an ICMPv6 error about ssh", about(kind, 6, 22), PASS);
        check("an ICMPv6 error about UDP", about(kind, 17, 80), PASS);
    }
    for kind in [0, 5, 128, 135] {
        check("not an ICMPv6 error", about(kind, 6, 80), PASS);
    }
}

/// A segment with these flags.
fn flagged(flags: u8) -> Vec<u8> {
    let mut segment = tcp(1000, 80);
    segment[13] = flags;
    segment
}

/// What [`admission`](super::super::admission) promises, on every way that a SYN can come.
#[test]
fn syns_beyond_the_grant_are_dropped_and_nothing_else() {
    let own = Steering::Own { addresses: vec![V4.into(), V6.parse().unwrap()] };
    for steering in [own, Steering::Shared { ports: vec![7, 80] }] {
        let Some(mut steer) = load(&steering) else { return };
        let mut refused = 0;
        for family in [4, 6] {
            let way = |segment: &[u8]| if family == 4 { v4(V4, 6, segment) } else { v6(V6, 6, segment) };
            // SYN, and with the bits of ECN, of PSH and URG, of FIN: none has an ACK.
            for syn in [0x02, 0xc2, 0x2a, 0x03] {
                steer.check("within the grant", &way(&flagged(syn)), OURS);
            }
            // Each was checked under two VLAN tags as well.
            let left = (0..=MOST).take_while(|_| steer.run(&way(&flagged(2))) == OURS).count() as u32;
            assert_eq!((left, steer.admission.refused()), (MOST - 12, refused + 1));
            for syn in [0x02, 0xc2, 0x2a, 0x03] {
                steer.check("beyond the grant", &way(&flagged(syn)), DROP);
            }
            refused += 13;
            assert_eq!(steer.admission.refused(), refused);
            for other in [0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0x52] {
                steer.check("no SYN", &way(&flagged(other)), OURS);
            }
            steer.admission.came();
            steer.admission.grant(2);
            let passed = (0..5).filter(|_| steer.run(&way(&flagged(2))) == OURS).count();
            refused += 3;
            assert_eq!((passed, steer.admission.refused()), (2, refused), "two more were granted");
            steer.admission.came();
            steer.admission.grant(MOST);
        }
        // Not to us: the kernel's, grant or not.
        (0..MOST).for_each(|_| assert_eq!(steer.run(&v4(V4, 6, &flagged(2))), OURS));
        assert_eq!(steer.run(&v4(V4, 6, &flagged(2))), DROP);
        steer.check("ssh", &v4(OTHER_V4, 6, &tcp(80, 22)), PASS);
        let with_options = ethernet(0x0800, &ipv4(V4, 6, 1, 0, &flagged(2)));
        let seen = if matches!(steering, Steering::Own { .. }) { OURS } else { DROP };
        steer.check("a SYN behind IPv4 options", &with_options, seen);
    }
}

#[test]
fn the_largest_programs_load() {
    let ports = (0..STEERING_MAX as u16).map(|p| 1000 + p).collect();
    let Some(steer) = load(&Steering::Shared { ports }) else { return };
    steer.check("the last port", &v4(V4, 6, &tcp(1, 1063)), OURS);
    steer.check("one beyond", &v4(V4, 6, &tcp(1, 1064)), PASS);
    let half = STEERING_MAX as u16 / 2;
    let v4s = (0..half).map(|n| IpAddr::from([198, 19, 0, n as u8]));
    let v6s = (0..half).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, n]));
    let Some(steer) = load(&Steering::Own { addresses: v4s.chain(v6s).collect() }) else { return };
    steer.check("the last IPv4 address", &arp(1, [198, 19, 0, 31]), OURS);
    steer.check("the last IPv6 address", &v6("fd00::1:1f", 6, &tcp(1, 2)), OURS);
    let all_v6 = (0..STEERING_MAX as u16).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, n])).collect();
    let Some(steer) = load(&Steering::Own { addresses: all_v6 }) else { return };
    steer.check("the last of IPv6 alone", &v6("ff02::1:ff01:3f", 58, &discovery(135, "fd00::1:3f")), OURS);
}

#[test]
fn too_little_or_too_much_is_refused_with_a_sentence() {
    let addresses = |n: u16| Steering::Own { addresses: (0..n).map(|n| IpAddr::from([198, 19, 0, n as u8])).collect() };
    assert_eq!(assemble(&addresses(0), MAPS, 2), Err(SteerError::Empty));
    assert_eq!(assemble(&Steering::Shared { ports: vec![] }, MAPS, 2), Err(SteerError::Empty));
    assert!(assemble(&addresses(64), MAPS, 2).is_ok());
    let error = assemble(&addresses(65), MAPS, 2).unwrap_err();
    assert_eq!(error, SteerError::TooMany { what: "addresses", count: 65 });
    assert!(error.to_string().contains("65 addresses"));
}

#[test]
fn only_what_is_configured_is_emitted() {
    let length = |steering: Steering| assemble(&steering, MAPS, 2).unwrap().len();
    let four = length(Steering::Own { addresses: vec![V4.into()] });
    let six = length(Steering::Own { addresses: vec![V6.parse().unwrap()] });
    let both = length(Steering::Own { addresses: vec![V4.into(), V6.parse().unwrap()] });
    assert!(four < both && six < both && both < 130, "{four} {six} {both}");
}

#[test]
fn a_refused_program_shows_the_verifiers_log() {
    let mut broken = Assembler::default();
    broken.load(Width::Word, Reg(0), Reg(9), 0);
    broken.exit();
    let Err(error) = bpf::load(&broken.finish()) else { panic!("r9 is uninitialised") };
    if error.log.is_empty() {
        println!("SKIPPED: {} (needs CAP_BPF and CAP_NET_ADMIN)", error.errno);
        return;
    }
    assert!(error.log.contains("R9 !read_ok"), "{}", error.log);
}
