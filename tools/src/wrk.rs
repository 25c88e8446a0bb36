//! Figures in what wrk says; ab writes them the same way.

use anyhow::{Context, Result, bail};

/// The number behind a label.
///
/// # Errors
/// There is none.
pub fn number_behind(text: &str, label: &str) -> Result<f64> {
    let rest = text.split_once(label).with_context(|| format!("no `{label}` in:\n{text}"))?.1;
    rest.split_whitespace().next().and_then(|n| n.parse().ok()).with_context(|| format!("no number in:\n{text}"))
}

/// A line such as `  99%    1.23ms` of wrk's, in microseconds.
///
/// # Errors
/// There is no such line, or its time is in an unknown unit.
pub fn latency(text: &str, percentile: &str) -> Result<f64> {
    let line = text.lines().map(str::trim).find_map(|l| l.strip_prefix(percentile));
    let word = line.with_context(|| format!("no {percentile} in:\n{text}"))?.trim();
    let digits = word.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(word.len());
    let scale = match &word[digits..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => bail!("wrk counts time in `{other}`"),
    };
    Ok(word[..digits].parse::<f64>()? * scale)
}
