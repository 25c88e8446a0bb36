//! The application of these tests.

use super::{Dice, big_byte};
use core::time::Duration;
use khamsin_stack::app::send_all;
use khamsin_stack::*;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

/// Of a session that has ended its own stream, instead of the bytes it still has to send.
const SHUT: usize = usize::MAX;

/// What the application saw, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Open,
    Data(Vec<u8>),
    Finished,
    Expired,
    Closed(CloseReason),
}

/// An echo that keeps a diary, and obeys a few words: `panic`, `abort`, `timer`, `big` (sends 100,000 bytes), `shut`.
#[derive(Default)]
pub struct Diary {
    pub events: Rc<RefCell<Vec<Event>>>,
    /// Consume nothing.
    pub deaf: bool,
    /// Whoever is deaf looks again a little later.
    pub naps: bool,
    /// Consume but do not answer.
    pub mute: bool,
    /// Read all at once, check that it is what [`big_byte`] says, keep nothing.
    pub checks: bool,
    /// Bytes checked.
    pub checked: usize,
    /// Do not close when the peer does.
    pub stays: bool,
    /// Ask for room before sending, as an echo does.
    pub asks_first: bool,
    /// Read nothing for a second, then one byte, then the rest.
    pub sips: bool,
    /// Read some part of what is there, or nothing, as chance has it, and look again a little later.
    pub nibbles: Option<Dice>,
    /// Calls of `ready`.
    pub calls: usize,
    /// What every connection gets.
    pub patience: Patience,
    /// Panic at the next connection.
    pub panics_at_open: bool,
    /// Sessions may be parked.
    pub parks: bool,
    /// Times that was asked.
    pub asked: Cell<u32>,
    /// Panic there: in `park` or `unpark`.
    pub panics_at: Option<&'static str>,
    /// End every stream when the server drains.
    pub leaves: bool,
    pub drains: bool,
    /// Panic when told of the next end.
    pub panics_at_close: bool,
}

impl App for Diary {
    type Session = usize;
    fn open(&mut self, _: Instant, _: Listener, _: SocketAddr) -> usize {
        assert!(!self.panics_at_open, "as asked");
        self.events.borrow_mut().push(Event::Open);
        0
    }
    fn patience(&self, _: Listener) -> Patience {
        self.patience
    }
    fn ready(&mut self, now: Instant, left: &mut usize, stream: &mut impl Stream) {
        self.calls += 1;
        if self.deaf {
            if self.naps {
                stream.wake_at(Some(now + Duration::from_millis(20)));
            }
            return;
        }
        if self.nibbles.is_some() {
            return self.nibble(now, stream);
        }
        if self.sips && self.events.borrow().last() == Some(&Event::Open) {
            return stream.wake_at(Some(now + Duration::from_secs(1)));
        }
        if self.leaves && self.drains {
            *left = SHUT;
            stream.shutdown();
        }
        let shut = *left == SHUT;
        if !shut {
            while self.checks {
                let at = self.checked;
                self.checked += stream.recv(|bytes| {
                    assert!(bytes.iter().enumerate().all(|(i, &byte)| byte == big_byte(at + i)), "from {at} on");
                    bytes.len()
                });
                if self.checked == at {
                    return;
                }
            }
            self.send_big(left, stream);
        }
        let mut data = Vec::new();
        let room = if shut || self.mute { usize::MAX } else { stream.send_capacity() };
        stream.recv(|bytes| {
            data.extend_from_slice(&bytes[..bytes.len().min(room)]);
            data.len()
        });
        if !data.is_empty() {
            self.events.borrow_mut().push(Event::Data(data.clone()));
            match &data[..] {
                b"panic" => panic!("as asked"),
                b"abort" => stream.abort(),
                b"shut" => {
                    *left = SHUT;
                    stream.shutdown();
                }
                b"timer" => stream.wake_at(Some(now + Duration::from_secs(3))),
                b"big" => {
                    *left = 100_000;
                    self.send_big(left, stream);
                }
                _ if self.mute || shut => {}
                _ => assert!(send_all(stream, &data)),
            }
        }
        if stream.finished() && (*left == 0 || *left == SHUT) {
            self.events.borrow_mut().push(Event::Finished);
            if !self.stays && *left != SHUT {
                stream.shutdown();
            }
        }
    }
    fn expired(&mut self, now: Instant, left: &mut usize, stream: &mut impl Stream) {
        if self.naps || self.nibbles.is_some() {
            return self.ready(now, left, stream);
        }
        self.events.borrow_mut().push(Event::Expired);
        if self.sips {
            let mut sip = Vec::new();
            stream.recv(|bytes| {
                sip.extend(bytes.first());
                sip.len()
            });
            return self.events.borrow_mut().push(Event::Data(sip));
        }
        send_all(stream, b"ding");
    }
    fn park(&self, left: &usize) -> Option<u32> {
        self.asked.set(self.asked.get() + 1);
        assert!(self.panics_at != Some("park"), "as asked");
        u32::try_from(*left).ok().filter(|_| self.parks)
    }
    fn unpark(&mut self, _: Instant, _: Listener, _: SocketAddr, token: u32) -> usize {
        assert!(self.panics_at != Some("unpark"), "as asked");
        token as usize
    }
    fn draining(&mut self) {
        self.drains = true;
    }
    fn closed(&mut self, _: usize, reason: CloseReason) {
        self.events.borrow_mut().push(Event::Closed(reason));
        assert!(!self.panics_at_close, "as asked");
    }
}

impl Diary {
    fn nibble(&mut self, now: Instant, stream: &mut impl Stream) {
        let dice = self.nibbles.as_mut().map_or(0, |dice| dice.below(1 << 31) as usize);
        let at = self.checked;
        self.checked += stream.recv(|bytes| {
            assert!(bytes.iter().enumerate().all(|(i, &byte)| byte == big_byte(at + i)), "from {at} on");
            if dice.is_multiple_of(3) { bytes.len() } else { dice % (bytes.len() + 1) }
        });
        stream.wake_at(Some(now + Duration::from_millis(2)));
        if stream.finished() {
            self.events.borrow_mut().push(Event::Finished);
            stream.shutdown();
        }
    }

    fn send_big(&self, left: &mut usize, stream: &mut impl Stream) {
        if *left > 0 && self.asks_first {
            stream.send_capacity();
        }
        while *left > 0 {
            let n = stream.send(|room| {
                let n = room.len().min(*left);
                for (i, byte) in room[..n].iter_mut().enumerate() {
                    *byte = big_byte(100_000 - *left + i);
                }
                n
            });
            if n == 0 {
                return;
            }
            *left -= n;
        }
    }
}
