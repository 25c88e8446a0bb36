//! `cost`: counts the instructions of an echo under callgrind, and the bytes of an idle connection, and holds them to the
//! committed figures.
//!
//!     cost              all cases, against tests/cost.json; exit code 1 if one costs more than 2 % more
//!     cost --write      the same, and the figures become the committed ones
//!     cost run CASE N   what callgrind watches: N echoes of a case
//!     cost idle N       what is measured for N idle connections: bytes for each
#![allow(missing_docs)]

use anyhow::{Context, Result, bail, ensure};
use khamsin_tests::cost::budget::{Budget, judge};
use khamsin_tests::cost::counted::Bench;
use khamsin_tests::cost::idle::{self, HELD, IDLE};
use khamsin_tests::cost::{CASES, Case, Work};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Enough that what happens once in a while weighs what it should.
const ECHOES: usize = 20_000;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => gate(false),
        ["--write"] => gate(true),
        ["run", case, echoes] => {
            let case = Case::of_name(case).with_context(|| format!("there is no case {case}"))?;
            let (mut bench, count) = (Bench::new(&case)?, echoes.parse()?);
            let done = match case.work {
                Work::Echo => bench.run(count)?,
                Work::Connection => bench.run_connections(&case, count)?,
                Work::Rest => bail!("connections at rest do nothing to be counted"),
            };
            println!("{done}");
            Ok(ExitCode::SUCCESS)
        }
        ["idle", connections] => {
            println!("{}", idle::bytes_each(connections.parse()?)?);
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("usage: cost [--write] | cost run CASE ECHOES | cost idle CONNECTIONS"),
    }
}

fn gate(write: bool) -> Result<ExitCode> {
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        println!("SKIPPED cost: valgrind does not run ({error}); install it to count instructions");
        return Ok(ExitCode::SUCCESS);
    }
    let mut measured = BTreeMap::new();
    for case in CASES {
        let figure = count(&case)?;
        println!("{:24} {figure:8.1} instructions for each {}", case.name, case.work.one());
        measured.insert(case.name.to_owned(), figure);
    }
    let bytes = idle_bytes()?;
    println!("{IDLE:24} {bytes:8.1} bytes for each of {HELD} idle connections");
    measured.insert(IDLE.to_owned(), bytes);
    let (small, large) = (measured["echo-1k"], measured["echo-100k"]);
    println!("100k connections over 1k: {:.3}", large / small);
    let compiler = compiler()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cost.json");
    let mut budget = Budget::read(&path).unwrap_or_default();
    if write {
        budget.replace(&path, &compiler, measured)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(committed) = budget.of(&compiler) else {
        println!("SKIPPED cost: no figures for {compiler} in {}; `cost --write` makes them", path.display());
        return Ok(ExitCode::SUCCESS);
    };
    let wrong = judge(committed, &measured);
    wrong.iter().for_each(|sentence| println!("{sentence}"));
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Instructions for each echo of `case`.
fn count(case: &Case) -> Result<f64> {
    let out = tempfile::NamedTempFile::new()?.into_temp_path();
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_turn*", "--toggle-collect=*uncounted_*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["run", case.name, &ECHOES.to_string()])
        .output()
        .context("valgrind does not start")?;
    ensure!(run.status.success(), "{} under valgrind: {}", case.name, String::from_utf8_lossy(&run.stderr));
    let echoes: f64 =
        String::from_utf8_lossy(&run.stdout).trim().parse().context("the run does not say how many echoes")?;
    let profile = std::fs::read_to_string(&out)?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let total: f64 = total.context("callgrind wrote no total")?.trim().parse()?;
    ensure!(total > 0.0, "callgrind counted nothing: the function that it was to watch is not there");
    Ok(total / echoes)
}

/// Bytes of an idle connection, in a process that has nothing else.
fn idle_bytes() -> Result<f64> {
    let run = Command::new(std::env::current_exe()?).args(["idle", &HELD.to_string()]).output()?;
    ensure!(run.status.success(), "idle connections: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).trim().parse().context("the run does not say how many bytes")
}

/// As `rustc --version` says, without commit and date.
fn compiler() -> Result<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let out = Command::new(rustc).arg("--version").output().context("rustc does not run")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}
