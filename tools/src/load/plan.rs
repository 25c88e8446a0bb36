//! What is asked of whom, how often and for how long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A load, as one thread carries it out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to talk to, and about what.
    pub target: Target,
    /// Connections that ask.
    pub connections: usize,
    /// Requests that one connection may have under way.
    pub pipeline: usize,
    /// When requests are made.
    pub pace: Pace,
    /// Every request has a connection of its own.
    pub fresh: bool,
    /// Connections beside those that ask, opened first and held until the end.
    pub idle: usize,
    /// Each idle connection asks once at the end, to show that it still works.
    pub wake: bool,
    /// Each connection takes no more than this of its answers, bits per second.
    pub slow_bits_per_s: Option<u64>,
    /// How long is measured.
    pub duration: Duration,
    /// Load before anything is measured.
    pub warm_up: Duration,
    /// The measurement ends early after so many answers.
    pub requests: Option<u64>,
    /// Handshakes under way at the same time.
    pub handshakes: usize,
    /// A handshake or an answer that takes longer is an error.
    pub timeout: Duration,
    /// How long opening all connections may take.
    pub open_within: Duration,
    /// Receive window of a connection, bytes; kernel sockets keep the system's unless it is given.
    pub window: Option<u32>,
    /// How a thread waits.
    pub poll: Poll,
}

/// The other side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is asked.
    pub question: Question,
}

/// What is asked, and what makes an answer right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// GET of a path; the answer has this status and always the same length.
    Get {
        /// The value of the Host field.
        host: String,
        /// Path and query.
        path: String,
        /// The status that is right.
        status: u16,
        /// What the body must be, where that is known.
        body: Option<Arc<[u8]>>,
    },
    /// So many bytes, which must come back.
    Echo {
        /// Bytes of one request.
        size: usize,
    },
}

/// When requests are made.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// The next one when the last is answered.
    Closed,
    /// So many a second, evenly, whatever becomes of them.
    Open {
        /// Requests a second.
        per_second: f64,
    },
}

/// How a thread waits for something to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Poll {
    /// It keeps looking: lowest latency, a whole core
    Busy,
    /// It sleeps until something comes
    Sleep,
}

impl Plan {
    /// The part of thread `number` of `threads`: every figure divided, the first threads taking what is left over.
    pub fn share(&self, number: usize, threads: usize) -> Plan {
        let part = |all: usize| all / threads + usize::from(number < all % threads);
        Plan {
            connections: part(self.connections),
            idle: part(self.idle),
            handshakes: part(self.handshakes).max(1),
            requests: self.requests.map(|all| part(all as usize) as u64),
            pace: match self.pace {
                Pace::Closed => Pace::Closed,
                Pace::Open { per_second } => Pace::Open { per_second: per_second / threads as f64 },
            },
            ..self.clone()
        }
    }

    /// All connections, those that ask and the idle ones behind them.
    pub fn connections_all(&self) -> usize {
        self.connections + self.idle
    }
}
