//! What workers turn, rung by rung.

use crate::apps::Apps;
use crate::worker::{Engine, Turn};
use khamsin_drivers::capture::Tapped;
use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::epoll::{Config, Host};
use khamsin_drivers::pages::ask_for_huge;
use khamsin_stack::recovery::Algorithm;
use khamsin_stack::{CloseReason, Instant, Queue, Shard, ShardConfig};
use std::io;
use std::time::Duration;

/// Kernel sockets through epoll.
pub(crate) struct KernelSockets {
    host: Host<Apps>,
    apps: Apps,
    /// Events were fetched since the last turn.
    fetched: bool,
}

impl KernelSockets {
    /// Listens as `config` says.
    ///
    /// # Errors
    /// An address cannot be listened on, or there are no descriptors; in a sentence.
    pub(crate) fn open(config: &Config, bell: Doorbell, apps: Apps) -> Result<Self, String> {
        let host = Host::open(config, bell).map_err(|e| e.to_string())?;
        Ok(KernelSockets { host, apps, fetched: false })
    }
}

impl Engine for KernelSockets {
    /// epoll has whatever came in between.
    const WAIT_LOOKS: bool = true;

    fn turn(&mut self, now: Instant) -> Turn {
        // An error shows again in the next `wait`, which can tell of it.
        if !std::mem::take(&mut self.fetched) {
            let _ = self.host.wait(Some(Duration::ZERO));
        }
        let busy = self.host.turn(now, &mut self.apps) > 0;
        Turn { busy, deadline: self.host.deadline() }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.host.wait(timeout)?;
        self.fetched = true;
        Ok(())
    }

    fn drain(&mut self, now: Instant) {
        self.host.drain(now, &mut self.apps);
    }

    fn abort_all(&mut self, _: Instant) {
        self.host.abort_all(&mut self.apps, CloseReason::Drained);
    }

    fn live(&self) -> usize {
        self.host.live()
    }

    fn summary(&self) -> String {
        told(self.host.counters().iter())
    }
}

/// A stack of our own over a queue of frames.
pub(crate) struct OwnStack<Q: Queue> {
    shard: Shard<Apps, Tapped<Q>>,
    queue: Tapped<Q>,
    apps: Apps,
    /// What the buffers of the queue were made for, bytes of IP packet.
    mtu_max: usize,
}

impl<Q: Queue> OwnStack<Q> {
    /// A stack set up as `config` says, over `queue`, for `apps`.
    pub(crate) fn new(config: ShardConfig, algorithm: Algorithm, queue: Tapped<Q>, apps: Apps) -> Self {
        let mut shard = Shard::new(config, queue.caps());
        shard.set_algorithm(algorithm);
        let huge: usize = shard.tables().into_iter().map(ask_for_huge).sum();
        tracing::debug!("tables of {} MiB may have huge pages", huge >> 20);
        if queue.captures() {
            shard.watch_ends();
        }
        OwnStack { shard, mtu_max: queue.caps().mtu, queue, apps }
    }

    /// Tells a capture which connections ended.
    #[inline]
    fn note_ends(&mut self) {
        if self.queue.captures() {
            for (key, reason) in self.shard.ends() {
                self.queue.note_end(&key, reason);
            }
        }
    }
}

impl<Q: Queue> Engine for OwnStack<Q> {
    #[inline]
    fn turn(&mut self, now: Instant) -> Turn {
        let turn = self.shard.turn(now, &mut self.queue, &mut self.apps);
        self.note_ends();
        Turn { busy: turn.busy, deadline: turn.deadline }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.queue.wait(timeout)
    }

    fn set_mtu(&mut self, now: Instant, mtu: usize) {
        self.shard.set_mtu(now, mtu.min(self.mtu_max));
    }

    fn drain(&mut self, now: Instant) {
        self.shard.drain(now, &mut self.queue, &mut self.apps);
        self.note_ends();
    }

    fn abort_all(&mut self, now: Instant) {
        self.shard.abort_all(now, &mut self.queue, &mut self.apps);
        self.note_ends();
    }

    fn live(&self) -> usize {
        self.shard.live()
    }

    fn summary(&self) -> String {
        let stats = self.queue.stats();
        let (frames, bytes) = self.queue.taken();
        let lost = [
            ("queue_rx_dropped", stats.rx_dropped),
            ("queue_rx_syns_refused", stats.rx_syns_refused),
            ("queue_rx_ring_starved", stats.rx_ring_starved),
            ("queue_tx_errors", stats.tx_errors),
            ("queue_kicks", stats.kicks),
            ("capture_frames", frames),
            ("capture_bytes", bytes),
            ("capture_missed", self.queue.missed()),
        ];
        told(self.shard.counters().iter().chain(lost))
    }
}

/// The counters that moved, for the log.
pub(crate) fn told(counters: impl Iterator<Item = (&'static str, u64)>) -> String {
    let moved: Vec<_> = counters.filter(|c| c.1 > 0).map(|(name, n)| format!("{name}={n}")).collect();
    moved.join(" ")
}
