//! The latencies of each second as an `HdrHistogram` log.

use super::coordinator::RunResult;
use anyhow::{Context as _, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Writes the log, with latencies in nanoseconds and their maxima in milliseconds, as is customary.
pub(super) fn write(file: &Path, run: &RunResult) -> anyhow::Result<()> {
    let cannot = || format!("cannot write --histogram {}", file.display());
    let mut out = BufWriter::new(File::create(file).with_context(cannot)?);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("chatroom bench: latency in ns, from when a message was due to its delivery")
        .with_start_time(run.began)
        .with_base_time(run.began)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut out, &mut serializer)
        .with_context(cannot)?;
    for (second, at) in run.verdict.counters.latencies.seconds().iter().zip(0..) {
        let written = log.write_histogram(&second.histogram()?, SECOND * at, SECOND, None);
        written.map_err(|error| anyhow!("{error:?}")).with_context(cannot)?;
    }
    out.flush().with_context(cannot)
}
