//! Neighbour discovery (RFC 4861) and the door to ICMPv6.

use super::Responder;
use crate::counters::Counters;
use crate::time::Instant;
use crate::wire::parsed::{Datagram, DropReason};
use crate::wire::{ETHERTYPE_IPV6, LinkHeader, LinkView, PROTO_ICMP6, VlanTags, checksum, ip};

const ECHO_REQUEST: u8 = 128;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Option: source link-layer address.
const SOURCE_MAC: u8 = 1;
/// Option: target link-layer address.
const TARGET_MAC: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Neighbour discovery comes from this link or not at all (RFC 4861 7.1).
const HOP_LIMIT: u8 = 255;
/// Type, code, checksum, flags, target.
const FIXED_LEN: usize = 24;
const LEN: usize = FIXED_LEN + 8;

const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// The group in which an address is asked for (RFC 4291 2.7.1).
fn solicited_node(a: &[u8; 16]) -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a[13], a[14], a[15]]
}

/// The MAC of a multicast group (RFC 2464 7).
fn group_mac(group: &[u8; 16]) -> [u8; 6] {
    [0x33, 0x33, group[12], group[13], group[14], group[15]]
}

/// A message to be sent; `mac` goes into its only option.
struct Message<'a> {
    kind: u8,
    flags: u8,
    target: &'a [u8; 16],
    option: u8,
    mac: [u8; 6],
}

impl Message<'_> {
    fn write(&self, link: &LinkHeader, src: &[u8; 16], dst: &[u8; 16], frame: &mut [u8]) -> Option<usize> {
        let at = link.write(frame, ETHERTYPE_IPV6)?;
        let (h, rest) = frame.get_mut(at..)?.split_first_chunk_mut::<40>()?;
        *h = ip::v6_header(src, dst, PROTO_ICMP6, HOP_LIMIT, LEN);
        let m = rest.first_chunk_mut::<LEN>()?;
        m.fill(0);
        m[0] = self.kind;
        m[4] = self.flags;
        m[8..24].copy_from_slice(self.target);
        m[24] = self.option;
        m[25] = 1;
        m[26..32].copy_from_slice(&self.mac);
        let sum = u64::from(checksum::icmp6_pseudo(src, dst, LEN)) + u64::from(checksum::data(m));
        m[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        Some(at + 40 + LEN)
    }
}

/// Asks the link for `target`.
pub(super) fn solicit(
    mac: [u8; 6],
    own: &[u8; 16],
    target: &[u8; 16],
    frame: &mut [u8],
    counters: &mut Counters,
) -> Option<usize> {
    let group = solicited_node(target);
    let link = LinkHeader { dst: group_mac(&group), src: mac, vlan: VlanTags::NONE };
    let message = Message { kind: SOLICITATION, flags: 0, target, option: SOURCE_MAC, mac };
    let len = message.write(&link, own, &group, frame)?;
    counters.nd_requests += 1;
    Some(len)
}

/// Tells the link that `own` is at `mac` (RFC 4861 7.2.6).
pub(super) fn announce(mac: [u8; 6], own: &[u8; 16], frame: &mut [u8], counters: &mut Counters) -> Option<usize> {
    let link = LinkHeader { dst: group_mac(&ALL_NODES), src: mac, vlan: VlanTags::NONE };
    let message = Message { kind: ADVERTISEMENT, flags: OVERRIDE, target: own, option: TARGET_MAC, mac };
    let len = message.write(&link, own, &ALL_NODES, frame)?;
    counters.nd_requests += 1;
    Some(len)
}

/// A received solicitation or advertisement.
struct Received {
    flags: u8,
    target: [u8; 16],
    /// The MAC in the option that goes with its kind.
    mac: Option<[u8; 6]>,
}

impl Received {
    /// RFC 4861 7.1.1 and 7.1.2, as far as they are the same for both; and no fragment header, nor any other in front
    /// (RFC 6980 5).
    fn parse(message: &[u8], datagram: &Datagram, option: u8) -> Option<Received> {
        let h = message.first_chunk::<FIXED_LEN>()?;
        let mut target = [0; 16];
        target.copy_from_slice(&h[8..24]);
        if datagram.hop_limit != HOP_LIMIT || h[1] != 0 || target[0] == 0xff || !datagram.plain {
            return None;
        }
        let mut mac = None;
        let mut rest = &message[FIXED_LEN..];
        while let [kind, len, ..] = *rest {
            // A length of 0 would not get on, and makes the packet invalid.
            let (body, tail) = rest.split_at_checked(usize::from(len) * 8).filter(|_| len != 0)?;
            if kind == option && mac.is_none() {
                mac = body[2..].first_chunk::<6>().copied();
            }
            rest = tail;
        }
        rest.is_empty().then_some(Received { flags: h[4], target, mac })
    }
}

impl Responder {
    pub(super) fn answer_icmp6(
        &mut self,
        now: Instant,
        frame: &[u8],
        link: &LinkView,
        datagram: &Datagram,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Result<Option<usize>, DropReason> {
        if !checksum::verify_icmp(frame, datagram) {
            return Err(DropReason::L4Checksum);
        }
        let message = datagram.message(frame);
        match (message.first().copied(), message.get(1).copied()) {
            (Some(SOLICITATION), _) => self.answer_solicitation(now, message, link, datagram, reply, counters),
            (Some(ADVERTISEMENT), _) => self.hear_advertisement(now, message, link, datagram),
            _ if datagram.peer == [0; 16] => Err(DropReason::Martian),
            (Some(ECHO_REQUEST), Some(0)) if message.len() >= 8 => {
                self.answer_echo6(now, frame, link, datagram, reply, counters)
            }
            _ => Err(DropReason::NotOurs),
        }
    }

    fn answer_solicitation(
        &mut self,
        now: Instant,
        message: &[u8],
        link: &LinkView,
        datagram: &Datagram,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Result<Option<usize>, DropReason> {
        let asked = Received::parse(message, datagram, SOURCE_MAC).ok_or(DropReason::Malformed)?;
        let target = &asked.target;
        let group = solicited_node(target);
        let probe = datagram.peer == [0; 16];
        if probe && (asked.mac.is_some() || datagram.local != group) {
            return Err(DropReason::Malformed);
        }
        let own_group = datagram.local == group;
        if !self.is_local(target) || !(own_group || datagram.local == *target) {
            return Err(DropReason::OtherAddress);
        }
        let asker = asked.mac.unwrap_or(link.src);
        if asker[0] & 1 != 0 || asker == self.mac || self.is_local(&datagram.peer) {
            return Err(DropReason::Martian);
        }
        self.learn(now, u128::from_be_bytes(datagram.peer), asker, false);
        let (dst, dst_mac, flags) = if probe {
            (ALL_NODES, group_mac(&ALL_NODES), OVERRIDE)
        } else {
            (datagram.peer, asker, OVERRIDE | SOLICITED)
        };
        let header = LinkHeader { dst: dst_mac, ..self.header_for(link) };
        let answer = Message { kind: ADVERTISEMENT, flags, target, option: TARGET_MAC, mac: self.mac };
        let len = answer.write(&header, target, &dst, reply);
        counters.nd_replies += u64::from(len.is_some());
        Ok(len)
    }

    fn hear_advertisement(
        &mut self,
        now: Instant,
        message: &[u8],
        link: &LinkView,
        datagram: &Datagram,
    ) -> Result<Option<usize>, DropReason> {
        let heard = Received::parse(message, datagram, TARGET_MAC).ok_or(DropReason::Malformed)?;
        let mac = heard.mac.unwrap_or(link.src);
        if mac[0] & 1 != 0 || mac == self.mac || self.is_local(&heard.target) {
            return Err(DropReason::Martian);
        }
        let solicited = heard.flags & SOLICITED != 0 && self.is_local(&datagram.local);
        match self.learn(now, u128::from_be_bytes(heard.target), mac, solicited) {
            true => Ok(None),
            false => Err(DropReason::OtherAddress),
        }
    }
}
