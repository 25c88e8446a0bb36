//! What came of a load: a table for people, JSON for programs.

use super::crew::{Job, Outcome};
use super::plan::{Pace, Question};
use super::tally::{Latencies, Tally, Trouble};
use anyhow::{Context, Result};
use khamsin::output::with;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Shows the outcome where the job wants it; says whether all went well: something was served, and nothing failed.
///
/// # Errors
/// The JSON file cannot be written, or standard output takes no more.
pub fn show(job: &Job, outcome: &Outcome) -> Result<bool> {
    let to_stdout = job.json.as_deref() == Some(Path::new("-"));
    if !job.quiet && !to_stdout {
        with(|out| write!(out, "{}", table(job, outcome)))?;
    }
    if let Some(path) = &job.json {
        let text = format!("{:#}\n", json(job, outcome));
        if to_stdout {
            with(|out| out.write_all(text.as_bytes()))?;
        } else {
            std::fs::write(path, text).with_context(|| format!("write the figures to {}", path.display()))?;
        }
    }
    Ok(went_well(job, &outcome.tally))
}

/// Whether something was served, all idle connections stayed, and nothing failed.
pub fn went_well(job: &Job, tally: &Tally) -> bool {
    let served = if job.plan.connections > 0 { tally.bytes > 0 } else { tally.idle_held > 0 };
    let idle = job.plan.idle as u64;
    let woken = !job.plan.wake || tally.woken == idle;
    served && tally.errors_all() == 0 && tally.idle_held == idle && woken
}

fn what(job: &Job) -> String {
    let address = job.plan.target.address;
    match &job.plan.target.question {
        Question::Get { path, .. } => format!("GET {path} from {address}"),
        Question::Echo { size } => format!("echo of {size} bytes at {address}"),
    }
}

fn table(job: &Job, outcome: &Outcome) -> String {
    let (plan, tally) = (&job.plan, &outcome.tally);
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<14} {value}");
    };
    let kind = if plan.fresh { "one request each" } else { "kept" };
    row("load", format!("{}, over {}", what(job), outcome.carrier));
    if plan.connections > 0 {
        let idle = if plan.idle > 0 { format!(", {} idle beside them", plan.idle) } else { String::new() };
        row("connections", format!("{} ({kind}), pipeline {}{idle}", plan.connections, plan.pipeline));
        let offered = match plan.pace {
            Pace::Closed => String::new(),
            Pace::Open { per_second } => format!(" of {per_second:.0} offered, {} never sent", tally.unsent),
        };
        let seconds = tally.measured.as_secs_f64();
        row("requests", format!("{} in {seconds:.2} s: {:.0}/s{offered}", tally.answered, tally.per_second));
        row("received", format!("{:.2} MB/s", tally.bytes_per_second / 1e6));
    }
    if plan.idle > 0 {
        let woken = if plan.wake { format!(", {} answered when woken", tally.woken) } else { String::new() };
        row("idle", format!("{} of {} held, {} lost{woken}", tally.idle_held, plan.idle, tally.idle_lost));
    }
    let errors: Vec<String> =
        Trouble::ALL.iter().map(|t| format!("{} {}", t.name(), tally.errors[*t as usize])).collect();
    row("errors", errors.join(", "));
    if plan.connections > 0 {
        if let Pace::Open { .. } = plan.pace {
            row("latency", format!("{}  (from when it was due)", percentiles(&tally.corrected_us)));
            row("uncorrected", format!("{}  (from when it was sent)", percentiles(&tally.latency_us)));
        } else {
            row("latency", percentiles(&tally.latency_us));
        }
    }
    row("handshake", format!("{}  ({} of them)", percentiles(&tally.handshake_us), tally.opened));
    let cores = tally.cpu.as_secs_f64() / tally.measured.as_secs_f64().max(1e-9);
    let each = tally.cpu.as_secs_f64() * 1e6 / tally.answered.max(1) as f64;
    row("CPU", format!("{cores:.2} cores for this program, {each:.2} us a request"));
    for (name, value) in &tally.notes {
        row(name, value.to_string());
    }
    for sentence in &tally.said {
        row("error", sentence.clone());
    }
    out
}

fn percentiles(times: &Latencies) -> String {
    if times.is_empty() {
        return "none".into();
    }
    let at = |q| shown(times.value_at_quantile(q));
    format!("p50 {}, p90 {}, p99 {}, p99.9 {}, max {}", at(0.5), at(0.9), at(0.99), at(0.999), shown(times.max()))
}

/// Microseconds in the unit that reads best.
fn shown(us: u64) -> String {
    match us {
        0..10_000 => format!("{us} us"),
        10_000..10_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// Everything, as JSON.
pub fn json(job: &Job, outcome: &Outcome) -> Value {
    let (plan, tally) = (&job.plan, &outcome.tally);
    let errors: serde_json::Map<String, Value> =
        Trouble::ALL.iter().map(|t| (t.name().to_owned(), tally.errors[*t as usize].into())).collect();
    let notes: serde_json::Map<String, Value> =
        tally.notes.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let (offered, corrected) = match plan.pace {
        Pace::Closed => (Value::Null, Value::Null),
        Pace::Open { per_second } => (per_second.into(), times(&tally.corrected_us)),
    };
    json!({
        "target": what(job),
        "backend": outcome.carrier,
        "connections": plan.connections,
        "pipeline": plan.pipeline,
        "new_connections": plan.fresh,
        "from_us": tally.from_us,
        "seconds": tally.measured.as_secs_f64(),
        "requests": tally.answered,
        "requests_per_s": tally.per_second,
        "offered_per_s": offered,
        "unsent": tally.unsent,
        "bytes_per_s": tally.bytes_per_second,
        "opened": tally.opened,
        "asking": tally.asking,
        "idle": { "wanted": plan.idle, "held": tally.idle_held, "lost": tally.idle_lost, "woken": tally.woken },
        "errors": errors,
        "errors_all": tally.errors_all(),
        "said": tally.said,
        "latency_us": times(&tally.latency_us),
        "corrected_latency_us": corrected,
        "handshake_us": times(&tally.handshake_us),
        "cpu_s": tally.cpu.as_secs_f64(),
        "notes": notes,
    })
}

fn times(times: &Latencies) -> Value {
    let at = |q| times.value_at_quantile(q);
    json!({
        "count": times.len(), "min": if times.is_empty() { 0 } else { times.min() }, "mean": times.mean(),
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": times.max(),
    })
}
