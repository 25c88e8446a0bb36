//! Where a trace comes from: a file, a FIFO or standard input, in a form that libpcap opens.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::stdio::dup2_stdin;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Who writes to a FIFO is waited for without a word for so long, seconds.
const SILENCE_S: i64 = 1;

/// An open trace.
pub(super) struct Source {
    /// As long as this is open, [`Source::name`] names it.
    file: Option<File>,
    name: PathBuf,
}

impl Source {
    /// Opens `path`; `-` is standard input. A FIFO is waited for, and takes standard input's place; `waits` is called if that takes
    /// a while.
    pub(super) fn open(path: &Path, waits: impl FnOnce()) -> io::Result<Source> {
        let stdin = || PathBuf::from("-");
        if path == Path::new("-") {
            check(io::stdin().is_terminal())?;
            return Ok(Source { file: None, name: stdin() });
        }
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
        check(file.is_terminal())?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if kind.is_fifo() {
            wait(&file, waits)?;
            fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
            // By its name libpcap would open it a second time, when who wrote may be gone for good.
            dup2_stdin(&file)?;
            return Ok(Source { file: None, name: stdin() });
        }
        // libpcap's crate takes names that are UTF-8, and takes `-` for what it stands for. A descriptor has such a name.
        let name = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let name = if path.to_str().is_some() { path.to_owned() } else { name };
        Ok(Source { file: Some(file), name })
    }

    /// What libpcap opens.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// Its first bytes; `None`: it has fewer, or what is read from it is there only once.
    pub(super) fn head<const N: usize>(&self) -> Option<[u8; N]> {
        let file = self.file.as_ref().filter(|file| file.metadata().is_ok_and(|of| of.is_file()))?;
        let mut head = [0; N];
        file.read_exact_at(&mut head, 0).ok().map(|()| head)
    }
}

fn check(is_terminal: bool) -> io::Result<()> {
    if is_terminal { Err(io::Error::other("it is a terminal, and nobody types packets")) } else { Ok(()) }
}

/// Waits until something can be read from a FIFO, or all who wrote to it have gone.
fn wait(file: &File, waits: impl FnOnce()) -> io::Result<()> {
    let silence = Timespec { tv_sec: SILENCE_S, tv_nsec: 0 };
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    if poll(&mut fds, Some(&silence))? == 0 {
        waits();
        poll(&mut fds, None)?;
    }
    Ok(())
}
