//! Packet scripts (`tests/scripts/*.pkt`), two tests each: `khamsin::NAME` against khamsin's stack in virtual time,
//! `parked::NAME` with connections parked whenever nothing happens, and
//! `linux::NAME::v4` and `v6` against the kernel of this machine over a TAP.
//!
//! A script that waits for a feature (`# pending:`) must fail until the feature is there, and one of which it is said that
//! Linux differs must fail there, so that neither note outlives its truth. `tests/scripts/README.md` describes the
//! notation. `-- --table` prints where the two differ; `-- --include-ignored` runs also what takes Linux long.

mod conformance;

use khamsin_tools::script::{Against, Family, Linux, Script, kernel_refusal, run_kernel, run_virtual};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Scripts wait most of their time, and each has a namespace to itself.
const THREADS: usize = 12;
/// Scripts that take longer than this against a kernel run only when asked for, microseconds.
const LONG_US: u64 = 8_000_000;

type Check = fn(&[Arc<Script>]) -> Result<(), String>;

/// What is written about the scripts.
const CHECKS: [(&str, Check); 3] = [
    ("conformance_names_what_is_there", conformance::check_page),
    ("linux_table_is_up_to_date", conformance::check_linux),
    ("scripts_read_back_as_they_are_written", reads_back),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// All scripts, or what is wrong with the first that is none.
fn scripts() -> Result<Vec<Arc<Script>>, String> {
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
        Ok(Arc::new(script))
    };
    paths.iter().map(read).collect()
}

/// What a tool writes is what was meant: `Display` reads back as the same script.
fn reads_back(scripts: &[Arc<Script>]) -> Result<(), String> {
    for script in scripts {
        let again = Script::parse(&script.file, &script.to_string()).map_err(|e| format!("written out: {e}"))?;
        let parts = |s: &Script| s.lines.iter().map(|l| (l.when.clone(), l.event.clone())).collect::<Vec<_>>();
        if again.header != script.header || parts(&again) != parts(script) {
            return Err(format!("{} written out reads as another script:\n{script}", script.file));
        }
    }
    Ok(())
}

/// The script's name: its file's, without folder and extension.
fn name(script: &Script) -> &str {
    let file = script.file.rsplit('/').next().unwrap_or(&script.file);
    file.strip_suffix(".pkt").unwrap_or(file)
}

fn in_virtual_time(script: &Script, parks: bool) -> Result<Completion, Failed> {
    let ran = run_virtual(script, parks);
    if let (true, Some(_)) = (parks, &script.header.parked) {
        return match ran {
            Err(_) => Ok(Completion::Completed),
            Ok(_) => Err(format!("{}: nothing differs where it is parked: take out `# parked:`", script.file).into()),
        };
    }
    match (&script.header.pending, ran) {
        (None, Ok(_)) => Ok(Completion::Completed),
        (None, Err(mismatch)) => Err(mismatch.to_string().into()),
        (Some(feature), Err(_)) => {
            println!("PENDING {}: {feature}", name(script));
            Ok(Completion::ignored_with(format!("pending: {feature}")))
        }
        (Some(feature), Ok(_)) => Err(format!("{}: it passes: take out `# pending: {feature}`", script.file).into()),
    }
}

fn against_linux(script: &Script, family: Family) -> Result<Completion, Failed> {
    if let Linux::NotRun(reason) = &script.header.linux {
        println!("SKIPPED linux::{}: {reason}", name(script));
        return Ok(Completion::ignored_with(format!("SKIPPED: {reason}")));
    }
    let ran = run_kernel(script, family).map_err(|e| format!("{e:#}"))?;
    match (&script.header.linux, ran) {
        (_, Against::Unclear) => {
            println!("SKIPPED {}: this machine is too busy to judge a kernel by the clock", name(script));
            Ok(Completion::ignored_with("SKIPPED: the machine is too busy"))
        }
        (Linux::Differs(reason), Against::Same(_)) => {
            Err(format!("{}: Linux does not differ: take out `# linux: differs — {reason}`", script.file).into())
        }
        (Linux::Same, Against::Different(mismatch)) => Err(mismatch.to_string().into()),
        _ => Ok(Completion::Completed),
    }
}

/// The trials of a script against the kernel.
fn kernel_trials(script: &Arc<Script>) -> Vec<Trial> {
    let long = script.shortest_us() > LONG_US;
    let trial = |family: &Family| {
        let (script, family) = (Arc::clone(script), *family);
        let name = format!("linux::{}::{family}", name(&script));
        Trial::ignorable_test(name, move || against_linux(&script, family)).with_ignored_flag(long)
    };
    script.header.families.iter().map(trial).collect()
}

/// Where Linux does something else, as a table for people.
fn table(scripts: &[Arc<Script>]) -> String {
    let mut text = "| script | clause | khamsin | Linux |\n|---|---|---|---|\n".to_owned();
    for script in scripts {
        if let Linux::Differs(reason) = &script.header.linux {
            let (clauses, why) = (&script.header.clauses, script.header.why.join(" "));
            let [why, reason] = [&why, reason].map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(text, "| `{}` | {clauses} | {why} | {reason} |", name(script));
        }
    }
    let same = scripts.iter().filter(|s| s.header.linux == Linux::Same).count();
    let _ = write!(text, "\nIn {same} scripts of {} both do the same.", scripts.len());
    text
}

fn main() -> ExitCode {
    let scripts = match scripts() {
        Ok(scripts) => scripts,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    if std::env::args().any(|argument| argument == "--table") {
        println!("{}", table(&scripts));
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let mut trials = Vec::new();
    for (name, check) in CHECKS {
        let scripts = scripts.clone();
        trials.push(Trial::test(name, move || check(&scripts).map_err(Failed::from)));
    }
    match kernel_refusal() {
        None => trials.extend(scripts.iter().flat_map(kernel_trials)),
        Some(reason) => trials.push(Trial::ignorable_test("linux", move || {
            println!("SKIPPED linux: {reason}");
            Ok(Completion::ignored_with(format!("SKIPPED: {reason}")))
        })),
    }
    // Behind what waits, so that nothing that computes runs beside a clock.
    for script in scripts {
        for (how, parks) in [("khamsin", false), ("parked", true)] {
            let (name, script) = (format!("{how}::{}", name(&script)), Arc::clone(&script));
            trials.push(Trial::ignorable_test(name, move || in_virtual_time(&script, parks)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
