//! Network namespaces that go away with the value that stands for them.

use crate::command::{Ran, run};
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

const IP_LIMIT: Duration = Duration::from_secs(20);

/// A network namespace of our own. Dropping it ends what still runs in it and deletes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace `name`, with its loopback up.
    ///
    /// # Errors
    /// What `ip` says: no privilege, or the name is taken.
    pub fn create(name: &str) -> Result<Netns> {
        ip(&["netns", "add", name])?;
        let netns = Netns { name: name.to_owned() };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip` with these arguments, inside.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, arguments: &[&str]) -> Result<Ran> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        ip(&all)
    }

    /// `program`, to be run inside.
    ///
    /// `ip netns exec` becomes the program, so the child's process id is the program's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `program` inside and wants exit code 0.
    ///
    /// # Errors
    /// What it says, or that it did not end in time.
    pub fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<Ran> {
        let mut command = self.command(program);
        command.args(arguments);
        run(command, limit)?.ok()
    }

    /// Sets a kernel parameter inside.
    ///
    /// # Errors
    /// There is no such parameter here.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let (path, value) = (format!("/proc/sys/{}", name.replace('.', "/")), value.to_owned());
        let shown = path.clone();
        self.enter(move || std::fs::write(path, value))?.with_context(|| format!("write {shown} in {}", self.name))
    }

    /// Does `work` on a thread that lives inside and waits for it.
    ///
    /// # Errors
    /// The thread cannot move here.
    ///
    /// # Panics
    /// If `work` does.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        match self.spawn(work)?.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts `work` on a thread that lives inside: the sockets it opens are this namespace's.
    ///
    /// # Errors
    /// The namespace is gone. That the thread cannot move there is what joining it says.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let home = File::open(format!("/run/netns/{}", self.name)).with_context(|| format!("open {}", self.name))?;
        Ok(thread::spawn(move || {
            move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        }))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = delete(&self.name);
    }
}

/// Ends what still runs in the namespace `name`, and deletes it.
///
/// # Errors
/// What `ip` says.
pub(crate) fn delete(name: &str) -> Result<()> {
    for pid in ip(&["netns", "pids", name])?.text().lines().filter_map(|l| l.trim().parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    ip(&["netns", "del", name]).map(drop)
}

fn ip(arguments: &[&str]) -> Result<Ran> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, IP_LIMIT)?.ok()
}
