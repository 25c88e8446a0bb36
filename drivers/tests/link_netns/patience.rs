//! Waiting for what the kernel does in its own time.

use khamsin_drivers::clock::Clock;
use std::time::Duration;

/// Whether `done` comes true, now or within `limit`. A child that another test forks at this moment holds every descriptor of this
/// process, closed here or not, until its exec; and what a veth hands over is dealt with in a soft interrupt, on a busy machine
/// by ksoftirqd when its turn comes, long after the call that sent it.
pub(crate) fn eventually(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Clock.now();
    while !done() {
        if Clock.now().since(start) > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
