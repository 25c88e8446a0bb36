//! Ethernet II headers with up to two VLAN tags (IEEE 802.1Q, an outer 802.1ad).

use super::{ETHERTYPE_QINQ, ETHERTYPE_VLAN, be16};

/// The VLAN tags of a frame as they stand on the wire, outermost first. A priority tag (VID 0) is a tag like any other:
/// it is kept and mirrored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VlanTags {
    raw: [u8; 8],
    len: u8,
}

impl VlanTags {
    /// No tag.
    pub const NONE: VlanTags = VlanTags { raw: [0; 8], len: 0 };

    /// One 802.1Q tag: VLAN `vid` (12 bits; 0 is a mere priority tag), priority code point `pcp` (3 bits).
    pub fn dot1q(vid: u16, pcp: u8) -> VlanTags {
        let mut raw = [0; 8];
        raw[..2].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
        raw[2..4].copy_from_slice(&tci(vid, pcp).to_be_bytes());
        VlanTags { raw, len: 4 }
    }

    /// One 802.1Q tag with this control information: priority, drop eligibility, VLAN.
    pub fn of_tci(tci: u16) -> VlanTags {
        let mut tags = VlanTags::dot1q(0, 0);
        tags.raw[2..4].copy_from_slice(&tci.to_be_bytes());
        tags
    }

    /// The same tags inside an outer 802.1ad tag; `self` must hold one tag at most, or the inner one is lost.
    pub fn inside(self, outer_vid: u16, pcp: u8) -> VlanTags {
        let mut raw = [0; 8];
        raw[..2].copy_from_slice(&ETHERTYPE_QINQ.to_be_bytes());
        raw[2..4].copy_from_slice(&tci(outer_vid, pcp).to_be_bytes());
        raw[4..].copy_from_slice(&self.raw[..4]);
        VlanTags { raw, len: if self.len == 0 { 4 } else { 8 } }
    }

    /// The tags as they stand between source MAC and EtherType: 0, 4 or 8 bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self.len {
            0 => &[],
            4 => &self.raw[..4],
            _ => &self.raw,
        }
    }

    /// The innermost tag's VLAN identifier; `None` without a tag, `Some(0)` for a priority tag.
    pub fn vid(&self) -> Option<u16> {
        let bytes = self.bytes();
        (bytes.len() >= 4).then(|| be16(bytes, bytes.len() - 2) & 0x0fff)
    }
}

fn tci(vid: u16, pcp: u8) -> u16 {
    (vid & 0x0fff) | (u16::from(pcp & 7) << 13)
}

/// The link layer of a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkView {
    /// Destination MAC.
    pub dst: [u8; 6],
    /// Source MAC.
    pub src: [u8; 6],
    /// VLAN tags.
    pub vlan: VlanTags,
    /// Bytes in front of the network layer: 14, 18 or 22; 0 for a frame of less than 14 bytes.
    pub l2_len: u8,
}

impl LinkView {
    /// Whether the frame was sent to a multicast address or to everybody.
    #[inline]
    pub fn group_dst(&self) -> bool {
        self.dst[0] & 1 != 0
    }
}

/// The link layer of a frame to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkHeader {
    /// Destination MAC.
    pub dst: [u8; 6],
    /// Source MAC.
    pub src: [u8; 6],
    /// VLAN tags.
    pub vlan: VlanTags,
}

impl LinkHeader {
    /// The header that answers `link`: back to where it came from, from `mac`, with the same tags.
    pub fn answering(link: &LinkView, mac: [u8; 6]) -> LinkHeader {
        LinkHeader { dst: link.src, src: mac, vlan: link.vlan }
    }

    /// Bytes that [`write`](Self::write) writes: 14, 18 or 22.
    pub fn l2_len(&self) -> usize {
        14 + self.vlan.bytes().len()
    }

    /// Writes the header and returns its length; `None` if `frame` is too short.
    pub fn write(&self, frame: &mut [u8], ethertype: u16) -> Option<usize> {
        let frame = frame.get_mut(..self.l2_len())?;
        let tags = self.vlan.bytes();
        frame[..6].copy_from_slice(&self.dst);
        frame[6..12].copy_from_slice(&self.src);
        frame[12..12 + tags.len()].copy_from_slice(tags);
        frame[12 + tags.len()..].copy_from_slice(&ethertype.to_be_bytes());
        Some(frame.len())
    }
}

/// Reads an Ethernet header into `link` and returns its EtherType, which may be that of a tag; `None` if the frame ends
/// inside. Values below 0x0600 are 802.3 lengths.
#[inline(always)]
pub(super) fn parse(frame: &[u8], link: &mut LinkView) -> Option<u16> {
    let h = frame.first_chunk::<14>()?;
    link.dst = *h.first_chunk()?;
    link.src = *h[6..].first_chunk()?;
    link.l2_len = 14;
    Some(be16(h, 12))
}

/// Reads the tags of a frame whose EtherType is that of a tag, and returns the EtherType behind them.
pub(super) fn parse_tags(frame: &[u8], link: &mut LinkView) -> Option<u16> {
    let h = frame.first_chunk::<18>()?;
    link.vlan.raw[..4].copy_from_slice(&h[12..16]);
    link.vlan.len = 4;
    link.l2_len = 18;
    let inner = be16(h, 16);
    if be16(h, 12) == ETHERTYPE_QINQ && inner == ETHERTYPE_VLAN {
        let h = frame.first_chunk::<22>()?;
        link.vlan.raw[4..].copy_from_slice(&h[16..20]);
        link.vlan.len = 8;
        link.l2_len = 22;
        return Some(be16(h, 20));
    }
    Some(inner)
}
