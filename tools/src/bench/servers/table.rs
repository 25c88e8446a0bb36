//! The report for people: a table for each case, the bars, and what the figures do not say.

use super::bars::BARS;
use super::contender::Contender;
use super::record::{Record, Report};
use std::fmt::Write as _;

/// Background work above this share of one core spoils the figures.
const IDLE_LOAD_MAX: f64 = 0.1;

const NOTES: &str = "\
Medians of runs taken in turns; the server on one core, the client on another. `to nginx` is the ratio of rates. CPU is given three ways, \
because the kernel bills receive work to the core that does it: time of the server's processes, busy time of the server's core, busy time \
of the whole machine, each in microseconds a request. With billing `default` veth does a frame's receive work on the *sender's* core, so \
the TCP receive of a server on kernel sockets is billed to the client; with `pinned` it is done on the server's core for everybody (RPS \
for kernel sockets, a pinned NAPI thread for AF_XDP). khamsin on AF_XDP spins while it is busy, so its core is always busy then.

Where bypass does not help: bodies of several segments at MTU 1500 against a kernel client over veth. A response of 8,046 B is six frames \
that khamsin builds, copies and sends one by one, where a server on kernel sockets hands over one GSO skb that nobody cuts up. See the \
wrk row of 8,046 B and the row of 1 MB; a larger MTU (3,498 B is the most here) or the TAP rung, which has TSO, is what helps. And wrk's \
own core saturates first: the ratio it can show ends near 1.4 for small files and near 2 for new connections.
";

/// Everything.
pub(crate) fn markdown(report: &Report) -> String {
    let mut out =
        format!("`{}` on {}, load {} to {}\n", report.command, report.machine, report.load[0], report.load[1]);
    if report.idle_load > IDLE_LOAD_MAX {
        line(
            &mut out,
            format!("\n**The machine was not idle: {:.2} cores were busy before the first run.**", report.idle_load),
        );
    }
    for sentence in &report.skipped {
        line(&mut out, format!("\nSKIPPED {sentence}"));
    }
    let firsts = report.firsts();
    let mut cases: Vec<&str> = firsts.iter().map(|f| f.case.as_str()).collect();
    cases.dedup();
    for case in cases {
        line(&mut out, format!("\n| {case} | billing | server | {} |", COLUMNS.map(|c| c.title).join(" | ")));
        line(&mut out, format!("|---|---|---|{}", "---|".repeat(COLUMNS.len())));
        for first in firsts.iter().filter(|f| f.case == case) {
            line(&mut out, row(report, first));
        }
    }
    bars(&mut out, report);
    out + "\n" + NOTES
}

fn line(out: &mut String, text: String) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

struct Column {
    title: &'static str,
    figure: &'static str,
    digits: usize,
    to_nginx: bool,
}

const fn column(title: &'static str, figure: &'static str, digits: usize) -> Column {
    Column { title, figure, digits, to_nginx: false }
}

const COLUMNS: [Column; 14] = [
    column("requests/s", "requests_per_s", 0),
    Column { to_nginx: true, ..column("to nginx", "requests_per_s", 2) },
    column("MB/s", "megabytes_per_s", 1),
    column("offered/s", "offered_per_s", 0),
    column("p50 us", "p50_us", 0),
    column("p99 us", "p99_us", 0),
    column("p99.9 us", "p999_us", 0),
    column("CPU us/request, server", "server_us", 2),
    column("its core", "core_us", 2),
    column("machine", "machine_us", 2),
    column("server's cores", "server_cores", 2),
    column("B/idle connection", "bytes_each", 0),
    column("kernel's B", "kernel_bytes_each", 0),
    column("errors", "errors", 0),
];

fn row(report: &Report, first: &Record) -> String {
    let same = |r: &Record, contender: &str| r.id() == first.id() && r.contender == contender;
    let of = |contender: &str, figure: &str| report.median_of(|r| same(r, contender), figure);
    let mut text = format!("| {} | {} | {}", first.name, first.billing, first.contender);
    for column in &COLUMNS {
        let mut value = of(&first.contender, column.figure);
        if column.to_nginx {
            value = value.zip(of(Contender::Nginx.name(), column.figure)).map(|(own, nginx)| own / nginx);
        }
        let shown = value.map_or_else(|| "-".to_owned(), |v| format!("{v:.*}", column.digits));
        text += &format!(" | {shown}");
    }
    text + " |"
}

fn bars(out: &mut String, report: &Report) {
    line(out, "\n| bar | figure | bound | |\n|---|---|---|---|".to_owned());
    for bar in BARS {
        let (figure, word) = match bar.figure(report) {
            None => ("-".to_owned(), "not measured"),
            Some(figure) => (format!("{figure:.2}"), if bar.is_met_by(figure) { "met" } else { "**not met**" }),
        };
        line(out, format!("| {} | {figure} | {} | {word} |", bar.what, bar.bound()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::record::tests::{of, report};

    #[test]
    fn rows_are_medians_beside_nginx_and_bars_beside_their_figures() {
        let mut records = Vec::new();
        for rate in [100.0, 1.0, 110.0] {
            records.push(of("wrk/64 B/default", Contender::Nginx, 0.0, &[("requests_per_s", rate), ("p50_us", 7.0)]));
            records.push(of("wrk/64 B/default", Contender::AfXdp, 0.0, &[("requests_per_s", 1.35 * rate)]));
            records.push(of("wrk/64 B/default", Contender::Epoll, 0.0, &[("requests_per_s", 0.5 * rate)]));
        }
        let text = markdown(&report(records));
        for want in [
            "| 64 B | default | nginx | 100 | 1.00 | - | - | 7 | - |",
            "| 64 B | default | khamsin af-xdp | 135 | 1.35 | - |",
            "| wrk, 64 B: khamsin / nginx | 1.35 | >= 1.3 | met |",
            "| wrk, 64 B, epoll rung: khamsin / nginx | 0.50 | >= 1 | **not met** |",
            "| goodput at 10x overload / peak | - | >= 0.9 | not measured |",
            "SKIPPED somebody",
        ] {
            assert!(text.contains(want), "no `{want}` in\n{text}");
        }
        assert!(!text.contains("not idle"));
    }
}
