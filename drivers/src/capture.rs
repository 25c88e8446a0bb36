//! Frames into a pcapng file while they are served: both directions, nanosecond time, and a comment for each connection
//! at its end.
//!
//! [`Tapped`] puts a tap on any [`Queue`](khamsin_stack::Queue). The worker copies each frame into a ring of its own and
//! goes on; a thread reads the rings, keeps the tallies of flows and writes the file. A worker never waits:
//! when the ring is full, because the disk is slower than the wire, the frame is served all the same, is missing from the
//! file and is counted ([`Tallies::missed`], `epb_dropcount` of the next frame that is there, `isb_osdrop` at the end).
//!
//! The format is that of draft-ietf-opsawg-pcapng; one interface description for each worker.

mod flows;
mod output;
pub mod pcapng;
mod ring;
mod tapped;
mod target;
#[cfg(test)]
mod tests;
mod writer;

pub use ring::{Tallies, Tap};
pub use tapped::Tapped;
pub use target::{Capture, Error, Filter, Target, create};
