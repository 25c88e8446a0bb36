//! Connections whose own end is chosen here.

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connects to `address` from `port`, which may have been used before; each step and each later write takes `limit` at most.
///
/// # Errors
/// The port is in use, or the connection does not come about in time.
pub fn connect_from(port: u16, address: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let own = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    };
    connect_as(own, address, None, limit)
}

/// As [`connect_from`], from the address and port `own` (0: any) and with a receive buffer of `receive_buffer` bytes, which
/// bounds the window.
///
/// # Errors
/// `own` is not to be had, or the connection does not come about in time.
pub fn connect_as(
    own: SocketAddr,
    address: SocketAddr,
    receive_buffer: Option<usize>,
    limit: Duration,
) -> Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).context("make a socket")?;
    set_socket_reuseaddr(&socket, true)?;
    if let Some(bytes) = receive_buffer {
        set_socket_recv_buffer_size(&socket, bytes)?;
    }
    // On Linux it bounds connect() as well.
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    bind(&socket, &own).with_context(|| format!("take {own}"))?;
    connect(&socket, &address).with_context(|| format!("connect from {own} to {address}"))?;
    Ok(TcpStream::from(socket))
}
