//! An application that notes everything that passes between it and its host.

use core::cell::RefCell;
use core::net::SocketAddr;
use khamsin_stack::{App, CloseReason, Content, Instant, Listener, Patience, Stream};

/// What one connection's application saw and did. Where one segment ends and the next begins is the network's affair and
/// not noted; everything else must be the same on every rung.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Record {
    /// Port that was connected to.
    pub(crate) port: u16,
    /// Bytes that the application took.
    pub(crate) received: Vec<u8>,
    /// Bytes that it sent.
    pub(crate) sent: Vec<u8>,
    /// Its answer to: has the peer ended its half?
    pub(crate) ended: bool,
    /// It ended its own half.
    pub(crate) shut: bool,
    /// It reset the connection.
    pub(crate) aborted: bool,
    /// How it ended; `None`: it has not.
    pub(crate) closed: Option<CloseReason>,
}

/// Wraps an application and keeps a [`Record`] of each connection, in the order of their opening.
pub(crate) struct Recording<A: App> {
    inner: A,
    records: Vec<Record>,
    /// Of each record: what the inner application has for its session while the connection is parked.
    tokens: RefCell<Vec<u32>>,
}

/// A session of the inner application and the position of its record.
pub(crate) struct Session<S> {
    inner: S,
    record: usize,
}

impl<A: App> Recording<A> {
    pub(crate) fn new(inner: A) -> Self {
        Recording { inner, records: Vec::new(), tokens: RefCell::default() }
    }

    /// Connections whose end the application has been told.
    pub(crate) fn closed(&self) -> usize {
        self.records.iter().filter(|r| r.closed.is_some()).count()
    }

    /// The records.
    pub(crate) fn into_records(self) -> Vec<Record> {
        self.records
    }
}

impl<A: App> App for Recording<A> {
    type Session = Session<A::Session>;

    fn open(&mut self, now: Instant, listener: Listener, peer: SocketAddr) -> Self::Session {
        let record = self.records.len();
        self.records.push(Record { port: listener.port, ..Record::default() });
        self.tokens.borrow_mut().push(0);
        Session { inner: self.inner.open(now, listener, peer), record }
    }

    fn patience(&self, listener: Listener) -> Patience {
        self.inner.patience(listener)
    }

    fn ready(&mut self, now: Instant, session: &mut Self::Session, stream: &mut impl Stream) {
        let record = &mut self.records[session.record];
        assert!(record.closed.is_none(), "ready after closed");
        self.inner.ready(now, &mut session.inner, &mut Tapped { stream, record });
        record.ended |= stream.finished();
    }

    fn expired(&mut self, now: Instant, session: &mut Self::Session, stream: &mut impl Stream) {
        let record = &mut self.records[session.record];
        assert!(record.closed.is_none(), "expired after closed");
        self.inner.expired(now, &mut session.inner, &mut Tapped { stream, record });
    }

    fn park(&self, session: &Self::Session) -> Option<u32> {
        self.tokens.borrow_mut()[session.record] = self.inner.park(&session.inner)?;
        Some(session.record as u32)
    }

    fn unpark(&mut self, now: Instant, listener: Listener, peer: SocketAddr, token: u32) -> Self::Session {
        let record = token as usize;
        let token = self.tokens.borrow()[record];
        Session { inner: self.inner.unpark(now, listener, peer, token), record }
    }

    fn closed(&mut self, session: Self::Session, reason: CloseReason) {
        let record = &mut self.records[session.record];
        assert!(record.closed.replace(reason).is_none(), "closed twice");
        self.inner.closed(session.inner, reason);
    }

    fn draining(&mut self) {
        self.inner.draining();
    }
}

struct Tapped<'a, S> {
    stream: &'a mut S,
    record: &'a mut Record,
}

impl<S: Stream> Stream for Tapped<'_, S> {
    fn recv(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize {
        let received = &mut self.record.received;
        self.stream.recv(|bytes| {
            let n = read(bytes);
            received.extend_from_slice(&bytes[..n]);
            n
        })
    }

    fn finished(&self) -> bool {
        self.stream.finished()
    }

    fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let sent = &mut self.record.sent;
        self.stream.send(|room| {
            let n = write(room);
            sent.extend_from_slice(&room[..n]);
            n
        })
    }

    fn send_shared(&mut self, content: &Content, range: core::ops::Range<usize>) -> bool {
        let taken = self.stream.send_shared(content, range.clone());
        if taken {
            self.record.sent.extend_from_slice(&content.bytes()[range]);
        }
        taken
    }

    fn send_capacity(&self) -> usize {
        self.stream.send_capacity()
    }

    fn unacknowledged(&self) -> u64 {
        self.stream.unacknowledged()
    }

    fn wake_at(&mut self, deadline: Option<Instant>) {
        self.stream.wake_at(deadline);
    }

    fn shutdown(&mut self) {
        self.record.shut = true;
        self.stream.shutdown();
    }

    fn abort(&mut self) {
        self.record.aborted = true;
        self.stream.abort();
    }
}
