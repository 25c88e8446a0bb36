//! A server, a client and the impaired link between them.

use super::cell::{Cell, Work};
use super::client;
use super::kernel;
use anyhow::{Context, Result, anyhow, bail};
use khamsin_drivers::link;
use khamsin_drivers::sim::{Path, PathConfig, PathStats, Side};
use khamsin_tools::bed::{Bed, CLIENT_LINK, CLIENT_V4, KERNEL_V4, SERVER_LINK};
use khamsin_tools::command::run;
use khamsin_tools::middlebox::{Middlebox, Passage};
use khamsin_tools::pages::pattern;
use khamsin_tools::rung::Rung;
use khamsin_tools::server::Server;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// Bytes of the file that long downloads ask for again and again.
const BULK: usize = 64 << 20;
/// How often a run that the machine disturbed is repeated.
const REPEATS: u32 = 3;
/// How long the link goes on without faults after a run, so that both ends hear of its end.
const SETTLE: Duration = Duration::from_millis(80);

/// One side of the comparison.
pub(crate) struct Lane {
    bed: Bed,
    middlebox: Middlebox,
    rung: Rung,
    port: u16,
    _server: Server,
}

/// What one run found.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Mbit/s or milliseconds, as the cell says.
    pub(crate) figure: f64,
    /// What the middlebox says of the last link.
    pub(crate) passage: Passage,
    /// What became of the frames of the server and of the client; of a cell of flows, of the last one.
    pub(crate) path: [PathStats; 2],
    /// What the client's kernel counted meanwhile, and the server's, whose counts are khamsin's only where that uses sockets.
    pub(crate) kernels: [kernel::Counts; 2],
    /// Runs thrown away before this one, because the machine disturbed them.
    pub(crate) repeated: u32,
    /// Why this one is doubtful too, if it is.
    pub(crate) objection: Option<String>,
}

/// Writes what the servers serve.
///
/// # Errors
/// No room.
pub(crate) fn write_files(folder: &FilePath) -> Result<()> {
    std::fs::write(folder.join("bulk"), pattern(BULK, 1))?;
    for cell in Cell::all() {
        if let Work::Flow { bytes, .. } = cell.work {
            std::fs::write(folder.join(format!("flow-{bytes}")), pattern(bytes, 2))?;
        }
    }
    Ok(())
}

impl Lane {
    /// Starts a server on `rung` that serves `root`, and fetches a page once so that both ends know each other's addresses.
    ///
    /// # Errors
    /// The server does not come up, or does not serve.
    pub(crate) fn open(rung: Rung, root: &FilePath) -> Result<Lane> {
        let (bed, middlebox) = Bed::taps()?;
        // The machine's default may be another one, and a namespace may not choose one that the machine does not allow to
        // everybody; a route may. Everything else is as the kernel comes.
        for (netns, link, own) in [(&bed.server, SERVER_LINK, KERNEL_V4), (bed.client(), CLIENT_LINK, CLIENT_V4)] {
            let line =
                format!("route replace 198.18.0.0/24 dev {link} proto kernel scope link src {own} congctl cubic");
            netns.ip(&line.split(' ').collect::<Vec<_>>())?;
        }
        let server = Server::on(rung, &bed, root)?;
        let mut lane = Lane { bed, middlebox, rung, port: 20_000, _server: server };
        let address = lane.address(80)?;
        let mut faultless = Path::symmetric(0, PathConfig { delay_us: 200, ..PathConfig::default() });
        lane.carry(&mut faultless, move |port| client::flow(port, address, "/flow-14000", 14_000))
            .with_context(|| format!("a first page from khamsin {rung}"))?;
        Ok(lane)
    }

    fn address(&self, port: u16) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.rung.v4().parse()?, port))
    }

    /// One run, repeated while the machine disturbs it.
    ///
    /// # Errors
    /// The server fails the client.
    pub(crate) fn sample(&mut self, cell: &Cell, seed: u64, time: Duration) -> Result<Sample> {
        let mut repeated = 0;
        loop {
            let mut sample = self.once(cell, seed, time)?;
            sample.repeated = repeated;
            if sample.objection.is_none() || repeated == REPEATS {
                return Ok(sample);
            }
            repeated += 1;
        }
    }

    fn once(&mut self, cell: &Cell, seed: u64, time: Duration) -> Result<Sample> {
        let (http, sink) = (self.address(80)?, self.address(9)?);
        let flows = if let Work::Flow { flows, .. } = cell.work { flows } else { 1 };
        let (mut sum, mut objection, mut last) = (0.0, None, None);
        let before = self.counted()?;
        for flow in 0..flows {
            self.forget()?;
            let dropped = self.dropped()?;
            // Flows of one seed are as unlike as those of two.
            let mut path = cell.path(seed << 16 | flow);
            let work = cell.work;
            let copies = cell.capacity(time) / BULK as u64 + 2;
            let (figure, passage) = self.carry(&mut path, move |port| match work {
                Work::Download => client::download_for(port, http, "/bulk", copies, time)
                    .map(|bytes| bytes as f64 * 8.0 / 1e6 / time.as_secs_f64()),
                Work::Upload { bytes } => {
                    client::upload(port, sink, bytes).map(|took| bytes as f64 * 8.0 / 1e6 / took.as_secs_f64())
                }
                Work::Flow { bytes, .. } => {
                    client::flow(port, http, &format!("/flow-{bytes}"), bytes).map(|took| took.as_secs_f64() * 1e3)
                }
            })?;
            sum += figure;
            let lost = self.dropped()? - dropped;
            objection = objection.or(passage.objection());
            objection = objection.or((lost > 0).then(|| format!("the TAPs' own queues dropped {lost} frames")));
            last = Some((passage, [path.stats(Side::Left), path.stats(Side::Right)]));
        }
        let Some((passage, path)) = last else { bail!("a cell without flows") };
        let [client, server] = self.counted()?;
        let kernels = [client.since(&before[0]), server.since(&before[1])];
        Ok(Sample { figure: sum / flows as f64, passage, path, kernels, repeated: 0, objection })
    }

    /// What both kernels have counted so far, the client's first.
    fn counted(&self) -> Result<[kernel::Counts; 2]> {
        let read = || kernel::Counts::read();
        Ok([self.bed.client().enter(read)??, self.bed.server.enter(read)??])
    }

    /// Has the client do `work` from a fresh port while the middlebox carries that connection over `path`.
    fn carry<T: Send + 'static>(
        &mut self,
        path: &mut Path,
        work: impl FnOnce(u16) -> Result<T> + Send + 'static,
    ) -> Result<(T, Passage)> {
        // Not a port whose last connection may still linger.
        self.port = if self.port == 59_999 { 20_000 } else { self.port + 1 };
        let (port, client, middlebox) = (self.port, self.bed.client(), &mut self.middlebox);
        let (ready, is_ready) = mpsc::sync_channel(1);
        let (start, may_start) = mpsc::sync_channel(1);
        let worker = client.spawn(move || {
            let _ = may_start.recv();
            work(port)
        })?;
        std::thread::scope(|scope| {
            let worker = &worker;
            let carrier = scope.spawn(move || {
                be_punctual();
                let _ = ready.send(());
                let passage = middlebox.forward(path, port, |_, _| worker.is_finished())?;
                let mut plain = Path::symmetric(0, PathConfig::default());
                let mut settled = None;
                middlebox.forward(&mut plain, 0, |now, _| now >= *settled.get_or_insert(now + SETTLE))?;
                Ok::<_, anyhow::Error>(passage)
            });
            let _ = is_ready.recv();
            let _ = start.send(());
            carrier.join().map_err(|_| anyhow!("the middlebox panicked"))?
        })
        .and_then(|passage| {
            let done = worker.join().map_err(|_| anyhow!("the client panicked"))??;
            Ok((done?, passage))
        })
    }

    /// What the kernels remember of former connections is forgotten: each run is a first one.
    fn forget(&self) -> Result<()> {
        for netns in [&self.bed.server, self.bed.client()] {
            netns.ip(&["tcp_metrics", "flush", "all"])?;
        }
        Ok(())
    }

    /// Frames that the kernels dropped because the TAPs' queues were full.
    fn dropped(&self) -> Result<u64> {
        let server = self.bed.server.enter(|| link::dropped(SERVER_LINK))??.tx;
        let client = self.bed.client().enter(|| link::dropped(CLIENT_LINK))??.tx;
        Ok(server + client)
    }
}

/// Puts this thread before whatever else the machine does; it sleeps between two turns. Without the right to, it stays
/// where it is and the passage tells what that did.
fn be_punctual() {
    let mut command = Command::new("chrt");
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    command.args(["--rr", "--pid", "20", &thread]);
    let _ = run(command, Duration::from_secs(5));
}
