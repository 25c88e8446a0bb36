//! How far the load is, while it runs: a bar on a terminal, a line every few seconds elsewhere.

use super::book::{Gauge, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use khamsin::output::note;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Between two lines where there is no terminal.
const LINE_EVERY: u32 = 20;
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);

pub(super) struct Progress {
    gauges: Vec<Arc<Gauge>>,
    bar: ProgressBar,
    lines: bool,
    looks: u32,
    answered: u64,
    connections: usize,
}

impl Progress {
    /// `measured`: how long the measurement will take.
    pub(super) fn new(gauges: Vec<Arc<Gauge>>, measured: Duration, connections: usize, quiet: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::new(measured.as_millis() as u64);
        if quiet || !terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{prefix:>9} [{bar:32}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { gauges, bar, lines: !quiet && !terminal, looks: 0, answered: 0, connections }
    }

    /// Shows how things stand; once every [`LOOK`].
    pub(super) fn look(&mut self) {
        let sum = |f: fn(&Gauge) -> u64| self.gauges.iter().map(|g| f(g)).sum::<u64>();
        let (open, errors) = (sum(|g| g.open.load(Relaxed) as u64), sum(|g| g.errors.load(Relaxed)));
        let answered = sum(|g| g.answered.load(Relaxed));
        let stage = self.gauges.iter().map(|g| g.stage.load(Relaxed)).min().unwrap_or(0);
        let word = match stage {
            s if s == Stage::Opening as u8 => "opening",
            s if s == Stage::Warm as u8 => "warm-up",
            s if s == Stage::Measure as u8 => "measuring",
            s if s == Stage::Drain as u8 => "draining",
            s if s == Stage::Wake as u8 => "waking",
            _ => "done",
        };
        if stage == Stage::Measure as u8 {
            self.bar.inc(LOOK.as_millis() as u64);
        }
        let rate = (answered - self.answered) as f64 / LOOK.as_secs_f64();
        self.answered = answered;
        self.looks += 1;
        let message = format!("{open}/{} connections, {rate:.0} requests/s, {errors} errors", self.connections);
        if self.lines && self.looks.is_multiple_of(LINE_EVERY) {
            note(format_args!("khamsin-load: {word}: {message}"));
        }
        self.bar.set_prefix(word);
        self.bar.set_message(message);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
