//! Every tool in front of a disk that is full, and of a reader that has gone.

use khamsin_tools::bed;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// Exit status, and what stands on standard error, with `out` for standard output.
fn run(program: &str, arguments: &[&str], out: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let output = command.output().expect("the program runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("Linux has it")
}

/// One sentence and 1 where the disk is full, 0 where the reader has gone, no panic where neither output is taken.
fn holds(program: &str, arguments: &[&str]) {
    let name = Path::new(program).file_name().expect("a program").to_string_lossy();
    let (code, said) = run(program, arguments, full().into());
    let last = said.lines().last().unwrap_or_default();
    let sentence = format!("{name}: standard output does not take what there is to say");
    assert!(code == Some(1) && last.starts_with(&sentence) && last.contains("make room"), "{name} {code:?}: {said}");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (code, said) = run(program, arguments, writer.into());
    assert!(code == Some(0) && !said.contains("panicked"), "{name} {code:?}: {said}");
    let mut both = Command::new(program);
    let status = both.args(arguments).stdout(full()).stderr(full()).status().expect("the program runs");
    assert_eq!(status.code(), Some(1), "{name}");
}

#[test]
#[cfg(feature = "traces")]
fn replay_is_no_panic() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/traces/link-ethernet.pcap");
    for arguments in [&[trace, "--list"][..], &[trace]] {
        holds(env!("CARGO_BIN_EXE_khamsin-replay"), arguments);
    }
    let folder = tempfile::tempdir().expect("a folder");
    holds(env!("CARGO_BIN_EXE_khamsin-replay"), &["stats", trace, "--out", &folder.path().to_string_lossy()]);
}

#[test]
fn sim_is_no_panic() {
    for arguments in [&["--seeds", "2"][..], &["--seed", "3"], &["--seed", "3", "-v"]] {
        holds(env!("CARGO_BIN_EXE_khamsin-sim"), arguments);
    }
}

#[test]
fn load_is_no_panic() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("echo://{}", listener.local_addr().expect("a port"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut stream, mut bytes) = (stream, [0; 64]);
                while let Ok(n @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    for json in [&[][..], &["--json", "-"]] {
        let arguments = [&[url.as_str(), "-c", "1", "-s", "0.2", "--warm-up", "0"][..], json].concat();
        holds(env!("CARGO_BIN_EXE_khamsin-load"), &arguments);
    }
}

/// Its table begins before anything is measured.
#[test]
fn bench_is_no_panic() {
    if let Some(reason) = bed::refusal() {
        println!("SKIPPED bench_is_no_panic: {reason}");
        return;
    }
    let (code, said) = run(env!("CARGO_BIN_EXE_khamsin-bench"), &["slow", "--rung", "none"], full().into());
    assert!(code == Some(1) && said.contains("make room") && !said.contains("panicked"), "{code:?}: {said}");
}
