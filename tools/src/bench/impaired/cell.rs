//! The cells: which link, which work, and what khamsin is to reach beside Linux.

use khamsin_drivers::sim::{Path, PathConfig, QueueLimit};
use std::time::Duration;

/// Round trip of the empty link, milliseconds.
const ROUND_TRIP_MS: u64 = 20;

/// What one run does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Work {
    /// Downloads over one connection as long as a run lasts; the figure is goodput.
    Download,
    /// Uploads so many bytes over one connection; the figure is goodput, up to the server's word that it has them all.
    Upload { bytes: u64 },
    /// Downloads `bytes`, `flows` times one after the other, each over a connection and a link of its own; the figure is
    /// the mean time from the first SYN to the last byte.
    Flow { bytes: usize, flows: u64 },
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) work: Work,
    /// khamsin / Linux: at least so much of a goodput, at most so much of a time.
    pub(crate) bar: f64,
    rate_bits_per_s: u64,
    loss_per_million: u32,
    reorder_per_million: u32,
}

impl Cell {
    /// All that the project's bars name.
    pub(crate) fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for (rate, rate_name) in [(100_000_000, "100M"), (1_000_000_000, "1G")] {
            let link = Cell {
                name: String::new(),
                work: Work::Download,
                bar: 0.98,
                rate_bits_per_s: rate,
                loss_per_million: 0,
                reorder_per_million: 0,
            };
            for (loss, loss_name) in [(0, "0%"), (1_000, "0.1%"), (10_000, "1%"), (30_000, "3%")] {
                let name = format!("download-{rate_name}-loss-{loss_name}");
                cells.push(Cell { name, loss_per_million: loss, ..link.clone() });
            }
            let reordered = Cell { bar: 0.95, reorder_per_million: 50_000, ..link };
            cells.push(Cell { name: format!("download-{rate_name}-reorder-5%"), ..reordered.clone() });
            let work = Work::Upload { bytes: rate / 8 };
            cells.push(Cell { name: format!("upload-{rate_name}-reorder-5%"), work, ..reordered });
        }
        let lossy = |name: &str, work, bar| Cell {
            name: name.to_owned(),
            work,
            bar,
            rate_bits_per_s: 100_000_000,
            loss_per_million: 10_000,
            reorder_per_million: 0,
        };
        cells.push(lossy("flow-14KB-loss-1%", Work::Flow { bytes: 14_000, flows: 40 }, 1.05));
        cells.push(lossy("flow-100KB-loss-1%", Work::Flow { bytes: 100_000, flows: 20 }, 1.05));
        cells.push(lossy("flow-1MB-loss-1%", Work::Flow { bytes: 1_000_000, flows: 8 }, 1.05));
        cells.push(lossy("upload-10MB-loss-1%", Work::Upload { bytes: 10_000_000 }, 0.95));
        cells
    }

    /// The link of this cell for one connection, the same at both ends. Its queue holds what it carries in a round trip.
    pub(crate) fn path(&self, seed: u64) -> Path {
        let config = PathConfig {
            rate_bits_per_s: self.rate_bits_per_s,
            queue: QueueLimit::Bytes(self.rate_bits_per_s / 8 * ROUND_TRIP_MS / 1000),
            delay_us: ROUND_TRIP_MS * 1000 / 2,
            loss_per_million: self.loss_per_million,
            reorder_per_million: self.reorder_per_million,
            reorder_us: 10_000,
            ..PathConfig::default()
        };
        Path::symmetric(seed, config)
    }

    /// Bytes that the link could carry in `time`.
    pub(crate) fn capacity(&self, time: Duration) -> u64 {
        (self.rate_bits_per_s as f64 / 8.0 * time.as_secs_f64()) as u64
    }

    /// Whether a smaller figure is a better one.
    pub(crate) fn is_time(&self) -> bool {
        matches!(self.work, Work::Flow { .. })
    }

    /// What the figures count.
    pub(crate) fn unit(&self) -> &'static str {
        if self.is_time() { "ms" } else { "Mbit/s" }
    }

    /// Whether `ratio`, khamsin's figure by Linux's, reaches the bar.
    pub(crate) fn is_reached_by(&self, ratio: f64) -> bool {
        if self.is_time() { ratio <= self.bar } else { ratio >= self.bar }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_are_those_of_the_bars() {
        let cells = Cell::all();
        let names: Vec<&str> = cells.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(cells.len(), 16, "{names:?}");
        let named = |name: &str| cells.iter().find(|c| c.name == name).unwrap();
        assert_eq!(named("download-1G-loss-3%").bar, 0.98);
        assert!(named("download-1G-reorder-5%").is_reached_by(0.95));
        assert!(!named("download-100M-loss-0%").is_reached_by(0.979));
        assert!(named("flow-14KB-loss-1%").is_reached_by(1.05) && !named("flow-14KB-loss-1%").is_reached_by(1.06));
        assert_eq!(named("download-100M-loss-1%").capacity(Duration::from_secs(2)), 25_000_000);
    }
}
