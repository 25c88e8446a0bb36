//! The sender's loss and rate control: what may be sent, what must be sent again, and when to give up.
//!
//! Pure arithmetic over stream offsets: no payload, no sequence numbers, no I/O. Offset 0 is the first byte after our SYN;
//! our FIN takes one offset behind the last byte. The gate cuts what a [`Sender`] names from the byte store.
//!
//! The caller's loop, on each event of a connection:
//! 1. `on_ack` for an acceptable ACK, or `on_timeout` when the deadline has come;
//! 2. while `next_retransmission` names something: send it or a part of it, `retransmitted`;
//! 3. while `allowance` allows something: send it, `sent` (and CWR on it if `take_cwr` says so);
//! 4. `blocked(now, bytes that still wait)`, which keeps the probe timer; arm the wheel for `deadline`.
//!
//! # Where things are
//!
//! - `scoreboard`: what is in flight, in runs (RFC 6675 3). Bytes that went out at one instant share a run until a SACK
//!   block or a loss splits it; reports join what they cover. A run is split at the edges of the segments that were sent
//!   and nowhere else, so a peer cannot make more runs than we made segments, and there is a limit besides. The newest
//!   run lives outside of the queue: who asks and answers in turn never touches the queue.
//! - `sender`: the state and the questions. `sender/ack`: a *plain* ACK (nothing wrong, no SACK) takes a short way; a
//!   *careful* one goes through reading, learning, the tail probe, undo, loss and the window, in this order.
//!   `sender/loss`: what is lost and what that costs. `sender/send`: what goes out. `sender/timer`: the clock.
//!   `sender/path`: a smaller path MTU.
//! - `repair`: what is kept while something is wrong, in a box that is made at the first loss or report.
//! - `congestion`: the window, with `cubic` or NewReno, and `hystart` for both. `prr`, `undo`, `pacing`, `rtt`.
//!
//! # What follows which text
//!
//! - Loss with SACK (RFC 2018): RACK (RFC 8985 6) with a reordering window that DSACKs (RFC 2883) widen. What went out
//!   once is in order of time as it is in order of offsets, what went out again has its own queue; each is passed once, so
//!   that an ACK costs what it tells. Retransmissions that are lost are found in the same way. Tail loss probes (RFC 8985
//!   7), with new data if there is some.
//! - Loss without SACK: three duplicate ACKs (RFC 5681 3.2), limited transmit (RFC 3042), partial acknowledgements (RFC
//!   6582, the impatient variant). Duplicates are suspected to be those of a timeout only after a timeout.
//! - The retransmission timer: RFC 6298 with Linux's least of 200 ms beyond the round trip, Karn's rule (and one liberty:
//!   `Sender::forgive`), timestamps where they tell which copy was acknowledged. R2 is [`GIVE_UP_AFTER`]; a user timeout
//!   (RFC 5482) besides. A timeout forgets SACK blocks only when the peer has taken them back (RFC 2018 8): it then does
//!   not acknowledge what it reported at `una`.
//! - What a loss costs: `ssthresh` by CUBIC (RFC 9438, with fast convergence and the Reno-friendly region) or NewReno (RFC
//!   5681); the way there by PRR (RFC 9937). A tail loss that its probe repaired costs the same (RFC 8985 7.4). A mark
//!   (RFC 3168 6.1.2) too, once a window.
//! - What is taken back: all retransmissions reported twice (RFC 3708), a timestamp older than the first retransmission
//!   (Eifel, RFC 3522; older ones of former recoveries are minded), forward progress after a timeout (F-RTO, RFC 5682,
//!   with Linux's rules: never-sent-again data that arrives was not lost). The answer is RFC 4015's: window and threshold
//!   as they were.
//! - Growth: initial window RFC 6928; slow start without a limit per ACK and with HyStart++ (RFC 9406); only while the
//!   window is used (RFC 9438 4.2, Linux `tcp_is_cwnd_limited`); what arrives out of order counts only where reordering is
//!   known. After a pause the window halves for each timeout that passed (RFC 2861, Linux).
//! - Pacing: see `pacing`. Below half a window, below 64 segments, below 5 ms of round trip and while losses are repaired
//!   nothing is held back. Its timers are a millisecond apart or more.
//! - Zero-window probes RFC 9293 3.8.6.1, silly-window avoidance 3.8.6.2.1 (without Nagle). Congestion is judged on the
//!   *pipe*, the bytes still in the network (RFC 6675 4), never by inflating the window.
//!
//! The tests name the clauses; `tests/goodput` holds the sender against a reference over a link in virtual time.

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
pub use sender::{Ack, AckOutcome, ECHO_GRAIN_US, GIVE_UP_AFTER, History, Sender, Setup, Timeout};

#[cfg(test)]
mod link;
#[cfg(test)]
mod tests;
