//! Several queues of one worker as one [`Queue`]: more receive queues than workers, or several interfaces.

use crate::clock::Clock;
use crate::doorbell::Doorbell;
use core::time::Duration;
use khamsin_stack::queue::BURST;
use khamsin_stack::{Caps, Frame, Instant, Queue, QueueStats, RxChecksum, TxOffload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

/// The first sleep of a wait; each further one is twice as long. Between two sleeps every queue gets to wake its kernel
/// side and to notice that its device is gone, both of which poll() may not show.
const FIRST_SLEEP: Duration = Duration::from_millis(1);
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A frame, and which queue of the group it belongs to.
#[derive(Debug)]
pub struct GroupFrame<F> {
    frame: F,
    queue: u32,
}

impl<F: Frame> Frame for GroupFrame<F> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.frame.bytes()
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.frame.bytes_mut()
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.frame.capacity()
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        self.frame.set_len(len);
    }

    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        self.frame.rx_checksum()
    }
}

/// Several queues as one. Receiving goes round them; frames to send come from the queue that received last, or from
/// any other when that one has none.
pub struct Group<Q: Queue> {
    queues: Vec<Q>,
    doorbell: Option<Doorbell>,
    /// Frames of one queue on their way to the caller.
    taken: Vec<Q::Frame>,
    /// The queue that the next burst starts at.
    rx_next: usize,
    /// The queue that gave frames last.
    tx_from: usize,
}

impl<Q: Queue + AsFd> Group<Q> {
    /// A group of at least one queue. `None` when there is none.
    pub fn new(queues: Vec<Q>) -> Option<Self> {
        if queues.is_empty() {
            return None;
        }
        Some(Group { queues, doorbell: None, taken: Vec::with_capacity(BURST), rx_next: 0, tx_from: 0 })
    }

    /// The bell that ends [`wait`](Queue::wait). The queues themselves need none.
    pub fn set_doorbell(&mut self, doorbell: Doorbell) {
        self.doorbell = Some(doorbell);
    }

    /// The queues.
    pub fn queues(&self) -> &[Q] {
        &self.queues
    }

    /// Sleeps until a queue is readable or the bell rings, for `longest` at most; says whether either happened.
    fn sleep(&self, longest: Duration) -> io::Result<bool> {
        let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
        let mut fds: Vec<PollFd<'_>> = self.queues.iter().map(|q| PollFd::new(q, PollFlags::IN)).collect();
        fds.extend(self.doorbell.iter().map(|bell| PollFd::new(bell, PollFlags::IN)));
        let woken = match poll(&mut fds, Some(&timeout)) {
            Ok(n) => n > 0,
            // A signal: the caller looks at what it means.
            Err(Errno::INTR) => true,
            Err(errno) => return Err(errno.into()),
        };
        let rung = fds.last().is_some_and(|last| last.revents().contains(PollFlags::IN));
        if let Some(bell) = self.doorbell.as_ref().filter(|_| rung) {
            bell.answer();
        }
        Ok(woken)
    }
}

impl<Q: Queue + AsFd> Queue for Group<Q> {
    type Frame = GroupFrame<Q::Frame>;

    #[inline]
    fn begin(&mut self) {
        for queue in &mut self.queues {
            queue.begin();
        }
    }

    /// Nobody knows which queue the ended came by: each is told those of its turns, by and by of as many.
    #[inline]
    fn on_turn(&mut self, now: Instant, ended: u32) {
        for (i, queue) in self.queues.iter_mut().enumerate() {
            queue.on_turn(now, if i == self.rx_next { ended } else { 0 });
        }
    }

    /// Takes one queue's burst and, as long as there is room, the next one's. The first queue is another each time, so
    /// that a busy one does not starve the rest.
    #[inline]
    fn rx_burst(&mut self, burst: &mut Vec<Self::Frame>, limit: usize) -> usize {
        let (count, limit) = (self.queues.len(), limit.min(BURST));
        let (start, mut total) = (self.rx_next, 0);
        for step in 0..count {
            let index = (start + step) % count;
            let taken = self.queues[index].rx_burst(&mut self.taken, limit - total);
            if taken > 0 {
                self.tx_from = index;
                total += taken;
                burst.extend(self.taken.drain(..).map(|frame| GroupFrame { frame, queue: index as u32 }));
            }
            if total >= limit {
                break;
            }
        }
        self.rx_next = (start + 1) % count;
        total
    }

    #[inline]
    fn alloc_tx(&mut self) -> Option<Self::Frame> {
        let count = self.queues.len();
        for step in 0..count {
            let index = (self.tx_from + step) % count;
            if let Some(frame) = self.queues[index].alloc_tx() {
                self.tx_from = index;
                return Some(GroupFrame { frame, queue: index as u32 });
            }
        }
        None
    }

    #[inline]
    fn tx(&mut self, frame: Self::Frame, offload: TxOffload) {
        self.queues[frame.queue as usize].tx(frame.frame, offload);
    }

    #[inline]
    fn release(&mut self, frame: Self::Frame) {
        self.queues[frame.queue as usize].release(frame.frame);
    }

    #[inline]
    fn end(&mut self) {
        for queue in &mut self.queues {
            queue.end();
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut now = Clock.now();
        let deadline = timeout.map_or(Instant::FAR_FUTURE, |t| now + t);
        let mut longest = FIRST_SLEEP;
        loop {
            for queue in &mut self.queues {
                queue.wait(Some(Duration::ZERO))?;
            }
            if self.sleep(longest.min(deadline.since(now)))? {
                return Ok(());
            }
            now = Clock.now();
            if now >= deadline {
                return Ok(());
            }
            longest = (longest * 2).min(LONGEST_SLEEP);
        }
    }

    /// What every queue of the group can do: the first one's address, the smallest MTU, the offloads that all have.
    fn caps(&self) -> Caps {
        let mut caps = self.queues[0].caps();
        for queue in &self.queues[1..] {
            let other = queue.caps();
            caps.mtu = caps.mtu.min(other.mtu);
            caps.rx_partial_checksums |= other.rx_partial_checksums;
            caps.tx_checksum &= other.tx_checksum;
            caps.tx_segment_max = caps.tx_segment_max.min(other.tx_segment_max);
        }
        caps
    }

    fn stats(&self) -> QueueStats {
        self.queues.iter().map(Queue::stats).fold(QueueStats::default(), |a, b| QueueStats {
            rx_frames: a.rx_frames + b.rx_frames,
            rx_bytes: a.rx_bytes + b.rx_bytes,
            tx_frames: a.tx_frames + b.tx_frames,
            tx_bytes: a.tx_bytes + b.tx_bytes,
            rx_dropped: a.rx_dropped + b.rx_dropped,
            rx_syns_refused: a.rx_syns_refused + b.rx_syns_refused,
            rx_ring_starved: a.rx_ring_starved + b.rx_ring_starved,
            invalid_descs: a.invalid_descs + b.invalid_descs,
            tx_exhausted: a.tx_exhausted + b.tx_exhausted,
            tx_errors: a.tx_errors + b.tx_errors,
            kicks: a.kicks + b.kicks,
        })
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
