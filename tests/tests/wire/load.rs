//! Short load by wrk and ab: no request may fail.

use crate::{Case, Scene, everywhere};
use anyhow::{Context, Result, ensure};

pub(crate) const CASES: &[Case] = &[
    Case::new("wrk", &["wrk"], everywhere, wrk),
    Case::new("ab", &["ab"], everywhere, |s| ab(s, &[])),
    Case::new("ab_keep_alive", &["ab"], everywhere, |s| ab(s, &["-k"])),
];

/// The number behind `label` in a report of wrk's or ab's.
pub(crate) fn figure(report: &str, label: &str) -> Result<f64> {
    let rest = report.split_once(label).with_context(|| format!("no `{label}` in:\n{report}"))?.1;
    let number: String = rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    number.parse().with_context(|| format!("no number behind `{label}` in:\n{report}"))
}

fn wrk(scene: &mut Scene) -> Result<()> {
    for page in ["small", "page"] {
        let report = scene.client("wrk", &["-t1", "-c32", "-d2s", &scene.url(&format!("/{page}"))])?.text();
        ensure!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
        let requests = figure(&report, "Requests/sec:")?;
        ensure!(requests > 200.0, "{report}");
    }
    Ok(())
}

fn ab(scene: &mut Scene, more: &[&str]) -> Result<()> {
    let url = scene.url("/page");
    let mut arguments = vec!["-n", "2000", "-c", "50", "-s", "30"];
    arguments.extend(more);
    arguments.push(&url);
    let report = scene.client("ab", &arguments)?.text();
    ensure!(figure(&report, "Complete requests:")? == 2000.0, "{report}");
    ensure!(figure(&report, "Failed requests:")? == 0.0 && !report.contains("Non-2xx"), "{report}");
    ensure!(figure(&report, "HTML transferred:")? == 2000.0 * 8046.0, "{report}");
    Ok(())
}
