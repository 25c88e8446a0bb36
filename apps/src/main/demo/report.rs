//! What the demo shows: live figures while it runs, a table at the end.

use super::load::Figures;
use crate::rung::Rung;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use khamsin::output::note;
use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::time::Duration;

/// Live figures: a progress bar on a terminal, a line a second elsewhere.
pub(crate) struct Live {
    bar: ProgressBar,
    rung: Rung,
    terminal: bool,
    answered: u64,
    lines: u64,
}

impl Live {
    pub(crate) fn new(rung: Rung, length: Duration) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::new(length.as_millis() as u64);
        bar.set_draw_target(if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
        // The template is a constant that the tests have seen; the default style is good enough otherwise.
        if let Ok(style) = ProgressStyle::with_template("{bar:24.cyan} {msg}") {
            bar.set_style(style);
        }
        Live { bar, rung, terminal, answered: 0, lines: 0 }
    }

    /// Shows how things stand: `elapsed` since the start, `since` since the last call, `open` connections.
    pub(crate) fn show(&mut self, figures: &mut Figures, open: usize, elapsed: Duration, since: Duration) {
        let rate = (figures.answered - self.answered) as f64 / since.as_secs_f64().max(1e-9);
        self.answered = figures.answered;
        let line = format!(
            "{open} connections  {} requests/s  p50 {}  p99 {}  {}",
            thousands(rate as u64),
            micros(figures.recent_us.value_at_quantile(0.5)),
            micros(figures.recent_us.value_at_quantile(0.99)),
            self.rung
        );
        figures.recent_us.reset();
        self.bar.set_position(elapsed.as_millis() as u64);
        if !self.terminal {
            self.lines += 1;
            note(format_args!("{:>4} s  {line}", elapsed.as_secs()));
        }
        self.bar.set_message(line);
    }

    /// Takes the bar away: what it showed is in the table.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The table at the end.
pub(crate) struct Summary<'a> {
    pub(crate) rung: Rung,
    pub(crate) connections: usize,
    pub(crate) elapsed: Duration,
    pub(crate) figures: &'a Figures,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (figures, seconds) = (self.figures, self.elapsed.as_secs_f64().max(1e-9));
        writeln!(f, "rung                {}", self.rung)?;
        writeln!(f, "time                {seconds:.1} s, {} connections at a time", self.connections)?;
        let rate = |n: u64| thousands((n as f64 / seconds) as u64);
        writeln!(f, "requests answered   {}  ({}/s)", thousands(figures.answered), rate(figures.answered))?;
        writeln!(f, "bytes verified      {}  ({}/s)", thousands(figures.verified), rate(figures.verified))?;
        writeln!(f, "connections opened  {}", thousands(figures.opened))?;
        writeln!(f, "latency             {}", quantiles(&figures.latency_us))?;
        write!(f, "failures            {}", thousands(figures.failures))?;
        figures.said.iter().try_for_each(|said| write!(f, "\n                    {said}"))
    }
}

fn quantiles(latency_us: &Histogram<u64>) -> String {
    let mut line = String::new();
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("most", 1.0)] {
        let separator = if line.is_empty() { "" } else { "  " };
        // Writing to a string cannot fail.
        let _ = write!(line, "{separator}{name} {}", micros(latency_us.value_at_quantile(quantile)));
    }
    line
}

/// Microseconds for people.
fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// A number with its thousands apart.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut apart = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([7, 1500, 2_000_000].map(micros), ["7 us", "1.50 ms", "2.00 s"]);
    }

    #[test]
    fn the_template_of_the_bar_is_sound() {
        assert!(ProgressStyle::with_template("{bar:24.cyan} {msg}").is_ok());
    }
}
