//! The links of a bed, as measurements want them.

use anyhow::Result;
use khamsin_tools::bed::{Bed, CLIENT_LINK, SERVER_LINK};

/// Gives both ends of the link the same MTU, bytes.
///
/// # Errors
/// `ip` refuses.
pub(crate) fn set_mtu(bed: &Bed, mtu: u32) -> Result<()> {
    let mtu = mtu.to_string();
    bed.server.ip(&["link", "set", SERVER_LINK, "mtu", &mtu])?;
    bed.client().ip(&["link", "set", CLIENT_LINK, "mtu", &mtu])?;
    Ok(())
}

/// No contender shall run out of ports, nor of places for half-open connections.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn make_roomy(bed: &Bed) -> Result<()> {
    bed.client().sysctl("net.ipv4.ip_local_port_range", "1024 65000")?;
    bed.client().sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    bed.server.sysctl("net.core.somaxconn", "8192")?;
    bed.server.sysctl("net.ipv4.tcp_max_syn_backlog", "8192")?;
    Ok(())
}
