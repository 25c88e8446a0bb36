//! What answers in a replay: an application of khamsin's, or one that says what the recorded server said.

use super::client::FAST_GAP_US;
use super::flow::Flow;
use super::plan::{Deed, Plan};
use khamsin::echo::{Echo, EchoConfig, EchoSession};
use khamsin::http::{Http, HttpConfig, HttpSession, Router, Site};
use khamsin::sink::{Sink, SinkSession};
use khamsin_stack::{App, CloseReason, Instant, Listener, Stream};
use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Against {
    /// What the recorded server said, after what it had read
    #[default]
    Scripted,
    /// Every byte back
    Echo,
    /// A web site: khamsin's own, or --root
    Http,
    /// Nothing, but for a count at the end
    Sink,
}

/// What a scripted server knows of one replayed client.
pub struct Part<'t> {
    /// The flow.
    pub flow: &'t Flow,
    /// What is said when.
    pub plan: &'t Plan,
    /// When the trace begins for it, and how much later than recorded its client is, microseconds.
    pub start_us: u64,
    /// See there.
    pub shift_us: Rc<Cell<u64>>,
    /// How its connection ended.
    pub closed: Rc<Cell<Option<CloseReason>>>,
}

/// The application of a replay.
pub struct Server<'t> {
    against: Against,
    echo: Echo,
    http: Http,
    sink: Sink,
    /// By client and port of the server.
    parts: HashMap<(SocketAddr, u16), Part<'t>>,
    fast: bool,
    speed: f64,
    /// When the first word is due that waits for its time: the stack's wheel would be up to 2 ms late.
    pub(super) soonest_us: Cell<u64>,
}

/// A connection.
pub struct Session {
    key: (SocketAddr, u16),
    of: Of,
}

enum Of {
    Scripted(Speech),
    Echo(EchoSession),
    Http(Box<HttpSession>),
    Sink(SinkSession),
}

/// How far a scripted server has come.
#[derive(Default)]
struct Speech {
    next: usize,
    /// Behind what it has said and read.
    said: i64,
    read: i64,
    /// When the reset comes at the earliest, so that it does not overtake what was said before it.
    reset_at: Option<Instant>,
}

impl<'t> Server<'t> {
    /// A server for clients with such parts, whose web site is `site`; the trace began `unix_us` after 1970.
    pub fn new(against: Against, site: Site, unix_us: u64, fast: bool, speed: f64) -> Server<'t> {
        let config = HttpConfig { unix_at_zero_us: unix_us, ..HttpConfig::default() };
        Server {
            against,
            echo: Echo::new(EchoConfig::default()),
            http: Http::new(config, site, Router::builtin()),
            sink: Sink::new(),
            parts: HashMap::new(),
            fast,
            speed,
            soonest_us: Cell::new(u64::MAX),
        }
    }

    /// Takes a client in that will come.
    pub fn expect(&mut self, client: SocketAddr, port: u16, part: Part<'t>) {
        self.parts.insert((client, port), part);
    }

    fn speak(&self, now: Instant, session: &mut Speech, key: &(SocketAddr, u16), stream: &mut impl Stream) {
        let Some(part) = self.parts.get(key) else { return stream.abort() };
        loop {
            let taken = stream.recv(<[u8]>::len);
            session.read += taken as i64;
            if taken == 0 {
                break;
            }
        }
        // The first byte is at 1, and the FIN behind the last.
        let read = session.read + 1 + i64::from(stream.finished());
        while let Some(word) = part.plan.words.get(session.next) {
            let due = part.start_us + (word.at_us as f64 / self.speed) as u64 + part.shift_us.get();
            if word.after > read {
                return;
            }
            if !self.fast && due > now.micros() {
                self.soonest_us.set(self.soonest_us.get().min(due));
                return stream.wake_at(Some(Instant::from_micros(due)));
            }
            match word.deed {
                Deed::Say(to) if !say(part, session, to, stream) => return,
                Deed::Say(_) => {}
                Deed::End => stream.shutdown(),
                Deed::Reset if *session.reset_at.get_or_insert(now.plus_micros(FAST_GAP_US)) > now => {
                    return stream.wake_at(session.reset_at);
                }
                Deed::Reset => return stream.abort(),
            }
            session.next += 1;
        }
    }
}

/// Says its text up to `to`; whether there was room for all of it.
fn say(part: &Part<'_>, session: &mut Speech, to: i64, stream: &mut impl Stream) -> bool {
    session.said = session.said.max(1);
    while session.said < to {
        let at = session.said;
        let sent = stream.send(|room| {
            let n = room.len().min((to - at) as usize);
            part.plan.text.read(part.flow, at, &mut room[..n]);
            n
        });
        if sent == 0 {
            return false;
        }
        session.said += sent as i64;
    }
    true
}

impl App for Server<'_> {
    type Session = Session;

    fn open(&mut self, now: Instant, listener: Listener, peer: SocketAddr) -> Session {
        let of = match self.against {
            Against::Scripted => Of::Scripted(Speech::default()),
            Against::Echo => Of::Echo(self.echo.open(now, listener, peer)),
            Against::Http => Of::Http(Box::new(self.http.open(now, listener, peer))),
            Against::Sink => Of::Sink(self.sink.open(now, listener, peer)),
        };
        Session { key: (peer, listener.port), of }
    }

    fn ready(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        match &mut session.of {
            Of::Scripted(speech) => self.speak(now, speech, &session.key, stream),
            Of::Echo(s) => self.echo.ready(now, s, stream),
            Of::Http(s) => self.http.ready(now, s, stream),
            Of::Sink(s) => self.sink.ready(now, s, stream),
        }
    }

    fn expired(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        match &mut session.of {
            Of::Scripted(speech) => self.speak(now, speech, &session.key, stream),
            Of::Echo(s) => self.echo.expired(now, s, stream),
            Of::Http(s) => self.http.expired(now, s, stream),
            Of::Sink(s) => self.sink.expired(now, s, stream),
        }
    }

    fn closed(&mut self, session: Session, reason: CloseReason) {
        if let Some(part) = self.parts.get(&session.key) {
            part.closed.set(Some(reason));
        }
        match session.of {
            Of::Scripted(_) => {}
            Of::Echo(s) => self.echo.closed(s, reason),
            Of::Http(s) => self.http.closed(*s, reason),
            Of::Sink(s) => self.sink.closed(s, reason),
        }
    }
}
