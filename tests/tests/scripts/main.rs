//! Packet scripts (`tests/scripts/*.pkt`), one test each: against khamsin's stack in virtual time, and against the kernel
//! of this machine over a TAP.
//!
//! A script that waits for a feature (`# pending:`) must fail until the feature is there. `tests/scripts/README.md`
//! describes the notation.

use khamsin_tools::script::{Mismatch, Script, run_virtual};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// All scripts, or what is wrong with the first that is none.
fn scripts() -> Result<Vec<Script>, String> {
    let listed = fs::read_dir(folder()).map_err(|e| format!("list {}: {e}", folder().display()))?;
    let mut paths: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pkt"));
    paths.sort();
    let read = |path: &PathBuf| {
        let file = format!("tests/scripts/{}", path.file_name().unwrap_or_default().to_string_lossy());
        let text = fs::read_to_string(path).map_err(|e| format!("read {file}: {e}"))?;
        let script = Script::parse(&file, &text).map_err(|e| e.to_string())?;
        if script.header.why.is_empty() {
            return Err(format!("{file}:2: behind the clauses, a sentence that says why"));
        }
        Ok(script)
    };
    paths.iter().map(read).collect()
}

/// The script's name: its file's, without folder and extension.
fn name(script: &Script) -> &str {
    let file = script.file.rsplit('/').next().unwrap_or(&script.file);
    file.strip_suffix(".pkt").unwrap_or(file)
}

/// What became of a script whose header says that something is `awaited`.
fn awaited(script: &Script, what: &str, awaited: &str, failed: Result<(), Mismatch>) -> Result<Completion, Failed> {
    match failed {
        Err(_) => {
            println!("PENDING {}: {awaited}", name(script));
            Ok(Completion::ignored_with(format!("pending: {awaited}")))
        }
        Ok(()) => Err(format!("{}: it passes: take `# {what}: {awaited}` out", script.file).into()),
    }
}

fn in_virtual_time(script: &Script) -> Result<Completion, Failed> {
    let ran = run_virtual(script).map(drop).map_err(|mismatch| *mismatch);
    match &script.header.pending {
        Some(feature) => awaited(script, "pending", feature, ran),
        None => ran.map(|()| Completion::Completed).map_err(|mismatch| mismatch.to_string().into()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let scripts = match scripts() {
        Ok(scripts) => scripts,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials = Vec::new();
    for script in scripts {
        let name = format!("khamsin::{}", name(&script));
        trials.push(Trial::ignorable_test(name, move || in_virtual_time(&script)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
