//! The seam between a stack and an application: a byte stream, cut where no packet shows.
//!
//! The same application runs over this crate's stack and over kernel sockets (`khamsin_drivers::epoll`).

use crate::{Content, Instant};
use core::fmt;
use core::net::SocketAddr;

/// A port that an application listens on, and which application that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Which application of several in one loop; the meaning is the binary's.
    pub app: usize,
    /// TCP port.
    pub port: u16,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CloseReason {
    /// Both sides ended their stream and everything sent was acknowledged.
    Finished,
    /// The peer reset the connection.
    PeerReset,
    /// The application called [`Stream::abort`].
    Aborted,
    /// The peer stopped answering: retransmissions, probes or FIN-WAIT-2 ran out of time.
    TimedOut,
    /// The server is shutting down and the drain time is over.
    Drained,
    /// Code on our side panicked over this connection; it was reset and the server lives on.
    Panicked,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Finished => "finished",
            CloseReason::PeerReset => "reset by the peer",
            CloseReason::Aborted => "aborted by the application",
            CloseReason::TimedOut => "timed out",
            CloseReason::Drained => "drained",
            CloseReason::Panicked => "panicked",
        })
    }
}

/// How long connections wait for a peer that is silent. Without either limit only retransmission has an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Patience {
    /// Silence on an idle connection after which the peer is asked whether it is still there (RFC 9293 3.8.4); it is given
    /// up when it leaves nine such questions, 75 s apart, unanswered. `None`: never asked.
    pub keep_alive: Option<core::time::Duration>,
    /// Longest time that sent data may go unacknowledged, or unsent because of a closed window (RFC 9293 3.8.3, RFC 5482;
    /// Linux: `TCP_USER_TIMEOUT`). `None`: as long as retransmission lasts, and as long as a closed window is confirmed.
    pub user_timeout: Option<core::time::Duration>,
}

/// An application: callbacks over byte streams.
///
/// Promises of the host, whichever it is:
/// - `open` once for each connection, then any number of `ready` and `expired`, then `closed` once, always.
/// - `ready` is level-triggered in effect: it is called after new bytes, after new room where the last `send` fell short
///   of room, and at the end of input; and called again, without an event, as long as the last call consumed or wrote
///   something while bytes are still unread. A call that does nothing is not repeated until something changes.
/// - No callback of one session runs inside another's.
pub trait App {
    /// What the application keeps for a connection.
    type Session;

    /// A connection is established. Nothing can be sent yet: `ready` follows at once.
    fn open(&mut self, now: Instant, listener: Listener, peer: SocketAddr) -> Self::Session;

    /// How long the connections of `listener` wait for their peers; asked once for each, when it is established.
    fn patience(&self, listener: Listener) -> Patience {
        let _ = listener;
        Patience::default()
    }

    /// Bytes, room or the end of input.
    fn ready(&mut self, now: Instant, session: &mut Self::Session, stream: &mut impl Stream);

    /// The deadline that [`Stream::wake_at`] set has come; it is unset before this call.
    fn expired(&mut self, now: Instant, session: &mut Self::Session, stream: &mut impl Stream);

    /// What stands for `session` while its connection is parked: 32 bits, from which [`unpark`](Self::unpark) makes the
    /// session again. Asked for connections on which nothing happens. Whoever answers is dropped without `closed`, and waits
    /// for nothing but input and the deadline that was set. `None`: it stays as it is.
    fn park(&self, session: &Self::Session) -> Option<u32> {
        let _ = session;
        None
    }

    /// The session that `token` stands for: something has come for it, its deadline has, or it ends.
    fn unpark(&mut self, now: Instant, listener: Listener, peer: SocketAddr, token: u32) -> Self::Session {
        let _ = token;
        self.open(now, listener, peer)
    }

    /// The connection is over, for `reason`.
    fn closed(&mut self, session: Self::Session, reason: CloseReason);

    /// The server drains: finish what is in flight and open nothing long-lived. Called once, before the `ready` that
    /// each live session then gets.
    fn draining(&mut self) {}
}

/// One connection as its application sees it.
pub trait Stream {
    /// Shows the unread bytes that lie in one piece and takes away as many as `read` says it consumed; returns that.
    /// What is unread but lies behind a wrap shows in the next call. An empty slice: nothing is unread.
    ///
    /// An application that needs more than it was shown must consume what it has into a buffer of its own.
    fn recv(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize;

    /// Whether the peer has ended its stream and every byte of it has been consumed.
    fn finished(&self) -> bool;

    /// Lets `write` fill free send space that lies in one piece, and sends as many bytes as it says it wrote; returns
    /// that. The slice may be shorter than [`send_capacity`](Self::send_capacity): call again. Empty: no room now.
    fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> usize;

    /// Sends `content[range]` by reference, however long it is. False, and nothing sent, when the range is not inside the
    /// content or too many pieces wait already: try again at the next `ready`.
    fn send_shared(&mut self, content: &Content, range: core::ops::Range<usize>) -> bool;

    /// Bytes that `send` would take now, over several calls. 0 after `shutdown`.
    fn send_capacity(&self) -> usize;

    /// Bytes accepted from the application and not yet acknowledged by the peer (kernel sockets: not yet handed over).
    fn unacknowledged(&self) -> u64;

    /// Asks for one `expired` at `deadline`; replaces the former wish. `None` takes it back.
    fn wake_at(&mut self, deadline: Option<Instant>);

    /// Ends our stream once everything accepted so far is sent. Further sends are refused.
    fn shutdown(&mut self);

    /// Resets the connection. `closed` follows with [`CloseReason::Aborted`].
    fn abort(&mut self);
}

/// Sends as much of `bytes` as there is room for and says how much that was.
pub fn send_some(stream: &mut impl Stream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        let n = stream.send(|room| {
            let n = room.len().min(bytes.len() - sent);
            room[..n].copy_from_slice(&bytes[sent..sent + n]);
            n
        });
        if n == 0 {
            break;
        }
        sent += n;
    }
    sent
}

/// Sends all of `bytes` if there is room for all of them, else nothing; says whether it did.
pub fn send_all(stream: &mut impl Stream, bytes: &[u8]) -> bool {
    if stream.send_capacity() < bytes.len() {
        return false;
    }
    let sent = send_some(stream, bytes);
    debug_assert_eq!(sent, bytes.len(), "send_capacity promised room");
    sent == bytes.len()
}
