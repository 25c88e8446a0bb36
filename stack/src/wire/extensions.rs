//! IPv6 extension headers (RFC 8200 4).

use super::parsed::DropReason;

/// Extension headers that one packet may carry; a sender with reason needs four.
const EXTENSIONS_MAX: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const DESTINATION: u8 = 60;

/// What the extension headers lead to. Offsets count from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chain {
    /// Where the first other header starts.
    pub(super) at: usize,
    /// Its number.
    pub(super) protocol: u8,
    /// Where that number stands.
    pub(super) named_at: usize,
}

/// Why the extension headers lead nowhere. Offsets count from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    Drop(DropReason),
    /// The packet ends inside them.
    Short,
    /// What follows the header at `at` is a part of a packet.
    Fragment {
        at: usize,
    },
    /// The sender is to be told (RFC 4443 3.4): a code, and where in the packet the trouble is.
    Problem {
        code: u8,
        at: usize,
    },
}

/// Erroneous header field.
pub(super) const ERRONEOUS: u8 = 0;
/// Unrecognized next header.
pub(super) const UNKNOWN_HEADER: u8 = 1;
/// Unrecognized option.
const UNKNOWN_OPTION: u8 = 2;
/// The first fragment does not hold all headers (RFC 7112).
pub(super) const INCOMPLETE: u8 = 3;

/// Walks the extension headers of `packet` (the frame, cut at the end of the IP packet) from where `from` says. Hop-by-hop
/// and destination options pass if every option in them may be skipped, routing headers with no segments left and atomic
/// fragments pass (RFC 8200 4.2 - 4.6, RFC 5095, RFC 6946).
#[cold]
pub(super) fn skip(packet: &[u8], from: Chain) -> Result<Chain, Stop> {
    let mut chain = from;
    for nth in 0..=EXTENSIONS_MAX {
        let protocol = chain.protocol;
        let known = matches!(protocol, ROUTING | FRAGMENT | DESTINATION) || (protocol == HOP_BY_HOP && nth == 0);
        if !known {
            return Ok(chain);
        }
        let at = chain.at;
        let rest = packet.get(at..).ok_or(Stop::Short)?;
        let [next, len, b2, b3, ..] = *rest else { return Err(Stop::Short) };
        let header_len = if protocol == FRAGMENT { 8 } else { 8 + usize::from(len) * 8 };
        let header = rest.get(..header_len).ok_or(Stop::Short)?;
        match protocol {
            // Offset or More; the two reserved bits in between say nothing.
            FRAGMENT if u16::from_be_bytes([b2, b3]) & 0xfff9 != 0 => return Err(Stop::Fragment { at }),
            FRAGMENT => {}
            // No type of it means anything to us, type 0 least of all (RFC 5095): the type is what we do not know.
            ROUTING if b3 != 0 => return Err(Stop::Problem { code: ERRONEOUS, at: at + 2 }),
            ROUTING => {}
            _ => options_may_be_skipped(header, at)?,
        }
        chain = Chain { at: at + header_len, protocol: next, named_at: at };
    }
    Err(Stop::Drop(DropReason::Malformed))
}

/// Whether every option in `header`, which starts at `at`, is padding or one whose number says "skip me if you do not know
/// me" (RFC 8200 4.2).
fn options_may_be_skipped(header: &[u8], at: usize) -> Result<(), Stop> {
    let mut option_at = 2;
    while let Some(&kind) = header.get(option_at) {
        if kind == 0 {
            option_at += 1;
            continue;
        }
        match kind >> 6 {
            0 => {}
            1 => return Err(Stop::Drop(DropReason::NotOurs)),
            _ => return Err(Stop::Problem { code: UNKNOWN_OPTION, at: at + option_at }),
        }
        let len = header.get(option_at + 1).ok_or(Stop::Drop(DropReason::Malformed))?;
        option_at += 2 + usize::from(*len);
        if option_at > header.len() {
            return Err(Stop::Drop(DropReason::Malformed));
        }
    }
    Ok(())
}

/// Whether a packet is an ICMPv6 error, as far as can be told without judging its extension headers: no error may answer
/// it (RFC 4443 2.4 e).
pub(super) fn carries_icmp_error(packet: &[u8], from: Chain) -> bool {
    let (mut at, mut protocol) = (from.at, from.protocol);
    for _ in 0..=2 * EXTENSIONS_MAX {
        let Some(&[next, len, ..]) = packet.get(at..) else { return false };
        match protocol {
            super::PROTO_ICMP6 => return next < 128,
            FRAGMENT => at += 8,
            HOP_BY_HOP | ROUTING | DESTINATION => at += 8 + usize::from(len) * 8,
            _ => return false,
        }
        protocol = next;
    }
    true
}
