//! Live connections: their segments, their timers, their turn with the application, and their end.
//!
//! Everything that runs over one connection runs inside [`guard_fate`]: a panic, in smoltcp or in an application, ends that
//! connection with a reset and a counter, and the shard goes on.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use super::{Flow, Shard};
use crate::app::App;
use crate::connection::{Connection, Env, Fate};
use crate::wire::{LinkHeader, LinkView, Segment};
use crate::{CloseReason, Instant, Queue};

/// Runs `work`; a panic in it becomes the end of the connection it worked on.
#[inline]
fn guard_fate(work: impl FnOnce() -> Fate) -> Fate {
    // What `work` left half done is the connection, which is dissolved, and smoltcp's interface, which is rebuilt; a
    // frame being written lies in `Env::frame` and is given back.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Fate::Over(CloseReason::Panicked))
}

/// Runs `work` of the application's; says whether it came to its end.
pub(super) fn guard(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_ok()
}

impl<A: App, Q: Queue> Shard<A, Q> {
    /// Puts a connection on the list of those to serve in this turn.
    #[inline]
    pub(super) fn touch(&mut self, id: u32) {
        if let Some(connection) = self.live.get_mut(id)
            && !core::mem::replace(&mut connection.listed, true)
        {
            self.touched.push(id);
        }
    }

    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn on_live(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        id: u32,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
    ) {
        let fate = self.work(now, queue, id, |connection, env| connection.on_segment(env, app, segment, bytes));
        match fate {
            Fate::Live => {
                self.follow_link(id, link);
                self.touch(id);
            }
            Fate::Over(reason) => self.end(now, app, id, reason),
        }
    }

    /// The peer's frames come from another MAC, or with other tags, than ours go to: it moved, or its router did.
    #[inline]
    fn follow_link(&mut self, id: u32, link: &LinkView) {
        let Some(connection) = self.live.get_mut(id) else { return };
        if connection.believed && connection.link_differs(link) {
            let mut header = LinkHeader::answering(link, self.world.caps.mac);
            header.dst = self.responder.route(&connection.key.peer, link.src);
            connection.set_link(&header);
        }
    }

    pub(super) fn on_connection_timer(&mut self, now: Instant, queue: &mut Q, app: &mut A, id: u32) {
        let Some(deadline) = self.live.get(id).and_then(Connection::deadline) else { return };
        if deadline > now {
            // The deadline has moved since the wheel was set: lazily is cheaper than each time.
            self.wheel.arm(id, deadline);
            return;
        }
        if self.park_if_quiet(now, queue, app, id) {
            return;
        }
        match self.work(now, queue, id, |connection, env| connection.on_timer(env, app)) {
            Fate::Live => self.touch(id),
            Fate::Over(reason) => self.end(now, app, id, reason),
        }
    }

    /// Gives every connection that something happened to its turn.
    pub(super) fn serve_touched(&mut self, now: Instant, queue: &mut Q, app: &mut A) {
        while let Some(id) = self.pending.pop() {
            self.touch(id);
        }
        let mut touched = core::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            self.serve(now, queue, app, id);
        }
        self.touched = touched;
    }

    fn serve(&mut self, now: Instant, queue: &mut Q, app: &mut A, id: u32) {
        let fate = self.work(now, queue, id, |connection, env| {
            connection.listed = false;
            connection.serve(env, app)
        });
        if let Fate::Over(reason) = fate {
            return self.end(now, app, id, reason);
        }
        let Some(connection) = self.live.get(id) else { return };
        if connection.wants_service() {
            self.pending.push(id);
        }
        if let Some(deadline) = connection.deadline() {
            self.wheel.arm(id, deadline);
        }
    }

    /// Runs `work` over a connection, guarded.
    #[inline]
    pub(super) fn work(
        &mut self,
        now: Instant,
        queue: &mut Q,
        id: u32,
        work: impl FnOnce(&mut Connection<A::Session>, &mut Env<'_, Q>) -> Fate,
    ) -> Fate {
        let Some(connection) = self.live.get_mut(id) else { return Fate::Live };
        let mut env = Env { now, queue: &mut *queue, frame: &mut self.frame, world: &mut self.world };
        let fate = guard_fate(|| work(connection, &mut env));
        if fate == Fate::Over(CloseReason::Panicked) {
            self.after_panic(now, queue, id);
        }
        fate
    }

    #[cold]
    fn after_panic(&mut self, now: Instant, queue: &mut Q, id: u32) {
        if let Some(frame) = self.frame.take() {
            queue.release(frame);
        }
        self.world.machine.rebuild();
        if let Some(connection) = self.live.get_mut(id) {
            let mut env = Env { now, queue, frame: &mut self.frame, world: &mut self.world };
            guard(|| connection.send_reset(&mut env));
        }
    }

    /// Resets a connection for a reason of ours.
    pub(super) fn reset(&mut self, now: Instant, queue: &mut Q, app: &mut A, id: u32, reason: CloseReason) {
        let fate = self.work(now, queue, id, |connection, env| {
            connection.send_reset(env);
            Fate::Over(reason)
        });
        if let Fate::Over(reason) = fate {
            self.end(now, app, id, reason);
        }
    }

    /// Takes a connection out of every table and gives its parts back.
    pub(super) fn end(&mut self, now: Instant, app: &mut A, id: u32, reason: CloseReason) {
        let Some(connection) = self.live.get_mut(id) else { return };
        let (key, session) = (connection.key, connection.take_session());
        let waits = reason == CloseReason::Finished && connection.owes_time_wait();
        let remains = waits.then(|| connection.remains());
        self.wheel.disarm(id);
        if let Some(sources) = &mut self.live_by {
            sources.remove(&key.peer);
        }
        let hash = self.flows.hash(&key);
        match remains {
            Some(remains) => self.enter_time_wait(now, hash, Flow::Live(id), remains),
            None => _ = self.flows.remove(hash, Flow::Live(id).pack()),
        }
        let (live, world) = (&mut self.live, &mut self.world);
        let mut parts = None;
        guard(|| parts = live.remove(id).map(|connection| connection.dissolve(world)));
        // Parts that fell over cost the room of one connection, and no other is touched.
        let reason = if parts.is_some() { reason } else { CloseReason::Panicked };
        parts.into_iter().for_each(|parts| self.live.give_parts(parts));
        self.count_end(&key, reason);
        if let Some(session) = session {
            self.tell_closed(app, session, reason);
        }
    }

    /// A session's last call; the application's code may panic here too.
    pub(super) fn tell_closed(&mut self, app: &mut A, session: A::Session, reason: CloseReason) {
        let told = guard(|| app.closed(session, reason));
        self.world.counters.closed_panicked += u64::from(!told);
    }
}
