//! Every bound of the stack, one line for each user of a number.

/// What an instance is allowed to hold. All memory is set aside at start, by these numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Live connections: each holds one receive buffer of [`RX_BUFFER`] bytes (touched only as far as it is used).
    pub connections: usize,
    /// Half-open connections (records of the SYN table).
    pub syn_backlog: usize,
    /// Connections in TIME-WAIT (records).
    pub time_wait: usize,
    /// Blocks of [`STORE_BLOCK`] bytes for sent and unacknowledged data, over all connections.
    pub store_blocks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits::for_connections(16_384)
    }
}

impl Limits {
    /// The bounds that go with `connections` live connections.
    pub fn for_connections(connections: usize) -> Self {
        let connections = connections.clamp(1, MAX_CONNECTIONS);
        Limits {
            connections,
            syn_backlog: (connections / 2).clamp(256, 65_536),
            time_wait: connections.clamp(1024, 262_144),
            // Two blocks for each connection, or enough for sixteen full send stores.
            store_blocks: (2 * connections).max(16 * STORE_MAX / STORE_BLOCK),
        }
    }
}

/// Most connections one shard can name: indices are 24 bits wide, the rest of a `u32` carries a kind.
pub const MAX_CONNECTIONS: usize = 1 << 24;
/// Receive buffer, bytes. 65,535 is the largest that smoltcp 0.14 handles without losing bytes (SMOLTCP.md).
pub const RX_BUFFER: usize = 65_535;
/// One block of the send store, bytes.
pub const STORE_BLOCK: usize = 4096;
/// Owned bytes that one connection may have waiting or unacknowledged.
pub const STORE_MAX: usize = 256 * 1024;
/// Pieces (runs of owned bytes, or references) that one connection may have waiting or unacknowledged.
pub const STORE_PIECES: usize = 128;
