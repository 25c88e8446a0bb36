//! What peers do: the honest part, time, the application's moods, and the device's faults.

use super::peer::Offer;
use super::{Dress, Session, key};
use crate::packet::{Between, Seg};
use crate::puppet::{Mode, SLOTS, salt_of, stream};
use crate::source::Source;
use core::time::Duration;
use khamsin_stack::wire::{Flags, VlanTags};

/// Lengths of honest payloads, bytes.
const LENGTHS: [usize; 12] = [1, 2, 10, 48, 100, 536, 1000, 1200, 1220, 1400, 1448, 1460];
/// Windows as they stand in the header.
const WINDOWS: [u16; 12] = [0, 1, 2, 48, 500, 1460, 4000, 16_384, 32_768, 65_534, 65_535, 65_535];

impl Session {
    /// One decision of one peer.
    pub(super) fn step(&mut self, source: &mut impl Source) {
        let op = source.byte();
        let i = usize::from(op >> 5) % SLOTS;
        match op & 31 {
            // Most of what can be said to nobody has been said soon.
            0..=13 if !self.open(i) => self.connect(i, source),
            0..=3 => self.data(i, source),
            4..=7 => self.take_all(i, source),
            8 => self.take_some(i, source),
            9 => self.exchange(i, source),
            10..=13 => self.attack(i, source),
            14 => self.gap(i, source),
            15 => self.again(i, source),
            16 => self.fin(i, source),
            17 => self.reset(i, source),
            18..=20 => self.connect(i, source),
            21 => self.syn(i, source),
            22 => self.finish_handshake(i, source),
            23 | 24 => self.time(source),
            25 => self.close(i, source),
            26 => self.mood(i, source),
            27 => self.fault(source),
            28 => self.complain(i, source),
            29 => self.fragmented(i, source),
            30 => self.dress_up(source),
            _ => self.other(i, source),
        }
    }

    fn open(&self, i: usize) -> bool {
        self.world.app.slots[i].open
    }

    /// Data in order.
    fn data(&mut self, i: usize, source: &mut impl Source) {
        let len = source.pick(&LENGTHS);
        let flags = if len & 1 == 0 { Flags::ACK } else { Flags::ACK | Flags::PSH };
        self.say(i, flags, self.peers[i].next, len, u16::MAX);
        if self.open(i) {
            self.peers[i].next += len as i64;
        }
    }

    /// Sends `len` bytes of our stream from `offset` on, with what we know of the server's.
    pub(super) fn say(&mut self, i: usize, flags: Flags, offset: i64, len: usize, window: u16) {
        let peer = &self.peers[i];
        let mut room = [0; 12];
        let options = peer.options(self.now_ms(), &mut room);
        let (seq, ack) = (peer.seq(offset), peer.ack(peer.una));
        let salt = salt_of(peer.key.peer_port);
        let seg = Seg { flags, seq, ack, window, options, payload: stream(salt, offset, len), ..Seg::default() };
        self.send(i, &seg);
    }

    /// Acknowledges all that has come.
    fn take_all(&mut self, i: usize, source: &mut impl Source) {
        self.peers[i].una = self.peers[i].seen;
        let window = source.pick(&WINDOWS);
        self.say(i, Flags::ACK, self.peers[i].next, 0, window);
    }

    /// Acknowledges a part, perhaps nothing, and reports some of the rest as received.
    fn take_some(&mut self, i: usize, source: &mut impl Source) {
        let (share, blocks, window) = (source.byte(), source.below(4), source.pick(&WINDOWS));
        let peer = &mut self.peers[i];
        let open = peer.seen - peer.una;
        peer.una += open * i64::from(share & 15) / 16;
        let mut options = [1u8; 40];
        let mut len = 0;
        if blocks > 0 {
            options[..4].copy_from_slice(&[1, 1, 5, 2 + 8 * blocks as u8]);
            len = 4;
            for _ in 0..blocks {
                let left = peer.una + (peer.seen - peer.una) * i64::from(source.byte()) / 256;
                let right = left + (peer.seen - left) * i64::from(source.byte()) / 256;
                options[len..len + 4].copy_from_slice(&peer.ack(left).to_be_bytes());
                options[len + 4..len + 8].copy_from_slice(&peer.ack(right).to_be_bytes());
                len += 8;
            }
        }
        let mut room = [0; 12];
        let stamp = self.peers[i].options(self.now_ms(), &mut room);
        if !stamp.is_empty() && len + 12 <= 40 {
            options[len..len + 12].copy_from_slice(stamp);
            len += 12;
        }
        let seg = Seg { window, options: &options[..len], ..self.peers[i].honest() };
        for _ in 0..=share >> 6 {
            self.send(i, &seg);
        }
    }

    /// Rounds of an honest transfer: windows grow, stores fill and drain.
    fn exchange(&mut self, i: usize, source: &mut impl Source) {
        let rounds = 1 + source.below(12);
        let step_us = source.pick(&[100u64, 1_000, 20_000, 50_000]);
        let flight = 1 + usize::from(source.byte() >> 5) * 2;
        for _ in 0..rounds {
            self.peers[i].una = self.peers[i].seen;
            for _ in 0..flight {
                self.say(i, Flags::ACK, self.peers[i].next, 1400, u16::MAX);
                if self.open(i) {
                    self.peers[i].next += 1400;
                }
            }
            self.turn();
            self.pass(Duration::from_micros(step_us), 8);
        }
    }

    /// Data behind a hole.
    fn gap(&mut self, i: usize, source: &mut impl Source) {
        let (hole, len) = (source.pick(&LENGTHS) as i64 * (1 + source.below(20) as i64), source.pick(&LENGTHS));
        self.say(i, Flags::ACK, self.peers[i].next + hole, len, u16::MAX);
    }

    /// What was sent before, once more, cut differently.
    fn again(&mut self, i: usize, source: &mut impl Source) {
        let (back, len) = (i64::from(source.word() & 0x0fff), source.pick(&LENGTHS));
        let from = (self.peers[i].next - back).max(0);
        self.say(i, Flags::ACK, from, len, u16::MAX);
        // It may have filled the hole: go on where the server is.
        let peer = &mut self.peers[i];
        peer.next = peer.next.max(peer.acked);
    }

    fn fin(&mut self, i: usize, source: &mut impl Source) {
        let kind = source.byte();
        let (ahead, len) = match kind & 3 {
            0 | 1 => (0, 0),
            2 => (0, usize::from(kind)),
            _ => (i64::from(kind) * 8, usize::from(kind >> 4)),
        };
        self.peers[i].una = self.peers[i].seen;
        self.say(i, Flags::ACK | Flags::FIN, self.peers[i].next + ahead, len, u16::MAX);
    }

    /// An end in good order: all is acknowledged, both streams end.
    fn close(&mut self, i: usize, source: &mut impl Source) {
        let first = source.byte();
        if first & 1 == 0 {
            let mode = &mut self.world.app.slots[i].mode;
            (mode.shut_now, mode.read_max) = (true, usize::MAX);
        }
        for _ in 0..2 + (first >> 4) {
            self.peers[i].una = self.peers[i].seen;
            self.peers[i].next = self.peers[i].next.max(self.peers[i].acked);
            let flags = if first & 2 == 0 { Flags::ACK | Flags::FIN } else { Flags::ACK };
            self.say(i, flags, self.peers[i].next, 0, u16::MAX);
            self.turn();
        }
    }

    fn reset(&mut self, i: usize, source: &mut impl Source) {
        let flags = if source.byte() & 1 == 0 { Flags::RST } else { Flags::RST | Flags::ACK };
        let seq = self.peers[i].seq(self.peers[i].acked);
        let seg = Seg { flags, seq, ..self.peers[i].honest() };
        self.send(i, &seg);
    }

    /// A whole handshake, if there is no connection yet.
    fn connect(&mut self, i: usize, source: &mut impl Source) {
        if self.open(i) {
            return;
        }
        self.syn(i, source);
        self.turn();
        self.finish_handshake(i, source);
    }

    /// A SYN, honest or odd; to an open connection it is an attack.
    fn syn(&mut self, i: usize, source: &mut impl Source) {
        let (ports, kind) = (source.byte(), source.byte());
        let irs = match ports >> 4 & 3 {
            // It wraps soon. Never the same one twice: a server may answer the older of two SYNs that it cannot tell apart.
            0 => 0xffff_0000 | (self.syns & 0xffff),
            1 => self.peers[i].seq(self.peers[i].top).wrapping_add(70_000 + (self.syns & 0xffff)),
            _ => source.long().wrapping_add(self.syns),
        };
        self.syns = self.syns.wrapping_add(0x101);
        let mut options = Vec::with_capacity(40);
        let offer = syn_options(kind, self.now_ms(), &mut options, source);
        // What is still on its way may open the connection by its old name.
        self.turn();
        if !self.open(i) {
            let peer = &mut self.peers[i];
            peer.key = key(i, usize::from(ports & 3));
            peer.start(irs, offer);
        }
        // RFC 3168 6.1.1: it asks for ECN.
        let flags = if ports & 0x40 == 0 { Flags::SYN } else { Flags::SYN | Flags::ECE | Flags::CWR };
        let seg = Seg { flags, seq: irs, window: source.pick(&WINDOWS), options: &options, ..Seg::default() };
        self.send(i, &seg);
    }

    /// The ACK that ends a handshake, perhaps with data or a FIN, perhaps a wrong one.
    fn finish_handshake(&mut self, i: usize, source: &mut impl Source) {
        let kind = source.byte();
        if self.peers[i].iss.is_none() || self.open(i) {
            return;
        }
        let window = source.pick(&WINDOWS);
        match kind & 15 {
            0 => self.say(i, Flags::ACK, 0, 200, window),
            1 => self.say(i, Flags::ACK | Flags::FIN, 0, 0, window),
            2 => self.say(i, Flags::ACK, i64::from(kind), 10, window),
            3 => {
                let seg = Seg { ack: source.long(), ..self.peers[i].honest() };
                self.send(i, &seg);
            }
            _ => self.say(i, Flags::ACK, 0, 0, window),
        }
        self.turn();
    }

    fn time(&mut self, source: &mut impl Source) {
        let (kind, turns) = (source.byte(), 64);
        self.turn();
        let duration = match kind & 15 {
            0..=2 => Duration::from_micros(1 + u64::from(kind)),
            3 | 4 => Duration::from_millis(1 + u64::from(kind >> 4)),
            5 | 6 => Duration::from_millis(41),
            7 | 8 => Duration::from_millis(210),
            9 | 10 => Duration::from_secs(1),
            11 => Duration::from_secs(3),
            12 => Duration::from_secs(20),
            13 => Duration::from_secs(61),
            14 => Duration::from_secs(700),
            // To the next deadline and not further.
            _ => match self.world.turn.deadline {
                Some(at) => at - self.world.now,
                None => Duration::from_secs(1),
            },
        };
        if kind & 16 == 0 {
            self.pass(duration, turns);
        } else {
            // The machine slept.
            self.world.now += duration;
            self.turn();
        }
    }

    /// How the application behaves from now on. It shows when it is called.
    fn mood(&mut self, i: usize, source: &mut impl Source) {
        let (kind, more) = (source.byte(), source.byte());
        if more & 31 == 5 {
            self.world.shard.wake_all();
        }
        self.world.app.slots[i].mode = Mode {
            read_max: [usize::MAX, usize::MAX, 0, 1, 100, 3000][usize::from(kind) % 6],
            write_max: [0, 1, 600, 600, 1460, 100, 5000, 70_000][usize::from(kind >> 3) % 8],
            shared: kind & 0x40 != 0,
            shuts: kind & 0x80 == 0,
            shut_now: more & 15 == 1,
            abort_now: more & 31 == 18,
            wake_us: [0, 0, 50_000, 1_000_000, 1, 200_000, 30_000_000, 5_000][usize::from(more >> 5)],
        };
    }

    /// The device has few frames for a while, or small ones.
    fn fault(&mut self, source: &mut impl Source) {
        let kind = source.byte();
        self.world.ring.starved = match kind & 7 {
            0..=3 => None,
            4 => Some(0),
            5 => Some(1),
            6 => Some(2),
            _ => Some(usize::from(kind >> 3)),
        };
        if kind >> 5 == 7 {
            let mtu = [576, 1280, 1500, 9000][usize::from(kind & 3)].min(self.world.mtu_max());
            self.world.shard.set_mtu(self.world.now, mtu);
            // Smaller than the device could carry, never smaller than the smallest link (as on loopback over IPv6).
            self.world.ring.capacity = [1294, 1514, 1700, 2048][usize::from(kind >> 3 & 3)];
        }
    }

    fn dress_up(&mut self, source: &mut impl Source) {
        let kind = source.byte();
        self.dress = Dress {
            tags: match kind & 7 {
                5 => VlanTags::dot1q(7, 0),
                6 => VlanTags::dot1q(0, 3),
                7 => VlanTags::dot1q(7, 0).inside(9, 0),
                _ => VlanTags::NONE,
            },
            between: if kind & 0x18 == 0x18 { Between::Options(1 + (kind >> 6)) } else { Between::Nothing },
            ecn: kind >> 6,
            sum: kind & 0x20 != 0,
        };
        // What comes next comes in bursts.
        self.burst = [0, 0, 2, 4, 8, 16, 32, 64][usize::from(source.byte() & 7)];
    }
}

/// Writes the options of a SYN and says what they offer.
fn syn_options(kind: u8, now_ms: u32, options: &mut Vec<u8>, source: &mut impl Source) -> Offer {
    if kind == 255 {
        let n = source.below(11) * 4;
        options.extend((0..n).map(|_| source.byte()));
        let said = khamsin_stack::wire::tcp_options(&[&[0; 20], &options[..]].concat());
        return Offer { timestamps: said.timestamps.is_some(), sack: said.sack_permitted, shift: said.window_scale };
    }
    if kind & 7 != 7 {
        let mss = [1460u16, 1460, 1440, 536, 48, 9000, 65_535][usize::from(kind & 7)];
        let mss = if kind & 0xf7 == 4 { 0 } else { mss };
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
    }
    let shift = (kind & 8 != 0).then(|| source.pick(&[0u8, 2, 7, 14, 14, 200]));
    options.extend(shift.iter().flat_map(|&shift| [3, 3, shift, 1]));
    let sack = kind & 16 != 0;
    if sack {
        options.extend([4, 2, 1, 1]);
    }
    let timestamps = kind & 32 != 0;
    if timestamps {
        options.extend([8, 10]);
        options.extend(now_ms.to_be_bytes());
        options.extend([0, 0, 0, 0, 1, 1]);
    }
    Offer { timestamps, sack, shift }
}
