//! The headers of one connection's segments, prepared once.

use super::parsed::{Flags, Segment};
use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkHeader, LinkView, PROTO_TCP, checksum, ip};
use crate::key::FlowKey;

/// Longest link layer: Ethernet and two tags.
const L2_MAX: usize = 22;

/// Everything in front of the TCP options that stays the same from segment to segment, and the sums over it.
#[derive(Clone, Debug)]
pub struct Template {
    /// The link layer, right-aligned.
    link: [u8; L2_MAX],
    l2_len: u8,
    v6: bool,
    /// The IP header, its length and IPv4 checksum fields zero; IPv4 uses the first 20 bytes.
    ip: [u8; 40],
    /// Sum over the IPv4 header as it stands here.
    ip_sum: u16,
    /// Sum over the pseudo-header without its length.
    pseudo_sum: u16,
    /// Our port and the peer's, as in the header.
    ports: [u8; 4],
}

/// What is particular to one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; 0 without the ACK flag.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header, scaled down already.
    pub window: u16,
    /// TCP options, a multiple of 4 and at most 40 bytes.
    pub options: &'a [u8],
    /// Bytes of payload that lie in the frame behind the options.
    pub payload_len: usize,
}

/// What to leave in the TCP checksum field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxChecksum {
    /// The checksum.
    Full,
    /// The pseudo-header sum, length included, folded and not inverted: the device adds the rest
    /// (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, virtio 1.2 5.1.6.2).
    Partial,
}

impl Template {
    /// The headers from our end of `key` to the peer's over `link`.
    pub fn new(link: &LinkHeader, key: &FlowKey) -> Template {
        let mut ip = [0; 40];
        let v6 = match (ip::unmapped(&key.local), ip::unmapped(&key.peer)) {
            (Some(local), Some(peer)) => {
                ip[..20].copy_from_slice(&ip::v4_header(local, peer, PROTO_TCP, 0));
                ip[2..4].fill(0);
                ip[10..12].fill(0);
                false
            }
            _ => {
                ip = ip::v6_header(&key.local, &key.peer, PROTO_TCP, ip::HOP_LIMIT, 0);
                true
            }
        };
        let (local, peer) = (key.local_port.to_be_bytes(), key.peer_port.to_be_bytes());
        let mut template = Template {
            link: [0; L2_MAX],
            l2_len: 0,
            v6,
            ip,
            ip_sum: if v6 { 0 } else { checksum::data(&ip[..20]) },
            pseudo_sum: checksum::pseudo_without_len(&key.local, &key.peer, PROTO_TCP),
            ports: [local[0], local[1], peer[0], peer[1]],
        };
        template.set_link(link);
        template
    }

    /// Sends what follows over another link layer: the peer moved, or its gateway did.
    pub fn set_link(&mut self, link: &LinkHeader) {
        let len = link.l2_len();
        let ethertype = if self.v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        self.l2_len = len as u8;
        link.write(&mut self.link[L2_MAX - len..], ethertype).expect("no link layer is longer than 22 bytes");
    }

    /// Whether a frame with this link layer came from elsewhere than where this template sends to: another MAC, or
    /// other VLAN tags.
    #[inline]
    pub fn link_differs(&self, received: &LinkView) -> bool {
        let at = L2_MAX - usize::from(self.l2_len);
        let Some((dst, rest)) = self.link[at..].split_first_chunk::<6>() else { return true };
        *dst != received.src
            || self.l2_len != received.l2_len
            || (self.l2_len > 14 && rest[6..rest.len() - 2] != *received.vlan.bytes())
    }

    /// Where frames go: the MAC, and the VLAN tags as they stand on the wire.
    pub fn destination(&self) -> ([u8; 6], &[u8]) {
        let link = &self.link[L2_MAX - usize::from(self.l2_len)..];
        let mac = link.first_chunk().copied().unwrap_or_default();
        (mac, link.get(12..link.len() - 2).unwrap_or_default())
    }

    /// Bytes of the link layer: 14, 18 or 22. The IP packet starts there.
    #[inline]
    pub fn l2_len(&self) -> usize {
        usize::from(self.l2_len)
    }

    /// Where the TCP header starts.
    #[inline]
    pub fn tcp_at(&self) -> usize {
        self.l2_len() + if self.v6 { 40 } else { 20 }
    }

    /// Bytes in front of the TCP options.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.tcp_at() + 20
    }

    /// Writes everything in front of the payload, which lies at [`header_len`](Self::header_len) + `options.len()`
    /// already, and returns the length of the frame. `None`, with nothing written, if `frame` is too short, the packet
    /// would be longer than 65,535 bytes, or the options are not a multiple of 4 of at most 40 bytes.
    #[inline]
    pub fn write(&self, frame: &mut [u8], seg: &Outgoing<'_>, how: TxChecksum) -> Option<usize> {
        let options_len = seg.options.len();
        if options_len > 40 || !options_len.is_multiple_of(4) || seg.payload_len > 65_515 {
            return None;
        }
        let tcp_len = 20 + options_len + seg.payload_len;
        let len = self.tcp_at() + tcp_len;
        let frame = frame.get_mut(..len).filter(|_| tcp_len <= 65_515)?;
        let tcp = self.write_link_and_ip(frame, tcp_len)?;
        let (h, rest) = tcp.split_first_chunk_mut::<20>()?;
        let (options, payload) = rest.split_at_mut_checked(options_len)?;
        let offset_and_flags = ((5 + options_len as u16 / 4) << 12) | u16::from(seg.flags.0);
        h[0..4].copy_from_slice(&self.ports);
        h[4..8].copy_from_slice(&seg.seq.to_be_bytes());
        h[8..12].copy_from_slice(&seg.ack.to_be_bytes());
        h[12..14].copy_from_slice(&offset_and_flags.to_be_bytes());
        h[14..16].copy_from_slice(&seg.window.to_be_bytes());
        // Word by word: a copy of variable length would be a call, and the sum comes along.
        let mut options_sum: u64 = 0;
        for (to, from) in options.as_chunks_mut::<4>().0.iter_mut().zip(seg.options.as_chunks::<4>().0) {
            *to = *from;
            options_sum += u64::from(u32::from_be_bytes(*from));
        }
        let mut sum = u64::from(self.pseudo_sum) + tcp_len as u64;
        let field = match how {
            TxChecksum::Partial => checksum::fold(sum),
            TxChecksum::Full => {
                sum += u64::from(u32::from_be_bytes(self.ports)) + u64::from(seg.seq) + u64::from(seg.ack);
                sum += u64::from(offset_and_flags) + u64::from(seg.window) + options_sum;
                if !payload.is_empty() {
                    sum += u64::from(checksum::data(payload));
                }
                !checksum::fold(sum)
            }
        };
        h[16..18].copy_from_slice(&field.to_be_bytes());
        h[18..20].fill(0);
        Some(len)
    }

    /// Lets routers mark a frame that [`write`](Self::write) has written instead of dropping it: ECT(0) (RFC 3168 5).
    pub fn mark_ect(&self, frame: &mut [u8]) {
        let Some(h) = frame.get_mut(self.l2_len()..).and_then(|f| f.first_chunk_mut::<20>()) else { return };
        if self.v6 {
            h[1] |= 0x20;
        } else {
            h[1] |= 0x02;
            // RFC 1624: the sum is inverted, and the word grew by two.
            let sum = u64::from(!super::be16(h, 10)) + 2;
            h[10..12].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        }
    }

    /// Writes what lies in front of `tcp_len` bytes of TCP and returns those.
    #[inline(always)]
    fn write_link_and_ip<'f>(&self, frame: &'f mut [u8], tcp_len: usize) -> Option<&'f mut [u8]> {
        // Copies of constant length: a move or two instead of a call.
        let packet = match self.l2_len {
            14 => split_write::<14>(frame, &self.link)?,
            18 => split_write::<18>(frame, &self.link)?,
            _ => split_write::<22>(frame, &self.link)?,
        };
        if self.v6 {
            let (h, tcp) = packet.split_first_chunk_mut::<40>()?;
            *h = self.ip;
            h[4..6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
            Some(tcp)
        } else {
            let (h, tcp) = packet.split_first_chunk_mut::<20>()?;
            let total_len = (tcp_len + 20) as u16;
            *h = *self.ip.first_chunk()?;
            h[2..4].copy_from_slice(&total_len.to_be_bytes());
            let sum = !checksum::fold(u64::from(self.ip_sum) + u64::from(total_len));
            h[10..12].copy_from_slice(&sum.to_be_bytes());
            Some(tcp)
        }
    }
}

/// Writes the last `N` bytes of `link` and returns what follows them.
#[inline(always)]
fn split_write<'f, const N: usize>(frame: &'f mut [u8], link: &[u8; L2_MAX]) -> Option<&'f mut [u8]> {
    let (l2, packet) = frame.split_first_chunk_mut::<N>()?;
    *l2 = *link.last_chunk()?;
    Some(packet)
}

/// The reset that answers a segment of no connection (RFC 9293 3.10.7.1); `None` for one that must not be answered: a
/// reset, or one sent to a group.
pub fn reset_for(segment: &Segment) -> Option<Outgoing<'static>> {
    if segment.flags.rst() || segment.group_dst {
        return None;
    }
    let (seq, ack, flags) = if segment.flags.ack() {
        (segment.ack, 0, Flags::RST)
    } else {
        (0, segment.seq.wrapping_add(segment.sequence_len()), Flags::RST | Flags::ACK)
    };
    Some(Outgoing { seq, ack, flags, window: 0, options: &[], payload_len: 0 })
}
