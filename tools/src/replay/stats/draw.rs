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
    // XML has no place for control characters, and the name of a file may have some.
    let title: String = title.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        let root = root.titled(&title, ("sans-serif", 18)).map_err(drawing)?;
        let areas = root.split_evenly((4, 1));
        let (up, down) = (&pictures.up, &pictures.down);
        let seconds = pictures.seconds;
        let lines = both(up, down, |d| &d.throughput, ["client to server", "server to client"], false);
        chart(&areas[0], "throughput, Mbit/s", seconds, &lines)?;
        let lines = both(up, down, |d| &d.rtt, ["client's text to its ACK", "server's text to its ACK"], true);
        chart(&areas[1], "round trip as seen where it was recorded, ms", seconds, &lines)?;
        chart(&areas[2], "windows and flight, kB", seconds, &windows(up, down))?;
        chart(&areas[3], "sequence, kB", seconds, &sequences(up, down))?;
        root.present().map_err(drawing)?;
    }
    Ok(text)
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

fn chart(area: &Area<'_>, title: &str, seconds: f64, lines: &[Line<'_>]) -> Result<()> {
    // The names stand above everything that is drawn, each of them a good tenth of the panel high.
    let names = lines.iter().filter(|line| !line.points.is_empty()).count();
    let room = 1.12 + 0.12 * names as f64;
    let highest = lines.iter().flat_map(|line| line.points).map(|(_, value)| *value).fold(0.0, f64::max);
    let top = if highest > 0.0 { highest * room } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption(title, ("sans-serif", 14))
        .x_label_area_size(26)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..seconds, 0.0..top)
        .map_err(drawing)?;
    chart.configure_mesh().light_line_style(WHITE).x_labels(11).y_labels(7).x_desc("s").draw().map_err(drawing)?;
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let colour = line.colour;
        // What lies far outside, such as text from before the stream began, would be further away than pixels count.
        let inside = |(at, value): (f64, f64)| (at.clamp(0.0, seconds), value.clamp(0.0, top));
        let points: Points = thin(line.points).into_iter().map(inside).collect();
        let series = match line.dots {
            true => chart.draw_series(points.into_iter().map(|point| Circle::new(point, 2, colour.filled()))),
            false => chart.draw_series(LineSeries::new(points, colour)),
        };
        let legend = series.map_err(drawing)?;
        legend.label(line.label).legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(GREY)
        .draw()
        .map_err(drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_far_outside_is_drawn_at_the_edge() {
        let sequence = vec![(0.0, -4e12), (1e-4, 0.001), (1e30, 0.001)];
        let up = Direction { sequence, ..Direction::default() };
        let pictures = Pictures { up, down: Direction::default(), seconds: 1e-3 };
        assert!(svg("far outside", &pictures).unwrap().contains("polyline"));
    }
}
