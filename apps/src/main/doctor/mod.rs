//! `khamsin doctor`: rung by rung, yes or why not, and what would mend it.

mod cost;
mod judge;
mod machine;
mod trial;

use crate::cli::DoctorArgs;
use anyhow::{Context, Result};
use judge::{Interface, Verdict};
use khamsin::output;
use khamsin_drivers::link::{self, Link};
use machine::Machine;
use std::io::{self, Write};
use std::process::ExitCode;

/// Looks, tries and tells. The exit code is 1 only when no rung at all can be taken.
///
/// # Errors
/// There is no such interface, or standard output takes no more.
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    if trial::is_child() {
        return Ok(trial::child());
    }
    if args.cost {
        output::with(|out| cost::tell(out))?;
        return Ok(ExitCode::SUCCESS);
    }
    let links = match &args.interface {
        Some(name) => vec![link::by_name(name).with_context(|| format!("wanted to examine {name}"))?],
        None => link::list().context("wanted to examine every interface")?,
    };
    let machine = Machine::look();
    let judged: Vec<(Interface, Vec<Verdict>)> = links.into_iter().map(|link| examine(&machine, link)).collect();
    let without = judge::without_interface(&machine);
    let any = judged.iter().flat_map(|(_, verdicts)| verdicts).chain(&without).any(Verdict::is_yes);
    output::with(|out| {
        tell_machine(out, &machine)?;
        judged.iter().try_for_each(|(interface, verdicts)| tell_interface(out, interface, verdicts))?;
        writeln!(out, "\nwithout an interface")?;
        tell(out, &without)?;
        tell_trial(out, &machine)
    })?;
    Ok(if any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(machine: &Machine, link: Link) -> (Interface, Vec<Verdict>) {
    let features = link::xdp_features(&link).ok().flatten();
    let program = link::xdp_program(&link.name).ok().flatten();
    let interface = Interface { link, features, program };
    let verdicts = judge::on_interface(machine, &interface);
    (interface, verdicts)
}

fn tell_machine(out: &mut impl Write, machine: &Machine) -> io::Result<()> {
    let capabilities = [("NET_ADMIN", machine.net_admin), ("NET_RAW", machine.net_raw), ("BPF", machine.bpf)];
    let held: Vec<_> = capabilities.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    let held = if held.is_empty() { "none".to_owned() } else { held.join(" ") };
    let place = if machine.initial_namespace { "" } else { " (inside a user namespace)" };
    writeln!(out, "kernel {}, user {}{place}, capabilities that matter: {held}", machine.release, machine.uid)
}

fn tell_interface(out: &mut impl Write, Interface { link, .. }: &Interface, verdicts: &[Verdict]) -> io::Result<()> {
    let kind = link.kind.as_deref().unwrap_or(if link.loopback { "loopback" } else { "unknown driver" });
    let state = if link.up { "up" } else { "down" };
    let Link { name, mtu, rx_queues, .. } = link;
    writeln!(out, "\n{name}: {kind}, {state}, MTU {mtu}, {rx_queues} receive queue(s)")?;
    tell(out, verdicts)
}

fn tell(out: &mut impl Write, verdicts: &[Verdict]) -> io::Result<()> {
    for Verdict { rung, problems, notes } in verdicts {
        let mut label = format!("  {rung:<17} {}", if problems.is_empty() { "yes" } else { "no " });
        for problem in problems {
            writeln!(out, "{label}  {}", problem.what)?;
            writeln!(out, "{:23}    mend: {}", "", problem.mend)?;
            label = format!("{:23}", "");
        }
        for note in notes.iter().filter(|_| problems.is_empty()) {
            writeln!(out, "{label}  {note}")?;
            label = format!("{:23}", "");
        }
        if problems.is_empty() && notes.is_empty() {
            writeln!(out, "{label}")?;
        }
    }
    Ok(())
}

fn tell_trial(out: &mut impl Write, machine: &Machine) -> io::Result<()> {
    writeln!(out, "\ntried for real, in a private network namespace (veth pair, TAP, loopback)")?;
    if let Err(reason) = &machine.private_namespace {
        return writeln!(out, "  no namespace is to be had, so `khamsin demo` uses kernel sockets: {reason}");
    }
    let Some(rungs) = trial::run() else { return writeln!(out, "  the child that tries them failed") };
    rungs.iter().try_for_each(|(rung, reason)| match reason {
        None => writeln!(out, "  {rung:<17} yes"),
        Some(reason) => writeln!(out, "  {rung:<17} no   {reason}"),
    })
}
