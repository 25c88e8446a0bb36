//! The bars: what a figure must be, or how it must stand to another of the same run.

use super::contender::Contender::{self, AfXdp, Epoll, Nginx, Tap};
use super::record::Report;

/// A figure: a cell's id, a contender and the figure's name.
type Place = (&'static str, Contender, &'static str);

/// One bar.
pub(crate) struct Bar {
    /// What it is about.
    pub(crate) what: &'static str,
    own: Place,
    /// What it is divided by.
    over: Option<Place>,
    bound: f64,
    /// The figure must be at least the bound; otherwise at most.
    at_least: bool,
}

const RATE: &str = "requests_per_s";

const fn ratio(what: &'static str, id: &'static str, own: Contender, bound: f64) -> Bar {
    Bar { what, own: (id, own, RATE), over: Some((id, Nginx, RATE)), bound, at_least: true }
}

const fn over_peak(what: &'static str, id: &'static str) -> Bar {
    Bar { what, own: (id, AfXdp, RATE), over: Some((id, AfXdp, "peak_per_s")), bound: 0.9, at_least: true }
}

/// The cell of 20,000 clients.
const CLIENTS: &str = "clients/20000 x 4 KB/s/default";
/// The cell of a million connections.
const MILLION: &str = "held/1000000/default";

/// All of them, in the order of issue 4.
pub(crate) const BARS: &[Bar] = &[
    Bar {
        what: "bytes per idle connection, 1M held",
        own: (MILLION, AfXdp, "bytes_each"),
        over: None,
        bound: 96.0,
        at_least: false,
    },
    ratio("64 B, receive work pinned: khamsin / nginx", "rates/64 B x 64/pinned", AfXdp, 4.0),
    ratio("8,046 B, receive work pinned: khamsin / nginx", "rates/8046 B x 64/pinned", AfXdp, 1.7),
    ratio("new connections, receive work pinned: khamsin / nginx", "new-connections/512 B/pinned", AfXdp, 6.5),
    ratio("64 B, 64 connections, as billed: khamsin / nginx", "rates/64 B x 64/default", AfXdp, 3.5),
    ratio("64 B, 1,000 connections, as billed: khamsin / nginx", "rates/64 B x 1000/default", AfXdp, 3.4),
    ratio("8,046 B, as billed: khamsin / nginx", "rates/8046 B x 64/default", AfXdp, 1.2),
    ratio("new connections, as billed: khamsin / nginx", "new-connections/512 B/default", AfXdp, 3.7),
    ratio("wrk, 64 B: khamsin / nginx", "wrk/64 B/default", AfXdp, 1.3),
    ratio("wrk, one request a connection: khamsin / nginx", "wrk/64 B, one request a connection/default", AfXdp, 1.9),
    ratio("wrk, 8,046 B: khamsin on TAP / nginx on veth", "wrk/8046 B/default", Tap, 1.3),
    ratio("wrk, 8,046 B, MTU 3498: khamsin / nginx", "wrk/8046 B, MTU 3498/default", AfXdp, 1.05),
    Bar {
        what: "p99 at 50 % of nginx's peak: khamsin / nginx",
        own: ("latency/50 %/default", AfXdp, "p99_us"),
        over: Some(("latency/50 %/default", Nginx, "p99_us")),
        bound: 0.5,
        at_least: false,
    },
    Bar {
        what: "requests/s with 1M connections open / with 10",
        own: (MILLION, AfXdp, RATE),
        over: Some(("held/10/default", AfXdp, RATE)),
        bound: 0.7,
        at_least: true,
    },
    over_peak("goodput at 10x overload / peak", "overload/10x/default"),
    over_peak("goodput at 10x overload / peak, receive work pinned", "overload/10x/pinned"),
    Bar { what: "20,000 clients: errors", own: (CLIENTS, AfXdp, "errors"), over: None, bound: 0.0, at_least: false },
    Bar {
        what: "20,000 clients: p99, us",
        own: (CLIENTS, AfXdp, "p99_us"),
        over: None,
        bound: 50_000.0,
        at_least: false,
    },
    Bar {
        what: "20,000 clients: share of a core",
        own: (CLIENTS, AfXdp, "server_cores"),
        over: None,
        bound: 0.6,
        at_least: false,
    },
    ratio("wrk, 64 B, epoll rung: khamsin / nginx", "wrk/64 B/default", Epoll, 1.0),
];

impl Bar {
    /// Whether it needs this cell of this contender.
    pub(crate) fn needs(&self, id: &str, contender: Contender) -> bool {
        let is = |place: &Place| place.0 == id && place.1 == contender;
        is(&self.own) || self.over.as_ref().is_some_and(is)
    }

    /// The figure of a report, `None` if it was not measured.
    pub(crate) fn figure(&self, report: &Report) -> Option<f64> {
        let own = report.median(self.own.0, self.own.1, self.own.2)?;
        let Some(over) = self.over else { return Some(own) };
        report.median(over.0, over.1, over.2).filter(|over| *over > 0.0).map(|over| own / over)
    }

    /// Whether `figure` reaches it.
    pub(crate) fn is_met_by(&self, figure: f64) -> bool {
        if self.at_least { figure >= self.bound } else { figure <= self.bound }
    }

    /// The bound with its sign.
    pub(crate) fn bound(&self) -> String {
        format!("{} {}", if self.at_least { ">=" } else { "<=" }, self.bound)
    }
}

/// Whether some bar needs this cell of this contender.
pub(crate) fn any_needs(id: &str, contender: Contender) -> bool {
    BARS.iter().any(|bar| bar.needs(id, contender))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::cell::{Case, Cell, Scale};
    use clap::ValueEnum;

    #[test]
    fn every_bar_stands_on_cells_that_are_measured() {
        let scale = Scale { held: 1_000_000, clients_seconds: 60 };
        let cells: Vec<Cell> = Case::value_variants().iter().flat_map(|case| Cell::of(*case, scale)).collect();
        for bar in BARS {
            for (id, contender, _) in [Some(bar.own), bar.over].into_iter().flatten() {
                let found = cells.iter().any(|c| c.id() == id && c.contenders().any(|who| who == contender));
                assert!(found, "{}: nobody measures {id} of {contender}", bar.what);
            }
        }
    }

    #[test]
    fn a_bar_is_met_on_its_side() {
        let least = ratio("", "", AfXdp, 1.5);
        assert!(least.is_met_by(1.5) && !least.is_met_by(1.49) && least.bound() == ">= 1.5");
        let most = Bar { at_least: false, ..least };
        assert!(most.is_met_by(1.5) && !most.is_met_by(1.51) && !most.is_met_by(f64::NAN));
    }
}
