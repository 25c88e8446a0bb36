//! Two network namespaces and the link between them: where a wire test takes place.

use crate::command::{is_installed, run};
use crate::middlebox::Middlebox;
use crate::netns::{Netns, delete};
use anyhow::{Result, anyhow};
use khamsin_drivers::tap;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The server's end of the veth pair.
pub const SERVER_LINK: &str = "khs0";
/// The client's end of the veth pair.
pub const CLIENT_LINK: &str = "khc0";
/// The address that khamsin is given.
pub const STACK_V4: &str = "198.18.0.2";
/// The IPv6 address that khamsin is given.
pub const STACK_V6: &str = "fd00:18::2";
/// The address that the server's kernel has on the link.
pub const KERNEL_V4: &str = "198.18.0.3";
/// The IPv6 address that the server's kernel has on the link.
pub const KERNEL_V6: &str = "fd00:18::3";
/// The client's address.
pub const CLIENT_V4: &str = "198.18.0.1";
/// The client's IPv6 address.
pub const CLIENT_V6: &str = "fd00:18::1";

/// A server's and a client's namespace. Both go away with this.
#[derive(Debug)]
pub struct Bed {
    /// Where the server runs.
    pub server: Netns,
    /// Where the clients run; `None`: in the server's namespace, at the host side of its TAP device.
    client: Option<Netns>,
}

static BEDS: AtomicU32 = AtomicU32::new(0);

impl Bed {
    /// One namespace and no link: the server brings its own device.
    ///
    /// # Errors
    /// No privilege to make namespaces.
    pub fn alone() -> Result<Bed> {
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let server = Netns::create(&format!("khs-{}-{number}", std::process::id()))?;
        quiet(&server)?;
        Ok(Bed { server, client: None })
    }

    /// Two namespaces and a veth pair with `queues` receive and transmit queues at each end, up and addressed.
    ///
    /// # Errors
    /// No privilege to make namespaces or links.
    pub fn veth(queues: usize) -> Result<Bed> {
        let (server, client) = pair()?;
        let q = queues.to_string();
        let mut line = vec!["link", "add", CLIENT_LINK, "numrxqueues", &q, "numtxqueues", &q, "type", "veth"];
        line.extend(["peer", "name", SERVER_LINK, "numrxqueues", &q, "numtxqueues", &q, "netns", server.name()]);
        client.ip(&line)?;
        address(&server, &client)?;
        Ok(Bed { server, client: Some(client) })
    }

    /// Two namespaces whose links end in a [`Middlebox`]; names and addresses are those of [`Bed::veth`], and as long as it
    /// does not forward, nothing passes. The links vanish with it.
    ///
    /// # Errors
    /// No privilege to make namespaces or TAPs.
    pub fn taps() -> Result<(Bed, Middlebox)> {
        let (server, client) = pair()?;
        let mut taps = Vec::with_capacity(2);
        for (netns, link) in [(&server, SERVER_LINK), (&client, CLIENT_LINK)] {
            taps.push(netns.enter(|| tap::open_plain(link))??);
            // What a stack sends at once must find room until the middlebox reads it: the path's queue is the one to drop.
            netns.ip(&["link", "set", link, "txqueuelen", "10000"])?;
        }
        address(&server, &client)?;
        let [to_server, to_client] = <[OwnedFd; 2]>::try_from(taps).map_err(|_| anyhow!("two TAPs are two"))?;
        Ok((Bed { server, client: Some(client) }, Middlebox::new(to_server, to_client)))
    }

    /// Where clients run.
    pub fn client(&self) -> &Netns {
        self.client.as_ref().unwrap_or(&self.server)
    }

    /// Switches the segmentation offload of the client's end: generic XDP drops what it lets through (AF_XDP.md).
    ///
    /// # Errors
    /// There is no `ethtool`, or it refuses.
    pub fn client_segmentation(&self, on: bool) -> Result<()> {
        let word = if on { "on" } else { "off" };
        self.client().run("ethtool", &["-K", CLIENT_LINK, "tso", word, "gso", word], Duration::from_secs(10))?;
        Ok(())
    }
}

/// The two namespaces of a bed.
fn pair() -> Result<(Netns, Netns)> {
    let number = BEDS.fetch_add(1, Ordering::Relaxed);
    let server = Netns::create(&format!("khs-{}-{number}", std::process::id()))?;
    let client = Netns::create(&format!("khc-{}-{number}", std::process::id()))?;
    quiet(&server)?;
    quiet(&client)?;
    Ok((server, client))
}

/// Gives both ends of the link their addresses and switches them on.
fn address(server: &Netns, client: &Netns) -> Result<()> {
    let ends = [(server, SERVER_LINK, KERNEL_V4, KERNEL_V6), (client, CLIENT_LINK, CLIENT_V4, CLIENT_V6)];
    for (netns, link, v4, v6) in ends {
        netns.ip(&["address", "add", &format!("{v4}/24"), "dev", link])?;
        netns.ip(&["address", "add", &format!("{v6}/64"), "dev", link, "nodad"])?;
        netns.ip(&["link", "set", link, "up"])?;
    }
    Ok(())
}

/// No duplicate address detection, which would keep a link-local address back for seconds, and no router to ask.
fn quiet(netns: &Netns) -> Result<()> {
    for name in ["default", "all"] {
        netns.sysctl(&format!("net.ipv6.conf.{name}.accept_dad"), "0")?;
        netns.sysctl(&format!("net.ipv6.conf.{name}.router_solicitations"), "0")?;
    }
    Ok(())
}

/// Why no bed can be made here, or `None` where one can: the reason that a test names when it is skipped.
pub fn refusal() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    if !is_installed("ip") {
        return Some("`ip` is not installed (apt-get install iproute2)".to_owned());
    }
    let probe = format!("khp-{}", std::process::id());
    match Netns::create(&probe) {
        Ok(_) => None,
        Err(e) => Some(format!("no network namespace can be made: {e:#}")),
    }
}

/// Deletes the namespaces of test processes that were killed before they could.
///
/// # Errors
/// `ip` cannot be run.
pub fn sweep() -> Result<()> {
    let mut list = Command::new("ip");
    list.args(["netns", "list"]);
    let listed = run(list, Duration::from_secs(10))?.text();
    for name in listed.lines().filter_map(|l| l.split_whitespace().next()) {
        let owner =
            ["khs-", "khc-", "khp-"].iter().find_map(|p| name.strip_prefix(p)).and_then(|r| r.split('-').next());
        let Some(owner) = owner.and_then(|o| o.parse::<u32>().ok()) else { continue };
        if !std::path::Path::new(&format!("/proc/{owner}")).exists() {
            delete(name)?;
        }
    }
    Ok(())
}
