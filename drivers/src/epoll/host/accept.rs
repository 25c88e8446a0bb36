//! Connections come.

use super::{Connection, Host, Slot, Ticket, port_data};
use crate::epoll::Trigger;
use crate::epoll::link::{Call, Link};
use crate::epoll::listen::{Accepted, reset};
use khamsin_stack::{App, Instant};
use rustix::event::epoll::{self, EventFlags};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Connections taken from one listener before those that are open have their turn.
const ACCEPT_BUDGET: usize = 256;
/// How long no connection is asked for when the kernel had not even a descriptor to refuse one with, microseconds.
const ACCEPT_PAUSE_US: u64 = 100_000;

impl<A: App> Host<A> {
    /// Takes the connections that wait at listener `number`.
    pub(super) fn accept(&mut self, now: Instant, app: &mut A, number: usize) {
        for _ in 0..ACCEPT_BUDGET {
            let Some(port) = self.ports.get_mut(number) else { return };
            let accepted = self.reserve.accept(port);
            match accepted {
                Accepted::Connection(fd, _) if self.live >= self.live_max => {
                    reset(fd);
                    self.shared.counters.drop_accept_full += 1;
                }
                Accepted::Connection(fd, peer) if self.source_is_full(peer) => {
                    reset(fd);
                    self.shared.counters.drop_source_limit += 1;
                }
                Accepted::Connection(fd, peer) => self.establish(now, app, number, fd, peer),
                Accepted::Shed => self.shared.counters.drop_accept_full += 1,
                Accepted::Gone => {}
                Accepted::Empty => {
                    self.ports[number].unfinished = false;
                    return;
                }
                Accepted::Exhausted => {
                    self.ports[number].unfinished = false;
                    self.pause_accept(now);
                    return;
                }
            }
        }
        // Level-triggered epoll says it again; edge-triggered does not.
        self.ports[number].unfinished = self.trigger == Trigger::Edge;
    }

    fn source_is_full(&self, peer: SocketAddr) -> bool {
        self.live_by.as_ref().is_some_and(|sources| sources.count(&octets(peer)) >= self.per_source)
    }

    fn establish(&mut self, now: Instant, app: &mut A, number: usize, fd: OwnedFd, peer: SocketAddr) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            self.slots.len() as u32 - 1
        });
        let ticket = Ticket { index, generation: self.slots[index as usize].generation };
        let mut link = Link::new(fd);
        link.interest = match self.trigger {
            Trigger::Level => EventFlags::IN | EventFlags::RDHUP,
            // Once for the whole life. PRI: a read stops short at an urgent mark.
            Trigger::Edge => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET,
        };
        if epoll::add(&self.epoll, &link.fd, ticket.data(), link.interest).is_err() {
            self.shared.counters.drop_accept_full += 1;
            self.free.push(index);
            return reset(link.fd);
        }
        self.shared.counters.accepted += 1;
        let listener = self.ports[number].listener;
        let Ok(session) = catch_unwind(AssertUnwindSafe(|| app.open(now, listener, peer))) else {
            self.shared.counters.closed_panicked += 1;
            self.free.push(index);
            return reset(link.fd);
        };
        let source = octets(peer);
        let waits = catch_unwind(AssertUnwindSafe(|| app.patience(listener))).unwrap_or_default();
        link.wait_for_peer(&waits);
        self.slots[index as usize].connection = Some(Connection { link, session, source });
        if let Some(sources) = &mut self.live_by {
            sources.add(&source);
        }
        self.live += 1;
        self.visit(now, app, index, Call::Ready);
    }

    fn pause_accept(&mut self, now: Instant) {
        self.accept_again_at = Some(now.plus_micros(ACCEPT_PAUSE_US));
        for (number, port) in self.ports.iter().enumerate() {
            // If it fails the event comes again, which costs time and nothing else.
            let _ = epoll::modify(&self.epoll, &port.fd, port_data(number), EventFlags::empty());
        }
    }

    /// Asks for connections again, if `now` is late enough.
    pub(super) fn resume_accept(&mut self, now: Instant) {
        if self.accept_again_at.is_none_or(|at| at > now) {
            return;
        }
        self.accept_again_at = None;
        for (number, port) in self.ports.iter().enumerate() {
            // Modifying re-arms: whoever waits already is an event in either mode.
            let _ = epoll::modify(&self.epoll, &port.fd, port_data(number), self.port_interest());
        }
    }
}

/// A peer's address, IPv4-mapped.
fn octets(peer: SocketAddr) -> [u8; 16] {
    match peer.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
