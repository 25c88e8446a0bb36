//! IPv6 extension headers (RFC 8200 4).

use super::parsed::DropReason;

/// Extension headers that one packet may carry; a sender with reason needs four.
const EXTENSIONS_MAX: usize = 6;

/// Walks the extension headers of `packet` (the frame, cut at the end of the IP packet) from `at` on and returns where
/// the first other header starts and its number. Hop-by-hop and destination options pass if every option in them may
/// be skipped, routing headers with no segments left and atomic fragments pass (RFC 8200 4.2 - 4.6, RFC 6946).
#[cold]
pub(super) fn skip(packet: &[u8], mut at: usize, mut protocol: u8) -> Result<(usize, u8), DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    for nth in 0..=EXTENSIONS_MAX {
        let known = matches!(protocol, ROUTING | FRAGMENT | DESTINATION) || (protocol == HOP_BY_HOP && nth == 0);
        if !known {
            return Ok((at, protocol));
        }
        let rest = packet.get(at..).ok_or(DropReason::Malformed)?;
        let [next, len, b2, b3, ..] = *rest else { return Err(DropReason::Malformed) };
        let header_len = if protocol == FRAGMENT { 8 } else { 8 + usize::from(len) * 8 };
        let header = rest.get(..header_len).ok_or(DropReason::Malformed)?;
        match protocol {
            // Offset or More; the two reserved bits in between say nothing.
            FRAGMENT if u16::from_be_bytes([b2, b3]) & 0xfff9 != 0 => return Err(DropReason::Fragment),
            FRAGMENT => {}
            ROUTING if b3 != 0 => return Err(DropReason::NotOurs),
            ROUTING => {}
            _ => options_may_be_skipped(header.get(2..).unwrap_or(&[]))?,
        }
        at += header_len;
        protocol = next;
    }
    Err(DropReason::Malformed)
}

/// Whether every option is padding or one whose number says "skip me if you do not know me" (RFC 8200 4.2).
fn options_may_be_skipped(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        if *kind == 0 {
            options = rest;
            continue;
        }
        let [len, rest @ ..] = rest else { return Err(DropReason::Malformed) };
        if kind >> 6 != 0 {
            return Err(DropReason::NotOurs);
        }
        options = rest.get(usize::from(*len)..).ok_or(DropReason::Malformed)?;
    }
    Ok(())
}
