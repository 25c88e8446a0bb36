//! Connections at rest: real clients that say nothing for longer than it takes to be parked, and then go on.

use crate::generator::{load, words};
use crate::{CLIENT_LIMIT, Case, Scene, everywhere, life};
use anyhow::{Context, Result, ensure};
use khamsin_tests::command::Ran;
use khamsin_tests::server::Server;
use rustix::process::Signal;
use std::fs;
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case::new("pauses", &["curl", "nc", "sh"], everywhere, pauses),
    Case::new("idle_many", &[], everywhere, idle_many),
    Case::new("idle_core", &["curl"], everywhere, idle_core),
];

/// What nc is given, with pauses of more than two seconds: the limit is one.
const TYPED: &str = r#"(printf %s abc; sleep 2.3; printf %s def; sleep 2.3; printf %s ghi) | nc -N -w 20 "$0" 7"#;

/// curl on one connection with two seconds between requests, and somebody who types into nc: every byte comes back, and with
/// a stack of our own they were parked and woken by that.
fn pauses(scene: &mut Scene) -> Result<()> {
    let (url, v4, v6) = (scene.url("/small"), scene.rung.v4(), scene.rung.v6());
    // One transfer in two seconds.
    let arguments = ["-sS", "--fail", "--max-time", "40", "--rate", "30/m", "-w", "%{num_connects}\n"];
    let each = ["-o", "/dev/null", url.as_str()];
    let fetches: Vec<&str> = arguments.into_iter().chain([each; 3].into_iter().flatten()).collect();
    let curl = scene.start_client("curl", &fetches, None)?;
    let typed = [v4, v6].map(|address| scene.start_client("sh", &["-c", TYPED, address], None));
    let ok = |ran: Ran| -> Result<String> { Ok(ran.ok()?.text()) };
    let connects = ok(curl.finish(CLIENT_LIMIT)?)?;
    ensure!(connects == "1\n0\n0\n", "curl opened connections: {connects:?}");
    for running in typed {
        let echoed = ok(running?.finish(CLIENT_LIMIT)?)?;
        ensure!(echoed == "abcdefghi", "nc had {echoed:?} back");
    }
    if scene.rung.has_own_stack() {
        let woken = moved(&stopped(scene)?, "woken");
        // curl twice, nc twice on two connections; and whatever ended from rest.
        ensure!(woken >= 6, "only {woken} were woken: {}", scene.server.log());
        life::restart(scene)?;
    }
    Ok(())
}

/// A thousand connections that nobody uses, and then each of them once.
fn idle_many(scene: &mut Scene) -> Result<()> {
    let line = "-c 1 --rate 100 --seconds 3 --idle 1000 --wake --backend sockets";
    let idle = load(scene, &words(scene, "echo", line))?;
    ensure!(idle.idle_held == 1000 && idle.woken == 1000, "{idle:?}");
    if scene.rung.has_own_stack() {
        let woken = moved(&stopped(scene)?, "woken");
        ensure!(woken >= 1000, "only {woken} were woken: {}", scene.server.log());
        life::restart(scene)?;
    }
    Ok(())
}

/// A server with nothing to do leaves the core to others, one that was told to spin does not; both answer.
fn idle_core(scene: &mut Scene) -> Result<()> {
    for (poll, idles) in [("adaptive", true), ("sleep", true), ("busy", false)] {
        stopped(scene)?;
        scene.server = Server::with(scene.rung, &scene.bed, scene.pages.path(), &["--poll", poll])?;
        crate::address_host_side(scene.rung, &scene.bed)?;
        scene.client("curl", &["-sS", "--fail", "-o", "/dev/null", &scene.url("/small")])?.ok()?;
        thread::sleep(Duration::from_millis(300));
        let before = core_time(scene.server.id())?;
        thread::sleep(Duration::from_secs(1));
        let took = core_time(scene.server.id())? - before;
        // Spinning, it has to share its core with whoever else tests.
        let fine = if idles { took < Duration::from_millis(20) } else { took > Duration::from_millis(100) };
        ensure!(fine, "--poll {poll}: {took:?} of a core in a second");
    }
    stopped(scene)?;
    life::restart(scene)
}

/// Time that the threads of a process have had a core.
fn core_time(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("no time in schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Ends the server and returns its log.
fn stopped(scene: &mut Scene) -> Result<String> {
    thread::sleep(Duration::from_millis(100));
    scene.server.signal(Signal::TERM)?;
    scene.server.wait(Duration::from_secs(11)).context("the server does not end")?;
    Ok(scene.server.log())
}

/// What the log says at the end of a counter, over all workers.
fn moved(log: &str, counter: &str) -> u64 {
    let value = |word: &str| word.strip_prefix(counter)?.strip_prefix('=')?.parse::<u64>().ok();
    log.split_whitespace().filter_map(value).sum()
}
