//! The application of one shard: takes heads from the stream, decides, and answers at once where it can.

use super::body::Body;
use super::conditional::Part;
use super::exchange::{Exchange, Task};
use super::parse::{Framing, HeaderRoom, Refusal, Verdict, judge};
use super::plan::{Core, Plan, Reply};
use super::repeat::{Answer, Repeats};
use super::reply::Conn;
use super::response::Response;
use super::router::Router;
use super::session::{HttpSession, State};
use super::site::Site;
use super::{HEAD_MAX, HttpConfig, HttpStats, LINE_MAX, REQUESTS_PER_READY};
use core::mem::MaybeUninit;
use core::time::Duration;
use khamsin_stack::{App, CloseReason, Content, Instant, Listener, Stream};
use memchr::memchr;
use std::net::SocketAddr;
use std::sync::Arc;

/// The HTTP application of one shard.
///
/// Heads that were answered with files are remembered, with the answer, until the files change.
#[derive(Debug)]
pub struct Http {
    pub(super) core: Core,
    repeats: Repeats,
    pub(super) stats: HttpStats,
    /// Where answers are written that are not prebuilt.
    pub(super) scratch: Vec<u8>,
    /// Bytes that all exchanges of this shard hold.
    pub(super) buffered: usize,
    /// Each file of the snapshot as this shard sends it, once it did.
    contents: Vec<Option<Content>>,
}

/// What was found at the front of the stream.
enum Taken {
    Nothing,
    /// Line ends between requests.
    Blank,
    Again(Answer),
    Partial(Vec<u8>),
    Plan(Plan),
}

impl Http {
    /// An application that serves `site` and `router`.
    pub fn new(config: HttpConfig, site: Site, router: Router) -> Self {
        let core = Core::new(config, site, router);
        Http {
            core,
            repeats: Repeats::new(),
            stats: HttpStats::default(),
            scratch: Vec::new(),
            buffered: 0,
            contents: Vec::new(),
        }
    }

    /// Running totals.
    pub fn stats(&self) -> HttpStats {
        self.stats
    }

    /// Takes up a new second and a new snapshot.
    #[inline]
    fn refresh(&mut self, now: Instant) {
        if self.core.tick(now) {
            self.take_up_snapshot();
        }
    }

    #[cold]
    fn take_up_snapshot(&mut self) {
        self.core.take_up_snapshot();
        self.repeats.clear();
        self.contents.clear();
        self.contents.resize_with(self.core.snapshot.files().len(), || None);
    }

    /// Takes one request from the stream. False: there is none, or not all of it.
    #[inline]
    fn idle(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream) -> bool {
        let mut taken = Taken::Nothing;
        let (core, repeats) = (&self.core, &mut self.repeats);
        stream.recv(|bytes| {
            if let Some((len, answer)) = repeats.find(bytes) {
                taken = Taken::Again(answer);
                return len;
            }
            take(core, repeats, bytes, &mut taken)
        });
        match taken {
            Taken::Again(Answer { index, part, conn }) => {
                self.stats.repeated += 1;
                if part != Part::Whole || !self.send_whole(now, session, stream, index, conn) {
                    self.begin(now, session, stream, Plan::file(index, part, conn));
                }
                true
            }
            Taken::Plan(plan) => {
                let whole = match plan {
                    Plan { reply: Reply::File { index, part: Part::Whole }, framing: Framing::None, .. } => Some(index),
                    _ => None,
                };
                if whole.is_none_or(|index| !self.send_whole(now, session, stream, index, plan.conn)) {
                    self.begin(now, session, stream, plan);
                }
                true
            }
            Taken::Partial(head) => {
                session.state = State::Head(head);
                session.since = now;
                true
            }
            Taken::Blank => true,
            Taken::Nothing => {
                if stream.finished() || self.core.draining {
                    finish(now, session, stream);
                }
                false
            }
        }
    }

    /// Goes on with a head that came in parts. False: it is still not whole.
    fn head(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream) -> bool {
        let State::Head(held) = &mut session.state else { return true };
        let mut plan = None;
        let core = &self.core;
        let taken = stream.recv(|bytes| {
            let before = held.len();
            let n = bytes.len().min(HEAD_MAX - before);
            held.extend_from_slice(&bytes[..n]);
            // Judged at line ends and at the bounds only: a byte at a time must not cost a look at all of it each time.
            let at_bound = held.len() == HEAD_MAX || before <= LINE_MAX && held.len() > LINE_MAX;
            if !at_bound && memchr(b'\n', &bytes[..n]).is_none() {
                return n;
            }
            let mut room: HeaderRoom<'_> = [const { MaybeUninit::uninit() }; _];
            match judge(held, &mut room) {
                Verdict::Incomplete => n,
                Verdict::Refused(refusal) => {
                    plan = Some(Plan::refuse(refusal, held));
                    n
                }
                Verdict::Complete { len, head, headers } => {
                    plan = Some(core.plan(&head, headers, &held[..len]));
                    len - before
                }
            }
        });
        if let Some(plan) = plan {
            session.state = State::Idle;
            self.begin(now, session, stream, plan);
        } else if stream.finished() {
            let plan = Plan::refuse(Refusal { status: 400, why: "The request ends in its head." }, held);
            session.state = State::Idle;
            self.begin(now, session, stream, plan);
        } else if taken == 0 {
            return false;
        }
        true
    }

    /// Answers, as far as it can be done now; what cannot becomes an exchange.
    pub(super) fn begin(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream, plan: Plan) {
        (session.since, session.level) = (now, 0);
        self.stats.refused += u64::from(!plan.sound);
        let mut exchange = Exchange::new(Body::new(plan.framing), plan.conn, self.core.config.body_timeout);
        self.stats.requests += u64::from(plan.sound);
        if plan.interim {
            exchange.out.put(stream, b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        match plan.reply {
            Reply::File { index, part } => self.send_file(stream, &mut exchange, index, part),
            Reply::Respond(response) => {
                self.core.preambles.response(&mut self.scratch, &response, plan.conn, plan.bodiless);
                exchange.out.put(stream, &self.scratch);
            }
            Reply::Collect { head } => exchange.task = Task::Collect { head, body: Vec::new() },
            Reply::Echo => self.begin_echo(stream, &mut exchange, plan.framing),
            Reply::Events => self.begin_events(now, stream, &mut exchange, plan.conn == Conn::Close),
        }
        if exchange.is_over() {
            if plan.conn == Conn::Close {
                finish(now, session, stream);
            }
            return;
        }
        self.hold(session, stream, exchange);
    }

    /// Answers with a short file, without an exchange unless room runs out. False: the file is not short.
    #[inline]
    fn send_whole(
        &mut self,
        now: Instant,
        session: &mut HttpSession,
        stream: &mut impl Stream,
        index: u32,
        conn: Conn,
    ) -> bool {
        let Some(file) = self.core.snapshot.files().get(index as usize).filter(|file| file.is_inline()) else {
            return false;
        };
        self.stats.requests += 1;
        (session.since, session.level) = (now, 0);
        let (start, block) = (self.core.preambles.ok(conn), file.block());
        let sent = send_pair(stream, start, block);
        if sent < start.len() + block.len() {
            let mut exchange = Exchange::new(Body::Done, conn, Duration::ZERO);
            exchange.out.put(stream, start.get(sent..).unwrap_or(&[]));
            exchange.out.put(stream, &block[sent.saturating_sub(start.len())..]);
            self.hold(session, stream, exchange);
        } else if conn == Conn::Close {
            finish(now, session, stream);
        }
        true
    }

    /// Keeps an exchange that could not be ended at once.
    fn hold(&mut self, session: &mut HttpSession, stream: &impl Stream, mut exchange: Exchange) {
        exchange.settle(session.since, &self.core.config);
        self.buffered += exchange.held();
        session.level = stream.unacknowledged() + exchange.waiting();
        session.state = State::Exchange(Box::new(exchange));
    }

    fn send_file(&mut self, stream: &mut impl Stream, exchange: &mut Exchange, index: u32, part: Part) {
        let conn = exchange.conn;
        let (core, scratch) = (&self.core, &mut self.scratch);
        let Some(file) = core.snapshot.files().get(index as usize) else { return };
        let mut range = None;
        match part {
            Part::Whole => {
                exchange.out.put(stream, core.preambles.ok(conn));
                exchange.out.put(stream, file.block());
                range = (!file.is_inline()).then(|| 0..file.len());
            }
            Part::HeadOnly => {
                exchange.out.put(stream, core.preambles.ok(conn));
                exchange.out.put(stream, file.head());
            }
            Part::Range(start, end) => {
                core.preambles.partial(scratch, file, start, end, conn);
                exchange.out.put(stream, scratch);
                range = Some(start..end);
            }
            Part::NotModified => {
                core.preambles.not_modified(scratch, file, conn);
                exchange.out.put(stream, scratch);
            }
            Part::PreconditionFailed => {
                // Without a body, because the question may have been HEAD.
                core.preambles.response(scratch, &Response::new(412), conn, true);
                exchange.out.put(stream, scratch);
            }
            Part::Unsatisfiable => {
                let response = Response::error(416, "The range lies outside the file.")
                    .header("Content-Range", &format!("bytes */{}", file.len()));
                core.preambles.response(scratch, &response, conn, false);
                exchange.out.put(stream, scratch);
            }
        }
        if let (Some(range), Some(slot)) = (range, self.contents.get_mut(index as usize)) {
            let content = slot.get_or_insert_with(|| Content::new(Arc::clone(file.bytes())));
            if !exchange.out.is_empty() || !stream.send_shared(content, range.clone()) {
                exchange.shared = Some((content.clone(), range));
            }
        }
    }
}

/// Sends `first` and `second` as one, as far as there is room, and says how far that was.
#[inline]
fn send_pair(stream: &mut impl Stream, first: &[u8], second: &[u8]) -> usize {
    let len = first.len() + second.len();
    stream.send(|room| match room.get_mut(..len) {
        Some(room) => {
            let (one, two) = room.split_at_mut(first.len());
            one.copy_from_slice(first);
            two.copy_from_slice(second);
            len
        }
        None => {
            let n = room.len().min(first.len());
            room[..n].copy_from_slice(&first[..n]);
            let m = (room.len() - n).min(second.len());
            room[n..n + m].copy_from_slice(&second[..m]);
            n + m
        }
    })
}

/// Takes a request that is not a repetition.
fn take(core: &Core, repeats: &mut Repeats, bytes: &[u8], taken: &mut Taken) -> usize {
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if blank > 0 || bytes.is_empty() {
        *taken = if bytes.is_empty() { Taken::Nothing } else { Taken::Blank };
        return blank;
    }
    let mut room: HeaderRoom<'_> = [const { MaybeUninit::uninit() }; _];
    match judge(bytes, &mut room) {
        Verdict::Incomplete => {
            *taken = Taken::Partial(bytes.to_vec());
            bytes.len()
        }
        Verdict::Refused(refusal) => {
            *taken = Taken::Plan(Plan::refuse(refusal, bytes));
            bytes.len()
        }
        Verdict::Complete { len, head, headers } => {
            let plan = core.plan(&head, headers, &bytes[..len]);
            if let (&Reply::File { index, part }, Framing::None) = (&plan.reply, plan.framing) {
                repeats.remember(&bytes[..len], Answer { index, part, conn: plan.conn });
            }
            *taken = Taken::Plan(plan);
            len
        }
    }
}

/// Ends our stream and lingers, so that what the peer still sends provokes no reset that would overtake the answer
/// (RFC 9112 9.6).
pub(super) fn finish(now: Instant, session: &mut HttpSession, stream: &mut impl Stream) {
    session.state = State::Lingering;
    (session.since, session.level) = (now, stream.unacknowledged());
    stream.shutdown();
}

impl App for Http {
    type Session = HttpSession;

    fn open(&mut self, now: Instant, _listener: Listener, _peer: SocketAddr) -> HttpSession {
        HttpSession::new(now)
    }

    #[inline]
    fn ready(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream) {
        self.refresh(now);
        for _ in 0..REQUESTS_PER_READY {
            let go_on = match session.state {
                State::Idle => self.idle(now, session, stream),
                State::Head(_) => self.head(now, session, stream),
                State::Exchange(_) => self.exchange(now, session, stream),
                State::Lingering => {
                    while stream.recv(<[u8]>::len) > 0 {}
                    false
                }
            };
            if !go_on {
                break;
            }
        }
        self.arm(session, stream);
    }

    fn expired(&mut self, now: Instant, session: &mut HttpSession, stream: &mut impl Stream) {
        self.refresh(now);
        session.due = Instant::FAR_FUTURE;
        self.expire(now, session, stream);
        self.arm(session, stream);
    }

    /// Between two requests.
    fn park(&self, session: &HttpSession) -> Option<u32> {
        session.token()
    }

    fn unpark(&mut self, _now: Instant, _listener: Listener, _peer: SocketAddr, token: u32) -> HttpSession {
        HttpSession::from_token(token)
    }

    fn closed(&mut self, session: HttpSession, _reason: CloseReason) {
        if let State::Exchange(exchange) = session.state {
            self.buffered -= exchange.held();
        }
    }

    fn draining(&mut self) {
        self.core.draining = true;
        self.repeats.clear();
    }
}
