//! TCP timestamps (RFC 7323): what goes into the option, what an echo means, and PAWS.

use crate::Instant;
use crate::wire::TcpOptions;

/// How long a remembered timestamp may be compared with: 24 days, less than half the peer's number space at a tick of
/// 1 ms (RFC 7323 5.5; Linux: `TCP_PAWS_24DAYS`).
const OUTDATED_US: u64 = 24 * 24 * 3600 * 1_000_000;
/// Low bits of a cookie's TSval that carry the options of a SYN (Linux: `TSBITS`).
const COOKIE_BITS: u32 = 6;
/// Of those, the window shift; this value: the peer does not scale.
const NO_SHIFT: u32 = 15;
/// Bytes of the option, padded to 32 bits.
pub(crate) const OPTION_LEN: usize = 12;

/// One connection's timestamps: 1 ms a tick, from an offset that only the two hosts can know (RFC 7323 7.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamps {
    offset: u32,
    /// TS.Recent: what we echo, and what nothing may be older than.
    recent: u32,
    recent_at: Instant,
}

/// What a SYN asked for and a cookie's timestamp remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Remembered {
    pub(crate) shift: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) ecn: bool,
}

impl Timestamps {
    /// The peer's SYN carried `tsval`.
    pub(crate) fn new(now: Instant, offset: u32, tsval: u32) -> Self {
        Timestamps { offset, recent: tsval, recent_at: now }
    }

    #[inline]
    fn clock(&self, now: Instant) -> u32 {
        ((now.micros() / 1000) as u32).wrapping_add(self.offset)
    }

    /// TS.Recent.
    pub(crate) fn recent(&self) -> u32 {
        self.recent
    }

    /// When it was taken.
    pub(crate) fn recent_at(&self) -> Instant {
        self.recent_at
    }

    /// The option as it stands in a segment sent `now`, behind two NOPs (RFC 7323 appendix A).
    #[inline]
    pub(crate) fn option(&self, now: Instant) -> [u8; OPTION_LEN] {
        option(self.clock(now), self.recent)
    }

    /// RFC 7323 5.3 R1: whether a segment is an old duplicate.
    #[inline]
    pub(crate) fn is_old(&self, now: Instant, tsval: u32) -> bool {
        (tsval.wrapping_sub(self.recent) as i32) < 0 && now.micros_since(self.recent_at) < OUTDATED_US
    }

    /// How much older than the newest a timestamp is that [`is_old`](Self::is_old), microseconds by a clock of
    /// milliseconds, the slowest that is usual.
    #[inline]
    pub(crate) fn age_us(&self, tsval: u32) -> u64 {
        u64::from(self.recent.wrapping_sub(tsval)) * 1000
    }

    /// RFC 7323 4.3 (2), of a segment that holds or precedes the last byte acknowledged and passed [`is_old`](Self::is_old).
    #[inline]
    pub(crate) fn take(&mut self, now: Instant, tsval: u32) {
        (self.recent, self.recent_at) = (tsval, now);
    }

    /// When the segment was sent that TSecr answers, to the millisecond below. `None`: we never sent that.
    #[inline]
    pub(crate) fn sent_at(&self, now: Instant, tsecr: u32) -> Option<Instant> {
        let age_ms = self.clock(now).wrapping_sub(tsecr);
        let tick = (now.micros() / 1000).checked_sub(u64::from(age_ms))?;
        (age_ms < 1 << 31).then(|| Instant::from_millis(tick))
    }

    /// The option of a SYN|ACK that is all that remains of a SYN: the newest TSval up to now that ends in what the SYN
    /// asked for.
    pub(crate) fn cookie_option(&self, now: Instant, syn: &Remembered) -> [u8; OPTION_LEN] {
        let shift = syn.shift.map_or(NO_SHIFT, u32::from);
        let bits = shift | u32::from(syn.sack) << 4 | u32::from(syn.ecn) << 5;
        let mask = (1 << COOKIE_BITS) - 1;
        let clock = self.clock(now);
        let tsval = clock & !mask | bits;
        let ahead = tsval.wrapping_sub(clock) as i32 > 0;
        option(if ahead { tsval.wrapping_sub(1 << COOKIE_BITS) } else { tsval }, self.recent)
    }

    /// What the TSecr of a handshake's ACK says of the SYN. Nothing vouches for it but the peer, whom alone it concerns.
    pub(crate) fn remembered(tsecr: u32) -> Remembered {
        let shift = tsecr & 15;
        Remembered {
            shift: (shift != NO_SHIFT).then_some((shift as u8).min(14)),
            sack: tsecr & 1 << 4 != 0,
            ecn: tsecr & 1 << 5 != 0,
        }
    }
}

/// PAWS (RFC 7323 5.3) for a segment with these options, of a flow with these `stamps`. A segment without the option passes:
/// the RFC would have it dropped, but there are peers whose keep-alives come without, and Linux takes them too.
#[inline]
pub(crate) fn is_old_duplicate(stamps: Option<&Timestamps>, now: Instant, said: &TcpOptions) -> bool {
    match (stamps, said.timestamps) {
        (Some(stamps), Some((tsval, _))) => stamps.is_old(now, tsval),
        _ => false,
    }
}

#[inline]
fn option(tsval: u32, tsecr: u32) -> [u8; OPTION_LEN] {
    let (v, e) = (tsval.to_be_bytes(), tsecr.to_be_bytes());
    [1, 1, 8, 10, v[0], v[1], v[2], v[3], e[0], e[1], e[2], e[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tsval(option: [u8; OPTION_LEN]) -> u32 {
        u32::from_be_bytes([option[4], option[5], option[6], option[7]])
    }

    #[test]
    fn an_echo_names_when_its_segment_was_sent() {
        let stamps = Timestamps::new(Instant::ZERO, 0xffff_fff0, 7);
        for sent in [0, 999, 1_000, 55_555, 3_000_000_000] {
            let sent = Instant::from_micros(sent);
            let value = tsval(stamps.option(sent));
            let echo = stamps.sent_at(sent.plus_micros(123_456), value);
            assert_eq!(echo, Some(Instant::from_millis(sent.micros() / 1000)));
        }
        let now = Instant::from_millis(50);
        let ahead = tsval(stamps.option(now.plus_micros(1000)));
        assert_eq!(stamps.sent_at(now, ahead), None, "from the future");
        let before = tsval(stamps.option(Instant::ZERO)).wrapping_sub(1);
        assert_eq!(stamps.sent_at(now, before), None, "from before our time");
    }

    #[test]
    fn paws_compares_modulo_and_forgets_after_24_days() {
        let now = Instant::from_millis(5);
        let stamps = Timestamps::new(now, 0, 10);
        assert!(!stamps.is_old(now, 10));
        assert!(!stamps.is_old(now, 11));
        assert!(stamps.is_old(now, 9));
        assert!(stamps.is_old(now, u32::MAX), "wraps");
        assert!(!stamps.is_old(now.plus_micros(OUTDATED_US), 9), "RFC 7323 5.5");
    }

    #[test]
    fn a_cookie_is_never_from_the_future_and_brings_everything_back() {
        let stamps = Timestamps::new(Instant::ZERO, 0x1234_5678, 0);
        for ms in (0..1000).chain(1_000_000..1_000_200) {
            let now = Instant::from_millis(ms);
            for shift in [None, Some(0), Some(7), Some(14)] {
                for (sack, ecn) in [(false, false), (true, false), (false, true), (true, true)] {
                    let syn = Remembered { shift, sack, ecn };
                    let value = tsval(stamps.cookie_option(now, &syn));
                    let age = stamps.clock(now).wrapping_sub(value);
                    assert!(age < 64, "{age}");
                    assert_eq!(Timestamps::remembered(value), syn);
                }
            }
        }
    }
}
