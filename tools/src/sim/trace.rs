//! What passes over the wire, as lines to read and as one number to compare.

use khamsin_drivers::sim::client::{ACK, FIN, PSH, Packet, Problem, RST, SYN, Segment, parse};
use khamsin_drivers::sim::{Fate, Side, Sighting, Wire};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;

/// A number that stands for every frame of a run, its time and its fate.
#[derive(Clone, Default)]
pub struct Digest(Rc<RefCell<DefaultHasher>>);

impl Digest {
    /// Takes in every frame of `wire` from now on.
    pub fn of(wire: &Wire) -> Digest {
        let digest = Digest::default();
        let hasher = Rc::clone(&digest.0);
        wire.observe(move |seen, fate| {
            let mut hasher = hasher.borrow_mut();
            hasher.write_u64(seen.at.micros());
            hasher.write_u8(u8::from(seen.from == Side::Left) | u8::from(fate.lost) << 1);
            hasher.write_u64(fate.delay_us);
            hasher.write(seen.frame);
        });
        digest
    }

    /// The number so far.
    pub fn value(&self) -> u64 {
        self.0.borrow().finish()
    }
}

/// Tells frames in tcpdump's words, sequence numbers counted from each side's SYN.
#[derive(Default)]
pub struct Teller {
    first: HashMap<(SocketAddr, SocketAddr), u32>,
}

impl Teller {
    /// Shows `show` a line for every frame of `wire` from now on.
    pub fn of(wire: &Wire, mut show: impl FnMut(String) + 'static) {
        let mut teller = Teller::default();
        wire.observe(move |seen, fate| show(teller.line(seen, fate)));
    }

    /// One frame: when, its number, who sent it, what is in it, and what becomes of it.
    pub fn line(&mut self, seen: &Sighting<'_>, fate: &Fate) -> String {
        let mut line = format!("{:>13.6} ", seen.at.micros() as f64 / 1e6);
        let side = if seen.from == Side::Left { 's' } else { 'p' };
        let _ = write!(line, "{side}{:<5} ", seen.index);
        match parse(seen.frame) {
            Ok(Packet::Tcp(segment)) => self.tell(&mut line, &segment),
            // Cut into segments by the device before it is seen here, so never partial but on purpose.
            Err(Problem::TcpChecksum) => line.push_str("TCP with a wrong checksum"),
            Err(problem) => drop(write!(line, "{problem}")),
            Ok(other) => drop(write!(line, "{other:?}")),
        }
        if fate.lost {
            line.push_str("  LOST");
        } else {
            let _ = write!(line, "  arrives at {:.6}", seen.at.plus_micros(fate.delay_us).micros() as f64 / 1e6);
            if let Some(after_us) = fate.copy_after_us {
                let _ = write!(line, ", again {after_us} us later");
            }
            if let Some(bit) = fate.flipped_bit {
                let _ = write!(line, ", DAMAGED at bit {bit}");
            }
        }
        line
    }

    fn tell(&mut self, line: &mut String, segment: &Segment<'_>) {
        let there = (segment.from, segment.to);
        if segment.flags & SYN != 0 {
            self.first.insert(there, segment.seq);
        }
        let first = self.first.get(&there).copied().unwrap_or(0);
        let theirs = self.first.get(&(segment.to, segment.from)).copied().unwrap_or(0);
        let _ = write!(line, "{} > {}: [{}]", segment.from, segment.to, flags(segment.flags));
        let seq = segment.seq.wrapping_sub(first);
        match segment.payload.len() as u32 {
            0 => drop(write!(line, " seq {seq}")),
            len => drop(write!(line, " seq {seq}:{}", seq.wrapping_add(len))),
        }
        if segment.flags & ACK != 0 {
            let _ = write!(line, " ack {}", segment.ack.wrapping_sub(theirs));
        }
        let _ = write!(line, " win {}", segment.window);
        line.push_str(&options(segment, theirs));
    }
}

fn flags(flags: u8) -> String {
    let letters = [(FIN, 'F'), (SYN, 'S'), (RST, 'R'), (PSH, 'P'), (ACK, '.')];
    let text: String = letters.iter().filter(|(flag, _)| flags & flag != 0).map(|&(_, letter)| letter).collect();
    if text.is_empty() { "none".to_owned() } else { text }
}

fn options(segment: &Segment<'_>, theirs: u32) -> String {
    let mut options = Vec::new();
    options.extend(segment.mss.map(|mss| format!("mss {mss}")));
    options.extend(segment.window_scale.map(|shift| format!("wscale {shift}")));
    options.extend(segment.sack_permitted.then(|| "sackOK".to_owned()));
    options.extend(segment.timestamps.map(|(value, echo)| format!("TS val {value} ecr {echo}")));
    if !segment.sack.is_empty() {
        let ranges = segment.sack.iter();
        let blocks = ranges.map(|(l, r)| format!("{}:{}", l.wrapping_sub(theirs), r.wrapping_sub(theirs)));
        options.push(format!("sack {}", blocks.collect::<Vec<_>>().join(" ")));
    }
    if options.is_empty() { String::new() } else { format!(" <{}>", options.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use khamsin_drivers::sim::client::build;
    use khamsin_stack::Instant;

    #[test]
    fn a_line_reads_like_tcpdump() {
        let (from, to) = ("198.18.0.1:40000".parse().unwrap(), "198.18.0.2:7".parse().unwrap());
        let mut teller = Teller::default();
        let mut tell = |segment: &Segment<'_>, index, fate| {
            let frame = build(Side::Right.mac(), Side::Left.mac(), segment, false);
            let at = Instant::from_micros(1_500);
            teller.line(&Sighting { from: Side::Right, index, at, frame: &frame }, &fate)
        };
        let syn = Segment { seq: 77, window: 100, mss: Some(1460), ..Segment::new(from, to, SYN) };
        let line = tell(&syn, 0, Fate::LOST);
        assert_eq!(line, "     0.001500 p0     198.18.0.1:40000 > 198.18.0.2:7: [S] seq 0 win 100 <mss 1460>  LOST");
        let text = Segment { seq: 78, ack: 5, payload: b"hello", ..Segment::new(from, to, ACK | PSH) };
        let line = tell(&text, 1, Fate { delay_us: 500, ..Fate::FINE });
        let want =
            "     0.001500 p1     198.18.0.1:40000 > 198.18.0.2:7: [P.] seq 1:6 ack 5 win 0  arrives at 0.002000";
        assert_eq!(line, want);
    }
}
