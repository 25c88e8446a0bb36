//! The sender's loss and rate control: what may be sent, what must be sent again, and when to give up.
//!
//! Pure arithmetic over stream offsets: no payload, no sequence numbers, no I/O. Offset 0 is the first byte after our SYN;
//! our FIN takes one offset behind the last byte. The gate cuts what a [`Sender`] names from the byte store.
//!
//! What follows which text: initial window RFC 6928; slow start, congestion avoidance, fast retransmit and restart after
//! idle RFC 5681; NewReno's partial acknowledgements RFC 6582 (the impatient variant); byte counting RFC 3465; limited
//! transmit RFC 3042; retransmission timer RFC 6298 with Karn's rule (and one liberty: `Sender::forgive`); zero-window
//! probes RFC 9293 3.8.6.1; silly-window avoidance RFC 9293 3.8.6.2.1. Congestion is judged on the *pipe*, an estimate of
//! the bytes still in the network (RFC 6675), and not by inflating the window: without SACK each duplicate ACK stands for
//! one segment that has left the network.
//!
//! The caller's loop, on each event of a connection:
//! 1. `on_ack` for an acceptable ACK, or `on_timeout` when the deadline has come;
//! 2. while `next_retransmission` names something: send it, `retransmitted`;
//! 3. while `allowance` allows something: send it, `sent`;
//! 4. `blocked(now, bytes that still wait)`, which keeps the probe timer; arm the wheel for `deadline`.

mod congestion;
mod cubic;
mod hystart;
mod pacing;
mod prr;
mod repair;
mod rtt;
mod scoreboard;
mod sender;
mod undo;

pub use congestion::{Algorithm, initial_window};
pub use rtt::{RTO_INITIAL_US, RTO_MAX_US, RTO_MIN_US};
pub use sender::{Ack, AckOutcome, ECHO_GRAIN_US, GIVE_UP_AFTER, Sender, Setup, Timeout};

#[cfg(test)]
mod link;
#[cfg(test)]
mod tests;
