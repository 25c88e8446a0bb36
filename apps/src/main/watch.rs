//! Watches the interface that a server stands on: a poll on its rings would never tell that it is gone (AF_XDP.md).

use crate::server::Event;
use anyhow::{Context, Result};
use khamsin_drivers::link::{LinkEvent, Watch};
use rustix::event::{PollFd, PollFlags, poll};
use std::sync::mpsc::Sender;

/// Tells `events` when `interface` is removed, from a thread of its own; logs what else happens to it.
///
/// # Errors
/// There is no such interface, netlink is not to be had, or no thread.
pub(crate) fn start(interface: &str, events: Sender<Event>) -> Result<()> {
    let watch = Watch::new(interface).with_context(|| format!("interface {interface} cannot be watched"))?;
    let name = interface.to_owned();
    let body = move || follow(watch, &name, &events);
    std::thread::Builder::new().name("khamsin-link".into()).spawn(body).context("no thread to watch the interface")?;
    Ok(())
}

fn follow(mut watch: Watch, name: &str, events: &Sender<Event>) {
    loop {
        while let Some(event) = watch.poll() {
            match event {
                LinkEvent::Removed => {
                    let _ = events.send(Event::InterfaceGone(name.to_owned()));
                    return;
                }
                LinkEvent::Down => tracing::warn!("{name} is down: nothing arrives until it is up again"),
                LinkEvent::Up => tracing::info!("{name} is up again"),
                LinkEvent::MtuChanged(mtu) => {
                    tracing::warn!("{name} now has MTU {mtu}; restart khamsin to use it");
                }
                LinkEvent::MacChanged(_) => {
                    tracing::warn!("{name} now has another MAC address; restart khamsin to answer at it");
                }
            }
        }
        let mut fds = [PollFd::new(&watch, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::warn!("{name} is no longer watched ({error})");
                return;
            }
        }
    }
}
