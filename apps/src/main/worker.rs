//! A worker: one thread, one core, one engine, turned until it is told to stop.

use crate::cli::Poll;
use khamsin_drivers::clock::Clock;
use khamsin_stack::Instant;
use std::hint::spin_loop;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

/// What a worker turns: a stack over frames, or a host of kernel sockets, with its applications.
pub(crate) trait Engine {
    /// Whether `wait` finds what has arrived already, so that nobody who is about to sleep needs to look for it first.
    const WAIT_LOOKS: bool = false;

    /// Does what there is to do at `now`.
    fn turn(&mut self, now: Instant) -> Turn;
    /// Sleeps until there is something to do, the doorbell rings or `timeout` is over.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;
    /// The link now carries IP packets of at most `mtu` bytes. Kernel sockets know by themselves.
    fn set_mtu(&mut self, _now: Instant, _mtu: usize) {}
    /// Accepts nothing more and lets each session finish.
    fn drain(&mut self, now: Instant);
    /// Resets whatever is left.
    fn abort_all(&mut self, now: Instant);
    /// Connections that are not closed yet.
    fn live(&self) -> usize;
    /// What to tell at the end, for the log.
    fn summary(&self) -> String;
}

/// What came of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Turn {
    /// Something was done: look again before sleeping.
    pub(crate) busy: bool,
    /// When the next turn is due even if nothing arrives.
    pub(crate) deadline: Option<Instant>,
}

/// How far a server is on its way down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    Serving,
    /// Accept nothing, finish what is in flight.
    Draining,
    /// Reset what is left and end.
    Aborting,
}

/// What the main thread tells its workers; ring their doorbells after each word.
#[derive(Debug, Default)]
pub(crate) struct Control {
    phase: AtomicU8,
    /// Of the link, bytes; 0: what it was at the start.
    mtu: AtomicU32,
}

impl Control {
    /// The phase that workers are to be in.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Aborting,
        }
    }

    /// The MTU of the link as last told, bytes; 0: none was.
    fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// The link's MTU has changed, bytes.
    pub(crate) fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Moves on to `phase`; never back.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

/// How long an adaptive worker looks for more before it sleeps, microseconds: a little over a round trip of a peer on
/// the same machine that sleeps itself (AF_XDP.md: 50 us).
const SPIN_US: u64 = 80;
/// Pauses between two looks at an empty ring: unpaused spinning bounces the ring's cache line (AF_XDP.md).
const PAUSES: u32 = 30;

/// Turns `engine` until `control` ends it and its connections are closed or reset.
///
/// # Errors
/// The device is gone.
pub(crate) fn run<E: Engine>(engine: &mut E, control: &Control, poll: Poll, clock: Clock) -> io::Result<()> {
    let mut phase = Phase::Serving;
    let mut active = clock.now();
    let mut mtu = 0;
    loop {
        let now = clock.now();
        let wanted = control.phase();
        if wanted > phase {
            phase = wanted;
            match phase {
                Phase::Aborting => engine.abort_all(now),
                _ => engine.drain(now),
            }
        }
        if control.mtu() != mtu {
            mtu = control.mtu();
            engine.set_mtu(now, mtu as usize);
        }
        let turn = engine.turn(now);
        if phase == Phase::Aborting || (phase == Phase::Draining && engine.live() == 0) {
            return Ok(());
        }
        if turn.busy {
            active = now;
            if !E::WAIT_LOOKS || poll != Poll::Sleep {
                continue;
            }
        }
        let spin = match poll {
            Poll::Busy => true,
            Poll::Adaptive => now.micros_since(active) < SPIN_US,
            Poll::Sleep => false,
        };
        if spin {
            (0..PAUSES).for_each(|_| spin_loop());
        } else if turn.deadline.is_none_or(|deadline| deadline > now) {
            engine.wait(turn.deadline.map(|deadline| deadline.since(now)))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Plays a script: at each wait the next step happens; notes what it was told.
    struct Script<'a> {
        control: &'a Control,
        steps: VecDeque<fn(&Control) -> io::Result<()>>,
        live: usize,
        told: Vec<&'static str>,
        waits: usize,
        finish_in: usize,
    }

    impl Engine for Script<'_> {
        fn turn(&mut self, now: Instant) -> Turn {
            if self.told.contains(&"drain") {
                self.finish_in = self.finish_in.saturating_sub(1);
                if self.finish_in == 0 {
                    self.live = 0;
                }
            }
            Turn { busy: false, deadline: Some(now.plus_micros(1000)) }
        }
        fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            assert_eq!(timeout, Some(Duration::from_millis(1)));
            self.waits += 1;
            self.steps.pop_front().map_or(Ok(()), |step| step(self.control))
        }
        fn set_mtu(&mut self, _: Instant, mtu: usize) {
            assert_eq!(mtu, 1280);
            self.told.push("mtu");
        }
        fn drain(&mut self, _: Instant) {
            self.told.push("drain");
        }
        fn abort_all(&mut self, _: Instant) {
            self.told.push("abort");
            self.live = 0;
        }
        fn live(&self) -> usize {
            self.live
        }
        fn summary(&self) -> String {
            String::new()
        }
    }

    fn play(finish_in: usize, steps: &[fn(&Control) -> io::Result<()>]) -> (io::Result<()>, Vec<&'static str>, usize) {
        let control = Control::default();
        let steps = steps.iter().copied().collect();
        let mut script = Script { control: &control, steps, live: 1, told: Vec::new(), waits: 0, finish_in };
        let result = run(&mut script, &control, Poll::Sleep, Clock);
        (result, script.told, script.waits)
    }

    fn drain(control: &Control) -> io::Result<()> {
        control.advance(Phase::Draining);
        Ok(())
    }

    #[test]
    fn a_drain_waits_for_the_last_connection() {
        let (result, told, waits) = play(3, &[drain]);
        assert!(result.is_ok());
        assert_eq!((told, waits), (vec!["drain"], 3));
    }

    #[test]
    fn a_change_of_the_mtu_is_told_once() {
        let change: fn(&Control) -> io::Result<()> = |c| {
            c.set_mtu(1280);
            Ok(())
        };
        let nothing: fn(&Control) -> io::Result<()> = |_| Ok(());
        let (result, told, _) = play(1, &[change, nothing, nothing, drain]);
        assert!(result.is_ok());
        assert_eq!(told, ["mtu", "drain"]);
    }

    #[test]
    fn an_abort_ends_a_drain_that_takes_too_long() {
        let abort: fn(&Control) -> io::Result<()> = |c| {
            c.advance(Phase::Aborting);
            c.advance(Phase::Draining);
            Ok(())
        };
        let (result, told, waits) = play(usize::MAX, &[drain, abort]);
        assert!(result.is_ok());
        assert_eq!((told, waits), (vec!["drain", "abort"], 2));
    }

    #[test]
    fn a_device_that_is_gone_ends_the_worker() {
        let (result, told, _) = play(1, &[|_| Err(io::ErrorKind::NotFound.into())]);
        assert!(result.is_err() && told.is_empty());
    }
}
