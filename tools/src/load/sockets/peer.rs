//! One connection on a kernel socket.

use crate::load::judge::Reader;
use khamsin_stack::Instant;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_tcp_nodelay, socket_error};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, bind, connect, shutdown, socket_with};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Receive buffer of a slow connection, bytes, unless another window is asked for: little enough that the server waits.
pub(super) const SLOW_WINDOW: u32 = 8 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum State {
    #[default]
    Closed,
    Connecting,
    Open,
    /// Everything is answered; the server's end of stream is awaited.
    Finishing,
}

#[derive(Default)]
pub(super) struct Peer {
    pub(super) socket: Option<OwnedFd>,
    pub(super) state: State,
    pub(super) reader: Reader,
    /// Where in the speech the next byte to be sent is.
    pub(super) offset: u32,
    /// Bytes of requests that the kernel has not taken yet.
    pub(super) unsent: usize,
    /// Bytes read.
    pub(super) taken: u64,
    /// When it began to connect.
    pub(super) since: Instant,
    /// Since when something is awaited and nothing came.
    pub(super) waits_from: Option<Instant>,
}

impl Peer {
    /// Begins to connect.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn connect(
        &mut self,
        address: SocketAddr,
        source: Option<IpAddr>,
        window: Option<u32>,
        epoll: &OwnedFd,
        id: u32,
    ) -> Result<(), Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        set_tcp_nodelay(&socket, true)?;
        if let Some(bytes) = window {
            set_socket_recv_buffer_size(&socket, bytes as usize)?;
        }
        if let Some(source) = source {
            bind(&socket, &SocketAddr::new(source, 0))?;
        }
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(epoll, &socket, epoll::EventData::new_u64(id.into()), flags)?;
        self.socket = Some(socket);
        self.state = State::Connecting;
        Ok(())
    }

    /// What became of the handshake.
    pub(super) fn connected(&self) -> Result<(), Errno> {
        match &self.socket {
            Some(socket) => socket_error(socket)?,
            None => Ok(()),
        }
    }

    /// Everything is answered: the server's end of stream is awaited. `first`: we end ours before.
    pub(super) fn finish(&mut self, now: Instant, first: bool) {
        self.state = State::Finishing;
        self.waits_from = Some(now);
        if let Some(socket) = self.socket.as_ref().filter(|_| first) {
            // The connection may be gone already, which reading tells.
            let _ = shutdown(socket, Shutdown::Write);
        }
    }
}
