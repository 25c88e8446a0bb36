//! Echo: bytes back as they came, or each line with `You said: ` in front.

use khamsin_stack::app::send_some;
use khamsin_stack::{App, CloseReason, Instant, Listener, Patience, Stream};
use memchr::memchr;
use std::net::SocketAddr;
use std::time::Duration;

/// Longest line that `--line` answers, in bytes, its end not counted.
pub const LINE_MAX: usize = 64 * 1024;
/// What stands in front of a line that is answered.
pub const ANSWER: &[u8] = b"You said: ";
/// What a peer is told whose line is longer than [`LINE_MAX`].
pub const TOO_LONG: &[u8] =
    b"Your line is longer than 65536 bytes, which is the most that is answered here; goodbye.\n";

/// Silence after which a peer is asked whether it is still there: what RFC 9293 3.8.4 has for the least.
const KEEP_ALIVE: Duration = Duration::from_secs(2 * 3600);
/// Bytes copied from input to output at a time; small enough to stay in the first-level cache.
const SCRATCH: usize = 16 * 1024;

/// What kind of echo to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EchoConfig {
    /// Answer each line with `You said: LINE`.
    pub line: bool,
}

/// The echo application of one shard.
#[derive(Debug)]
pub struct Echo {
    config: EchoConfig,
    scratch: Vec<u8>,
    draining: bool,
}

/// What echo keeps for a connection: 16 bytes, and more only while a line is incomplete or an answer waits for room.
#[derive(Debug, Default)]
pub struct EchoSession {
    line: Option<Box<Line>>,
    /// Nothing more is answered: what still comes is read and thrown away, so that no reset overtakes the last answer.
    over: bool,
}

/// A line, or an answer, in the making.
#[derive(Debug, Default)]
struct Line {
    partial: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
}

impl Echo {
    /// An echo application.
    pub fn new(config: EchoConfig) -> Self {
        Echo { config, scratch: Vec::with_capacity(SCRATCH), draining: false }
    }

    /// Copies input to output; never takes more than it can send. What is left brings the next call.
    fn bytes(&mut self, stream: &mut impl Stream) {
        let room = stream.send_capacity().min(SCRATCH);
        if room == 0 {
            // Asking for room that is not there is what brings the next `ready`.
            stream.send(|_| 0);
            return;
        }
        let scratch = &mut self.scratch;
        scratch.clear();
        let n = stream.recv(|unread| {
            let n = unread.len().min(room);
            scratch.extend_from_slice(&unread[..n]);
            n
        });
        if n > 0 {
            let sent = send_some(stream, scratch);
            debug_assert_eq!(sent, n, "send_capacity promised room");
        }
    }

    /// Answers lines until input or room runs out.
    fn lines(&mut self, session: &mut EchoSession, stream: &mut impl Stream) {
        while session.flush(stream) && !session.over {
            let answer = &mut self.scratch;
            answer.clear();
            if stream.recv(|unread| session.take_line(unread, answer)) == 0 {
                break;
            }
            session.answer(stream, answer);
            // One long line must not fix the size of the scratch for ever.
            answer.shrink_to(SCRATCH);
        }
    }

    /// Answers a last line that has no end, then ends the stream.
    fn end(&mut self, session: &mut EchoSession, stream: &mut impl Stream) {
        session.over = true;
        if let Some(line) = session.line.as_deref_mut().filter(|line| !line.partial.is_empty()) {
            let partial = core::mem::take(&mut line.partial);
            self.scratch.clear();
            push_answer(&mut self.scratch, &partial);
            session.answer(stream, &self.scratch);
        }
        if session.flush(stream) {
            stream.shutdown();
        }
    }
}

impl EchoSession {
    /// Sends what waits for room. True when nothing waits any more.
    fn flush(&mut self, stream: &mut impl Stream) -> bool {
        let Some(line) = self.line.as_deref_mut() else { return true };
        if line.sent < line.answer.len() {
            line.sent += send_some(stream, &line.answer[line.sent..]);
            if line.sent < line.answer.len() {
                return false;
            }
        }
        (line.answer, line.sent) = (Vec::new(), 0);
        if line.partial.is_empty() {
            self.line = None;
        }
        true
    }

    /// Sends `answer`, or keeps what finds no room.
    fn answer(&mut self, stream: &mut impl Stream, answer: &[u8]) {
        let sent = send_some(stream, answer);
        if sent < answer.len() {
            self.line.get_or_insert_default().answer = answer[sent..].to_vec();
        }
    }

    /// Takes one line, or the start of one, from `unread`; puts the answer to a whole one into `answer`. Bytes taken.
    fn take_line(&mut self, unread: &[u8], answer: &mut Vec<u8>) -> usize {
        let held = self.line.as_ref().map_or(0, |line| line.partial.len());
        // Room for the end of a line that has the full length.
        let allowed = (LINE_MAX + 2).saturating_sub(held).min(unread.len());
        let end = memchr(b'\n', &unread[..allowed]);
        let taken = end.map_or(allowed, |at| at + 1);
        let part = &unread[..end.unwrap_or(allowed)];
        let fits = match (end, held) {
            (Some(_), 0) => push_answer(answer, part),
            (None, _) if part.is_empty() => true,
            _ => {
                let partial = &mut self.line.get_or_insert_default().partial;
                partial.extend_from_slice(part);
                match end {
                    Some(_) => push_answer(answer, &core::mem::take(partial)),
                    None => partial.len() < LINE_MAX + 2,
                }
            }
        };
        if !fits {
            self.over = true;
            self.line = None;
            answer.clear();
            answer.extend_from_slice(TOO_LONG);
        }
        taken
    }
}

/// Appends the answer to `line`; false when the line is too long to be answered.
fn push_answer(answer: &mut Vec<u8>, line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    answer.extend_from_slice(ANSWER);
    answer.extend_from_slice(line);
    answer.push(b'\n');
    line.len() <= LINE_MAX
}

impl App for Echo {
    type Session = EchoSession;

    fn open(&mut self, _now: Instant, _listener: Listener, _peer: SocketAddr) -> EchoSession {
        EchoSession::default()
    }

    /// A peer may be silent for as long as it likes, but not be gone.
    fn patience(&self, _listener: Listener) -> Patience {
        Patience { keep_alive: Some(KEEP_ALIVE), ..Patience::default() }
    }

    fn ready(&mut self, _now: Instant, session: &mut EchoSession, stream: &mut impl Stream) {
        if !session.over {
            if self.config.line {
                self.lines(session, stream);
            } else {
                self.bytes(stream);
            }
        }
        if session.over {
            while stream.recv(<[u8]>::len) > 0 {}
        }
        if session.over || stream.finished() || self.draining && !has_unread(stream) {
            self.end(session, stream);
        }
    }

    fn expired(&mut self, _now: Instant, _session: &mut EchoSession, _stream: &mut impl Stream) {}

    /// Between lines nothing is known of a connection but that it exists.
    fn park(&self, session: &EchoSession) -> Option<u32> {
        (session.line.is_none() && !session.over).then_some(0)
    }

    fn unpark(&mut self, _now: Instant, _listener: Listener, _peer: SocketAddr, _token: u32) -> EchoSession {
        EchoSession::default()
    }

    fn closed(&mut self, _session: EchoSession, _reason: CloseReason) {}

    fn draining(&mut self) {
        self.draining = true;
    }
}

fn has_unread(stream: &mut impl Stream) -> bool {
    let mut any = false;
    stream.recv(|unread| {
        any = !unread.is_empty();
        0
    });
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Host, Shape, converse};

    fn echo(line: bool) -> Echo {
        Echo::new(EchoConfig { line })
    }

    #[test]
    fn bytes_come_back_as_they_went_however_they_are_cut() {
        let input: Vec<u8> = (0..100_000u32).map(|i| (i * 31 % 251) as u8).collect();
        for shape in Shape::ALL {
            let host = converse(echo(false), shape, &input, true);
            assert_eq!(host.wire.output(), input, "{shape:?}");
            assert!(host.wire.is_shut(), "{shape:?}");
        }
    }

    #[test]
    fn takes_no_more_than_it_can_send() {
        let mut host = Host::open(echo(false), Shape { window: 10, ..Shape::WHOLE });
        host.reader = false;
        host.deliver(b"0123456789abcdef");
        assert_eq!(host.wire.output(), b"0123456789");
        assert_eq!(host.wire.unread(), 6);
        host.end_input();
        assert!(!host.wire.is_shut(), "input is left");
        host.acknowledge();
        assert_eq!(host.wire.output(), b"0123456789abcdef");
        assert!(host.wire.is_shut());
    }

    #[test]
    fn each_line_is_answered() {
        let input = b"hello\r\n\nworld\nCR \r inside\nlast";
        let want = b"You said: hello\nYou said: \nYou said: world\nYou said: CR \r inside\nYou said: last\n";
        for shape in Shape::ALL {
            let host = converse(echo(true), shape, input, true);
            assert_eq!(host.wire.output(), want, "{shape:?}");
            assert!(host.wire.is_shut(), "{shape:?}");
            assert!(host.session.unwrap().line.is_none(), "a quiet session holds nothing");
        }
    }

    #[test]
    fn a_line_of_the_longest_length_is_answered_and_one_byte_more_ends_the_connection() {
        for shape in Shape::ALL {
            let mut input = vec![b'x'; LINE_MAX];
            input.extend_from_slice(b"\r\n");
            let host = converse(echo(true), shape, &input, false);
            assert_eq!(host.wire.output().len(), ANSWER.len() + LINE_MAX + 1, "{shape:?}");
            assert!(!host.wire.is_shut());

            let mut input = b"ok\n".to_vec();
            input.extend(vec![b'x'; LINE_MAX + 1]);
            input.extend_from_slice(b"\nmore\n");
            let host = converse(echo(true), shape, &input, false);
            assert_eq!(host.wire.output(), [b"You said: ok\n", TOO_LONG].concat(), "{shape:?}");
            assert!(host.wire.is_shut(), "{shape:?}");
            assert_eq!(host.wire.unread(), 0, "{shape:?}");
        }
    }

    #[test]
    fn a_drain_answers_what_is_there_and_ends() {
        for line in [false, true] {
            let mut host = Host::open(echo(line), Shape::WHOLE);
            host.deliver(b"a\nb");
            assert!(!host.wire.is_shut());
            host.drain();
            assert!(host.wire.is_shut());
            let want: &[u8] = if line { b"You said: a\nYou said: b\n" } else { b"a\nb" };
            assert_eq!(host.wire.output(), want);
        }
    }

    #[test]
    fn half_a_line_is_not_parked() {
        let mut host = Host::open(echo(true), Shape::WHOLE);
        assert_eq!(host.app.park(host.session.as_ref().unwrap()), Some(0));
        host.deliver(b"half");
        assert_eq!(host.app.park(host.session.as_ref().unwrap()), None);
        host.deliver(b" a line\n");
        assert_eq!(host.app.park(host.session.as_ref().unwrap()), Some(0));
        host.end_input();
        assert_eq!(host.app.park(host.session.as_ref().unwrap()), None, "it ends");
    }

    #[test]
    fn a_session_is_small() {
        assert_eq!(core::mem::size_of::<EchoSession>(), 16);
    }
}
