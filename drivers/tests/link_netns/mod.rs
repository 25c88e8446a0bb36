//! A network namespace of a test's own, and threads that live in it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod patience;
pub mod peer;

use khamsin_drivers::link;
use patience::eventually;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Whether the calling thread's namespace has no such link, now or soon: it goes with its last descriptor.
pub fn gone(name: &str) -> bool {
    eventually(Duration::from_secs(5), || matches!(link::by_name(name), Err(link::Error::NoSuchLink { .. })))
}

/// A namespace called `kh…`, removed when dropped, also by a panic.
pub struct Netns {
    pub name: String,
}

impl Netns {
    /// A fresh namespace, or `None` and a line that says why where this machine does not let us make one.
    pub fn new(test: &str) -> Option<Netns> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("khp{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(done) if done.status.success() => Some(Netns { name }),
            Ok(done) => {
                println!("SKIPPED {test}: ip netns add: {}", String::from_utf8_lossy(&done.stderr).trim());
                None
            }
            Err(error) => {
                println!("SKIPPED {test}: cannot run ip (apt install iproute2): {error}");
                None
            }
        }
    }

    /// Moves the calling thread in; it is the thread's business to end there.
    pub fn enter(&self) {
        let file = self.file();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    pub fn file(&self) -> File {
        File::open(format!("/run/netns/{}", self.name)).unwrap()
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a command inside and returns what it printed; panics when it fails.
    pub fn command(&self, line: &[&str]) -> String {
        let done = Command::new("ip").args(["netns", "exec", &self.name]).args(line).output().unwrap();
        assert!(done.status.success(), "{line:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
