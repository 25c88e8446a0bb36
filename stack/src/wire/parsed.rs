//! What a frame is found to be.

use core::fmt;
use core::ops::BitOr;

use super::link::LinkView;
use crate::counters::Counters;
use crate::key::FlowKey;

/// The control bits of a TCP header (RFC 9293 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgement field counts.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer counts.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline(always)]
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// FIN.
    #[inline(always)]
    pub const fn fin(self) -> bool {
        self.intersects(Flags::FIN)
    }

    /// SYN.
    #[inline(always)]
    pub const fn syn(self) -> bool {
        self.intersects(Flags::SYN)
    }

    /// RST.
    #[inline(always)]
    pub const fn rst(self) -> bool {
        self.intersects(Flags::RST)
    }

    /// ACK.
    #[inline(always)]
    pub const fn ack(self) -> bool {
        self.intersects(Flags::ACK)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut separator = "";
        for (bit, name) in NAMES.iter().enumerate() {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        Ok(())
    }
}

/// Why a frame goes no further; each has its counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// `drop_malformed`.
    Malformed,
    /// `drop_not_ours`.
    NotOurs,
    /// `drop_other_address`.
    OtherAddress,
    /// `drop_ip_checksum`.
    IpChecksum,
    /// `drop_l4_checksum`.
    L4Checksum,
    /// `drop_fragment`: one that cannot belong to a packet of ours.
    Fragment,
    /// `drop_martian`.
    Martian,
}

impl DropReason {
    /// Moves the counter of this reason by one.
    pub fn count(self, counters: &mut Counters) {
        match self {
            DropReason::Malformed => counters.drop_malformed += 1,
            DropReason::NotOurs => counters.drop_not_ours += 1,
            DropReason::OtherAddress => counters.drop_other_address += 1,
            DropReason::IpChecksum => counters.drop_ip_checksum += 1,
            DropReason::L4Checksum => counters.drop_l4_checksum += 1,
            DropReason::Fragment => counters.drop_fragment += 1,
            DropReason::Martian => counters.drop_martian += 1,
        }
    }
}

/// What a frame is, as far as it can be told without knowing who we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The link layer.
    pub link: LinkView,
    /// The rest.
    pub kind: Kind,
}

impl Default for Parsed {
    /// What an empty frame parses to.
    fn default() -> Parsed {
        Parsed { link: LinkView::default(), kind: Kind::Drop(DropReason::Malformed) }
    }
}

/// What lies behind the link layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A TCP segment with sound headers; its checksum has not been looked at ([`verify_tcp`](super::checksum::verify_tcp)).
    Tcp(Segment),
    /// An ICMP message; its checksum has not been looked at.
    Icmp4(Datagram),
    /// An ICMPv6 message; its checksum has not been looked at. Its source may be unspecified (RFC 4861 4.3).
    Icmp6(Datagram),
    /// An ARP packet.
    Arp,
    /// A part of an IP packet.
    Fragment(Fragment),
    /// An IPv6 packet that goes no further, and whose sender may be told why.
    Problem(Problem),
    /// Nothing that goes any further.
    Drop(DropReason),
}

/// A TCP segment inside a frame. Offsets count bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The flow, `peer` being the source.
    pub key: FlowKey,
    /// Where the IP header starts.
    pub ip_at: u16,
    /// Where the TCP header starts.
    pub tcp_at: u16,
    /// Where the payload starts.
    pub payload_at: u16,
    /// Where the IP packet ends, Ethernet padding excluded. Wider than the others: a super-frame ends behind 65,535.
    pub end: u32,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; means nothing without the ACK flag.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header, unscaled.
    pub window: u16,
    /// Sent to a broadcast or multicast address, on the link or in the IP header: never to be answered.
    pub group_dst: bool,
    /// Neither IPv4 options nor IPv6 extension headers: smoltcp can take `frame[ip_at..end]` as it lies.
    pub plain: bool,
    /// A router marked it: Congestion Experienced (RFC 3168 5).
    pub congested: bool,
}

impl Segment {
    /// Bytes of payload.
    #[inline(always)]
    pub fn payload_len(&self) -> usize {
        (self.end - u32::from(self.payload_at)) as usize
    }

    /// Sequence numbers that the segment takes: payload, SYN and FIN (RFC 9293 3.4, SEG.LEN).
    #[inline(always)]
    pub fn sequence_len(&self) -> u32 {
        self.payload_len() as u32 + u32::from(self.flags.syn()) + u32::from(self.flags.fin())
    }

    /// The IP packet in the frame it was parsed from.
    #[inline]
    pub fn packet<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.ip_at)..self.end as usize).unwrap_or(&[])
    }

    /// The TCP header, options included, in the frame it was parsed from.
    #[inline]
    pub fn header<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.tcp_at)..usize::from(self.payload_at)).unwrap_or(&[])
    }

    /// The payload in the frame it was parsed from.
    #[inline]
    pub fn payload<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.payload_at)..self.end as usize).unwrap_or(&[])
    }
}

/// A part of an IP packet (RFC 791 2.3, RFC 8200 4.5), as far as it can be judged alone: it is not empty, nothing of it lies
/// behind 65,535, all but the last are multiples of 8 bytes long, and the first holds the headers. Offsets count bytes
/// from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// The source address, IPv4-mapped.
    pub peer: [u8; 16],
    /// The destination address, IPv4-mapped.
    pub local: [u8; 16],
    /// What the parts of one packet have in common, beside the addresses.
    pub id: u32,
    /// IPv4: what is in the packet, which is the same in all its parts. IPv6: the header that follows; of the first part it
    /// counts.
    pub protocol: u8,
    /// Where in the packet, behind its IP header, the part belongs, bytes.
    pub offset: u16,
    /// Others follow.
    pub more: bool,
    /// Explicit congestion notification (RFC 3168 5): two bits.
    pub ecn: u8,
    /// Time to live or hop limit as received.
    pub hop_limit: u8,
    /// Sent to a broadcast or multicast address, on the link or in the IP header.
    pub group_dst: bool,
    /// Where the part starts.
    pub at: u16,
    /// Where it ends, Ethernet padding excluded.
    pub end: u32,
}

impl Fragment {
    /// The part, in the frame it was parsed from.
    #[inline]
    pub fn bytes<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.at)..self.end as usize).unwrap_or(&[])
    }
}

/// What is wrong with an IPv6 packet (RFC 4443 3.4). Offsets count bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The source address.
    pub peer: [u8; 16],
    /// The destination address.
    pub local: [u8; 16],
    /// Where the IP header starts.
    pub ip_at: u16,
    /// Where the IP packet ends.
    pub end: u32,
    /// Code of the parameter problem.
    pub code: u8,
    /// Where the trouble is, bytes from the start of the IP header.
    pub pointer: u16,
    /// Nobody is told: it was sent to a group, or is an error itself.
    pub silent: bool,
    /// How it is counted.
    pub reason: DropReason,
}

/// An ICMP or ICMPv6 message inside a frame. Offsets count bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// The source address, IPv4-mapped.
    pub peer: [u8; 16],
    /// The destination address, IPv4-mapped.
    pub local: [u8; 16],
    /// Where the IP header starts.
    pub ip_at: u16,
    /// Where the message starts.
    pub at: u16,
    /// Where the IP packet ends, Ethernet padding excluded.
    pub end: u32,
    /// Time to live or hop limit as received.
    pub hop_limit: u8,
    /// Sent to a broadcast or multicast address, on the link or in the IP header.
    pub group_dst: bool,
    /// Neither IPv4 options nor IPv6 extension headers.
    pub plain: bool,
}

impl Datagram {
    /// The message in the frame it was parsed from.
    #[inline]
    pub fn message<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(usize::from(self.at)..self.end as usize).unwrap_or(&[])
    }
}
