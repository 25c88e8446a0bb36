//! AF_XDP: frames between the NIC's rings and ours, past the kernel's stack.
//!
//! [`open`] attaches an XDP program that takes only what is ours from the kernel, and binds a socket to every receive queue
//! of the interface; each [`XdpQueue`] is a [`khamsin_stack::Queue`]. The program hangs on a bpf_link: it goes when the
//! [`Attachment`] is dropped or the process dies.
//!
//! `unsafe` code is confined to the files ring.rs, umem.rs, socket.rs, admission.rs and bpf.rs of this module.

mod admission;
mod asm;
mod attach;
mod balance;
mod bpf;
mod device;
mod error;
mod pace;
mod queue;
mod ring;
mod socket;
mod steer;
mod supply;
mod umem;

pub use attach::{Attachment, open};
pub use device::mtu_max;
pub use error::OpenError;
pub use queue::XdpQueue;
pub use steer::{STEERING_MAX, SteerError, Steering};
pub use umem::{ChunkCounts, UmemFrame};

/// Where the XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet of a frame.
    #[default]
    Native,
    /// In the kernel's receive path: any interface, slower. Senders on the same machine must not segment in hardware
    /// (`ethtool -K PEER tso off gso off`), or their super-frames are dropped.
    Generic,
}

/// Who moves the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum CopyMode {
    /// The device reads and writes our frames.
    ZeroCopy,
    /// The kernel copies between its packets and our frames.
    #[default]
    Copy,
}

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name of the interface, in the network namespace of the calling thread.
    pub interface: String,
    /// Where the program runs.
    pub mode: Mode,
    /// Who moves the bytes.
    pub copy: CopyMode,
    /// What is ours.
    pub steering: Steering,
    /// Chunks of memory for each queue, 2 KiB each (4 KiB where the MTU needs it), rounded up to a power of two: a quarter
    /// each for receiving, sending, frames on their way out and frames in the stack.
    pub frames_per_queue: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            interface: String::new(),
            mode: Mode::default(),
            copy: CopyMode::default(),
            steering: Steering::Own { addresses: Vec::new() },
            frames_per_queue: 16_384,
        }
    }
}
