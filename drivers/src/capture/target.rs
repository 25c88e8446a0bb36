//! Where a capture goes, and one that runs.

use super::output::Output;
use super::pcapng::About;
use super::ring::{self, Tap};
use super::writer::{Progress, Writer};
use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes of each worker's ring: a fifth of a second of 100 MB/s.
const RING: usize = 16 << 20;
/// How long the end of a capture waits for the writer, which a pipe may hold up.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a frame, from the destination MAC on, is to be in the file.
pub type Filter = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be made.
    #[error("wanted to capture into {path}, but it cannot be written: {error}; give a path that this user may write")]
    Create {
        /// As given.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// Somebody else writes it.
    #[error("wanted to capture into {0}, but another process captures into it; stop that one, or give another path")]
    Taken(PathBuf),
    /// There can be no further thread.
    #[error("wanted a thread that writes the capture, but {0}; look at `ulimit -u`")]
    Thread(io::Error),
}

/// A file to capture into.
pub struct Target {
    path: PathBuf,
    file: File,
    filter: Option<(String, Arc<Mutex<Filter>>)>,
}

/// A capture that runs; dropping it writes what is in the rings and closes the file.
pub struct Capture {
    stop: Arc<AtomicBool>,
    ended: Receiver<()>,
    pub(super) progress: Arc<Progress>,
    tallies: Vec<Arc<super::Tallies>>,
    path: PathBuf,
}

impl Target {
    /// Makes `path`; what a file of that name holds is gone when the capture [starts](Target::start), not before. Frames that
    /// `filter`, written as the text beside it, does not accept are left out.
    ///
    /// # Errors
    /// It cannot be written, or somebody else captures into it.
    pub fn create(path: &Path, filter: Option<(String, Filter)>) -> Result<Target, Error> {
        let failed = |error| Error::Create { path: path.into(), error };
        let file = open(path, false).map_err(failed)?;
        // As long as the file is open. File systems that know no locks are written without.
        if file.metadata().map_err(failed)?.is_file()
            && flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
        {
            return Err(Error::Taken(path.into()));
        }
        let filter = filter.map(|(text, filter)| (text, Arc::new(Mutex::new(filter))));
        Ok(Target { path: path.into(), file, filter })
    }

    /// Begins: one tap for each of `workers`, which name themselves, on `interface`. What a former capture wrote into the
    /// file is gone.
    ///
    /// # Errors
    /// The file cannot be written, or no thread can be started.
    pub fn start(&self, interface: &str, workers: &[String]) -> Result<(Capture, Vec<Tap>), Error> {
        self.start_with(interface, workers, RING)
    }

    pub(super) fn start_with(
        &self,
        interface: &str,
        workers: &[String],
        bytes: usize,
    ) -> Result<(Capture, Vec<Tap>), Error> {
        let failed = |error| Error::Create { path: self.path.clone(), error };
        let about = About {
            program: concat!("khamsin ", env!("CARGO_PKG_VERSION")),
            comment: None,
            interface,
            workers,
            filter: self.filter.as_ref().map(|f| f.0.as_str()),
        };
        let file = self.file.try_clone().map_err(failed)?;
        let output = Output::new(file, &about).map_err(failed)?;
        let (taps, sources): (Vec<_>, Vec<_>) = workers.iter().map(|_| ring::ring(bytes)).unzip();
        let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(Progress::default()));
        let tallies = sources.iter().map(|s| s.tallies.clone()).collect();
        let (told, ended) = channel();
        let filter = self.filter.as_ref().map(|f| f.1.clone());
        let writer = Writer::new(output, &self.path, sources, filter, progress.clone());
        let stopped = stop.clone();
        let body = move || writer.run(&stopped, &told);
        std::thread::Builder::new().name("khamsin-capture".into()).spawn(body).map_err(Error::Thread)?;
        Ok((Capture { stop, ended, progress, tallies, path: self.path.clone() }, taps))
    }
}

/// Makes or empties `path`. To open a FIFO that nobody reads would wait for ever: that is an error here (`ENXIO`, open(2)).
///
/// # Errors
/// Those of open(2).
pub fn create(path: &Path) -> io::Result<File> {
    open(path, true)
}

fn open(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(truncate).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let is_fifo = || path.metadata().is_ok_and(|m| m.file_type().is_fifo());
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::NXIO.raw_os_error() && is_fifo() => {
            io::Error::new(error.kind(), "nobody reads this FIFO")
        }
        _ => error,
    })?;
    // Who writes may wait for the reader: here that is a thread of its own.
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// What has become of the frames of a capture that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sum {
    pub(super) written: u64,
    /// Not in the file: it was slower than the link, or took no more.
    pub(super) missing: u64,
    /// The writer was still held up when nobody waited any longer.
    pub(super) stuck: bool,
}

impl Capture {
    /// Has the writer come to its end and waits for that, but not for ever.
    pub(super) fn finish(&self) -> Sum {
        self.stop.store(true, Release);
        let ended = self.ended.recv_timeout(FLUSH_TIMEOUT);
        let stuck = matches!(ended, Err(std::sync::mpsc::RecvTimeoutError::Timeout));
        let all = |of: fn(&super::Tallies) -> &AtomicU64| self.tallies.iter().map(|t| of(t).load(Relaxed)).sum::<u64>();
        let Progress { written, lost, rejected } = &*self.progress;
        let [written, lost, rejected] = [written, lost, rejected].map(|n| n.load(Relaxed));
        // What a writer that is held up has taken from the rings, or left there.
        let left = if stuck { all(|t| &t.taken).saturating_sub(written + lost + rejected) } else { 0 };
        Sum { written, missing: all(|t| &t.missed) + lost + left, stuck }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let (path, Sum { written, missing, stuck }) = (self.path.display(), self.finish());
        if stuck {
            tracing::warn!(
                "wanted to finish the capture, but {path} takes nothing more: its end is missing; see who reads it, or \
                 capture into a regular file"
            );
        }
        tracing::info!(
            "captured {written} frames into {path}; {missing} are missing because it was slower than the link, or full"
        );
    }
}
