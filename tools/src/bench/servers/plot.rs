//! The plots, as SVG.

use super::contender::Contender;
use super::record::{Record, Report};
use anyhow::{Context, Result, anyhow};
use khamsin::output::note;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (900, 480);
const FONT: &str = "sans-serif";
/// Height of the line that says whose colour is whose.
const LEGEND: i32 = 26;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Series = Vec<(Contender, Vec<(f64, f64)>)>;

/// Draws what the report has figures for, into files of `folder`.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn all(report: &Report, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for (name, text) in drawings(report)? {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        note(format_args!("drew {}", path.display()));
    }
    Ok(())
}

/// Name and text of each plot that there are figures for.
fn drawings(report: &Report) -> Result<Vec<(&'static str, String)>> {
    let mut drawn = Vec::new();
    let mut keep = |name, text: Option<String>| drawn.extend(text.map(|t| (name, t)));
    for billing in ["default", "pinned"] {
        let wanted = |r: &Record| matches!(&*r.case, "rates" | "new-connections" | "echo") && r.billing == billing;
        let name = if billing == "pinned" { "requests-pinned.svg" } else { "requests.svg" };
        let title = format!("Requests/s of one core, khamsin-load over AF_XDP, receive work billed: {billing}");
        keep(name, bars(report, &title, wanted)?);
    }
    keep("wrk.svg", bars(report, "Requests/s of one core, kernel clients", |r| matches!(&*r.case, "wrk" | "ab"))?);
    let held = Curve { title: "Requests/s against connections open", x: "connections open", log_x: true, log_y: false };
    keep("connections.svg", curve(held, &series(report, "held", "requests_per_s", 1.0))?);
    let memory = Curve { title: "Resident bytes of the server for each idle connection", log_y: true, ..held };
    keep("memory.svg", curve(memory, &series(report, "held", "bytes_each", 1.0))?);
    for (name, title, figure) in [
        ("latency-p50.svg", "Median latency, us", "p50_us"),
        ("latency-p99.svg", "99th percentile of latency, us", "p99_us"),
        ("latency-p999.svg", "99.9th percentile of latency, us", "p999_us"),
    ] {
        let load = Curve { title, x: "offered load, % of nginx's peak", log_x: false, log_y: true };
        keep(name, curve(load, &series(report, "latency", figure, 100.0))?);
    }
    let over =
        Curve { title: "Right answers/s under overload", x: "offered load, times the peak", log_x: true, log_y: false };
    keep("overload.svg", curve(over, &series(report, "overload", "requests_per_s", 1.0))?);
    Ok(drawn)
}

fn color(contender: Contender) -> RGBColor {
    match contender {
        Contender::Nginx => RGBColor(0, 140, 70),
        Contender::Libevent => RGBColor(130, 130, 130),
        Contender::AfXdp => RGBColor(200, 60, 30),
        Contender::Tap => RGBColor(230, 160, 30),
        Contender::Epoll => RGBColor(50, 90, 200),
    }
}

/// Medians of a figure over the places of a case's cells, for each contender.
fn series(report: &Report, case: &str, figure: &str, scale: f64) -> Series {
    let line = |contender: Contender| {
        let mut points: Vec<(f64, f64)> = report
            .firsts()
            .iter()
            .filter(|f| f.case == case && f.contender == contender.name() && f.x > 0.0)
            .filter_map(|f| Some((f.x * scale, report.median(&f.id(), contender, figure)?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        (contender, points)
    };
    Contender::ALL.into_iter().map(line).filter(|(_, points)| !points.is_empty()).collect()
}

/// Requests/s of the cells that are `wanted`, a group of bars each, with the number on top.
fn bars(report: &Report, title: &str, wanted: impl Fn(&Record) -> bool) -> Result<Option<String>> {
    let mut cells: Vec<(String, String)> = Vec::new();
    for first in report.firsts().into_iter().filter(|f| wanted(f)) {
        let name = if first.case == "rates" || first.case == "wrk" {
            first.name.clone()
        } else {
            format!("{}, {}", first.case, first.name)
        };
        if !cells.iter().any(|(id, _)| *id == first.id()) {
            cells.push((first.id(), name));
        }
    }
    let of = |id: &str, contender| report.median(id, contender, "requests_per_s");
    let most = cells.iter().flat_map(|(id, _)| Contender::ALL.map(|c| of(id, c).unwrap_or(0.0))).fold(0.0, f64::max);
    if most <= 0.0 {
        return Ok(None);
    }
    draw(|area, below| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 17))
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(74)
            .build_cartesian_2d(0.0..cells.len() as f64, 0.0..most * 1.12)?;
        let name = |x: &f64| cells.get(x.floor() as usize).map_or_else(String::new, |(_, name)| name.clone());
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_label_formatter(&|y| thousands(*y))
            .y_desc("requests/s")
            .draw()?;
        for (place, (id, _)) in cells.iter().enumerate() {
            let there: Vec<(Contender, f64)> =
                Contender::ALL.into_iter().filter_map(|c| Some((c, of(id, c)?))).collect();
            let width = 0.86 / there.len().max(1) as f64;
            for (i, (contender, rate)) in there.into_iter().enumerate() {
                let left = place as f64 + 0.07 + i as f64 * width;
                let bar = Rectangle::new([(left, 0.0), (left + width * 0.94, rate)], color(contender).filled());
                let number = Text::new(thousands(rate), (left, rate + most * 0.035), (FONT, 11));
                chart.draw_series([bar])?;
                chart.draw_series([number])?;
            }
            let under = chart.backend_coord(&(place as f64 + 0.07, 0.0));
            area.draw(&Text::new(name(&(place as f64)), (under.0, under.1 + 10), (FONT, 13)))?;
        }
        let shown: Vec<Contender> =
            Contender::ALL.into_iter().filter(|c| cells.iter().any(|(id, _)| of(id, *c).is_some())).collect();
        legend(below, &shown)
    })
    .map(Some)
}

/// What a plot of lines says on its edges.
#[derive(Clone, Copy)]
struct Curve {
    title: &'static str,
    x: &'static str,
    log_x: bool,
    log_y: bool,
}

/// One line for each contender; axes may be logarithmic.
fn curve(kind: Curve, series: &Series) -> Result<Option<String>> {
    let points = || series.iter().flat_map(|(_, points)| points.iter().copied());
    let (x_axis, y_axis) = (Axis { log: kind.log_x }, Axis { log: kind.log_y });
    let xs = x_axis.range(points().map(|p| p.0));
    let ys = y_axis.range(points().map(|p| p.1));
    let (Some(xs), Some(ys)) = (xs, ys) else { return Ok(None) };
    draw(|area, below| {
        let mut chart = ChartBuilder::on(area)
            .caption(kind.title, (FONT, 17))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(74)
            .build_cartesian_2d(RangedCoordf64::from(xs.0..xs.1), RangedCoordf64::from(ys.0..ys.1))?;
        chart
            .configure_mesh()
            .x_desc(kind.x)
            .x_label_formatter(&|x| x_axis.label(*x))
            .y_label_formatter(&|y| y_axis.label(*y))
            .draw()?;
        for (contender, points) in series {
            let placed: Vec<(f64, f64)> = points.iter().map(|p| (x_axis.place(p.0), y_axis.place(p.1))).collect();
            chart.draw_series(LineSeries::new(placed.clone(), color(*contender).stroke_width(2)))?;
            chart.draw_series(placed.into_iter().map(|at| Circle::new(at, 3, color(*contender).filled())))?;
        }
        legend(below, &series.iter().map(|(contender, _)| *contender).collect::<Vec<_>>())
    })
    .map(Some)
}

/// An axis, whose places are the values or their decadic logarithms.
#[derive(Clone, Copy)]
struct Axis {
    log: bool,
}

impl Axis {
    fn place(self, value: f64) -> f64 {
        if self.log { value.max(1e-3).log10() } else { value }
    }

    fn label(self, place: f64) -> String {
        thousands(if self.log { 10f64.powf(place) } else { place })
    }

    /// Everything, with a little room; from zero where it is not logarithmic.
    fn range(self, values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for place in values.map(|v| self.place(v)) {
            (least, most) = (least.min(place), most.max(place));
        }
        if least > most {
            return None;
        }
        let least = if self.log { least } else { least.min(0.0) };
        let room = ((most - least) * 0.06).max(0.02);
        Some((if self.log { least - room } else { least }, most + room))
    }
}

/// A number as people write it on axes.
fn thousands(value: f64) -> String {
    match value.abs() {
        v if v >= 999_500.0 => format!("{:.1}M", value / 1e6),
        v if v >= 9_995.0 => format!("{:.0}k", value / 1e3),
        v if v >= 999.5 => format!("{:.1}k", value / 1e3),
        v if v >= 10.0 || v == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

fn legend(area: &Area, shown: &[Contender]) -> Result<(), Failure> {
    for (i, contender) in shown.iter().enumerate() {
        let (x, y) = (86 + 140 * i as i32, 6);
        area.draw(&Rectangle::new([(x, y), (x + 12, y + 10)], color(*contender).filled()))?;
        area.draw(&Text::new(contender.name(), (x + 17, y), (FONT, 13)))?;
    }
    Ok(())
}

type Failure = DrawingAreaErrorKind<std::io::Error>;

/// An SVG of what `paint` paints.
fn draw(paint: impl FnOnce(&Area, &Area) -> Result<(), Failure>) -> Result<String> {
    let mut text = String::new();
    {
        let whole = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let failed = |e: Failure| anyhow!("draw a plot: {e}");
        whole.fill(&WHITE).map_err(failed)?;
        let (upper, lower) = whole.split_vertically(SIZE.1 as i32 - LEGEND);
        paint(&upper, &lower).map_err(failed)?;
        whole.present().map_err(failed)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::record::tests::{of, report};

    #[test]
    fn every_plot_shows_what_was_measured() {
        let (own, nginx) = (Contender::AfXdp, Contender::Nginx);
        let mut records = vec![
            of("rates/64 B x 64/default", nginx, 64.0, &[("requests_per_s", 147_000.0)]),
            of("rates/64 B x 64/default", own, 64.0, &[("requests_per_s", 558_000.0)]),
            of("overload/10x/pinned", own, 10.0, &[("requests_per_s", 90_000.0)]),
            of("overload/1x/pinned", own, 1.0, &[("requests_per_s", 100_000.0)]),
        ];
        for (x, rate) in [(10.0, 500_000.0), (1_000_000.0, 400_000.0)] {
            records.push(of(&format!("held/{x}/default"), own, x, &[("requests_per_s", rate), ("bytes_each", 90.0)]));
        }
        for (share, p99) in [(0.25, 20.0), (0.5, 30.0), (0.75, 900.0)] {
            records.push(of(&format!("latency/{share}/default"), nginx, share, &[("p99_us", p99)]));
        }
        let drawn = drawings(&report(records)).unwrap();
        let names: Vec<&str> = drawn.iter().map(|d| d.0).collect();
        assert_eq!(names, ["requests.svg", "connections.svg", "memory.svg", "latency-p99.svg", "overload.svg"]);
        for (name, text) in &drawn {
            assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{name}");
        }
        let [requests, connections, _, latency, _] = &drawn[..] else { panic!("five") };
        for word in ["558k", "147k", "64 B x 64", "nginx", "khamsin af-xdp"] {
            assert!(requests.1.contains(word), "no {word}");
        }
        assert!(!requests.1.contains("libevent"), "who was not measured is not in the legend");
        assert_eq!(connections.1.matches("<circle").count(), 2);
        assert_eq!(latency.1.matches("<circle").count(), 3);
    }

    #[test]
    fn numbers_and_ranges_read_well() {
        assert_eq!([0.0, 2.5, 12.0, 1500.0, 147_000.0, 1e6].map(thousands), ["0", "2.5", "12", "1.5k", "147k", "1.0M"]);
        let (log, plain) = (Axis { log: true }, Axis { log: false });
        assert_eq!(log.label(log.place(1000.0)), "1.0k");
        let (least, most) = log.range([10.0, 1000.0].into_iter()).unwrap();
        assert!(least < 1.0 && most > 3.0 && most < 3.5);
        assert_eq!(plain.range([5.0, 10.0].into_iter()).unwrap().0, 0.0);
        assert!(plain.range(std::iter::empty()).is_none());
    }
}
