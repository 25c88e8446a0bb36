//! What was measured, as a table for people and as JSON for everything else.

use crate::Case;
use crate::contender::Contender;
use crate::machine;
use anyhow::Result;
use khamsin::output::{note, say};
use serde_json::{Value, json};
use std::path::Path;

/// One run of one contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Requests a second.
    pub(crate) rate: f64,
    /// CPU seconds of the whole machine per million requests.
    pub(crate) cpu: f64,
    /// Median latency, microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile of latency, microseconds.
    pub(crate) p99_us: f64,
}

/// Everything measured so far.
pub(crate) struct Report {
    machine: String,
    command: String,
    idle_load: f64,
    runs: Vec<(Case, Contender, Run)>,
    lines: Vec<(String, Value)>,
}

/// Background work above this share of one core spoils the figures.
const IDLE_LOAD_MAX: f64 = 0.1;

impl Report {
    /// An empty report; looks at the machine while it is still idle.
    ///
    /// # Errors
    /// There is no /proc.
    pub(crate) fn new() -> Result<Report> {
        let command = std::env::args().skip(1).fold("khamsin-bench".to_owned(), |line, word| line + " " + &word);
        let idle_load = machine::idle_load()?;
        Ok(Report { machine: machine::description(), command, idle_load, runs: Vec::new(), lines: Vec::new() })
    }

    /// Takes down a run.
    pub(crate) fn add(&mut self, case: Case, contender: Contender, run: Run) {
        self.runs.push((case, contender, run));
    }

    /// Takes down a finding that is no rate.
    pub(crate) fn line(&mut self, case: Case, text: String, mut value: Value) {
        note(&text);
        value["case"] = json!(case.to_string());
        self.lines.push((text, value));
    }

    /// Prints the table and writes the JSON file.
    ///
    /// # Errors
    /// The file cannot be written, or standard output takes no more.
    pub(crate) fn finish(&self, file: Option<&Path>) -> Result<()> {
        say(self.markdown())?;
        if let Some(file) = file {
            let runs: Vec<Value> = self
                .runs
                .iter()
                .map(|(case, contender, run)| {
                    json!({"case": case.to_string(), "contender": contender.to_string(), "requests_per_s": run.rate,
                       "cpu_s_per_million": run.cpu, "p50_us": run.p50_us, "p99_us": run.p99_us})
                })
                .collect();
            let lines: Vec<&Value> = self.lines.iter().map(|l| &l.1).collect();
            let all = json!({"machine": self.machine, "command": self.command, "idle_load": self.idle_load,
                             "runs": runs, "findings": lines});
            std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = format!("`{}` on {}\n", self.command, self.machine);
        if self.idle_load > IDLE_LOAD_MAX {
            text += &format!(
                "\n**The machine was not idle: {:.2} cores were busy before the first run.**\n",
                self.idle_load
            );
        }
        if !self.runs.is_empty() {
            text +=
                "\n| case | server | requests/s | to nginx | CPU s per million | to nginx | p50 us | p99 us | runs |\n";
            text += "|---|---|---|---|---|---|---|---|---|\n";
            text += &self.rows();
            text += "\nMedians of runs taken in turns. CPU is that of the whole machine (user, nice, system, irq, softirq of all cores, client \
                     included). Two traps: veth does a frame's receive work on the *sender's* core, so the TCP receive of a server on kernel \
                     sockets is billed to the client's core and the figure per core flatters it, which is why only the whole machine is \
                     compared here; and wrk's own core saturates first, so the ratio of rates it can show ends near 1.4 for small files and \
                     near 2 for new connections, however fast the server is.\n";
        }
        for (line, _) in &self.lines {
            text += &format!("\n- {line}");
        }
        text
    }

    fn rows(&self) -> String {
        let mut text = String::new();
        let mut done = Vec::new();
        for &(case, contender, _) in &self.runs {
            if done.contains(&(case, contender)) {
                continue;
            }
            done.push((case, contender));
            let median = |contender, pick: fn(&Run) -> f64| self.median(case, contender, pick);
            let Some(rate) = median(contender, |r| r.rate) else { continue };
            let cpu = median(contender, |r| r.cpu).unwrap_or(f64::NAN);
            let ratio = |own: f64, pick: fn(&Run) -> f64| match median(Contender::Nginx, pick) {
                Some(nginx) if nginx > 0.0 => format!("{:.2}", own / nginx),
                _ => "-".to_owned(),
            };
            let count = self.runs.iter().filter(|r| (r.0, r.1) == (case, contender)).count();
            text += &format!(
                "| {case} | {contender} | {rate:.0} | {} | {cpu:.2} | {} | {:.0} | {:.0} | {count} |\n",
                ratio(rate, |r| r.rate),
                ratio(cpu, |r| r.cpu),
                median(contender, |r| r.p50_us).unwrap_or(f64::NAN),
                median(contender, |r| r.p99_us).unwrap_or(f64::NAN),
            );
        }
        text
    }

    fn median(&self, case: Case, contender: Contender, pick: fn(&Run) -> f64) -> Option<f64> {
        let mut values: Vec<f64> =
            self.runs.iter().filter(|r| (r.0, r.1) == (case, contender)).map(|r| pick(&r.2)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians() {
        let run = |rate, cpu| Run { rate, cpu, p50_us: 1.0, p99_us: 2.0 };
        let mut report = Report {
            machine: String::new(),
            command: String::new(),
            idle_load: 0.0,
            runs: Vec::new(),
            lines: Vec::new(),
        };
        for rate in [100.0, 1.0, 110.0] {
            report.add(Case::Small, Contender::Nginx, run(rate, 10.0));
            report.add(Case::Small, Contender::AfXdp, run(rate * 1.5, 5.0));
        }
        let rows = report.rows();
        assert!(rows.contains("| small | nginx | 100 | 1.00 | 10.00 | 1.00 |"), "{rows}");
        assert!(rows.contains("| small | khamsin af-xdp-native | 150 | 1.50 | 5.00 | 0.50 |"), "{rows}");
    }
}
