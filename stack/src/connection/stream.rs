//! A connection as its application sees it.

use super::{Connection, Env, Receive, Transmit, Wishes};
use crate::app::Stream;
use crate::limits::STORE_MAX;
use crate::machine::Unit;
use crate::store::BlockPool;
use crate::{Content, Counters, Instant, Queue};
use core::ops::Range;

/// The view of one connection during one callback.
pub(super) struct View<'a> {
    /// Text that came just now, still in its frame; smoltcp holds nothing that comes before it.
    text: &'a [u8],
    unit: &'a mut Unit,
    rx: &'a mut Receive,
    tx: &'a mut Transmit,
    wishes: &'a mut Wishes,
    pool: &'a mut BlockPool,
    counters: &'a mut Counters,
}

impl<S> Connection<S> {
    /// Calls the application with its session and its view of this connection; returns how much it took of `text`, which
    /// is what comes next and smoltcp has not seen.
    pub(super) fn with_app<Q: Queue>(
        &mut self,
        env: &mut Env<'_, Q>,
        text: &[u8],
        call: impl FnOnce(&mut S, &mut View<'_>, Instant),
    ) -> usize {
        let Some(session) = self.session.as_mut() else { return 0 };
        self.wishes.progress = false;
        let mut view = View {
            text,
            unit: &mut self.unit,
            rx: &mut self.rx,
            tx: &mut self.tx,
            wishes: &mut self.wishes,
            pool: &mut env.world.pool,
            counters: &mut env.world.counters,
        };
        call(session, &mut view, env.now);
        let taken = text.len() - view.text.len();
        if text.is_empty() {
            self.hand_on(env);
        }
        if self.wishes.short_of_room.get() {
            self.note_short_of_room(env.now, &env.world.pool);
        }
        taken
    }
}

impl View<'_> {
    /// Lets the application read in the frame.
    #[inline]
    fn recv_text(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize {
        let n = read(self.text).min(self.text.len());
        self.text = &self.text[n..];
        self.rx.pass_by(n as u64);
        self.counters.rx_payload_bytes += n as u64;
        n
    }

    /// Lets the application read in smoltcp's ring.
    fn recv_buffered(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize {
        let n = self.unit.recv(read);
        self.rx.consumed += n as u64;
        n
    }

    /// The application could use more room than there is: it is to hear when there is more.
    fn fell_short(&self) {
        self.wishes.short_of_room.set(true);
    }
}

impl Stream for View<'_> {
    #[inline]
    fn recv(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize {
        let n = if !self.text.is_empty() {
            self.recv_text(read)
        } else if self.rx.unread() > 0 {
            self.recv_buffered(read)
        } else {
            read(&[]);
            0
        };
        self.wishes.progress |= n > 0;
        n
    }

    fn finished(&self) -> bool {
        self.rx.is_consumed()
    }

    #[inline]
    fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if self.tx.shutdown || self.wishes.abort {
            write(&mut []);
            return 0;
        }
        let mut offered = 0;
        let n = self.tx.store.write(self.pool, |room| {
            offered = room.len();
            write(room)
        });
        if offered == 0 {
            self.counters.store_exhausted += u64::from(self.pool.free() == 0);
            self.fell_short();
        }
        self.wishes.progress |= n > 0;
        n
    }

    fn send_shared(&mut self, content: &Content, range: Range<usize>) -> bool {
        if self.tx.shutdown || self.wishes.abort {
            return false;
        }
        let sent = self.tx.store.share(self.pool, content, range);
        if sent {
            self.wishes.progress = true;
        } else {
            self.fell_short();
        }
        sent
    }

    fn send_capacity(&self) -> usize {
        if self.tx.shutdown || self.wishes.abort {
            return 0;
        }
        let room = self.tx.store.room(self.pool);
        if room < STORE_MAX {
            self.fell_short();
        }
        room
    }

    fn unacknowledged(&self) -> u64 {
        self.tx.store.end() - self.tx.store.start()
    }

    fn wake_at(&mut self, deadline: Option<Instant>) {
        self.wishes.wake_at = deadline;
    }

    fn shutdown(&mut self) {
        self.tx.shutdown = true;
    }

    fn abort(&mut self) {
        self.wishes.abort = true;
    }
}
