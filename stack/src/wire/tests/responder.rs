//! The responder as its neighbours see it; etherparse and our own parser read what it sends.

use core::time::Duration;

use super::*;
use crate::counters::Counters;
use crate::time::Instant;

pub(super) const GATEWAY_V4: [u8; 4] = [198, 18, 0, 254];
pub(super) const BROADCAST: [u8; 6] = [0xff; 6];
pub(super) const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The solicited-node group of [`OUR_V6`], and its MAC.
const OUR_GROUP: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2];
const OUR_GROUP_MAC: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 2];

/// A responder, what it counts, and a clock.
pub(super) struct Host {
    pub(super) responder: Responder,
    pub(super) counters: Counters,
    pub(super) now: Instant,
}

impl Host {
    pub(super) fn new(addresses: Addresses, gateways: &[core::net::IpAddr]) -> Host {
        let config = ResponderConfig { mac: OUR_MAC, addresses, gateways: gateways.to_vec(), echo_limit_per_s: 5 };
        Host { responder: Responder::new(config), counters: Counters::default(), now: Instant::from_millis(77_000) }
    }

    /// Both addresses, no gateway, announcements over.
    pub(super) fn quiet() -> Host {
        let mut host = Host::new(own(), &[]);
        host.drain();
        host.now += Duration::from_secs(1);
        host.drain();
        assert_eq!(host.responder.deadline(), None);
        host.counters = Counters::default();
        host
    }

    pub(super) fn answer(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut reply = vec![0xcc; 1514];
        let parsed = parse(frame);
        let len = self.responder.answer(self.now, frame, &parsed, &mut reply, &mut self.counters)?;
        reply.truncate(len);
        Some(reply)
    }

    /// No answer, and exactly this counter moved by one.
    #[track_caller]
    pub(super) fn ignores(&mut self, frame: &[u8], counter: &str) {
        let before = self.counters;
        assert_eq!(self.answer(frame), None);
        let moved: Vec<_> =
            before.iter().zip(self.counters.iter()).filter(|(a, b)| a != b).map(|(a, b)| (a.0, b.1 - a.1)).collect();
        assert_eq!(moved, [(counter, 1)]);
    }

    /// Everything that is due now.
    pub(super) fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut reply = vec![0xcc; 1514];
        while let Some(len) = self.responder.poll(self.now, &mut reply, &mut self.counters) {
            frames.push(reply[..len].to_vec());
            assert!(frames.len() < 100, "poll does not end");
        }
        assert!(self.responder.deadline().is_none_or(|d| d > self.now), "a deadline in the past");
        frames
    }

    /// Sleeps until the deadline and drains.
    pub(super) fn next(&mut self) -> (f64, Vec<Vec<u8>>) {
        let deadline = self.responder.deadline().unwrap();
        let slept = deadline.since(self.now).as_secs_f64();
        self.now = deadline;
        (slept, self.drain())
    }
}

pub(super) fn own() -> Addresses {
    Addresses::Own(vec![(OUR_V4.into(), 24), (OUR_V6.into(), 64)])
}

pub(super) fn tagged(vlan: VlanTags, dst: [u8; 6], src: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14 + vlan.bytes().len()];
    LinkHeader { dst, src, vlan }.write(&mut frame, ethertype).unwrap();
    frame.extend_from_slice(packet);
    frame
}

pub(super) fn arp(operation: u8, sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4])) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, operation];
    [&fixed[..], &sender.0, &sender.1, &target.0, &target.1].concat()
}

pub(super) fn who_has(target: [u8; 4]) -> Vec<u8> {
    let packet = arp(1, (PEER_MAC, PEER_V4), ([0; 6], target));
    tagged(VlanTags::NONE, BROADCAST, PEER_MAC, ETHERTYPE_ARP, &packet)
}

/// An ICMPv6 packet with its checksum.
pub(super) fn icmp6(src: [u8; 16], dst: [u8; 16], hop_limit: u8, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body[2..4].fill(0);
    let pseudo = checksum::icmp6_pseudo(&src, &dst, body.len());
    let sum = !checksum::fold(u64::from(pseudo) + u64::from(checksum::data(&body)));
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    [&ip::v6_header(&src, &dst, PROTO_ICMP6, hop_limit, body.len())[..], &body].concat()
}

fn solicitation(target: [u8; 16], options: &[u8]) -> Vec<u8> {
    [&[135, 0, 0, 0, 0, 0, 0, 0], &target[..], options].concat()
}

pub(super) fn solicit_us() -> Vec<u8> {
    let body = solicitation(OUR_V6, &[1, 1, 2, 0, 0, 0, 0, 2]);
    tagged(VlanTags::NONE, OUR_GROUP_MAC, PEER_MAC, ETHERTYPE_IPV6, &icmp6(PEER_V6, OUR_GROUP, 255, &body))
}

fn ping4(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut body = [&[8, 0, 0, 0, 1, 2, 3, 4][..], b"abcdefghijklmnopqrstuvwxyz"].concat();
    let sum = !checksum::data(&body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    packet4(PROTO_ICMP, &[], &body, change)
}

fn ping6(dst: [u8; 16]) -> Vec<u8> {
    let body = [&[128, 0, 0, 0, 1, 2, 3, 4][..], b"abcdefghijklmnopqrstuvwxyz"].concat();
    tagged(VlanTags::NONE, OUR_MAC, PEER_MAC, ETHERTYPE_IPV6, &icmp6(PEER_V6, dst, 64, &body))
}

/// The parts of a neighbour discovery frame that is sound by our own rules: target, flags, type, MAC in the option.
#[track_caller]
pub(super) fn neighbour(frame: &[u8]) -> (Datagram, u8, u8, [u8; 16], [u8; 6]) {
    let Kind::Icmp6(datagram) = parse(frame).kind else { panic!("not ICMPv6") };
    assert!(checksum::verify_icmp(frame, &datagram));
    assert_eq!(datagram.hop_limit, 255);
    let m = datagram.message(frame);
    assert_eq!((m.len(), m[1], m[25]), (32, 0, 1));
    (datagram, m[0], m[4], m[8..24].try_into().unwrap(), m[26..32].try_into().unwrap())
}

#[test]
fn arp_requests_are_answered() {
    let mut host = Host::quiet();
    let reply = host.answer(&who_has(OUR_V4)).unwrap();
    let expected =
        tagged(VlanTags::NONE, PEER_MAC, OUR_MAC, ETHERTYPE_ARP, &arp(2, (OUR_MAC, OUR_V4), (PEER_MAC, PEER_V4)));
    assert_eq!(reply, expected);
    assert_eq!(host.counters.arp_replies, 1);
    // A probe (RFC 5227 2.1.1) comes from nowhere; it is answered all the same, or the prober takes our address.
    let probe = arp(1, (PEER_MAC, [0; 4]), ([0; 6], OUR_V4));
    assert!(host.answer(&tagged(VlanTags::NONE, BROADCAST, PEER_MAC, ETHERTYPE_ARP, &probe)).is_some());
    // Tags come back.
    let vlan = VlanTags::dot1q(7, 3).inside(8, 1);
    let request = tagged(vlan, BROADCAST, PEER_MAC, ETHERTYPE_ARP, &arp(1, (PEER_MAC, PEER_V4), ([0; 6], OUR_V4)));
    assert_eq!(parse(&host.answer(&request).unwrap()).link.vlan, vlan);
    assert_eq!(host.counters, Counters { arp_replies: 3, ..Counters::default() });
}

#[test]
fn arp_that_is_not_answered() {
    let mut host = Host::quiet();
    host.ignores(&who_has([198, 18, 0, 3]), "drop_other_address");
    host.ignores(&who_has(OUR_V4)[..41], "drop_malformed");
    let mut token_ring = who_has(OUR_V4);
    token_ring[15] = 6;
    host.ignores(&token_ring, "drop_malformed");
    let packet = |p: &[u8]| tagged(VlanTags::NONE, BROADCAST, PEER_MAC, ETHERTYPE_ARP, p);
    host.ignores(&packet(&arp(1, (OUR_MAC, PEER_V4), ([0; 6], OUR_V4))), "drop_martian");
    host.ignores(&packet(&arp(1, ([1; 6], PEER_V4), ([0; 6], OUR_V4))), "drop_martian");
    host.ignores(&packet(&arp(1, (PEER_MAC, OUR_V4), ([0; 6], OUR_V4))), "drop_martian");
    host.ignores(&packet(&arp(2, (PEER_MAC, PEER_V4), (OUR_MAC, OUR_V4))), "drop_other_address");
    let mut elsewhere = who_has(OUR_V4);
    elsewhere[..6].copy_from_slice(&[2, 0, 0, 0, 0, 77]);
    host.ignores(&elsewhere, "drop_other_address");
}

#[test]
fn solicitations_are_answered() {
    let mut host = Host::quiet();
    let reply = host.answer(&solicit_us()).unwrap();
    assert_eq!((parse(&reply).link.dst, parse(&reply).link.src), (PEER_MAC, OUR_MAC));
    let (datagram, kind, flags, target, mac) = neighbour(&reply);
    assert_eq!((datagram.peer, datagram.local), (OUR_V6, PEER_V6));
    // Solicited, override (RFC 4861 7.2.4).
    assert_eq!((kind, flags, target, mac), (136, 0x60, OUR_V6, OUR_MAC));
    // Reachability is probed by unicast, and without the option.
    let unicast = icmp6(PEER_V6, OUR_V6, 255, &solicitation(OUR_V6, &[]));
    let reply = host.answer(&tagged(VlanTags::dot1q(9, 0), OUR_MAC, PEER_MAC, ETHERTYPE_IPV6, &unicast)).unwrap();
    assert_eq!((parse(&reply).link.dst, parse(&reply).link.vlan), (PEER_MAC, VlanTags::dot1q(9, 0)));
    assert_eq!(host.counters, Counters { nd_replies: 2, ..Counters::default() });
}

#[test]
fn duplicate_address_probes_are_defended() {
    let mut host = Host::quiet();
    let probe = |options: &[u8], dst| icmp6([0; 16], dst, 255, &solicitation(OUR_V6, options));
    let frame = |packet: &[u8]| tagged(VlanTags::NONE, OUR_GROUP_MAC, PEER_MAC, ETHERTYPE_IPV6, packet);
    let reply = host.answer(&frame(&probe(&[], OUR_GROUP))).unwrap();
    let (datagram, kind, flags, target, mac) = neighbour(&reply);
    assert_eq!(parse(&reply).link.dst, [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(datagram.local, ALL_NODES);
    assert_eq!((kind, flags, target, mac), (136, 0x20, OUR_V6, OUR_MAC));
    // RFC 4861 7.1.1: no option, and only to the solicited-node group.
    host.ignores(&frame(&probe(&[1, 1, 2, 0, 0, 0, 0, 2], OUR_GROUP)), "drop_malformed");
    host.ignores(&frame(&probe(&[], OUR_V6)), "drop_malformed");
    // Nothing else comes from nowhere.
    let ping = [128, 0, 0, 0, 0, 0, 0, 0];
    host.ignores(&frame(&icmp6([0; 16], OUR_V6, 64, &ping)), "drop_martian");
}

#[test]
fn solicitations_that_are_not_answered() {
    let mut host = Host::quiet();
    let frame = |packet: &[u8]| tagged(VlanTags::NONE, OUR_GROUP_MAC, PEER_MAC, ETHERTYPE_IPV6, packet);
    let body = solicitation(OUR_V6, &[]);
    host.ignores(&frame(&icmp6(PEER_V6, OUR_GROUP, 254, &body)), "drop_malformed");
    let mut code = body.clone();
    code[1] = 1;
    host.ignores(&frame(&icmp6(PEER_V6, OUR_GROUP, 255, &code)), "drop_malformed");
    host.ignores(&frame(&icmp6(PEER_V6, OUR_GROUP, 255, &body[..23])), "drop_malformed");
    host.ignores(&frame(&icmp6(PEER_V6, OUR_GROUP, 255, &solicitation(OUR_V6, &[1, 0]))), "drop_malformed");
    host.ignores(&frame(&icmp6(PEER_V6, OUR_GROUP, 255, &solicitation(OUR_V6, &[1, 2, 0, 0]))), "drop_malformed");
    host.ignores(&frame(&icmp6(PEER_V6, OUR_GROUP, 255, &solicitation(ALL_NODES, &[]))), "drop_malformed");
    host.ignores(&frame(&icmp6(PEER_V6, OUR_GROUP, 255, &solicitation(PEER_V6, &[]))), "drop_other_address");
    host.ignores(&frame(&icmp6(PEER_V6, ALL_NODES, 255, &body)), "drop_other_address");
    host.ignores(&frame(&icmp6(OUR_V6, OUR_GROUP, 255, &body)), "drop_martian");
    let multicast_mac = solicitation(OUR_V6, &[1, 1, 3, 0, 0, 0, 0, 2]);
    host.ignores(&frame(&icmp6(PEER_V6, OUR_GROUP, 255, &multicast_mac)), "drop_martian");
    let mut broken = solicit_us();
    *broken.last_mut().unwrap() ^= 1;
    host.ignores(&broken, "drop_l4_checksum");
    // Behind a fragment header, even an atomic one, it may be forged from off the link (RFC 6980 5).
    let whole = icmp6(PEER_V6, OUR_GROUP, 255, &body);
    let mut fragment = [&whole[..40], &[PROTO_ICMP6, 0, 0, 0, 0, 0, 0, 1], &whole[40..]].concat();
    fragment[5] += 8;
    fragment[6] = 44;
    host.ignores(&frame(&fragment), "drop_malformed");
    // Router and multicast listener business is not ours.
    host.ignores(&frame(&icmp6(PEER_V6, ALL_NODES, 255, &[134, 0, 0, 0, 0, 0, 0, 0])), "drop_not_ours");
}

#[test]
fn a_ping_of_nothing_but_zeros_has_a_sum_in_its_answer() {
    let request = packet4(PROTO_ICMP, &[], &[8, 0, 0xf7, 0xff, 0, 0, 0, 0, 0, 0], |_| {});
    let reply = Host::quiet().answer(&request).unwrap();
    let Kind::Icmp4(datagram) = parse(&reply).kind else { panic!("not ICMP") };
    assert!(checksum::verify_icmp(&reply, &datagram));
    assert_eq!(datagram.message(&reply), [0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn pings_are_answered() {
    let mut host = Host::quiet();
    let request = ping4(|_| {});
    let reply = host.answer(&request).unwrap();
    let Kind::Icmp4(datagram) = parse(&reply).kind else { panic!("not ICMP") };
    assert!(checksum::verify_icmp(&reply, &datagram));
    assert_eq!((datagram.peer, datagram.local), (ip::mapped(OUR_V4), ip::mapped(PEER_V4)));
    let message = datagram.message(&reply);
    assert_eq!((message[0], message[1], &message[4..]), (0, 0, &request[14 + 24..]));
    let request = ping6(OUR_V6);
    let reply = host.answer(&request).unwrap();
    let Kind::Icmp6(datagram) = parse(&reply).kind else { panic!("not ICMPv6") };
    assert!(checksum::verify_icmp(&reply, &datagram));
    assert_eq!((datagram.message(&reply)[0], &datagram.message(&reply)[4..]), (129, &request[14 + 44..]));
    assert_eq!(host.counters, Counters { echo_replies: 2, ..Counters::default() });
}

#[test]
fn pings_that_are_not_answered() {
    let mut host = Host::quiet();
    host.ignores(&ping4(|h| h[16..20].copy_from_slice(&[198, 18, 0, 255])), "drop_other_address");
    host.ignores(&ping4(|h| h[16..20].copy_from_slice(&[255; 4])), "drop_other_address");
    host.ignores(&ping4(|h| h[12..16].copy_from_slice(&OUR_V4)), "drop_martian");
    host.ignores(&ping4(|h| h[3] -= 1), "drop_l4_checksum");
    let mut broadcast = ping4(|_| {});
    broadcast[..6].fill(0xff);
    host.ignores(&broadcast, "drop_other_address");
    let mut group = ping6(ALL_NODES);
    group[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    host.ignores(&group, "drop_other_address");
    // A port that is unreachable, and a request without its identifier.
    let unreachable = [&[3, 3, 0xfc, 0xfc, 0, 0, 0, 0][..], &[0; 20]].concat();
    host.ignores(&packet4(PROTO_ICMP, &[], &unreachable, |_| {}), "drop_not_ours");
    host.ignores(&packet4(PROTO_ICMP, &[], &[8, 0, 0xf7, 0xff], |_| {}), "drop_malformed");
    // No room for the reply.
    let request = ping4(|_| {});
    let parsed = parse(&request);
    let mut short = [0; 60];
    assert_eq!(host.responder.answer(host.now, &request, &parsed, &mut short, &mut host.counters), None);
    assert_eq!(host.counters.drop_not_ours, 2);
    assert_eq!(host.counters.echo_replies, 0);
}

#[test]
fn pings_are_limited() {
    let mut host = Host::quiet();
    let answered = (0..20).filter(|_| host.answer(&ping4(|_| {})).is_some()).count();
    assert_eq!((answered, host.counters.icmp_limited), (5, 15));
    host.now += Duration::from_millis(200);
    assert!(host.answer(&ping6(OUR_V6)).is_some());
    host.ignores(&ping6(OUR_V6), "icmp_limited");
    // Addresses are resolved all the same.
    assert!(host.answer(&who_has(OUR_V4)).is_some() && host.answer(&solicit_us()).is_some());
}

#[test]
fn with_shared_addresses_the_kernel_answers() {
    let mut host = Host::new(Addresses::Shared, &[GATEWAY_V4.into()]);
    assert_eq!((host.responder.deadline(), host.drain()), (None, vec![]));
    for frame in [who_has(OUR_V4), solicit_us(), ping4(|_| {}), ping6(OUR_V6)] {
        host.ignores(&frame, "drop_not_ours");
    }
    let r = &host.responder;
    assert!(r.is_local(&ip::mapped(OUR_V4)) && r.is_local(&OUR_V6));
    assert!(!r.is_local(&ip::mapped([224, 0, 0, 1])) && !r.is_local(&ip::mapped([255; 4])));
    assert!(!r.is_local(&ip::mapped([127, 0, 0, 1])) && !r.is_local(&[0; 16]) && !r.is_local(&ALL_NODES));
    assert_eq!(r.route(&ip::mapped([192, 0, 2, 1]), PEER_MAC), PEER_MAC);
}

#[test]
fn dropped_frames_are_counted_and_tcp_is_left_alone() {
    let mut host = Host::quiet();
    let tcp = frame_from_peer(&key4(), VlanTags::NONE, &ack(), b"");
    assert_eq!(host.answer(&tcp), None);
    assert_eq!(host.counters, Counters::default());
    host.ignores(&tcp[..20], "drop_malformed");
    let mut fragment = packet4(PROTO_TCP, &[], &tcp_bytes(&key4()), |h| h[6] = 0x20);
    host.ignores(&fragment, "drop_fragment");
    fragment[14 + 8] ^= 1;
    host.ignores(&fragment, "drop_ip_checksum");
}

#[test]
fn segments_are_admitted_by_address() {
    let host = Host::quiet();
    let judge = |frame: &[u8]| host.responder.admit(&parse(frame).link, &segment_of(frame));
    let good = frame_from_peer(&key4(), VlanTags::NONE, &ack(), b"");
    assert_eq!(judge(&good), Ok(()));
    assert_eq!(judge(&frame_from_peer(&key6(), VlanTags::NONE, &ack(), b"")), Ok(()));
    let mut frame = good.clone();
    frame[5] ^= 1;
    assert_eq!(judge(&frame), Err(DropReason::OtherAddress));
    frame[..6].fill(0xff);
    assert_eq!(judge(&frame), Err(DropReason::OtherAddress));
    let other = FlowKey::v4(PEER_V4, [198, 18, 0, 3], 1, 2);
    assert_eq!(judge(&frame_from_peer(&other, VlanTags::NONE, &ack(), b"")), Err(DropReason::OtherAddress));
    let ourselves = FlowKey::v4(OUR_V4, OUR_V4, 1, 2);
    assert_eq!(judge(&frame_from_peer(&ourselves, VlanTags::NONE, &ack(), b"")), Err(DropReason::Martian));
}

#[test]
fn broadcast_addresses_of_our_prefixes() {
    let own: Vec<(core::net::IpAddr, u8)> =
        [("198.18.0.2", 24), ("198.19.1.1", 31), ("198.19.2.6", 30), ("fd00::2", 64)]
            .map(|(a, len)| (a.parse().unwrap(), len))
            .into();
    let host = Host::new(Addresses::Own(own), &[]);
    let broadcast = |a: [u8; 4]| host.responder.is_broadcast(&ip::mapped(a));
    assert!(broadcast([198, 18, 0, 255]) && broadcast([198, 18, 0, 0]));
    assert!(broadcast([198, 19, 2, 4]) && broadcast([198, 19, 2, 7]));
    for host in [[198, 18, 0, 254], [198, 18, 1, 255], [198, 19, 1, 0], [198, 19, 1, 1], [198, 19, 2, 5]] {
        assert!(!broadcast(host), "{host:?}");
    }
    let mut all = OUR_V6;
    all[8..].fill(0xff);
    assert!(!host.responder.is_broadcast(&all), "IPv6 has none");
}

#[test]
fn many_own_addresses() {
    let list: Vec<_> = (0..1000u32).map(|i| (core::net::Ipv4Addr::from(0xc612_0000 + 2 * i).into(), 15)).collect();
    let host = Host::new(Addresses::Own(list), &[]);
    for i in 0..2000u32 {
        let address = ip::mapped((0xc612_0000 + i).to_be_bytes());
        assert_eq!(host.responder.is_local(&address), i % 2 == 0);
    }
}
