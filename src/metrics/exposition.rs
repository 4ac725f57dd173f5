//! The Prometheus text format.

use super::HistogramSnapshot;
use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

/// The labels of one series. No value may be one that a client can choose.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// The response to one scrape, built metric by metric.
#[derive(Default)]
pub struct Exposition {
    families: Vec<MetricFamily>,
}

impl Exposition {
    /// The content type of [`Exposition::text`].
    pub const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;

    /// Adds a counter. The series of one metric must be added one after another.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_counter(counter);
        self.add(name, help, MetricType::COUNTER, metric);
    }

    /// Adds a gauge. The same holds for its series.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_gauge(gauge);
        self.add(name, help, MetricType::GAUGE, metric);
    }

    /// Adds a histogram. Values are divided by `unit`: 1e9 converts nanoseconds to seconds.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        values: &HistogramSnapshot,
        unit: f64,
    ) {
        let mut below = 0;
        let bucket = |(bound, count): (&u64, &u64)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / unit);
            bucket.set_cumulative_count(below);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(values.bounds.iter().zip(&values.buckets).map(bucket).collect());
        histogram.set_sample_count(values.count());
        histogram.set_sample_sum(values.sum as f64 / unit);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.add(name, help, MetricType::HISTOGRAM, metric);
    }

    /// Adds this process's CPU time, memory and descriptors (`process_…`).
    pub fn process(&mut self) {
        // The crate reports CPU time in whole seconds only.
        let others = ProcessCollector::for_self().collect().into_iter().filter(|family| family.name() != CPU);
        self.families.extend(others);
        if let Some(seconds) = cpu_seconds() {
            let mut counter = Counter::default();
            counter.set_value(seconds);
            let mut metric = Metric::default();
            metric.set_counter(counter);
            let help = "User and system CPU time spent, in seconds.";
            self.add(CPU, help, MetricType::COUNTER, metric);
        }
    }

    /// The added metrics as text.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.families, &mut text) {
            // Only a metric without a name or a series causes this, and a test scrapes all metrics.
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }

    fn add(&mut self, name: &'static str, help: &'static str, kind: MetricType, metric: Metric) {
        if let Some(last) = self.families.last_mut().filter(|last| last.name() == name) {
            last.mut_metric().push(metric);
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![metric]);
        self.families.push(family);
    }
}

const CPU: &str = "process_cpu_seconds_total";

/// Ticks per second in /proc/PID/stat: `USER_HZ`, which Linux fixes at 100 for its user-space ABI (proc(5), time(7)).
const USER_HZ: f64 = 100.0;

/// CPU time of this process: fields 14 and 15 of /proc/self/stat (proc(5)). `None` without such a file.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name in parentheses, may contain spaces.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / USER_HZ)
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&'static str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}
