//! A link in memory, in virtual time: two ends, latency, and faults that a seed decides.
//!
//! A [`Wire`] has a [`Side::Left`] and a [`Side::Right`]. Each is taken either as a [`SimQueue`], which is what a stack
//! drives, or as a [`SimEnd`], which sends and receives frames written by hand; a [`client::Station`] is a small host over
//! such an end, with a plain TCP of its own. Nothing moves until [`Wire::advance`] says what time it is, so a run is a
//! function of its inputs: the same seed gives the same frames at the same times.

pub mod client;
mod end;
mod faults;
mod offload;
mod path;
mod queue;
mod rings;
mod wire;

pub use end::SimEnd;
pub use faults::{Fate, Faults, RandomFaults, Sighting};
pub use path::{BurstLoss, Delivery, Path, PathConfig, PathDrop, PathStats, QueueLimit, Verdict};
pub use queue::{SimFrame, SimQueue};
pub use rings::{Rings, Spans};
pub use wire::{Recorded, Wire, WireStats};

/// One end of a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Side {
    /// The one end; by custom the server's.
    Left,
    /// The other end; by custom the client's.
    Right,
}

impl Side {
    /// The MAC address of this end.
    pub const fn mac(self) -> [u8; 6] {
        match self {
            Side::Left => [2, 0, 0, 0, 0, 1],
            Side::Right => [2, 0, 0, 0, 0, 2],
        }
    }

    /// The other end.
    pub const fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// What a wire is like.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Time that a frame takes from one end to the other, microseconds.
    pub latency_us: u64,
    /// Frames lost, of a million.
    pub loss_per_million: u32,
    /// Frames that arrive twice, of a million.
    pub duplicate_per_million: u32,
    /// Frames with one bit turned over, of a million.
    pub corrupt_per_million: u32,
    /// Frames that are held up by [`reorder_us`](Self::reorder_us), of a million, so that later ones overtake them.
    pub reorder_per_million: u32,
    /// How long a frame is held up, microseconds; a copy of a frame arrives as much later than its original.
    pub reorder_us: u64,
    /// Largest IP packet, bytes. A longer one is dropped and counted.
    pub mtu: usize,
    /// Each end completes partial TCP checksums.
    pub tx_checksum: bool,
    /// Longest frame that an end cuts into segments, bytes; 0: none.
    pub tx_segment_max: usize,
    /// Ends say that received checksums may be partial, as on veth.
    pub rx_partial_checksums: bool,
    /// Frames that each queue may have allocated or in flight before completion.
    pub tx_frames: usize,
    /// What the rings between each queue and its device are like.
    pub rings: Rings,
    /// Where all randomness comes from.
    pub seed: u64,
}

impl Default for SimConfig {
    /// A faultless Ethernet with half a millisecond each way.
    fn default() -> Self {
        SimConfig {
            latency_us: 500,
            loss_per_million: 0,
            duplicate_per_million: 0,
            corrupt_per_million: 0,
            reorder_per_million: 0,
            reorder_us: 1000,
            mtu: 1500,
            tx_checksum: false,
            tx_segment_max: 0,
            rx_partial_checksums: false,
            tx_frames: 4096,
            rings: Rings::default(),
            seed: 0,
        }
    }
}
