//! Frames for segments that no sound stack would make: options and control bits as they were recorded, checksums right or wrong.

use khamsin_drivers::sim::Side;
use khamsin_stack::wire::Flags;
use std::net::{IpAddr, SocketAddr};

/// A segment to be put into a frame.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Who sends it.
    pub from: SocketAddr,
    /// To whom; of the same family.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// At most 40 bytes, a multiple of four.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Its checksum is to be wrong.
    pub spoilt: bool,
}

const TCP: u8 = 6;

/// Two MAC addresses: the sender's and the receiver's.
pub type Macs = ([u8; 6], [u8; 6]);

/// The MAC addresses of a frame to the stack on a simulated wire.
pub const TO_STACK: Macs = (Side::Right.mac(), Side::Left.mac());

impl Draft<'_> {
    /// The frame. Addresses of two families make it one that nobody takes.
    pub fn frame(&self, macs: Macs) -> Vec<u8> {
        let tcp_len = 20 + self.options.len() + self.payload.len();
        let mut frame = Vec::with_capacity(54 + tcp_len);
        frame.extend_from_slice(&macs.1);
        frame.extend_from_slice(&macs.0);
        let pseudo = self.ip(tcp_len, &mut frame);
        let tcp = frame.len();
        frame.extend_from_slice(&self.from.port().to_be_bytes());
        frame.extend_from_slice(&self.to.port().to_be_bytes());
        frame.extend_from_slice(&self.seq.to_be_bytes());
        frame.extend_from_slice(&self.ack.to_be_bytes());
        frame.extend_from_slice(&[((20 + self.options.len()) as u8 / 4) << 4, self.flags.0]);
        frame.extend_from_slice(&self.window.to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(&self.urgent.to_be_bytes());
        frame.extend_from_slice(self.options);
        frame.extend_from_slice(self.payload);
        let sum = !fold(pseudo + sum(&frame[tcp..]));
        let sum = if self.spoilt { sum ^ 0x5aa5 } else { sum };
        frame[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// Writes EtherType and IP header; the pseudo-header's sum.
    fn ip(&self, tcp_len: usize, frame: &mut Vec<u8>) -> u64 {
        let length = tcp_len as u64 + u64::from(TCP);
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend_from_slice(&[8, 0]);
                let at = frame.len();
                frame.extend_from_slice(&[0x45, self.traffic_class]);
                frame.extend_from_slice(&((20 + tcp_len) as u16).to_be_bytes());
                frame.extend_from_slice(&[0, 0, 0x40, 0, 64, TCP, 0, 0]);
                frame.extend_from_slice(&from.octets());
                frame.extend_from_slice(&to.octets());
                let checksum = !fold(sum(&frame[at..]));
                frame[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
                length + sum(&from.octets()) + sum(&to.octets())
            }
            (from, to) => {
                frame.extend_from_slice(&[0x86, 0xdd]);
                let class = u32::from(self.traffic_class) << 20;
                frame.extend_from_slice(&(0x6000_0000 | class).to_be_bytes());
                frame.extend_from_slice(&(tcp_len as u16).to_be_bytes());
                frame.extend_from_slice(&[TCP, 64]);
                let mut addresses = 0;
                for address in [from, to] {
                    let v6 = match address {
                        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                        IpAddr::V6(v6) => v6,
                    };
                    frame.extend_from_slice(&v6.octets());
                    addresses += sum(&v6.octets());
                }
                length + addresses
            }
        }
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|two| u64::from(u16::from_be_bytes([two[0], two.get(1).copied().unwrap_or(0)]))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Puts this conversation's numbers into a recorded option: `delta` on those of SACK blocks, `stamp` as the echo.
pub(super) fn translate(kind: u8, option: &mut [u8], delta: u32, stamp: Option<u32>) {
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four));
    match (kind, option.len()) {
        (5, 10..) => {
            for edge in option[2..].chunks_exact_mut(4) {
                edge.copy_from_slice(&number(edge).wrapping_add(delta).to_be_bytes());
            }
        }
        (8, 10) if number(&option[6..]) != 0 => option[6..].copy_from_slice(&stamp.unwrap_or(0).to_be_bytes()),
        _ => {}
    }
}

/// Sends a segment in pieces that fit; what ends something is the last one's.
pub(super) fn cut(draft: &Draft<'_>, mss: usize, send: &mut impl FnMut(Vec<u8>)) {
    let mss = mss.saturating_sub(draft.options.len()).max(1);
    let mut pieces = draft.payload.chunks(mss).peekable();
    let mut seq = draft.seq;
    if pieces.peek().is_none() {
        return send(draft.frame(TO_STACK));
    }
    while let Some(payload) = pieces.next() {
        let ends = Flags::FIN.0 | Flags::PSH.0;
        let flags = if pieces.peek().is_some() { Flags(draft.flags.0 & !ends) } else { draft.flags };
        send(Draft { seq, flags, payload, ..*draft }.frame(TO_STACK));
        seq = seq.wrapping_add(payload.len() as u32 + u32::from(flags.syn()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use khamsin_drivers::sim::client::{Packet, Problem, parse};

    #[test]
    fn a_frame_reads_back_as_what_it_was_made_from() {
        for (from, to) in [("198.18.1.1:40000", "198.18.0.2:80"), ("[fd00::1:1]:40000", "[fd00::2]:80")] {
            let draft = Draft {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                seq: 77,
                ack: 99,
                flags: Flags(0x18),
                window: 501,
                urgent: 0,
                traffic_class: 3,
                options: &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
                payload: b"odd",
                spoilt: false,
            };
            let frame = draft.frame(TO_STACK);
            let Ok(Packet::Tcp(got)) = parse(&frame) else { panic!("{:?}", parse(&frame)) };
            assert_eq!((got.from, got.to, got.seq, got.ack), (draft.from, draft.to, 77, 99));
            assert_eq!((got.flags, got.window, got.timestamps, got.payload), (0x18, 501, Some((1, 2)), &b"odd"[..]));
            let spoilt = Draft { spoilt: true, ..draft }.frame(TO_STACK);
            assert_eq!(parse(&spoilt), Err(Problem::TcpChecksum));
        }
    }
}
