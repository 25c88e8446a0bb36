//! What peers do that no honest stack does, knowing the true state.

use super::Session;
use crate::packet::{self, Seg};
use crate::puppet::{salt_of, stream};
use crate::source::Source;
use khamsin_stack::wire::Flags;
use khamsin_stack::{Frame, RxChecksum};

/// Windows that somebody might offer.
const WINDOWS: [u16; 6] = [0, 1, 8, 500, 32_768, 65_535];

impl Session {
    /// A segment near the true state, in every field.
    pub(super) fn attack(&mut self, i: usize, source: &mut impl Source) {
        let kind = source.byte();
        let flags = match kind & 15 {
            0..=5 => Flags::ACK | Flags::PSH,
            6 | 7 => Flags::ACK | Flags::FIN,
            8 | 9 => Flags::ACK,
            10 => Flags::RST,
            11 => Flags::SYN,
            12 => Flags::RST | Flags::ACK,
            13 => Flags::SYN | Flags::ACK,
            _ => Flags(source.byte()),
        };
        let peer = &self.peers[i];
        let offset = near(source, peer.acked, peer.window);
        let ack = near(source, peer.seen, peer.seen - peer.una);
        let len = match kind >> 4 & 3 {
            0 => 0,
            1 => 1 + usize::from(source.byte() & 7),
            2 => source.below(1461),
            _ => 1460,
        };
        let mut options = [0u8; 40];
        let options_len = self.odd_options(i, source, &mut options);
        let peer = &self.peers[i];
        let (seq, ack) = (peer.seq(offset), peer.ack(ack));
        let salt = salt_of(peer.key.peer_port);
        let window = source.pick(&WINDOWS);
        let urgent = if flags.contains(Flags::URG) { source.word() } else { 0 };
        let payload = stream(salt, offset, len);
        let options = &options[..options_len];
        let seg = Seg { flags, seq, ack, window, options, payload, urgent, ..Seg::default() };
        for _ in 0..1 + usize::from(kind >> 6) % 3 {
            self.send(i, &seg);
        }
        // Its answer may count our stream from elsewhere, by which what we say next has to go: storm seed 10006034.
        if flags.syn() {
            self.turn();
        }
    }

    /// Options: the honest ones, none, odd timestamps, odd SACK blocks, noise.
    fn odd_options(&self, i: usize, source: &mut impl Source, room: &mut [u8; 40]) -> usize {
        let kind = source.byte();
        let peer = &self.peers[i];
        let mut honest = [0; 12];
        let stamp = peer.options(self.now_ms(), &mut honest);
        match kind & 7 {
            0..=3 => {
                room[..stamp.len()].copy_from_slice(stamp);
                stamp.len()
            }
            4 => 0,
            5 => {
                let step =
                    source.pick(&[1u32, u32::MAX, 1 << 31, (1 << 31) - 1, 1_000_000, 0u32.wrapping_sub(1_000_000)]);
                let value = self.now_ms().wrapping_add(step);
                let echo = peer.ts_recent().unwrap_or(0).wrapping_add(if kind & 8 == 0 { 0 } else { step });
                room[..4].copy_from_slice(&[1, 1, 8, 10]);
                room[4..8].copy_from_slice(&value.to_be_bytes());
                room[8..12].copy_from_slice(&echo.to_be_bytes());
                12
            }
            6 => {
                let blocks = 1 + usize::from(kind >> 3) % 4;
                room[..4].copy_from_slice(&[1, 1, 5, 2 + 8 * blocks as u8]);
                for block in room[4..4 + 8 * blocks].chunks_exact_mut(8) {
                    let left = near(source, peer.una, peer.seen - peer.una);
                    let right = near(source, peer.seen, peer.seen - peer.una);
                    block[..4].copy_from_slice(&peer.ack(left).to_be_bytes());
                    block[4..].copy_from_slice(&peer.ack(right).to_be_bytes());
                }
                4 + 8 * blocks
            }
            _ => {
                let len = source.below(11) * 4;
                room[..len].fill_with(|| source.byte());
                len
            }
        }
    }

    /// A router, or somebody who says so, complains about a segment of the server's.
    pub(super) fn complain(&mut self, i: usize, source: &mut impl Source) {
        let kind = source.byte();
        let peer = &self.peers[i];
        let seq = peer.ack(near(source, peer.una, peer.seen - peer.una));
        let key = peer.key;
        let mtu = source.pick(&[0u32, 1, 67, 68, 576, 1000, 1279, 1280, 1400, 1499, 1500, 1501, 9000, 65_535]);
        let is_v4 = key.is_v4();
        let (what, word) = match (kind & 7, is_v4) {
            (0..=3, true) => ((3, 4), mtu),
            (0..=3, false) => ((2, 0), mtu),
            (4, true) => ((3, kind >> 3 & 15), 0),
            (4, false) => ((1, kind >> 3 & 7), 0),
            (5, true) => ((11, kind >> 3 & 1), 0),
            (5, false) => ((3, kind >> 3 & 1), 0),
            (6, true) => ((12, 0), 0),
            (6, false) => ((4, kind >> 3 & 3), 40),
            _ => ((source.byte(), source.byte()), source.long()),
        };
        let quoted = [8, 8, 20, 4, 0][usize::from(kind >> 5) % 5];
        let frame = packet::icmp_error(&mut self.world.ring, &key, what, word, seq, quoted);
        self.world.ring.receive(frame, RxChecksum::Unknown);
    }

    /// Honest data in two fragments, which may come in either order, alone, or not fit one another.
    pub(super) fn fragmented(&mut self, i: usize, source: &mut impl Source) {
        let (kind, cut, id) = (source.byte(), source.word(), source.word());
        let peer = &self.peers[i];
        let salt = salt_of(peer.key.peer_port);
        let len = 100 + usize::from(cut) % 1300;
        let mut room = [0; 12];
        let options = peer.options(self.now_ms(), &mut room);
        let seg = Seg { payload: stream(salt, peer.next, len), options, sum: true, ..peer.honest() };
        let key = peer.key;
        let whole = packet::segment(&mut self.world.ring, &key, &seg);
        self.peers[i].sent(&seg);
        let first = usize::from(cut >> 4) % len;
        let Some([one, two]) = packet::fragments(&mut self.world.ring, &whole, first, id) else { return };
        let order: &[usize] = match kind & 7 {
            0..=2 => &[0, 1],
            3 | 4 => &[1, 0],
            5 => &[0],
            6 => &[1],
            _ => &[0, 0, 1, 1],
        };
        for which in order {
            let from = if *which == 0 { &one } else { &two };
            let mut copy = self.world.ring.blank(from.bytes().len());
            copy.bytes_mut().copy_from_slice(from.bytes());
            self.world.ring.receive(copy, RxChecksum::Unknown);
        }
        self.segments += 1;
        self.turn();
        let peer = &mut self.peers[i];
        peer.next = peer.next.max(peer.acked);
    }

    /// Everything else that may stand on a link: pings, neighbours, the same segment with a byte turned over, noise.
    pub(super) fn other(&mut self, i: usize, source: &mut impl Source) {
        let kind = source.byte();
        let key = self.peers[i].key;
        let ring = &mut self.world.ring;
        match kind & 7 {
            0 => {
                let what = if key.is_v4() { (8, 0) } else { (128, 0) };
                let frame = packet::icmp(ring, &key, what, 7, &[7; 24][..usize::from(kind >> 3) % 24]);
                ring.receive(frame, RxChecksum::Unknown);
            }
            1 => {
                let mut frame = ring.blank(42);
                frame.bytes_mut().copy_from_slice(&arp(source.byte(), kind));
                ring.receive(frame, RxChecksum::Unknown);
            }
            2..=5 => {
                // Damage on the wire, which only the checksum knows of; at times it does not.
                let seg = Seg { sum: true, ..self.peers[i].honest() };
                let mut frame = packet::segment(&mut self.world.ring, &key, &seg);
                let len = frame.bytes().len();
                let at = source.below(len);
                frame.bytes_mut()[at] ^= 1 << (kind >> 3 & 7);
                if kind & 7 == 5 {
                    frame.set_len(at.max(1));
                }
                // A damaged segment that is taken as sound may say anything, but the peer does not know what.
                self.world.ring.receive(frame, RxChecksum::Unknown);
            }
            6 if !key.is_v4() => {
                let frame = packet::solicitation(ring, &key);
                ring.receive(frame, RxChecksum::Unknown);
            }
            6 => self.comb(i, source),
            _ => {
                let noise = source.bytes(usize::from(kind >> 3) * 4);
                let mut frame = ring.blank(noise.len());
                frame.bytes_mut().copy_from_slice(&noise);
                ring.receive(frame, RxChecksum::Unknown);
            }
        }
    }
}

impl Session {
    /// Many holes: every other piece of what a window holds, the last ones first.
    fn comb(&mut self, i: usize, source: &mut impl Source) {
        let (tooth, teeth) = (1 + usize::from(source.byte() & 63), 2 + 2 * usize::from(source.byte()));
        for nth in (0..teeth).rev() {
            self.say(i, Flags::ACK, self.peers[i].next + ((2 * nth + 1) * tooth) as i64, tooth, u16::MAX);
        }
    }
}

/// An ARP packet: requests and answers, from peers and from the gateway.
fn arp(who: u8, kind: u8) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].copy_from_slice(&if kind & 8 == 0 { packet::SERVER_MAC } else { [0xff; 6] });
    frame[6..12].copy_from_slice(&packet::PEER_MAC);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + (kind >> 4 & 1)]);
    frame[22..28].copy_from_slice(&packet::PEER_MAC);
    frame[28..32].copy_from_slice(&[198, 18, 0, if who & 1 == 0 { 254 } else { who }]);
    frame[32..38].copy_from_slice(&packet::SERVER_MAC);
    frame[38..].copy_from_slice(&[198, 18, 0, 2 + (who >> 7)]);
    frame
}

/// A number at, or near, or just as far from `at` as a comparison of sequence numbers can be wrong.
fn near(source: &mut impl Source, at: i64, span: i64) -> i64 {
    at + match source.byte() & 15 {
        0..=6 => 0,
        7 => 1,
        8 => -1,
        9 => i64::from(source.word() % 3000),
        10 => -i64::from(source.word() % 3000),
        11 => span + i64::from(source.byte() % 3) - 1,
        12 => -span,
        13 => span / 2,
        _ => match source.byte() & 7 {
            0 => 1 << 30,
            1 => (1 << 30) + 1,
            2 => (1 << 31) - 1,
            3 => 1 << 31,
            4 => (1 << 31) + 1,
            5 => 3 << 30,
            6 => -(1 << 30) - 1,
            // As a sequence number sees it: 2^32 further on is here, where the stream has other bytes.
            _ => i64::from(source.long() as i32),
        },
    }
}
