//! What programs write on standard output and standard error.
//!
//! `println!` and `eprintln!` panic where a disk is full or a reader has gone, and `| head` is enough for that. The programs
//! here and the tools say everything through this module.

use std::fmt::Display;
use std::io::{self, ErrorKind, StdoutLock, Write};

/// Standard output takes no more.
#[derive(Debug, thiserror::Error)]
#[error("standard output does not take what there is to say ({0}); make room for it or send it elsewhere")]
pub struct Unsaid(io::Error);

/// A line on standard output. Whoever reads no further has what was wanted.
///
/// # Errors
/// It cannot be written.
pub fn say(text: impl Display) -> Result<(), Unsaid> {
    with(|out| writeln!(out, "{text}"))
}

/// Lets `write` write to standard output, as [`say`] does: more than a line, or piece by piece.
///
/// # Errors
/// It cannot be written.
pub fn with(write: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>) -> Result<(), Unsaid> {
    let mut out = io::stdout().lock();
    heard(write(&mut out).and_then(|()| out.flush()))
}

fn heard(written: io::Result<()>) -> Result<(), Unsaid> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Unsaid),
    }
}

/// A line on standard error. If it cannot be written, nobody is left who could be told.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
        let of = |kind: ErrorKind| heard(Err(kind.into()));
        assert!(heard(Ok(())).is_ok() && of(ErrorKind::BrokenPipe).is_ok());
        let said = of(ErrorKind::StorageFull).unwrap_err().to_string();
        assert!(said.starts_with("standard output ") && said.contains("make room"), "{said}");
    }
}
