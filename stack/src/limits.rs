//! Every bound of the stack, one line for each user of a number.

/// What an instance is allowed to hold. All memory is set aside at start, by these numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Established connections: the live and the parked ones.
    pub connections: usize,
    /// Live connections: each holds one receive buffer of [`RX_BUFFER`] bytes (touched only as far as it is used). What there
    /// is beyond must be parked; at most [`connections`](Self::connections) are used.
    pub live: usize,
    /// Live connections from which on one that is silent makes room for one that comes: buffers are used again before new ones
    /// are touched.
    pub warm: usize,
    /// Silence after which a connection is parked, microseconds, if its application lets it; sooner when others need its
    /// buffers. `None`: none ever is, and all connections may be live.
    pub park_after_us: Option<u64>,
    /// Half-open connections (records of the SYN table).
    pub syn_backlog: usize,
    /// Connections in TIME-WAIT (records).
    pub time_wait: usize,
    /// Blocks of [`STORE_BLOCK`] bytes for sent and unacknowledged data, over all connections.
    pub store_blocks: usize,
    /// Blocks of [`HOLD_BLOCK`] bytes for received data that waits behind a hole or for its application, over all
    /// connections.
    pub hold_blocks: usize,
    /// Largest window that a connection offers, bytes: [`RX_BUFFER`] at least, [`RX_WINDOW_MAX`] at most.
    pub rx_window_max: usize,
    /// Live connections of one source, an IPv4 address or an IPv6 /64; 0: as many as there are.
    pub per_source: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits::for_connections(16_384)
    }
}

impl Limits {
    /// The bounds that go with `connections` established connections, all of which may be live.
    pub fn for_connections(connections: usize) -> Self {
        let connections = connections.clamp(1, MAX_CONNECTIONS);
        Limits::new(connections, connections, None)
    }

    /// The bounds that go with `connections` established connections, of which [`LIVE_DEFAULT`] may be live and the others are
    /// parked.
    pub fn with_parking(connections: usize) -> Self {
        let connections = connections.clamp(1, MAX_CONNECTIONS);
        Limits::new(connections, connections.min(LIVE_DEFAULT), Some(PARK_AFTER_US))
    }

    fn new(connections: usize, live: usize, park_after_us: Option<u64>) -> Self {
        Limits {
            connections,
            live,
            warm: WARM_DEFAULT.min(live),
            park_after_us,
            syn_backlog: (connections / 2).clamp(256, 65_536),
            time_wait: connections.clamp(1024, 262_144),
            // Two blocks for each live one, so that none is left without (`BlockPool`), or enough for eight full stores.
            store_blocks: (2 * live).max(16 * STORE_MAX / STORE_BLOCK),
            // One block for each live one, or enough for sixteen full windows.
            hold_blocks: live.max(16 * RX_WINDOW_MAX / HOLD_BLOCK),
            rx_window_max: RX_WINDOW_MAX,
            per_source: 0,
        }
    }
}

impl Limits {
    /// Connections that are live at a time at most: sockets and buffers.
    pub(crate) fn units(&self) -> usize {
        let live = if self.park_after_us.is_some() { self.live } else { self.connections };
        live.clamp(1, self.connections.max(1))
    }
}

/// Most connections one shard can name: indices are 24 bits wide, the rest of a `u32` carries a kind.
pub const MAX_CONNECTIONS: usize = 1 << 24;
/// Connections that are live at a time where nothing else is asked for: with 64 KiB of receive buffer each, 1 GiB of
/// addresses, of which only what is used becomes memory.
pub const LIVE_DEFAULT: usize = 16_384;
/// Live connections whose memory stays in use at rest where nothing else is asked for: some 4 MiB.
pub const WARM_DEFAULT: usize = 2048;
/// Silence after which a connection makes room while more than those are live, microseconds: some round trips, so that
/// whoever is in conversation stays.
pub const PARK_EARLY_US: u64 = 30_000;
/// Live connections looked at then, for each that comes: enough to become fewer again.
pub const EARLY_LOOKS: usize = 8;
/// Silence after which one that has not said anything yet does, microseconds: whoever opens a connection to use it has done so
/// by then, as its first request follows the handshake at once.
pub const PARK_MUTE_US: u64 = 2_000;
/// Silence after which an orphan (its application has closed it, the peer is yet to agree) is reset when units are scarce,
/// microseconds: its FIN has been repeated once or twice by then. Linux resets orphans beyond `tcp_max_orphans` at once.
pub const FORSAKEN_US: u64 = 3_000_000;
/// Of the units, the last quarter (one in so many) is for those who come and speak: where no more are free, deadlines of parked
/// connections are served a few at a time, and orphans make room.
pub const UNITS_KEPT: usize = 4;
/// Silence after which a connection is parked, microseconds. Whoever comes back sooner should not pay for it.
pub const PARK_AFTER_US: u64 = 1_000_000;
/// Live connections looked at for one to park when a unit is wanted and none is free.
pub const PARK_LOOKS: usize = 32;
/// Groups of parked connections whose deadlines are looked at in one turn; the rest waits for the next.
pub const PARKED_GROUPS_PER_TURN: usize = 4096;
/// Places looked at in one turn for parked connections to wake.
pub const RECORDS_PER_TURN: usize = 65_536;
/// How long parked connections for which something is due wait when too many live ones are busy, microseconds.
pub const RETRY_WAKE_US: u64 = 100_000;
/// How long a shard waits for frames of its own to come back when it has something to send and none is free, microseconds; a
/// frame that arrives ends it.
pub const RETRY_TX_US: u64 = 200;
/// How long the next of many to be woken waits then, microseconds.
pub const RETRY_ROUSE_US: u64 = 10_000;
/// Parked connections woken in one turn because the server drains.
pub const ROUSED_PER_TURN: usize = 64;
/// Parked connections woken by segments that the gate will stop, per second and shard, on average.
pub const DOUBTFUL_WAKES_PER_S: u32 = 2000;
/// Receive buffer, bytes. 65,535 is the largest that smoltcp 0.14 handles without losing bytes (SMOLTCP.md).
pub const RX_BUFFER: usize = 65_535;
/// Largest receive window, bytes: 1.6 Gbit/s over 20 ms.
pub const RX_WINDOW_MAX: usize = 4 * 1024 * 1024;
/// Shift of the windows we offer (RFC 7323 2.2): with it, 16 bits express [`RX_WINDOW_MAX`].
pub const RX_SHIFT: u8 = 7;
/// One block of held text, bytes.
pub const HOLD_BLOCK: usize = 4096;

/// Connections looked at, at most, for one to give up held text.
pub(crate) const PRUNE_LOOKS: u32 = 64;
/// One block of the send store, bytes.
pub const STORE_BLOCK: usize = 4096;
/// Owned bytes that one connection may have waiting or unacknowledged.
pub const STORE_MAX: usize = 256 * 1024;
/// Pieces (runs of owned bytes, or references) that one connection may have waiting or unacknowledged.
pub const STORE_PIECES: usize = 128;
/// Half-open connections of one source: this part of the SYN table. What it asks for beyond is answered with cookies.
pub const SYN_SHARE: usize = 4;
/// But at least so many.
pub const SYN_SHARE_MIN: usize = 16;
/// Passes of one connection through its application in one turn; the rest waits for the next turn.
pub const READY_PASSES: usize = 8;
/// Timers served in one turn; the rest waits for the next.
pub const TIMERS_PER_TURN: usize = 256;
/// Whole bursts received in a row after which timers are looked at although more frames may wait.
pub const WHOLE_BURSTS_MAX: u32 = 32;
/// Frames of other shards looked at in one turn.
pub const STRAYS_PER_TURN: usize = 64;
/// Frames that wait for one shard on their way from the others.
pub const STRAY_RING: usize = 256;
/// RSTs to segments of no connection, per second and shard, on average.
pub const RST_PER_S: u32 = 2000;
/// ACKs sent in answer to segments of flows in SYN-RECEIVED and TIME-WAIT, per second and shard, on average.
pub const BARE_ACKS_PER_S: u32 = 2000;
/// ACKs sent in answer to segments that the gate stops (RFC 5961 section 7): for each connection at least this long apart,
/// microseconds.
pub const CHALLENGE_GAP_US: u64 = 100_000;
/// ICMP echo replies, per second and shard.
pub const ECHO_REPLIES_PER_S: u32 = 1000;

/// Longest an acknowledgement waits for data to ride on, microseconds. RFC 9293 3.8.6.3 allows 500 ms; Linux waits 40.
pub const DELAYED_ACK_US: u64 = 40_000;
/// Keep-alive probes without an answer after which the next one gives up (Linux: `tcp_keepalive_probes`).
pub const KEEP_ALIVE_PROBES: u8 = 9;
/// Time between two of them, microseconds (Linux: `tcp_keepalive_intvl`); never longer than the silence before the first.
pub const KEEP_ALIVE_GAP_US: u64 = 75_000_000;
/// How long a peer may take nothing of what is left of a connection that its application has closed, microseconds: about
/// as long as Linux probes for an orphan (`tcp_probe_timer`, until its timer has doubled to two minutes). A peer that answers every probe of its closed window
/// would hold it for ever.
pub const ORPHAN_US: u64 = 240_000_000;
/// Retransmission timeout, microseconds, from which on an orphan is given up that routers say they cannot reach: half a minute
/// after its last progress.
pub const HOPELESS_RTO_US: u64 = 16_000_000;
/// Segments acknowledged without delay at the start of a connection and after a pause (Linux: `TCP_MAX_QUICKACKS`).
pub const QUICK_ACKS: u8 = 16;
/// How long FIN-WAIT-2 waits for the next text or the FIN of the peer, microseconds (Linux: `tcp_fin_timeout`).
pub const FIN_WAIT_2_US: u64 = 60_000_000;
/// How long a connection that is over on both sides waits for its application to read the rest, microseconds.
pub const UNREAD_US: u64 = 60_000_000;
/// TIME-WAIT, microseconds: twice a maximum segment lifetime of 30 s, as Linux has it.
pub const TIME_WAIT_US: u64 = 60_000_000;
/// First wait for the ACK of a SYN|ACK, microseconds (RFC 6298); it doubles with each repetition.
pub const SYN_ACK_RTO_US: u64 = 1_000_000;
/// SYN|ACKs sent again before a half-open connection is given up (Linux: `tcp_synack_retries`).
pub const SYN_ACK_RETRIES: u8 = 5;
/// How long a connection whose store got no block waits before its application is asked again, microseconds.
pub const STORE_RETRY_US: u64 = 10_000;
/// Smallest segment size taken from a peer's SYN, bytes (Linux: `TCP_MIN_SND_MSS`): a smaller one would make us send
/// more header than payload.
pub const MIN_MSS: u16 = 48;
/// What a SYN without the option stands for, bytes (RFC 9293 3.7.1).
pub const DEFAULT_MSS_V4: u16 = 536;
/// The same over IPv6, bytes.
pub const DEFAULT_MSS_V6: u16 = 1220;

/// Path MTUs remembered by one shard: sets of [`PMTU_WAYS`] entries.
pub const PMTU_SETS: usize = 256;
/// Path MTUs in one set.
pub const PMTU_WAYS: usize = 4;
/// How long a path MTU is believed before a larger one is tried, microseconds (Linux: `ip_rt_mtu_expires`; RFC 1191 6.3
/// asks for ten minutes).
pub const PMTU_LIFE_US: u64 = 600_000_000;
/// Retransmission timeouts in a row, over the same text, that make the segment's size suspicious (Linux:
/// `tcp_retries1`).
pub const BLACK_HOLE_TIMEOUTS: u8 = 3;
/// Payload of a segment that such a path is tried with first, bytes (RFC 4821 7.2; Linux: `tcp_base_mss`); then half of it,
/// and so on.
pub const BLACK_HOLE_MSS: u16 = 1024;
/// Steps down; when the last one gets no answer either, it was not the size.
pub const BLACK_HOLE_STEPS: u8 = 3;
/// IP packets that one shard puts together from fragments at the same time; each holds 64 KiB, touched only as far as it is
/// used.
pub const FRAGMENT_SLOTS: usize = 16;
/// How long the parts of an IPv4 packet are waited for, microseconds (Linux: `ipfrag_time`).
pub const FRAGMENT_LIFE_V4_US: u64 = 30_000_000;
/// The same over IPv6, microseconds (RFC 8200 4.5).
pub const FRAGMENT_LIFE_V6_US: u64 = 60_000_000;
/// ICMP errors sent, per second and shard.
pub const ICMP_ERRORS_PER_S: u32 = 100;
