//! `khamsin-replay` as its users see it: output, files and exit codes.
#![cfg(feature = "traces")]

use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

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
        (&[&sound, "--app", "sink"], 0, "2 as recorded in what was accepted (the answers are not compared)"),
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
        (&["/nowhere/at-all.pcap"], 1, "cannot be read: No such file or directory (os error 2); name a pcap"),
        (&["/"], 1, "is a directory; name a pcap"),
        (&[&sound, "--write", "/nowhere/at-all"], 1, "(os error 2); make room there, or name another place"),
        (&["stats", &sound, "--out", "/proc/nowhere"], 1, "(os error 2); make room there, or name another place"),
        (&["stats", &sound, "--most", "0"], 2, "0 is not in"),
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
        (&[&sound, "--live", "--interface", "lo", "--server", "x", "--source", "198.18.1.0/24"], 2, "an IP address"),
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
fn live_wants_servers_and_clients_of_the_same_families() {
    for (words, code, says) in [
        ("--server fd00::2 --source 198.18.1.0/24", 1, "no --source of the address family of --server fd00::2"),
        ("--server fd00::2 --source fd00::/64", 1, "lies in the range of --source"),
        ("--server fd00::2 --server [fd00::3]:80 --source fd00::1:0/112", 1, "of each address family"),
        ("--server fd00::2 --source 198.18.1.0/24 --source fd00::1:0/112", 1, "of each address family"),
        (
            "--server 198.18.0.2 --source 198.18.1.1/32 --flows 40000",
            1,
            "in --source, of which there are 1; give a larger",
        ),
        ("--server 198.18.0.2:x --source 198.18.1.0/24", 2, "[fd00::2]:80"),
        ("--server [fd00::2] --source fd00::1:0/7", 2, "fd00::1:0/112"),
    ] {
        let sound = trace("link-ethernet.pcap");
        let live = [&sound, "--live", "--interface", "lo"].into_iter().chain(words.split(' '));
        let output = replay(&live.collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(code), "{words}: {}", text(&output));
        assert!(text(&output).contains(says), "{words}: {}", text(&output));
    }
}

/// Where a trace comes from does not matter: a pipe, a FIFO with somebody who writes, a name that is no text.
#[test]
fn a_trace_may_come_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(trace("link-ethernet.pcap")).unwrap();
    let whole = |output: &Output| output.status.success() && text(output).contains("2 with a handshake");
    for name in ["-", "/dev/stdin"] {
        let output = piped(name, &bytes);
        assert!(whole(&output), "{name}: {}", text(&output));
    }
    let odd = folder.path().join(OsStr::from_bytes(b"tr\xff.pcap"));
    std::fs::write(&odd, &bytes).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_khamsin-replay")).arg(&odd).arg("--list").output().unwrap();
    assert!(whole(&output), "{}", text(&output));

    let fifo = fifo(folder.path());
    let (path, first) = (fifo.clone(), bytes.clone());
    let writer = thread::spawn(move || std::fs::write(path, first));
    let output = replay(&[&fifo, "--list"]);
    assert!(whole(&output) && output.stderr.is_empty(), "{}", text(&output));
    writer.join().unwrap().unwrap();

    // With nobody there it says what it waits for, and then has it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_khamsin-replay"));
    command.args([&fifo, "--list"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("nobody writes to the FIFO"), "{said}");
    std::fs::write(&fifo, &bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(whole(&output), "{}", text(&output));
}

/// `--list` of `bytes`, which come through a pipe.
fn piped(name: &str, bytes: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_khamsin-replay"));
    command.args([name, "--list"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let (mut stdin, bytes) = (child.stdin.take().expect("a pipe"), bytes.to_vec());
    // Who has enough of it reads no further.
    let writer = thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    output
}

/// What is wrong with a trace is said alike of a file, of what comes through a pipe, and of a part of a file.
#[test]
fn troubles_of_a_trace_are_told_wherever_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace").display().to_string();
    let of = |name: &str| std::fs::read(trace(name)).unwrap();
    let zero = [&of("damaged-zero-snaplen.pcap")[..], &[0; 1 << 20]].concat();
    for (bytes, says) in [
        (zero, "cut after 0 bytes"),
        (of("damaged-cut-header.pcap"), "cannot be read as a trace"),
        (of("damaged-text.pcap"), "cannot be read as a trace"),
        (of("damaged-no-tcp.pcap"), "no TCP flow"),
        (vec![], "cannot be read as a trace"),
        (b"\x1f\x8b\x08 and so on".to_vec(), "unpack it, as in `gzip -dc FILE | khamsin-replay -`"),
        (b"\x28\xb5\x2f\xfd".to_vec(), "`zstd -dc FILE"),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        for (name, output) in [(path.as_str(), replay(&[&path, "--list"])), ("-", piped("-", &bytes))] {
            assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
            assert!(text(&output).starts_with(&format!("khamsin-replay: {name} ")), "{}", text(&output));
            assert!(text(&output).contains(says) && text(&output).lines().count() == 1, "{}", text(&output));
        }
    }
    // A second interface behind the first: with another link type, and with another snapshot length.
    let sound = of("link-ethernet.pcapng");
    let len = |at: usize| u32::from_le_bytes(sound[at + 4..at + 8].try_into().unwrap()) as usize;
    let (first, behind) = (len(0), len(0) + len(len(0)));
    for (at, byte, says) in [(8, 101, "into files of their own"), (12, 7, "`editcap -F pcap FILE NEW.pcap`")] {
        let mut second = sound[first..behind].to_vec();
        second[at] = byte;
        std::fs::write(&path, [&sound[..behind], &second, &sound[behind..]].concat()).unwrap();
        let output = replay(&[&path, "--list"]);
        assert!(output.status.code() == Some(1) && text(&output).contains(says), "{}", text(&output));
    }

    let sound = of("link-ethernet.pcap");
    std::fs::write(&path, [&b"rubbish"[..], &sound].concat()).unwrap();
    let mut file = std::fs::File::open(&path).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(7)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_khamsin-replay")).args(["-", "--list"]).stdin(file).output().unwrap();
    assert!(output.status.success(), "behind what somebody else has read: {}", text(&output));
}

fn fifo(folder: &Path) -> String {
    let path = folder.join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO can be made");
    path.display().to_string()
}

/// Into a FIFO that somebody reads, and through standard output; a FIFO that nobody reads is said at once.
#[test]
fn the_conversation_may_go_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (fifo, file) = (fifo(folder.path()), folder.path().join("new.pcapng"));
    let sound = trace("link-ethernet.pcap");
    let output = replay(&[&sound, "--write", &fifo]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("nobody reads this FIFO"), "{}", text(&output));
    assert!(replay(&[&sound, "--write", &file.display().to_string()]).status.success());
    let written = std::fs::read(&file).unwrap();
    let path = fifo.clone();
    let reader = thread::spawn(move || std::fs::read(path));
    let mut output = replay(&[&sound, "--write", &fifo]);
    // Until its reader has come.
    while !output.status.success() && !reader.is_finished() {
        output = replay(&[&sound, "--write", &fifo]);
    }
    assert_eq!(reader.join().unwrap().unwrap(), written);
    let output = replay(&[&sound, "--write", "-"]);
    assert!(output.stdout == written && String::from_utf8_lossy(&output.stderr).contains("2 as recorded"));
}

/// Rounds that would begin when no clock counts any more.
#[test]
fn a_replay_of_a_thousand_years_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.pcap").display().to_string();
    let mut bytes = std::fs::read(trace("link-ethernet.pcap")).unwrap();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 24;
    while at < bytes.len() {
        // What comes behind the middle comes much later.
        let seconds = word(&bytes, at) + if at > bytes.len() / 2 { 1000 } else { 0 };
        bytes[at..at + 4].copy_from_slice(&seconds.to_le_bytes());
        at += 16 + word(&bytes, at + 8) as usize;
    }
    std::fs::write(&path, bytes).unwrap();
    let long = ["--loop", "100000", "--speed", "0.001"];
    let live = "--live --interface lo --server 198.18.0.2 --source 198.18.1.0/24".split(' ');
    for more in [vec![], live.collect()] {
        let output = replay(&[&[path.as_str()], &long[..], &more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("fewer rounds"), "{}", text(&output));
    }
}

/// The pictures of what comes through a pipe are called after nothing that an option could be.
#[test]
fn pictures_of_standard_input_have_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_khamsin-replay"));
    let sound = std::fs::File::open(trace("link-ethernet.pcap")).unwrap();
    let output = command.args(["stats", "-"]).current_dir(folder.path()).stdin(sound).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "./trace-flow-1.svg\n./trace-flow-2.svg\n");
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
    assert!(std::fs::read_to_string(&drawn[0]).unwrap().contains("throughput, "));
}
