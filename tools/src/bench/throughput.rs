//! Requests a second under wrk, and what the whole machine spends on them.

use crate::contender::Contender;
use crate::links::{make_roomy, set_mtu};
use crate::machine::busy;
use crate::report::{Report, Run};
use crate::{Case, Options};
use anyhow::{Context, Result, ensure};
use khamsin::output::note;
use khamsin_tools::bed::Bed;
use khamsin_tools::command::{Ran, run};
use khamsin_tools::pages::Pages;
use khamsin_tools::wrk::{latency, number_behind};
use std::time::Duration;

/// The server's core and the client's.
const SERVER_CORE: usize = 1;
const CLIENT_CORE: usize = 0;

struct Load {
    path: &'static str,
    queues: usize,
    threads: u32,
    pinned: bool,
    close: bool,
}

fn load_of(case: Case) -> Load {
    let base = Load { path: "/small", queues: 1, threads: 1, pinned: true, close: false };
    match case {
        Case::Page => Load { path: "/page", ..base },
        Case::NewConnections => Load { close: true, ..base },
        Case::TwoQueues => Load { queues: 2, threads: 2, pinned: false, ..base },
        _ => base,
    }
}

/// Measures one case in turns.
///
/// # Errors
/// A contender does not serve, or a request failed: a figure with errors in it is none.
pub(crate) fn measure(case: Case, options: &Options, report: &mut Report) -> Result<()> {
    let load = load_of(case);
    let contenders = Contender::here();
    let pages = Pages::new()?;
    for turn in 0..options.runs {
        for &contender in &contenders {
            let measured = one_run(contender, &load, options, &pages)
                .with_context(|| format!("{case}, {contender}, run {}", turn + 1))?;
            note(format_args!(
                "{case} {contender}: {:.0} requests/s, {:.2} CPU s per million",
                measured.rate, measured.cpu
            ));
            report.add(case, contender, measured);
        }
    }
    Ok(())
}

fn one_run(contender: Contender, load: &Load, options: &Options, pages: &Pages) -> Result<Run> {
    let bed = prepared_bed(load.queues, options)?;
    let server = contender.start(&bed, pages, load.queues, options)?;
    if load.pinned {
        server.pin(&bed, SERVER_CORE)?;
    }
    drive(&bed, contender, load, options.connections, 1)?;
    let before = busy()?;
    let said = drive(&bed, contender, load, options.connections, options.seconds)?.text();
    let spent = busy()? - before;
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "requests failed:\n{said}");
    let requests = number_before(&said, " requests in")?;
    Ok(Run {
        rate: number_behind(&said, "Requests/sec:")?,
        cpu: spent.as_secs_f64() / requests * 1e6,
        p50_us: latency(&said, "50%")?,
        p99_us: latency(&said, "99%")?,
    })
}

/// A bed on which no contender runs out of ports, and whose links have the MTU that was asked for.
fn prepared_bed(queues: usize, options: &Options) -> Result<Bed> {
    let bed = Bed::veth(queues)?;
    set_mtu(&bed, options.mtu)?;
    make_roomy(&bed)?;
    Ok(bed)
}

fn drive(bed: &Bed, contender: Contender, load: &Load, connections: u32, seconds: u32) -> Result<Ran> {
    let url = format!("http://{}{}", contender.address(), load.path);
    let (threads, connections) = (format!("-t{}", load.threads), format!("-c{connections}"));
    let duration = format!("-d{seconds}");
    let mut words = vec!["wrk", &threads, &connections, &duration, "--latency"];
    if load.close {
        words.extend(["-H", "Connection: close"]);
    }
    words.push(&url);
    let core = CLIENT_CORE.to_string();
    let mut command = if load.pinned {
        let mut command = bed.client().command("taskset");
        command.args(["-c", &core]);
        command.args(&words);
        command
    } else {
        let mut command = bed.client().command("wrk");
        command.args(&words[1..]);
        command
    };
    command.env("LC_ALL", "C");
    run(command, Duration::from_secs(u64::from(seconds) + 30))?.ok()
}

fn number_before(text: &str, label: &str) -> Result<f64> {
    let head = text.split_once(label).with_context(|| format!("no `{label}` in:\n{text}"))?.0;
    head.split_whitespace().last().and_then(|n| n.parse().ok()).with_context(|| format!("no number in:\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_wrk_is_read() {
        let text = "  Latency Distribution\n     50%  391.00us\n     99%    1.50ms\n  810456 requests in 5.10s, 210.96MB read\n\
                    Requests/sec: 158912.62\n";
        assert_eq!((latency(text, "50%").unwrap(), latency(text, "99%").unwrap()), (391.0, 1500.0));
        assert_eq!(number_before(text, " requests in").unwrap(), 810_456.0);
        assert_eq!(number_behind(text, "Requests/sec:").unwrap(), 158_912.62);
        assert!(latency("nothing", "99%").is_err());
    }
}
