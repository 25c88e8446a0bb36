//! The committed figures.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// How much more than its figure a case may cost.
pub const MARGIN: f64 = 1.02;

/// Figures by the compiler's version, then by the name of what is counted.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Budget(BTreeMap<String, BTreeMap<String, f64>>);

impl Budget {
    /// Reads the figures in `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Budget> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let figures = serde_json::from_str(&text).with_context(|| format!("{} holds no figures", path.display()))?;
        Ok(Budget(figures))
    }

    /// Replaces the figures of `compiler` and writes all to `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn replace(&mut self, path: &Path, compiler: &str, figures: BTreeMap<String, f64>) -> Result<()> {
        self.0.insert(compiler.to_owned(), figures);
        let text = serde_json::to_string_pretty(&self.0)? + "\n";
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// The figures of `compiler`.
    pub fn of(&self, compiler: &str) -> Option<&BTreeMap<String, f64>> {
        self.0.get(compiler)
    }
}

/// What is wrong with `measured`, a sentence for each; nothing if all is well. Something that was never measured before, or
/// is not measured any more, is wrong too: a gate with a hole holds nothing.
pub fn judge(committed: &BTreeMap<String, f64>, measured: &BTreeMap<String, f64>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, &figure) in measured {
        match committed.get(name) {
            Some(&was) if figure <= was * MARGIN => {}
            Some(&was) => wrong.push(format!(
                "{name} costs {figure:.1}, {:+.1} % of the committed {was:.1}: find out why, or commit the new figure with the reason",
                (figure / was - 1.0) * 100.0
            )),
            None => wrong.push(format!("{name} has no committed figure: run this with --write and commit it")),
        }
    }
    let gone = committed.keys().filter(|name| !measured.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{name} has a committed figure and was not measured")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|&(name, figure)| (name.to_owned(), figure)).collect()
    }

    #[test]
    fn two_percent_more_is_too_much() {
        let committed = figures(&[("a", 1000.0)]);
        assert!(judge(&committed, &figures(&[("a", 1020.0)])).is_empty());
        assert!(judge(&committed, &figures(&[("a", 500.0)])).is_empty());
        assert_eq!(judge(&committed, &figures(&[("a", 1021.0)])).len(), 1);
    }

    #[test]
    fn what_has_no_figure_and_what_has_no_measurement_are_wrong() {
        assert_eq!(judge(&figures(&[("a", 1.0)]), &figures(&[("b", 1.0)])).len(), 2);
    }

    #[test]
    fn figures_survive_being_written() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let mut budget = Budget::default();
        budget.replace(&path, "rustc 1.95.0", figures(&[("a", 2.5)])).unwrap();
        assert_eq!(Budget::read(&path).unwrap(), budget);
        assert_eq!(budget.of("rustc 1.95.0"), Some(&figures(&[("a", 2.5)])));
    }
}
