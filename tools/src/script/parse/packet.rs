//! Reading packets.

use super::{Parsed, number};
use crate::script::display::{ECN_NAMES, FLAG_LETTERS};
use crate::script::model::{Body, Icmp, Marks, Packet, Tcp, TcpOption, Trouble};
use khamsin_stack::wire::Flags;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Reads what follows `<` or `>`.
pub(super) fn packet(text: &str, inbound: bool) -> Parsed<Packet> {
    let (marks, rest) = marks(text)?;
    let body = match rest.strip_prefix("icmp ") {
        Some(rest) => Body::Icmp(icmp(rest)?),
        None => Body::Tcp(tcp(rest)?),
    };
    let packet = Packet { marks, body };
    if inbound {
        sendable(&packet)?
    } else {
        expectable(&packet)?
    }
    Ok(packet)
}

/// What the peer sends says everything.
fn sendable(packet: &Packet) -> Parsed<()> {
    let Body::Tcp(tcp) = &packet.body else { return Ok(()) };
    if tcp.more_options || tcp.any_ack || tcp.window.as_ref().is_some_and(|w| w.start() != w.end()) {
        return Err("what the peer sends (`<`) is sent as it stands: no `...`, no `ack *`, no range".to_owned());
    }
    if tcp.ack.is_some() != tcp.flags.ack() {
        return Err("`ack N` and the flag `.` go together".to_owned());
    }
    let open = |option: &TcpOption| {
        matches!(option, TcpOption::Mss(None) | TcpOption::WindowScale(None) | TcpOption::Timestamps { val: None, .. })
    };
    if tcp.options.iter().any(open) {
        return Err("`*` is for what the server sends; the peer may only have `ecr *`".to_owned());
    }
    Ok(())
}

fn expectable(packet: &Packet) -> Parsed<()> {
    if matches!(packet.body, Body::Icmp(_)) || packet.marks.bad_checksum || packet.marks.broadcast {
        return Err("ICMP, `badsum` and `broadcast` are for what is sent to the server (`<`)".to_owned());
    }
    Ok(())
}

fn marks(text: &str) -> Parsed<(Marks, &str)> {
    let mut marks = Marks::default();
    let Some(rest) = text.strip_prefix('[') else { return Ok((marks, text)) };
    let (words, rest) = rest.split_once(']').ok_or("`[` without `]`")?;
    for word in words.split(',').map(str::trim) {
        match word {
            "badsum" => marks.bad_checksum = true,
            "broadcast" => marks.broadcast = true,
            _ => {
                let ecn = ECN_NAMES.iter().position(|name| *name == word);
                marks.ecn = Some(
                    ecn.ok_or_else(|| format!("`[{word}]`: known are {}, badsum, broadcast", ECN_NAMES.join(", ")))?
                        as u8,
                );
            }
        }
    }
    Ok((marks, rest.trim()))
}

fn tcp(text: &str) -> Parsed<Tcp> {
    let (fields, options) = match text.split_once('<') {
        Some((fields, options)) => (fields, Some(options.strip_suffix('>').ok_or("`<` without `>` at the end")?)),
        None => (text, None),
    };
    let mut words = fields.split_whitespace();
    let flags = flags(words.next().ok_or("flags are wanted: `S`, `.`, `F.`, ...")?)?;
    let (seq, len) = span(words.next().ok_or("sequence numbers are wanted: `1:1001(1000)`")?)?;
    let mut tcp = Tcp { flags, seq, len, ..Tcp::default() };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` wants a number"));
        match word {
            "ack" => {
                tcp.ack = or_star(value()?)?;
                tcp.any_ack = tcp.ack.is_none();
            }
            "win" => tcp.window = Some(window(value()?)?),
            "urg" => tcp.urgent = Some(number(value()?)?),
            _ => return Err(format!("`{word}` is none of ack, win, urg")),
        }
    }
    for word in options.unwrap_or("").split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if word == "..." {
            tcp.more_options = true;
        } else {
            tcp.options.push(option(word)?);
        }
    }
    Ok(tcp)
}

fn flags(word: &str) -> Parsed<Flags> {
    if word == "-" {
        return Ok(Flags(0));
    }
    word.chars().try_fold(Flags(0), |flags, letter| {
        let known = FLAG_LETTERS.iter().find(|(l, _)| *l == letter).map(|(_, flag)| flags | *flag);
        known.ok_or_else(|| format!("`{word}`: flags are letters of SFRPUEW and `.` for ACK, or `-` for none"))
    })
}

/// `FIRST:END(LEN)`.
fn span(word: &str) -> Parsed<(u32, u32)> {
    let parts = || {
        let (first, rest) = word.split_once(':')?;
        let (end, len) = rest.strip_suffix(')')?.split_once('(')?;
        Some((first.parse::<u32>().ok()?, end.parse::<u32>().ok()?, len.parse::<u32>().ok()?))
    };
    let (first, end, len) = parts().ok_or_else(|| format!("`{word}` should look like `1:1001(1000)`"))?;
    if first.wrapping_add(len) != end || len > 1_000_000 {
        return Err(format!("`{word}`: {first} and {len} make {}", first.wrapping_add(len)));
    }
    Ok((first, len))
}

fn window(word: &str) -> Parsed<RangeInclusive<u16>> {
    let (from, to) = word.split_once('~').unwrap_or((word, word));
    let range = number(from)?..=number(to)?;
    if range.is_empty() { Err(format!("`win {word}` ends before it begins")) } else { Ok(range) }
}

/// A number or `*`.
fn or_star<N: FromStr>(word: &str) -> Parsed<Option<N>> {
    if word == "*" { Ok(None) } else { number(word).map(Some) }
}

fn option(text: &str) -> Parsed<TcpOption> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words[..] {
        ["nop"] => TcpOption::Nop,
        ["eol"] => TcpOption::End,
        ["sackOK"] => TcpOption::SackPermitted,
        ["mss", n] => TcpOption::Mss(or_star(n)?),
        ["wscale", n] => TcpOption::WindowScale(or_star(n)?),
        ["TS", "val", val, "ecr", ecr] => TcpOption::Timestamps { val: or_star(val)?, ecr: or_star(ecr)? },
        ["sack", ref blocks @ ..] if !blocks.is_empty() => {
            let block = |word: &&str| {
                let (left, right) =
                    word.split_once(':').ok_or_else(|| format!("`{word}` should look like `1001:2001`"))?;
                Ok((number(left)?, number(right)?))
            };
            TcpOption::Sack(blocks.iter().map(block).collect::<Parsed<_>>()?)
        }
        ["opt", kind] => TcpOption::Other(number(kind)?, Vec::new()),
        ["opt", kind, bytes] => TcpOption::Other(number(kind)?, hex(bytes)?),
        _ => {
            return Err(format!(
                "`{text}` is no option that is known: mss N, sackOK, wscale N, TS val N ecr N, sack A:B, nop, eol, opt KIND HEX"
            ));
        }
    })
}

fn hex(word: &str) -> Parsed<Vec<u8>> {
    let wrong = || format!("`{word}` is no sequence of bytes in hexadecimal");
    if !word.len().is_multiple_of(2) || !word.is_ascii() {
        return Err(wrong());
    }
    (0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).map_err(|_| wrong())).collect()
}

fn icmp(text: &str) -> Parsed<Icmp> {
    let quote = || Some(text.strip_suffix(']')?.split_once('['));
    let (what, quoted) = quote().flatten().ok_or("an ICMP error ends with what it quotes: `[1:1001(1000)]`")?;
    let (seq, len) = span(quoted.trim())?;
    let words: Vec<&str> = what.split_whitespace().collect();
    let trouble = match words[..] {
        ["unreachable", "net_unreachable"] => Trouble::Net,
        ["unreachable", "host_unreachable"] => Trouble::Host,
        ["unreachable", "protocol_unreachable"] => Trouble::Protocol,
        ["unreachable", "port_unreachable"] => Trouble::Port,
        ["unreachable", "admin_prohibited"] => Trouble::Admin,
        ["unreachable", "frag_needed", "mtu", mtu] => Trouble::TooBig(number(mtu)?),
        ["time_exceeded"] => Trouble::TimeExceeded,
        ["source_quench"] => Trouble::SourceQuench,
        _ => return Err(format!("`{}` is no ICMP error that is known", what.trim())),
    };
    Ok(Icmp { trouble, seq, len })
}
