//! A whole trace: its flows, and what else was in it.

use super::flow::Flow;
use super::fragments::{Fragments, Taken};
use super::link;
use super::reader::{Bounds, OpenError, Reader};
use super::segment::{Content, dissect};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

/// Troubles of single packets that are told; of more only the number is.
const TOLD_MAX: usize = 10;

/// What a trace holds.
#[derive(Debug, Default)]
pub struct Trace {
    /// Its TCP flows, in the order of their first packets.
    pub flows: Vec<Flow>,
    /// Packets read.
    pub packets: u64,
    /// TCP segments among them that belong to a flow.
    pub segments: u64,
    /// Packets that are no TCP.
    pub others: u64,
    /// Fragments of IP packets that never became whole.
    pub fragments: u64,
    /// Packets that are TCP, or should be, and cannot be used: the first ones, with the reason.
    pub malformed: Vec<(u64, &'static str)>,
    /// How many of those there are.
    pub malformed_count: u64,
    /// Segments of flows that there was no place for.
    pub left_out: u64,
    /// Why reading ended before the end of the file.
    pub damage: Option<String>,
}

impl Trace {
    /// Reads a trace as far as `bounds` and its state allow.
    ///
    /// # Errors
    /// There is nothing to use in it.
    pub fn read(path: &Path, bounds: &Bounds) -> Result<Trace, OpenError> {
        let mut reader = Reader::open(path)?;
        let mut trace = Trace::default();
        let mut table = Table::default();
        let (mut bytes, mut fragments) = (0, Fragments::default());
        loop {
            if trace.packets >= bounds.packets || bytes > bounds.bytes {
                let end = format!("only its first {} packets are used, which is as much as is held", trace.packets);
                trace.damage = Some(end);
                break;
            }
            let layer = reader.link;
            match reader.next() {
                Ok(Some(packet)) => {
                    trace.packets += 1;
                    bytes += packet.bytes.len() as u64;
                    match link::ip(layer, packet.bytes) {
                        Some(ip) => {
                            let (number, at_ns) = (packet.number, packet.at_ns);
                            let (content, pieces) = whole(number, at_ns, ip, &mut fragments);
                            trace.take(content, number, pieces, &mut table, bounds);
                        }
                        None => trace.others += 1,
                    }
                }
                Ok(None) => break,
                Err(sentence) => {
                    trace.damage = Some(sentence);
                    break;
                }
            }
        }
        trace.blame(fragments, &table);
        if trace.flows.is_empty() {
            let path = path.display().to_string();
            // The end of the file before the first of what was left out.
            let trouble = trace.damage.clone().or_else(|| trace.troubles().into_iter().next());
            let damage = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
            return Err(OpenError::NoTcp { path, packets: trace.packets, damage });
        }
        Ok(trace)
    }

    /// Fragments that are of no use, with the flow that they are of where that is known.
    fn blame(&mut self, fragments: Fragments, table: &Table) {
        for (ends, pieces) in fragments.left() {
            self.fragments += pieces;
            if let Some(index) = ends.and_then(|(from, to)| table.0.get(&key(from, to))) {
                self.flows[*index].fragments_lost += pieces;
            }
        }
    }

    fn take(&mut self, content: Content, number: u64, pieces: u64, table: &mut Table, bounds: &Bounds) {
        match content {
            Content::Other => self.others += 1,
            // It waits for the others.
            Content::Fragment => {}
            Content::Malformed(what) => {
                self.malformed_count += 1;
                if self.malformed.len() < TOLD_MAX {
                    self.malformed.push((number, what));
                }
            }
            Content::Tcp(from, to, segment) => {
                let key = key(from, to);
                let known = table.0.get(&key).copied();
                let index = match known {
                    Some(index) if !self.flows[index].is_followed_by(from, &segment) => index,
                    _ if self.flows.len() >= bounds.flows => {
                        self.left_out += 1;
                        return;
                    }
                    _ => {
                        self.flows.push(Flow::new(self.flows.len() + 1, from, to, &segment));
                        table.0.insert(key, self.flows.len() - 1);
                        self.flows.len() - 1
                    }
                };
                self.segments += 1;
                self.flows[index].fragments += pieces;
                self.flows[index].add(from, segment);
            }
        }
    }

    /// Whether all of it that is TCP could be read, and is used.
    pub fn is_sound(&self) -> bool {
        self.damage.is_none() && self.malformed_count == 0 && self.left_out == 0
    }

    /// What could not be used, a sentence each.
    pub fn troubles(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.malformed.iter().map(|(number, what)| format!("packet {number} is left out: {what}")).collect();
        let untold = self.malformed_count - self.malformed.len() as u64;
        if untold > 0 {
            lines.push(format!("{untold} more packets are left out for reasons like these"));
        }
        if self.fragments > 0 {
            lines.push(format!("{} fragments are left out: their IP packets are not whole", self.fragments));
        }
        if self.left_out > 0 {
            let (segments, flows) = (self.left_out, self.flows.len());
            lines.push(format!(
                "{segments} segments of further flows are left out: only the first {flows} flows are used"
            ));
        }
        lines.extend(self.damage.clone());
        lines
    }
}

/// What a packet holds, and in how many fragments it came.
fn whole(number: u64, at_ns: u64, ip: &[u8], fragments: &mut Fragments) -> (Content, u64) {
    let content = dissect(number, at_ns, ip);
    if !matches!(content, Content::Fragment) {
        return (content, 0);
    }
    match fragments.take(at_ns, ip) {
        Taken::Waits => (Content::Fragment, 0),
        Taken::Whole(packet, pieces) => (dissect(number, at_ns, &packet), pieces),
        Taken::Useless(why) => (Content::Malformed(why), 0),
    }
}

fn key(from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    if from < to { (from, to) } else { (to, from) }
}

/// The latest flow between two ends.
#[derive(Default)]
struct Table(HashMap<(SocketAddr, SocketAddr), usize>);
