//! Running a program for a bounded time.

use crate::deadline::wait_for;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
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
    stdout: Output,
    stderr: Output,
}

/// What comes out of a pipe, while it comes.
struct Output {
    said: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn new(pipe: Option<impl Read + Send + 'static>) -> Output {
        let said = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&said);
        let reader = pipe.map(|mut pipe| {
            thread::spawn(move || {
                let mut piece = vec![0; 1 << 16];
                while let Ok(n @ 1..) = pipe.read(&mut piece) {
                    theirs.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..n]);
                }
            })
        });
        Output { said, reader }
    }

    fn so_far(&self) -> Vec<u8> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn all(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
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
        let (stdout, stderr) = (Output::new(child.stdout.take()), Output::new(child.stderr.take()));
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

    /// Waits until `words` stand somewhere in its standard output.
    ///
    /// # Errors
    /// They do not within `limit`, or it ended without them; with what it wrote to its standard error.
    pub fn await_output(&mut self, words: &str, limit: Duration) -> Result<()> {
        let shown = format!("`{words}` from `{}`", self.line);
        let ended = wait_for(&shown, limit, || {
            if String::from_utf8_lossy(&self.stdout.so_far()).contains(words) {
                return Ok(Some(false));
            }
            Ok(self.child.try_wait()?.is_some().then_some(true))
        })?;
        if ended && !String::from_utf8_lossy(&self.stdout.all()).contains(words) {
            bail!("no {shown}: {}", String::from_utf8_lossy(&self.stderr.all()));
        }
        Ok(())
    }

    /// What it has written to its standard error so far.
    pub fn errors_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
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
        let stdout = self.stdout.all();
        let stderr = String::from_utf8_lossy(&self.stderr.all()).into_owned();
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
