//! Where a trace comes from: a file, a FIFO or standard input, in a form that libpcap opens.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

/// Who writes to a FIFO is waited for without a word for so long, seconds.
const SILENCE_S: i64 = 1;

/// Bytes of the header of a pcap file (draft-ietf-opsawg-pcap, section 4).
pub(super) const HEAD: usize = 24;

/// An open trace.
pub(super) struct Source {
    /// As long as this is open, [`Source::name`] names it.
    _file: File,
    name: PathBuf,
    head: Vec<u8>,
}

impl Source {
    /// Opens `path`; `-` is standard input. A FIFO is waited for; `waits` is called if that takes a while.
    pub(super) fn open(path: &Path, waits: impl FnOnce()) -> io::Result<Source> {
        if path == Path::new("-") {
            check(io::stdin().is_terminal())?;
            return Source::relayed(io::stdin().as_fd().try_clone_to_owned()?.into());
        }
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
        check(file.is_terminal())?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if kind.is_file() {
            let mut head = vec![0; HEAD];
            let len = file.read_at(&mut head, 0)?;
            head.truncate(len);
            // libpcap's crate takes names that are UTF-8, and takes `-` for what it stands for. A descriptor has such a name.
            let name = if path.to_str().is_some() { path.to_owned() } else { named(&file) };
            return Ok(Source { _file: file, name, head });
        }
        if kind.is_fifo() {
            wait(&file, waits)?;
        }
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        Source::relayed(file)
    }

    /// What can be read only once: its first bytes, and a pipe from which all of it comes.
    fn relayed(mut from: File) -> io::Result<Source> {
        let mut head = Vec::new();
        (&mut from).take(HEAD as u64).read_to_end(&mut head)?;
        let (file, to) = pipe_with(PipeFlags::CLOEXEC)?;
        let (file, mut to, first) = (File::from(file), File::from(to), head.clone());
        // It ends with its input, with libpcap, which may have enough of it, or with the process.
        let relay = move || to.write_all(&first).and_then(|()| io::copy(&mut from, &mut to));
        thread::Builder::new().name("relay".to_owned()).spawn(relay)?;
        Ok(Source { name: named(&file), _file: file, head })
    }

    /// What libpcap opens.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// Its first bytes: [`HEAD`] of them, or all that there are.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }
}

fn named(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
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
