//! Packets cut into fragments, as a host or router does it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

use khamsin_stack::wire::checksum;

/// The packet in an untagged `frame`, in fragments of `size` bytes (a multiple of 8) and a rest.
pub fn split(frame: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let (link, packet) = frame.split_at(14);
    let (header, body) = packet.split_at(if packet[0] >> 4 == 4 { 20 } else { 40 });
    let last = body.len().div_ceil(size) - 1;
    body.chunks(size)
        .enumerate()
        .map(|(i, part)| {
            let word = (i * size) as u16;
            let more = i < last;
            let ip =
                if header.len() == 20 { v4(header, word, more, part, id) } else { v6(header, word, more, part, id) };
            [link, &ip[..], part].concat()
        })
        .collect()
}

fn v4(header: &[u8], offset: u16, more: bool, part: &[u8], id: u16) -> Vec<u8> {
    let mut h = header.to_vec();
    h[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
    h[4..6].copy_from_slice(&id.to_be_bytes());
    h[6..8].copy_from_slice(&((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
    h[10..12].fill(0);
    let sum = !checksum::data(&h);
    h[10..12].copy_from_slice(&sum.to_be_bytes());
    h
}

fn v6(header: &[u8], offset: u16, more: bool, part: &[u8], id: u16) -> Vec<u8> {
    let mut h = header.to_vec();
    let next = h[6];
    h[4..6].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
    h[6] = 44;
    h.extend([next, 0]);
    h.extend((offset | u16::from(more)).to_be_bytes());
    h.extend([0, 0]);
    h.extend(id.to_be_bytes());
    h
}
