//! [`Resting`] in as few bytes as it takes.

use super::Resting;
use crate::aligned::Aligned;
use crate::recovery::{Algorithm, History};
use crate::{Coarse, FlowKey, Instant};

/// The addresses and ports of one family, as they stand on the wire.
pub(super) trait Key: Copy + PartialEq {
    /// What a record begins at: 64 bytes lie in one cache line, 88 are not stretched to two.
    type Start: Copy;

    fn pack(key: &FlowKey) -> Self;
    fn unpack(&self) -> FlowKey;
    /// Port 0 marks a free record: nobody connects from there.
    fn peer_port(&self) -> u16;
}

/// 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyV4 {
    peer: [u8; 4],
    local: [u8; 4],
    ports: [u16; 2],
}

/// 36 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyV6 {
    peer: [u8; 16],
    local: [u8; 16],
    ports: [u16; 2],
}

impl Key for KeyV4 {
    type Start = Aligned<()>;

    fn pack(key: &FlowKey) -> Self {
        let v4 = |a: &[u8; 16]| [a[12], a[13], a[14], a[15]];
        KeyV4 { peer: v4(&key.peer), local: v4(&key.local), ports: [key.peer_port, key.local_port] }
    }

    fn unpack(&self) -> FlowKey {
        FlowKey::v4(self.peer, self.local, self.ports[0], self.ports[1])
    }

    fn peer_port(&self) -> u16 {
        self.ports[0]
    }
}

impl Key for KeyV6 {
    type Start = ();

    fn pack(key: &FlowKey) -> Self {
        KeyV6 { peer: key.peer, local: key.local, ports: [key.peer_port, key.local_port] }
    }

    fn unpack(&self) -> FlowKey {
        FlowKey::v6(self.peer, self.local, self.ports[0], self.ports[1])
    }

    fn peer_port(&self) -> u16 {
        self.ports[0]
    }
}

/// One parked connection, or a free place: then `snd_nxt` names the next one.
#[derive(Clone, Copy)]
pub(super) struct Record<K: Key> {
    /// Takes no room.
    _start: [K::Start; 0],
    pub(super) key: K,
    pub(super) snd_nxt: u32,
    pub(super) rcv_nxt: u32,
    /// See `ASKS`.
    clock: u32,
    wake_at: u32,
    token: u32,
    recent: u32,
    cwnd: u32,
    flags: u16,
    /// As it stood in the header.
    window: u16,
    peer_mss: u16,
    room: u16,
    space: u16,
    srtt: u16,
    variation: u16,
    ssthresh: u16,
    tci: u16,
    mac: [u8; 6],
}

/// The peer's window shift; `SHIFT_NONE`: nobody scales.
const SHIFT: u16 = 15;
const SHIFT_NONE: u16 = 15;
const SACK: u16 = 1 << 4;
const ECN: [u16; 3] = [1 << 5, 1 << 6, 1 << 7];
const STAMPS: u16 = 1 << 8;
const TAGGED: u16 = 1 << 9;
const NEW_RENO: u16 = 1 << 10;
const HANDSHAKE_LOST: u16 = 1 << 11;
/// `clock` is when the peer is to be asked whether it lives, rounded up; without it, when it was last heard, rounded down.
const ASKS: u16 = 1 << 12;
const BACKOFFS_SHIFT: u32 = 13;
const BACKOFFS_MAX: u8 = 7;

/// Unit of our own windows, bytes: what their scale can express.
const UNIT: u64 = 128;

impl<K: Key> Record<K> {
    /// `None`: there is a number in it that has no place here.
    pub(super) fn pack(rest: &Resting) -> Option<Self> {
        let History { srtt_us, variation_us, handshake_lost, backoffs, cwnd, ssthresh, algorithm, cwr } = rest.history;
        let shift = u32::from(rest.peer_shift.unwrap_or(0));
        let mut flags = rest.peer_shift.map_or(SHIFT_NONE, u16::from) | u16::from(backoffs) << BACKOFFS_SHIFT;
        let [agreed, echo, reduced] = rest.ecn;
        for (is, flag) in [
            (rest.sack, SACK),
            (agreed, ECN[0]),
            (echo, ECN[1]),
            (reduced || agreed && cwr, ECN[2]),
            (rest.recent.is_some(), STAMPS),
            (rest.tci.is_some(), TAGGED),
            (algorithm == Algorithm::NewReno, NEW_RENO),
            (handshake_lost, HANDSHAKE_LOST),
            (rest.asks.is_some(), ASKS),
        ] {
            flags |= if is { flag } else { 0 };
        }
        let clock = rest.asks.map_or(Coarse::before(rest.heard), |(at, _)| Coarse::after(at));
        let wake_at = rest.wake_at.map_or(Coarse::NEVER, Coarse::after);
        if backoffs > BACKOFFS_MAX
            || clock == Coarse::NEVER
            || rest.key.peer_port == 0
            || shift >= u32::from(SHIFT_NONE)
        {
            return None;
        }
        Some(Record {
            _start: [],
            key: K::pack(&rest.key),
            snd_nxt: rest.snd_nxt,
            rcv_nxt: rest.rcv_nxt,
            clock: clock.bits(),
            wake_at: wake_at.bits(),
            token: rest.token,
            recent: rest.recent.unwrap_or(0),
            cwnd,
            flags,
            window: u16::try_from(rest.window >> shift).ok()?,
            peer_mss: rest.peer_mss,
            // Never less than the peer was told.
            room: u16::try_from(rest.room.div_ceil(UNIT)).ok()?,
            space: u16::try_from((rest.space + 1) / UNIT).ok()?,
            srtt: float(srtt_us),
            variation: float(variation_us),
            ssthresh: float(ssthresh),
            tci: rest.tci.unwrap_or(0),
            mac: rest.mac,
        })
    }

    /// What was packed, but for what is rounded. `keep_alive_us` is the silence after which its peer is asked, if any is.
    pub(super) fn unpack(&self, keep_alive_us: Option<u64>) -> Resting {
        let has = |flag: u16| self.flags & flag != 0;
        let shift = self.flags & SHIFT;
        let peer_shift = (shift != SHIFT_NONE).then_some(shift as u8);
        let clock = Coarse::from_bits(self.clock).instant();
        let silence_us = keep_alive_us.unwrap_or(0);
        let heard = Instant::from_micros(clock.micros().saturating_sub(if has(ASKS) { silence_us } else { 0 }));
        let wake_at = Coarse::from_bits(self.wake_at);
        Resting {
            key: self.key.unpack(),
            snd_nxt: self.snd_nxt,
            rcv_nxt: self.rcv_nxt,
            window: u32::from(self.window) << peer_shift.unwrap_or(0),
            peer_shift,
            peer_mss: self.peer_mss,
            sack: has(SACK),
            ecn: ECN.map(has),
            recent: has(STAMPS).then_some(self.recent),
            history: History {
                srtt_us: unfloat(self.srtt),
                variation_us: unfloat(self.variation),
                handshake_lost: has(HANDSHAKE_LOST),
                backoffs: (self.flags >> BACKOFFS_SHIFT) as u8,
                cwnd: self.cwnd,
                ssthresh: unfloat(self.ssthresh),
                algorithm: if has(NEW_RENO) { Algorithm::NewReno } else { Algorithm::Cubic },
                cwr: false,
            },
            room: u64::from(self.room) * UNIT,
            space: (u64::from(self.space) * UNIT).saturating_sub(1),
            mac: self.mac,
            tci: has(TAGGED).then_some(self.tci),
            heard,
            asks: has(ASKS).then_some((clock, silence_us)),
            wake_at: (wake_at != Coarse::NEVER).then(|| wake_at.instant()),
            token: self.token,
        }
    }

    /// Whether it is in use.
    pub(super) fn is_taken(&self) -> bool {
        self.key.peer_port() != 0
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Coarse {
        let asks = if self.flags & ASKS != 0 { self.clock } else { u32::MAX };
        Coarse::from_bits(asks.min(self.wake_at))
    }
}

/// Bits of a mantissa, its leading one not counted.
const MANTISSA: u32 = 11;

/// A number in 16 bits: 5 of exponent, 11 of mantissa; rounded down by less than 1/2048. `u32::MAX` stays what it is.
fn float(n: u32) -> u16 {
    match n {
        u32::MAX => u16::MAX,
        0..2048 => n as u16,
        _ => {
            let shift = 31 - n.leading_zeros() - MANTISSA;
            (((shift + 1) << MANTISSA) | (n >> shift & ((1 << MANTISSA) - 1))) as u16
        }
    }
}

fn unfloat(bits: u16) -> u32 {
    let (exponent, mantissa) = (u32::from(bits) >> MANTISSA, u32::from(bits) & ((1 << MANTISSA) - 1));
    match exponent {
        _ if bits == u16::MAX => u32::MAX,
        0 => mantissa,
        _ => ((1 << MANTISSA) | mantissa) << (exponent - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_hold_any_number_to_a_part_in_two_thousand() {
        for n in (0..100_000).chain((0..32).flat_map(|s| [(1u64 << s) as u32, ((1u64 << s) * 3 / 2) as u32])) {
            let back = unfloat(float(n));
            assert!(back <= n && n - back <= n / 2048, "{n} came back as {back}");
            assert_eq!(unfloat(float(back)), back, "rounding happens once");
        }
        assert_eq!(unfloat(float(u32::MAX)), u32::MAX);
        assert!(unfloat(float(1 << 30)) == 1 << 30);
    }
}
