//! Starting, stopping, dying, and living beside the kernel on one address.

use crate::http::curl;
use crate::{CLIENT_LIMIT, Case, Scene, everywhere, special};
use anyhow::{Context, Result, bail, ensure};
use khamsin_stack::Instant;
use khamsin_tests::bed::{Bed, CLIENT_LINK, KERNEL_V4, KERNEL_V6, SERVER_LINK};
use khamsin_tests::command::{Running, run};
use khamsin_tests::deadline::wait_for;
use khamsin_tests::pages::Pages;
use khamsin_tests::rung::Rung;
use khamsin_tests::server::{Server, binary};
use libtest_mimic::Trial;
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case::new("stop_when_idle", &["curl"], everywhere, stop_when_idle),
    Case::new("drain", &["curl", "python3"], everywhere, drain),
    Case::new("kill_and_restart", &["curl", "wrk"], everywhere, kill_and_restart),
];

pub(crate) fn specials(refused: &Option<String>) -> Vec<Trial> {
    vec![
        special("usage_errors", &None, &[], usage_errors),
        special("a_rung_that_cannot_be", refused, &[], a_rung_that_cannot_be),
        special("auto_takes_the_highest_rung", refused, &["curl"], auto_takes_the_highest_rung),
        special("a_link_without_a_carrier", refused, &["curl"], a_link_without_a_carrier),
        special("an_interface_that_is_taken", refused, &["curl"], an_interface_that_is_taken),
        special("demo_without_privileges", refused, &["setpriv"], demo_without_privileges),
        special("echo_by_line", refused, &["python3"], echo_by_line),
        special("shared_address::af-xdp-native", refused, &["curl", "wrk"], || shared_address("native")),
        special("shared_address::af-xdp-generic", refused, &["curl", "wrk", "ethtool"], || shared_address("generic")),
    ]
}

/// Replaces the server of a scene by a new one with the same options; the old one has ended.
pub(crate) fn restart(scene: &mut Scene) -> Result<()> {
    scene.server = Server::on(scene.rung, &scene.bed, scene.pages.path())?;
    crate::address_host_side(scene.rung, &scene.bed)
}

/// With keep-alive connections open but idle, SIGTERM ends the server at once; the next start finds everything free.
fn stop_when_idle(scene: &mut Scene) -> Result<()> {
    let mut idle = scene.start_client("python3", &["-c", IDLE, scene.rung.v4()], None)?;
    idle.await_output("idle", CLIENT_LIMIT)?;
    scene.server.signal(Signal::TERM)?;
    let status = scene.server.wait(Duration::from_secs(5)).context("idle connections hold the drain up")?;
    ensure!(status.code() == Some(0), "exit code {:?}", status.code());
    idle.finish(CLIENT_LIMIT)?.ok().context("an idle connection gets an orderly end")?;
    restart(scene)?;
    curl(scene, &["-o", "/dev/null", &scene.url("/small")])?;
    Ok(())
}

/// One request, its answer, and then nothing until the server ends the connection: with a FIN, no RST.
const IDLE: &str = r#"
import socket, sys
s = socket.create_connection((sys.argv[1], 80), timeout=20)
s.sendall(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n")
got = s.recv(65536)
assert b" 200 " in got, got
print("idle", flush=True)
while part := s.recv(65536):
    got += part
"#;

/// SIGTERM during a transfer: it is finished, new connections are refused, the exit code is 0.
fn drain(scene: &mut Scene) -> Result<()> {
    let script = crate::script_path("http.py");
    let mut transfer = scene.start_client("python3", &["-B", &script, "drain", scene.rung.v4(), "80"], None)?;
    // The client takes a good second over the first half: the signal comes in the middle.
    transfer.await_output("begun", CLIENT_LIMIT)?;
    scene.server.signal(Signal::TERM)?;
    thread::sleep(Duration::from_millis(200));
    ensure!(scene.server.is_running()?, "the server did not wait for the transfer: {}", scene.server.log());
    let mut late = scene.bed.client().command("curl");
    late.args(["-sS", "--max-time", "1", &scene.url("/small")]);
    let late = run(late, CLIENT_LIMIT)?;
    ensure!(!late.status.success(), "a draining server took a new connection: {late}");
    let ran = transfer.finish(CLIENT_LIMIT)?.ok()?;
    let status = scene.server.wait(Duration::from_secs(11))?;
    ensure!(status.code() == Some(0), "exit code {:?} after a drain; client: {}", status.code(), ran.text());
    restart(scene)
}

/// `kill -9` under load: nothing that is left behind keeps the next start from serving within a second.
fn kill_and_restart(scene: &mut Scene) -> Result<()> {
    let load = scene.start_client("wrk", &["-t1", "-c32", "-d2s", &scene.url("/small")], None)?;
    thread::sleep(Duration::from_millis(500));
    scene.server.signal(Signal::KILL)?;
    scene.server.wait(Duration::from_secs(5))?;
    let began = now();
    restart(scene)?;
    wait_for("a served page", Duration::from_secs(10), || {
        let mut command = scene.bed.client().command("curl");
        command.args(["-sS", "--max-time", "1", &scene.url("/small")]);
        Ok(run(command, CLIENT_LIMIT)?.status.success().then_some(()))
    })?;
    let took = now().since(began);
    load.finish(CLIENT_LIMIT)?;
    ensure!(took < Duration::from_secs(1), "serving again only after {took:?}; log: {}", scene.server.log());
    Ok(())
}

fn now() -> Instant {
    khamsin_drivers::clock::Clock.now()
}

/// Exit code 2 and one sentence for what was typed wrongly; nothing on the standard output.
fn usage_errors() -> Result<()> {
    for line in [
        "",
        "serve",
        "frobnicate",
        "http --backend dpdk",
        "http --port 0",
        "serve --app ftp:21",
        "serve --app http:80 --app echo:80",
        "http --address 198.18.0.2",
        "http --backend af-xdp",
        "http --backend tap --trigger edge",
        "echo --root /tmp",
    ] {
        let mut command = Command::new(binary()?);
        command.args(line.split_whitespace());
        let ran = run(command, Duration::from_secs(10))?;
        ensure!(ran.status.code() == Some(2), "`khamsin {line}`: {ran}");
        ensure!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "`khamsin {line}`: {ran}");
    }
    Ok(())
}

fn options(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// What cannot be had ends with exit code 1 and a sentence that names the rung and the reason.
fn a_rung_that_cannot_be() -> Result<()> {
    let bed = Bed::veth(1)?;
    for (line, says) in [
        ("http --backend af-xdp --xdp-copy zero-copy --interface khs0 --address 198.18.0.2/24", "af-xdp-zero-copy"),
        ("http --backend af-packet --interface nothere0 --address 198.18.0.2/24", "nothere0"),
        ("http --require af-xdp-zero-copy --interface khs0 --address 198.18.0.2/24", "af-xdp-zero-copy"),
        ("http --backend epoll --address 198.18.9.9/24", "198.18.9.9"),
        ("http --backend epoll --root /not/there", "/not/there"),
    ] {
        let mut command = bed.server.command(&binary()?.to_string_lossy());
        command.args(line.split_whitespace());
        let ran = run(command, Duration::from_secs(20))?;
        ensure!(ran.status.code() == Some(1) && ran.stdout.is_empty(), "`khamsin {line}`: {ran}");
        ensure!(ran.stderr.contains(says), "`khamsin {line}` does not say {says}: {ran}");
    }
    Ok(())
}

/// `--backend auto` on veth: zero-copy is refused with a reason, native is taken.
fn auto_takes_the_highest_rung() -> Result<()> {
    let (bed, pages) = (Bed::veth(1)?, Pages::new()?);
    let mut line = options("http --interface khs0 --address 198.18.0.2/24 --root");
    line.push(pages.path().to_string_lossy().into_owned());
    let server = Server::start(&bed.server, &line)?;
    ensure!(server.ready.rung == "af-xdp-native", "{:?}; log: {}", server.ready, server.log());
    // What the server has said may still be on its way to us.
    wait_for("the reason why not a higher rung", Duration::from_secs(5), || {
        Ok(server.log().contains("af-xdp-zero-copy").then_some(()))
    })?;
    let got = bed.client().run("curl", &["-sS", "--max-time", "10", "http://198.18.0.2/small"], CLIENT_LIMIT)?;
    ensure!(got.stdout == pages.bytes("small")?, "another page");
    server.stop()
}

/// A server that is ready on a link whose other end is not says so, and serves as soon as it is.
fn a_link_without_a_carrier() -> Result<()> {
    let (bed, pages) = (Bed::veth(1)?, Pages::new()?);
    bed.client().ip(&["link", "set", CLIENT_LINK, "down"])?;
    let server = Server::on(Rung::XdpNative, &bed, pages.path())?;
    let said = |words| wait_for(words, Duration::from_secs(5), || Ok(server.log().contains(words).then_some(())));
    said("has no carrier")?;
    bed.client().ip(&["link", "set", CLIENT_LINK, "up"])?;
    said("is up again")?;
    let got = bed.client().run("curl", &["-sS", "--max-time", "10", "http://198.18.0.2/small"], CLIENT_LIMIT)?;
    ensure!(got.stdout == pages.bytes("small")?, "another page");
    server.stop()
}

/// A second server on the same interface says whose it is, and the first one goes on.
fn an_interface_that_is_taken() -> Result<()> {
    let (bed, pages) = (Bed::veth(1)?, Pages::new()?);
    let first = Server::on(Rung::XdpNative, &bed, pages.path())?;
    let mut command = bed.server.command(&binary()?.to_string_lossy());
    command.args("http --backend af-xdp --interface khs0 --address 198.18.0.9/24".split(' '));
    let ran = run(command, Duration::from_secs(30))?;
    ensure!(ran.status.code() == Some(1) && ran.stderr.contains("khs0"), "{ran}");
    bed.client().run("curl", &["-sS", "--max-time", "10", "http://198.18.0.2/small"], CLIENT_LIMIT)?;
    first.stop()
}

/// The first command of the README as a user without any privilege: no set-up, every byte verified, exit code 0.
fn demo_without_privileges() -> Result<()> {
    // The build folder may lie where nobody else looks.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("khamsin");
    fs::copy(binary()?, &copy)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&copy).args([
        "demo",
        "--seconds",
        "2",
    ]);
    let ran = run(command, Duration::from_secs(60))?.ok()?;
    let said = ran.text();
    let failures = said.lines().find_map(|l| l.strip_prefix("failures")).map(str::trim);
    ensure!(failures == Some("0") && said.contains("bytes verified") && said.contains("rung"), "{ran}");
    Ok(())
}

fn echo_by_line() -> Result<()> {
    let bed = Bed::veth(1)?;
    let mut line = options("echo --line");
    line.extend(Rung::XdpNative.options());
    let server = Server::start(&bed.server, &line)?;
    let script = crate::script_path("echo.py");
    bed.client().run("python3", &["-B", &script, "lines", "198.18.0.2", "7"], CLIENT_LIMIT)?;
    server.stop()
}

/// Without an address of its own khamsin takes its TCP ports and nothing else: a session to another port that was open
/// before lives on under load and after the end, new ones are made, echo requests are the kernel's.
fn shared_address(mode: &str) -> Result<()> {
    let (bed, pages) = (Bed::veth(1)?, Pages::new()?);
    if mode == "generic" {
        bed.client_segmentation(false)?;
    }
    let listener = bed.server.enter(|| TcpListener::bind((KERNEL_V4, 22)))??;
    thread::spawn(move || listener.incoming().flatten().for_each(|s| drop(thread::spawn(move || echo_back(s)))));
    let session = bed.client().enter(|| TcpStream::connect((KERNEL_V4, 22)))??;
    session.set_read_timeout(Some(Duration::from_secs(10)))?;
    say(&session, "before")?;

    let mut line =
        options(&format!("serve --app http:80 --backend af-xdp --xdp-mode {mode} --interface {SERVER_LINK} --root"));
    line.push(pages.path().to_string_lossy().into_owned());
    let server = Server::start(&bed.server, &line)?;
    ensure!(server.ready.addresses.iter().any(|a| a.to_string() == KERNEL_V4), "{:?}", server.ready);
    say(&session, "beside")?;
    let url = format!("http://{KERNEL_V4}/small");
    let got = bed.client().run("curl", &["-sS", "--max-time", "10", &url], CLIENT_LIMIT)?;
    ensure!(got.stdout == pages.bytes("small")?, "another page");
    let over_v6 = format!("http://[{KERNEL_V6}]/small");
    let got = bed.client().run("curl", &["-g", "-sS", "--max-time", "10", &over_v6], CLIENT_LIMIT)?;
    ensure!(got.stdout == pages.bytes("small")?, "another page over IPv6");
    let mut wrk = bed.client().command("wrk");
    wrk.args(["-t1", "-c16", "-d2s", &url]);
    let load = Running::start(wrk, None)?;
    for round in 0..50 {
        say(&session, &format!("under load, round {round}"))?;
        thread::sleep(Duration::from_millis(20));
    }
    let fresh = bed.client().enter(|| TcpStream::connect((KERNEL_V4, 22)))??;
    fresh.set_read_timeout(Some(Duration::from_secs(10)))?;
    say(&fresh, "a new session under load")?;
    for kernel in [KERNEL_V4, KERNEL_V6] {
        bed.client().run("ping", &["-c", "2", "-i", "0.05", "-W", "5", kernel], CLIENT_LIMIT)?;
    }
    let report = load.finish(CLIENT_LIMIT)?.ok()?.text();
    ensure!(!report.contains("Socket errors"), "{report}");
    server.stop()?;
    say(&session, "after")
}

fn echo_back(mut stream: TcpStream) {
    let mut piece = [0u8; 4096];
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        if stream.write_all(&piece[..n]).is_err() {
            return;
        }
    }
}

fn say(mut session: &TcpStream, words: &str) -> Result<()> {
    session.write_all(words.as_bytes()).with_context(|| format!("send `{words}`"))?;
    let mut back = vec![0; words.len()];
    session.read_exact(&mut back).with_context(|| format!("await `{words}`"))?;
    if back != words.as_bytes() {
        bail!("`{words}` came back as `{}`", String::from_utf8_lossy(&back));
    }
    Ok(())
}
