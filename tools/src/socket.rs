//! Connections whose port is chosen here, so that their segments can be told from all others.

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connects to `address` from `port`, which may have been used before; each step and each later write takes `limit` at most.
///
/// # Errors
/// The port is in use, or the connection does not come about in time.
pub fn connect_from(port: u16, address: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let (family, own): (_, SocketAddr) = match address {
        SocketAddr::V4(_) => (AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into()),
        SocketAddr::V6(_) => (AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into()),
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).context("make a socket")?;
    set_socket_reuseaddr(&socket, true)?;
    // On Linux it bounds connect() as well.
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    bind(&socket, &own).with_context(|| format!("take port {port}"))?;
    connect(&socket, &address).with_context(|| format!("connect from port {port} to {address}"))?;
    Ok(TcpStream::from(socket))
}
