//! `khamsin-replay` as its users see it: output, files and exit codes.
#![cfg(feature = "traces")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn replay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_khamsin-replay")).args(arguments).output().expect("the program runs")
}

fn trace(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces").join(name).display().to_string()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Neither by its name nor by another.
#[test]
fn the_trace_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    let names = ["one.pcap", "hard.pcap", "soft.pcap"].map(|name| dir.path().join(name).display().to_string());
    std::fs::copy(trace("link-ethernet.pcap"), &names[0]).expect("copied");
    std::fs::hard_link(&names[0], &names[1]).expect("linked");
    std::os::unix::fs::symlink(&names[0], &names[2]).expect("linked");
    let before = std::fs::read(&names[0]).expect("read");
    for name in &names {
        let output = replay(&[&names[0], "--write", name]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
        assert!(text(&output).contains("name another file"), "{name}: {}", text(&output));
    }
    assert_eq!(std::fs::read(&names[0]).expect("read"), before);
}

#[test]
fn exit_codes_say_what_came_of_it() {
    let sound = trace("link-ethernet.pcap");
    // Retransmissions that the recorded server had no need of.
    let different = trace("trouble-loss.pcap");
    let damaged = trace("damaged-cut-packet.pcap");
    let cases: &[(&[&str], i32, &str)] = &[
        (&[&sound, "--list"], 0, "2 with a handshake"),
        (&[&sound, "--strict"], 0, "2 as recorded"),
        (&[&sound, "--strict", "--fast", "--flows", "3", "--loop", "2"], 0, "12 as recorded"),
        (&[&sound, "--app", "http"], 0, "2 replayed"),
        (&[&sound, "--app", "echo", "--only", "2"], 0, "1 replayed"),
        (&[&sound, "--app", "sink"], 0, "2 replayed"),
        (&[&different], 0, "sent 2 segments again"),
        (&[&different, "--strict"], 0, "longer than the stack's timers wait"),
        (&[&different, "--strict", "--fast"], 1, "sent 5 segments again"),
        (&[&sound, "--strict", "--app", "echo"], 1, "byte 0 of the stack's text is another"),
        (&[&sound, "--app", "http", "--root", "/nowhere/at-all"], 1, "it cannot be read"),
        (&[&damaged, "--list"], 1, "packet 9 cannot be read"),
        (&[&damaged], 1, "1 as recorded"),
        (&[&trace("damaged-empty.pcap")], 1, "cannot be read as a trace"),
        (&[&trace("damaged-zero-snaplen.pcap")], 1, "cut after 0 bytes"),
        (&[&trace("damaged-no-tcp.pcap")], 1, "no TCP"),
        (&[&trace("damaged-link-type.pcap")], 1, "IEEE802_11"),
        (&["/nowhere/at-all.pcap"], 1, "cannot be read"),
        (&[&sound, "--only", "3"], 1, "flows 1 to 2"),
        (&[&sound, "--flows", "200000", "--loop", "200000"], 1, "ask for fewer"),
        (&["stats", &trace("damaged-empty.pcap")], 1, "cannot be read as a trace"),
        (&[], 2, "TRACE"),
        (&[&sound, "--speed", "0"], 2, "between"),
        (&[&sound, "--live"], 2, "--interface"),
        (
            &[&sound, "--live", "--interface", "khnone0", "--server", "198.18.0.2", "--source", "198.18.1.0/24"],
            1,
            "khnone0",
        ),
        (&[&sound, "--live", "--interface", "lo", "--server", "x", "--source", "198.18.1.0/24"], 2, "IPv4 address"),
        (
            &[
                &trace("link-ipv6.pcap"),
                "--live",
                "--interface",
                "lo",
                "--server",
                "198.18.0.2",
                "--source",
                "198.18.1.0/24",
            ],
            1,
            "flow 1: it is IPv6",
        ),
    ];
    for (arguments, code, words) in cases {
        let output = replay(arguments);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
}

#[test]
fn what_is_written_can_be_read_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (written, pictures) = (path("new.pcapng"), path("pictures"));
    let output = replay(&[&trace("link-cooked2.pcap"), "--write", &written]);
    assert!(output.status.success(), "{}", text(&output));
    let output = replay(&[&written, "--strict"]);
    assert!(output.status.success() && text(&output).contains("2 as recorded"), "{}", text(&output));
    let output = replay(&["stats", &written, "--out", &pictures]);
    assert!(output.status.success(), "{}", text(&output));
    let drawn: Vec<PathBuf> = std::fs::read_dir(&pictures).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(drawn.len(), 2);
    assert!(std::fs::read_to_string(&drawn[0]).unwrap().contains("throughput, Mbit/s"));
}
