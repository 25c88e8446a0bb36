//! `khamsin serve`, `echo` and `http`: start, announce, and stop when told.

use crate::apps::{Files, Recipe};
use crate::options::Options;
use crate::server::{Event, Server, channel_closed};
use crate::signals::{self, Wish};
use crate::worker::Phase;
use anyhow::{Context, Result, bail};
use khamsin_drivers::clock::Clock;
use khamsin_drivers::link::LinkEvent;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Serves until a signal says otherwise.
///
/// # Errors
/// The server cannot start, or cannot go on.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    tracing::debug!("{options:?}");
    // Caught before anything is set up, so that a stop during the start is not lost.
    let caught = signals::catch().context("signals cannot be caught")?;
    let (events, inbox) = channel();
    let files = Files::load(&options)?;
    let mut server = Server::start(&options, &Recipe::new(&options, &files), &events)?;
    caught.forward(move |wish| drop(events.send(Event::Wish(wish)))).context("signals cannot be waited for")?;
    server.ready.announce();
    let outcome =
        wait_for_stop(&mut server, &inbox, &files).and_then(|()| drain(&mut server, &inbox, options.network.drain));
    match outcome {
        Ok(()) => {
            server.join();
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            // Workers whose device is gone may never end; the process does.
            server.advance(Phase::Aborting);
            Err(error)
        }
    }
}

/// Returns when it is time to drain.
fn wait_for_stop(server: &mut Server, inbox: &Receiver<Event>, files: &Files) -> Result<()> {
    loop {
        match inbox.recv().map_err(|_| channel_closed())? {
            Event::Wish(Wish::Stop) => return Ok(()),
            Event::Wish(Wish::Reload) => files.reload(),
            other => {
                follow(server, &other);
                failure(other)?;
            }
        }
    }
}

/// Does what the server can do about an event that nobody wished for.
fn follow(server: &mut Server, event: &Event) {
    match event {
        Event::Interface(_, LinkEvent::MtuChanged(mtu)) => {
            server.set_mtu(*mtu);
            server.renew();
        }
        Event::Interface(_, LinkEvent::Up) => server.renew(),
        _ => {}
    }
}

/// What an event means that nobody wished for.
///
/// # Errors
/// The sentence that ends the server.
pub(crate) fn failure(event: Event) -> Result<()> {
    match event {
        Event::Ended(Err(reason)) => bail!("{reason}"),
        Event::Ended(Ok(())) => bail!("a worker ended although nobody told it to; please report this"),
        Event::Interface(name, LinkEvent::Removed) => {
            bail!("wanted to serve on {name}, but the interface is gone; start khamsin again when it is back")
        }
        Event::Interface(name, event) => {
            tell(&name, event);
            Ok(())
        }
        Event::Wish(_) => Ok(()),
    }
}

/// A signal that follows the first one so soon is the same wish told twice: timeout(1) signals a process and then its group,
/// and so do terminals and supervisors between them.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

fn tell(name: &str, event: LinkEvent) {
    match event {
        LinkEvent::Down => tracing::warn!("{name} is down: nothing arrives until it is up again"),
        LinkEvent::Up => tracing::info!("{name} is up again"),
        LinkEvent::MtuChanged(mtu) => {
            tracing::warn!("{name} now has MTU {mtu}; restart khamsin to use more than it had at the start");
        }
        LinkEvent::MacChanged(_) => tracing::warn!("{name} has another MAC address; restart khamsin to answer at it"),
        LinkEvent::QueuesChanged(n) => tracing::warn!(
            "{name} now receives on {n} queue(s): frames that come on others than those at the start go to the kernel and \
             are not served; set them back with `ethtool -L {name}`, or restart khamsin to use all"
        ),
        LinkEvent::Removed => {}
    }
}

/// Stops accepting and lets sessions finish, for at most `limit` and until a second signal.
///
/// # Errors
/// A second signal, or a worker that failed: what was left is reset.
pub(crate) fn drain(server: &mut Server, inbox: &Receiver<Event>, limit: Duration) -> Result<()> {
    tracing::info!("draining for at most {} s; a second signal ends at once", limit.as_secs());
    server.advance(Phase::Draining);
    let mut left = server.workers();
    let start = Clock.now();
    let until = start + limit;
    while left > 0 {
        match inbox.recv_timeout(until.since(Clock.now())) {
            Ok(Event::Ended(Ok(()))) => left -= 1,
            Ok(Event::Wish(Wish::Reload)) => {}
            Ok(Event::Wish(Wish::Stop)) if Clock.now().since(start) < SAME_SIGNAL => {}
            Ok(Event::Wish(Wish::Stop)) => {
                abort(server, inbox, left);
                bail!("wanted to finish what was in flight, but a second signal came: what was left was reset");
            }
            Ok(other) => {
                follow(server, &other);
                failure(other)?;
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the drain time is over: what is left is reset");
                abort(server, inbox, left);
                return Ok(());
            }
            Err(RecvTimeoutError::Disconnected) => return Err(channel_closed()),
        }
    }
    Ok(())
}

/// How long workers have to reset what is left; it is the work of one turn.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

fn abort(server: &mut Server, inbox: &Receiver<Event>, mut left: usize) {
    server.advance(Phase::Aborting);
    let until = Clock.now() + ABORT_TIMEOUT;
    while left > 0 {
        match inbox.recv_timeout(until.since(Clock.now())) {
            Ok(Event::Ended(_)) => left -= 1,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
