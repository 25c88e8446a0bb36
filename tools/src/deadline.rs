//! Waiting that always ends.

use anyhow::{Result, bail};
use khamsin_drivers::clock::Clock;
use khamsin_stack::Instant;
use std::thread;
use std::time::Duration;

/// The point in real time at which a wait is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Deadline(Clock.now() + limit)
    }

    /// Whether it has come.
    pub fn is_over(self) -> bool {
        Clock.now() >= self.0
    }

    /// Time left, zero when it is over.
    pub fn left(self) -> Duration {
        self.0.since(Clock.now())
    }
}

/// Looks every few milliseconds until `look` finds something.
///
/// # Errors
/// What `look` says, or that `limit` is over without `what`.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if deadline.is_over() {
            bail!("waited {limit:?} for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
