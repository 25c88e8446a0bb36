//! A plain TCP of its own to judge a server by: hand-made frames, virtual time, and a record of everything that the peer
//! did wrong.
//!
//! It is written from RFC 9293, 2018, 2883 and 7323, shares no code with the stack, and prefers the simple to the fast: a
//! fixed retransmission timer with back-off, go-back-N, an acknowledgement for each segment with text unless it is told to
//! delay them. What it received is kept whole, so that a retransmission with other bytes than the first time is found out.

mod frame;
mod station;
mod tcp;

pub use frame::{ACK, Blocks, FIN, PSH, Packet, Problem, RST, SYN, Segment, build, parse, parse_partial};
pub use station::{ClientId, Station};
pub use tcp::{Client, End};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Largest payload that it says it takes, bytes.
    pub mss: u16,
    /// Payload bytes that it puts into one segment at most; 1 sends a byte at a time.
    pub segment_max: usize,
    /// Bytes that it sends ahead of acknowledgements at most, whatever the peer's window.
    pub flight_max: usize,
    /// Bytes that it takes ahead of its reader: the receive window. At most 65,535 without `window_scale`, 1 GiB with it.
    pub window: usize,
    /// The window scale that it offers (RFC 7323); `None`: the option is left out, and the peer's is not used.
    pub window_scale: Option<u8>,
    /// Time until it sends again what was not acknowledged, microseconds; doubles each time, up to 64 times.
    pub rto_us: u64,
    /// Times it sends the same again before it gives up.
    pub retries_max: u32,
    /// Its first sequence number.
    pub isn: u32,
    /// How long it still answers after both sides have ended, microseconds; then its host knows nothing of it.
    pub time_wait_us: u64,
    /// Leaves its checksums partial, as a sender on the same machine does.
    pub partial_checksums: bool,
    /// Offers SACK (RFC 2018), and reports holes and duplicates (RFC 2883) where the peer agreed.
    pub sack: bool,
    /// Offers timestamps (RFC 7323).
    pub timestamps: bool,
    /// Longest that an acknowledgement of text in order waits for a second segment, microseconds; 0: not at all.
    pub ack_delay_us: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            mss: 1460,
            segment_max: 1460,
            flight_max: 32 * 1460,
            window: 65_535,
            window_scale: Some(7),
            rto_us: 200_000,
            retries_max: 12,
            isn: 0xffff_f000,
            time_wait_us: 60_000_000,
            partial_checksums: false,
            sack: false,
            timestamps: false,
            ack_delay_us: 0,
        }
    }
}
