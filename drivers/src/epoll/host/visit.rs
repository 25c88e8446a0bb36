//! One connection's turn: events in, callbacks, bytes out.

use super::{Connection, Host, Ticket};
use crate::epoll::Trigger;
use crate::epoll::link::{Call, Link, READ_BUDGET, Received, Shared};
use crate::epoll::listen::reset;
use crate::epoll::socket::Socket;
use khamsin_stack::limits::{FIN_WAIT_2_US, STORE_MAX};
use khamsin_stack::{App, CloseReason, Counters, Instant};
use rustix::event::epoll::{self, EventFlags};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Callbacks to one connection before the others have their turn.
const CALLS_MAX: usize = 64;
/// Deadlines looked at in one turn, and steps of the wheel towards them.
const EXPIRE_BUDGET: u32 = 4096;

impl<A: App> Host<A> {
    pub(super) fn on_event(&mut self, now: Instant, app: &mut A, ticket: Ticket, events: EventFlags) {
        let Some(Connection { link, .. }) = self.connection(ticket) else { return };
        if let Err(reason) = link.note(events) {
            return self.close(app, ticket.index, reason);
        }
        // Its budget is used up; it goes on at the head of the next turn.
        if link.queued.is_some() {
            return;
        }
        self.visit(now, app, ticket.index, Call::Nothing);
        if events.contains(EventFlags::HUP) && self.trigger == Trigger::Level {
            self.unwatch(ticket);
        }
    }

    /// Connections whose budget ended in an earlier turn.
    pub(super) fn go_on(&mut self, now: Instant, app: &mut A) -> usize {
        self.resume_accept(now);
        for number in 0..self.ports.len() {
            if self.ports[number].unfinished {
                self.accept(now, app, number);
            }
        }
        std::mem::swap(&mut self.queued, &mut self.spare);
        let tickets = std::mem::take(&mut self.spare);
        for &ticket in &tickets {
            if self.connection(ticket).is_some_and(|c| c.link.queued.is_some()) {
                self.visit(now, app, ticket.index, Call::Nothing);
            }
        }
        let work = tickets.len();
        self.spare = tickets;
        self.spare.clear();
        work
    }

    /// Looks after the connections whose deadline has come.
    pub(super) fn expire(&mut self, now: Instant, app: &mut A) -> usize {
        let mut work = 0;
        // An application may set its next deadline in the past, again and again: that one waits for the next turn.
        let mut budget = EXPIRE_BUDGET;
        while let Some(index) = self.shared.wheel.pop_expired(now, &mut budget) {
            let Some(Connection { link, .. }) = &mut self.slots[index as usize].connection else { continue };
            work += 1;
            if link.linger_until <= now {
                self.close(app, index, CloseReason::TimedOut);
            } else if link.wake_at <= now {
                link.wake_at = Instant::FAR_FUTURE;
                self.visit(now, app, index, Call::Expired);
            }
            self.arm(index);
        }
        work
    }

    /// Has the wheel call for the sooner one of a connection's deadlines.
    fn arm(&mut self, index: u32) {
        let Some(Connection { link, .. }) = &self.slots[index as usize].connection else { return };
        let sooner = link.wake_at.min(link.linger_until);
        if sooner != Instant::FAR_FUTURE {
            self.shared.wheel.arm(index, sooner);
        }
    }

    /// Calls those who found the pool empty, now that there may be blocks in it.
    pub(super) fn feed_starved(&mut self, now: Instant, app: &mut A) {
        if self.starved.is_empty() || self.shared.pool.free_blocks() == 0 {
            return;
        }
        let tickets = std::mem::take(&mut self.starved);
        for ticket in tickets {
            let Some(Connection { link, .. }) = self.connection(ticket) else { continue };
            link.starved = false;
            link.wants_room = false;
            self.visit(now, app, ticket.index, Call::Ready);
        }
    }

    /// Reads, calls back and writes until there is nothing left to do for connection `index` or its budget is used up.
    pub(super) fn visit(&mut self, now: Instant, app: &mut A, index: u32, call: Call) {
        let slot = &mut self.slots[index as usize];
        let ticket = Ticket { index, generation: slot.generation };
        let Some(Connection { link, session, .. }) = &mut slot.connection else { return };
        let call = match call {
            Call::Nothing => link.queued.take().unwrap_or(Call::Nothing),
            call => call,
        };
        let mut visit = Visit { now, index, link, session, shared: &mut self.shared };
        let later = match visit.run(app, call) {
            Ok(later) => later,
            Err(reason) => return self.close(app, index, reason),
        };
        // The kernel's own timer for this applies only to sockets that nobody holds any more.
        if link.ended && link.linger_until == Instant::FAR_FUTURE {
            link.linger_until = now.plus_micros(FIN_WAIT_2_US);
            self.shared.wheel.arm(index, link.linger_until);
        }
        if link.wants_room && link.outbox.is_empty() && link.outbox.room(&self.shared.pool) < STORE_MAX && !link.starved
        {
            link.starved = true;
            self.shared.counters.store_exhausted += 1;
            self.starved.push(ticket);
        }
        let later = match self.trigger {
            Trigger::Level => later.filter(|&call| call != Call::Nothing),
            Trigger::Edge => later.or(link.has_more_to_write().then_some(Call::Nothing)),
        };
        if let Some(call) = later
            && link.queued.replace(call).is_none()
        {
            self.queued.push(ticket);
        }
        if self.trigger == Trigger::Level {
            self.watch(ticket);
        }
    }

    /// Tells level-triggered epoll what is to be watched for, if that has changed.
    fn watch(&mut self, ticket: Ticket) {
        let Some(Connection { link, .. }) = &mut self.slots[ticket.index as usize].connection else { return };
        let wanted = link.level_interest();
        if wanted == link.interest {
            return;
        }
        let outcome = match link.watched {
            true => epoll::modify(&self.epoll, &link.fd, ticket.data(), wanted),
            false if wanted.is_empty() => return,
            false => epoll::add(&self.epoll, &link.fd, ticket.data(), wanted),
        };
        // Without it the connection hears of nothing any more; its application's deadline still ends it.
        if outcome.is_ok() {
            link.interest = wanted;
            link.watched = true;
        }
    }

    /// Takes a connection whose hang-up is reported again and again, while nothing of it is wanted, away from epoll.
    fn unwatch(&mut self, ticket: Ticket) {
        let Some(connection) = self.slots[ticket.index as usize].connection.as_mut() else { return };
        let link = &mut connection.link;
        if link.level_interest().is_empty() && link.watched && epoll::delete(&self.epoll, &link.fd).is_ok() {
            link.watched = false;
            link.interest = EventFlags::empty();
        }
    }

    /// Ends connection `index`, if there is one, for `reason`.
    pub(super) fn close(&mut self, app: &mut A, index: u32, reason: CloseReason) {
        let slot = &mut self.slots[index as usize];
        let Some(Connection { mut link, session, source }) = slot.connection.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.live -= 1;
        if let Some(sources) = &mut self.live_by {
            sources.remove(&source);
        }
        self.shared.wheel.disarm(index);
        self.shared.forget_input();
        link.outbox.clear(&mut self.shared.pool);
        // Closing takes the socket out of epoll.
        match reason {
            CloseReason::Finished => drop(link),
            _ => reset(link.fd),
        }
        *counter(&mut self.shared.counters, reason) += 1;
        // The connection is gone already; there is nobody left to answer for a panic.
        let _ = catch_unwind(AssertUnwindSafe(|| app.closed(session, reason)));
    }
}

fn counter(counters: &mut Counters, reason: CloseReason) -> &mut u64 {
    match reason {
        CloseReason::Finished => &mut counters.closed_finished,
        CloseReason::PeerReset => &mut counters.closed_reset,
        CloseReason::Aborted => &mut counters.closed_aborted,
        CloseReason::TimedOut => &mut counters.closed_timed_out,
        CloseReason::Drained => &mut counters.closed_drained,
        CloseReason::Panicked => &mut counters.closed_panicked,
    }
}

/// One connection while it has its turn.
struct Visit<'a, S> {
    now: Instant,
    index: u32,
    link: &'a mut Link,
    session: &'a mut S,
    shared: &'a mut Shared,
}

impl<S> Visit<'_, S> {
    /// Starts with `call`. Returns the call with which to go on in the next turn, if the budget was used up. `Err`: the
    /// connection is over.
    fn run<A: App<Session = S>>(&mut self, app: &mut A, mut call: Call) -> Result<Option<Call>, CloseReason> {
        let mut budget = READ_BUDGET;
        let mut calls = CALLS_MAX;
        if self.flush()? && call == Call::Nothing {
            call = Call::Ready;
        }
        loop {
            if call == Call::Nothing {
                self.link.keep_unread(self.shared);
                match self.link.receive(self.shared, &mut budget)? {
                    Received::Nothing => return Ok(None),
                    Received::BudgetUsed => return Ok(Some(Call::Nothing)),
                    Received::News => call = Call::Ready,
                }
            }
            if calls == 0 {
                self.link.keep_unread(self.shared);
                return Ok(Some(call));
            }
            calls -= 1;
            call = self.call(app, call)?;
        }
    }

    /// One callback and what follows from it; says which callback is due next.
    fn call<A: App<Session = S>>(&mut self, app: &mut A, call: Call) -> Result<Call, CloseReason> {
        let was_finished = self.link.finished(self.shared);
        let mut stream = Socket::new(self.link, self.shared, self.index);
        let outcome = catch_unwind(AssertUnwindSafe(|| match call {
            Call::Expired => app.expired(self.now, self.session, &mut stream),
            Call::Ready | Call::Nothing => app.ready(self.now, self.session, &mut stream),
        }));
        let progress = stream.conclude();
        if outcome.is_err() {
            return Err(CloseReason::Panicked);
        }
        if self.link.aborted {
            return Err(CloseReason::Aborted);
        }
        let room = self.flush()?;
        let finished = !was_finished && self.link.finished(self.shared);
        let more = progress && !self.link.unread(self.shared).is_empty();
        Ok(if room || finished || more { Call::Ready } else { Call::Nothing })
    }

    /// Writes what can be written; whether that made room that the application found missing.
    fn flush(&mut self) -> Result<bool, CloseReason> {
        let left = self.link.flush(self.shared)?;
        let room = left > 0 && self.link.wants_room;
        if room {
            self.link.wants_room = false;
        }
        Ok(room)
    }
}
