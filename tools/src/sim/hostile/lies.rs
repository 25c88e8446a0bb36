//! Segments with whole checksums and nothing else that is right.

use super::{Hostile, Segment};
use khamsin_drivers::sim::client::{ACK, FIN, PSH, RST, SYN};

/// What a lie is about.
const LIES: u64 = 20;

impl Hostile {
    /// One of many wrong things.
    pub(super) fn lie(&mut self) {
        let text = self.text();
        let mut segment = self.segment(ACK);
        let (next, expected) = (segment.seq, segment.ack);
        let window = u32::from(self.flow.window);
        match self.dice.below(LIES) {
            // In order: so that there is something to lie about.
            0..=2 => {
                segment.payload = &text;
                self.flow.next = next.wrapping_add(text.len() as u32);
            }
            3 => {
                // Again, with other bytes, and beyond what was sent.
                segment.seq = next.wrapping_sub(self.dice.below(2_000) as u32);
                segment.payload = &text;
            }
            4 => {
                // Behind a hole, or behind the window.
                segment.seq = next.wrapping_add(self.dice.scaled(1, 200_000) as u32);
                segment.payload = &text;
            }
            5 => {
                segment.seq = self.dice.next() as u32;
                segment.payload = &text;
            }
            6 => {
                segment.seq = next.wrapping_add(window).wrapping_sub(self.dice.below(3) as u32);
                segment.payload = &text;
            }
            7 => segment.ack = self.near(expected, 5_000_000),
            8 => segment.ack = self.dice.next() as u32,
            9 => {
                segment.flags |= SYN;
                segment.seq = self.near(next, 70_000);
            }
            10 => {
                (segment.flags, segment.seq) = (RST, self.near(next, 70_000));
            }
            11 => {
                (segment.flags, segment.seq) = (RST | ACK, next.wrapping_add(1));
            }
            12 => segment.window = self.dice.pick(&[0, 0, 1, 10, 65_535]),
            13 => {
                segment.flags |= FIN;
                segment.seq = self.near(next, 3_000);
                segment.payload = &text[..text.len().min(self.dice.below(40) as usize)];
            }
            14 => segment.flags = self.dice.pick(&[0, FIN, PSH, SYN | FIN, SYN | RST, FIN | PSH, SYN | ACK, 0x1f]),
            15 => segment.timestamps = self.wrong_stamps(),
            16 => self.false_blocks(&mut segment),
            17 => {
                // A FIN in order, and then as if there had been none.
                segment.flags |= FIN;
                if self.dice.chance(50) {
                    self.flow.next = next.wrapping_add(1);
                }
            }
            18 => {
                // The end that everybody understands.
                if self.dice.chance(20) {
                    segment.flags = RST;
                    self.send(&segment);
                }
                return self.renew();
            }
            _ => self.options_of_a_syn(&mut segment),
        }
        self.send(&segment);
    }

    /// Acknowledgements of what has not come, and of what has, again and again.
    pub(super) fn acknowledge(&mut self) {
        let mut segment = self.segment(ACK);
        let expected = segment.ack;
        match self.dice.below(6) {
            // Optimistic: of what must be on its way.
            0 | 1 => {
                segment.ack = expected.wrapping_add(self.dice.pick(&[0, 1_000, 1_448, 1_460, 14_600, 100_000]));
                segment.window = 65_535;
                self.flow.expected = segment.ack;
                self.send(&segment);
            }
            // In small pieces (Savage et al.: "TCP congestion control with a misbehaving receiver").
            2 => {
                for i in (0..20).rev() {
                    segment.ack = expected.wrapping_sub(i * self.dice.between(1, 100) as u32);
                    self.send(&segment);
                }
            }
            // A storm of duplicates.
            3 => {
                for _ in 0..self.dice.between(3, 60) {
                    self.send(&segment);
                }
            }
            4 => {
                for _ in 0..self.dice.between(1, 10) {
                    self.false_blocks(&mut segment);
                    self.send(&segment);
                }
            }
            // Windows that open, shut and shrink.
            _ => {
                for _ in 0..self.dice.between(1, 6) {
                    segment.window = self.dice.pick(&[0, 1, 100, 2_000, 65_535]);
                    self.send(&segment);
                }
            }
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let overhead = if self.plan.v6 { 60 } else { 40 } + 40;
        let len = self.dice.scaled(1, (self.plan.mtu - overhead) as u64) as usize;
        let stream = self.dice.next();
        super::super::dice::pattern(stream, len)
    }

    fn near(&mut self, number: u32, distance: u64) -> u32 {
        let off = self.dice.scaled(1, distance) as u32;
        if self.dice.chance(50) { number.wrapping_add(off) } else { number.wrapping_sub(off) }
    }

    fn wrong_stamps(&mut self) -> Option<(u32, u32)> {
        let clock = self.flow.clock;
        match self.dice.below(4) {
            0 => None,
            1 => Some((clock.wrapping_sub(self.dice.scaled(1, 1 << 31) as u32), self.flow.recent)),
            2 => Some((clock.wrapping_add(self.dice.scaled(1, 1 << 31) as u32), self.flow.recent)),
            _ => Some((clock, self.dice.next() as u32)),
        }
    }

    /// Blocks of what was never sent, of what was acknowledged, empty ones, the wrong way round, too many.
    fn false_blocks(&mut self, segment: &mut Segment<'_>) {
        let back = self.dice.scaled(1, 20_000) as u32;
        segment.ack = segment.ack.wrapping_sub(if self.dice.chance(50) { back } else { 0 });
        let most = if segment.timestamps.is_some() { 3 } else { 4 };
        for _ in 0..self.dice.between(1, most) {
            let from = segment.ack.wrapping_add(self.dice.scaled(1, 60_000) as u32);
            let from = if self.dice.chance(20) { segment.ack.wrapping_sub(500) } else { from };
            let len = self.dice.pick(&[0, 1, 500, 1_448, 1_460, 10_000, u32::MAX / 2, u32::MAX - 100]);
            segment.sack.push(from, from.wrapping_add(len));
        }
    }

    fn options_of_a_syn(&mut self, segment: &mut Segment<'_>) {
        segment.mss = Some(self.dice.next() as u16);
        segment.window_scale = Some(self.dice.next() as u8);
        segment.sack_permitted = self.dice.chance(50);
    }
}
