//! What a request is answered with: a decision that touches no stream.

use super::body::Body;
use super::conditional::{Part, choose};
use super::date::Calendar;
use super::parse::{Framing, Head, HeaderRoom, Method, Refusal, Verdict, judge};
use super::reply::{Conn, Preambles};
use super::request::Request;
use super::response::Response;
use super::router::{Handler, Router};
use super::site::{Place, Site, Snapshot};
use super::target::Target;
use super::{DISCARD_MAX, HttpConfig};
use core::mem::MaybeUninit;
use khamsin_stack::Instant;
use std::sync::Arc;

/// What a decision depends on.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: HttpConfig,
    pub(super) site: Site,
    pub(super) generation: u64,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) router: Router,
    pub(super) calendar: Calendar,
    pub(super) preambles: Preambles,
    pub(super) draining: bool,
}

/// What a request is answered with.
pub(super) struct Plan {
    pub(super) reply: Reply,
    pub(super) conn: Conn,
    /// What is to be read of the body.
    pub(super) framing: Framing,
    /// Send 100 first.
    pub(super) interim: bool,
    /// Leave the body of a [`Reply::Respond`] out.
    pub(super) bodiless: bool,
    /// The answer to a head that was complete and sound.
    pub(super) sound: bool,
}

pub(super) enum Reply {
    File {
        index: u32,
        part: Part,
    },
    Respond(Response),
    /// A callback that needs the body first; the head is kept until then.
    Collect {
        head: Vec<u8>,
    },
    Echo,
    Events,
}

impl Plan {
    pub(super) fn file(index: u32, part: Part, conn: Conn) -> Self {
        let reply = Reply::File { index, part };
        Plan { reply, conn, framing: Framing::None, interim: false, bodiless: false, sound: true }
    }

    /// Refuses what starts with `raw`, the line end of it perhaps not there.
    pub(super) fn refuse(refusal: Refusal, raw: &[u8]) -> Self {
        let reply = Reply::Respond(Response::error(refusal.status, refusal.why));
        let bodiless = asks_for_head(raw);
        Plan { reply, conn: Conn::Close, framing: Framing::None, interim: false, bodiless, sound: false }
    }
}

/// Whether a request, sound or not, can only have been meant as HEAD: no answer to it has a body (RFC 9110 9.3.2).
pub(super) fn asks_for_head(raw: &[u8]) -> bool {
    raw.starts_with(b"HEAD ")
}

impl Core {
    pub(super) fn new(config: HttpConfig, site: Site, router: Router) -> Self {
        Core {
            calendar: Calendar::new(config.unix_at_zero_us),
            config,
            site,
            generation: 0,
            snapshot: Arc::default(),
            router,
            preambles: Preambles::default(),
            draining: false,
        }
    }

    /// Takes up a new second. True: there is a new snapshot too.
    #[inline]
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        if self.calendar.tick(now) {
            self.preambles.set_date(self.calendar.unix_seconds());
        }
        self.site.generation() != self.generation
    }

    pub(super) fn take_up_snapshot(&mut self) {
        // The generation first: a snapshot that is newer than it is taken up twice, never missed.
        self.generation = self.site.generation();
        self.snapshot = self.site.snapshot();
    }

    pub(super) fn unix_seconds(&self) -> u64 {
        self.calendar.unix_seconds()
    }

    /// Decides what a request is answered with. `raw` is its head.
    pub(super) fn plan(&self, head: &Head<'_>, headers: &[httparse::Header<'_>], raw: &[u8]) -> Plan {
        let conn = match (head.keep_alive && !self.draining, head.old) {
            (false, _) => Conn::Close,
            (true, true) => Conn::StayOld,
            (true, false) => Conn::Stay,
        };
        let bodiless = head.method == Some(Method::Head);
        let reply = self.dispatch(head, headers, raw);
        let mut plan = Plan { reply, conn, framing: head.framing, interim: false, bodiless, sound: true };
        let has_body = !Body::new(head.framing).is_done();
        match plan.reply {
            Reply::Collect { .. } | Reply::Echo => plan.interim = has_body && head.expects_continue,
            // A client that waits for leave to send its body, and gets this answer instead, may send it or not; and
            // a long body is not worth reading.
            _ if has_body => {
                let waits = head.expects_continue || head.expects_unknown;
                if waits || matches!(head.framing, Framing::Length(DISCARD_MAX..)) {
                    (plan.conn, plan.framing) = (Conn::Close, Framing::None);
                }
            }
            Reply::Events if head.old => plan.conn = Conn::Close,
            _ => {}
        }
        plan
    }

    fn dispatch(&self, head: &Head<'_>, headers: &[httparse::Header<'_>], raw: &[u8]) -> Reply {
        let method = match head.method {
            Some(Method::Connect) | None => {
                return Reply::Respond(Response::error(501, "This server does not know that method."));
            }
            Some(method) => method,
        };
        if head.expects_unknown {
            return Reply::Respond(Response::error(417, "The only expectation known here is 100-continue."));
        }
        let location = match Target::parse(head.target) {
            Ok(Target::Path(location)) => location,
            Ok(Target::Asterisk) if method == Method::Options => {
                return Reply::Respond(Response::new(200).header("Allow", "GET, HEAD, POST, OPTIONS"));
            }
            Ok(Target::Asterisk) => return Reply::Respond(Response::error(400, "Only OPTIONS may ask for `*`.")),
            Err(why) => return Reply::Respond(Response::error(400, why)),
        };
        let request =
            Request { method, location: &location, headers, body: &[], unix_seconds: self.calendar.unix_seconds() };
        if let Some(handler) = self.router.find(&location.path) {
            return self.handle(handler, head, &request, raw);
        }
        match self.snapshot.place(&location.path) {
            Some(place) => match (method, place) {
                (Method::Get | Method::Head, Place::File(index)) => match self.snapshot.files().get(index as usize) {
                    Some(file) => Reply::File { index, part: choose(head, file) },
                    None => Reply::Respond(not_found()),
                },
                (Method::Get | Method::Head, Place::Directory) => {
                    let query = location.query.map_or(String::new(), |query| format!("?{query}"));
                    let there = format!("{}/{query}", location.raw_path);
                    Reply::Respond(Response::error(301, "It is one level further down.").header("Location", &there))
                }
                (Method::Options, _) => Reply::Respond(Response::new(204).header("Allow", "GET, HEAD, OPTIONS")),
                _ => Reply::Respond(Response::method_not_allowed("GET, HEAD, OPTIONS")),
            },
            None => match self.router.fallback() {
                Some(handler) => self.handle(handler, head, &request, raw),
                None => Reply::Respond(not_found()),
            },
        }
    }

    fn handle(&self, handler: &Handler, head: &Head<'_>, request: &Request<'_>, raw: &[u8]) -> Reply {
        match (handler, request.method, head.framing) {
            (Handler::Callback(callback), _, Framing::None | Framing::Length(0)) => Reply::Respond(callback(request)),
            (Handler::Callback(_), _, Framing::Length(length)) if length > self.config.body_max as u64 => {
                Reply::Respond(too_large())
            }
            (Handler::Callback(_), ..) => Reply::Collect { head: raw.to_vec() },
            (Handler::Echo, Method::Post, Framing::None) => {
                Reply::Respond(Response::error(411, "Say how long the body is: Content-Length, or chunked."))
            }
            (Handler::Echo, Method::Post, _) => Reply::Echo,
            (Handler::Echo, Method::Options, _) => Reply::Respond(Response::new(204).header("Allow", "POST, OPTIONS")),
            (Handler::Echo, ..) => Reply::Respond(Response::method_not_allowed("POST, OPTIONS")),
            (Handler::Events, Method::Get, _) if self.draining => {
                Reply::Respond(Response::error(503, "The server is shutting down."))
            }
            (Handler::Events, Method::Get, _) => Reply::Events,
            (Handler::Events, Method::Head, _) => {
                Reply::Respond(Response::new(200).header("Content-Type", "text/event-stream"))
            }
            (Handler::Events, Method::Options, _) => {
                Reply::Respond(Response::new(204).header("Allow", "GET, HEAD, OPTIONS"))
            }
            (Handler::Events, ..) => Reply::Respond(Response::method_not_allowed("GET, HEAD, OPTIONS")),
        }
    }

    /// Calls the callback of a request whose body was collected.
    pub(super) fn call_back(&self, raw: &[u8], body: &[u8]) -> Response {
        let mut room: HeaderRoom<'_> = [const { MaybeUninit::uninit() }; _];
        if let Verdict::Complete { head, headers, .. } = judge(raw, &mut room)
            && let (Some(method), Ok(Target::Path(location))) = (head.method, Target::parse(head.target))
            && let Some(Handler::Callback(callback)) = self.router.find(&location.path).or(self.router.fallback())
        {
            let unix_seconds = self.calendar.unix_seconds();
            return callback(&Request { method, location: &location, headers, body, unix_seconds });
        }
        Response::error(500, "The request was understood before its body came, but not after.")
    }
}

fn not_found() -> Response {
    Response::error(404, "There is nothing here under that name.")
}

pub(super) fn too_large() -> Response {
    Response::error(413, "The body is larger than what is read here.")
}
