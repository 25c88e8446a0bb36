//! What is answered below TCP: ARP (RFC 826, RFC 5227), neighbour discovery (RFC 4861), ping (RFC 1122 3.2.2.6,
//! RFC 4443 4.2); and who we are: own addresses, and the gateways that lead off the link.

mod arp;
mod bucket;
mod complaint;
mod echo;
mod gateway;
mod neighbour;

use core::net::IpAddr;

use self::bucket::Bucket;
use self::gateway::Gateway;
use super::parsed::{DropReason, Fragment, Kind, Parsed, Segment};
use super::{LinkHeader, LinkView, ip};
use crate::counters::Counters;
use crate::time::Instant;

/// Announcements of each own address at start (RFC 5227 2.3).
const ANNOUNCEMENTS: u8 = 2;
/// Between two announcements of the same address, microseconds (RFC 5227 would have two seconds).
const ANNOUNCE_INTERVAL_US: u64 = 1_000_000;
/// With so many own addresses or fewer a plain scan is faster than a binary search.
const SCAN_MAX: usize = 8;
/// To everybody on the link.
const BROADCAST: [u8; 6] = [0xff; 6];

/// Whose addresses they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// These addresses, each with the length of its on-link prefix in bits, are ours alone.
    Own(Vec<(IpAddr, u8)>),
    /// The kernel's addresses: it sends us nothing but TCP and answers everything else itself.
    Shared,
}

/// What a [`Responder`] is told at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResponderConfig {
    /// Our MAC address on this link.
    pub mac: [u8; 6],
    /// Our IP addresses.
    pub addresses: Addresses,
    /// Routers on the link, in order of preference; those of a family that we have no address of are left out.
    pub gateways: Vec<IpAddr>,
    /// Pings answered in a second, both families together; as many may come at once after a quiet second.
    pub echo_limit_per_s: u32,
}

/// Answers what is not TCP, announces our addresses, and knows the gateways' MACs.
#[derive(Clone, Debug)]
pub struct Responder {
    mac: [u8; 6],
    shared: bool,
    /// Own addresses, IPv4-mapped, as big-endian numbers in ascending order.
    own: Vec<u128>,
    /// On-link prefixes: network and mask, without duplicates.
    prefixes: Vec<(u128, u128)>,
    gateways: Vec<Gateway>,
    echo: Bucket,
    errors: Bucket,
    announce: Announce,
    /// When [`poll`](Self::poll) has something to do at the earliest.
    due: Instant,
}

/// How far the announcements have got.
#[derive(Clone, Copy, Debug)]
struct Announce {
    rounds_left: u8,
    next: usize,
    due: Instant,
}

impl Responder {
    /// A responder that has announced nothing yet: call [`poll`](Self::poll) at once.
    pub fn new(config: ResponderConfig) -> Responder {
        let (list, shared) = match config.addresses {
            Addresses::Own(list) => (list, false),
            Addresses::Shared => (Vec::new(), true),
        };
        let mut own: Vec<u128> = list.iter().map(|(a, _)| bits(*a)).collect();
        own.sort_unstable();
        own.dedup();
        let mut prefixes: Vec<(u128, u128)> = list.iter().map(|&(a, len)| prefix(a, len)).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut responder = Responder {
            mac: config.mac,
            shared,
            own,
            prefixes,
            gateways: Vec::new(),
            echo: Bucket::new(config.echo_limit_per_s),
            errors: Bucket::new(crate::limits::ICMP_ERRORS_PER_S),
            announce: Announce { rounds_left: ANNOUNCEMENTS, next: 0, due: Instant::ZERO },
            due: Instant::ZERO,
        };
        if !shared {
            responder.gateways = config
                .gateways
                .iter()
                .filter_map(|g| Some(Gateway::new(bits(*g), responder.source_for(bits(*g))?)))
                .collect();
        }
        responder.reschedule();
        responder
    }

    /// The same, but each own address is announced once: enough for addresses that live as long as a test, and are many.
    #[must_use]
    pub fn announcing_once(mut self) -> Responder {
        self.announce.rounds_left = 1;
        self
    }

    /// Our MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Whether `addr` (IPv4-mapped, wire order) is ours. With shared addresses, where the kernel knows: whether it is
    /// a unicast address at all.
    #[inline]
    pub fn is_local(&self, addr: &[u8; 16]) -> bool {
        let bits = u128::from_be_bytes(*addr);
        if self.shared {
            return match ip::unmapped(addr) {
                Some(v4) => !matches!(v4[0], 0 | 127 | 224..),
                None => bits > 1 && addr[0] != 0xff,
            };
        }
        if self.own.len() <= SCAN_MAX { self.own.contains(&bits) } else { self.own.binary_search(&bits).is_ok() }
    }

    /// Whether a segment is for us and from somebody else.
    ///
    /// # Errors
    /// Why it is to be dropped: another MAC or address than ours, a group, or our own address as its source.
    #[inline]
    pub fn admit(&self, link: &LinkView, segment: &Segment) -> Result<(), DropReason> {
        if segment.group_dst || link.dst != self.mac || !self.is_local(&segment.key.local) {
            return Err(DropReason::OtherAddress);
        }
        if !self.shared && self.is_local(&segment.key.peer) {
            return Err(DropReason::Martian);
        }
        Ok(())
    }

    /// Whether `addr` means all hosts of an IPv4 prefix of ours (RFC 919; all zeros is the older form, RFC 1122 3.3.6): an
    /// answer to it would reach everybody. A prefix of two addresses has none (RFC 3021).
    pub fn is_broadcast(&self, addr: &[u8; 16]) -> bool {
        let addr = u128::from_be_bytes(*addr);
        let hosts = |mask: u128| !mask;
        let mut of_link = self.prefixes.iter().filter(|(network, mask)| addr & mask == *network && is_v4(addr));
        of_link.any(|(_, mask)| hosts(*mask) > 1 && (addr & hosts(*mask) == 0 || addr & hosts(*mask) == hosts(*mask)))
    }

    /// Whether a frame for `local` that is not TCP is for us.
    ///
    /// # Errors
    /// Why it is to be dropped: another MAC or address than ours.
    pub fn admit_to(&self, link: &LinkView, local: &[u8; 16]) -> Result<(), DropReason> {
        if link.dst != self.mac || !self.is_local(local) { Err(DropReason::OtherAddress) } else { Ok(()) }
    }

    /// Whether a part of a packet is for us and from somebody else. On shared addresses the kernel keeps them.
    ///
    /// # Errors
    /// Why it is to be dropped.
    pub fn admit_part(&self, link: &LinkView, part: &Fragment) -> Result<(), DropReason> {
        if self.shared {
            return Err(DropReason::NotOurs);
        }
        self.admit_to(link, &part.local)?;
        if part.group_dst || self.is_local(&part.peer) { Err(DropReason::Martian) } else { Ok(()) }
    }

    /// Deals with every frame that is not TCP: writes the answer into `reply`, whose length is the room for it, and
    /// returns the length of the frame to send; or counts why there is none. TCP is left alone: `None`, nothing
    /// counted.
    pub fn answer(
        &mut self,
        now: Instant,
        frame: &[u8],
        parsed: &Parsed,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Option<usize> {
        let link = &parsed.link;
        let result = match parsed.kind {
            Kind::Tcp(_) | Kind::Fragment(_) => return None,
            Kind::Drop(reason) => Err(reason),
            _ if self.shared => Err(DropReason::NotOurs),
            _ if !link.group_dst() && link.dst != self.mac => Err(DropReason::OtherAddress),
            Kind::Arp => self.answer_arp(now, frame, link, reply, counters),
            Kind::Icmp4(ref datagram) => self.answer_echo4(now, frame, link, datagram, reply, counters),
            Kind::Problem(ref problem) => self.tell_problem(now, frame, link, problem, reply, counters),
            Kind::Icmp6(ref datagram) => self.answer_icmp6(now, frame, link, datagram, reply, counters),
        };
        result.unwrap_or_else(|reason| {
            reason.count(counters);
            None
        })
    }

    /// Writes the next frame that we send of our own accord into `reply` and returns its length; `None` when nothing
    /// (more) is due. Call until then, at [`deadline`](Self::deadline).
    pub fn poll(&mut self, now: Instant, reply: &mut [u8], counters: &mut Counters) -> Option<usize> {
        while now >= self.due {
            let sent = self.emit(now, reply, counters);
            self.reschedule();
            if sent.is_some() {
                return sent;
            }
        }
        None
    }

    /// When to call [`poll`](Self::poll) at the latest; `None`: never again. May change with every call of `answer`
    /// and `poll`.
    pub fn deadline(&self) -> Option<Instant> {
        (self.due < Instant::FAR_FUTURE).then_some(self.due)
    }

    /// The MAC to send a flow's segments to whose peer was last seen at `seen_mac`: that one, unless the peer is off
    /// the link and a gateway of its family has answered; then the gateway's.
    #[inline]
    pub fn route(&self, peer: &[u8; 16], seen_mac: [u8; 6]) -> [u8; 6] {
        if self.gateways.is_empty() || self.on_link(u128::from_be_bytes(*peer)) {
            return seen_mac;
        }
        let v4 = ip::unmapped(peer).is_some();
        self.gateways.iter().filter(|g| g.is_v4() == v4).find_map(|g| g.mac).unwrap_or(seen_mac)
    }

    fn on_link(&self, addr: u128) -> bool {
        self.prefixes.iter().any(|(network, mask)| addr & mask == *network) || addr >> 118 == LINK_LOCAL
    }

    /// Which of our addresses to ask for `target` from: one on its link, or else any of its family.
    fn source_for(&self, target: u128) -> Option<u128> {
        let family = |own: &&u128| is_v4(**own) == is_v4(target);
        let near = |own: &&u128| {
            self.prefixes.iter().any(|(network, mask)| **own & mask == *network && target & mask == *network)
                || (**own >> 118 == LINK_LOCAL && target >> 118 == LINK_LOCAL)
        };
        self.own.iter().filter(family).find(near).or_else(|| self.own.iter().find(family)).copied()
    }

    fn emit(&mut self, now: Instant, reply: &mut [u8], counters: &mut Counters) -> Option<usize> {
        if now >= self.announce.due {
            return self.emit_announcement(now, reply, counters);
        }
        let nth = self.gateways.iter().position(|g| now >= g.due)?;
        self.gateways[nth].asked(now);
        let gateway = &self.gateways[nth];
        if let (Some(own), Some(target)) = (v4(gateway.source), v4(gateway.ip)) {
            arp::request(self.mac, own, target, reply, counters)
        } else {
            neighbour::solicit(self.mac, &gateway.source.to_be_bytes(), &gateway.ip.to_be_bytes(), reply, counters)
        }
    }

    fn emit_announcement(&mut self, now: Instant, reply: &mut [u8], counters: &mut Counters) -> Option<usize> {
        let announce = &mut self.announce;
        let Some(&own) = self.own.get(announce.next) else {
            announce.rounds_left = announce.rounds_left.saturating_sub(1);
            announce.next = 0;
            announce.due = match announce.rounds_left {
                0 => Instant::FAR_FUTURE,
                _ => now.plus_micros(ANNOUNCE_INTERVAL_US),
            };
            return None;
        };
        announce.next += 1;
        match v4(own) {
            Some(own) => arp::request(self.mac, own, own, reply, counters),
            None => neighbour::announce(self.mac, &own.to_be_bytes(), reply, counters),
        }
    }

    fn reschedule(&mut self) {
        if self.own.is_empty() {
            self.announce.due = Instant::FAR_FUTURE;
        }
        self.due = self.gateways.iter().map(|g| g.due).fold(self.announce.due, Instant::min);
    }

    /// `ip` says, in answer to a question or unasked, that it is at `mac`.
    fn learn(&mut self, now: Instant, ip: u128, mac: [u8; 6], solicited: bool) -> bool {
        let Some(gateway) = self.gateways.iter_mut().find(|g| g.ip == ip) else { return false };
        let taken = gateway.heard(now, mac, solicited);
        self.reschedule();
        taken
    }

    fn header_for(&self, link: &LinkView) -> LinkHeader {
        LinkHeader::answering(link, self.mac)
    }
}

/// fe80::/10, which is on every link.
const LINK_LOCAL: u128 = 0xfe80 >> 6;

/// An address, IPv4-mapped, as a big-endian number.
fn bits(address: IpAddr) -> u128 {
    u128::from_be_bytes(match address {
        IpAddr::V4(a) => ip::mapped(a.octets()),
        IpAddr::V6(a) => a.octets(),
    })
}

fn is_v4(address: u128) -> bool {
    address >> 32 == 0xffff
}

fn v4(address: u128) -> Option<[u8; 4]> {
    ip::unmapped(&address.to_be_bytes())
}

fn prefix(address: IpAddr, len: u8) -> (u128, u128) {
    let len = match address {
        IpAddr::V4(_) => 96 + u32::from(len.min(32)),
        IpAddr::V6(_) => u32::from(len.min(128)),
    };
    let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
    (bits(address) & mask, mask)
}
