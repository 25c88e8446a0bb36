//! Clients that no one here wrote, on every rung: curl, wrk, ab, nc, ping and Python's sockets against the real binary.
//!
//! Each case has a bed and a server of its own, so that cases run side by side and a failure shows the server's log of
//! this case alone. A case that cannot run says SKIPPED and why; it counts as ignored.

mod capture;
mod echo;
mod generator;
mod http;
mod life;
mod link;
mod load;
mod path;
mod queues;
mod rest;

use anyhow::{Context, Result, bail};
use khamsin_tests::bed::{self, Bed};
use khamsin_tests::command::{Ran, Running};
use khamsin_tests::pages::Pages;
use khamsin_tests::rung::Rung;
use khamsin_tests::server::{Server, missing};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;
use std::time::Duration;

/// A test on one or more rungs.
struct Case {
    name: &'static str,
    /// Programs that must be installed.
    needs: &'static [&'static str],
    /// Whether the rung makes a difference that this case is made for.
    on: fn(Rung) -> bool,
    run: Run,
}

impl Case {
    const fn new(name: &'static str, needs: &'static [&'static str], on: fn(Rung) -> bool, run: Run) -> Case {
        Case { name, needs, on, run }
    }
}

type Run = fn(&mut Scene) -> Result<()>;

/// Every rung.
fn everywhere(_: Rung) -> bool {
    true
}

/// The rungs with a stack of our own.
fn own_stack(rung: Rung) -> bool {
    rung.has_own_stack()
}

/// A bed, a server in it and its files. The server goes first when this is dropped.
struct Scene {
    server: Server,
    rung: Rung,
    bed: Bed,
    pages: Pages,
}

/// How long a client may take unless it says otherwise.
const CLIENT_LIMIT: Duration = Duration::from_secs(60);

impl Scene {
    fn new(rung: Rung) -> Result<Scene> {
        Scene::with(rung, &[])
    }

    fn with(rung: Rung, options: &[&str]) -> Result<Scene> {
        let (bed, pages) = (rung.bed()?, Pages::new()?);
        let server = Server::with(rung, &bed, pages.path(), options)?;
        address_host_side(rung, &bed)?;
        Ok(Scene { server, rung, bed, pages })
    }

    /// A URL of the server's.
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.rung.v4())
    }

    /// Runs a client in the client's namespace and wants exit code 0.
    fn client(&self, program: &str, arguments: &[&str]) -> Result<Ran> {
        self.bed.client().run(program, arguments, CLIENT_LIMIT)
    }

    /// Starts a client in the client's namespace.
    fn start_client(&self, program: &str, arguments: &[&str], input: Option<Vec<u8>>) -> Result<Running> {
        let mut command = self.bed.client().command(program);
        command.args(arguments);
        Running::start(command, input)
    }

    /// Runs a case of one of the Python clients against the server's IPv4 address.
    fn python(&self, script: &str, case: &str, port: u16, more: &[&str]) -> Result<Ran> {
        let (script, port) = (script_path(script), port.to_string());
        let mut arguments = vec!["-B", script.as_str(), case, self.rung.v4(), port.as_str()];
        arguments.extend(more);
        self.bed.client().run("python3", &arguments, Duration::from_secs(120))
    }
}

/// Where a Python client lies.
fn script_path(script: &str) -> String {
    format!("{}/clients/{script}", env!("CARGO_MANIFEST_DIR"))
}

/// The host's side of the TAP device has the client's addresses, whatever the server gave it.
fn address_host_side(rung: Rung, bed: &Bed) -> Result<()> {
    if rung == Rung::Tap {
        for (address, len) in [(bed::CLIENT_V4, 24), (bed::CLIENT_V6, 64)] {
            let address = format!("{address}/{len}");
            let shown = bed.server.ip(&["-brief", "address", "show", "dev", "khamsin0"])?.text();
            if !shown.contains(&address) {
                bed.server.ip(&["address", "add", &address, "dev", "khamsin0", "nodad"])?;
            }
        }
    }
    Ok(())
}

fn run_case(case: &Case, rung: Rung) -> Result<()> {
    let mut scene = Scene::new(rung).context("no server to talk to")?;
    let done = (case.run)(&mut scene);
    let log = scene.server.log();
    if log.contains("panicked") {
        bail!("the server panicked: {log}\n{done:?}");
    }
    done.with_context(|| format!("the server's log: {}", tail(&log, 3000)))?;
    if !scene.server.is_running()? {
        bail!("the server is gone: {log}");
    }
    Ok(())
}

fn tail(text: &str, bytes: usize) -> &str {
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// The outcome of a test: skipped with a reason, or run.
fn outcome(name: &str, skip: Option<String>, run: impl FnOnce() -> Result<()>) -> Result<Completion, Failed> {
    if let Some(reason) = skip {
        println!("SKIPPED {name}: {reason}");
        return Ok(Completion::ignored_with(format!("SKIPPED: {reason}")));
    }
    run().map_err(|e| Failed::from(format!("{e:#}")))?;
    Ok(Completion::Completed)
}

/// A test that makes a scene of its own kind.
fn special(
    name: &'static str,
    refused: &Option<String>,
    needs: &'static [&'static str],
    run: fn() -> Result<()>,
) -> Trial {
    let refused = refused.clone();
    Trial::ignorable_test(name, move || outcome(name, refused.or_else(|| missing(needs)), run))
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let refused = bed::refusal();
    if refused.is_none()
        && let Err(e) = bed::sweep()
    {
        eprintln!("namespaces of dead test processes stay: {e:#}");
    }
    let mut trials = Vec::new();
    for rung in Rung::ALL {
        let groups = [http::CASES, load::CASES, generator::CASES, echo::CASES, link::CASES, path::CASES];
        for case in
            groups.into_iter().chain([life::CASES, rest::CASES, capture::CASES]).flatten().filter(|c| (c.on)(rung))
        {
            let name = format!("{rung}::{}", case.name);
            let refused = refused.clone();
            trials.push(Trial::ignorable_test(name.clone(), move || {
                let skip = refused.or_else(|| rung.refusal()).or_else(|| missing(case.needs));
                outcome(&name, skip, || run_case(case, rung))
            }));
        }
    }
    trials.extend(life::specials(&refused));
    trials.extend(queues::specials(&refused));
    libtest_mimic::run(&arguments, trials).exit_code()
}
