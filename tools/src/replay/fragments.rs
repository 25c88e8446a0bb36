//! IP packets that were sent in pieces (RFC 791 3.2, RFC 8200 4.5), put together again.
//!
//! Memory is bounded: packets that wait for more than [`WAITING_MAX`] others, or for a minute, are given up.

use etherparse::defrag::IpDefragBuf;
use etherparse::{IpFragOffset, IpNumber, Ipv6ExtensionSlice, LaxIpPayloadSlice, LaxNetSlice, LaxSlicedPacket};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Packets of which pieces are kept, 64 KiB each at most.
const WAITING_MAX: usize = 512;
/// How long a packet may take, nanoseconds: what RFC 8200 4.5 gives it.
const PATIENCE_NS: u64 = 60_000_000_000;
/// Pieces of one packet: 64 KiB in the smallest that a sane link makes.
const PIECES_MAX: u64 = 1024;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Which packet a fragment is of.
type Key = (IpAddr, IpAddr, u32, u8);

struct Waiting {
    buffer: IpDefragBuf,
    /// What the whole packet begins with.
    header: Vec<u8>,
    pieces: u64,
    since_ns: u64,
    /// Who sent it to whom, once its first fragment is here.
    ends: Option<(SocketAddr, SocketAddr)>,
}

/// What one fragment brought.
pub(super) enum Taken {
    /// More of them are missing.
    Waits,
    /// The packet is whole: from its IP header on, and how many fragments it came in.
    Whole(Vec<u8>, u64),
    /// It cannot be used, in a few words.
    Useless(&'static str),
}

/// Packets that never became whole: their fragments, by the flow if their first fragment was there.
pub(super) type GivenUp = Vec<(Option<(SocketAddr, SocketAddr)>, u64)>;

/// Packets that wait for the rest of them.
#[derive(Default)]
pub(super) struct Fragments {
    waiting: HashMap<Key, Waiting>,
    order: VecDeque<Key>,
    given_up: GivenUp,
}

struct Piece<'a> {
    key: Key,
    offset: IpFragOffset,
    more: bool,
    payload: &'a [u8],
    header: Vec<u8>,
}

fn piece(packet: &[u8]) -> Result<Piece<'_>, &'static str> {
    const SENSELESS: &str = "its fragment makes no sense";
    let sliced = LaxSlicedPacket::from_ip(packet).map_err(|_| SENSELESS)?;
    let (key, offset, more, header, payload): (Key, _, _, _, &LaxIpPayloadSlice<'_>) = match sliced.net.as_ref() {
        Some(LaxNetSlice::Ipv4(v4)) => {
            let header = v4.header();
            let id = u32::from(header.identification());
            let key = (header.source_addr().into(), header.destination_addr().into(), id, v4.payload().ip_number.0);
            // Options are left behind: nothing here looks at them.
            let mut kept = packet.get(..IPV4_HEADER).ok_or(SENSELESS)?.to_vec();
            kept[0] = 0x45;
            kept[6..8].fill(0);
            (key, header.fragments_offset(), header.more_fragments(), kept, v4.payload())
        }
        Some(LaxNetSlice::Ipv6(v6)) => {
            let fragment = v6.extensions().clone().into_iter().find_map(|header| match header {
                Ipv6ExtensionSlice::Fragment(fragment) => Some(fragment),
                _ => None,
            });
            let fragment = fragment.ok_or(SENSELESS)?;
            let (from, to) = (v6.header().source_addr().into(), v6.header().destination_addr().into());
            let key = (from, to, fragment.identification(), v6.payload().ip_number.0);
            let mut kept = packet.get(..IPV6_HEADER).ok_or(SENSELESS)?.to_vec();
            kept[6] = v6.payload().ip_number.0;
            (key, fragment.fragment_offset(), fragment.more_fragments(), kept, v6.payload())
        }
        _ => return Err(SENSELESS),
    };
    if payload.incomplete {
        return Err("its fragment is cut short");
    }
    Ok(Piece { key, offset, more, payload: payload.payload, header })
}

impl Fragments {
    /// Takes a packet that is known to be a fragment.
    pub(super) fn take(&mut self, at_ns: u64, packet: &[u8]) -> Taken {
        let piece = match piece(packet) {
            Ok(piece) => piece,
            Err(why) => return Taken::Useless(why),
        };
        if self.waiting.get(&piece.key).is_some_and(|waiting| at_ns.saturating_sub(waiting.since_ns) > PATIENCE_NS) {
            self.give_up(&piece.key);
        }
        if !self.waiting.contains_key(&piece.key) {
            self.make_room();
            self.order.push_back(piece.key);
        }
        let waiting = self.waiting.entry(piece.key).or_insert_with(|| Waiting {
            buffer: IpDefragBuf::new(IpNumber(piece.key.3), Vec::new(), Vec::new()),
            header: Vec::new(),
            pieces: 0,
            since_ns: at_ns,
            ends: None,
        });
        waiting.pieces += 1;
        if waiting.pieces > PIECES_MAX || waiting.buffer.add(piece.offset, piece.more, piece.payload).is_err() {
            self.give_up(&piece.key);
            return Taken::Waits;
        }
        if piece.offset.value() == 0 {
            waiting.header = piece.header;
            waiting.ends = ends(&piece.key, piece.payload);
        }
        if !waiting.buffer.is_complete() {
            return Taken::Waits;
        }
        self.order.retain(|key| *key != piece.key);
        let Some(whole) = self.waiting.remove(&piece.key) else { return Taken::Waits };
        match assemble(&whole) {
            Some(packet) => Taken::Whole(packet, whole.pieces),
            None => Taken::Useless("its fragments make a packet longer than there can be"),
        }
    }

    /// What is still not whole when the trace ends, and what was given up before.
    pub(super) fn left(mut self) -> GivenUp {
        while let Some(key) = self.order.front().copied() {
            self.give_up(&key);
        }
        self.given_up
    }

    fn make_room(&mut self) {
        while self.waiting.len() >= WAITING_MAX
            && let Some(key) = self.order.front().copied()
        {
            self.give_up(&key);
        }
    }

    fn give_up(&mut self, key: &Key) {
        self.order.retain(|other| other != key);
        let Some(waiting) = self.waiting.remove(key) else { return };
        // Of many that belong to the same flow only the sum counts: a trace cannot make this list long.
        let known = self.given_up.iter().position(|(ends, _)| *ends == waiting.ends);
        match known.or((self.given_up.len() >= WAITING_MAX).then_some(0)) {
            Some(index) => self.given_up[index].1 += waiting.pieces,
            None => self.given_up.push((waiting.ends, waiting.pieces)),
        }
    }
}

/// The ports at the front of a TCP segment (RFC 9293 3.1).
fn ends(key: &Key, payload: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let four: &[u8; 4] = payload.first_chunk()?;
    let (from, to) = (u16::from_be_bytes([four[0], four[1]]), u16::from_be_bytes([four[2], four[3]]));
    (key.3 == IpNumber::TCP.0).then(|| (SocketAddr::new(key.0, from), SocketAddr::new(key.1, to)))
}

/// The packet as it was before it was cut.
fn assemble(whole: &Waiting) -> Option<Vec<u8>> {
    let payload = whole.buffer.data();
    let mut packet = [&whole.header[..], payload].concat();
    if packet.first()? >> 4 == 4 {
        let total = u16::try_from(packet.len()).ok()?;
        packet.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
    } else {
        let len = u16::try_from(payload.len()).ok()?;
        packet.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
    }
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fragment of an IPv4 packet with `id`.
    fn v4(id: u16, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&(offset / 8 + if more { 0x2000 } else { 0 }).to_be_bytes());
        packet.extend(payload);
        packet
    }

    #[test]
    fn fragments_in_any_order_make_the_packet() {
        let mut fragments = Fragments::default();
        let text: Vec<u8> = (0..40).collect();
        assert!(matches!(fragments.take(1, &v4(7, 32, false, &text[32..])), Taken::Waits));
        assert!(matches!(fragments.take(2, &v4(7, 0, true, &text[..16])), Taken::Waits));
        let Taken::Whole(packet, 3) = fragments.take(3, &v4(7, 16, true, &text[16..32])) else { panic!("not whole") };
        assert_eq!((&packet[20..], packet[3], &packet[6..8]), (&text[..], 60, &[0, 0][..]));
        assert!(fragments.left().is_empty());
    }

    #[test]
    fn what_is_never_whole_is_counted_and_bounded() {
        let mut fragments = Fragments::default();
        for id in 0..2000 {
            assert!(matches!(fragments.take(1, &v4(id, 0, true, &[0, 80, 0, 81, 0, 0, 0, 0])), Taken::Waits));
            assert!(fragments.waiting.len() <= WAITING_MAX && fragments.order.len() == fragments.waiting.len());
        }
        let ends = Some(("192.0.2.1:80".parse().unwrap(), "192.0.2.2:81".parse().unwrap()));
        assert_eq!(fragments.left(), [(ends, 2000)]);
    }

    #[test]
    fn the_same_number_a_minute_later_is_another_packet() {
        let mut fragments = Fragments::default();
        fragments.take(1, &v4(7, 0, true, &[1; 8]));
        assert!(matches!(fragments.take(1 + PATIENCE_NS + 1, &v4(7, 8, false, &[2; 8])), Taken::Waits));
        assert_eq!(fragments.left().iter().map(|(_, pieces)| pieces).sum::<u64>(), 2);
    }

    #[test]
    fn more_than_64_kib_is_no_packet() {
        let mut fragments = Fragments::default();
        fragments.take(1, &v4(7, 0, true, &[0; 65_504]));
        // 65,504 + 31 bytes and a header are more than a length of 16 bits says.
        assert!(matches!(fragments.take(1, &v4(7, 65_504, false, &[0; 31])), Taken::Useless(_)));
        // An end in front of what is there already, and one that is cut.
        fragments.take(1, &v4(8, 8, false, &[0; 8]));
        assert!(matches!(fragments.take(1, &v4(8, 16, false, &[0; 8])), Taken::Waits));
        assert!(matches!(fragments.take(1, &v4(9, 0, true, &[0; 16])[..30]), Taken::Useless(_)));
        assert_eq!(fragments.left().iter().map(|(_, pieces)| pieces).sum::<u64>(), 2);
    }
}
