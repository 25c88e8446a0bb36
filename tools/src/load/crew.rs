//! The threads of a load: one engine each.

use super::book::{Book, Gauge, Together};
use super::client::Link;
use super::client::open::{self, Device};
use super::plan::Plan;
use super::progress::{LOOK, Progress};
use super::sockets::Sockets;
use super::tally::Tally;
use anyhow::{Context, Result, anyhow};
use khamsin_drivers::clock::Clock;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// A load and how it is carried.
#[derive(Clone, Debug)]
pub struct Job {
    /// What is asked.
    pub plan: Plan,
    /// What carries it.
    pub backend: Backend,
    /// Threads; frames have one.
    pub threads: usize,
    /// Where the figures are written as JSON; `-`: standard output.
    pub json: Option<PathBuf>,
    /// Neither progress nor table.
    pub quiet: bool,
}

/// What carries a load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The kernel's TCP, from these addresses in turn; none: its own choice.
    Sockets {
        /// Addresses that the kernel owns.
        sources: Vec<IpAddr>,
    },
    /// A small TCP of our own over frames; one thread.
    Frames {
        /// Where they go.
        device: Device,
        /// What is known of the link.
        link: Link,
    },
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The figures of all threads.
    pub tally: Tally,
    /// What carried it, in a word.
    pub carrier: String,
}

/// Carries `job` out.
///
/// # Errors
/// Nobody answers, or the system refuses what is needed.
pub fn run(job: &Job) -> Result<Outcome> {
    let together = Arc::new(Together { threads: job.threads, ..Together::default() });
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the program at once.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&together.stop))?;
        signal_hook::flag::register(signal, Arc::clone(&together.stop))?;
    }
    let gauges: Vec<Arc<Gauge>> = (0..job.threads).map(|_| Arc::default()).collect();
    let threads: Vec<JoinHandle<Result<(Tally, String)>>> = gauges
        .iter()
        .enumerate()
        .map(|(number, gauge)| {
            let plan = job.plan.share(number, job.threads);
            let (backend, gauge, together) = (job.backend.clone(), Arc::clone(gauge), Arc::clone(&together));
            thread::spawn(move || carry(plan, backend, gauge, together))
        })
        .collect();
    let mut progress = Progress::new(gauges, job.plan.duration, job.plan.connections_all(), job.quiet);
    while threads.iter().any(|t| !t.is_finished()) {
        thread::park_timeout(LOOK);
        progress.look();
        // A thread that has given up must not keep the others waiting for it.
        if threads.iter().any(JoinHandle::is_finished) && !threads.iter().all(JoinHandle::is_finished) {
            together.ready.fetch_max(job.threads, std::sync::atomic::Ordering::AcqRel);
        }
    }
    progress.end();
    let (mut tally, mut carrier) = (Tally::new()?, String::new());
    for thread in threads {
        let part = thread.join().map_err(|_| anyhow!("a thread of the load ended in a panic"))??;
        tally.add(&part.0)?;
        carrier = part.1;
    }
    Ok(Outcome { tally, carrier })
}

/// One thread's part: its figures, and what carried it.
fn carry(plan: Plan, backend: Backend, gauge: Arc<Gauge>, together: Arc<Together>) -> Result<(Tally, String)> {
    let clock = Clock;
    let now = clock.now();
    let book = Book::new(plan, gauge, together, now)?;
    match backend {
        Backend::Sockets { sources } => {
            let engine = Sockets::new(book, sources, now).context("kernel sockets")?;
            Ok((engine.run(clock)?.tally, "sockets".into()))
        }
        Backend::Frames { device, link } => {
            let (book, name) = open::run(book, &device, link, clock)?;
            Ok((book.tally, name))
        }
    }
}
