//! Packet scripts: what a peer sends to a TCP server and what the server must answer, in packetdrill's notation.
//!
//! `tests/scripts/README.md` describes the notation. [`Script::parse`] reads it and `Display` writes it;
//! [`run_virtual`] holds a script against khamsin's stack in virtual time, [`run_kernel`] against this machine's kernel.

mod actor;
mod compare;
mod display;
mod kernel;
mod model;
mod parse;
mod play;
mod virtual_time;
mod wire;

#[cfg(test)]
mod tests;

pub use kernel::{Against, kernel_refusal, run_kernel};
pub use model::{
    BURST_FROM, BURST_PIECE, Body, Command, Event, Family, Header, Icmp, Line, Linux, Marks, Packet, Script, Tcp,
    TcpOption, Trouble, When,
};
pub use parse::ParseError;
pub use play::{Mismatch, Report};
pub use virtual_time::{run_virtual, run_virtual_over};
