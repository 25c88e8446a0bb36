//! A host in memory: one application, one connection, and every way in which a transport may cut the bytes.
//!
//! [`Wire`] is a [`Stream`] over two vectors. How much of the input has arrived, how long the slices are that the
//! application is shown, and how much it may send before an acknowledgement are all set by the caller, so that one
//! transcript can be run whole, a byte at a time and through a keyhole, and must give the same bytes each time.
//! [`Host`] keeps the promises of [`App`] around it. Used by tests and by the instruction counts.

use core::net::{Ipv4Addr, SocketAddr};
use core::ops::Range;
use khamsin_stack::{App, CloseReason, Content, Instant, Listener, Stream};

/// How a [`Wire`] cuts what passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Bytes that arrive at a time.
    pub arrival: usize,
    /// Longest slice shown by one `recv` or `send`, in bytes.
    pub piece: usize,
    /// Bytes that may be unacknowledged before `send` finds no room.
    pub window: usize,
    /// References that `send_shared` accepts before an acknowledgement.
    pub references: usize,
}

impl Shape {
    /// All at once, with more room than any test fills.
    pub const WHOLE: Shape = Shape { arrival: usize::MAX, piece: usize::MAX, window: 1 << 30, references: 1 << 20 };

    /// Every shape that a transcript should be run in.
    pub const ALL: [Shape; 6] = [
        Shape::WHOLE,
        Shape { arrival: 1, ..Shape::WHOLE },
        Shape { piece: 5, ..Shape::WHOLE },
        Shape { window: 7, references: 1, ..Shape::WHOLE },
        Shape { arrival: 1, piece: 1, window: 1, references: 1 },
        Shape { arrival: 1460, piece: 1000, window: 4096, references: 2 },
    ];
}

/// A [`Stream`] over memory.
#[derive(Debug)]
pub struct Wire {
    shape: Shape,
    unread: Vec<u8>,
    read_at: usize,
    end_of_input: bool,
    output: Vec<u8>,
    staging: Vec<u8>,
    owned_in_flight: usize,
    shared_in_flight: usize,
    references: usize,
    wake: Option<Instant>,
    shut: bool,
    aborted: bool,
    fell_short: bool,
    moved: bool,
}

impl Wire {
    /// A connection with nothing on it.
    pub fn new(shape: Shape) -> Self {
        Wire {
            shape,
            unread: Vec::new(),
            read_at: 0,
            end_of_input: false,
            output: Vec::new(),
            staging: Vec::new(),
            owned_in_flight: 0,
            shared_in_flight: 0,
            references: 0,
            wake: None,
            shut: false,
            aborted: false,
            fell_short: false,
            moved: false,
        }
    }

    /// Every byte that the application sent so far.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Forgets the output, keeping its memory.
    pub fn clear_output(&mut self) {
        self.output.clear();
    }

    /// Whether the application ended its stream.
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Whether the application reset the connection.
    pub fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// Bytes that have arrived and were not consumed.
    pub fn unread(&self) -> usize {
        self.unread.len() - self.read_at
    }

    /// The deadline that the application asked for.
    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    fn arrive(&mut self, bytes: &[u8]) {
        if self.read_at == self.unread.len() {
            self.unread.clear();
            self.read_at = 0;
        }
        self.unread.extend_from_slice(bytes);
    }

    fn acknowledge(&mut self) {
        self.owned_in_flight = 0;
        self.shared_in_flight = 0;
        self.references = 0;
    }
}

impl Stream for Wire {
    fn recv(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize {
        let shown = self.unread().min(self.shape.piece);
        let n = read(&self.unread[self.read_at..self.read_at + shown]);
        assert!(n <= shown, "the application says it consumed {n} of {shown} bytes");
        self.read_at += n;
        self.moved |= n > 0;
        n
    }

    fn finished(&self) -> bool {
        self.end_of_input && self.unread() == 0
    }

    fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let room = self.send_capacity().min(self.shape.piece).min(1 << 18);
        self.staging.resize(room, 0);
        let n = write(&mut self.staging);
        assert!(n <= room, "the application says it wrote {n} bytes into {room}");
        self.output.extend_from_slice(&self.staging[..n]);
        self.owned_in_flight += n;
        self.moved |= n > 0;
        self.fell_short |= n == room;
        n
    }

    fn send_shared(&mut self, content: &Content, range: Range<usize>) -> bool {
        let refused = self.shut || self.references >= self.shape.references;
        let Some(bytes) = content.bytes().get(range).filter(|_| !refused) else {
            self.fell_short = true;
            return false;
        };
        self.output.extend_from_slice(bytes);
        self.shared_in_flight += bytes.len();
        self.references += 1;
        self.moved = true;
        true
    }

    fn send_capacity(&self) -> usize {
        if self.shut { 0 } else { self.shape.window.saturating_sub(self.owned_in_flight) }
    }

    fn unacknowledged(&self) -> u64 {
        (self.owned_in_flight + self.shared_in_flight) as u64
    }

    fn wake_at(&mut self, deadline: Option<Instant>) {
        self.wake = deadline;
    }

    fn shutdown(&mut self) {
        self.shut = true;
    }

    fn abort(&mut self) {
        self.aborted = true;
    }
}

/// One connection to one application, hosted as [`App`] promises.
#[derive(Debug)]
pub struct Host<A: App> {
    /// The application.
    pub app: A,
    /// The connection.
    pub wire: Wire,
    /// The time that the next callback is told.
    pub now: Instant,
    /// The application's side of the connection; `None` once it is closed.
    pub session: Option<A::Session>,
    /// Whether acknowledgements come by themselves as soon as the application waits for room.
    pub reader: bool,
}

impl<A: App> Host<A> {
    /// Opens a connection to `app`.
    pub fn open(mut app: A, shape: Shape) -> Self {
        let peer = SocketAddr::from((Ipv4Addr::new(198, 18, 0, 9), 40_000));
        let now = Instant::from_millis(1000);
        let session = app.open(now, Listener { app: 0, port: 80 }, peer);
        let mut host = Host { app, wire: Wire::new(shape), now, session: Some(session), reader: true };
        host.run();
        host
    }

    /// Lets `bytes` arrive in the pieces of the shape, and the application answer each.
    pub fn deliver(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.wire.shape.arrival.min(bytes.len()).max(1)) {
            if self.wire.aborted {
                return;
            }
            self.wire.arrive(piece);
            self.run();
        }
    }

    /// The peer ends its stream.
    pub fn end_input(&mut self) {
        self.wire.end_of_input = true;
        self.run();
    }

    /// Everything sent is acknowledged; the application is called if it waited for room.
    pub fn acknowledge(&mut self) {
        self.wire.acknowledge();
        if self.wire.fell_short {
            self.run();
        }
    }

    /// `n` bytes of what was sent are acknowledged, and no reference is given back until all of them are.
    pub fn acknowledge_some(&mut self, n: usize) {
        let wire = &mut self.wire;
        let owned = n.min(wire.owned_in_flight);
        wire.owned_in_flight -= owned;
        wire.shared_in_flight -= (n - owned).min(wire.shared_in_flight);
        if wire.shared_in_flight == 0 {
            wire.references = 0;
        }
        if wire.fell_short && (owned > 0 || wire.references == 0) {
            self.run();
        }
    }

    /// Moves time on to `to` and fires the deadlines on the way.
    pub fn advance_to(&mut self, to: Instant) {
        for _ in 0..100_000 {
            let Some(deadline) = self.wire.wake.filter(|&at| at <= to && !self.wire.aborted) else { break };
            self.now = self.now.max(deadline);
            self.wire.wake = None;
            let Some(session) = self.session.as_mut() else { break };
            self.app.expired(self.now, session, &mut self.wire);
            self.run_on();
        }
        self.now = self.now.max(to);
    }

    /// Moves time on by `millis` milliseconds and fires the deadlines on the way.
    pub fn advance_ms(&mut self, millis: u64) {
        self.advance_to(self.now.plus_micros(millis * 1000));
    }

    /// Tells the application that the server drains.
    pub fn drain(&mut self) {
        self.app.draining();
        self.run();
    }

    /// Ends the connection for `reason` and gives the application and the wire back.
    pub fn close(mut self, reason: CloseReason) -> (A, Wire) {
        if let Some(session) = self.session.take() {
            self.app.closed(session, reason);
        }
        (self.app, self.wire)
    }

    /// Calls `ready`, then again as long as [`App`] promises it.
    pub fn run(&mut self) {
        self.ready();
        self.run_on();
    }

    fn run_on(&mut self) {
        for _ in 0..10_000_000 {
            let again = core::mem::take(&mut self.wire.moved) && self.wire.unread() > 0;
            let room = self.wire.fell_short && self.reader && self.wire.unacknowledged() > 0;
            if self.wire.aborted || !(again || room) {
                return;
            }
            if room {
                self.wire.acknowledge();
            }
            self.ready();
        }
        panic!("the application never comes to rest");
    }

    fn ready(&mut self) {
        self.wire.fell_short = false;
        if let Some(session) = self.session.as_mut() {
            self.app.ready(self.now, session, &mut self.wire);
        }
    }
}

/// What `app` sends to a peer that delivers `input` and then, if `end`, ends its stream.
pub fn converse<A: App>(app: A, shape: Shape, input: &[u8], end: bool) -> Host<A> {
    let mut host = Host::open(app, shape);
    host.deliver(input);
    if end {
        host.end_input();
    }
    host
}
