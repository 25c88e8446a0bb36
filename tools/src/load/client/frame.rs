//! The frames of the client: everything but the payload, from sums prepared once.

use khamsin_stack::wire::checksum::{data, fold};
use khamsin_stack::wire::{Flags, PROTO_TCP};
use std::net::Ipv4Addr;

/// Ethernet, IPv4 and TCP headers without options.
pub(super) const HEADERS: usize = 54;
/// MSS, and a window scale behind a no-operation.
const SYN_OPTIONS: usize = 8;

/// What is particular to one segment. Its payload lies at [`HEADERS`] already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) source: [u8; 4],
    pub(super) port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: Flags,
    pub(super) window: u16,
    pub(super) payload_len: usize,
    /// A SYN: offers MSS and this window scale; it has no payload.
    pub(super) offer: Option<u8>,
}

/// The headers from any of our addresses and ports to the server's one.
pub(super) struct Headers {
    bytes: [u8; HEADERS],
    mss: u16,
    /// Sum over the IPv4 header without its length and source.
    ip_sum: u64,
    /// Sum over the pseudo-header without length and source, and the server's port.
    tcp_sum: u64,
}

impl Headers {
    pub(super) fn new(mac: [u8; 6], next_hop: [u8; 6], server: Ipv4Addr, port: u16, mss: u16) -> Headers {
        let mut bytes = [0; HEADERS];
        bytes[..6].copy_from_slice(&next_hop);
        bytes[6..12].copy_from_slice(&mac);
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        // Version and length, don't fragment, time to live.
        (bytes[14], bytes[20], bytes[22], bytes[23]) = (0x45, 0x40, 64, PROTO_TCP);
        bytes[30..34].copy_from_slice(&server.octets());
        bytes[36..38].copy_from_slice(&port.to_be_bytes());
        let ip_sum = u64::from(data(&bytes[14..34]));
        let tcp_sum = u64::from(data(&server.octets())) + u64::from(PROTO_TCP) + u64::from(port);
        Headers { bytes, mss, ip_sum, tcp_sum }
    }

    pub(super) fn set_next_hop(&mut self, mac: [u8; 6]) {
        self.bytes[..6].copy_from_slice(&mac);
    }

    /// Writes everything in front of the payload and returns the length of the frame; `None`: the buffer is too short.
    #[inline]
    pub(super) fn write(&self, frame: &mut [u8], segment: &Segment) -> Option<usize> {
        let options_len = if segment.offer.is_some() { SYN_OPTIONS } else { 0 };
        let tcp_len = 20 + options_len + segment.payload_len;
        let frame = frame.get_mut(..34 + tcp_len)?;
        let (h, rest) = frame.split_first_chunk_mut::<HEADERS>()?;
        *h = self.bytes;
        let total_len = (20 + tcp_len) as u16;
        h[16..18].copy_from_slice(&total_len.to_be_bytes());
        h[26..30].copy_from_slice(&segment.source);
        let source = u32::from_be_bytes(segment.source);
        let source_sum = u64::from(source >> 16) + u64::from(source & 0xffff);
        let ip_sum = !fold(self.ip_sum + u64::from(total_len) + source_sum);
        h[24..26].copy_from_slice(&ip_sum.to_be_bytes());
        let offset_and_flags = ((5 + options_len as u16 / 4) << 12) | u16::from(segment.flags.0);
        h[34..36].copy_from_slice(&segment.port.to_be_bytes());
        h[38..42].copy_from_slice(&segment.seq.to_be_bytes());
        h[42..46].copy_from_slice(&segment.ack.to_be_bytes());
        h[46..48].copy_from_slice(&offset_and_flags.to_be_bytes());
        h[48..50].copy_from_slice(&segment.window.to_be_bytes());
        if let (Some(shift), Some(options)) = (segment.offer, rest.first_chunk_mut::<SYN_OPTIONS>()) {
            let [high, low] = self.mss.to_be_bytes();
            *options = [2, 4, high, low, 1, 3, 3, shift];
        }
        let mut sum = self.tcp_sum + source_sum + tcp_len as u64 + u64::from(segment.port);
        sum +=
            u64::from(segment.seq) + u64::from(segment.ack) + u64::from(offset_and_flags) + u64::from(segment.window);
        sum += u64::from(data(rest));
        h[50..52].copy_from_slice(&(!fold(sum)).to_be_bytes());
        Some(34 + tcp_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use khamsin_stack::wire::checksum::{Verdict, verify_tcp};
    use khamsin_stack::wire::{Kind, parse, tcp_options};

    #[test]
    fn frames_are_what_the_stack_reads() {
        let headers = Headers::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], "198.18.0.2".parse().unwrap(), 80, 1460);
        for (payload_len, offer) in [(0, None), (1, None), (99, None), (1460, None), (0, Some(7))] {
            let mut frame = [0x5a; 1600];
            let segment = Segment {
                source: [198, 19, 255, 254],
                port: 65_535,
                seq: 0xffff_fffe,
                ack: 0x8000_0001,
                flags: Flags::ACK | Flags::PSH,
                window: 0xfffe,
                payload_len,
                offer,
            };
            let len = headers.write(&mut frame, &segment).unwrap();
            let Kind::Tcp(found) = parse(&frame[..len]).kind else { panic!("no segment") };
            assert_eq!(found.payload_len(), payload_len);
            assert_eq!(verify_tcp(&frame[..len], &found), Verdict::Valid);
            assert_eq!((found.seq, found.ack, found.window), (segment.seq, segment.ack, segment.window));
            assert_eq!(format!("{:?}", found.key), "198.19.255.254:65535 -> 198.18.0.2:80");
            let options = tcp_options(found.header(&frame));
            assert_eq!((options.mss, options.window_scale), (offer.map(|_| 1460), offer));
            assert_eq!(headers.write(&mut frame[..len - 1], &segment), None);
        }
    }
}
