//! A flow's pictures as one SVG.

use super::series::{Direction, Pictures, Points, thin};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 1320;
const UP: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const DOWN: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const AGAIN: RGBColor = RGBColor(0xc0, 0x10, 0x30);
const GREY: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// Characters of a title.
const TITLE_MAX: usize = 180;

/// A unit of an axis, and when it is taken.
struct Unit {
    /// From this on, in the unit that the series have.
    from: f64,
    /// What a value of theirs is multiplied by.
    times: f64,
    name: &'static str,
}

const fn unit(from: f64, times: f64, name: &'static str) -> Unit {
    Unit { from, times, name }
}

/// Of seconds, Mbit/s, milliseconds and kB; in ascending order.
const TIME: [Unit; 4] =
    [unit(0.0, 1e3, "ms"), unit(1.0, 1.0, "s"), unit(600.0, 1.0 / 60.0, "min"), unit(10_800.0, 1.0 / 3600.0, "h")];
const RATE: [Unit; 4] =
    [unit(0.0, 1e6, "bit/s"), unit(1e-3, 1e3, "kbit/s"), unit(1.0, 1.0, "Mbit/s"), unit(1e3, 1e-3, "Gbit/s")];
const DELAY: [Unit; 3] = [unit(0.0, 1e3, "us"), unit(1.0, 1.0, "ms"), unit(1e3, 1e-3, "s")];
const SIZE: [Unit; 4] = [unit(0.0, 1e3, "bytes"), unit(1.0, 1.0, "kB"), unit(1e3, 1e-3, "MB"), unit(1e6, 1e-6, "GB")];

impl Unit {
    /// The one for an axis that ends at `highest`.
    fn of(units: &[Unit], highest: f64) -> &Unit {
        let reached = units.partition_point(|unit| unit.from <= highest);
        &units[reached.max(1) - 1]
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line of a picture.
struct Line<'p> {
    label: &'p str,
    colour: RGBColor,
    points: &'p Points,
    /// Dots instead of a line.
    dots: bool,
}

/// The SVG text of the four pictures under `title`.
///
/// # Errors
/// The pictures cannot be drawn: a defect.
pub fn svg(title: &str, pictures: &Pictures) -> Result<String> {
    let mut text = String::new();
    let title = plain(title);
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        let root = root.titled(&title, ("sans-serif", title_size(&title))).map_err(drawing)?;
        let areas = root.split_evenly((4, 1));
        let (up, down) = (&pictures.up, &pictures.down);
        let seconds = pictures.seconds;
        let lines = both(up, down, |d| &d.throughput, ["client to server", "server to client"], false);
        chart(&areas[0], "throughput", &RATE, seconds, &lines)?;
        let lines = both(up, down, |d| &d.rtt, ["client's text to its ACK", "server's text to its ACK"], true);
        chart(&areas[1], "round trip as seen where it was recorded", &DELAY, seconds, &lines)?;
        chart(&areas[2], "windows and flight", &SIZE, seconds, &windows(up, down))?;
        chart(&areas[3], "sequence", &SIZE, seconds, &sequences(up, down))?;
        root.present().map_err(drawing)?;
    }
    Ok(text)
}

/// The title without what XML has no place for: control characters and two that are none. The name of a file may have them.
fn plain(title: &str) -> String {
    let odd = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    let mut plain: String =
        title.chars().take(TITLE_MAX).map(|c| if odd(c) { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if title.chars().nth(TITLE_MAX).is_some() {
        plain.push('…');
    }
    plain
}

/// Pixels, so that a long title has room beside the edges.
fn title_size(title: &str) -> u32 {
    (WIDTH * 17 / 10 / title.chars().count().max(1) as u32).clamp(9, 18)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the picture cannot be drawn: {error}")
}

fn both<'p>(
    up: &'p Direction,
    down: &'p Direction,
    of: impl Fn(&'p Direction) -> &'p Points,
    [first, second]: [&'p str; 2],
    dots: bool,
) -> Vec<Line<'p>> {
    vec![
        Line { label: first, colour: UP, points: of(up), dots },
        Line { label: second, colour: DOWN, points: of(down), dots },
    ]
}

fn windows<'p>(up: &'p Direction, down: &'p Direction) -> Vec<Line<'p>> {
    let mut lines = both(up, down, |d| &d.flight, ["client's bytes in flight", "server's bytes in flight"], false);
    lines.push(Line { label: "window of the client", colour: GREY, points: &up.window, dots: false });
    lines.push(Line { label: "window of the server", colour: BLACK, points: &down.window, dots: false });
    lines
}

fn sequences<'p>(up: &'p Direction, down: &'p Direction) -> Vec<Line<'p>> {
    let mut lines = both(up, down, |d| &d.sequence, ["client", "server"], false);
    lines.push(Line { label: "client, again", colour: AGAIN, points: &up.again, dots: true });
    lines.push(Line { label: "server, again", colour: AGAIN, points: &down.again, dots: true });
    lines
}

fn chart(area: &Area<'_>, title: &str, units: &[Unit], seconds: f64, lines: &[Line<'_>]) -> Result<()> {
    // The names stand above everything that is drawn, each of them a good tenth of the panel high.
    let lines: Vec<&Line<'_>> = lines.iter().filter(|line| !line.points.is_empty()).collect();
    let room = 1.12 + 0.12 * lines.len() as f64;
    let highest = lines.iter().flat_map(|line| line.points).map(|(_, value)| *value).fold(0.0, f64::max);
    let (unit, time) = (Unit::of(units, highest), Unit::of(&TIME, seconds));
    let top = if highest > 0.0 { highest * unit.times * room } else { 1.0 };
    let end = seconds * time.times;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(30)
        .caption(format!("{title}, {}", unit.name), ("sans-serif", 14))
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)
        .map_err(drawing)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).x_labels(11).y_labels(7).x_desc(time.name);
    mesh.x_label_formatter(&|at| number(*at)).y_label_formatter(&|value| number(*value)).draw().map_err(drawing)?;
    for line in &lines {
        let colour = line.colour;
        // What lies far outside, such as text from before the stream began, would be further away than pixels count.
        let inside =
            |(at, value): (f64, f64)| ((at * time.times).clamp(0.0, end), (value * unit.times).clamp(0.0, top));
        let points: Points = thin(line.points).into_iter().map(inside).collect();
        // A line of one point is none.
        let series = match line.dots || points.len() == 1 {
            true => chart.draw_series(points.into_iter().map(|point| Circle::new(point, 2, colour.filled()))),
            false => chart.draw_series(LineSeries::new(points, colour)),
        };
        let legend = series.map_err(drawing)?;
        legend.label(line.label).legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], colour.filled()));
    }
    if lines.is_empty() {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(GREY)
        .draw()
        .map_err(drawing)
}

/// A label of an axis: as many places as it has, three at most behind the point, and more where it is small.
fn number(value: f64) -> String {
    let places = if value.abs() < 0.01 { 6 } else { 3 };
    let text = format!("{value:.places$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_that_people_read() {
        for (units, highest, name) in [
            (&TIME[..], 0.0, "ms"),
            (&TIME, 0.014, "ms"),
            (&TIME, 59.0, "s"),
            (&TIME, 3_600.0, "min"),
            (&TIME, 1e7, "h"),
            (&RATE, 0.000_4, "bit/s"),
            (&RATE, 9_000.0, "Gbit/s"),
            (&DELAY, -1.0, "us"),
            (&SIZE, 8_222.0, "MB"),
        ] {
            assert_eq!(Unit::of(units, highest).name, name, "{highest}");
        }
        let labels = [0.0, 2000.0, 0.5, 12.25, 0.000_4, 1e-9, 14.000_000_000_2].map(number);
        assert_eq!(labels, ["0", "2000", "0.5", "12.25", "0.0004", "0", "14"]);
    }

    #[test]
    fn a_title_is_what_xml_has_a_place_for() {
        assert_eq!(plain("a\u{1}b\u{ffff}\u{85}"), "a\u{fffd}b\u{fffd}\u{fffd}");
        let long = plain(&"x".repeat(10_000));
        assert_eq!((long.chars().count(), title_size(&long)), (TITLE_MAX + 1, 9));
        assert_eq!(title_size("short"), 18);
    }

    #[test]
    fn what_lies_far_outside_is_drawn_at_the_edge() {
        let sequence = vec![(0.0, -4e12), (1e-4, 0.001), (1e30, 0.001)];
        let up = Direction { sequence, ..Direction::default() };
        let pictures = Pictures { up, down: Direction::default(), seconds: 1e-3 };
        assert!(svg("far outside", &pictures).unwrap().contains("polyline"));
    }
}
