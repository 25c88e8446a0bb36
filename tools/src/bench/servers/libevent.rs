//! The libevent server: compiled from `libevent.c` once in a run.

use anyhow::{Context, Result, anyhow, ensure};
use khamsin_tools::command::{is_installed, run};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

const SOURCE: &str = include_str!("libevent.c");

/// The program.
///
/// # Errors
/// There is no C compiler or no libevent: what to install.
pub(crate) fn program() -> Result<PathBuf> {
    // Kept until the process ends; the folder is in the place for temporary files.
    static PROGRAM: OnceLock<Result<(TempDir, PathBuf), String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| compile().map_err(|e| format!("{e:#}")));
    built.as_ref().map(|(_, path)| path.clone()).map_err(|e| anyhow!("{e}"))
}

/// Removes what [`program`] made; statics are not dropped.
pub(crate) fn remove() {
    if let Ok(path) = program()
        && let Some(folder) = path.parent()
    {
        let _ = std::fs::remove_dir_all(folder);
    }
}

fn compile() -> Result<(TempDir, PathBuf)> {
    ensure!(is_installed("cc"), "no C compiler to build the libevent server with (apt-get install gcc libc6-dev)");
    let folder = tempfile::Builder::new().prefix("khamsin-libevent-").tempdir()?;
    let (source, program) = (folder.path().join("libevent.c"), folder.path().join("libevent"));
    std::fs::write(&source, SOURCE)?;
    let mut command = Command::new("cc");
    command.args(["-O2", "-o"]).args([&program, &source]).args(["-levent"]);
    run(command, Duration::from_secs(60))?
        .ok()
        .context("the libevent server does not compile: apt-get install libevent-dev")?;
    Ok((folder, program))
}
