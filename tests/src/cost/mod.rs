//! What an echo costs in instructions, and the figures that it must not exceed.
//!
//! Counted is everything that the server does for a request: link layer, gate, smoltcp, application, timing wheel. What stands in
//! for the device is not: callgrind's collection is on inside [`counted`] and off again inside [`device`]. Instructions do
//! not depend on the machine's mood, but they do on the compiler, so the figures are kept for each of its versions.

pub mod budget;
mod client;
pub mod counted;
pub mod device;

/// A way to spend 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// As the budget names it.
    pub name: &'static str,
    /// Open connections, of which chance picks.
    pub connections: usize,
    /// Over IPv6.
    pub v6: bool,
    /// With timestamps (RFC 7323), as Linux sends them.
    pub timestamps: bool,
}

/// All of them.
pub const CASES: [Case; 6] = [
    Case { name: "echo-1", connections: 1, v6: false, timestamps: false },
    Case { name: "echo-1k", connections: 1000, v6: false, timestamps: false },
    Case { name: "echo-10k", connections: 10_000, v6: false, timestamps: false },
    Case { name: "echo-100k", connections: 100_000, v6: false, timestamps: false },
    Case { name: "echo-10k-timestamps", connections: 10_000, v6: false, timestamps: true },
    Case { name: "echo-10k-v6", connections: 10_000, v6: true, timestamps: false },
];

impl Case {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Case> {
        CASES.into_iter().find(|case| case.name == name)
    }
}
