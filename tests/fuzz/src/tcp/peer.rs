//! A peer: what it knows of its connection, and what it holds every frame of the server's against.
//!
//! Stream offsets are `i64`, from 0 at the first payload byte in either direction; a FIN counts one.

use crate::packet::Seg;
use crate::puppet::{Slot, salt_of, stream};
use khamsin_stack::FlowKey;
use khamsin_stack::wire::{Flags, Segment, tcp_options};

/// What a peer says of itself in its SYN.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    /// Timestamps in every honest segment, if the server takes them up.
    pub timestamps: bool,
    /// It reads SACK.
    pub sack: bool,
    /// Shift of its windows.
    pub shift: Option<u8>,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct Peer {
    pub key: FlowKey,
    /// Our initial sequence number.
    pub irs: u32,
    /// The server's, of its last SYN|ACK.
    pub iss: Option<u32>,
    /// What our SYN said, and the sequence number that it had.
    offer: Offer,
    asked: u32,
    /// SYNs sent since: an attacker's says other things in our name.
    syns: usize,
    /// Both sides agreed on timestamps.
    timestamps: bool,
    /// The server's last timestamp.
    ts_recent: u32,
    /// Shift of the server's windows.
    server_shift: u8,
    /// Where our next honest byte goes.
    pub next: i64,
    /// The end of all that we ever sent.
    pub top: i64,
    /// How much of the server's stream we have acknowledged, and how much we have seen.
    pub una: i64,
    pub seen: i64,
    /// The furthest right edge of a window that the server ever promised.
    edge: i64,
    /// What it acknowledged last.
    pub acked: i64,
    /// Window that it offered last, bytes.
    pub window: i64,
    /// Which session of its place this is, and whether that was open when we last looked.
    lives: u64,
    was_open: bool,
    /// The numbers of the last SYN|ACKs; and whether it is known which of them the session goes by.
    answers: [(u32, u32); 8],
    known: bool,
    /// Two SYN|ACKs differ, so that it is not known whether windows are scaled.
    unsure: bool,
    /// The session that its place had before the last SYN|ACK.
    before: u64,
    /// One session made way for another unseen, so that nobody can say which a segment belongs to.
    blind: bool,
}

impl Peer {
    /// A peer without a connection.
    pub fn new(key: FlowKey) -> Self {
        Peer {
            key,
            irs: 0,
            iss: None,
            offer: Offer::default(),
            asked: 0,
            syns: 0,
            timestamps: false,
            ts_recent: 0,
            server_shift: 0,
            next: 0,
            top: 0,
            una: 0,
            seen: 0,
            edge: 0,
            acked: 0,
            window: 0,
            lives: 0,
            was_open: false,
            answers: [(0, 0); 8],
            known: false,
            unsure: false,
            before: 0,
            blind: false,
        }
    }

    /// Looks what became of the session before the frames of a turn are shown. A handshake's ACK that brought back a
    /// cookie can be sent again, and opens the same connection again.
    pub fn follow(&mut self, slot: &Slot) {
        if slot.lives != self.lives {
            self.blind = self.was_open && slot.open;
            self.known = false;
            // Brought back a second time, a cookie comes with a timestamp that says other things of the SYN.
            self.unsure |= self.before + 1 != slot.lives;
            (self.lives, self.una, self.seen, self.acked, self.edge) = (slot.lives, 0, 0, 0, 0);
        }
        self.was_open = slot.open;
    }

    /// Begins anew, with a SYN that is to carry `irs`.
    pub fn start(&mut self, irs: u32, offer: Offer) {
        let Peer { lives, was_open, answers, .. } = *self;
        *self = Peer { irs, offer, asked: irs, lives, was_open, answers, ..Peer::new(self.key) };
    }

    /// Sequence number of our byte at `offset`.
    pub fn seq(&self, offset: i64) -> u32 {
        self.irs.wrapping_add(1).wrapping_add(offset as u32)
    }

    /// Acknowledgement number that asks for the server's byte at `offset`.
    pub fn ack(&self, offset: i64) -> u32 {
        self.iss.unwrap_or(0).wrapping_add(1).wrapping_add(offset as u32)
    }

    /// Writes the options that an honest segment carries.
    pub fn options<'o>(&self, now_ms: u32, room: &'o mut [u8; 12]) -> &'o [u8] {
        if !self.timestamps {
            return &[];
        }
        room[..4].copy_from_slice(&[1, 1, 8, 10]);
        room[4..8].copy_from_slice(&now_ms.to_be_bytes());
        room[8..].copy_from_slice(&self.ts_recent.to_be_bytes());
        &room[..]
    }

    /// The server's last timestamp, where it sends any.
    pub fn ts_recent(&self) -> Option<u32> {
        self.timestamps.then_some(self.ts_recent)
    }

    /// Whether the server waits for the end of our handshake.
    pub fn is_half_open(&self, slot: &Slot) -> bool {
        self.iss.is_some() && slot.lives == self.before
    }

    /// Notes how far a segment of ours reaches.
    pub fn sent(&mut self, seg: &Seg<'_>) {
        let from = i64::from(seg.seq.wrapping_sub(self.seq(self.top)) as i32) + self.top;
        let end = from + seg.payload.len() as i64 + i64::from(seg.flags.fin());
        self.syns += usize::from(seg.flags.syn());
        if end > self.top && end - self.top < 1 << 30 {
            self.top = end;
        }
    }

    /// Looks at a segment of the server's, which `slot` belongs to, and complains where it is not what a server may send.
    pub fn look(&mut self, segment: &Segment, frame: &[u8], slot: &Slot) {
        let said = tcp_options(segment.header(frame));
        if segment.flags.syn() {
            assert!(segment.flags.ack(), "a server never opens");
            self.on_syn_ack(segment, &said);
            self.before = slot.lives;
            return;
        }
        if segment.flags.rst() || self.iss.is_none() || !slot.open || self.blind {
            return;
        }
        assert!(segment.flags.ack(), "a segment without ACK: {segment:?}");
        if let Some((value, _)) = said.timestamps {
            self.ts_recent = value;
        }
        if !self.known {
            if !self.recognise(segment) {
                return;
            }
            self.known = true;
            if self.timestamps && said.timestamps.is_none() {
                // The ACK that brought the cookie back had no timestamp, and with it nothing of what the SYN had said.
                (self.server_shift, self.timestamps) = (0, false);
            }
        }
        let seen = self.ack(self.seen);
        let from = self.seen + i64::from(segment.seq.wrapping_sub(seen) as i32);
        let len = segment.payload_len() as i64;
        // A keep-alive probe is a byte behind (RFC 9293 3.8.4).
        assert!(from >= -i64::from(len == 0) && from <= self.seen, "the server skips from {} to {from}", self.seen);
        assert!(
            len == 0 || from + len <= slot.written as i64,
            "the server sends {len} bytes at {from}, {} were written",
            slot.written
        );
        let expected = stream(salt_of(self.key.peer_port), from, len as usize);
        assert!(segment.payload(frame) == expected, "the server sends other bytes than were written, at {from}");
        if segment.flags.fin() {
            assert!(slot.shut && from + len == slot.written as i64, "a FIN at {from} + {len} of {}", slot.written);
        }
        self.seen = self.seen.max(from + len + i64::from(segment.flags.fin()));
        self.on_window(segment);
    }

    /// A cookie may be brought back after another SYN was answered: finds out by which numbers the session goes.
    /// False: it is of a session that went by numbers of before, and is over (its TIME-WAIT answers still).
    fn recognise(&mut self, segment: &Segment) -> bool {
        let near =
            |irs: u32, iss: u32| segment.seq.wrapping_sub(iss) < 1 << 20 && segment.ack.wrapping_sub(irs) < 1 << 20;
        if self.iss.is_some_and(|iss| near(self.irs, iss)) {
            return true;
        }
        if let Some(&(irs, iss)) = self.answers.iter().find(|&&(irs, iss)| near(irs, iss)) {
            // Whatever numbers a session goes by, the first that it says is at its beginning.
            if segment.seq.wrapping_sub(iss) > 1 {
                return false;
            }
            // How far we got with these numbers is forgotten.
            self.unsure = true;
            (self.irs, self.iss, self.next, self.top) = (irs, Some(iss), 0, 1 << 20);
            (self.server_shift, self.timestamps) = (0, false);
        }
        true
    }

    fn on_syn_ack(&mut self, segment: &Segment, said: &khamsin_stack::wire::TcpOptions) {
        assert!(!segment.flags.fin() && !segment.flags.rst(), "{segment:?}");
        self.unsure |= self.syns > 1 || self.iss.is_some_and(|iss| iss != segment.seq);
        // The server may have restarted, or answered an older SYN of ours: what it says now counts.
        (self.irs, self.iss) = (segment.ack.wrapping_sub(1), Some(segment.seq));
        self.answers.rotate_right(1);
        self.answers[0] = (self.irs, segment.seq);
        (self.next, self.top, self.una, self.seen, self.acked) = (0, 0, 0, 0, 0);
        if self.irs != self.asked || self.syns > 1 {
            let shift = said.window_scale.map(|_| 0);
            self.offer = Offer { timestamps: said.timestamps.is_some(), sack: said.sack_permitted, shift };
        }
        assert!(self.offer.shift.is_some() || said.window_scale.is_none(), "the server scales and was not asked");
        assert!(self.offer.sack || !said.sack_permitted, "the server permits SACK and was not asked");
        assert!(self.offer.timestamps || said.timestamps.is_none(), "the server has timestamps and was not asked");
        self.server_shift = said.window_scale.unwrap_or(0);
        self.timestamps = said.timestamps.is_some();
        self.ts_recent = said.timestamps.map_or(0, |(value, _)| value);
        self.window = i64::from(segment.window);
        self.edge = self.window;
    }

    /// What was acknowledged was sent, and the window only grows (RFC 9293 3.8.6).
    fn on_window(&mut self, segment: &Segment) {
        let acked = self.acked + i64::from(segment.ack.wrapping_sub(self.seq(self.acked)) as i32);
        assert!(acked >= self.acked, "the server takes back an acknowledgement: {acked} after {}", self.acked);
        assert!(acked <= self.top, "the server acknowledges {acked}, {} were sent", self.top);
        self.acked = acked;
        self.window = i64::from(segment.window) << self.server_shift;
        let edge = acked + self.window;
        // What the scale cannot express may be missing once the offer has grown by rounding up (RFC 7323 2.4; `ROUNDING` in
        // stack/src/connection/window.rs): storm seed 3861.
        let rounding = (1i64 << self.server_shift) - 1;
        assert!(
            edge + rounding >= self.edge || self.unsure,
            "the server takes back its window: {edge} after {}",
            self.edge
        );
        self.edge = self.edge.max(edge);
    }

    /// A segment of ours in words.
    pub fn tell(&self, i: usize, seg: &Seg<'_>) -> String {
        let Seg { flags, window, options, .. } = seg;
        let (port, len) = (self.key.peer_port, seg.payload.len());
        let (seq, ack) = (seg.seq.wrapping_sub(self.seq(0)) as i32, seg.ack.wrapping_sub(self.ack(0)) as i32);
        format!("{i} ({port}): {flags:?} seq {seq} ack {ack} win {window} len {len} options {options:02x?}")
    }

    /// A bare segment with honest numbers.
    pub fn honest(&self) -> Seg<'static> {
        Seg { flags: Flags::ACK, seq: self.seq(self.next), ack: self.ack(self.una), ..Seg::default() }
    }
}
