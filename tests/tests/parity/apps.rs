//! The two applications behind one type, as the binary hosts them.

use crate::recording::Recording;
use core::net::SocketAddr;
use khamsin::echo::{Echo, EchoConfig, EchoSession};
use khamsin::http::{Http, HttpConfig, HttpSession, Router, Site};
use khamsin_stack::{App, CloseReason, Instant, Listener, Patience, Stream};

use crate::transcript::Service;

/// Echo and HTTP, recorded.
pub(crate) type Recorded = Recording<Apps>;

/// Echo and HTTP; a listener's `app` says which.
pub(crate) struct Apps {
    echo: Echo,
    http: Http,
}

/// One session of either.
pub(crate) enum Session {
    Echo(EchoSession),
    Http(Box<HttpSession>),
}

/// Both applications over `site`, at a time of the world that is the same for all.
pub(crate) fn recorded(site: Site) -> Recorded {
    let config = HttpConfig { unix_at_zero_us: 1_800_000_000_000_000, ..HttpConfig::default() };
    Recording::new(Apps { echo: Echo::new(EchoConfig::default()), http: Http::new(config, site, Router::builtin()) })
}

/// What is listened on.
pub(crate) fn listeners() -> Vec<Listener> {
    [Service::Echo, Service::Http].into_iter().map(|s| Listener { app: s as usize, port: s.port() }).collect()
}

impl App for Apps {
    type Session = Session;

    fn open(&mut self, now: Instant, listener: Listener, peer: SocketAddr) -> Session {
        if listener.app == Service::Echo as usize {
            Session::Echo(self.echo.open(now, listener, peer))
        } else {
            Session::Http(Box::new(self.http.open(now, listener, peer)))
        }
    }

    fn patience(&self, listener: Listener) -> Patience {
        if listener.app == Service::Echo as usize { self.echo.patience(listener) } else { self.http.patience(listener) }
    }

    fn ready(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        match session {
            Session::Echo(s) => self.echo.ready(now, s, stream),
            Session::Http(s) => self.http.ready(now, s, stream),
        }
    }

    fn expired(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        match session {
            Session::Echo(s) => self.echo.expired(now, s, stream),
            Session::Http(s) => self.http.expired(now, s, stream),
        }
    }

    fn park(&self, session: &Session) -> Option<u32> {
        match session {
            Session::Echo(s) => self.echo.park(s),
            Session::Http(s) => self.http.park(s),
        }
    }

    fn unpark(&mut self, now: Instant, listener: Listener, peer: SocketAddr, token: u32) -> Session {
        if listener.app == Service::Echo as usize {
            Session::Echo(self.echo.unpark(now, listener, peer, token))
        } else {
            Session::Http(Box::new(self.http.unpark(now, listener, peer, token)))
        }
    }

    fn closed(&mut self, session: Session, reason: CloseReason) {
        match session {
            Session::Echo(s) => self.echo.closed(s, reason),
            Session::Http(s) => self.http.closed(*s, reason),
        }
    }

    fn draining(&mut self) {
        self.echo.draining();
        self.http.draining();
    }
}
