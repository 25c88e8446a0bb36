//! The applications of one worker behind one type: which of them a connection talks to, its listener says.

use crate::cli::AppName;
use crate::options::Options;
use crate::privileges;
use anyhow::{Result, anyhow};
use khamsin::echo::{Echo, EchoConfig, EchoSession};
use khamsin::http::{Http, HttpConfig, HttpSession, Loader, Router, Site, SiteConfig};
use khamsin::sink::{Sink, SinkSession};
use khamsin_drivers::clock::Clock;
use khamsin_stack::{App, CloseReason, Instant, Listener, Patience, Stream};
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

/// What the applications of every worker are made of.
#[derive(Clone)]
pub(crate) struct Recipe {
    echo: EchoConfig,
    http: HttpConfig,
    site: Site,
}

/// All applications of one worker; one that no listener names costs next to nothing.
pub(crate) struct Apps {
    echo: Echo,
    http: Http,
    sink: Sink,
}

/// What a connection's application keeps.
pub(crate) enum Session {
    Echo(EchoSession),
    Http(HttpSession),
    Sink(SinkSession),
}

impl Recipe {
    /// The applications as `options` want them, serving `files`.
    pub(crate) fn new(options: &Options, files: &Files) -> Self {
        let clock = Clock;
        let wall = clock.wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let unix_at_zero_us = (wall.as_micros() as u64).saturating_sub(clock.now().micros());
        Recipe {
            echo: EchoConfig { line: options.line },
            http: HttpConfig { unix_at_zero_us, ..HttpConfig::default() },
            site: files.site.clone(),
        }
    }

    /// The applications of one worker.
    pub(crate) fn apps(self) -> Apps {
        let http = Http::new(self.http, self.site, Router::builtin());
        Apps { echo: Echo::new(self.echo), http, sink: Sink::new() }
    }
}

impl App for Apps {
    type Session = Session;

    fn open(&mut self, now: Instant, listener: Listener, peer: SocketAddr) -> Session {
        if listener.app == AppName::Http as usize {
            Session::Http(self.http.open(now, listener, peer))
        } else if listener.app == AppName::Sink as usize {
            Session::Sink(self.sink.open(now, listener, peer))
        } else {
            Session::Echo(self.echo.open(now, listener, peer))
        }
    }

    fn patience(&self, listener: Listener) -> Patience {
        if listener.app == AppName::Http as usize { self.http.patience(listener) } else { self.echo.patience(listener) }
    }

    fn ready(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        match session {
            Session::Echo(session) => self.echo.ready(now, session, stream),
            Session::Http(session) => self.http.ready(now, session, stream),
            Session::Sink(session) => self.sink.ready(now, session, stream),
        }
    }

    fn expired(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        match session {
            Session::Echo(session) => self.echo.expired(now, session, stream),
            Session::Http(session) => self.http.expired(now, session, stream),
            Session::Sink(session) => self.sink.expired(now, session, stream),
        }
    }

    fn park(&self, session: &Session) -> Option<u32> {
        match session {
            Session::Echo(session) => self.echo.park(session),
            Session::Http(session) => self.http.park(session),
            Session::Sink(session) => self.sink.park(session),
        }
    }

    fn unpark(&mut self, now: Instant, listener: Listener, peer: SocketAddr, token: u32) -> Session {
        if listener.app == AppName::Http as usize {
            Session::Http(self.http.unpark(now, listener, peer, token))
        } else if listener.app == AppName::Sink as usize {
            Session::Sink(self.sink.unpark(now, listener, peer, token))
        } else {
            Session::Echo(self.echo.unpark(now, listener, peer, token))
        }
    }

    fn closed(&mut self, session: Session, reason: CloseReason) {
        match session {
            Session::Echo(session) => self.echo.closed(session, reason),
            Session::Http(session) => self.http.closed(session, reason),
            Session::Sink(session) => self.sink.closed(session, reason),
        }
    }

    fn draining(&mut self) {
        self.echo.draining();
        self.http.draining();
        self.sink.draining();
    }
}

/// The files of `--root` in memory, and the thread that keeps them fresh; or the welcome page.
pub(crate) struct Files {
    site: Site,
    loader: Option<Loader>,
}

impl Files {
    /// Loads what `options` name. It is read with the rights that the server keeps, now and at every reload alike.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn load(options: &Options) -> Result<Files> {
        let Some(root) = &options.root else { return Ok(Files { site: Site::welcome(), loader: None }) };
        let config = SiteConfig { reload: options.reload.unwrap_or_default(), ..SiteConfig::new(root) };
        // Capabilities belong to threads, and a thread inherits them from the one that starts it.
        let loaded = std::thread::scope(|scope| {
            let load = || {
                privileges::drop_quietly();
                Loader::start(config)
            };
            scope.spawn(load).join()
        });
        let (site, loader) =
            loaded.map_err(|_| anyhow!("the thread that loads files panicked; please report this"))??;
        Ok(Files { site, loader: Some(loader) })
    }

    /// Looks for changes now.
    pub(crate) fn reload(&self) {
        match &self.loader {
            Some(loader) => loader.reload_now(),
            None => tracing::info!("nothing to reload: no --root is served"),
        }
    }
}
