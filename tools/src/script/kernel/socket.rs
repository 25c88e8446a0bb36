//! The application's side: a kernel socket that does what the script says.

use super::{Command, Family, PORT, SERVER};
use crate::script::model::Header;
use crate::script::wire::stream_byte;
use anyhow::{Context, Result};
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_user_timeout};
use rustix::net::sockopt::{set_socket_linger, set_socket_send_buffer_size_force, set_tcp_congestion};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

/// Room for everything that a script writes at once, bytes.
const SEND_BUFFER: usize = 4 << 20;

/// Longest time between two keep-alive probes, as the stack has it.
const KEEP_ALIVE_GAP: Duration = Duration::from_secs(75);

/// A listening socket and its latest connection.
pub(super) struct Socket {
    listener: TcpListener,
    stream: Option<TcpStream>,
    /// Connections before the latest, still open.
    former: Vec<TcpStream>,
    read: u64,
    written: u64,
    /// Bytes of the command in hand that are done already.
    done: usize,
}

impl Socket {
    pub(super) fn listen(family: Family, header: &Header) -> Result<Socket> {
        let address: IpAddr = match family {
            Family::V4 => SERVER.0.into(),
            Family::V6 => SERVER.1.into(),
        };
        let listener = TcpListener::bind((address, PORT)).with_context(|| format!("listen on {address}:{PORT}"))?;
        listener.set_nonblocking(true)?;
        // A namespace may not choose it for all; connections have it from their listener.
        set_tcp_congestion(&listener, "cubic").context("choose CUBIC")?;
        if let Some(us) = header.keep_alive_us {
            let idle = Duration::from_micros(us);
            set_socket_keepalive(&listener, true)?;
            set_tcp_keepidle(&listener, idle)?;
            set_tcp_keepintvl(&listener, idle.min(KEEP_ALIVE_GAP))?;
        }
        if let Some(us) = header.user_timeout_us {
            set_tcp_user_timeout(&listener, (us / 1000) as u32)?;
        }
        Ok(Socket { listener, stream: None, former: Vec::new(), read: 0, written: 0, done: 0 })
    }

    /// Does it; false: not yet, ask again.
    pub(super) fn obey(&mut self, command: &Command) -> Result<bool, String> {
        let ready = match command {
            Command::Accept => self.accept()?,
            Command::Read(n) => self.read_exactly(*n)?,
            Command::Write(n) => self.write_all(*n)?,
            Command::Shutdown => self.stream()?.shutdown(Shutdown::Write).map(|()| true).map_err(|e| e.to_string())?,
            Command::Close => {
                self.stream()?;
                self.stream = None;
                true
            }
            Command::Abort => {
                set_socket_linger(self.stream()?, Some(Duration::ZERO)).map_err(|e| e.to_string())?;
                self.stream = None;
                true
            }
            Command::ExpectEof => self.ends_with(None)?,
            Command::ExpectReset => self.ends_with(Some(ErrorKind::ConnectionReset))?,
            Command::ExpectTimeout => self.ends_with(Some(ErrorKind::TimedOut))?,
            Command::ExpectOpen => self.is_open()?,
        };
        if ready {
            self.done = 0;
        }
        Ok(ready)
    }

    /// What to say when a command was never ready.
    pub(super) fn missed(&mut self, command: &Command) -> String {
        match command {
            Command::Accept => "there is no new connection".to_owned(),
            Command::Read(_) => format!("only {} bytes to read", self.done),
            Command::Write(_) => format!("only {} bytes could be written", self.done),
            _ => "the connection lives".to_owned(),
        }
    }

    fn stream(&mut self) -> Result<&mut TcpStream, String> {
        self.stream.as_mut().ok_or_else(|| "there is no connection".to_owned())
    }

    fn accept(&mut self) -> Result<bool, String> {
        let Some((stream, _)) = maybe(self.listener.accept())? else { return Ok(false) };
        let prepared = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| Ok(set_socket_send_buffer_size_force(&stream, SEND_BUFFER)?));
        prepared.map_err(|e| e.to_string())?;
        self.former.extend(self.stream.replace(stream));
        (self.read, self.written) = (0, 0);
        Ok(true)
    }

    fn read_exactly(&mut self, n: usize) -> Result<bool, String> {
        let mut bytes = vec![0; n - self.done];
        let from = self.read;
        let Some(got) = maybe(self.stream()?.read(&mut bytes))? else { return Ok(false) };
        if got == 0 {
            return Err(format!("the end after {} bytes", self.done));
        }
        if let Some(wrong) = (0..got).find(|&i| bytes[i] != stream_byte(from + i as u64)) {
            return Err(format!("byte {} of the peer's stream is wrong", from + wrong as u64));
        }
        self.read += got as u64;
        self.done += got;
        Ok(self.done == n)
    }

    fn write_all(&mut self, n: usize) -> Result<bool, String> {
        let from = self.written;
        let bytes: Vec<u8> = (from..from + (n - self.done) as u64).map(stream_byte).collect();
        let Some(put) = maybe(self.stream()?.write(&bytes))? else { return Ok(false) };
        self.written += put as u64;
        self.done += put;
        Ok(self.done == n)
    }

    /// Whether the stream ends: well, or with this error.
    fn ends_with(&mut self, error: Option<ErrorKind>) -> Result<bool, String> {
        match (self.stream()?.read(&mut [0]), error) {
            (Ok(0), None) => Ok(true),
            (Err(e), Some(wanted)) if e.kind() == wanted => Ok(true),
            (Err(e), _) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            (Ok(n), _) => Err(format!("{n} bytes could be read")),
            (Err(e), _) => Err(e.to_string()),
        }
    }

    fn is_open(&mut self) -> Result<bool, String> {
        match maybe(self.stream()?.read(&mut [0]))? {
            None => Ok(true),
            Some(0) => Err("the stream has ended".to_owned()),
            Some(_) => Err("there are bytes to read".to_owned()),
        }
    }
}

/// `None`: it would block.
fn maybe<T>(done: std::io::Result<T>) -> Result<Option<T>, String> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}
