//! Scripts as text. What is written here reads back as the same.

use super::model::{
    Body, Command, Event, Family, Header, Icmp, Line, Linux, Marks, Packet, Script, Tcp, TcpOption, Trouble, When,
};
use khamsin_stack::wire::Flags;
use std::fmt::{Display, Formatter, Result};
use std::ops::RangeInclusive;

/// Letters of the control bits, in the order in which they are written.
pub(super) const FLAG_LETTERS: [(char, Flags); 8] = [
    ('S', Flags::SYN),
    ('F', Flags::FIN),
    ('R', Flags::RST),
    ('P', Flags::PSH),
    ('U', Flags::URG),
    ('E', Flags::ECE),
    ('W', Flags::CWR),
    ('.', Flags::ACK),
];
/// Names of the ECN field's values.
pub(super) const ECN_NAMES: [&str; 4] = ["noecn", "ect1", "ect0", "ce"];

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "{}", self.header)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Display for Header {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "# {}", self.clauses)?;
        self.why.iter().try_for_each(|line| writeln!(f, "# {line}"))?;
        if let [only] = self.families[..] {
            writeln!(f, "# ip: {only}")?;
        }
        if self.port_closed {
            writeln!(f, "# port: closed")?;
        }
        if let Some(backlog) = self.syn_backlog {
            writeln!(f, "# syn-backlog: {backlog}")?;
        }
        for (name, time) in [("keep-alive", self.keep_alive_us), ("user-timeout", self.user_timeout_us)] {
            time.iter().try_for_each(|time| writeln!(f, "# {name}: {}", Seconds(*time)))?;
        }
        self.sysctls.iter().try_for_each(|(name, value)| writeln!(f, "# sysctl: {name}={value}"))?;
        match &self.linux {
            Linux::Same => {}
            Linux::Differs(reason) => writeln!(f, "# linux: differs — {reason}")?,
            Linux::NotRun(reason) => writeln!(f, "# linux: not run — {reason}")?,
        }
        self.parked.iter().try_for_each(|why| writeln!(f, "# parked: differs — {why}"))?;
        self.pending.iter().try_for_each(|what| writeln!(f, "# pending: {what}"))
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Family::V4 => "v4",
            Family::V6 => "v6",
        })
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.comments.iter().try_for_each(|line| writeln!(f, "# {line}"))?;
        write!(f, "{} {}", self.when, self.event)
    }
}

impl Display for When {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (range, sign) = match self {
            When::After(range) => (range, "+"),
            When::At(range) => (range, ""),
            When::Any => return f.write_str("*"),
        };
        write!(f, "{sign}{}", Seconds(*range.start()))?;
        if range.end() > range.start() { write!(f, "~{sign}{}", Seconds(*range.end())) } else { Ok(()) }
    }
}

/// Microseconds as seconds, without needless digits: `.1`, `2`, `1.000001`.
pub(super) struct Seconds(pub(super) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (whole, part) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if whole > 0 || part == 0 {
            write!(f, "{whole}")?;
        }
        if part > 0 { write!(f, ".{}", format!("{part:06}").trim_end_matches('0')) } else { Ok(()) }
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Event::In(packet) => write!(f, "< {packet}"),
            Event::Out(packet) => write!(f, "> {packet}"),
            Event::App(command) => write!(f, "{command}"),
            Event::Silence => f.write_str("silence"),
            Event::Anything => f.write_str("anything"),
        }
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Command::Accept => "accept",
            Command::Read(n) => return write!(f, "read {n}"),
            Command::Write(n) => return write!(f, "write {n}"),
            Command::Shutdown => "shutdown",
            Command::Close => "close",
            Command::Abort => "abort",
            Command::ExpectEof => "expect eof",
            Command::ExpectReset => "expect reset",
            Command::ExpectTimeout => "expect timeout",
            Command::ExpectOpen => "expect open",
        })
    }
}

impl Display for Packet {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", self.marks)?;
        match &self.body {
            Body::Tcp(tcp) => write!(f, "{tcp}"),
            Body::Icmp(icmp) => write!(f, "{icmp}"),
        }
    }
}

impl Display for Marks {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let ecn = self.ecn.and_then(|ecn| ECN_NAMES.get(usize::from(ecn))).copied();
        let sum = self.bad_checksum.then_some("badsum");
        let words: Vec<&str> = [ecn, sum, self.broadcast.then_some("broadcast")].into_iter().flatten().collect();
        if words.is_empty() { Ok(()) } else { write!(f, "[{}] ", words.join(",")) }
    }
}

impl Display for Tcp {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (letter, _) in FLAG_LETTERS.iter().filter(|(_, flag)| self.flags.contains(*flag)) {
            write!(f, "{letter}")?;
        }
        if self.flags == Flags(0) {
            f.write_str("-")?;
        }
        write!(f, " {}", Span(self.seq, self.len))?;
        self.ack.iter().try_for_each(|ack| write!(f, " ack {ack}"))?;
        if self.any_ack {
            f.write_str(" ack *")?;
        }
        self.window.iter().try_for_each(|window| write!(f, " win {}", Range(window)))?;
        self.urgent.iter().try_for_each(|urgent| write!(f, " urg {urgent}"))?;
        let mut words: Vec<String> = self.options.iter().map(ToString::to_string).collect();
        if self.more_options {
            words.push("...".to_owned());
        }
        if words.is_empty() { Ok(()) } else { write!(f, " <{}>", words.join(",")) }
    }
}

struct Range<'r>(&'r RangeInclusive<u16>);

impl Display for Range<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (from, to) = (self.0.start(), self.0.end());
        if from == to { write!(f, "{from}") } else { write!(f, "{from}~{to}") }
    }
}

/// `FIRST:END(LEN)`.
struct Span(u32, u32);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}:{}({})", self.0, self.0.wrapping_add(self.1), self.1)
    }
}

/// A number or `*`.
struct Or<T>(Option<T>);

impl<T: Display> Display for Or<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("*"),
        }
    }
}

impl Display for TcpOption {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            TcpOption::Nop => f.write_str("nop"),
            TcpOption::End => f.write_str("eol"),
            TcpOption::Mss(mss) => write!(f, "mss {}", Or(*mss)),
            TcpOption::WindowScale(shift) => write!(f, "wscale {}", Or(*shift)),
            TcpOption::SackPermitted => f.write_str("sackOK"),
            TcpOption::Sack(blocks) => {
                f.write_str("sack")?;
                blocks.iter().try_for_each(|(left, right)| write!(f, " {left}:{right}"))
            }
            TcpOption::Timestamps { val, ecr } => write!(f, "TS val {} ecr {}", Or(*val), Or(*ecr)),
            TcpOption::Other(kind, bytes) => {
                write!(f, "opt {kind}")?;
                if !bytes.is_empty() {
                    f.write_str(" ")?;
                }
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl Display for Icmp {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "icmp {} [{}]", self.trouble, Span(self.seq, self.len))
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Trouble::Net => "unreachable net_unreachable",
            Trouble::Host => "unreachable host_unreachable",
            Trouble::Protocol => "unreachable protocol_unreachable",
            Trouble::Port => "unreachable port_unreachable",
            Trouble::Admin => "unreachable admin_prohibited",
            Trouble::TooBig(mtu) => return write!(f, "unreachable frag_needed mtu {mtu}"),
            Trouble::TimeExceeded => "time_exceeded",
            Trouble::SourceQuench => "source_quench",
        })
    }
}
