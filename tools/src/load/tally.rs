//! What came of a load, in figures that add up over threads.

use super::judge::Fault;
use anyhow::Result;
use hdrhistogram::Histogram;
use std::time::Duration;

/// What went wrong, as it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// A connection did not come about: refused, unreachable, or no answer to the SYN in time.
    Connect,
    /// Nothing came for too long while something was awaited.
    Timeout,
    /// Another status than the one wanted.
    Status,
    /// Bytes or lengths that are wrong, or no HTTP at all.
    Bytes,
    /// The server ended a connection, by RST or FIN, before everything was answered.
    Reset,
}

impl Trouble {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Trouble; 5] = [Trouble::Connect, Trouble::Timeout, Trouble::Status, Trouble::Bytes, Trouble::Reset];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Trouble::Connect => "connect",
            Trouble::Timeout => "timeout",
            Trouble::Status => "status",
            Trouble::Bytes => "bytes",
            Trouble::Reset => "reset",
        }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        match fault {
            Fault::Status(_) => Trouble::Status,
            _ => Trouble::Bytes,
        }
    }
}

/// Latencies from 1 microsecond to ten minutes, to three digits.
pub type Latencies = Histogram<u64>;

const LONGEST_US: u64 = 600_000_000;
const DIGITS: u8 = 3;
/// Errors that are told in words.
const SAID_MAX: usize = 3;

/// Counts and times of one thread, or of all.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Answers that ended while it was measured, all of them right.
    pub answered: u64,
    /// Bytes of answers, heads included, received while it was measured.
    pub bytes: u64,
    /// Answers a second, each thread over the time that it measured.
    pub per_second: f64,
    /// Bytes of answers a second.
    pub bytes_per_second: f64,
    /// When the measurement began, microseconds since the machine started; of several threads the first, 0: it never did.
    pub from_us: u64,
    /// Time measured; of several threads the longest.
    pub measured: Duration,
    /// CPU time that the threads of this program spent while they measured.
    pub cpu: Duration,
    /// Requests of an open loop that were due but had no connection free to carry them before the end.
    pub unsent: u64,
    /// Connections that came about, idle ones and those of warm-up included.
    pub opened: u64,
    /// Connections that asked, or stood ready to, when the measurement began.
    pub asking: u64,
    /// Idle connections that were open when the measurement ended.
    pub idle_held: u64,
    /// Idle connections that ended before.
    pub idle_lost: u64,
    /// Idle connections that were asked at the end, and answered right.
    pub woken: u64,
    /// What went wrong, in the order of [`Trouble::ALL`], from the first handshake on.
    pub errors: [u64; Trouble::ALL.len()],
    /// The first errors in words.
    pub said: Vec<String>,
    /// From sending a request (or the SYN, where each has its own connection) to the end of its answer, microseconds.
    pub latency_us: Latencies,
    /// The same from when the request was due, in an open loop: free of coordinated omission.
    pub corrected_us: Latencies,
    /// From SYN to SYN|ACK, microseconds.
    pub handshake_us: Latencies,
    /// What only some engines know: name and value.
    pub notes: Vec<(&'static str, u64)>,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// The histograms' bounds make no sense, which only a change here can bring about.
    pub fn new() -> Result<Tally> {
        let empty = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?;
        Ok(Tally {
            answered: 0,
            bytes: 0,
            per_second: 0.0,
            bytes_per_second: 0.0,
            from_us: 0,
            measured: Duration::ZERO,
            cpu: Duration::ZERO,
            unsent: 0,
            opened: 0,
            asking: 0,
            idle_held: 0,
            idle_lost: 0,
            woken: 0,
            errors: [0; Trouble::ALL.len()],
            said: Vec::new(),
            latency_us: empty.clone(),
            corrected_us: empty.clone(),
            handshake_us: empty,
            notes: Vec::new(),
        })
    }

    /// Counts an error; the first few are kept in words.
    pub fn count(&mut self, trouble: Trouble, say: impl FnOnce() -> String) {
        self.errors[trouble as usize] += 1;
        if self.said.len() < SAID_MAX {
            let sentence = say();
            if !self.said.contains(&sentence) {
                self.said.push(sentence);
            }
        }
    }

    /// All errors.
    pub fn errors_all(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Works out the rates of one thread.
    pub(super) fn finish(&mut self, measured: Duration) {
        self.measured = measured;
        let seconds = measured.as_secs_f64();
        if seconds > 0.0 {
            self.per_second = self.answered as f64 / seconds;
            self.bytes_per_second = self.bytes as f64 / seconds;
        }
    }

    /// Adds what another thread found.
    ///
    /// # Errors
    /// The histograms do not fit together, which only a change here can bring about.
    pub fn add(&mut self, other: &Tally) -> Result<()> {
        self.answered += other.answered;
        self.bytes += other.bytes;
        self.per_second += other.per_second;
        self.bytes_per_second += other.bytes_per_second;
        self.from_us = if self.from_us == 0 { other.from_us } else { self.from_us.min(other.from_us) };
        self.measured = self.measured.max(other.measured);
        self.cpu += other.cpu;
        self.unsent += other.unsent;
        self.opened += other.opened;
        self.asking += other.asking;
        self.idle_held += other.idle_held;
        self.idle_lost += other.idle_lost;
        self.woken += other.woken;
        for (mine, theirs) in self.errors.iter_mut().zip(other.errors) {
            *mine += theirs;
        }
        for sentence in &other.said {
            if self.said.len() < SAID_MAX && !self.said.contains(sentence) {
                self.said.push(sentence.clone());
            }
        }
        self.latency_us.add(&other.latency_us)?;
        self.corrected_us.add(&other.corrected_us)?;
        self.handshake_us.add(&other.handshake_us)?;
        for &(name, value) in &other.notes {
            match self.notes.iter_mut().find(|(mine, _)| *mine == name) {
                Some((_, sum)) => *sum += value,
                None => self.notes.push((name, value)),
            }
        }
        Ok(())
    }
}
