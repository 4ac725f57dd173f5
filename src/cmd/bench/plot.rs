//! A plot of latency and throughput over time.

use super::coordinator::RunResult;
use super::counters::Second;
use super::plan::Plan;
use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontDesc;
use std::error::Error;
use std::path::Path;

const SIZE: (u32, u32) = (960, 640);

/// The plotted quantiles.
const QUANTILES: [(&str, f64, RGBColor); 3] = [
    ("p50", 0.5, RGBColor(31, 119, 180)),
    ("p99", 0.99, RGBColor(255, 127, 14)),
    ("max", 1.0, RGBColor(214, 39, 40)),
];

/// Shortest part of a last second to plot: a shorter one would look like a drop.
const WHOLE: f64 = 0.25;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// One second, of which the last may be cut short.
struct Point {
    at: f64,
    per_second: f64,
    latencies: Histogram<u64>,
}

/// Draws the plot.
pub(super) fn draw(file: &Path, plan: &Plan, run: &RunResult) -> anyhow::Result<()> {
    let points = points(run)?;
    let cannot = || format!("cannot write --plot {}", file.display());
    // Check that the file can be created: the library loses its own error when it drops the drawing area.
    std::fs::File::create(file).with_context(cannot)?;
    let drawing = || -> Drawn {
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let title = format!(
            "{}: {} connections, {} publish, {} B",
            plan.authority, plan.connections, plan.publishers, plan.size
        );
        let area = area.titled(&title, font(18))?;
        let (above, below) = area.split_vertically((SIZE.1 - 40) / 2);
        latencies(&above, &points)?;
        throughput(&below, &points)?;
        area.present()?;
        Ok(())
    };
    drawing().map_err(|error| anyhow!("{error}")).with_context(cannot)
}

fn points(run: &RunResult) -> anyhow::Result<Vec<Point>> {
    let measured = run.measured.as_secs_f64();
    let seconds = run.verdict.counters.latencies.seconds();
    let whole = |(at, _): &(usize, &Second)| measured - *at as f64 > WHOLE;
    let point = |(at, second): (usize, &Second)| {
        let length = (measured - at as f64).min(1.0);
        let per_second = second.deliveries as f64 / length;
        Ok(Point { at: at as f64 + length, per_second, latencies: second.histogram()? })
    };
    seconds.iter().enumerate().take_while(whole).map(point).collect()
}

fn font(size: i32) -> FontDesc<'static> {
    ("sans-serif", size).into_font()
}

fn end(points: &[Point]) -> f64 {
    points.last().map_or(1.0, |point| point.at)
}

fn latencies(area: &Area<'_>, points: &[Point]) -> Drawn {
    let known: Vec<_> = points.iter().filter(|point| !point.latencies.is_empty()).collect();
    let milliseconds = |point: &Point, q: f64| point.latencies.value_at_quantile(q) as f64 / 1e6;
    let low = known.iter().map(|point| milliseconds(point, 0.5)).fold(f64::MAX, f64::min).min(1.0);
    let high = known.iter().map(|point| milliseconds(point, 1.0)).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end(points), ((low * 0.8)..(high * 1.25)).log_scale())?;
    chart
        .configure_mesh()
        .y_desc("latency, ms")
        .y_label_formatter(&|value| format!("{value}"))
        .label_style(font(13))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (name, q, colour) in QUANTILES {
        let line = known.iter().map(|point| (point.at, milliseconds(point, q)));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font(font(13))
        .draw()?;
    Ok(())
}

fn throughput(area: &Area<'_>, points: &[Point]) -> Drawn {
    let high = points.iter().map(|point| point.per_second).fold(1.0, f64::max);
    let (unit, name) = if high >= 1e6 { (1e6, "million deliveries/s") } else { (1.0, "deliveries/s") };
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end(points), 0.0..(high * 1.1 / unit))?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc(name)
        .label_style(font(13))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let colour = QUANTILES[0].2;
    let line = points.iter().map(|point| (point.at, point.per_second / unit));
    chart.draw_series(AreaSeries::new(line, 0.0, colour.mix(0.2)).border_style(colour.stroke_width(2)))?;
    Ok(())
}
