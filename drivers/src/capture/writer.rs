//! The thread that empties the rings into the file.

use super::flows::{Flows, Segment, segment};
use super::output::{Output, Refused};
use super::pcapng::{Packet, Sums};
use super::ring::{Header, Kind, Source, parse_ended};
use super::target::Filter;
use khamsin_stack::wire::checksum;
use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the writer rests when the rings are empty.
const REST: Duration = Duration::from_millis(5);
/// Frames that wait for a comment on the end of their connection, which follows in the same turn of the worker.
const HELD: usize = 512;
/// Frames that wait when all are of one turn, and their bytes.
const HELD_MAX: usize = 16_384;
const HELD_BYTES_MAX: usize = 16 << 20;
/// Frames are in the file that much later, however little there is to write. Nanoseconds between records.
const LATE_NS: u64 = 100_000_000;
/// How often the writer looks whether the file still has a name, by the time of records.
const LOOK_NS: u64 = 1_000_000_000;
/// Comments on connections whose last frame is in the file already; each further frame takes some of them.
const ORPHANS_MAX: usize = 65_536;
const ORPHANS_EACH: usize = 64;
/// Comments in one block of statistics: some 140 KB.
const COMMENTS_EACH: usize = 1024;
/// Records taken in a row before anything else is done.
const BATCH: usize = 8192;
/// Where the checksum stands in a TCP header.
const TCP_CHECKSUM: usize = 16;

/// What the thread and whoever waits for it both know. Frames.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) written: AtomicU64,
    /// Taken from the rings, or lay there, when the file took no more.
    pub(super) lost: AtomicU64,
    /// The filter did not accept them.
    pub(super) rejected: AtomicU64,
}

/// An interface of the file: a worker.
struct Interface {
    source: Source,
    accepted: u64,
    /// Missed since the last frame that is in the file.
    missed: u64,
    /// Frames that the file did not take.
    lost: u64,
}

/// Everything that the thread has.
pub(super) struct Writer {
    output: Output,
    path: PathBuf,
    interfaces: Vec<Interface>,
    filter: Option<Arc<Mutex<Filter>>>,
    flows: Flows,
    /// The last frames, oldest first, and their bytes.
    held: VecDeque<Packet<'static>>,
    held_bytes: usize,
    /// The number of the next frame.
    next: u64,
    orphans: VecDeque<String>,
    /// Ends of connections for which there was no room.
    unsaid: u64,
    progress: Arc<Progress>,
    /// Of the last record, of the last flush, and when the file's name was looked at.
    stamp_ns: u64,
    flushed_ns: u64,
    looked_ns: u64,
    /// The file has no name any longer, and that was told.
    removed: bool,
}

impl Writer {
    pub(super) fn new(
        output: Output,
        path: &Path,
        sources: Vec<Source>,
        filter: Option<Arc<Mutex<Filter>>>,
        progress: Arc<Progress>,
    ) -> Writer {
        let interface = |source| Interface { source, accepted: 0, missed: 0, lost: 0 };
        Writer {
            output,
            path: path.into(),
            interfaces: sources.into_iter().map(interface).collect(),
            filter,
            flows: Flows::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            next: 0,
            orphans: VecDeque::new(),
            unsaid: 0,
            progress,
            stamp_ns: 0,
            flushed_ns: 0,
            looked_ns: 0,
            removed: false,
        }
    }

    /// Writes until `stop` is set or all workers are gone, and tells of the end.
    pub(super) fn run(mut self, stop: &AtomicBool, told: &Sender<()>) {
        let done = self.write_all(stop);
        if let Err(Refused { error, lost }) = &done {
            tracing::error!(
                "wanted to write the capture, but {} does not take it: {error}; nothing more is captured",
                self.path.display()
            );
            for (interface, lost) in lost.iter().enumerate() {
                self.lose(interface, *lost);
            }
            self.count_lost(stop);
        }
        let last_words = done.map_err(|refused| refused.error.to_string()).err();
        self.finish(last_words);
        // Nobody waits for the word of a capture that was given up.
        let _ = told.send(());
    }

    /// The file takes no more: what still comes is counted, to the end.
    fn count_lost(&mut self, stop: &AtomicBool) {
        for packet in std::mem::take(&mut self.held) {
            self.lose(packet.interface as usize, 1);
        }
        self.orphans.clear();
        loop {
            let over = self.is_over(stop);
            for i in 0..self.interfaces.len() {
                while let Some((head, bytes)) = self.interfaces[i].source.body() {
                    if head.kind != Kind::Ended && self.wants(&bytes) {
                        self.interfaces[i].accepted += 1;
                        self.lose(i, 1);
                    }
                }
            }
            if over {
                return;
            }
            std::thread::park_timeout(REST);
        }
    }

    fn lose(&mut self, interface: usize, frames: u64) {
        self.interfaces[interface].lost += frames;
        self.progress.lost.fetch_add(frames, Relaxed);
    }

    /// Read before the rings are: what came before the stop is in the file.
    fn is_over(&self, stop: &AtomicBool) -> bool {
        stop.load(Acquire) || self.interfaces.iter().all(|i| i.source.is_over())
    }

    fn write_all(&mut self, stop: &AtomicBool) -> Result<(), Refused> {
        let mut rested = 0;
        loop {
            let over = self.is_over(stop);
            if self.take_batch()? {
                rested = 0;
                self.keep_up()?;
                continue;
            }
            if over {
                return self.let_all_go();
            }
            rested += 1;
            // The end of a connection is told in the same turn as its last frame: by the second rest it is here.
            if rested == 2 {
                self.let_all_go()?;
            }
            std::thread::park_timeout(REST);
        }
    }

    /// Takes what is in the rings, oldest first, up to a bound. Says whether there was anything.
    fn take_batch(&mut self) -> Result<bool, Refused> {
        for taken in 0..BATCH {
            let heads =
                self.interfaces.iter_mut().enumerate().filter_map(|(i, s)| Some((s.source.head()?.stamp_ns, i)));
            let Some((_, interface)) = heads.min() else { return Ok(taken > 0) };
            let Some((head, bytes)) = self.interfaces[interface].source.body() else { return Ok(taken > 0) };
            self.stamp_ns = head.stamp_ns;
            self.interfaces[interface].missed += head.missed;
            match head.kind {
                Kind::Ended => self.ended(&bytes, head.stamp_ns),
                kind => self.frame(interface, kind == Kind::Received, head, bytes)?,
            }
        }
        Ok(true)
    }

    /// A filter that panicked has no state that could be half changed.
    fn wants(&self, bytes: &[u8]) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.lock().unwrap_or_else(PoisonError::into_inner)(bytes))
    }

    fn frame(&mut self, interface: usize, received: bool, head: Header, mut bytes: Vec<u8>) -> Result<(), Refused> {
        let segment = segment(&bytes, received);
        if let Some(segment) = &segment {
            complete(&mut bytes, segment);
        }
        let wanted = self.wants(&bytes);
        if let Some(segment) = &segment {
            self.flows.saw(segment, received, head.stamp_ns, wanted.then_some(self.next));
        }
        if !wanted {
            self.progress.rejected.fetch_add(1, Relaxed);
            return Ok(());
        }
        let from = &mut self.interfaces[interface];
        from.accepted += 1;
        self.next += 1;
        self.held_bytes += bytes.len();
        self.held.push_back(Packet {
            interface: interface as u32,
            received,
            stamp_ns: head.stamp_ns,
            bytes: bytes.into(),
            missed: std::mem::take(&mut from.missed),
            comments: self.orphans.drain(..self.orphans.len().min(ORPHANS_EACH)).collect(),
        });
        let now_ns = self.stamp_ns;
        while self.held.len() > HELD
            && let Some(oldest) = self.held.front()
            && (oldest.stamp_ns != now_ns || self.held.len() > HELD_MAX || self.held_bytes > HELD_BYTES_MAX)
        {
            self.let_go()?;
        }
        Ok(())
    }

    /// Puts the comment on the last frame of the flow, or on the next frame there is.
    fn ended(&mut self, bytes: &[u8], stamp_ns: u64) {
        let Some((key, reason)) = parse_ended(bytes) else { return };
        let Some((comment, last)) = self.flows.ended(&key, reason, stamp_ns) else { return };
        let at = last.and_then(|last| (last + self.held.len() as u64).checked_sub(self.next));
        match at.and_then(|at| self.held.get_mut(at as usize)) {
            Some(packet) => packet.comments.push(comment),
            None if self.orphans.len() < ORPHANS_MAX => self.orphans.push_back(comment),
            None => self.unsaid += 1,
        }
    }

    /// A trickle of frames fills no buffer: what is late goes out all the same.
    fn keep_up(&mut self) -> Result<(), Refused> {
        if self.stamp_ns.abs_diff(self.flushed_ns) < LATE_NS {
            return Ok(());
        }
        while self.held.front().is_some_and(|oldest| oldest.stamp_ns.abs_diff(self.stamp_ns) > LATE_NS / 2) {
            self.let_go()?;
        }
        self.flush()
    }

    fn let_all_go(&mut self) -> Result<(), Refused> {
        while !self.held.is_empty() {
            self.let_go()?;
        }
        self.flush()
    }

    /// Lets the oldest frame go.
    fn let_go(&mut self) -> Result<(), Refused> {
        let Some(packet) = self.held.pop_front() else { return Ok(()) };
        self.held_bytes -= packet.bytes.len();
        if self.output.packet(&packet) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Refused> {
        self.flushed_ns = self.stamp_ns;
        if self.stamp_ns.abs_diff(self.looked_ns) >= LOOK_NS {
            self.look();
        }
        let (written, result) = self.output.flush();
        self.progress.written.fetch_add(written, Relaxed);
        result
    }

    /// Says so, once, if the file was removed: nobody will find what is written.
    fn look(&mut self) {
        self.looked_ns = self.stamp_ns;
        if !self.removed && self.output.file().metadata().is_ok_and(|m| m.is_file() && m.nlink() == 0) {
            self.removed = true;
            tracing::warn!(
                "wanted to write the capture, but {} was removed: what is captured, before and after, is gone when khamsin \
                 ends, and takes room until then; start khamsin again to capture",
                self.path.display()
            );
        }
    }

    /// The statistics, and comments that no frame has taken. `refused`: why the file takes no more; it may take that.
    fn finish(&mut self, refused: Option<String>) {
        self.look();
        let mut words = Vec::new();
        let lost: u64 = self.interfaces.iter().map(|i| i.lost).sum();
        words.extend(refused.map(|error| format!("{lost} frames are missing behind the last one: {error}")));
        let told = self.interfaces.iter().map(|i| i.source.tallies.unsaid.load(Relaxed));
        let unsaid = told.sum::<u64>() + self.unsaid;
        if unsaid > 0 {
            words.push(format!("the ends of {unsaid} connections are missing: there was no room"));
        }
        words.extend(self.orphans.drain(..));
        for (i, interface) in self.interfaces.iter().enumerate() {
            let tallies = &interface.source.tallies;
            let sums = Sums {
                received: tallies.received.load(Relaxed),
                dropped: tallies.dropped.load(Relaxed),
                accepted: interface.accepted,
                missing: tallies.missed.load(Relaxed) + interface.lost,
            };
            let mut comments = words.chunks(COMMENTS_EACH);
            self.output.statistics(i as u32, self.stamp_ns, sums, comments.next().unwrap_or_default());
            comments.for_each(|more| self.output.statistics(i as u32, self.stamp_ns, sums, more));
            words.clear();
        }
        // What does not fit any more is not missed by anybody who was told so.
        if let Err(Refused { error, .. }) = self.flush() {
            tracing::debug!("{} does not take the statistics: {error}", self.path.display());
        }
    }
}

/// A checksum that was left to hardware which never saw the frame (the sum of the pseudo-header stands there) is made.
fn complete(frame: &mut [u8], segment: &Segment) {
    let Some(tcp) = frame.get_mut(segment.at.clone()) else { return };
    let partial = checksum::tcp_pseudo(&segment.key, tcp.len() as u32).to_be_bytes();
    if tcp.get(TCP_CHECKSUM..TCP_CHECKSUM + 2) == Some(&partial) {
        // Which is part of the sum.
        let sum = !checksum::data(tcp);
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
