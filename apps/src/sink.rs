//! Discard (RFC 863): what comes is thrown away. At its end the peer is told, as a decimal line, how many bytes that were,
//! so that an upload can be verified.

use khamsin_stack::app::send_some;
use khamsin_stack::{App, CloseReason, Instant, Listener, Stream};
use std::net::SocketAddr;

/// The discard application of one shard.
#[derive(Debug, Default)]
pub struct Sink {
    draining: bool,
}

/// What discard keeps for a connection.
#[derive(Debug, Default)]
pub struct SinkSession {
    /// Bytes thrown away so far.
    received: u64,
    answer: Option<Answer>,
}

/// How many bytes were counted, and how much of that line was sent.
#[derive(Debug)]
struct Answer {
    count: u64,
    sent: u8,
}

impl Sink {
    /// A discard application.
    pub fn new() -> Self {
        Sink::default()
    }
}

impl App for Sink {
    type Session = SinkSession;

    fn open(&mut self, _now: Instant, _listener: Listener, _peer: SocketAddr) -> SinkSession {
        SinkSession::default()
    }

    fn ready(&mut self, _now: Instant, session: &mut SinkSession, stream: &mut impl Stream) {
        // What comes behind an answer given early is thrown away too: unread, it would reset the connection at its end.
        loop {
            let taken = stream.recv(<[u8]>::len);
            if taken == 0 {
                break;
            }
            session.received = session.received.saturating_add(taken as u64);
        }
        if session.answer.is_none() && (self.draining || stream.finished()) {
            session.answer = Some(Answer { count: session.received, sent: 0 });
        }
        if let Some(answer) = &mut session.answer {
            let line = format!("{}\n", answer.count);
            let rest = line.as_bytes().get(usize::from(answer.sent)..).unwrap_or_default();
            let sent = send_some(stream, rest);
            answer.sent += sent as u8;
            if sent == rest.len() {
                stream.shutdown();
            }
        }
    }

    fn expired(&mut self, _now: Instant, _session: &mut SinkSession, _stream: &mut impl Stream) {}

    /// The count is all there is to know, as long as 32 bits hold it.
    fn park(&self, session: &SinkSession) -> Option<u32> {
        u32::try_from(session.received).ok().filter(|_| session.answer.is_none())
    }

    fn unpark(&mut self, _now: Instant, _listener: Listener, _peer: SocketAddr, token: u32) -> SinkSession {
        SinkSession { received: u64::from(token), answer: None }
    }

    fn closed(&mut self, _session: SinkSession, _reason: CloseReason) {}

    fn draining(&mut self) {
        self.draining = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Shape, converse};

    #[test]
    fn counts_what_it_throws_away_however_it_is_cut() {
        for shape in Shape::ALL {
            let host = converse(Sink::new(), shape, &vec![7; 123_456], true);
            assert_eq!(host.wire.output(), b"123456\n", "{shape:?}");
            assert!(host.wire.is_shut(), "{shape:?}");
            assert_eq!(host.wire.unread(), 0, "{shape:?}");
        }
    }

    #[test]
    fn says_nothing_before_the_end() {
        let mut host = converse(Sink::new(), Shape::WHOLE, b"some", false);
        assert_eq!((host.wire.output(), host.wire.unread()), (&b""[..], 0));
        assert!(!host.wire.is_shut());
        host.end_input();
        assert_eq!(host.wire.output(), b"4\n");
        assert!(host.wire.is_shut());
    }

    #[test]
    fn goes_on_counting_after_a_pause() {
        let mut host = converse(Sink::new(), Shape::WHOLE, b"some", false);
        let listener = Listener { app: 0, port: 9 };
        let token = host.app.park(host.session.as_ref().unwrap()).unwrap();
        host.session = Some(host.app.unpark(Instant::ZERO, listener, "198.18.0.1:1".parse().unwrap(), token));
        host.deliver(b"more");
        host.end_input();
        assert_eq!(host.wire.output(), b"8\n");
        assert_eq!(host.app.park(host.session.as_ref().unwrap()), None, "the answer was given");
        let much = SinkSession { received: 1 << 32, answer: None };
        assert_eq!(host.app.park(&much), None);
    }

    #[test]
    fn counts_nothing_as_well() {
        assert_eq!(converse(Sink::new(), Shape::WHOLE, b"", true).wire.output(), b"0\n");
    }

    #[test]
    fn a_drain_answers_once_and_goes_on_throwing_away() {
        let mut host = converse(Sink::new(), Shape::WHOLE, b"some", false);
        host.drain();
        assert_eq!(host.wire.output(), b"4\n");
        assert!(host.wire.is_shut());
        host.deliver(b"more");
        assert_eq!(host.wire.unread(), 0);
        host.end_input();
        assert_eq!(host.wire.output(), b"4\n");
    }
}
