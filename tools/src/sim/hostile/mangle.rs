//! Frames that no sender makes: cut short, damaged with whole checksums around, fragments, urgent pointers, noise.

use super::Hostile;
use khamsin_drivers::sim::Side;
use khamsin_drivers::sim::client::{ACK, PSH, build};

impl Hostile {
    /// Sends something that is not quite a frame.
    pub(super) fn mangle(&mut self) {
        let text = super::super::dice::pattern(self.dice.next(), self.dice.clone().scaled(1, 400) as usize);
        let mut segment = self.segment(ACK | PSH);
        segment.payload = &text;
        let mut frame = build(Side::Right.mac(), Side::Left.mac(), &segment, false);
        match self.dice.below(10) {
            0 => self.flow.next = self.flow.next.wrapping_add(text.len() as u32),
            1 => frame.truncate(self.dice.below(frame.len() as u64) as usize),
            2 => {
                let bit = self.dice.below(8 * frame.len() as u64) as usize;
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            3 => frame = super::super::dice::pattern(self.dice.next(), self.dice.clone().between(0, 300) as usize),
            4 => return self.fragments(&frame),
            5 => self.urgent(&mut frame),
            6 => self.wrong_options(&mut frame),
            7 => self.with_ip_options(&mut frame),
            8 => self.wrong_lengths(&mut frame),
            _ => self.other_addresses(&mut frame),
        }
        if frame.len() <= self.plan.mtu + 14 {
            self.end.send(&frame);
        }
    }

    /// Where the TCP header is.
    fn tcp_at(&self) -> usize {
        if self.plan.v6 { 54 } else { 34 }
    }

    /// In two parts, in either order, overlapping, or only one of them.
    fn fragments(&mut self, frame: &[u8]) {
        if self.plan.v6 {
            return self.fragments_v6(frame);
        }
        let body = &frame[34..];
        let cut = (self.dice.below(body.len() as u64 / 8 + 1) * 8) as usize;
        let overlap = if self.dice.chance(30) { 8.min(cut) } else { 0 };
        let id = self.dice.next() as u16;
        let mut parts =
            vec![(0, &body[..cut.max(8).min(body.len())], true), (cut - overlap, &body[cut - overlap..], false)];
        if self.dice.chance(30) {
            parts.swap(0, 1);
        }
        if self.dice.chance(30) {
            parts.pop();
        }
        for (at, part, more) in parts {
            let mut packet = frame[..34].to_vec();
            packet.extend_from_slice(part);
            packet[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            packet[18..20].copy_from_slice(&id.to_be_bytes());
            packet[20..22].copy_from_slice(&((at / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
            header_checksum(&mut packet);
            self.end.send(&packet);
        }
    }

    fn fragments_v6(&mut self, frame: &[u8]) {
        let body = &frame[54..];
        let cut = (self.dice.below(body.len() as u64 / 8 + 1) * 8) as usize;
        let id = self.dice.next() as u32;
        for (at, part, more) in [(0, &body[..cut], true), (cut, &body[cut..], false)] {
            let mut packet = frame[..54].to_vec();
            packet[20] = 44;
            packet[18..20].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
            packet.extend_from_slice(&[6, 0]);
            packet.extend_from_slice(&(at as u16 | u16::from(more)).to_be_bytes());
            packet.extend_from_slice(&id.to_be_bytes());
            packet.extend_from_slice(part);
            self.end.send(&packet);
        }
    }

    /// An urgent pointer to anywhere (RFC 6093); the checksum holds.
    fn urgent(&mut self, frame: &mut [u8]) {
        let at = self.tcp_at();
        let pointer = self.dice.next() as u16;
        patch(frame, at, at + 12, u16::from_be_bytes([frame[at + 12], frame[at + 13] | 0x20]));
        patch(frame, at, at + 18, pointer);
    }

    /// The data offset says other than what is there; the checksum holds.
    fn wrong_options(&mut self, frame: &mut [u8]) {
        let at = self.tcp_at();
        let offset = self.dice.below(16) as u8;
        patch(frame, at, at + 12, u16::from_be_bytes([offset << 4, frame[at + 13]]));
    }

    /// IPv4 options, or an IPv6 extension header, before the TCP header.
    fn with_ip_options(&mut self, frame: &mut Vec<u8>) {
        if self.plan.v6 {
            let kind = self.dice.pick(&[0, 60, 43, 51, 59]);
            let len = u16::from_be_bytes([frame[18], frame[19]]) + 8;
            frame[18..20].copy_from_slice(&len.to_be_bytes());
            frame[20] = kind;
            frame.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
            return;
        }
        frame[14] = 0x46;
        let len = u16::from_be_bytes([frame[16], frame[17]]) + 4;
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame.splice(
            34..34,
            self.dice.pick(&[[1, 1, 1, 0], [7, 3, 4, 0], [131, 3, 4, 0], [148, 4, 0, 0], [9, 200, 1, 1]]),
        );
        header_checksum(frame);
    }

    /// The IP header promises more or less than there is.
    fn wrong_lengths(&mut self, frame: &mut [u8]) {
        let at = if self.plan.v6 { 18 } else { 16 };
        let len = u16::from_be_bytes([frame[at], frame[at + 1]]);
        let wrong = self.dice.pick(&[0, 1, 19, 20, 39, len.wrapping_sub(1), len.wrapping_add(1), u16::MAX]);
        frame[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
        if !self.plan.v6 {
            header_checksum(frame);
        }
    }

    /// From or to where nobody is: broadcast, multicast, loopback, the server itself.
    fn other_addresses(&mut self, frame: &mut [u8]) {
        if self.dice.chance(30) {
            frame[..6].copy_from_slice(&[0xff; 6]);
            return;
        }
        let source = self.dice.chance(60);
        if self.plan.v6 {
            let at = if source { 22 } else { 38 };
            let first: [u8; 2] = self.dice.pick(&[[0xff, 0x02], [0, 0], [0xfe, 0x80]]);
            patch(frame, 54, at, u16::from_be_bytes(first));
            return;
        }
        let at = if source { 26 } else { 30 };
        let address: [u8; 4] =
            self.dice.pick(&[[255; 4], [0; 4], [224, 0, 0, 1], [127, 0, 0, 1], [198, 18, 0, 2], [198, 18, 0, 255]]);
        patch(frame, 34, at, u16::from_be_bytes([address[0], address[1]]));
        patch(frame, 34, at + 2, u16::from_be_bytes([address[2], address[3]]));
        header_checksum(frame);
    }
}

/// Changes the 16 bits at `at` and the TCP checksum with them (RFC 1624).
fn patch(frame: &mut [u8], tcp_at: usize, at: usize, value: u16) {
    let sum_at = tcp_at + 16;
    let word = |frame: &[u8], at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let mut sum = (!word(frame, sum_at) & 0xffff) + (!word(frame, at) & 0xffff) + u32::from(value);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    frame[sum_at..sum_at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Writes the checksum of the IPv4 header.
fn header_checksum(frame: &mut [u8]) {
    let header = 14 + usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let sum: u32 = frame[14..header].as_chunks::<2>().0.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use khamsin_drivers::sim::client::{Packet, Segment, parse};

    #[test]
    fn a_patched_segment_has_a_whole_checksum() {
        let segment = Segment {
            payload: b"hello",
            ..Segment::new("198.18.0.9:5".parse().unwrap(), "198.18.0.2:7".parse().unwrap(), ACK)
        };
        let mut frame = build(Side::Right.mac(), Side::Left.mac(), &segment, false);
        patch(&mut frame, 34, 34 + 18, 0x1234);
        assert!(matches!(parse(&frame), Ok(Packet::Tcp(_))));
        header_checksum(&mut frame);
        assert!(matches!(parse(&frame), Ok(Packet::Tcp(_))));
        frame[50] ^= 1;
        assert!(parse(&frame).is_err());
    }
}
