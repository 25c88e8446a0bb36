//! Requests that cannot be answered at once: bodies that come, answers that wait for room, events, and deadlines.

use super::app::{Http, finish};
use super::body::{Body, Piece};
use super::pace::Pace;
use super::parse::{Framing, Refusal};
use super::plan::{Plan, asks_for_head, too_large};
use super::reply::{Conn, Length, push};
use super::response::Response;
use super::session::{HttpSession, State};
use super::spill::Spill;
use super::{DISCARD_MAX, HttpConfig, STEP, builtin};
use core::ops::Range;
use core::time::Duration;
use khamsin_stack::{Content, Instant, Stream};

/// Time between two events of `/events`.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// As long as makes no difference.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// A request in the course of being answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Bytes that wait for room.
    pub(super) out: Spill,
    /// What goes behind them, by reference.
    pub(super) shared: Option<(Content, Range<usize>)>,
    /// What is still to come of the request.
    body: Body,
    pace: Pace,
    /// Bytes of the body that came since the peer's progress was last looked at.
    came: u64,
    pub(super) task: Task,
    pub(super) conn: Conn,
}

/// What is done with the body, or in place of one.
#[derive(Debug)]
pub(crate) enum Task {
    /// The answer is complete; what is left of the body is thrown away, of which `discarded` bytes were.
    Answered { discarded: u64 },
    /// The body is collected for a callback.
    Collect { head: Vec<u8>, body: Vec<u8> },
    /// The body goes back as it comes.
    Echo { chunked: bool },
    /// One event a second.
    Events { count: u64, next: Instant, chunked: bool },
}

impl Exchange {
    pub(super) fn new(body: Body, conn: Conn, body_timeout: Duration) -> Self {
        let (pace, task) = (Pace::new(body_timeout), Task::Answered { discarded: 0 });
        Exchange { out: Spill::default(), shared: None, body, pace, came: 0, task, conn }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.task, Task::Answered { .. }) && self.body.is_done() && self.is_flushed()
    }

    /// Bytes in memory for this exchange alone.
    pub(super) fn held(&self) -> usize {
        self.out.len() + if let Task::Collect { body, .. } = &self.task { body.len() } else { 0 }
    }

    /// The head of a request whose body is collected.
    fn head(&self) -> &[u8] {
        if let Task::Collect { head, .. } = &self.task { head } else { &[] }
    }

    fn is_flushed(&self) -> bool {
        self.out.is_empty() && self.shared.is_none()
    }

    /// Bytes of the answer that have not been handed to the stream.
    pub(super) fn waiting(&self) -> u64 {
        (self.out.len() + self.shared.as_ref().map_or(0, |(_, range)| range.len())) as u64
    }

    /// Whether it is the peer's turn to send.
    fn is_waiting_for_body(&self) -> bool {
        self.is_flushed() && !self.body.is_done()
    }

    /// Settles what the peer has left of its time for the body.
    pub(super) fn settle(&mut self, now: Instant, config: &HttpConfig) {
        let turn = self.is_waiting_for_body();
        self.came += self.pace.settle(now, turn, config.body_timeout, config.rate_min);
    }

    /// Sends what there is room for. True when something went.
    fn flush(&mut self, stream: &mut impl Stream) -> bool {
        let before = self.out.len();
        let mut moved = false;
        if self.out.flush(stream)
            && let Some((content, range)) = &self.shared
            && stream.send_shared(content, range.clone())
        {
            self.shared = None;
            moved = true;
        }
        moved || self.out.len() < before
    }

    /// The answer is written; the rest of the body does not matter, and is not read at all where it cannot be trusted.
    fn answered(&mut self, trusted: bool) {
        self.task = Task::Answered { discarded: 0 };
        if !trusted {
            (self.body, self.conn) = (Body::Done, Conn::Close);
        }
    }
}

impl Http {
    pub(super) fn begin_echo(&mut self, stream: &mut impl Stream, exchange: &mut Exchange, framing: Framing) {
        let (length, chunked) = match framing {
            Framing::Chunked => (Length::Chunked, true),
            Framing::Length(length) => (Length::Known(length), false),
            Framing::None => (Length::Known(0), false),
        };
        // Never the type that the peer names: what it sends must not become a page of this server's.
        let fields = "Content-Type: application/octet-stream\r\nX-Content-Type-Options: nosniff\r\n";
        self.core.preambles.stream(&mut self.scratch, fields, length, exchange.conn);
        exchange.out.put(stream, &self.scratch);
        if !exchange.body.is_done() {
            exchange.task = Task::Echo { chunked };
        }
    }

    pub(super) fn begin_events(
        &mut self,
        now: Instant,
        stream: &mut impl Stream,
        exchange: &mut Exchange,
        until_close: bool,
    ) {
        let length = if until_close { Length::UntilClose } else { Length::Chunked };
        let fields = "Content-Type: text/event-stream\r\nCache-Control: no-store\r\n";
        self.core.preambles.stream(&mut self.scratch, fields, length, exchange.conn);
        exchange.out.put(stream, &self.scratch);
        exchange.body = Body::Done;
        exchange.task = Task::Events { count: 0, next: now, chunked: !until_close };
        self.event(now, stream, exchange);
    }

    /// Sends the event that is due, unless the one before still waits for room.
    fn event(&mut self, now: Instant, stream: &mut impl Stream, exchange: &mut Exchange) {
        let Task::Events { count, next, chunked } = &mut exchange.task else { return };
        if now < *next {
            return;
        }
        let regular = *next + EVENT_INTERVAL;
        *next = if regular > now { regular } else { now + EVENT_INTERVAL };
        if !exchange.out.is_empty() {
            return;
        }
        *count += 1;
        let event = builtin::event(*count, self.core.unix_seconds());
        self.scratch.clear();
        if *chunked {
            push(&mut self.scratch, format_args!("{:x}\r\n{event}\r\n", event.len()));
        } else {
            self.scratch.extend_from_slice(event.as_bytes());
        }
        exchange.out.put(stream, &self.scratch);
    }

    /// Goes on with an exchange. False: it waits.
    pub(super) fn exchange(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream) -> bool {
        let State::Exchange(mut exchange) = core::mem::replace(&mut session.state, State::Idle) else { return true };
        self.buffered -= exchange.held();
        let was_waiting = exchange.is_waiting_for_body();
        let flushed = exchange.flush(stream);
        let read = match exchange.task {
            Task::Answered { .. } => discard(stream, &mut exchange),
            Task::Collect { .. } => self.collect(stream, &mut exchange),
            Task::Echo { chunked } => self.echo(stream, &mut exchange, chunked),
            Task::Events { chunked, .. } => {
                if self.core.draining || stream.finished() {
                    exchange.out.put(stream, if chunked { b"0\r\n\r\n" } else { b"" });
                    exchange.answered(!self.core.draining);
                }
                false
            }
        };
        exchange.settle(now, &self.core.config);
        // How quickly the peer takes the answer, and sends on meanwhile, is looked at from one deadline to the next (`expire`).
        if exchange.is_over() || was_waiting && !exchange.is_waiting_for_body() {
            session.since = now;
            session.level = stream.unacknowledged() + exchange.waiting();
            exchange.came = 0;
        }
        if exchange.is_over() {
            if exchange.conn == Conn::Close {
                finish(now, session, stream);
            }
            return true;
        }
        self.buffered += exchange.held();
        session.state = State::Exchange(exchange);
        flushed || read
    }

    fn collect(&mut self, stream: &mut impl Stream, exchange: &mut Exchange) -> bool {
        let Exchange { body, pace, task: Task::Collect { head, body: collected }, .. } = exchange else { return false };
        let config = &self.core.config;
        let (mut sound, mut fits) = (true, true);
        let n = stream.recv(|bytes| {
            let bytes = &bytes[..bytes.len().min(STEP)];
            let read = body.read(bytes, &mut |piece| {
                if let Piece::Data(data) = piece {
                    fits &= collected.len() + data.len() <= config.body_max;
                    if fits {
                        collected.extend_from_slice(data);
                    }
                }
            });
            sound = read.is_ok();
            read.unwrap_or(bytes.len())
        });
        pace.credit(n);
        let response = if !fits {
            too_large()
        } else if !sound {
            Response::error(400, "The body is not chunked as RFC 9112 says.")
        } else if self.buffered + collected.len() > config.buffered_max {
            Response::error(503, "Too many bodies are on their way here; try again later.")
        } else if body.is_done() {
            self.core.call_back(head, collected)
        } else if stream.finished() {
            Response::error(400, "The request ends in its body.")
        } else {
            return n > 0;
        };
        let bodiless = asks_for_head(head);
        let trusted = body.is_done() && sound && fits;
        exchange.answered(trusted);
        if self.core.draining {
            exchange.conn = Conn::Close;
        }
        self.core.preambles.response(&mut self.scratch, &response, exchange.conn, bodiless);
        exchange.out.put(stream, &self.scratch);
        true
    }

    fn echo(&mut self, stream: &mut impl Stream, exchange: &mut Exchange, chunked: bool) -> bool {
        // Many clients send all of a body before they read: what finds no room is kept, within bounds, or they and
        // this server would wait for each other.
        let config = &self.core.config;
        let waiting = exchange.out.len();
        let spare = config.spill_max.saturating_sub(waiting);
        let spare = spare.min(config.buffered_max.saturating_sub(self.buffered + waiting));
        let room = if waiting == 0 { stream.send_capacity() } else { 0 };
        let limit = room.max(spare).min(STEP);
        if limit == 0 {
            stream.send(|_| 0);
            return false;
        }
        let scratch = &mut self.scratch;
        scratch.clear();
        let mut sound = true;
        let n = stream.recv(|bytes| {
            let bytes = &bytes[..bytes.len().min(limit)];
            let read = exchange.body.read(bytes, &mut |piece| match piece {
                Piece::Data(data) => scratch.extend_from_slice(data),
                Piece::Chunk(size) if chunked => push(scratch, format_args!("{size:x}\r\n")),
                Piece::ChunkEnd if chunked => scratch.extend_from_slice(b"\r\n"),
                Piece::End if chunked => scratch.extend_from_slice(b"0\r\n\r\n"),
                Piece::Chunk(_) | Piece::ChunkEnd | Piece::End => {}
            });
            sound = read.is_ok();
            read.unwrap_or(bytes.len())
        });
        exchange.pace.credit(n);
        exchange.out.put(stream, scratch);
        if exchange.body.is_done() {
            exchange.answered(true);
        } else if !sound || stream.finished() {
            // The answer is cut off, which is what tells the peer.
            exchange.answered(false);
        }
        n > 0
    }

    /// Asks for a deadline where the one asked for is later than what is needed.
    #[inline]
    pub(super) fn arm(&self, session: &mut HttpSession, stream: &mut impl Stream) {
        let unacknowledged = stream.unacknowledged();
        session.level = session.level.max(unacknowledged);
        let mut due = self.due(session, unacknowledged > 0);
        if let State::Exchange(exchange) = &session.state
            && let Task::Events { next, .. } = exchange.task
        {
            due = due.min(next);
        }
        if due < session.due {
            session.due = due;
            stream.wake_at(Some(due));
        }
    }

    /// Until when the peer must have done its part.
    #[inline]
    fn due(&self, session: &HttpSession, unacknowledged: bool) -> Instant {
        let config = &self.core.config;
        let patience = match &session.state {
            State::Idle if unacknowledged => config.stall_timeout,
            State::Idle => config.idle_timeout,
            State::Head(_) => config.header_timeout,
            State::Exchange(exchange) => match (&exchange.task, exchange.pace.deadline()) {
                (Task::Events { .. }, _) if !unacknowledged => FOREVER,
                (_, Some(deadline)) => return deadline,
                _ => config.stall_timeout,
            },
            State::Lingering => config.linger_timeout,
        };
        session.since + patience
    }

    /// A deadline has come, perhaps one that was put off meanwhile.
    pub(super) fn expire(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream) {
        let level = stream.unacknowledged();
        self.renew(now, session, level);
        let over = self.due(session, level > 0) <= now;
        if let State::Exchange(exchange) = &mut session.state
            && let Task::Events { .. } = exchange.task
        {
            if over {
                self.stats.stalled += 1;
                return stream.abort();
            }
            return self.next_event(now, session, stream);
        }
        if !over {
            return;
        }
        match &session.state {
            State::Idle if level == 0 => {
                self.stats.idle_closed += 1;
                finish(now, session, stream);
            }
            State::Head(_) => self.time_out(now, session, stream),
            State::Exchange(exchange) if exchange.is_waiting_for_body() => {
                match exchange.task {
                    Task::Collect { .. } => self.time_out(now, session, stream),
                    _ => {
                        self.stats.timed_out += 1;
                        self.drop_exchange(session);
                        finish(now, session, stream);
                    }
                };
            }
            State::Idle | State::Exchange(_) | State::Lingering => {
                self.stats.stalled += 1;
                stream.abort();
            }
        }
    }

    /// Gives a peer that has taken enough, of which `unacknowledged` bytes are on the way still, another time.
    fn renew(&self, now: Instant, session: &mut HttpSession, unacknowledged: u64) {
        let config = &self.core.config;
        let due = self.due(session, unacknowledged > 0);
        let asked = |timeout: Duration| (u64::from(config.rate_min) * timeout.as_secs()).max(1);
        let (mut left, mut progress) = (unacknowledged, session.level.saturating_sub(unacknowledged));
        let renewed = match &mut session.state {
            State::Head(_) => return,
            // An event is short, and the next may be far.
            State::Exchange(exchange) if matches!(exchange.task, Task::Events { .. }) => session.level != left,
            State::Exchange(exchange) if exchange.is_waiting_for_body() => return,
            _ if due > now => return,
            State::Exchange(exchange) => {
                left += exchange.waiting();
                let came = core::mem::take(&mut exchange.came);
                // What came is progress, and is in what is left where it is sent back.
                progress = (session.level + 2 * came).saturating_sub(left);
                left == 0 || progress >= asked(config.stall_timeout)
            }
            State::Idle => progress >= asked(config.stall_timeout),
            State::Lingering => left == 0 && progress > 0 || progress >= asked(config.linger_timeout),
        };
        if renewed {
            // When it was is not known, so let it be now.
            session.since = now;
        }
        session.level = left;
    }

    fn next_event(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream) {
        let State::Exchange(mut exchange) = core::mem::replace(&mut session.state, State::Idle) else { return };
        self.buffered -= exchange.held();
        self.event(now, stream, &mut exchange);
        self.buffered += exchange.held();
        // So that whatever the peer acknowledges until the next event shows as less than this.
        session.level = stream.unacknowledged();
        session.state = State::Exchange(exchange);
    }

    /// Answers 408.
    fn time_out(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream) {
        self.stats.timed_out += 1;
        let refusal = Refusal { status: 408, why: "The rest of the request did not come in time." };
        let plan = match &session.state {
            State::Head(head) => Plan::refuse(refusal, head),
            State::Exchange(exchange) => Plan::refuse(refusal, exchange.head()),
            State::Idle | State::Lingering => Plan::refuse(refusal, &[]),
        };
        self.drop_exchange(session);
        self.begin(now, session, stream, plan);
    }

    fn drop_exchange(&mut self, session: &mut HttpSession) {
        if let State::Exchange(exchange) = core::mem::replace(&mut session.state, State::Idle) {
            self.buffered -= exchange.held();
        }
    }
}

/// Throws away what is left of a body, up to a bound.
fn discard(stream: &mut impl Stream, exchange: &mut Exchange) -> bool {
    let Exchange { body, pace, task: Task::Answered { discarded }, conn, .. } = exchange else { return false };
    if body.is_done() {
        return false;
    }
    let mut sound = true;
    let n = stream.recv(|bytes| {
        let read = body.read(bytes, &mut |_| {});
        sound = read.is_ok();
        read.unwrap_or(bytes.len())
    });
    *discarded += n as u64;
    pace.credit(n);
    if !sound || *discarded > DISCARD_MAX || stream.finished() && !body.is_done() {
        (*body, *conn) = (Body::Done, Conn::Close);
    }
    n > 0
}
