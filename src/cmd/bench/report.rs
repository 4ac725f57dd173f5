//! The report of a run, as a table or as JSON.

use super::coordinator::{RunResult, ServerCost};
use super::counters::EndsByKind;
use super::plan::{Pace, Plan};
use crate::cmd::terminal::Sanitized;
use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::Write as _;

/// Quantiles of latency: key in JSON, name in the table, value.
const QUANTILES: [(&str, &str, f64); 5] = [
    ("p50", "p50", 0.5),
    ("p90", "p90", 0.9),
    ("p99", "p99", 0.99),
    ("p999", "p99.9", 0.999),
    ("max", "max", 1.0),
];

/// Prints the table or the JSON object.
pub(super) fn print(plan: &Plan, run: &RunResult, as_json: bool) -> anyhow::Result<()> {
    let document = document(plan, run)?;
    let text = if as_json { document.to_string() + "\n" } else { table(&document) };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")
}

/// The figures. Every key is always present; unknown values are null.
fn document(plan: &Plan, run: &RunResult) -> anyhow::Result<Value> {
    let RunResult { verdict, measured, server, own_cpu, .. } = run;
    let counters = &verdict.counters;
    let seconds = measured.as_secs_f64();
    let per_second = |count: u64| (seconds > 0.0).then(|| count as f64 / seconds);
    let per_delivery = |cpu: u64| (counters.deliveries > 0).then(|| cpu as f64 / counters.deliveries as f64);
    let connect_seconds = verdict.connected as f64 / 1e9;
    let (rate, window) = match plan.pace {
        Pace::Rate(rate) => (Some(rate), None),
        Pace::Window(window) => (None, Some(window)),
    };
    Ok(json!({
        "protocol": plan.protocol.name(),
        "connections": plan.connections,
        "transports": plan.transports,
        "rooms": plan.rooms,
        "publishers": plan.publishers,
        "rate": rate,
        "window": window,
        "size": plan.size,
        "duration_seconds": seconds,
        "messages": counters.messages,
        "deliveries": counters.deliveries,
        "messages_per_second": per_second(counters.messages),
        "deliveries_per_second": per_second(counters.deliveries),
        "latency_us": latency(&counters.latencies.total()?),
        "lost": verdict.errors.lost,
        "duplicates": verdict.errors.duplicates,
        "overtaken": verdict.errors.overtaken,
        "orders": verdict.orders,
        "connect_seconds": connect_seconds,
        "connects_per_second": (connect_seconds > 0.0).then(|| verdict.joined as f64 / connect_seconds),
        "failed": counts(&counters.failed),
        "churned": counters.left,
        "stalled": { "connections": plan.stall, "ended": counts(&counters.stalled) },
        "server": server.as_ref().map(|server| costs(server, verdict.joined, per_delivery)),
        "client": { "cpu_ns_per_delivery": per_delivery(*own_cpu) },
    }))
}

fn costs(server: &ServerCost, joined: usize, per_delivery: impl Fn(u64) -> Option<f64>) -> Value {
    let grown = server.rss_joined as f64 - server.rss_before as f64;
    json!({
        "cpu_ns_per_delivery": server.cpu.and_then(per_delivery),
        "cpu_seconds": server.cpu.map(|cpu| cpu as f64 / 1e9),
        "idle_bytes_per_connection": (joined > 0).then(|| grown / joined as f64),
        "rss_bytes_before": server.rss_before,
        "rss_bytes_joined": server.rss_joined,
        "rss_bytes_end": server.rss_end,
        "threads": server.threads,
    })
}

fn latency(histogram: &Histogram<u64>) -> Value {
    let known = |nanoseconds: f64| (!histogram.is_empty()).then(|| nanoseconds / 1e3);
    let quantile = |q: f64| known(histogram.value_at_quantile(q) as f64);
    let mut all: Map<_, _> =
        QUANTILES.iter().map(|&(key, _, q)| (key.to_owned(), json!(quantile(q)))).collect();
    all.insert("mean".to_owned(), json!(known(histogram.mean())));
    all.into()
}

fn counts(ends: &EndsByKind) -> Map<String, Value> {
    ends.iter().map(|(kind, ends)| (kind.clone(), json!(ends.count))).collect()
}

/// The figures as a table.
fn table(all: &Value) -> String {
    let mut table = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{name:<24}{}", Sanitized(&value));
    };
    let load = match (all["window"].as_u64(), all["rate"].as_f64()) {
        (Some(window), _) => format!("{window} messages in flight per publisher"),
        (_, rate) => format!("{} messages/s", rate.unwrap_or(0.0)),
    };
    row(
        "load",
        format!(
            "{}, {} connections on {} transports in {} rooms, {} publish; {load}; {} B",
            all["protocol"].as_str().unwrap_or_default(),
            all["connections"],
            all["transports"],
            all["rooms"],
            all["publishers"],
            all["size"]
        ),
    );
    row(
        "connect",
        format!("{} s, {}/s", exact(&all["connect_seconds"]), rounded(&all["connects_per_second"])),
    );
    row("measured", format!("{} s", exact(&all["duration_seconds"])));
    for (name, count) in [("messages", "messages_per_second"), ("deliveries", "deliveries_per_second")] {
        row(name, format!("{}, {}/s", grouped(all[name].as_f64()), rounded(&all[count])));
    }
    let latency = &all["latency_us"];
    let quantile = |&(key, name, _): &(&str, &str, f64)| format!("{name} {}", time(&latency[key]));
    row("latency", QUANTILES.iter().map(quantile).collect::<Vec<_>>().join("  "));
    row("lost, duplicates", format!("{}, {}", all["lost"], all["duplicates"]));
    row("orders in a room", all["orders"].as_u64().map_or("–".to_owned(), |orders| orders.to_string()));
    if all["churned"] != 0 {
        row("left and replaced", all["churned"].to_string());
    }
    for (kind, count) in all["failed"].as_object().into_iter().flatten() {
        row("failed", format!("{count}: {kind}"));
    }
    let stalled = &all["stalled"];
    if stalled["connections"] != 0 {
        let ended = stalled["ended"].as_object().into_iter().flatten();
        let ended: Vec<_> = ended.map(|(kind, count)| format!("{count} {kind}")).collect();
        let ended = if ended.is_empty() { "none".to_owned() } else { ended.join(", ") };
        row("stalled", format!("{}; ended by the server: {ended}", stalled["connections"]));
    }
    let server = &all["server"];
    if !server.is_null() {
        let mib = |key: &str| {
            server[key].as_f64().map_or("–".to_owned(), |bytes| format!("{:.1}", bytes / 1_048_576.0))
        };
        row(
            "server CPU",
            format!(
                "{} ns/delivery, {} s",
                exact(&server["cpu_ns_per_delivery"]),
                exact(&server["cpu_seconds"])
            ),
        );
        row(
            "server memory",
            format!(
                "{} MiB before, {} joined, {} at the end; {} KiB per idle connection; {} threads",
                mib("rss_bytes_before"),
                mib("rss_bytes_joined"),
                mib("rss_bytes_end"),
                server["idle_bytes_per_connection"]
                    .as_f64()
                    .map_or("–".to_owned(), |b| format!("{:.1}", b / 1024.0)),
                server["threads"]
            ),
        );
    }
    row("own CPU", format!("{} ns/delivery", exact(&all["client"]["cpu_ns_per_delivery"])));
    table
}

fn exact(value: &Value) -> String {
    value.as_f64().map_or("–".to_owned(), |value| format!("{value:.2}"))
}

fn rounded(value: &Value) -> String {
    grouped(value.as_f64())
}

fn time(microseconds: &Value) -> String {
    match microseconds.as_f64() {
        None => "–".to_owned(),
        Some(us) if us < 1_000.0 => format!("{us:.0}µs"),
        Some(us) if us < 1_000_000.0 => format!("{:.2}ms", us / 1e3),
        Some(us) => format!("{:.2}s", us / 1e6),
    }
}

/// A whole number with thousands separators.
fn grouped(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_people() {
        assert_eq!(grouped(Some(1_234_567.4)), "1,234,567");
        assert_eq!(
            (grouped(Some(123.0)), grouped(Some(0.0)), grouped(None)),
            ("123".into(), "0".into(), "–".into())
        );
        assert_eq!(time(&json!(12.4)), "12µs");
        assert_eq!(time(&json!(12_345.0)), "12.35ms");
        assert_eq!(time(&json!(2_500_000.0)), "2.50s");
    }
}
