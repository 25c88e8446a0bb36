//! The client over the kernel's sockets, in real time.

use crate::transcript::{Client, Read};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use std::io::{ErrorKind, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A TCP connection of this thread's namespace.
pub(crate) struct KernelClient(TcpStream);

impl KernelClient {
    /// Connects; a small `window` is set before the handshake, so that the window scale follows from it.
    ///
    /// # Errors
    /// Nobody answers.
    pub(crate) fn connect(server: SocketAddr, window: Option<usize>) -> Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        if let Some(window) = window {
            set_socket_recv_buffer_size(&socket, window)?;
        }
        connect(&socket, &server).with_context(|| format!("connect to {server}"))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(KernelClient(stream))
    }
}

impl Client for KernelClient {
    fn send(&mut self, bytes: &[u8]) -> Result<usize> {
        match self.0.write(bytes) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other.context("send"),
        }
    }

    fn receive(&mut self, into: &mut Vec<u8>, most: usize) -> Result<Read> {
        let mut piece = vec![0; most.min(1 << 17)];
        match self.0.read(&mut piece) {
            Ok(0) => Ok(Read::End),
            Ok(n) => {
                into.extend_from_slice(&piece[..n]);
                Ok(Read::Bytes(n))
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(Read::Nothing),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(Read::Reset),
            Err(e) => Err(e).context("receive"),
        }
    }

    fn end_sending(&mut self) -> Result<()> {
        self.0.shutdown(Shutdown::Write).context("end sending")
    }

    fn reset(&mut self) -> Result<()> {
        // A linger time of zero makes the close that follows an RST.
        Ok(set_socket_linger(&self.0, Some(Duration::ZERO))?)
    }

    fn pass(&mut self, time: Duration, send: bool, receive: bool) -> Result<()> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::OUT, send);
        flags.set(PollFlags::IN, receive);
        if flags.is_empty() {
            std::thread::sleep(time);
        } else {
            poll(&mut [PollFd::new(&self.0, flags)], Some(&Timespec::try_from(time)?))?;
        }
        Ok(())
    }
}
