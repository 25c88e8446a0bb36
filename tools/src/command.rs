//! Running a program for a bounded time.

use crate::deadline::wait_for;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a program said, and how it ended.
pub struct Ran {
    /// The command line, for messages.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to its standard error.
    pub stderr: String,
}

impl Ran {
    /// The standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// This, if it ended with exit code 0.
    ///
    /// # Errors
    /// It did not: with everything it said.
    pub fn ok(self) -> Result<Ran> {
        if !self.status.success() {
            bail!("{self}");
        }
        Ok(self)
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, cut) = (self.text(), 2000);
        let shown: String = out.chars().take(cut).collect();
        write!(f, "`{}`: {}\nstdout: {shown}\nstderr: {}", self.line, self.status, self.stderr)
    }
}

/// A program that is running. It is killed, with its process group, when this is dropped before it ended.
pub struct Running {
    line: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Starts `command` in a process group of its own and writes `input` to it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(mut command: Command, input: Option<Vec<u8>>) -> Result<Running> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line = words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            // A program that ends without reading everything breaks the pipe; its exit code is what counts then.
            thread::spawn(move || drop(pipe.write_all(&input)));
        }
        let stdout = child.stdout.take().map(read_all);
        let stderr = child.stderr.take().map(read_all);
        Ok(Running { line, child, stdout, stderr })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to it.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(pid_of(&self.child), signal).with_context(|| format!("signal `{}`", self.line))
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// It did not within `limit`; it is killed then.
    pub fn finish(mut self, limit: Duration) -> Result<Ran> {
        let ended = wait_for("its end", limit, || Ok(self.child.try_wait()?));
        if ended.is_err() {
            self.kill();
        }
        let stdout = self.stdout.take().and_then(|t| t.join().ok()).unwrap_or_default();
        let stderr = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let line = self.line.clone();
        match ended {
            Ok(status) => Ok(Ran { line, status, stdout, stderr }),
            Err(e) => {
                let said: String = String::from_utf8_lossy(&stdout).chars().take(1000).collect();
                Err(e.context(format!("`{line}` hangs\nstdout: {said}\nstderr: {stderr}")))
            }
        }
    }

    fn kill(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = kill_process_group(pid_of(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The id of a child, as rustix wants it.
pub fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = pipe.read_to_end(&mut all);
        all
    })
}

/// Runs `command` to its end, without input.
///
/// # Errors
/// It cannot be started, or does not end within `limit`.
pub fn run(command: Command, limit: Duration) -> Result<Ran> {
    Running::start(command, None)?.finish(limit)
}

/// Whether a program of this name is on the path.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}
