//! Connections that cost next to nothing while nothing happens.
//!
//! A connection at rest needs no socket, no buffer and no timers: everything both ends agree on fits 64 bytes (IPv4; 88 for
//! IPv6). With its 16 bytes of the flow table that is all it costs. The decisions:
//!
//! - **What is remembered** is [`Resting`], packed by [`record`]: sequence numbers, the window either side may use, options of
//!   the handshake, the newest timestamp, round trip and congestion window, where frames go, the deadlines, and 32 bits that
//!   stand for the application's session. Initial numbers, timestamp offset, the path's MTU, patience and the listener follow
//!   from the key and are looked up again. Round trips and `ssthresh` are kept to 1/2048, instants to 1/15 s; sequence
//!   numbers, timestamps and the congestion window are exact. CUBIC's curve begins anew.
//! - **Who is parked**: established both ways, everything sent acknowledged, everything received handed on and acknowledged,
//!   no repair, no probe, no challenge in the last 100 ms, at most one VLAN tag; and the application says so
//!   ([`App::park`](crate::App::park)): half a request stays where it is. Who cannot be parked is asked again after twice as
//!   long each time.
//! - **When**: after a second of silence, by the connection's own timer; at once when a unit (socket and buffer) is wanted and
//!   none is free, by a hand that looks at a few live connections and parks the first that rests. So buffers bound what is
//!   *live*, `--connections` what is *open*.
//! - **Waking**: any segment that may mean something puts the connection together again (smoltcp by a replayed handshake) and
//!   then takes the way of every segment through the gate, which judges it as it would have. A keep-alive probe is answered
//!   from the record. What the gate is going to stop wakes only so many a second, and resets need no waking. Without a free
//!   unit the segment is dropped and counted: its sender repeats it.
//! - **Deadlines** (keep-alive, the application's) stand in the record. Each group of 64 records has the least of its own
//!   beside it, in 4 bytes; whenever the least of all comes, the groups are gone through, so many in a turn ([`Parked::due`]).
//!   What is due is woken and does what its timer does.
//! - **Memory**: one array for each family with room for `--connections` records, from zeroed pages that nobody touches before
//!   their first use. A free record names the next one.

mod record;
mod table;
#[cfg(test)]
mod tests;

use crate::recovery::History;
use crate::{FlowKey, Instant};

pub(crate) use table::Parked;
pub use table::{GROUP, RECORD_V4, RECORD_V6};

/// A connection at rest. Windows are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Resting {
    pub(crate) key: FlowKey,
    pub(crate) snd_nxt: u32,
    pub(crate) rcv_nxt: u32,
    /// What the peer takes beyond `snd_nxt`: a multiple of its unit.
    pub(crate) window: u32,
    /// The peer's window shift; `None`: nobody scales.
    pub(crate) peer_shift: Option<u8>,
    pub(crate) peer_mss: u16,
    pub(crate) sack: bool,
    /// Agreed on, an echo owed, a reduction to be told.
    pub(crate) ecn: [bool; 3],
    /// TS.Recent, where timestamps were agreed on.
    pub(crate) recent: Option<u32>,
    pub(crate) history: History,
    /// What the peer may send beyond `rcv_nxt`.
    pub(crate) room: u64,
    /// What is offered when all is read.
    pub(crate) space: u64,
    /// Where frames go.
    pub(crate) mac: [u8; 6],
    /// Of the VLAN tag.
    pub(crate) tci: Option<u16>,
    /// When the last acceptable segment came.
    pub(crate) heard: Instant,
    /// When the peer is to be asked whether it lives, and after how many microseconds of silence that is.
    pub(crate) asks: Option<(Instant, u64)>,
    /// The application's deadline.
    pub(crate) wake_at: Option<Instant>,
    /// What stands for the application's session.
    pub(crate) token: u32,
}
