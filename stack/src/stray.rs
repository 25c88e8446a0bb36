//! Frames that reached a shard which does not know their flow travel to the others over bounded rings.
//!
//! A NIC may change the queue of a flow at any time (RSS table, queue count, another CPU on the sender's side). The flow
//! stays with the shard that saw its SYN; its segments make a detour. A frame goes from shard to shard until one claims
//! it; the last one answers for all.

use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

use crate::RxChecksum;
use crate::limits::STRAY_RING;

/// A frame on its detour.
#[derive(Debug)]
pub(crate) struct Stray {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) checksum: RxChecksum,
    /// Shards that did not know it.
    pub(crate) seen_by: usize,
    /// One of them has sent its flow a cookie that has not come back.
    pub(crate) awaited: bool,
}

/// One shard's end of the rings.
pub struct StrayLink {
    inbox: Arc<ArrayQueue<Stray>>,
    next: Arc<ArrayQueue<Stray>>,
    wake_next: Box<dyn Fn() + Send>,
    shard: usize,
    shards: usize,
}

/// One link for each of `shards` shards. `wake(i)` must wake the worker of shard `i` if it sleeps.
pub fn links(shards: usize, wake: impl Fn(usize) + Send + Clone + 'static) -> Vec<StrayLink> {
    let rings: Vec<_> = (0..shards).map(|_| Arc::new(ArrayQueue::new(STRAY_RING))).collect();
    (0..shards)
        .map(|i| {
            let next = (i + 1) % shards;
            let wake = wake.clone();
            StrayLink {
                inbox: rings[i].clone(),
                next: rings[next].clone(),
                wake_next: Box::new(move || wake(next)),
                shard: i,
                shards,
            }
        })
        .collect()
}

impl StrayLink {
    /// Whose end it is.
    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    /// How many there are.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// Whether a frame that `seen_by` shards (this one not counted) did not know has somewhere to go.
    pub(crate) fn leads_on(&self, seen_by: usize) -> bool {
        seen_by + 1 < self.shards
    }

    /// Passes a frame on; false when the ring is full and the frame is lost, as on any full queue.
    pub(crate) fn pass_on(&self, stray: Stray) -> bool {
        let passed = self.next.push(stray).is_ok();
        if passed {
            (self.wake_next)();
        }
        passed
    }

    pub(crate) fn take(&self) -> Option<Stray> {
        self.inbox.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn stray(seen_by: usize) -> Stray {
        Stray { bytes: Box::new([1, 2, 3]), checksum: RxChecksum::Unknown, seen_by, awaited: false }
    }

    #[test]
    fn a_frame_visits_every_other_shard_once() {
        let rung = Arc::new(Mutex::new(Vec::new()));
        let bell = rung.clone();
        let links = links(3, move |i| bell.lock().unwrap().push(i));
        assert!(links[0].leads_on(0) && links[1].leads_on(1) && !links[2].leads_on(2));
        assert!(links[0].pass_on(stray(1)));
        assert_eq!(links[1].take().unwrap().seen_by, 1);
        assert!(links[2].take().is_none());
        assert_eq!(*rung.lock().unwrap(), [1]);
    }

    #[test]
    fn a_full_ring_loses_the_frame_and_says_so() {
        let links = links(2, |_| {});
        assert!((0..STRAY_RING).all(|_| links[0].pass_on(stray(1))));
        assert!(!links[0].pass_on(stray(1)));
    }
}
