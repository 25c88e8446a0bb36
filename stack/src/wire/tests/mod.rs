//! The wire layer against oracles: etherparse, smoltcp's checksums, recorded traffic.

mod against_etherparse;
mod checksums;
mod errors;
mod gateways;
mod hostile;
mod network;
mod responder;
mod templates;
mod traces;

use super::*;
use crate::key::FlowKey;

const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OUR_V4: [u8; 4] = [198, 18, 0, 2];
const PEER_V4: [u8; 4] = [198, 18, 0, 1];
const OUR_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const PEER_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn key4() -> FlowKey {
    FlowKey::v4(PEER_V4, OUR_V4, 40_000, 80)
}

fn key6() -> FlowKey {
    FlowKey::v6(PEER_V6, OUR_V6, 40_000, 80)
}

/// The flow as the peer's own stack would name it, so that a [`Template`] can play the peer.
fn reversed(key: &FlowKey) -> FlowKey {
    FlowKey { peer: key.local, local: key.peer, peer_port: key.local_port, local_port: key.peer_port }
}

/// A frame from the peer of `key` to us.
fn frame_from_peer(key: &FlowKey, vlan: VlanTags, seg: &Outgoing<'_>, payload: &[u8]) -> Vec<u8> {
    let link = LinkHeader { dst: OUR_MAC, src: PEER_MAC, vlan };
    let template = Template::new(&link, &reversed(key));
    let at = template.header_len() + seg.options.len();
    let mut frame = vec![0xa5; at + payload.len()];
    frame[at..].copy_from_slice(payload);
    let seg = Outgoing { payload_len: payload.len(), ..*seg };
    assert_eq!(template.write(&mut frame, &seg, TxChecksum::Full), Some(frame.len()));
    frame
}

fn ack() -> Outgoing<'static> {
    Outgoing { seq: 1000, ack: 2000, flags: Flags::ACK, window: 64_240, options: &[], payload_len: 0 }
}

#[track_caller]
fn segment_of(frame: &[u8]) -> Segment {
    match parse(frame).kind {
        Kind::Tcp(segment) => segment,
        other => panic!("not a segment: {other:?}"),
    }
}

/// An Ethernet frame from the peer to us.
fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14];
    LinkHeader { dst: OUR_MAC, src: PEER_MAC, vlan: VlanTags::NONE }.write(&mut frame, ethertype).unwrap();
    frame.extend_from_slice(packet);
    frame
}

/// An IPv4 packet from the peer to us; `change` sees the header before its checksum is made.
fn packet4(protocol: u8, options: &[u8], body: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut packet = ip::v4_header(PEER_V4, OUR_V4, protocol, options.len() + body.len()).to_vec();
    packet[0] += options.len() as u8 / 4;
    packet[10..12].fill(0);
    packet.extend_from_slice(options);
    change(&mut packet);
    let sum = !checksum::data(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(body);
    ethernet(ETHERTYPE_IPV4, &packet)
}

/// An IPv6 packet from the peer to us whose header says that `next_header` follows; `change` sees the header.
fn packet6(next_header: u8, body: &[u8], change: impl FnOnce(&mut [u8; 40])) -> Vec<u8> {
    let mut header = ip::v6_header(&PEER_V6, &OUR_V6, next_header, 64, body.len());
    change(&mut header);
    ethernet(ETHERTYPE_IPV6, &[&header, body].concat())
}

/// The TCP part of a pure ACK.
fn tcp_bytes(key: &FlowKey) -> Vec<u8> {
    let frame = frame_from_peer(key, VlanTags::NONE, &ack(), b"hello");
    frame[usize::from(segment_of(&frame).tcp_at)..].to_vec()
}
