//! The command line as a contract: the real binary on kernel sockets of 127.0.0.1, which need no privilege.

#![allow(clippy::unwrap_used)] // The whole file is a test; helpers fail it where they stand.

use khamsin_drivers::clock::Clock;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// Nothing here takes as long unless it is broken.
const LIMIT: Duration = Duration::from_secs(10);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn khamsin(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_khamsin"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = khamsin(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A port for a server that is about to start. It stays ours as long as this process lives, by a socket that is bound and never
/// listens: the kernel gives the port to nobody who asks for just any, and a server that sets SO_REUSEADDR may listen on it.
fn free_port() -> u16 {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let name = SocketAddrV4::try_from(getsockname(&socket).unwrap()).unwrap();
    std::mem::forget(socket);
    name.port()
}

/// A server that has said it is ready. Killed when dropped.
struct Server {
    child: Child,
    ready: String,
    /// Whatever follows the ready line on stdout: must stay empty.
    rest: JoinHandle<String>,
    log: JoinHandle<String>,
}

struct Ended {
    status: ExitStatus,
    log: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let mut child = khamsin(arguments).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let rest = std::thread::spawn(move || {
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).unwrap();
            rest
        });
        if ready.is_empty() {
            let status = child.wait().unwrap();
            panic!("{arguments:?} ended with {status} before it was ready: {}", log.join().unwrap());
        }
        Server { child, ready, rest, log }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end that a signal has begun.
    fn end(mut self) -> Ended {
        let until = Clock.now() + LIMIT;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Clock.now() > until => {
                    self.child.kill().unwrap();
                    panic!("still there {LIMIT:?} after a signal to stop");
                }
                None => sleep(Duration::from_millis(5)),
            }
        };
        assert_eq!(self.rest.join().unwrap(), "", "stdout holds the ready line and nothing else");
        Ended { status, log: self.log.join().unwrap() }
    }

    fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.end()
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends `request` and returns everything until the end of the answer's stream.
fn ask(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until nobody listens on `port` any more: the drain has begun.
fn wait_for_refusal(port: u16) {
    let until = Clock.now() + LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
        assert!(Clock.now() < until, "still accepting {LIMIT:?} after SIGTERM");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn http_says_that_it_is_ready_serves_and_ends_with_0() {
    let port = free_port();
    let server = Server::start(&["http", "--backend", "epoll", "--port", &port.to_string()]);
    let expected =
        format!("khamsin ready rung=epoll address=127.0.0.1 listen=http:{port} url=http://127.0.0.1:{port}/\n");
    assert_eq!(server.ready, expected);
    let answer = ask(port, GET);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("<h1>khamsin</h1>"), "{answer}");
    let ended = server.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    for rung in ["af-xdp-zero-copy", "af-xdp-native", "af-xdp-generic", "af-packet", "tap"] {
        assert!(ended.log.contains(&format!("{rung} refused: excluded by --backend epoll")), "{}", ended.log);
    }
}

#[test]
fn both_applications_share_a_loop() {
    for (workers, trigger, poll) in [("1", "level", "sleep"), ("2", "edge", "adaptive"), ("1", "edge", "busy")] {
        let (web, echo) = (free_port(), free_port());
        let apps = [format!("http:{web}"), format!("echo:{echo}")];
        let more = ["--line", "--workers", workers, "--trigger", trigger, "--poll", poll];
        let server = Server::start(
            &[&["serve", "--app", &apps[0], "--app", &apps[1], "--backend", "epoll"], &more[..]].concat(),
        );
        assert!(server.ready.contains(&format!(" listen=http:{web},echo:{echo} ")), "{}", server.ready);
        for _ in 0..8 {
            assert!(ask(web, GET).starts_with("HTTP/1.1 200 OK\r\n"));
            let mut stream = connect(echo);
            stream.write_all(b"hello\nworld\n").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            assert_eq!(said, "You said: hello\nYou said: world\n");
        }
        assert_eq!(server.stop().status.code(), Some(0));
    }
}

#[test]
fn a_request_in_flight_is_finished_before_the_end() {
    let port = free_port();
    let server = Server::start(&["http", "--backend", "epoll", "--port", &port.to_string()]);
    let mut stream = connect(port);
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234").unwrap();
    // The first half is in the server's hands once it comes back.
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    // timeout(1) and others tell the same wish twice.
    server.signal(Signal::TERM);
    server.signal(Signal::TERM);
    wait_for_refusal(port);
    stream.write_all(b"56789").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\n0123456789"), "{answer}");
    // A server that closes lingers until its peer closes too.
    drop(stream);
    assert_eq!(server.end().status.code(), Some(0));
}

#[test]
fn the_drain_time_ends_what_does_not_end_by_itself() {
    let port = free_port();
    let arguments = ["http", "--backend", "epoll", "--port", &port.to_string(), "--drain", "1"];
    let server = Server::start(&arguments);
    let mut stuck = connect(port);
    stuck.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0").unwrap();
    stuck.read_exact(&mut [0; 1]).unwrap();
    let start = Clock.now();
    let ended = server.stop();
    let took = Clock.now().since(start);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert!(took >= Duration::from_secs(1) && ended.log.contains("drain time is over"), "{took:?} {}", ended.log);
}

#[test]
fn a_second_signal_ends_at_once() {
    let port = free_port();
    let arguments = ["http", "--backend", "epoll", "--port", &port.to_string(), "--drain", "3600"];
    let server = Server::start(&arguments);
    let mut stuck = connect(port);
    stuck.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0").unwrap();
    stuck.read_exact(&mut [0; 1]).unwrap();
    server.signal(Signal::TERM);
    wait_for_refusal(port);
    // A repetition within a moment is the same wish; after that it is a second one.
    sleep(Duration::from_millis(300));
    server.signal(Signal::INT);
    let ended = server.end();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.log.contains("second signal"), "{}", ended.log);
}

#[test]
fn sighup_serves_what_has_changed() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("index.html"), "first").unwrap();
    let port = free_port();
    let folder = root.path().to_str().unwrap();
    let arguments = ["http", "--backend", "epoll", "--port", &port.to_string(), "--root", folder, "--reload", "0"];
    let server = Server::start(&arguments);
    assert!(ask(port, GET).ends_with("\r\n\r\nfirst"));
    fs::write(root.path().join("index.html"), "second").unwrap();
    server.signal(Signal::HUP);
    let until = Clock.now() + LIMIT;
    while !ask(port, GET).ends_with("\r\n\r\nsecond") {
        assert!(Clock.now() < until, "the change is not served {LIMIT:?} after SIGHUP");
        sleep(Duration::from_millis(5));
    }
    let ended = server.stop();
    assert!(ended.status.success() && ended.log.contains("reloading index.html (6 bytes)"), "{}", ended.log);
}

#[test]
fn a_wrong_command_line_is_2_and_one_sentence() {
    for (arguments, says) in [
        (&["http", "--line"][..], "--line"),
        (&["echo", "--root", "/"], "--root"),
        (&["serve"], "--app"),
        (&["serve", "--app", "http"], "NAME:PORT"),
        (&["serve", "--app", "http:80", "--port", "80"], "--port"),
        (&["http", "--backend", "netmap"], "netmap"),
        (&["http", "--backend", "af-xdp"], "--interface"),
        (&["http", "--address", "198.18.0.2"], "IP/LEN"),
        (&["http", "--workers", "0"], "0"),
        (&["http", "--require", "af-packet", "--backend", "tap"], "--require"),
        (&["http", "--capture-filter", "tcp"], "--capture"),
        (&["http", "--backend", "epoll", "--capture", "x.pcapng"], "tcpdump"),
        (&["top"], "top"),
        #[cfg(not(feature = "capture-filter"))]
        (
            &["http", "--backend", "tap", "--capture", "x.pcapng", "--capture-filter", "tcp port 80"],
            "cargo build --release --features capture-filter",
        ),
        #[cfg(feature = "capture-filter")]
        (&["http", "--backend", "tap", "--capture", "x.pcapng", "--capture-filter", "tcp prot 80"], "pcap-filter(7)"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("khamsin: ") && stderr.contains(says), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
}

#[test]
fn what_cannot_be_had_is_1_and_a_sentence() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, says) in [
        (&["http", "--backend", "epoll", "--port", &port][..], "in use"),
        (&["http", "--backend", "epoll", "--root", "/nonexistent"], "/nonexistent"),
        (&["http", "--interface", "kh-none"], "kh-none"),
        (&["http", "--backend", "epoll", "--address", "198.19.255.254/24"], "198.19.255.254"),
        (&["doctor", "--interface", "kh-none"], "kh-none"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (1, ""), "{arguments:?}: {stderr}");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("khamsin: ") && last.contains(says), "{arguments:?}: {stderr}");
        assert!(last.matches("(os error").count() < 2, "the cause is told twice: {stderr}");
    }
}

#[test]
fn the_log_says_more_when_it_is_asked_to() {
    let log = |level: &str| {
        let mut command = khamsin(&["http", "--backend", "epoll", "--root", "/nonexistent"]);
        String::from_utf8(command.env("KHAMSIN_LOG", level).output().unwrap().stderr).unwrap()
    };
    assert!(log("debug").contains("DEBUG") && !log("info").contains("DEBUG"), "{}", log("debug"));
}

#[test]
fn help_and_version_are_0() {
    for arguments in [&["--help"][..], &["--version"], &["http", "--help"], &["doctor", "--help"]] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(stdout.contains("khamsin"));
    }
}

#[test]
fn doctor_tells_what_connections_cost() {
    let (code, stdout, stderr) = run(&["doctor", "--cost"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    for part in ["parked connections, IPv4", "flow table", "receive buffers", "TIME-WAIT"] {
        let row = stdout.lines().find(|line| line.starts_with(part)).unwrap_or_else(|| panic!("{part}: {stdout}"));
        let columns: Vec<f64> = row[40..].split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert!(columns.len() == 5 && columns[1..].is_sorted() && columns[1] > 0.0, "{row}");
    }
    assert!(stdout.contains("an idle connection uses 80 B over IPv4 and 104 B over IPv6"), "{stdout}");
}

#[test]
fn doctor_judges_every_rung() {
    let (code, stdout, stderr) = run(&["doctor", "--interface", "lo"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    for rung in ["af-xdp-zero-copy", "af-xdp-native", "af-xdp-generic", "af-packet", "tap", "epoll"] {
        let verdict = stdout.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(rung));
        let verdict = verdict.unwrap_or_else(|| panic!("nothing on {rung}: {stdout}")).trim_start();
        assert!(verdict.starts_with("yes") || verdict.starts_with("no"), "{rung}: {stdout}");
    }
}

#[test]
fn the_demo_verifies_every_byte_wherever_it_runs() {
    let (code, stdout, stderr) = run(&["demo", "--seconds", "1"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.starts_with("rung ") && stdout.contains("\nfailures            0"), "{stdout}{stderr}");
    assert!(stderr.contains("khamsin ready rung="), "{stderr}");
}

/// A disk that is full is a sentence, a reader that has gone is none, and neither is a panic.
#[test]
fn output_that_nobody_takes_is_no_panic() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&["doctor", "--cost"][..], &["doctor", "--interface", "lo"], &["demo", "--seconds", "1"]] {
        let Output { status, stderr, .. } = khamsin(arguments).stdout(full()).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        let last = said.lines().last().unwrap_or_default();
        assert!(status.code() == Some(1) && last.contains("standard output does not take"), "{arguments:?}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let Output { status, stderr, .. } = khamsin(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(0) && !said.contains("panicked"), "{arguments:?}: {said}");
        let status = khamsin(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}

/// Whose log goes to a disk that is full serves on.
#[test]
fn a_log_that_nobody_takes_does_not_end_the_server() {
    let port = free_port();
    let mut command = khamsin(&["http", "--backend", "epoll", "--port", &port.to_string()]);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut child = command.stderr(full).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.starts_with("khamsin ready"), "{ready}");
    assert!(ask(port, GET).starts_with("HTTP/1.1 200 OK"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}
