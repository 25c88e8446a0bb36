//! The application behind the fuzzed shard: it does as it is told, and knows every byte that it may be shown.

use core::time::Duration;
use khamsin_stack::app::Patience;
use khamsin_stack::{App, CloseReason, Content, Instant, Listener, Stream};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

/// Connections that a harness plays; the port of a peer, modulo this, is its place.
pub const SLOTS: usize = 8;
/// Period of every stream, in bytes. A prime, so that a block, a segment or a window too early or too late shows.
const PERIOD: u64 = 251;
/// Longest piece of a stream that [`stream`] shows, in bytes.
pub const PIECE: usize = 70_000;

/// One period and [`PIECE`] bytes more of what every stream holds: byte `i` of a stream with salt `s` is
/// `(i + s) % 251`, with a twist.
static STREAM: LazyLock<Arc<[u8]>> =
    LazyLock::new(|| (0..PERIOD + PIECE as u64).map(|i| (i % PERIOD).wrapping_mul(167) as u8).collect());

/// `len` bytes, at most [`PIECE`], of the stream with `salt` from `offset` on.
pub fn stream(salt: u64, offset: i64, len: usize) -> &'static [u8] {
    &STREAM[range(salt, offset, len)]
}

fn range(salt: u64, offset: i64, len: usize) -> core::ops::Range<usize> {
    let start = (offset + salt as i64).rem_euclid(PERIOD as i64) as usize;
    start..start + len
}

/// What a session does at its next call.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Bytes read in a call at most.
    pub read_max: usize,
    /// Bytes written in a call at most.
    pub write_max: usize,
    /// Write by reference.
    pub shared: bool,
    /// End the stream when the peer has.
    pub shuts: bool,
    /// End the stream now.
    pub shut_now: bool,
    /// Reset the connection now.
    pub abort_now: bool,
    /// Ask to be called again after so many microseconds; 0: do not.
    pub wake_us: u64,
}

impl Default for Mode {
    fn default() -> Self {
        let (read_max, write_max) = (usize::MAX, 600);
        Mode { read_max, write_max, shared: false, shuts: true, shut_now: false, abort_now: false, wake_us: 0 }
    }
}

/// One place and what came of its connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// There is a session.
    pub open: bool,
    /// Sessions that were opened here.
    pub lives: u64,
    /// Bytes read of the peer's stream.
    pub read: u64,
    /// Bytes written to ours.
    pub written: u64,
    /// The last write found too little room.
    short: bool,
    /// Our stream ended.
    pub shut: bool,
    /// How its session behaves.
    pub mode: Mode,
}

/// The application.
pub struct Puppet {
    content: Content,
    /// The last connection of each place.
    pub slots: [Slot; SLOTS],
    /// Sessions opened, ever.
    pub opened: u64,
    /// Sessions closed, ever.
    pub closed: u64,
    /// Bytes read, ever.
    pub read: u64,
    /// Bytes written, ever.
    pub written: u64,
    /// It lets its connections be parked.
    pub parks: bool,
}

impl Default for Puppet {
    fn default() -> Self {
        let content = Content::new(STREAM.clone());
        Puppet { content, slots: Default::default(), opened: 0, closed: 0, read: 0, written: 0, parks: false }
    }
}

/// The place of a peer with that port.
pub fn slot_of(port: u16) -> usize {
    usize::from(port) % SLOTS
}

/// What makes the streams of a connection differ from those of the others.
pub fn salt_of(port: u16) -> u64 {
    u64::from(port) * 7
}

/// A connection: its place and its salt.
pub struct Session {
    slot: usize,
    salt: u64,
}

impl Puppet {
    fn read(&mut self, session: &Session, io: &mut impl Stream) -> usize {
        let slot = &mut self.slots[session.slot];
        let (max, from) = (slot.mode.read_max, slot.read);
        let n = io.recv(|bytes| {
            let n = bytes.len().min(max).min(PIECE);
            assert!(bytes[..n] == *stream(session.salt, from as i64, n), "the peer never sent these bytes at {from}");
            n
        });
        slot.read += n as u64;
        self.read += n as u64;
        n
    }

    fn write(&mut self, session: &Session, io: &mut impl Stream) {
        let slot = &mut self.slots[session.slot];
        let want = slot.mode.write_max.min(PIECE);
        if want == 0 {
            return;
        }
        let before = slot.written;
        if slot.mode.shared {
            let range = range(session.salt, before as i64, want);
            if io.send_shared(&self.content, range) {
                slot.written += want as u64;
            }
        } else {
            // Twice, since the room may wrap.
            for _ in 0..2 {
                let (from, left) = (slot.written as i64, want - (slot.written - before) as usize);
                let bytes = stream(session.salt, from, left);
                slot.written += io.send(|room| {
                    let n = room.len().min(bytes.len());
                    room[..n].copy_from_slice(&bytes[..n]);
                    n
                }) as u64;
            }
        }
        slot.short = slot.written < before + want as u64;
        self.written += slot.written - before;
        assert!(!slot.shut || slot.written == before, "bytes were taken behind the end of the stream");
        assert!(io.unacknowledged() <= slot.written, "more is unacknowledged than was ever written");
        if slot.shut {
            assert_eq!(io.send_capacity(), 0, "room behind the end of the stream");
        }
    }

    fn act(&mut self, now: Instant, session: &Session, io: &mut impl Stream, unasked: bool) {
        if self.slots[session.slot].mode.abort_now {
            return io.abort();
        }
        // One that wrote whenever it was called would be called again for as long as it had not read everything.
        if self.read(session, io) > 0
            || unasked
            || self.slots[session.slot].short
            || self.slots[session.slot].written == 0
        {
            self.write(session, io);
        }
        let slot = &mut self.slots[session.slot];
        if slot.mode.shut_now || (slot.mode.shuts && io.finished()) {
            slot.shut = true;
            io.shutdown();
        }
        if slot.mode.wake_us > 0 {
            io.wake_at(Some(now + Duration::from_micros(slot.mode.wake_us)));
        }
    }
}

impl App for Puppet {
    type Session = Session;

    fn open(&mut self, _: Instant, _: Listener, peer: SocketAddr) -> Session {
        let slot = slot_of(peer.port());
        assert!(!self.slots[slot].open, "two connections have one name, or one was never closed");
        let mode = Mode { shut_now: false, abort_now: false, ..self.slots[slot].mode };
        self.slots[slot] = Slot { open: true, lives: self.slots[slot].lives + 1, mode, ..Slot::default() };
        self.opened += 1;
        Session { slot, salt: salt_of(peer.port()) }
    }

    /// Those on port 80 are asked whether they are still there, and given up when nothing of theirs is acknowledged.
    fn patience(&self, listener: Listener) -> Patience {
        let limit = |seconds| (listener.port == 80).then(|| Duration::from_secs(seconds));
        Patience { keep_alive: limit(10), user_timeout: limit(30) }
    }

    fn ready(&mut self, now: Instant, session: &mut Session, io: &mut impl Stream) {
        self.act(now, session, io, false);
    }

    fn expired(&mut self, now: Instant, session: &mut Session, io: &mut impl Stream) {
        self.act(now, session, io, true);
    }

    /// All that is known of a connection is known by its place; but whoever found too little room waits for room.
    fn park(&self, session: &Session) -> Option<u32> {
        let slot = &self.slots[session.slot];
        (self.parks && !slot.short).then_some(session.salt as u32)
    }

    fn unpark(&mut self, _: Instant, _: Listener, peer: SocketAddr, token: u32) -> Session {
        let slot = slot_of(peer.port());
        assert!(self.slots[slot].open, "a connection comes back that has ended");
        assert_eq!(u64::from(token), salt_of(peer.port()), "one connection comes back as another");
        Session { slot, salt: salt_of(peer.port()) }
    }

    fn closed(&mut self, session: Session, _: CloseReason) {
        assert!(self.slots[session.slot].open, "closed twice");
        self.slots[session.slot].open = false;
        self.closed += 1;
    }
}
