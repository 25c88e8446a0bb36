//! What was measured: every single run, their medians, and both as JSON.

use super::contender::Contender;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// One run of one contender.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Record {
    pub(crate) case: String,
    pub(crate) name: String,
    pub(crate) billing: String,
    pub(crate) contender: String,
    /// Where the cell stands on the axis of its plot.
    pub(crate) x: f64,
    /// Every figure by its name, the unit last in it.
    pub(crate) figures: BTreeMap<String, f64>,
    /// What went wrong, in words.
    pub(crate) said: Vec<String>,
}

impl Record {
    /// The id of its cell.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}/{}", self.case, self.name, self.billing)
    }
}

/// All runs so far.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) command: String,
    /// Cores that were busy before the first run.
    pub(crate) idle_load: f64,
    /// Load average before the first run, and after the last.
    pub(crate) load: [String; 2],
    /// Who could not be measured, and why.
    pub(crate) skipped: Vec<String>,
    pub(crate) records: Vec<Record>,
}

impl Report {
    /// The median of a figure over the runs of a cell; `None` if there is none.
    pub(crate) fn median(&self, id: &str, contender: Contender, figure: &str) -> Option<f64> {
        self.median_of(|r| r.id() == id && r.contender == contender.name(), figure)
    }

    /// The median of a figure over all runs that are `wanted`.
    pub(crate) fn median_of(&self, wanted: impl Fn(&Record) -> bool, figure: &str) -> Option<f64> {
        let values = self.records.iter().filter(|r| wanted(r)).filter_map(|r| r.figures.get(figure).copied());
        Some(crate::median(values)).filter(|m| !m.is_nan())
    }

    /// Cells and contenders in the order in which they were first measured: one record of each.
    pub(crate) fn firsts(&self) -> Vec<&Record> {
        let mut firsts: Vec<&Record> = Vec::new();
        for record in &self.records {
            if !firsts.iter().any(|f| f.id() == record.id() && f.contender == record.contender) {
                firsts.push(record);
            }
        }
        let mut order: Vec<String> = Vec::new();
        for first in &firsts {
            if !order.contains(&first.id()) {
                order.push(first.id());
            }
        }
        firsts.sort_by_key(|f| order.iter().position(|id| *id == f.id()));
        firsts
    }

    /// Everything, as JSON.
    pub(crate) fn json(&self) -> Value {
        let records: Vec<Value> = self
            .records
            .iter()
            .map(|r| {
                json!({"case": r.case, "cell": r.name, "billing": r.billing, "server": r.contender, "x": r.x,
                       "figures": r.figures, "said": r.said})
            })
            .collect();
        json!({"machine": self.machine, "command": self.command, "idle_load": self.idle_load, "load": self.load,
               "skipped": self.skipped, "runs": records})
    }

    /// Reads what [`Report::json`] makes.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn parse(text: &str) -> Result<Report> {
        let value: Value = serde_json::from_str(text)?;
        let runs = value["runs"].as_array().context("no list of runs")?;
        let load = |i: usize| value["load"][i].as_str().unwrap_or_default().to_owned();
        Ok(Report {
            machine: word(&value, "machine")?,
            command: word(&value, "command")?,
            idle_load: value["idle_load"].as_f64().context("no idle_load")?,
            load: [load(0), load(1)],
            skipped: words(&value["skipped"]),
            records: runs.iter().map(record).collect::<Result<_>>()?,
        })
    }

    /// Writes the JSON to `file`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&self, file: Option<&Path>) -> Result<()> {
        if let Some(file) = file {
            let text = format!("{:#}\n", self.json());
            std::fs::write(file, text).with_context(|| format!("write the figures to {}", file.display()))?;
        }
        Ok(())
    }
}

fn word(value: &Value, key: &str) -> Result<String> {
    Ok(value[key].as_str().with_context(|| format!("no `{key}` in {value}"))?.to_owned())
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn record(value: &Value) -> Result<Record> {
    let figures = value["figures"].as_object().context("a run without figures")?;
    Ok(Record {
        case: word(value, "case")?,
        name: word(value, "cell")?,
        billing: word(value, "billing")?,
        contender: word(value, "server")?,
        x: value["x"].as_f64().unwrap_or(0.0),
        figures: figures.iter().filter_map(|(name, v)| Some((name.clone(), v.as_f64()?))).collect(),
        said: words(&value["said"]),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run with these figures.
    pub(crate) fn of(id: &str, contender: Contender, x: f64, figures: &[(&str, f64)]) -> Record {
        let [case, name, billing] = id.split('/').collect::<Vec<_>>().try_into().unwrap();
        Record {
            case: case.to_owned(),
            name: name.to_owned(),
            billing: billing.to_owned(),
            contender: contender.name().to_owned(),
            x,
            figures: figures.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect(),
            said: Vec::new(),
        }
    }

    /// A report of these runs.
    pub(crate) fn report(records: Vec<Record>) -> Report {
        let text = str::to_owned;
        let load = [text("0.1"), text("0.2")];
        let (machine, command) = (text("a machine"), text("khamsin-bench"));
        Report { machine, command, idle_load: 0.01, load, skipped: vec![text("somebody")], records }
    }

    #[test]
    fn a_report_survives_being_written_down() {
        let mut records: Vec<Record> =
            [1.0, 9.0, 3.0].map(|v| of("rates/64 B/pinned", Contender::AfXdp, 64.0, &[("requests_per_s", v)])).into();
        records[1].said.push("an error".to_owned());
        records.insert(1, of("rates/64 B/default", Contender::Nginx, 64.0, &[]));
        records.push(of("rates/64 B/pinned", Contender::Nginx, 64.0, &[("p99_us", 2.5)]));
        let before = report(records);
        let after = Report::parse(&before.json().to_string()).unwrap();
        assert_eq!(after, before);
        assert_eq!(after.median("rates/64 B/pinned", Contender::AfXdp, "requests_per_s"), Some(3.0));
        assert_eq!(after.median("rates/64 B/pinned", Contender::AfXdp, "p99_us"), None);
        let order: Vec<(String, &str)> = after.firsts().iter().map(|f| (f.id(), f.contender.as_str())).collect();
        let (pinned, default) = ("rates/64 B/pinned".to_owned(), "rates/64 B/default".to_owned());
        assert_eq!(order, [(pinned.clone(), "khamsin af-xdp"), (pinned, "nginx"), (default, "nginx")]);
        assert!(Report::parse("{}").is_err());
    }
}
