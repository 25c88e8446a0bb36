//! Trace files of every kind, sound and damaged.

use super::talk::Shot;

/// Byte order and unit of time.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) big_endian: bool,
    pub(crate) nanos: bool,
    pub(crate) snaplen: u32,
}

pub(crate) const PLAIN: Style = Style { big_endian: false, nanos: false, snaplen: 262_144 };

impl Style {
    fn u16(self, n: u16) -> [u8; 2] {
        if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn u32(self, n: u32) -> [u8; 4] {
        if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    }
}

/// The header of a pcap file.
pub(crate) fn pcap_header(style: Style, link: u32) -> Vec<u8> {
    let magic = if style.nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file = style.u32(magic).to_vec();
    file.extend([style.u16(2), style.u16(4)].concat());
    file.extend([style.u32(0), style.u32(0), style.u32(style.snaplen), style.u32(link)].concat());
    file
}

/// A pcap file.
pub(crate) fn pcap(style: Style, link: u32, shots: &[Shot]) -> Vec<u8> {
    let mut file = pcap_header(style, link);
    for (at_ns, packet) in shots {
        let part = (at_ns % 1_000_000_000) as u32;
        let part = if style.nanos { part } else { part / 1000 };
        let kept = packet.len().min(style.snaplen as usize);
        let head = [(at_ns / 1_000_000_000) as u32, part, kept as u32, packet.len() as u32];
        file.extend(head.map(|n| style.u32(n)).concat());
        file.extend(&packet[..kept]);
    }
    file
}

/// A pcapng file with one interface; time in nanoseconds, or in microseconds, which is what counts without the option.
pub(crate) fn pcapng(style: Style, link: u16, shots: &[Shot]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padding = body.len().next_multiple_of(4) - body.len();
        let len = style.u32((12 + body.len() + padding) as u32);
        [&style.u32(kind)[..], &len, body, &[0; 3][..padding], &len].concat()
    };
    let section = [&style.u32(0x1a2b_3c4d)[..], &style.u16(1), &style.u16(0), &[0xff; 8]].concat();
    let mut file = block(0x0a0d_0d0a, &section);
    let mut interface = [&style.u16(link)[..], &[0, 0], &style.u32(style.snaplen)].concat();
    if style.nanos {
        interface.extend([&style.u16(9)[..], &style.u16(1), &[9, 0, 0, 0], &[0; 4]].concat());
    }
    file.extend(block(1, &interface));
    for (at_ns, packet) in shots {
        let at = if style.nanos { *at_ns } else { at_ns / 1000 };
        let len = packet.len() as u32;
        let head = [0, (at >> 32) as u32, at as u32, len, len].map(|n| style.u32(n)).concat();
        file.extend(block(6, &[&head, &packet[..]].concat()));
    }
    file
}

/// The same packets behind another header: `header` is told the EtherType.
pub(crate) fn relink(shots: &[Shot], header: impl Fn([u8; 2]) -> Vec<u8>) -> Vec<Shot> {
    let other = |(at_ns, frame): &Shot| (*at_ns, [header([frame[12], frame[13]]), frame[14..].to_vec()].concat());
    shots.iter().map(other).collect()
}

/// The same Ethernet frames with tags, the outer one first.
pub(crate) fn tagged(shots: &[Shot], tags: &[[u8; 4]]) -> Vec<Shot> {
    let insert = |frame: &[u8]| [&frame[..12], &tags.concat(), &frame[12..]].concat();
    shots.iter().map(|(at_ns, frame)| (*at_ns, insert(frame))).collect()
}
