//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use super::{BROADCAST, Responder, bits};
use crate::counters::Counters;
use crate::time::Instant;
use crate::wire::parsed::DropReason;
use crate::wire::{ETHERTYPE_ARP, LinkHeader, LinkView, VlanTags, be16};

/// Ethernet, IPv4, and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const LEN: usize = 28;

struct Packet {
    operation: u16,
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
}

impl Packet {
    fn parse(bytes: &[u8]) -> Option<Packet> {
        let b = bytes.first_chunk::<LEN>()?;
        (b[..6] == ETHERNET_IPV4).then_some(Packet {
            operation: be16(b, 6),
            sender_mac: [b[8], b[9], b[10], b[11], b[12], b[13]],
            sender: [b[14], b[15], b[16], b[17]],
            target_mac: [b[18], b[19], b[20], b[21], b[22], b[23]],
            target: [b[24], b[25], b[26], b[27]],
        })
    }

    fn write(&self, link: &LinkHeader, frame: &mut [u8]) -> Option<usize> {
        let at = link.write(frame, ETHERTYPE_ARP)?;
        let b = frame.get_mut(at..at + LEN)?;
        b[..6].copy_from_slice(&ETHERNET_IPV4);
        b[6..8].copy_from_slice(&self.operation.to_be_bytes());
        b[8..14].copy_from_slice(&self.sender_mac);
        b[14..18].copy_from_slice(&self.sender);
        b[18..24].copy_from_slice(&self.target_mac);
        b[24..28].copy_from_slice(&self.target);
        Some(at + LEN)
    }
}

/// Asks everybody on the link for `target`; with `own` as the target this announces it.
pub(super) fn request(
    mac: [u8; 6],
    own: [u8; 4],
    target: [u8; 4],
    frame: &mut [u8],
    counters: &mut Counters,
) -> Option<usize> {
    let link = LinkHeader { dst: BROADCAST, src: mac, vlan: VlanTags::NONE };
    let len =
        Packet { operation: REQUEST, sender_mac: mac, sender: own, target_mac: [0; 6], target }.write(&link, frame)?;
    counters.arp_requests += 1;
    Some(len)
}

impl Responder {
    pub(super) fn answer_arp(
        &mut self,
        now: Instant,
        frame: &[u8],
        link: &LinkView,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Result<Option<usize>, DropReason> {
        let packet = frame.get(usize::from(link.l2_len)..).and_then(Packet::parse).ok_or(DropReason::Malformed)?;
        if packet.sender_mac[0] & 1 != 0 || packet.sender_mac == self.mac {
            return Err(DropReason::Martian);
        }
        let sender = bits(packet.sender.into());
        if self.own.contains(&sender) {
            return Err(DropReason::Martian);
        }
        let solicited = packet.operation == REPLY && packet.target_mac == self.mac;
        let learnt = self.learn(now, sender, packet.sender_mac, solicited);
        match packet.operation {
            REPLY if learnt => Ok(None),
            REQUEST if self.own.contains(&bits(packet.target.into())) => {
                // To the sender that the packet names, as Linux does: that is who asks, whoever carried it here.
                let link = LinkHeader { dst: packet.sender_mac, ..self.header_for(link) };
                let answer = Packet {
                    operation: REPLY,
                    sender_mac: self.mac,
                    sender: packet.target,
                    target_mac: packet.sender_mac,
                    target: packet.sender,
                };
                let len = answer.write(&link, reply);
                counters.arp_replies += u64::from(len.is_some());
                Ok(len)
            }
            _ => Err(DropReason::OtherAddress),
        }
    }
}
