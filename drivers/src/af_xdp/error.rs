//! Why AF_XDP could not be had: one sentence for each reason, with the command that mends it.

use super::steer::SteerError;
use rustix::io::Errno;
use std::io;
use thiserror::Error;

/// Why [`open`](super::open) or [`Attachment::update`](super::Attachment::update) failed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No such interface, or none that can be looked at.
    #[error(transparent)]
    Interface(#[from] crate::link::Error),
    /// An interface without Ethernet frames.
    #[error(
        "interface {interface} carries no Ethernet frames, which AF_XDP needs here; choose another with --interface"
    )]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// Frames of this interface do not fit into a chunk.
    #[error(
        "interface {interface} has an MTU of {mtu}, and a frame in one 4 KiB chunk carries at most {most}; \
         `ip link set dev {interface} mtu {most}` (larger frames would need XDP with fragments)"
    )]
    Mtu {
        /// Its name.
        interface: String,
        /// Its MTU, bytes.
        mtu: usize,
        /// The largest that works, bytes.
        most: usize,
    },
    /// Zero-copy with a generic program.
    #[error(
        "AF_XDP in generic mode always copies, so zero-copy cannot be had with it; use --xdp-mode native or --xdp-copy copy"
    )]
    GenericZeroCopy,
    /// No steering program.
    #[error(transparent)]
    Steering(#[from] SteerError),
    /// More receive than transmit queues.
    #[error(
        "interface {interface} has {rx} receive queues but {tx} transmit queues, and an AF_XDP socket sends on the queue \
         it receives from; `ethtool -L {interface} rx {tx}`"
    )]
    TransmitQueues {
        /// Its name.
        interface: String,
        /// Receive queues in use.
        rx: u32,
        /// Transmit queues in use.
        tx: u32,
    },
    /// A capability is missing.
    #[error(
        "{wanted} was refused (not permitted): AF_XDP needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF in the first user \
         namespace; run as root or `setcap cap_net_admin,cap_net_raw,cap_bpf+ep` the binary"
    )]
    Permission {
        /// What was asked of the kernel.
        wanted: &'static str,
    },
    /// The memory of a queue may not be locked.
    #[error(
        "the {bytes} bytes of frames for one queue are more than may be locked in memory ({limit} bytes); \
         `ulimit -l unlimited`, CAP_IPC_LOCK, or fewer frames for each queue"
    )]
    LockedMemory {
        /// Bytes wanted.
        bytes: usize,
        /// `RLIMIT_MEMLOCK`, bytes.
        limit: u64,
    },
    /// The kernel has no AF_XDP.
    #[error(
        "this kernel has no AF_XDP sockets ({source}); it needs Linux 5.9 or later with CONFIG_XDP_SOCKETS and CONFIG_BPF_SYSCALL"
    )]
    Unsupported {
        /// What the kernel said.
        source: io::Error,
    },
    /// The verifier or the kernel refused the program.
    #[error(
        "the kernel refused the XDP program: {source}; this is a defect of khamsin: please report it with this log:\n{log}"
    )]
    Program {
        /// What the kernel said.
        source: io::Error,
        /// What the verifier said.
        log: String,
    },
    /// Another XDP program is attached.
    #[error(
        "interface {interface} already has an XDP program: id {id}, name {}, tag {}; khamsin never replaces one: stop its \
         owner (`bpftool net show dev {interface}` and `bpftool link` name it; one that outlived its owner goes with \
         `ip link set dev {interface} xdp off`)",
        known(name),
        known(tag)
    )]
    Attached {
        /// Its name.
        interface: String,
        /// Id of the program; 0 when it could not be found out.
        id: u32,
        /// Name of the program; empty when only CAP_SYS_ADMIN could find it out.
        name: String,
        /// Hash of the program's instructions, as bpftool prints it; empty like the name.
        tag: String,
    },
    /// No native XDP here.
    #[error("the driver {driver} of {interface} cannot run an XDP program natively ({source}); use --xdp-mode generic")]
    NoNative {
        /// Its name.
        interface: String,
        /// Name of its driver.
        driver: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Native XDP is refused because of how the interface is set up.
    #[error("attaching the XDP program to {interface} failed: {source}; {hint}")]
    Attach {
        /// Its name.
        interface: String,
        /// What to look at.
        hint: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No zero-copy here.
    #[error("queue {queue} of {interface} cannot be used without copying ({source}); use --xdp-copy copy")]
    NoZeroCopy {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else's AF_XDP socket is there.
    #[error(
        "queue {queue} of {interface} stayed in use by another AF_XDP socket for a second; \
         stop its owner (`ss --xdp -p` names it)"
    )]
    QueueBusy {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Anything else.
    #[error(
        "{wanted} for AF_XDP on {interface} failed: {source}; `dmesg` may tell more, --backend af-packet works without AF_XDP"
    )]
    System {
        /// Its name.
        interface: String,
        /// What was asked of the kernel.
        wanted: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    /// The variant for a request that failed without a more special reason.
    pub(super) fn system(interface: &str, wanted: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::PERM | Errno::ACCESS => OpenError::Permission { wanted },
            Errno::AFNOSUPPORT | Errno::NOSYS => OpenError::Unsupported { source: errno.into() },
            _ => OpenError::System { interface: interface.into(), wanted, source: errno.into() },
        }
    }
}

fn known(word: &str) -> &str {
    if word.is_empty() { "unknown" } else { word }
}
