//! Watches the interface that a server stands on: a poll on its rings would never tell that it is gone (AF_XDP.md).

use crate::server::Event;
use anyhow::{Context, Result};
use khamsin_drivers::link::{LinkEvent, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::mpsc::Sender;

/// How often the number of queues is looked at: nothing tells when it changes.
const QUEUES_CHECK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Tells `events` what happens to `interface`, from a thread of its own; also when it receives on another number of queues
/// than before, if `queues` is true.
///
/// # Errors
/// There is no such interface, netlink is not to be had, or no thread.
pub(crate) fn start(interface: &str, queues: bool, events: Sender<Event>) -> Result<()> {
    let watch = Watch::new(interface).with_context(|| format!("interface {interface} cannot be watched"))?;
    // Only changes are told from now on.
    if !watch.link().up {
        tracing::warn!("{interface} is down: nothing arrives until it is up; `ip link set dev {interface} up`");
    } else if !watch.link().running {
        // No cable, a veth whose peer is down, or a driver that takes its time after it was handed the program.
        tracing::warn!("{interface} has no carrier: nothing arrives until it has");
    }
    let name = interface.to_owned();
    let body = move || follow(watch, &name, queues, &events);
    std::thread::Builder::new().name("khamsin-link".into()).spawn(body).context("no thread to watch the interface")?;
    Ok(())
}

fn follow(mut watch: Watch, name: &str, queues: bool, events: &Sender<Event>) {
    loop {
        while let Some(event) = watch.poll() {
            let gone = event == LinkEvent::Removed;
            if events.send(Event::Interface(name.to_owned(), event)).is_err() || gone {
                return;
            }
        }
        let mut fds = [PollFd::new(&watch, PollFlags::IN)];
        match poll(&mut fds, queues.then_some(&QUEUES_CHECK)) {
            Ok(0) => watch.check_queues(),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::warn!("{name} is no longer watched ({error})");
                return;
            }
        }
    }
}
