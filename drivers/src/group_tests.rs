//! A group over queues that are nothing but a pipe and a list of frames.

use super::*;
use rustix::pipe::pipe;
use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A frame that remembers which queue made it.
#[derive(Debug)]
struct Fake {
    owner: u8,
    bytes: Vec<u8>,
}

impl Frame for Fake {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn capacity(&self) -> usize {
        100
    }
    fn set_len(&mut self, len: usize) {
        self.bytes.resize(len.min(100), 0);
    }
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Valid
    }
}

struct FakeQueue {
    id: u8,
    waiting: VecDeque<Vec<u8>>,
    free: usize,
    sent: Vec<Vec<u8>>,
    released: usize,
    ended: usize,
    gone: bool,
    mtu: usize,
    readable: OwnedFd,
    writer: OwnedFd,
    /// Connections of which it was told that they ended.
    left: u32,
}

impl FakeQueue {
    fn new(id: u8) -> Self {
        let (readable, writer) = pipe().unwrap();
        FakeQueue {
            id,
            waiting: VecDeque::new(),
            free: 4,
            sent: vec![],
            released: 0,
            ended: 0,
            left: 0,
            gone: false,
            mtu: 1500,
            readable,
            writer,
        }
    }

    fn with_frames(id: u8, count: u8) -> Self {
        let mut queue = FakeQueue::new(id);
        queue.waiting.extend((0..count).map(|n| vec![id, n]));
        queue
    }
}

impl AsFd for FakeQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Queue for FakeQueue {
    type Frame = Fake;
    fn begin(&mut self) {}
    fn on_turn(&mut self, _: Instant, ended: u32) {
        self.left += ended;
    }
    fn rx_burst(&mut self, burst: &mut Vec<Fake>, limit: usize) -> usize {
        let count = limit.min(self.waiting.len());
        burst.extend(self.waiting.drain(..count).map(|bytes| Fake { owner: self.id, bytes }));
        count
    }
    fn alloc_tx(&mut self) -> Option<Fake> {
        self.free = self.free.checked_sub(1)?;
        Some(Fake { owner: self.id, bytes: vec![] })
    }
    fn tx(&mut self, frame: Fake, _: TxOffload) {
        assert_eq!(frame.owner, self.id, "a frame goes back to its own queue");
        self.sent.push(frame.bytes);
    }
    fn release(&mut self, frame: Fake) {
        assert_eq!(frame.owner, self.id, "a frame goes back to its own queue");
        self.released += 1;
    }
    fn end(&mut self) {
        self.ended += 1;
    }
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        assert_eq!(timeout, Some(Duration::ZERO), "only the group sleeps");
        if self.gone { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) }
    }
    fn caps(&self) -> Caps {
        Caps {
            mac: [self.id; 6],
            mtu: self.mtu,
            rx_partial_checksums: self.id == 1,
            tx_checksum: self.id == 0,
            tx_segment_max: 1000 * usize::from(self.id),
        }
    }
    fn stats(&self) -> QueueStats {
        QueueStats { rx_frames: 10 + u64::from(self.id), kicks: 1, ..QueueStats::default() }
    }
}

fn group(queues: Vec<FakeQueue>) -> Group<FakeQueue> {
    Group::new(queues).unwrap()
}

#[test]
fn a_group_of_nothing_is_none() {
    assert!(Group::<FakeQueue>::new(vec![]).is_none());
}

#[test]
fn frames_return_to_the_queue_they_came_from() {
    let mut group = group(vec![FakeQueue::with_frames(0, 2), FakeQueue::with_frames(1, 3)]);
    let mut burst = Vec::with_capacity(64);
    assert_eq!(group.rx_burst(&mut burst, 64), 5);
    for (n, frame) in burst.drain(..).enumerate() {
        assert_eq!(frame.rx_checksum(), RxChecksum::Valid);
        if n % 2 == 0 { group.tx(frame, TxOffload::NONE) } else { group.release(frame) }
    }
    group.end();
    let [a, b] = group.queues() else { panic!() };
    assert_eq!((a.sent.len() + b.sent.len(), a.released + b.released, a.ended, b.ended), (3, 2, 1, 1));
}

#[test]
fn a_busy_queue_does_not_starve_the_next() {
    let mut group =
        group(vec![FakeQueue::with_frames(0, 200), FakeQueue::with_frames(1, 4), FakeQueue::with_frames(2, 200)]);
    let mut burst = Vec::with_capacity(64);
    let mut first = Vec::new();
    for _ in 0..3 {
        assert_eq!(group.rx_burst(&mut burst, 64), 64, "the limit is over all queues");
        first.push(burst[0].bytes()[0]);
        burst.drain(..).for_each(|f| group.release(f));
    }
    assert_eq!(first, [0, 1, 2]);
    assert!(group.queues()[1].waiting.is_empty());
    assert_eq!(group.rx_burst(&mut burst, 1000), 64, "never more than a burst");
    burst.drain(..).for_each(|f| group.release(f));
}

#[test]
fn each_queue_hears_of_its_part_of_the_ended() {
    let mut group = group((0..3).map(FakeQueue::new).collect());
    let mut burst = Vec::with_capacity(64);
    for _ in 0..6 {
        group.on_turn(Instant::ZERO, 5);
        group.rx_burst(&mut burst, 64);
    }
    assert!(group.queues().iter().all(|queue| queue.left == 10));
}

#[test]
fn sending_starts_at_the_queue_that_received_and_goes_on_to_the_others() {
    let mut group = group(vec![FakeQueue::new(0), FakeQueue::with_frames(1, 1), FakeQueue::new(2)]);
    let mut burst = Vec::with_capacity(64);
    group.rx_burst(&mut burst, 64);
    let owners: Vec<u32> = std::iter::from_fn(|| group.alloc_tx()).map(|f| f.queue).collect();
    assert_eq!(owners, [1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0]);
    assert!(group.alloc_tx().is_none());
}

#[test]
fn waiting_ends_for_any_queue_for_the_bell_and_for_a_lost_device() {
    let mut group = group(vec![FakeQueue::new(0), FakeQueue::new(1)]);
    let start = Clock.now();
    group.wait(Some(Duration::from_millis(20))).unwrap();
    assert!(Clock.now().since(start) >= Duration::from_millis(19), "nothing happened");
    rustix::io::write(&group.queues[1].writer, b"x").unwrap();
    group.wait(None).unwrap();
    let mut idle = [0];
    rustix::io::read(&group.queues[1].readable, &mut idle).unwrap();
    let bell = Doorbell::new().unwrap();
    group.set_doorbell(bell.clone());
    bell.ring();
    group.wait(None).unwrap();
    assert!(!bell.answer(), "the ring was taken note of");
    group.queues[1].gone = true;
    assert_eq!(group.wait(None).unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[test]
fn a_group_can_do_what_all_its_queues_can() {
    let mut group = group(vec![FakeQueue::new(0), FakeQueue::new(1)]);
    group.queues[1].mtu = 1400;
    let caps = group.caps();
    assert_eq!((caps.mac, caps.mtu, caps.tx_segment_max), ([0; 6], 1400, 0));
    assert!(caps.rx_partial_checksums && !caps.tx_checksum);
    assert_eq!((group.stats().rx_frames, group.stats().kicks), (21, 2));
}
