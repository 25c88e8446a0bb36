//! Signals as events of the main thread.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// SIGTERM or SIGINT: drain; the second time: abort.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Signals that are caught, and wait until somebody asks for them.
pub(crate) struct Caught(Signals);

/// Catches SIGTERM, SIGINT and SIGHUP from now on. SIGXFSZ, which ends a process that lets a file grow beyond `ulimit -f`,
/// does no longer: the write says so itself, and a log or a capture is no reason to stop serving.
///
/// # Errors
/// The kernel's own.
pub(crate) fn catch() -> io::Result<Caught> {
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(Caught(Signals::new([SIGTERM, SIGINT, SIGHUP])?))
}

impl Caught {
    /// Calls `tell` for each signal, those that came before included, from a thread of its own that inherits what the
    /// calling thread may do.
    ///
    /// # Errors
    /// No thread is to be had.
    pub(crate) fn forward(self, tell: impl Fn(Wish) + Send + 'static) -> io::Result<()> {
        let Caught(mut signals) = self;
        let body = move || {
            for signal in signals.forever() {
                tell(if signal == SIGHUP { Wish::Reload } else { Wish::Stop });
            }
        };
        std::thread::Builder::new().name("khamsin-signals".into()).spawn(body).map(drop)
    }
}
