//! What an echo costs in instructions, a connection that comes and goes, and an idle one in bytes; and the figures that they
//! must not exceed.
//!
//! Counted is everything that the server does for a request: link layer, gate, smoltcp, application, timing wheel. What stands in
//! for the device is not: callgrind's collection is on inside [`counted`] and off again inside [`device`]. Instructions do
//! not depend on the machine's mood, but they do on the compiler, so the figures are kept for each of its versions.

pub mod budget;
mod client;
pub mod counted;
pub mod device;
pub mod idle;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// A request on an open connection, and its answer.
    Echo,
    /// A handshake, one request and its answer, and the end that the client begins.
    Connection,
    /// Nothing: connections are held.
    Rest,
}

impl Work {
    /// One of it.
    pub fn one(self) -> &'static str {
        match self {
            Work::Echo => "echo",
            Work::Connection => "connection",
            Work::Rest => "idle connection",
        }
    }
}

/// A way to spend 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// As the budget names it.
    pub name: &'static str,
    /// What is done.
    pub work: Work,
    /// Open connections, of which chance picks; those that come are beside them.
    pub connections: usize,
    /// Over IPv6.
    pub v6: bool,
    /// With timestamps (RFC 7323), as Linux sends them.
    pub timestamps: bool,
}

/// All of them.
pub const CASES: [Case; 7] = [
    Case { connections: 1, ..ECHO.named("echo-1") },
    Case { connections: 1000, ..ECHO.named("echo-1k") },
    ECHO.named("echo-10k"),
    Case { connections: 100_000, ..ECHO.named("echo-100k") },
    Case { timestamps: true, ..ECHO.named("echo-10k-timestamps") },
    Case { v6: true, ..ECHO.named("echo-10k-v6") },
    Case { work: Work::Connection, ..ECHO.named("connection-10k") },
];

const ECHO: Case = Case { name: "", work: Work::Echo, connections: 10_000, v6: false, timestamps: false };

impl Case {
    const fn named(self, name: &'static str) -> Case {
        Case { name, ..self }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Case> {
        CASES.into_iter().find(|case| case.name == name)
    }
}
