//! Peers that do what no honest stack does: a handshake, then anything.

use super::dice::Dice;
use super::server::{ECHO_PORT, HTTP_PORT};
use super::world::{SERVER_V4, SERVER_V6};
use khamsin_drivers::sim::client::{ACK, FIN, PSH, Packet, RST, SYN, Segment, build, parse};
use khamsin_drivers::sim::{Side, SimEnd};
use khamsin_stack::Instant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod lies;
mod mangle;

/// What a hostile peer is after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// Half-open connections, as many as it can.
    Flood,
    /// Handshakes, then segments with wrong numbers, flags, windows and options.
    Lie,
    /// Handshakes, then acknowledgements of what it never got, and storms of them.
    Acknowledge,
    /// Frames that are not even TCP, or not whole.
    Mangle,
}

/// A hostile peer.
#[derive(Clone, Debug)]
pub struct HostilePlan {
    /// Which of the scenario's.
    pub number: usize,
    /// Where its choices come from.
    pub seed: u64,
    /// What it is after.
    pub aim: Aim,
    /// It speaks IPv6.
    pub v6: bool,
    /// Things that it does.
    pub steps: usize,
    /// Longest time between two of them, microseconds.
    pub gap_us: u64,
    /// Largest IP packet.
    pub mtu: usize,
}

impl HostilePlan {
    /// The plan of the hostile peer with this number.
    pub fn new(seed: u64, number: usize, mtu: usize) -> HostilePlan {
        let mut dice = Dice::new(seed, &format!("hostile {number}"));
        HostilePlan {
            number,
            seed: dice.next(),
            aim: dice.pick(&[Aim::Flood, Aim::Lie, Aim::Lie, Aim::Lie, Aim::Acknowledge, Aim::Mangle]),
            v6: mtu >= 1280 && dice.chance(40),
            steps: dice.scaled(10, 400) as usize,
            gap_us: dice.scaled(10, 500_000),
            mtu,
        }
    }
}

/// A connection as its hostile end sees it.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    port: u16,
    to: u16,
    iss: u32,
    /// Next sequence number that an honest peer would use, and next one that it would wait for.
    next: u32,
    expected: u32,
    /// The server's last window, unscaled.
    window: u16,
    stamps: bool,
    /// The server's last timestamp.
    recent: u32,
    clock: u32,
    open: bool,
}

/// A [`HostilePlan`] in action.
pub struct Hostile {
    plan: HostilePlan,
    dice: Dice,
    end: SimEnd,
    address: IpAddr,
    flow: Flow,
    port: u16,
    left: usize,
    next_at: Instant,
}

impl Hostile {
    /// The peer whose address ends with `last`.
    pub fn new(plan: HostilePlan, last: u8, end: SimEnd) -> Hostile {
        let mut dice = Dice::new(plan.seed, "acts");
        let address = match plan.v6 {
            true => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into())),
            false => IpAddr::V4(Ipv4Addr::new(198, 18, 0, last)),
        };
        let flow = Flow::new(&mut dice, 20_000);
        let next_at = Instant::from_micros(dice.scaled(1_000, 500_000));
        Hostile { left: plan.steps, plan, dice, end, address, flow, port: 20_000, next_at }
    }

    /// Whether it has done everything that it does.
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// When it acts next.
    pub fn deadline(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.next_at)
    }

    /// Takes what has arrived, and acts if it is time.
    pub fn step(&mut self, now: Instant) {
        while let Some(frame) = self.end.recv() {
            if let Ok(Packet::Tcp(segment)) = parse(&frame) {
                self.flow.hear(&segment);
            }
        }
        if self.left == 0 || now < self.next_at {
            return;
        }
        self.left -= 1;
        self.next_at = now.plus_micros(self.dice.scaled(1, self.plan.gap_us));
        self.flow.clock = (now.micros() / 1000) as u32;
        match self.plan.aim {
            Aim::Flood => self.flood(),
            _ if !self.flow.open && self.dice.chance(80) => self.begin(),
            Aim::Lie => self.lie(),
            Aim::Acknowledge => self.acknowledge(),
            Aim::Mangle => self.mangle(),
        }
    }

    fn flood(&mut self) {
        for _ in 0..self.dice.between(1, 20) {
            self.renew();
            self.begin();
        }
    }

    /// Another connection, from another port.
    fn renew(&mut self) {
        self.port = self.port.wrapping_add(1).max(1024);
        self.flow = Flow::new(&mut self.dice, self.port);
    }

    /// The handshake, or its last part, or what looks like it.
    fn begin(&mut self) {
        if self.flow.expected != 0 {
            self.flow.open = true;
            let request: &[u8] = b"GET /file-5.bin HTTP/1.1\r\nHost: x\r\n\r\n";
            let payload = if self.dice.chance(60) { request } else { b"" };
            let mut segment = self.segment(ACK);
            segment.payload = payload;
            self.flow.next = self.flow.next.wrapping_add(payload.len() as u32);
            return self.send(&segment);
        }
        if self.dice.chance(20) {
            self.renew();
        }
        let from_iss = self.flow.iss;
        let scale = self.dice.pick(&[None, Some(0), Some(7), Some(14), Some(15), Some(255)]);
        let mss = self.dice.pick(&[None, Some(0), Some(1), Some(48), Some(536), Some(1460), Some(65_535)]);
        self.flow.stamps = self.dice.chance(50);
        let mut segment = Segment {
            seq: from_iss,
            ack: 0,
            mss,
            window_scale: scale,
            sack_permitted: self.dice.chance(60),
            timestamps: self.flow.stamps.then_some((self.flow.clock, 0)),
            ..self.segment(SYN)
        };
        segment.window = self.dice.pick(&[0, 1, 500, 65_535]);
        if self.dice.chance(5) {
            segment.payload = b"text in a SYN";
        }
        if self.dice.chance(5) {
            segment.flags |= self.dice.pick(&[FIN, PSH, RST, ACK]);
        }
        self.send(&segment);
    }

    /// A segment as an honest peer might send it now.
    fn segment(&self, flags: u8) -> Segment<'static> {
        let from = SocketAddr::new(self.address, self.flow.port);
        let to = SocketAddr::new(if self.plan.v6 { SERVER_V6 } else { SERVER_V4 }, self.flow.to);
        Segment {
            seq: self.flow.next,
            ack: self.flow.expected,
            window: 30_000,
            timestamps: self.flow.stamps.then_some((self.flow.clock, self.flow.recent)),
            ..Segment::new(from, to, flags)
        }
    }

    fn send(&mut self, segment: &Segment<'_>) {
        let frame = build(Side::Right.mac(), Side::Left.mac(), segment, false);
        if frame.len() <= self.plan.mtu + 14 {
            self.end.send(&frame);
        }
    }
}

impl Flow {
    fn new(dice: &mut Dice, port: u16) -> Flow {
        let iss = if dice.chance(30) { u32::MAX - dice.below(5_000) as u32 } else { dice.next() as u32 };
        Flow {
            port,
            to: if dice.chance(50) { ECHO_PORT } else { HTTP_PORT },
            iss,
            next: iss.wrapping_add(1),
            expected: 0,
            window: 0,
            stamps: false,
            recent: 0,
            clock: 0,
            open: false,
        }
    }

    /// Learns from what the server says.
    fn hear(&mut self, segment: &Segment<'_>) {
        if segment.to.port() != self.port {
            return;
        }
        if segment.flags & RST != 0 {
            (self.open, self.expected) = (false, 0);
            return;
        }
        let end = segment.seq.wrapping_add(segment.sequence_len());
        if self.expected == 0 || end.wrapping_sub(self.expected) as i32 > 0 {
            self.expected = end;
        }
        self.window = segment.window;
        if let Some((value, _)) = segment.timestamps {
            self.recent = value;
        }
    }
}
