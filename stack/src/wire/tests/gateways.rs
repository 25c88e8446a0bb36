//! What the responder says of its own accord: announcements, and questions for the gateways.

use core::time::Duration;

use super::responder::{
    ALL_NODES, BROADCAST, GATEWAY_V4, Host, arp, icmp6, neighbour, own, solicit_us, tagged, who_has,
};
use super::*;
use crate::counters::Counters;

const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const GATEWAY_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];

#[test]
fn own_addresses_are_announced_twice() {
    let mut host = Host::new(own(), &[]);
    for round in 0..2 {
        let frames = host.drain();
        assert_eq!(frames.len(), 2);
        let announcement = arp(1, (OUR_MAC, OUR_V4), ([0; 6], OUR_V4));
        assert_eq!(frames[0], tagged(VlanTags::NONE, BROADCAST, OUR_MAC, ETHERTYPE_ARP, &announcement));
        let (datagram, kind, flags, target, mac) = neighbour(&frames[1]);
        assert_eq!((datagram.peer, datagram.local), (OUR_V6, ALL_NODES));
        assert_eq!((kind, flags, target, mac), (136, 0x20, OUR_V6, OUR_MAC));
        assert_eq!((host.counters.arp_requests, host.counters.nd_requests), (round + 1, round + 1));
        if round == 0 {
            assert_eq!(host.responder.deadline(), Some(host.now + Duration::from_secs(1)));
            host.now += Duration::from_secs(1);
        }
    }
    assert_eq!(host.responder.deadline(), None);
}

#[test]
fn who_is_told_to_announces_once() {
    let mut host = Host::new(own(), &[]);
    host.responder = host.responder.announcing_once();
    assert_eq!((host.drain().len(), host.responder.deadline()), (2, None));
}

fn with_gateways() -> Host {
    let mut host = Host::new(own(), &[GATEWAY_V4.into(), GATEWAY_V6.into()]);
    host.drain();
    host
}

fn arp_answer(mac: [u8; 6]) -> Vec<u8> {
    tagged(VlanTags::NONE, OUR_MAC, mac, ETHERTYPE_ARP, &arp(2, (mac, GATEWAY_V4), (OUR_MAC, OUR_V4)))
}

fn advertisement(mac: [u8; 6], flags: u8) -> Vec<u8> {
    let option = [&[2, 1], &mac[..]].concat();
    let body = [&[136, 0, 0, 0, flags, 0, 0, 0], &GATEWAY_V6[..], &option].concat();
    tagged(VlanTags::NONE, OUR_MAC, mac, ETHERTYPE_IPV6, &icmp6(GATEWAY_V6, OUR_V6, 255, &body))
}

#[test]
fn gateways_are_asked_and_their_answers_routed_by() {
    let mut host = Host::new(own(), &[GATEWAY_V4.into(), GATEWAY_V6.into()]);
    let frames = host.drain();
    assert_eq!(frames.len(), 4, "two announcements, two questions");
    let question = arp(1, (OUR_MAC, OUR_V4), ([0; 6], GATEWAY_V4));
    assert_eq!(frames[2], tagged(VlanTags::NONE, BROADCAST, OUR_MAC, ETHERTYPE_ARP, &question));
    let (datagram, kind, _, target, mac) = neighbour(&frames[3]);
    assert_eq!((kind, target, mac), (135, GATEWAY_V6, OUR_MAC));
    assert_eq!(parse(&frames[3]).link.dst, [0x33, 0x33, 0xff, 0, 0, 0xfe]);
    assert_eq!((datagram.peer, &datagram.local[13..]), (OUR_V6, &[0, 0, 0xfe][..]));
    assert_eq!((host.counters.arp_requests, host.counters.nd_requests), (2, 2));

    let far4 = ip::mapped([192, 0, 2, 1]);
    let far6 = [0x20; 16];
    let mut link_local = [0; 16];
    link_local[..2].copy_from_slice(&[0xfe, 0x80]);
    assert_eq!(host.responder.route(&far4, PEER_MAC), PEER_MAC, "nothing known yet");
    assert_eq!(host.answer(&arp_answer(GATEWAY_MAC)), None);
    assert_eq!(host.answer(&advertisement(GATEWAY_MAC, 0x60)), None);
    assert_eq!(host.counters, Counters { arp_requests: 2, nd_requests: 2, ..Counters::default() });
    let r = &host.responder;
    assert_eq!((r.route(&far4, PEER_MAC), r.route(&far6, PEER_MAC)), (GATEWAY_MAC, GATEWAY_MAC));
    for near in [ip::mapped(PEER_V4), PEER_V6, link_local] {
        assert_eq!(r.route(&near, PEER_MAC), PEER_MAC, "on the link");
    }
}

#[test]
fn one_familys_gateway_is_not_the_others() {
    let mut host = Host::new(own(), &[GATEWAY_V4.into()]);
    host.drain();
    host.answer(&arp_answer(GATEWAY_MAC));
    assert_eq!(host.responder.route(&[0x20; 16], PEER_MAC), PEER_MAC);
    // A gateway of a family that we have no address of is never asked.
    let mut host = Host::new(Addresses::Own(vec![(OUR_V4.into(), 24)]), &[GATEWAY_V6.into()]);
    assert_eq!(host.drain().len(), 1);
}

#[test]
fn a_gateway_that_answers_is_asked_again_after_half_a_minute() {
    let mut host = with_gateways();
    host.answer(&arp_answer(GATEWAY_MAC));
    host.answer(&advertisement(GATEWAY_MAC, 0x40));
    assert_eq!(host.next().0, 1.0, "second announcement");
    let (slept, frames) = host.next();
    assert_eq!((slept, frames.len()), (29.0, 2));
    // It is still known while it is asked, and forgotten after three questions in vain.
    let far = ip::mapped([192, 0, 2, 1]);
    let waits: Vec<f64> = (0..7)
        .map(|nth| {
            assert_eq!(host.responder.route(&far, PEER_MAC) == GATEWAY_MAC, nth < 3, "question {nth}");
            host.next().0
        })
        .collect();
    assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    host.answer(&arp_answer(GATEWAY_MAC));
    assert_eq!(host.responder.route(&far, PEER_MAC), GATEWAY_MAC, "back again");
}

#[test]
fn nobody_talks_us_into_another_gateway() {
    let far4 = ip::mapped([192, 0, 2, 1]);
    let mut host = with_gateways();
    host.answer(&arp_answer(GATEWAY_MAC));
    host.answer(&advertisement(GATEWAY_MAC, 0x60));
    host.next();
    // Unasked answers of another place: not believed, but the gateway is asked at once.
    host.ignores(&arp_answer(PEER_MAC), "drop_other_address");
    host.ignores(&advertisement(PEER_MAC, 0x60), "drop_other_address");
    assert_eq!(host.responder.route(&far4, [9; 6]), GATEWAY_MAC);
    assert_eq!(host.drain().len(), 2, "both are asked where they are");
    // The one who is asked answers: moved indeed.
    host.answer(&arp_answer([2, 0, 0, 0, 0, 0xfd]));
    assert_eq!(host.responder.route(&far4, [9; 6]), [2, 0, 0, 0, 0, 0xfd]);
    // An answer that does not call itself solicited is not believed even while a question is open.
    host.ignores(&advertisement(PEER_MAC, 0x20), "drop_other_address");
    assert_eq!(host.responder.route(&[0x20; 16], [9; 6]), GATEWAY_MAC);
    // A liar can make us ask once a second at most.
    let asked = host.counters.arp_requests;
    for _ in 0..1000 {
        host.answer(&arp_answer(PEER_MAC));
        host.now += Duration::from_millis(1);
        host.drain();
    }
    assert!(host.counters.arp_requests - asked <= 2);
}

#[test]
fn advertisements_of_no_use() {
    let mut host = with_gateways();
    let frame = |body: &[u8], hop_limit| {
        tagged(VlanTags::NONE, OUR_MAC, PEER_MAC, ETHERTYPE_IPV6, &icmp6(PEER_V6, OUR_V6, hop_limit, body))
    };
    let body = |target: [u8; 16]| [&[136, 0, 0, 0, 0x60, 0, 0, 0], &target[..], &[2, 1, 2, 0, 0, 0, 0, 9]].concat();
    host.ignores(&frame(&body(GATEWAY_V6), 64), "drop_malformed");
    host.ignores(&frame(&body(PEER_V6), 255), "drop_other_address");
    host.ignores(&frame(&body(OUR_V6), 255), "drop_martian");
    assert_eq!(host.responder.route(&[0x20; 16], PEER_MAC), PEER_MAC);
}

#[test]
fn a_reply_buffer_of_no_length_does_no_harm() {
    let mut host = with_gateways();
    let mut counters = Counters::default();
    for frame in [who_has(OUR_V4), solicit_us()] {
        assert_eq!(host.responder.answer(host.now, &frame, &parse(&frame), &mut [], &mut counters), None);
    }
    assert_eq!((counters.arp_replies, counters.nd_replies), (0, 0));
    host.now += Duration::from_secs(600);
    assert_eq!(host.responder.poll(host.now, &mut [], &mut counters), None);
    assert_eq!((counters.arp_requests, counters.nd_requests), (0, 0));
}
