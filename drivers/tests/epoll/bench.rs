//! A host, an application with a habit for each listener, and clients, all driven from one thread.

use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::epoll::{Config, Host, Trigger};
use khamsin_stack::{App, CloseReason, Content, Instant, Listener, Stream};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

static BODY: OnceLock<Arc<[u8]>> = OnceLock::new();

/// What the application does on a listener.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Habit {
    /// Sends back what comes, as far as there is room; ends its stream when the peer has.
    Echo,
    /// The same, one byte for each call.
    EchoByOne,
    /// Panics at the byte `p`, echoes others.
    Panic,
    /// Panics when a connection opens.
    PanicAtOpen,
    /// Resets at the first byte.
    Abort,
    /// Sends `tick` one second after each input, then `bye` and ends its stream at the second one.
    Timer,
    /// Sends a prebuilt body of 8 MB and a trailer, then ends its stream.
    Source,
    /// Consumes nothing.
    Deaf,
    /// Counts what comes, answers nothing, ends its stream at the end of input.
    Sink,
    /// Ends its stream at once and waits.
    HangUp,
    /// Sends 10,000 bytes for each byte, never fewer.
    Amplifier,
}

pub(crate) const ALL: [Habit; 11] = [
    Habit::Echo,
    Habit::EchoByOne,
    Habit::Panic,
    Habit::PanicAtOpen,
    Habit::Abort,
    Habit::Timer,
    Habit::Source,
    Habit::Deaf,
    Habit::Sink,
    Habit::HangUp,
    Habit::Amplifier,
];

pub(crate) struct Session {
    habit: Habit,
    pub(crate) peer: SocketAddr,
    ticks: u32,
    sent: bool,
}

pub(crate) struct TestApp {
    pub(crate) body: Content,
    pub(crate) opened: usize,
    pub(crate) ready_calls: usize,
    pub(crate) drained: usize,
    pub(crate) closed: Vec<(SocketAddr, CloseReason)>,
    /// Bytes that `Sink` saw, by peer, in the order of arrival.
    pub(crate) sunk: Vec<(SocketAddr, usize)>,
}

impl TestApp {
    fn new() -> Self {
        TestApp {
            body: Content::new(BODY.get_or_init(|| (0..8_000_000u32).map(|i| (i / 7) as u8).collect()).clone()),
            opened: 0,
            ready_calls: 0,
            drained: 0,
            closed: Vec::new(),
            sunk: Vec::new(),
        }
    }

    pub(crate) fn reasons(&self) -> Vec<CloseReason> {
        self.closed.iter().map(|c| c.1).collect()
    }
}

pub(crate) fn echo(stream: &mut impl Stream, most: usize) -> usize {
    let mut bytes = [0; 4096];
    let most = most.min(stream.send_capacity()).min(bytes.len());
    let n = stream.recv(|data| {
        let n = data.len().min(most);
        bytes[..n].copy_from_slice(&data[..n]);
        n
    });
    assert!(khamsin_stack::app::send_all(stream, &bytes[..n]));
    n
}

impl App for TestApp {
    type Session = Session;

    fn open(&mut self, _: Instant, listener: Listener, peer: SocketAddr) -> Session {
        self.opened += 1;
        assert!(ALL[listener.app] != Habit::PanicAtOpen, "as the test wants it");
        Session { habit: ALL[listener.app], peer, ticks: 0, sent: false }
    }

    fn ready(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        self.ready_calls += 1;
        match session.habit {
            Habit::Echo => while echo(stream, usize::MAX) > 0 {},
            Habit::EchoByOne => drop(echo(stream, 1)),
            Habit::Panic => {
                stream.recv(|data| {
                    assert!(!data.contains(&b'p'), "as the test wants it");
                    0
                });
                echo(stream, usize::MAX);
            }
            Habit::PanicAtOpen => unreachable!(),
            Habit::Abort => {
                if stream.recv(|data| data.len()) > 0 {
                    stream.abort();
                }
            }
            Habit::Timer => {
                if stream.recv(|data| data.len()) > 0 {
                    // The first wish is replaced by a later one.
                    stream.wake_at(Some(now.plus_micros(500_000)));
                    stream.wake_at(Some(now.plus_micros(1_000_000)));
                }
            }
            Habit::Source => {
                if !session.sent {
                    session.sent = true;
                    assert!(stream.send_shared(&self.body, 0..self.body.len()));
                    assert!(!stream.send_shared(&self.body, 0..self.body.len() + 1), "a range outside is refused");
                    assert!(khamsin_stack::app::send_all(stream, b"trailer"));
                    stream.shutdown();
                    assert_eq!(stream.send_capacity(), 0);
                }
            }
            Habit::Deaf => {}
            Habit::Sink => {
                let n = stream.recv(|data| data.len());
                self.sunk.push((session.peer, n));
            }
            Habit::HangUp => stream.shutdown(),
            Habit::Amplifier => {
                while stream.send_capacity() >= 10_000 && stream.recv(|data| data.len().min(1)) == 1 {
                    assert!(khamsin_stack::app::send_all(stream, &[b'x'; 10_000]));
                }
            }
        }
        if stream.finished() && session.habit != Habit::Deaf {
            stream.shutdown();
        }
    }

    fn expired(&mut self, now: Instant, session: &mut Session, stream: &mut impl Stream) {
        session.ticks += 1;
        if session.ticks == 1 {
            assert!(khamsin_stack::app::send_all(stream, b"tick"));
            stream.wake_at(Some(now.plus_micros(1_000_000)));
        } else {
            assert!(khamsin_stack::app::send_all(stream, b"bye"));
            stream.shutdown();
        }
    }

    fn closed(&mut self, session: Session, reason: CloseReason) {
        self.closed.push((session.peer, reason));
    }

    fn draining(&mut self) {
        self.drained += 1;
    }
}

pub(crate) struct Bench {
    pub(crate) host: Host<TestApp>,
    pub(crate) app: TestApp,
    pub(crate) now: Instant,
    addresses: Vec<SocketAddr>,
}

impl Bench {
    pub(crate) fn new(trigger: Trigger, connections: usize) -> Self {
        Self::with_limits(trigger, connections, 0)
    }

    pub(crate) fn with_limits(trigger: Trigger, connections: usize, per_source: usize) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = (0..ALL.len()).map(|app| (any, Listener { app, port: 0 })).collect();
        let config = Config { listeners, trigger, connections, per_source, congestion: None, reuse_port: false };
        let host = Host::open(&config, Doorbell::new().unwrap()).unwrap();
        let addresses = host.local_addrs();
        Bench { host, app: TestApp::new(), now: Instant::from_millis(5), addresses }
    }

    pub(crate) fn address(&self, habit: Habit) -> SocketAddr {
        self.addresses[ALL.iter().position(|&h| h == habit).unwrap()]
    }

    /// A connected client that does not block.
    pub(crate) fn connect(&self, habit: Habit) -> TcpStream {
        let client = TcpStream::connect(self.address(habit)).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    }

    /// One round of the loop.
    pub(crate) fn turn(&mut self) -> usize {
        self.host.wait(Some(Duration::from_millis(1))).unwrap();
        self.host.turn(self.now, &mut self.app)
    }

    /// Turns until `done`, or fails.
    pub(crate) fn until(&mut self, mut done: impl FnMut(&mut Bench) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("not done in time: {:?}", self.host.counters());
    }

    /// Turns until twenty turns in a row had nothing to do; fails if that never comes, as in a busy loop.
    pub(crate) fn settle(&mut self) {
        let mut idle = 0;
        self.until(|bench| {
            idle = if bench.turn() == 0 { idle + 1 } else { 0 };
            idle >= 20
        });
    }

    /// Reads exactly `len` bytes.
    pub(crate) fn read(&mut self, client: &mut TcpStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut at = 0;
        self.until(|_| {
            at += some(client.read(&mut bytes[at..]));
            at == len
        });
        bytes
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(&mut self, client: &mut TcpStream, bytes: &[u8]) {
        let mut at = 0;
        self.until(|_| {
            at += some(client.write(&bytes[at..]));
            at == bytes.len()
        });
    }

    /// Reads until the end of the stream or an error other than `WouldBlock`.
    pub(crate) fn read_to_end(&mut self, client: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
        let mut bytes = Vec::new();
        let mut error = None;
        let mut piece = vec![0; 65_536];
        self.until(|_| match client.read(&mut piece) {
            Ok(0) => true,
            Ok(n) => {
                bytes.extend_from_slice(&piece[..n]);
                false
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(e) => {
                error = Some(e.kind());
                true
            }
        });
        (bytes, error)
    }
}

/// Bytes moved, 0 if the call would have blocked.
pub(crate) fn some(outcome: std::io::Result<usize>) -> usize {
    match outcome {
        Ok(n) => n,
        Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
        Err(e) => panic!("client: {e}"),
    }
}

/// Bytes that no two offsets of a stream are likely to share.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
