//! Writes the first inputs of each corpus: one of everything that a target understands. A fuzzer makes the rest of them.

use anyhow::Context;
use khamsin_fuzz::packet::{self, Between, Seg};
use khamsin_fuzz::ring::Ring;
use khamsin_fuzz::source::{Dice, Source};
use khamsin_fuzz::world::caps;
use khamsin_stack::wire::{Flags, VlanTags};
use khamsin_stack::{FlowKey, Frame};
use std::fs;
use std::path::PathBuf;

/// Heads and bodies that a server meets.
const REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /s.txt HTTP/1.1\r\nHost: h\r\n\r\nGET /s.txt HTTP/1.1\r\nHost: h\r\n\r\nHEAD /big HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /big HTTP/1.1\r\nHost: h\r\nRange: bytes=100-199\r\nIf-Range: \"x\"\r\n\r\n",
    b"GET /s.txt HTTP/1.1\r\nHost: h\r\nIf-None-Match: W/\"a\", *\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\nGET /t/x HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /len HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /query?a=1&b=x+y%26&a=2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\nGET http://h/sub HTTP/1.1\r\nHost: h\r\n\r\nGET /sub/a%20b+c.txt HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\nGET / HTTP/1.1\nHost: h\n\nPUT /s.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    b"POST /s.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /../x HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n X: folded\r\n\r\n",
];

fn main() -> anyhow::Result<()> {
    let frames = frames();
    for (i, frame) in frames.iter().enumerate() {
        // Once as it is, once with its checksums made right and time passing.
        for (j, control) in [0u8, 0b0010_1100].into_iter().enumerate() {
            write("frames", &format!("{i:02}-{j}"), &[&[j as u8 * 4], &record(control, frame)[..]].concat())?;
        }
    }
    let all: Vec<u8> = frames.iter().flat_map(|frame| record(0b0001_0100, frame)).collect();
    write("frames", "all", &[&[0], &all[..]].concat())?;
    for seed in 0..24 {
        let mut dice = Dice::new(seed, u64::MAX);
        let bytes: Vec<u8> = (0..60 * (1 + seed)).map(|_| dice.byte()).collect();
        write("tcp", &format!("{seed:02}"), &[&[seed as u8], &bytes[..]].concat())?;
    }
    for (i, request) in REQUESTS.iter().enumerate() {
        write("http", &format!("{i:02}"), &[&[i as u8, 3, 4, i as u8, 1, i as u8], *request].concat())?;
    }
    let all = REQUESTS[..10].concat();
    write("http", "all", &[&[7, 9, 20, 3, 0, 0], &all[..]].concat())?;
    for (i, link) in [1u32, 101, 12, 113].into_iter().enumerate() {
        let skip = if link == 1 { 0 } else { 14 };
        let packets: Vec<&[u8]> = frames.iter().map(|frame| frame.get(skip..).unwrap_or(&[])).collect();
        write("pcap", &format!("pcap-{i}"), &pcap(link, &packets, u32::to_le_bytes))?;
        write("pcap", &format!("swapped-{i}"), &pcap(link, &packets[..3], u32::to_be_bytes))?;
        write("pcap", &format!("pcapng-{i}"), &pcapng(link as u16, &packets))?;
    }
    // TCP in fragments, which are put together before anything else is asked of them.
    let traces = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces");
    for name in ["trouble-fragments", "trouble-fragments-v6", "trouble-fragment-missed"] {
        let path = traces.join(name).with_extension("pcap");
        write("pcap", name, &fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?)?;
    }
    Ok(())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    fs::write(folder.join(format!("seed-{name}")), bytes).with_context(|| format!("{name} cannot be written"))
}

/// One frame of the target `frames`.
fn record(control: u8, frame: &[u8]) -> Vec<u8> {
    [&[control], &(frame.len() as u16).to_le_bytes()[..], frame].concat()
}

/// One of everything that stands on a link.
fn frames() -> Vec<Vec<u8>> {
    let mut ring = Ring::new(caps(0));
    let v4 = FlowKey::v4([198, 18, 0, 1], [198, 18, 0, 2], 40_000, 7);
    let v6 = |last: u8| {
        let mut address = [0; 16];
        (address[0], address[15]) = (0xfd, last);
        address
    };
    let v6 = FlowKey::v6(v6(1), v6(2), 40_001, 80);
    let options = [2, 4, 5, 0xb4, 3, 3, 7, 1, 4, 2, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1];
    let mut frames = vec![arp(1), arp(2)];
    for key in [v4, v6] {
        let tagged = VlanTags::dot1q(7, 0).inside(9, 0);
        for seg in [
            Seg { flags: Flags::SYN, options: &options, sum: true, ..Seg::default() },
            Seg {
                flags: Flags::SYN,
                between: Between::Options(2),
                tags: VlanTags::dot1q(0, 3),
                sum: true,
                ..Seg::default()
            },
            Seg { payload: &[7; 50], tags: tagged, sum: true, ..Seg::default() },
        ] {
            frames.push(packet::segment(&mut ring, &key, &seg).bytes().to_vec());
        }
        let echo = if key.is_v4() { (8, 0) } else { (128, 0) };
        let big = if key.is_v4() { (3, 4) } else { (2, 0) };
        frames.push(packet::icmp(&mut ring, &key, echo, 0x0001_0002, &[5; 24]).bytes().to_vec());
        frames.push(packet::icmp_error(&mut ring, &key, big, 1300, 77, 20).bytes().to_vec());
        let long = packet::icmp(&mut ring, &key, echo, 0x0001_0002, &[6; 200]);
        if let Some(pieces) = packet::fragments(&mut ring, &long, 104, 9) {
            frames.extend(pieces.map(|piece| piece.bytes().to_vec()));
        }
    }
    frames.push(packet::solicitation(&mut ring, &v6).bytes().to_vec());
    frames
}

fn arp(operation: u8) -> Vec<u8> {
    let (ours, theirs) = (packet::SERVER_MAC, packet::PEER_MAC);
    [
        &[0xff; 6],
        &theirs[..],
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
        &theirs,
        &[198, 18, 0, 254],
        &ours,
        &[198, 18, 0, 2],
    ]
    .concat()
}

/// A trace as tcpdump writes it; `word` sets the byte order.
fn pcap(link: u32, packets: &[&[u8]], word: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = word(0x0002_0004);
    // Two halves of the version, each in the order of the file.
    let version = if word(1)[0] == 1 { [c, d, a, b] } else { [a, b, c, d] };
    let mut file = [word(0xa1b2_c3d4), version, word(0), word(0), word(65_535), word(link)].concat();
    for (i, packet) in packets.iter().enumerate() {
        let len = word(packet.len() as u32);
        file.extend([word(i as u32), word(7), len, len].concat());
        file.extend_from_slice(packet);
    }
    file
}

/// The same as pcapng: a section, an interface, enhanced packets.
fn pcapng(link: u16, packets: &[&[u8]]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padding = body.len().next_multiple_of(4) - body.len();
        let len = ((12 + body.len() + padding) as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &[0; 3][..padding], &len].concat()
    };
    let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    let mut file = block(0x0a0d_0d0a, &section);
    file.extend(block(1, &[&link.to_le_bytes()[..], &[0, 0], &65_535u32.to_le_bytes()].concat()));
    for (i, packet) in packets.iter().enumerate() {
        let len = (packet.len() as u32).to_le_bytes();
        let head = [[0; 4], [0; 4], (i as u32).to_le_bytes(), len, len].concat();
        file.extend(block(6, &[&head[..], packet].concat()));
    }
    file
}
