//! A running server: the rung that was taken and the workers on it.

use crate::apps::Recipe;
use crate::cli::{AppName, Backend, Poll};
use crate::ladder::{Ladder, backend_of, climb};
use crate::open::Opener;
use crate::options::Options;
use crate::privileges;
use crate::ready::Ready;
use crate::signals::Wish;
use crate::worker::{Control, Engine, Phase, run};
use anyhow::{Result, anyhow, bail};
use khamsin_drivers::af_xdp::Attachment;
use khamsin_drivers::capture::Capture;
use khamsin_drivers::clock::Clock;
use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::link::LinkEvent;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What the main thread waits for.
#[derive(Debug)]
pub(crate) enum Event {
    /// A signal.
    Wish(Wish),
    /// A worker ended: its connections are closed, or it cannot go on.
    Ended(Result<(), String>),
    /// Something happened to the interface of this name, on which the server stands.
    Interface(String, LinkEvent),
}

/// The workers of one rung, and what keeps its devices.
pub(crate) struct Running {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) listen: Vec<(AppName, u16)>,
    /// The interface whose going ends the server.
    pub(crate) interface: Option<String>,
    pub(crate) crew: Crew,
    /// The XDP program of the interface; it must live as long as the workers do.
    pub(crate) keeps: Option<Attachment>,
}

/// A server that can answer.
pub(crate) struct Server {
    /// What the ready line says.
    pub(crate) ready: Ready,
    /// The higher rungs, and why they were refused.
    pub(crate) ladder: Ladder,
    running: Running,
}

impl Server {
    /// Climbs the ladder and starts the workers; afterwards the calling thread has no capability that it does not need.
    ///
    /// # Errors
    /// No rung could be taken; the sentence says why, rung by rung.
    pub(crate) fn start(options: &Options, recipe: &Recipe, events: &Sender<Event>) -> Result<Server> {
        let mut opener = Opener::new(options, recipe, events)?;
        let (ladder, taken) = climb(&options.network.request, &mut opener);
        for refusal in &ladder.refused {
            tracing::info!("{} refused: {}", refusal.rung, refusal.reason);
        }
        let Some((rung, running)) = taken else {
            let least =
                options.network.request.require.map_or_else(String::new, |rung| format!(" on {rung} or better"));
            bail!(
                "wanted to serve{least}, but no rung could be taken ({ladder}); `khamsin doctor` says what would mend it"
            );
        };
        if let Err(error) = privileges::drop_capabilities() {
            tracing::warn!("capabilities could not be dropped ({error}); serving with all of them");
        }
        if let Some(interface) = &running.interface {
            // Only AF_XDP is bound to single queues.
            crate::watch::start(interface, backend_of(rung) == Backend::AfXdp, events.clone())?;
        }
        let ready = Ready { rung, addresses: running.addresses.clone(), listen: running.listen.clone() };
        tracing::info!("serving on {rung} with {} worker(s)", running.crew.threads.len());
        Ok(Server { ready, ladder, running })
    }

    /// Tells the workers to move on to `phase`.
    pub(crate) fn advance(&self, phase: Phase) {
        self.running.crew.advance(phase);
    }

    /// Tells the workers that the link now carries IP packets of at most `mtu` bytes.
    pub(crate) fn set_mtu(&self, mtu: u32) {
        self.running.crew.control.set_mtu(mtu);
        self.running.crew.bells.iter().for_each(Doorbell::ring);
    }

    /// Sees to it that frames still reach the workers after the driver made its rings anew.
    pub(crate) fn renew(&mut self) {
        let Some(attachment) = &mut self.running.keeps else { return };
        let renewed = attachment.renew();
        let interface = attachment.interface();
        match renewed {
            Err(error) => tracing::warn!("{interface} has lost its XDP program: {error}; restart khamsin"),
            Ok(true) => tracing::info!("{interface} has its XDP program again: its driver forgets it"),
            Ok(false) => {}
        }
    }

    /// Workers that were started.
    pub(crate) fn workers(&self) -> usize {
        self.running.crew.threads.len()
    }

    /// Waits until every worker has ended, then lets go of the devices.
    pub(crate) fn join(self) {
        self.running.crew.join();
        drop(self.running.keeps);
    }
}

/// The worker threads of one rung.
pub(crate) struct Crew {
    control: Arc<Control>,
    bells: Vec<Doorbell>,
    threads: Vec<JoinHandle<()>>,
    /// Ends after the workers, so that the file is whole.
    pub(crate) capture: Option<Capture>,
}

/// Builds a worker's engine, on the worker's own thread.
pub(crate) type Maker<E> = Box<dyn FnOnce() -> Result<E, String> + Send>;

impl Crew {
    /// Starts one worker for each maker; `bells[i]` wakes worker `i`. When one cannot start, none does.
    ///
    /// # Errors
    /// The sentence of the first worker that could not start.
    pub(crate) fn start<E: Engine + 'static>(
        makers: Vec<Maker<E>>,
        bells: Vec<Doorbell>,
        cores: &[usize],
        poll: Poll,
        events: &Sender<Event>,
    ) -> Result<Crew, String> {
        let control = Arc::new(Control::default());
        let (started, starts) = channel();
        let mut crew = Crew { control: control.clone(), bells, threads: Vec::new(), capture: None };
        let mut gos = Vec::new();
        for (i, make) in makers.into_iter().enumerate() {
            let (go, wait_for_go) = channel::<()>();
            let core = cores.get(i % cores.len().max(1)).copied();
            let (control, started, events) = (control.clone(), started.clone(), events.clone());
            let body = move || worker(make, core, &control, poll, started, &wait_for_go, &events);
            let thread = std::thread::Builder::new().name(format!("khamsin-{i}")).spawn(body);
            crew.threads.push(thread.map_err(|e| format!("a worker thread could not be started: {e}"))?);
            gos.push(go);
        }
        drop(started);
        // A worker that panics while it starts says nothing: its sender is gone, and the count falls short.
        let told: Vec<Result<(), String>> = starts.iter().collect();
        let short = told.len() < gos.len();
        match told.into_iter().find_map(Result::err) {
            None if !short => {
                for go in gos {
                    // A worker that is gone already has told so by its event.
                    let _ = go.send(());
                }
                Ok(crew)
            }
            problem => {
                drop(gos);
                crew.join();
                Err(problem.unwrap_or_else(|| "a worker panicked while it started; please report what is above".into()))
            }
        }
    }

    /// Ends the workers at once.
    pub(crate) fn stop(self) {
        self.advance(Phase::Aborting);
        self.join();
    }

    fn advance(&self, phase: Phase) {
        self.control.advance(phase);
        self.bells.iter().for_each(Doorbell::ring);
    }

    fn join(self) {
        for thread in self.threads {
            // Workers catch their own panics and tell of them as events.
            let _ = thread.join();
        }
        drop(self.capture);
    }
}

/// The body of a worker thread.
fn worker<E: Engine>(
    make: Maker<E>,
    core: Option<usize>,
    control: &Control,
    poll: Poll,
    started: Sender<Result<(), String>>,
    go: &Receiver<()>,
    events: &Sender<Event>,
) {
    privileges::pin(core.as_slice());
    let mut engine = match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(engine)) => engine,
        Ok(Err(reason)) => {
            let _ = started.send(Err(reason));
            return;
        }
        Err(_) => return,
    };
    privileges::drop_quietly();
    match core {
        Some(core) => tracing::debug!("worker starts on core {core}"),
        None => tracing::debug!("worker starts wherever the scheduler places it"),
    }
    let _ = started.send(Ok(()));
    // The starter reads until the last sender is gone.
    drop(started);
    if go.recv().is_err() {
        return;
    }
    let ended = match catch_unwind(AssertUnwindSafe(|| run(&mut engine, control, poll, Clock))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("a worker cannot go on: {error}")),
        Err(_) => Err("a worker panicked; what is above says where, please report it".into()),
    };
    tracing::info!("worker ended: {}", engine.summary());
    let _ = events.send(Event::Ended(ended));
}

/// One sentence for a failure of the event channel, which cannot happen while the server holds a sender.
pub(crate) fn channel_closed() -> anyhow::Error {
    anyhow!("every worker is gone without a word; please report this")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Turn;
    use khamsin_stack::Instant;
    use std::io;
    use std::time::Duration;

    /// Does what its name says in its first turn, or waits for the end.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Fake {
        Waits,
        Panics,
        LosesItsDevice,
    }

    impl Engine for Fake {
        fn turn(&mut self, now: Instant) -> Turn {
            assert!(*self != Fake::Panics, "as the test wants it");
            Turn { busy: false, deadline: Some(now.plus_micros(1000)) }
        }
        fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            match self {
                Fake::LosesItsDevice => Err(io::Error::other("unplugged")),
                _ => {
                    std::thread::park_timeout(timeout.unwrap_or_default());
                    Ok(())
                }
            }
        }
        fn drain(&mut self, _: Instant) {}
        fn abort_all(&mut self, _: Instant) {}
        fn live(&self) -> usize {
            0
        }
        fn summary(&self) -> String {
            String::new()
        }
    }

    fn crew(makers: Vec<Maker<Fake>>) -> (Result<Crew, String>, Receiver<Event>) {
        let bells = makers.iter().map(|_| Doorbell::new().unwrap()).collect();
        let (events, inbox) = channel();
        (Crew::start(makers, bells, &[], Poll::Sleep, &events), inbox)
    }

    fn makes(fake: Fake) -> Maker<Fake> {
        Box::new(move || Ok(fake))
    }

    fn ended(inbox: &Receiver<Event>) -> Result<(), String> {
        match inbox.recv_timeout(Duration::from_secs(10)) {
            Ok(Event::Ended(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn workers_end_when_they_are_told_to() {
        let (crew, inbox) = crew(vec![makes(Fake::Waits), makes(Fake::Waits)]);
        crew.unwrap().stop();
        assert_eq!((ended(&inbox), ended(&inbox)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_worker_that_cannot_go_on_says_why() {
        for (fake, says) in [(Fake::Panics, "panicked"), (Fake::LosesItsDevice, "unplugged")] {
            let (crew, inbox) = crew(vec![makes(fake)]);
            assert!(ended(&inbox).unwrap_err().contains(says));
            crew.unwrap().stop();
        }
    }

    #[test]
    fn none_runs_where_one_cannot_start() {
        let (crew, inbox) = crew(vec![makes(Fake::Waits), Box::new(|| Err("no port".into()))]);
        assert_eq!(crew.err(), Some("no port".into()));
        assert!(inbox.try_recv().is_err(), "a worker that never ran has nothing to tell");
        let (crew, _) = self::crew(vec![makes(Fake::Waits), Box::new(|| panic!("as the test wants it"))]);
        assert!(crew.err().unwrap().contains("panicked"));
    }
}
