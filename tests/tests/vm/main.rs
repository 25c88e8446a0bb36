//! The server in an emulated guest, seen from a namespace of the host. `vm/run` boots the guest and starts this inside the
//! namespace; by itself it says SKIPPED.
//!
//! The cases share one guest and run in their order, one at a time: the last ones take its network card away.

mod events;
mod figures;
mod guest;
mod ladder;
mod life;
mod netem;
mod talk;
mod wire;

use anyhow::{Result, anyhow};
use guest::Guest;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// A test of a guest.
type Case = (&'static str, fn(&mut Guest) -> Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One guest, one after the other.
    arguments.test_threads = Some(1);
    if std::env::var_os("KHAMSIN_VM_FOLDER").is_none() {
        println!("SKIPPED vm: there is no guest; `vm/run` boots one");
        return libtest_mimic::run(&arguments, Vec::new()).exit_code();
    }
    let guest = match Guest::connect() {
        Ok(guest) => Arc::new(Mutex::new(guest)),
        Err(error) => {
            eprintln!("no guest to talk to: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let cases = [ladder::CASES, wire::CASES, figures::CASES, netem::CASES, life::CASES, events::CASES];
    let trials = cases.into_iter().flatten().map(|&(name, case)| {
        let guest = Arc::clone(&guest);
        Trial::test(name, move || run(&mut guest.lock().unwrap_or_else(PoisonError::into_inner), case))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(guest: &mut Guest, case: fn(&mut Guest) -> Result<()>) -> Result<(), Failed> {
    let done = guest.serving().and_then(|()| case(guest));
    let log = guest.log("main");
    let done = match done {
        Ok(()) if log.contains("panicked") => Err(anyhow!("the server panicked")),
        other => other,
    };
    done.map_err(|e| Failed::from(format!("{e:#}\nthe server's log:\n{log}")))
}
