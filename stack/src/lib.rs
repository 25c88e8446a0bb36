//! khamsin's TCP/IP stack: frames and `now` go in, frames and a deadline come out.
//!
//! This crate reads no clock, does no I/O and starts no thread. A [`Shard`](shard::Shard) owns one core's world; it is
//! driven by calling `turn(now, queue, app)` over a [`Queue`] of frames, and it hands byte streams to an [`App`].
//! smoltcp is named here and nowhere else: it keeps the receive half and the state machine of each connection,
//! while the gate around it owns everything that appears on the wire.

mod aligned;
pub mod app;
mod connection;
pub mod content;
mod cookie;
pub mod counters;
pub mod flow;
mod fragments;
mod isn;
pub mod key;
pub mod limiter;
pub mod limits;
mod machine;
pub mod parked;
mod pmtu;
mod prefetch;
pub mod queue;
pub mod reassembly;
pub mod recovery;
pub mod shard;
pub mod sources;
pub mod store;
pub mod stray;
mod syn;
pub mod time;
mod timestamps;
mod timewait;
pub mod wheel;
pub mod wire;

pub use app::{App, CloseReason, Listener, Patience, Stream};
pub use content::Content;
pub use counters::Counters;
pub use key::FlowKey;
pub use queue::{Caps, Frame, Queue, QueueStats, RxChecksum, TxOffload};
pub use shard::{Shard, ShardConfig, Turn};
pub use time::{Coarse, Instant};
pub use wire::Addresses;
