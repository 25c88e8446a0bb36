//! The server's applications as the simulator hosts them: the real ones, and a record of how their sessions end.

use super::dice::pattern;
use anyhow::{Context, Result};
use khamsin::echo::{Echo, EchoConfig, EchoSession};
use khamsin::http::{Http, HttpConfig, HttpSession, Loader, Router, Site, SiteConfig};
use khamsin_stack::{App, CloseReason, Instant, Listener, Stream};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// Where echo listens.
pub const ECHO_PORT: u16 = 7;
/// Where HTTP listens.
pub const HTTP_PORT: u16 = 80;
/// Lengths of the files that are served: beside their head, by reference, and larger than any buffer.
pub const FILES: &[usize] = &[0, 700, 2_048, 2_049, 15_000, 40_000, 120_000, 700_000];

/// What a file is called.
pub fn file_name(index: usize) -> String {
    format!("file-{index}.bin")
}

/// What is in it.
pub fn body_of_file(index: usize, len: usize) -> Vec<u8> {
    pattern(1_000_000 + index as u64, len)
}

/// The files, in memory. The loader's thread ends when this is dropped.
pub struct Files {
    site: Site,
    _loader: Loader,
}

impl Files {
    /// Writes the files into a folder of their own and loads them.
    ///
    /// # Errors
    /// The folder for temporary files cannot be written.
    pub fn new() -> Result<Files> {
        let folder = tempfile::tempdir().context("a folder for the files that the simulated server serves")?;
        for (index, &len) in FILES.iter().enumerate() {
            let path = folder.path().join(file_name(index));
            std::fs::write(&path, body_of_file(index, len)).context("writing a file to serve")?;
            // Last-Modified goes over the wire: the same in every run.
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            std::fs::File::options().write(true).open(&path)?.set_modified(then).context("dating a file to serve")?;
        }
        let config = SiteConfig { reload: Duration::ZERO, ..SiteConfig::new(folder.path()) };
        let (site, _loader) = Loader::start(config).context("loading the files to serve")?;
        Ok(Files { site, _loader })
    }
}

/// How the sessions of all shards went.
#[derive(Debug, Default)]
pub struct Records {
    /// Sessions opened and not closed, by peer.
    pub open: BTreeMap<SocketAddr, u32>,
    /// How those that are closed ended, by peer, in order.
    pub closed: BTreeMap<SocketAddr, Vec<CloseReason>>,
    /// Callbacks so far.
    pub calls: u64,
}

/// Echo and HTTP behind one type.
pub struct Server {
    echo: Echo,
    http: Http,
    records: Rc<RefCell<Records>>,
}

/// A session of either, and whose it is.
pub struct Session {
    peer: SocketAddr,
    of: Of,
}

enum Of {
    Echo(EchoSession),
    Http(Box<HttpSession>),
}

/// What is listened on.
pub fn listeners() -> Vec<Listener> {
    vec![Listener { app: 0, port: ECHO_PORT }, Listener { app: 1, port: HTTP_PORT }]
}

impl Server {
    /// The applications of one shard. Patient ones give up no peer for being slow.
    pub fn new(files: &Files, impatient: bool, records: Rc<RefCell<Records>>) -> Server {
        let mut config = HttpConfig { unix_at_zero_us: 1_800_000_000_000_000, ..HttpConfig::default() };
        if !impatient {
            config.rate_min = 0;
            for timeout in [
                &mut config.header_timeout,
                &mut config.idle_timeout,
                &mut config.body_timeout,
                &mut config.stall_timeout,
                &mut config.linger_timeout,
            ] {
                *timeout = Duration::from_secs(3_600);
            }
        }
        let http = Http::new(config, files.site.clone(), Router::builtin());
        Server { echo: Echo::new(EchoConfig::default()), http, records }
    }
}

impl App for Server {
    type Session = Session;

    fn open(&mut self, now: Instant, listener: Listener, peer: SocketAddr) -> Session {
        *self.records.borrow_mut().open.entry(peer).or_default() += 1;
        let of = match listener.app {
            0 => Of::Echo(self.echo.open(now, listener, peer)),
            _ => Of::Http(Box::new(self.http.open(now, listener, peer))),
        };
        Session { peer, of }
    }

    fn ready(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        self.records.borrow_mut().calls += 1;
        match &mut session.of {
            Of::Echo(s) => self.echo.ready(now, s, stream),
            Of::Http(s) => self.http.ready(now, s, stream),
        }
    }

    fn expired(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        self.records.borrow_mut().calls += 1;
        match &mut session.of {
            Of::Echo(s) => self.echo.expired(now, s, stream),
            Of::Http(s) => self.http.expired(now, s, stream),
        }
    }

    fn park(&self, session: &Session) -> Option<u32> {
        match &session.of {
            Of::Echo(s) => self.echo.park(s),
            Of::Http(s) => self.http.park(s),
        }
    }

    fn unpark(&mut self, now: Instant, listener: Listener, peer: SocketAddr, token: u32) -> Session {
        let of = match listener.app {
            0 => Of::Echo(self.echo.unpark(now, listener, peer, token)),
            _ => Of::Http(Box::new(self.http.unpark(now, listener, peer, token))),
        };
        Session { peer, of }
    }

    fn closed(&mut self, session: Session, reason: CloseReason) {
        let mut records = self.records.borrow_mut();
        if let Some(open) = records.open.get_mut(&session.peer) {
            *open -= 1;
            if *open == 0 {
                records.open.remove(&session.peer);
            }
        }
        records.closed.entry(session.peer).or_default().push(reason);
        drop(records);
        match session.of {
            Of::Echo(s) => self.echo.closed(s, reason),
            Of::Http(s) => self.http.closed(*s, reason),
        }
    }

    fn draining(&mut self) {
        self.echo.draining();
        self.http.draining();
    }
}
