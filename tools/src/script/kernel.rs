//! A script against the Linux kernel: a listening socket in a network namespace of its own, and we are the peer at the far
//! end of a TAP, in real time.
//!
//! The namespace belongs to a thread and vanishes with it. Offloads are off: every frame is one that could stand on a wire.

mod socket;

use super::model::{Body, Command, Family, Marks, Packet, Script, Tcp};
use super::play::{Mismatch, Report, Stage, play};
use super::wire::{Conversation, PEER, PORT, SERVER, Seen};
use crate::command;
use anyhow::{Context, Result, anyhow, bail};
use khamsin_drivers::clock::Clock;
use khamsin_drivers::link;
use khamsin_drivers::tap;
use khamsin_stack::Instant;
use khamsin_stack::wire::Flags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, setpriority_process};
use rustix::thread::UnshareFlags;
use socket::Socket;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

const LINK: &str = "khk0";
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Longest frame that the kernel can send here, and one byte more, to see that it was cut.
const FRAME_MAX: usize = 1515;
/// Longest sleep, so that it shows when this thread does not get the processor, microseconds.
const SLICE_US: u64 = 2_000;
/// Waking up later than this makes a run worthless, microseconds: what the kernel did is then judged by a wrong clock.
const LATE_US: u64 = 10_000;
/// What goes wrong so soon after that has gone wrong because of it, microseconds.
const SPOILT_US: u64 = 500_000;
/// Runs that may be spoilt by a busy machine.
const ATTEMPTS: u32 = 8;
/// Times that a new interface is asked whether it is there, and the time between, microseconds.
const READY_TRIES: u32 = 100;
const READY_GAP_US: u64 = 10_000;
/// Runs in a row that have to come to something else before a kernel is said to differ. Its timers and this thread share
/// the processors of the machine, and perhaps the machine with others: a timer that is late once says nothing of TCP.
const DISSENTS: u32 = 3;
/// How long the application waits for what the script says is there, microseconds.
const PATIENCE_US: u64 = 100_000;
/// What every run sets, beside the script's own: Linux as most servers run it, whatever this machine is tuned for.
const SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv4.tcp_rmem", "4096 131072 6291456"),
    ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
    ("net.ipv4.tcp_no_metrics_save", "1"),
];

/// What came of a run against the kernel.
#[derive(Debug)]
pub enum Against {
    /// It did what the script says.
    Same(Report),
    /// It did something else.
    Different(Box<Mismatch>),
    /// This machine is too busy to tell: each attempt was interrupted for longer than the script's times allow.
    Unclear,
}

/// Why no script can be run against the kernel here, or `None`.
pub fn kernel_refusal() -> Option<String> {
    if !command::is_installed("ip") {
        return Some("`ip` is not installed (apt-get install iproute2)".to_owned());
    }
    let tried = std::thread::spawn(|| Ground::new(&[]).map(drop)).join();
    let why = tried.unwrap_or_else(|_| Err(anyhow!("the attempt panicked"))).err()?;
    Some(format!("no namespace with a TAP in it can be made here: {why:#}"))
}

/// Runs `script` against this machine's kernel over one version of IP.
///
/// # Errors
/// No namespace, TAP or socket could be made.
pub fn run_kernel(script: &Script, family: Family) -> Result<Against> {
    let mut dissents = 0;
    for _ in 0..ATTEMPTS {
        let script = script.clone();
        let ran = std::thread::spawn(move || attempt(&script, family)).join();
        let (ran, spoilt) = ran.unwrap_or_else(|_| Err(anyhow!("the run panicked")))?;
        match ran {
            Ok(report) => return Ok(Against::Same(report)),
            Err(_) if spoilt => {}
            Err(mismatch) => {
                dissents += 1;
                if dissents == DISSENTS {
                    return Ok(Against::Different(Box::new(mismatch)));
                }
            }
        }
    }
    Ok(Against::Unclear)
}

/// One run, and whether what went wrong in it may have gone wrong because this thread was kept waiting.
fn attempt(script: &Script, family: Family) -> Result<(Result<Report, Mismatch>, bool)> {
    let ground = Ground::new(&script.header.sysctls)?;
    let mut stage = Wire::new(ground, Socket::listen(family, &script.header)?);
    stage.await_answer(family)?;
    let conversation = Conversation::new(family, stage.ground.kernel_mac, PEER_MAC, script.header.port_closed);
    let played = play(script, family, conversation, &mut stage);
    let spoilt = stage.late_at.is_some_and(|late_at| stage.now() < late_at + SPOILT_US);
    Ok((played, spoilt))
}

/// A namespace with one TAP in it, whose far end we hold.
struct Ground {
    tap: OwnedFd,
    kernel_mac: [u8; 6],
}

impl Ground {
    /// Moves this thread into a new namespace.
    fn new(sysctls: &[(String, String)]) -> Result<Ground> {
        unshare_network().context("make a network namespace")?;
        let ours = SYSCTLS.iter().map(|(name, value)| (*name, *value));
        for (name, value) in ours.chain(sysctls.iter().map(|(n, v)| (n.as_str(), v.as_str()))) {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            std::fs::write(&path, value).with_context(|| format!("write `{value}` to {path}"))?;
        }
        // As little as possible between a frame's arrival and our seeing it. It works without, only less often at once.
        let _ = setpriority_process(None::<Pid>, -20);
        link::set_up("lo")?;
        let tap = tap::open_plain(LINK)?;
        link::add_address(LINK, SERVER.0.into(), 24)?;
        link::add_address(LINK, SERVER.1.into(), 64)?;
        link::set_up(LINK)?;
        let shown = PEER_MAC.map(|byte| format!("{byte:02x}")).join(":");
        for peer in [PEER.0.to_string(), PEER.1.to_string()] {
            let mut ip = std::process::Command::new("ip");
            ip.args(["neigh", "replace", &peer, "lladdr", &shown, "dev", LINK, "nud", "permanent"]);
            command::run(ip, Duration::from_secs(10))?.ok()?;
        }
        Ok(Ground { tap, kernel_mac: link::by_name(LINK)?.mac })
    }
}

/// rustix calls this deprecated because with `FILES` it could pull descriptors away under other threads; that flag is
/// not passed here.
#[allow(deprecated)]
fn unshare_network() -> rustix::io::Result<()> {
    rustix::thread::unshare(UnshareFlags::NEWNET)
}

struct Wire {
    ground: Ground,
    socket: Socket,
    start: Instant,
    arrived: VecDeque<(u64, Vec<u8>)>,
    /// When this thread was last kept waiting.
    late_at: Option<u64>,
}

impl Wire {
    fn new(ground: Ground, socket: Socket) -> Wire {
        Wire { ground, socket, start: Clock.now(), arrived: VecDeque::new(), late_at: None }
    }

    /// A new interface does not answer at once: asks a closed port until it does.
    fn await_answer(&mut self, family: Family) -> Result<()> {
        let mut nobody = Conversation::new(family, self.ground.kernel_mac, PEER_MAC, true);
        let knock = Tcp { flags: Flags::ACK, ack: Some(1), ..Tcp::default() };
        let frame = nobody.encode(&Packet { marks: Marks::default(), body: Body::Tcp(knock) });
        for _ in 0..READY_TRIES {
            self.send(&frame).map_err(|e| anyhow!(e))?;
            let until = self.now() + READY_GAP_US;
            while let Some((_, frame)) = self.next_frame(until).map_err(|e| anyhow!(e))? {
                if matches!(nobody.decode(&frame), Seen::Segment(_)) {
                    (self.late_at, self.start) = (None, Clock.now());
                    self.arrived.clear();
                    return Ok(());
                }
            }
        }
        bail!("the kernel answers nothing on a new TAP over IP{family}")
    }

    /// Takes in what has arrived.
    fn collect(&mut self) {
        let mut buffer = [0; FRAME_MAX];
        // An error is that nothing is there; what else it may be shows as silence.
        while let Ok(n) = rustix::io::read(&self.ground.tap, &mut buffer) {
            self.arrived.push_back((self.now(), buffer[..n].to_vec()));
        }
    }

    /// Sleeps until `until` or the next frame, not longer than a slice.
    fn doze(&mut self, until: u64) -> Result<(), String> {
        let before = self.now();
        let nap = until.saturating_sub(before).min(SLICE_US);
        let timeout = Timespec { tv_sec: 0, tv_nsec: nap as i64 * 1000 };
        poll(&mut [PollFd::new(&self.ground.tap, PollFlags::IN)], Some(&timeout)).map_err(|e| e.to_string())?;
        let now = self.now();
        if now > before + nap + LATE_US {
            self.late_at = Some(now);
        }
        self.collect();
        Ok(())
    }
}

impl Stage for Wire {
    fn now(&self) -> u64 {
        Clock.now().micros_since(self.start)
    }

    fn next_frame(&mut self, until: u64) -> Result<Option<(u64, Vec<u8>)>, String> {
        self.collect();
        loop {
            if let Some(first) = self.arrived.pop_front() {
                return Ok(Some(first));
            }
            if self.now() >= until {
                return Ok(None);
            }
            self.doze(until)?;
        }
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        rustix::io::write(&self.ground.tap, frame).map(drop).map_err(|e| format!("the TAP takes no frame: {e}"))
    }

    fn command(&mut self, command: &Command) -> Result<(), String> {
        let until = self.now() + PATIENCE_US;
        loop {
            match self.socket.obey(command) {
                Ok(true) => return Ok(()),
                Err(message) => return Err(message),
                Ok(false) if self.now() >= until => return Err(self.socket.missed(command)),
                Ok(false) => self.doze(until)?,
            }
        }
    }

    /// The kernel counts in jiffies of up to 10 ms and does not promise to be in time.
    fn slack(&self, after_us: u64) -> (u64, u64) {
        (12_000 + after_us / 50, 30_000 + after_us / 20)
    }
}
