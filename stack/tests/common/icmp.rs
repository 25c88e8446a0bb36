//! ICMP errors as routers write them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

use super::{PEER_MAC, SERVER_MAC};
use khamsin_stack::wire::{LinkHeader, VlanTags, checksum};

/// The error of `kind` (type, code) and 32 bits of `word` that quotes the first `quote` bytes of the packet in `frame`,
/// from the router to where the packet came from.
pub fn complaint(kind: [u8; 2], word: u32, frame: &[u8], quote: usize) -> Vec<u8> {
    let packet = &frame[14..];
    let quoted = &packet[..quote.min(packet.len())];
    let mut message = [&kind[..], &[0, 0], &word.to_be_bytes(), quoted].concat();
    let v4 = packet[0] >> 4 == 4;
    let sender: &[u8] = if v4 { &packet[12..16] } else { &packet[8..24] };
    let router: Vec<u8> = if v4 {
        vec![198, 18, 0, 254]
    } else {
        let mut a = sender.to_vec();
        a[15] = 0xfe;
        a
    };
    let pseudo = if v4 { 0 } else { ones(&[&router[..], sender, &[0, 58]].concat()) + message.len() as u64 };
    let sum = !checksum::fold(pseudo + ones(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut out = vec![0; 14];
    let link = LinkHeader { dst: SERVER_MAC, src: PEER_MAC, vlan: VlanTags::NONE };
    link.write(&mut out, if v4 { 0x0800 } else { 0x86dd }).unwrap();
    if v4 {
        let mut header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 198, 18, 0, 254, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
        header[16..].copy_from_slice(sender);
        let sum = !checksum::fold(ones(&header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(header);
    } else {
        out.extend([0x60, 0, 0, 0]);
        out.extend((message.len() as u16).to_be_bytes());
        out.extend([58, 64]);
        out.extend(router);
        out.extend(sender);
    }
    out.extend(message);
    out
}

fn ones(bytes: &[u8]) -> u64 {
    u64::from(checksum::data(bytes))
}
