//! The application of a run in virtual time: it does what the script says, and nothing else.

use super::model::Command;
use super::wire::stream_byte;
use khamsin_stack::app::Patience;
use khamsin_stack::{App, CloseReason, Instant, Listener, Stream};
use std::net::SocketAddr;

/// What the application knows of a connection.
#[derive(Default)]
struct Session {
    read: u64,
    written: u64,
    /// Bytes that found no room yet.
    to_write: u64,
    shutdown: bool,
    /// It has closed: whatever comes resets the connection.
    closed: bool,
    over: Option<CloseReason>,
}

/// The application.
#[derive(Default)]
pub(super) struct Actor {
    patience: Patience,
    sessions: Vec<Session>,
    accepted: usize,
    order: Option<Command>,
    outcome: Option<Result<(), String>>,
}

impl Actor {
    /// An application whose connections wait for so long.
    pub(super) fn new(patience: Patience) -> Actor {
        Actor { patience, ..Actor::default() }
    }

    /// Notes what is to be done; it happens when the connection has its turn.
    pub(super) fn order(&mut self, command: &Command) -> Result<(), String> {
        (self.order, self.outcome) = (None, None);
        if *command == Command::Accept {
            if self.accepted == self.sessions.len() {
                return Err("there is no new connection".to_owned());
            }
            self.accepted += 1;
            self.outcome = Some(Ok(()));
            return Ok(());
        }
        let session = self.current().ok_or("`accept` comes before the other commands")?;
        match session.over {
            None => self.order = Some(command.clone()),
            Some(reason) => {
                let seen = match command {
                    Command::ExpectEof => reason == CloseReason::Finished,
                    Command::ExpectReset => reason == CloseReason::PeerReset,
                    Command::ExpectTimeout => reason == CloseReason::TimedOut,
                    _ => false,
                };
                self.outcome = Some(if seen { Ok(()) } else { Err(format!("the connection is over: {reason}")) });
            }
        }
        Ok(())
    }

    /// What came of it.
    pub(super) fn outcome(&mut self) -> Result<(), String> {
        self.outcome.take().unwrap_or_else(|| Err("the connection was not given a turn".to_owned()))
    }

    fn current(&mut self) -> Option<&mut Session> {
        self.sessions.get_mut(self.accepted.checked_sub(1)?)
    }
}

impl App for Actor {
    /// Position in the list.
    type Session = usize;

    fn open(&mut self, _: Instant, _: Listener, _: SocketAddr) -> usize {
        self.sessions.push(Session::default());
        self.sessions.len() - 1
    }

    fn patience(&self, _: Listener) -> Patience {
        self.patience
    }

    fn ready(&mut self, _: Instant, id: &mut usize, stream: &mut impl Stream) {
        let session = &mut self.sessions[*id];
        if *id + 1 == self.accepted
            && let Some(order) = self.order.take()
        {
            self.outcome = Some(session.obey(&order, stream));
        }
        session.go_on(stream);
    }

    fn expired(&mut self, _: Instant, _: &mut usize, _: &mut impl Stream) {}

    /// What the script wants of it stands in the list; but whoever has text to write waits for room.
    fn park(&self, id: &usize) -> Option<u32> {
        let session = &self.sessions[*id];
        (session.to_write == 0 && !session.shutdown).then_some(*id as u32)
    }

    fn unpark(&mut self, _: Instant, _: Listener, _: SocketAddr, token: u32) -> usize {
        token as usize
    }

    fn closed(&mut self, id: usize, reason: CloseReason) {
        self.sessions[id].over = Some(reason);
    }
}

impl Session {
    fn obey(&mut self, order: &Command, stream: &mut impl Stream) -> Result<(), String> {
        match order {
            Command::Accept => {}
            Command::Read(n) => self.read_exactly(*n, stream)?,
            Command::Write(n) => self.to_write += *n as u64,
            Command::Shutdown => self.shutdown = true,
            Command::Abort => stream.abort(),
            Command::Close => (self.shutdown, self.closed) = (true, true),
            Command::ExpectEof if stream.finished() => {}
            Command::ExpectOpen if unread(stream) == 0 && !stream.finished() => {}
            Command::ExpectEof => return Err(format!("no end yet, {} bytes unread", unread(stream))),
            Command::ExpectOpen => return Err(format!("{} bytes unread, or the end", unread(stream))),
            Command::ExpectReset | Command::ExpectTimeout => return Err("the connection lives".to_owned()),
        }
        Ok(())
    }

    fn read_exactly(&mut self, n: usize, stream: &mut impl Stream) -> Result<(), String> {
        let mut left = n;
        let mut wrong = None;
        while left > 0 {
            let from = self.read;
            let taken = stream.recv(|bytes| {
                let taken = bytes.len().min(left);
                let bad = (0..taken).find(|&i| bytes[i] != stream_byte(from + i as u64));
                wrong = wrong.or(bad.map(|i| from + i as u64));
                taken
            });
            if taken == 0 {
                return Err(format!("only {} bytes to read", n - left));
            }
            self.read += taken as u64;
            left -= taken;
        }
        wrong.map_or(Ok(()), |at| Err(format!("byte {at} of the peer's stream is wrong")))
    }

    fn go_on(&mut self, stream: &mut impl Stream) {
        if self.closed && unread(stream) > 0 {
            return stream.abort();
        }
        while self.to_write > 0 {
            let (from, left) = (self.written, self.to_write);
            let sent = stream.send(|room| {
                let n = room.len().min(left as usize);
                room[..n].iter_mut().enumerate().for_each(|(i, byte)| *byte = stream_byte(from + i as u64));
                n
            });
            if sent == 0 {
                return;
            }
            self.written += sent as u64;
            self.to_write -= sent as u64;
        }
        if self.shutdown {
            stream.shutdown();
        }
    }
}

fn unread(stream: &mut impl Stream) -> usize {
    let mut there = 0;
    stream.recv(|bytes| {
        there = bytes.len();
        0
    });
    there
}
