//! The table of cells, and all single runs as JSON.

use super::cell::Cell;
use super::lane::Sample;
use crate::{machine, quantile};
use anyhow::Result;
use khamsin::output::{note, say};
use khamsin_drivers::sim::PathStats;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Both sides' runs of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) seed: u64,
    pub(crate) own: Sample,
    pub(crate) linux: Sample,
}

/// Everything measured so far.
pub(crate) struct Table {
    machine: String,
    command: String,
    rows: Vec<Row>,
}

struct Row {
    cell: Cell,
    pairs: Vec<Pair>,
    load: String,
}

impl Table {
    /// An empty table.
    pub(crate) fn new() -> Table {
        let command = std::env::args().skip(1).fold("khamsin-bench".to_owned(), |line, word| line + " " + &word);
        Table { machine: machine::description(), command, rows: Vec::new() }
    }

    /// Takes down a cell and says on standard error what it was.
    ///
    /// # Errors
    /// There is no /proc.
    pub(crate) fn add(&mut self, cell: Cell, pairs: Vec<Pair>) -> Result<()> {
        let row = Row { cell, pairs, load: machine::load()? };
        note(row.line().trim_end());
        self.rows.push(row);
        Ok(())
    }

    /// Writes every run so far to `file` as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&self, file: Option<&Path>) -> Result<()> {
        if let Some(file) = file {
            let cells: Vec<Value> = self.rows.iter().map(Row::json).collect();
            let all = json!({"machine": self.machine, "command": self.command, "cells": cells});
            fs::write(file, serde_json::to_string_pretty(&all)?)?;
        }
        Ok(())
    }

    /// Prints the table.
    ///
    /// # Errors
    /// Standard output takes no more.
    pub(crate) fn print(&self) -> Result<()> {
        say(format_args!("`{}` on {}\n", self.command, self.machine))?;
        say(
            "| cell | khamsin | Linux | unit | ratio | bar | | quartiles of the ratio, seed by seed | seeds | repeated, doubtful | load |",
        )?;
        say("|---|---|---|---|---|---|---|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| say(row.line().trim_end()))?;
        say(
            "\nMedians over the seeds. A run during which the middlebox was not punctual is repeated, at most three times, and",
        )?;
        Ok(say("doubtful if it was not then. Load is the machine's at the end of the cell.")?)
    }
}

impl Row {
    fn line(&self) -> String {
        let own = quantile(self.pairs.iter().map(|p| p.own.figure), 0.5);
        let linux = quantile(self.pairs.iter().map(|p| p.linux.figure), 0.5);
        let ratio = own / linux;
        let of_seeds = |q| quantile(self.pairs.iter().map(|p| p.own.figure / p.linux.figure), q);
        let samples = || self.pairs.iter().flat_map(|p| [&p.own, &p.linux]);
        let repeated: u32 = samples().map(|s| s.repeated).sum();
        let doubtful = samples().filter(|s| s.objection.is_some()).count();
        let sign = if self.cell.is_time() { "<=" } else { ">=" };
        let word = if self.cell.is_reached_by(ratio) { "reached" } else { "**missed**" };
        format!(
            "| {} | {own:.2} | {linux:.2} | {} | {ratio:.3} | {sign} {:.2} | {word} | {:.3} to {:.3} | {} | {repeated}, {doubtful} | {} |\n",
            self.cell.name,
            self.cell.unit(),
            self.cell.bar,
            of_seeds(0.25),
            of_seeds(0.75),
            self.pairs.len(),
            self.load,
        )
    }

    fn json(&self) -> Value {
        let runs: Vec<Value> = self
            .pairs
            .iter()
            .map(|p| json!({"seed": p.seed, "khamsin": sample(&p.own), "linux": sample(&p.linux)}))
            .collect();
        json!({"cell": self.cell.name, "unit": self.cell.unit(), "bar": self.cell.bar, "load": self.load, "runs": runs})
    }
}

fn sample(s: &Sample) -> Value {
    let path = |p: &PathStats| json!({"offered": p.offered, "delivered": p.delivered, "lost": p.lost, "queue_full": p.queue_full, "delayed": p.delayed});
    json!({"figure": s.figure, "from_server": path(&s.path[0]), "from_client": path(&s.path[1]), "repeated": s.repeated,
           "client_kernel": s.kernels[0].json(), "server_kernel": s.kernels[1].json(),
           "objection": s.objection, "late_mean_us": s.passage.late_mean_us(), "late_max_us": s.passage.late_max_us,
           "stall_max_us": s.passage.stall_max_us})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_compares_medians_with_the_bar() {
        let sample = |figure| Sample {
            figure,
            passage: Default::default(),
            path: Default::default(),
            kernels: Default::default(),
            repeated: 1,
            objection: (figure == 9.0).then(|| "late".to_owned()),
        };
        let pairs = [(9.0, 10.0), (97.0, 100.0), (99.0, 100.0)].map(|(own, linux)| Pair {
            seed: 1,
            own: sample(own),
            linux: sample(linux),
        });
        let cell = Cell::all().remove(0);
        let line = Row { cell, pairs: pairs.to_vec(), load: "0.5".to_owned() }.line();
        let want = "| download-100M-loss-0% | 97.00 | 100.00 | Mbit/s | 0.970 | >= 0.98 | **missed** | 0.935 to 0.980 | 3 | 6, 1 | 0.5 |\n";
        assert_eq!(line, want);
    }
}
