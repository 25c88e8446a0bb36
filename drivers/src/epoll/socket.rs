//! The stream that an application sees.

use super::link::{Link, Shared};
use khamsin_stack::limits::STORE_MAX;
use khamsin_stack::{Content, Instant, Stream};
use std::cell::Cell;
use std::ops::Range;

/// One connection during one callback.
pub(super) struct Socket<'a> {
    link: &'a mut Link,
    shared: &'a mut Shared,
    index: u32,
    /// The application consumed or wrote something.
    progress: bool,
    /// The application found less room than there can be.
    fell_short: Cell<bool>,
}

impl<'a> Socket<'a> {
    pub(super) fn new(link: &'a mut Link, shared: &'a mut Shared, index: u32) -> Self {
        Socket { link, shared, index, progress: false, fell_short: Cell::new(false) }
    }

    /// Ends the callback: whether the application consumed or wrote something.
    pub(super) fn conclude(self) -> bool {
        self.link.wants_room |= self.fell_short.get();
        self.progress
    }

    fn refuses(&self) -> bool {
        self.link.ending || self.link.aborted
    }
}

impl Stream for Socket<'_> {
    fn recv(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize {
        let unread = self.link.unread(self.shared);
        let len = read(unread).min(unread.len());
        if len > 0 {
            self.link.consume(self.shared, len);
            self.progress = true;
        }
        len
    }

    fn finished(&self) -> bool {
        self.link.finished(self.shared)
    }

    fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if self.refuses() {
            write(&mut []);
            return 0;
        }
        let mut offered = 0;
        let len = self.link.outbox.write(&mut self.shared.pool, |room| {
            offered = room.len();
            write(room).min(offered)
        });
        self.progress |= len > 0;
        if offered == 0 {
            self.fell_short.set(true);
        }
        len
    }

    fn send_shared(&mut self, content: &Content, range: Range<usize>) -> bool {
        if self.refuses() {
            return false;
        }
        let nothing = range.is_empty();
        let sent = self.link.outbox.share(&mut self.shared.pool, content, range);
        if sent {
            self.progress |= !nothing;
        } else {
            self.fell_short.set(true);
        }
        sent
    }

    fn send_capacity(&self) -> usize {
        if self.refuses() {
            return 0;
        }
        let room = self.link.outbox.room(&self.shared.pool);
        if room < STORE_MAX {
            self.fell_short.set(true);
        }
        room
    }

    fn unacknowledged(&self) -> u64 {
        self.link.outbox.len()
    }

    fn wake_at(&mut self, deadline: Option<Instant>) {
        self.link.wake_at = deadline.unwrap_or(Instant::FAR_FUTURE);
        if let Some(at) = deadline {
            // The wheel calls no later than that; a deadline put off is found out when it calls too early.
            self.shared.wheel.arm(self.index, at);
        }
    }

    fn shutdown(&mut self) {
        self.link.ending = true;
    }

    fn abort(&mut self) {
        self.link.aborted = true;
    }
}
