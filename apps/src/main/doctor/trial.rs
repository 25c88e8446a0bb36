//! Tries the rungs for real where it harms nobody: on a veth pair in a network namespace of a child's own.

use crate::apps::{Files, Recipe};
use crate::demo::{namespace, trial_options};
use crate::ladder::Prober;
use crate::open::Opener;
use crate::rung::Rung;
use khamsin::output::{note, say};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;

/// Set in the child that tries.
const TRIAL: &str = "KHAMSIN_RUNG_TRIAL";

/// Whether this process is such a child.
pub(crate) fn is_child() -> bool {
    std::env::var_os(TRIAL).is_some()
}

/// The body of such a child: starts a server on each rung, stops it, and prints a line for each.
pub(crate) fn child() -> ExitCode {
    let v6 = match namespace::enter().and_then(|()| namespace::furnish()) {
        Ok(v6) => v6,
        Err(reason) => {
            note(reason);
            return ExitCode::FAILURE;
        }
    };
    let told = Rung::ALL.into_iter().try_for_each(|rung| match attempt(rung, v6) {
        Ok(()) => say(format_args!("{rung} yes")),
        Err(reason) => say(format_args!("{rung} {}", reason.replace('\n', " "))),
    });
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn attempt(rung: Rung, v6: bool) -> Result<(), String> {
    let options = trial_options(rung, v6).map_err(|e| e.to_string())?;
    let files = Files::load(&options).map_err(|e| e.to_string())?;
    let recipe = Recipe::new(&options, &files);
    let (events, _inbox) = channel();
    let mut opener = Opener::new(&options, &recipe, &events).map_err(|e| e.to_string())?;
    opener.attempt(rung).map(|running| running.crew.stop())
}

/// What came of it: each rung, and why it could not be started. `None`: no namespace is to be had.
pub(crate) fn run() -> Option<Vec<(String, Option<String>)>> {
    let mut child = Command::new("/proc/self/exe");
    child.arg("doctor").env(TRIAL, "1").stdin(Stdio::null()).stderr(Stdio::null());
    let output = child.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().filter_map(read).collect())
}

/// `RUNG yes` or `RUNG REASON`.
fn read(line: &str) -> Option<(String, Option<String>)> {
    let (rung, said) = line.split_once(' ')?;
    Some((rung.to_owned(), (said != "yes").then(|| said.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_child_are_read() {
        assert_eq!(read("tap yes"), Some(("tap".into(), None)));
        assert_eq!(read("af-packet no ring: why"), Some(("af-packet".into(), Some("no ring: why".into()))));
        assert_eq!(read(""), None);
    }
}
