//! The thread that empties the rings into the file.

use super::flows::{Flows, segment};
use super::pcapng::{About, Packet, Pcapng};
use super::ring::{self, Header, Kind, Source, Tap, parse_ended};
use khamsin_stack::FlowKey;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of each worker's ring: a fifth of a second of 100 MB/s.
const RING: usize = 16 << 20;
/// How long the writer rests when the rings are empty.
const REST: Duration = Duration::from_millis(5);
/// Frames that wait for a comment on the end of their connection, which follows in the same turn of the worker.
const HELD_MAX: usize = 512;
/// Comments on connections whose last frame is in the file already.
const ORPHANS_MAX: usize = 1024;
/// Records taken in a row before the file is flushed.
const BATCH: usize = 8192;
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
    pub(super) written: Arc<AtomicU64>,
    pub(super) lost: Arc<AtomicU64>,
    /// Frames that the filter did not accept.
    rejected: Arc<AtomicU64>,
    tallies: Vec<Arc<super::Tallies>>,
    path: PathBuf,
}

impl Target {
    /// Makes `path`, or empties it; frames that `filter`, written as the text beside it, does not accept are left out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(path: &Path, filter: Option<(String, Filter)>) -> Result<Target, Error> {
        let file = create(path).map_err(|error| Error::Create { path: path.into(), error })?;
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
        let mut file = self.file.try_clone().map_err(failed)?;
        if file.metadata().map_err(failed)?.is_file() {
            file.rewind().and_then(|()| file.set_len(0)).map_err(failed)?;
        }
        let about = About {
            program: concat!("khamsin ", env!("CARGO_PKG_VERSION")),
            comment: None,
            interface,
            workers,
            filter: self.filter.as_ref().map(|f| f.0.as_str()),
        };
        let file = Pcapng::new(BufWriter::new(file), &about).map_err(failed)?;
        let (taps, sources): (Vec<_>, Vec<_>) = workers.iter().map(|_| ring::ring(bytes)).unzip();
        let stop = Arc::new(AtomicBool::new(false));
        let (written, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let rejected = Arc::new(AtomicU64::new(0));
        let tallies = sources.iter().map(|s| s.tallies.clone()).collect();
        let (told, ended) = channel();
        let writer = Writer {
            file,
            accepted: vec![0; sources.len()],
            sources,
            filter: self.filter.as_ref().map(|f| f.1.clone()),
            flows: Flows::new(),
            held: VecDeque::new(),
            orphans: Vec::new(),
            written: written.clone(),
            lost: lost.clone(),
            rejected: rejected.clone(),
            stamp_ns: 0,
        };
        let (path, stopped) = (self.path.clone(), stop.clone());
        let body = move || writer.run(&path, &stopped, &told);
        std::thread::Builder::new().name("khamsin-capture".into()).spawn(body).map_err(Error::Thread)?;
        Ok((Capture { stop, ended, written, lost, rejected, tallies, path: self.path.clone() }, taps))
    }
}

/// Makes or empties `path`. To open a FIFO that nobody reads would wait for ever: that is an error here (`ENXIO`, open(2)).
///
/// # Errors
/// Those of open(2).
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::NXIO.raw_os_error() => io::Error::new(error.kind(), "nobody reads this FIFO"),
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
        let [written, lost, rejected] = [&self.written, &self.lost, &self.rejected].map(|n| n.load(Relaxed));
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

/// Everything that the thread has.
struct Writer {
    file: Pcapng<BufWriter<File>>,
    sources: Vec<Source>,
    filter: Option<Arc<Mutex<Filter>>>,
    flows: Flows,
    /// The last frames, oldest first, and the flow of each.
    held: VecDeque<(Packet<'static>, Option<FlowKey>)>,
    orphans: Vec<String>,
    accepted: Vec<u64>,
    written: Arc<AtomicU64>,
    /// Frames that were taken from the rings, or lay there, when the file took no more.
    lost: Arc<AtomicU64>,
    rejected: Arc<AtomicU64>,
    /// Of the last record.
    stamp_ns: u64,
}

impl Writer {
    fn run(mut self, path: &Path, stop: &AtomicBool, told: &Sender<()>) {
        if let Err(error) = self.write_all(stop) {
            tracing::error!(
                "wanted to write the capture, but {} does not take it: {error}; nothing more is captured",
                path.display()
            );
            self.count_lost(stop);
        }
        // Nobody waits for the word of a capture that was given up.
        let _ = told.send(());
    }

    /// The file takes no more: what still comes is counted, to the end.
    fn count_lost(&mut self, stop: &AtomicBool) {
        self.lost.fetch_add(self.held.len() as u64, Relaxed);
        loop {
            let over = stop.load(Acquire) || self.sources.iter().all(Source::is_over);
            for source in &mut self.sources {
                while let Some((head, _)) = source.body() {
                    self.lost.fetch_add(u64::from(head.kind != Kind::Ended), Relaxed);
                }
            }
            if over {
                return;
            }
            std::thread::park_timeout(REST);
        }
    }

    fn write_all(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut rested = 0;
        loop {
            // Read before the rings are: what came before the stop is in the file.
            let over = stop.load(Acquire) || self.sources.iter().all(Source::is_over);
            if self.take_batch()? {
                rested = 0;
                continue;
            }
            if over {
                return self.finish();
            }
            rested += 1;
            // The end of a connection is told in the same turn as its last frame: by the second rest it is here.
            if rested == 2 {
                self.let_go(0)?;
                self.file.flush()?;
            }
            std::thread::park_timeout(REST);
        }
    }

    /// Takes what is in the rings, oldest first, up to a bound. Says whether there was anything.
    fn take_batch(&mut self) -> io::Result<bool> {
        for taken in 0..BATCH {
            let heads = self.sources.iter_mut().enumerate().filter_map(|(i, s)| Some((s.head()?.stamp_ns, i)));
            let Some((_, interface)) = heads.min() else { return Ok(taken > 0) };
            let Some((head, bytes)) = self.sources[interface].body() else { return Ok(taken > 0) };
            self.stamp_ns = head.stamp_ns;
            match head.kind {
                Kind::Ended => self.ended(&bytes, head.stamp_ns),
                kind => self.frame(interface, kind == Kind::Received, head, bytes)?,
            }
        }
        Ok(true)
    }

    fn frame(&mut self, interface: usize, received: bool, head: Header, bytes: Vec<u8>) -> io::Result<()> {
        let wanted = self.filter.as_ref().is_none_or(|filter| {
            // A filter that panicked has no state that could be half changed.
            filter.lock().unwrap_or_else(PoisonError::into_inner)(&bytes)
        });
        let segment = segment(&bytes, received);
        if let Some(segment) = &segment {
            self.flows.saw(segment, received, head.stamp_ns, wanted);
        }
        if !wanted {
            self.rejected.fetch_add(1, Relaxed);
            return Ok(());
        }
        self.accepted[interface] += 1;
        let packet = Packet {
            interface: interface as u32,
            received,
            stamp_ns: head.stamp_ns,
            bytes: bytes.into(),
            missed: head.missed,
            comments: std::mem::take(&mut self.orphans),
        };
        self.held.push_back((packet, segment.map(|s| s.key)));
        self.let_go(HELD_MAX)
    }

    /// Puts the comment on the last frame of the flow, or on the next frame there is.
    fn ended(&mut self, bytes: &[u8], stamp_ns: u64) {
        let Some((key, reason)) = parse_ended(bytes) else { return };
        let Some(comment) = self.flows.ended(&key, reason, stamp_ns) else { return };
        match self.held.iter_mut().rev().find(|(_, flow)| *flow == Some(key)) {
            Some((packet, _)) => packet.comments.push(comment),
            None if self.orphans.len() < ORPHANS_MAX => self.orphans.push(comment),
            None => {}
        }
    }

    /// Writes the oldest frames until at most `keep` are held.
    fn let_go(&mut self, keep: usize) -> io::Result<()> {
        while self.held.len() > keep
            && let Some((packet, _)) = self.held.front()
        {
            self.file.packet(packet)?;
            self.held.pop_front();
            self.written.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.let_go(0)?;
        for (i, source) in self.sources.iter().enumerate() {
            let orphans = std::mem::take(&mut self.orphans);
            self.file.statistics(i as u32, self.stamp_ns, &source.tallies, self.accepted[i], &orphans)?;
        }
        self.file.flush()
    }
}
