//! From a configuration to bound sockets behind an attached program.

use super::admission::Admissions;
use super::bpf;
use super::device;
use super::error::OpenError;
use super::queue::XdpQueue;
use super::socket::{Groups, Mapping, REGISTER, RingSizes, Socket};
use super::steer::{self, Maps, Steering, XDP_PASS};
use super::supply::Supply;
use super::{Config, CopyMode, Mode};
use crate::link::{self, Link};
use core::time::Duration;
use khamsin_stack::queue::BURST;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::sleep;

/// How long a queue or an interface that a former process held may take to become free (14-143 ms were seen).
const BUSY_RETRY: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// Frames that one system call sends, where the kernel lets us choose.
const TX_BUDGET: u32 = 256;
/// Bytes that the kernel may have in flight for one socket in copy mode.
const SEND_BUFFER: usize = 64 << 20;
/// Smallest number of chunks of a queue: a burst for each of the four users.
const FRAMES_MIN: u32 = 4 * BURST as u32;
const FRAMES_MAX: u32 = 1 << 20;
const JOIN: &str = "joining multicast groups";
/// Ethernet header and one VLAN tag.
pub(super) const LINK_HEADER_MAX: usize = 18;
pub(super) const CHUNK_SMALL: u32 = 2048;
/// Chunks never exceed a page.
pub(super) const CHUNK_LARGE: u32 = 4096;

/// The program on the interface and the map behind it. Dropping it detaches the program: from then on everything goes to
/// the kernel.
pub struct Attachment {
    interface: String,
    link: OwnedFd,
    program: OwnedFd,
    map: OwnedFd,
    admissions: Admissions,
    steering: Steering,
    /// The driver is one that [`renew`](Attachment::renew) is for.
    forgets: bool,
    /// The groups that our neighbours solicit us through.
    groups: Groups,
}

impl Attachment {
    /// Puts a program for `steering` in the place of the present one; no packet sees neither.
    ///
    /// # Errors
    /// The steering asks for too much, or the kernel refuses the program. The former program stays.
    pub fn update(&mut self, steering: &Steering) -> Result<(), OpenError> {
        let program = load(&self.interface, steering, &self.map, &self.admissions)?;
        self.groups.set(steering.groups()).map_err(|e| OpenError::system(&self.interface, JOIN, e))?;
        bpf::link_update(self.link.as_fd(), program.as_fd())
            .map_err(|e| OpenError::system(&self.interface, "replacing the XDP program", e))?;
        self.program = program;
        self.steering = steering.clone();
        Ok(())
    }

    /// To be called when the interface came up again or has another MTU: hands the program once more to a driver that
    /// forgets it whenever it makes its rings anew, as vmxnet3 does (`vmxnet3_rq_cleanup_all` of Linux 6.6 to 6.18 clears
    /// it; the kernel goes on to call it attached, and every frame goes past it). False: the driver is none of those.
    ///
    /// # Errors
    /// The kernel refuses the program; nothing arrives until the server is started again.
    pub fn renew(&mut self) -> Result<bool, OpenError> {
        if self.forgets {
            // A program like it: the kernel would take no notice of the same one.
            self.update(&self.steering.clone())?;
        }
        Ok(self.forgets)
    }

    /// The interface that the program is attached to.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The attached program, for those who want to look at it.
    pub fn program(&self) -> impl AsFd + '_ {
        &self.program
    }
}

/// Attaches the steering program to `config.interface` and binds a socket to every receive queue in use.
///
/// The queues are in the order of their numbers. A queue or an interface that a process just killed still holds is
/// waited for, up to a second.
///
/// # Errors
/// One sentence for each reason: see [`OpenError`]. Nothing stays attached.
pub fn open(config: &Config) -> Result<(Vec<XdpQueue>, Attachment), OpenError> {
    if (config.mode, config.copy) == (Mode::Generic, CopyMode::ZeroCopy) {
        return Err(OpenError::GenericZeroCopy);
    }
    let device = device::query(&config.interface)?;
    let chunk = device::chunk_size(&device)?;
    raise_memlock();
    let map = bpf::xskmap(device.rx_queues).map_err(|e| OpenError::system(&device.name, "making an XSKMAP", e))?;
    let admissions = Admissions::new(device.rx_queues)
        .map_err(|e| OpenError::system(&device.name, "making a map of what each queue lets in", e))?;
    let program = load(&device.name, &config.steering, &map, &admissions)?;
    let link = attach(config, &device, &program)?;
    let mut groups = Groups::new(device.index).map_err(|e| OpenError::system(&device.name, JOIN, e))?;
    groups.set(config.steering.groups()).map_err(|e| OpenError::system(&device.name, JOIN, e))?;
    let (interface, steering) = (device.name.clone(), config.steering.clone());
    let forgets = config.mode == Mode::Native && device::forgets_program(&device);
    let attachment = Attachment { interface, link, program, map, admissions, steering, forgets, groups };
    let queues = (0..device.rx_queues).map(|queue| {
        let opened = queue_open(config, &device, chunk, queue, &attachment.admissions)?;
        bpf::xskmap_set(attachment.map.as_fd(), queue, opened.as_fd())
            .map_err(|e| OpenError::system(&device.name, "entering a socket into the XSKMAP", e))?;
        Ok(opened)
    });
    Ok((queues.collect::<Result<_, OpenError>>()?, attachment))
}

/// As much locked memory as we may have without asking anybody.
fn raise_memlock() {
    let limit = getrlimit(Resource::Memlock);
    if limit.current != limit.maximum {
        // A refusal shows when the memory is registered.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

fn load(
    interface: &str,
    steering: &Steering,
    sockets: &OwnedFd,
    admissions: &Admissions,
) -> Result<OwnedFd, OpenError> {
    let maps = Maps { sockets: sockets.as_raw_fd(), admissions: admissions.raw_fd() };
    let code = steer::assemble(steering, maps, XDP_PASS)?;
    bpf::load(&code).map_err(|e| match OpenError::system(interface, "loading an XDP program", e.errno) {
        OpenError::System { source, .. } => OpenError::Program { source, log: e.log },
        // The verifier says EACCES when it refuses; only without a word of its own is a privilege missing.
        OpenError::Permission { .. } if !e.log.is_empty() => OpenError::Program { source: e.errno.into(), log: e.log },
        other => other,
    })
}

fn attach(config: &Config, device: &Link, program: &OwnedFd) -> Result<OwnedFd, OpenError> {
    let flags = match config.mode {
        Mode::Native => bpf::ATTACH_NATIVE,
        Mode::Generic => bpf::ATTACH_GENERIC,
    };
    let mut patience = Patience::new();
    loop {
        let errno = match bpf::link(program.as_fd(), device.index, flags) {
            Ok(link) => return Ok(link),
            Err(errno) => errno,
        };
        // EEXIST: native and generic programs exclude each other.
        if !matches!(errno, Errno::BUSY | Errno::EXIST) {
            return Err(attach_refusal(config, device, errno));
        }
        let (id, info) = holder(&device.name);
        // One of ours, or one that is gone by now or cannot be looked at, is perhaps that of a dying process.
        let foreign = info.as_ref().is_some_and(|info| info.name != bpf::NAME);
        if foreign || !patience.pause() {
            let interface = device.name.clone();
            let (name, tag) = info.map_or_else(Default::default, |info| (info.name, info.tag));
            return Err(OpenError::Attached { interface, id, name, tag });
        }
    }
}

fn attach_refusal(config: &Config, device: &Link, errno: Errno) -> OpenError {
    let (interface, source) = (device.name.clone(), errno.into());
    let hint = match errno {
        Errno::OPNOTSUPP if config.mode == Mode::Native => {
            return OpenError::NoNative { interface, driver: device::driver(device).into(), source };
        }
        Errno::RANGE => {
            "the MTU of the interface or of its peer is too large for native XDP: `ip link set dev … mtu 1500`"
        }
        Errno::NOSPC => "it has fewer receive queues than its peer has transmit queues: `ethtool -L` on either end",
        Errno::INVAL => {
            "the driver wants LRO, hardware GRO or the like off, or fewer queues: `ethtool -K … lro off rx-gro-hw off`, \
             `ethtool -L`, or --xdp-mode generic"
        }
        other => return OpenError::system(&interface, "attaching the XDP program", other),
    };
    OpenError::Attach { interface, hint, source }
}

/// What is left of the time that a former process may take to let go.
struct Patience(Duration);

impl Patience {
    fn new() -> Self {
        Patience(BUSY_RETRY)
    }

    /// Sleeps for a moment; false, without sleeping, when all the time is used up.
    fn pause(&mut self) -> bool {
        if self.0.is_zero() {
            return false;
        }
        sleep(BUSY_PAUSE);
        self.0 = self.0.saturating_sub(BUSY_PAUSE);
        true
    }
}

/// The program that is attached to `interface`: its id (0 when there is none any more) and what may be known of it,
/// which takes CAP_SYS_ADMIN.
fn holder(interface: &str) -> (u32, Option<bpf::ProgramInfo>) {
    let id = link::xdp_program(interface).ok().flatten();
    (id.unwrap_or_default(), id.and_then(|id| bpf::program_info(id).ok()))
}

fn queue_open(
    config: &Config,
    device: &Link,
    chunk: u32,
    queue: u32,
    admissions: &Admissions,
) -> Result<XdpQueue, OpenError> {
    let failed = |wanted| move |e| OpenError::system(&device.name, wanted, e);
    let socket = Socket::new().map_err(failed("opening an AF_XDP socket"))?;
    let frames = config.frames_per_queue.clamp(FRAMES_MIN, FRAMES_MAX).next_power_of_two();
    let bytes = frames as usize * chunk as usize;
    let memory = Mapping::anonymous(bytes).map_err(failed("mapping memory for frames"))?;
    let quarter = frames / 4;
    let sizes = RingSizes { fill: quarter, completion: quarter, rx: quarter, tx: quarter };
    let supply = match config.copy {
        CopyMode::ZeroCopy => Supply::fixed(quarter),
        CopyMode::Copy => Supply::adaptive(quarter),
    };
    let mut admission = admissions.of(queue);
    admission.grant(supply.syns(0, u32::MAX));
    let mut umem = socket.umem(memory, chunk, sizes, supply).map_err(|(wanted, e)| match e {
        Errno::NOBUFS if wanted == REGISTER => {
            OpenError::LockedMemory { bytes, limit: getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX) }
        }
        other => failed(wanted)(other),
    })?;
    socket.set_tx_budget(TX_BUDGET.min(quarter));
    socket.set_send_buffer(SEND_BUFFER);
    // Before the bind: a zero-copy driver takes its first buffers then.
    umem.refill();
    bind(config, device, &socket, queue)?;
    Ok(XdpQueue::new(umem, socket, admission, device.name.clone(), queue, device::caps(device)))
}

fn bind(config: &Config, device: &Link, socket: &Socket, queue: u32) -> Result<(), OpenError> {
    let interface = || device.name.clone();
    let zero_copy = config.copy == CopyMode::ZeroCopy;
    let mut patience = Patience::new();
    loop {
        match socket.bind(device.index, queue, zero_copy) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if patience.pause() => {}
            Err(Errno::BUSY) => return Err(OpenError::QueueBusy { interface: interface(), queue }),
            Err(e) if zero_copy && !matches!(e, Errno::PERM | Errno::NODEV) => {
                return Err(OpenError::NoZeroCopy { interface: interface(), queue, source: e.into() });
            }
            Err(e) => return Err(OpenError::system(&device.name, "binding an AF_XDP socket to a queue", e)),
        }
    }
}
