"""What `make bench` writes: the file of tables, and its parts of the README and of docs/performance.md."""

from . import table
from .metrics import CPU, MEMORY
from .plan import CASES, METRICS, README_CASES

NOTES = """\
Everyone in a room hears everything; CPU is the server's, by its process, kernel included. *Saturated*: 10 connections publish, with
256 (100 connections) or 64 (1,000) messages under way between them: each sends another when its own comes back; *at 50 msg/s*: one publishes. chatroom runs with its defaults, its
metrics scraped every second. *raw sockets* is the floor: one epoll thread, length and bytes, one write per connection
and turn (`benches/servers/floor.rs`). *naive tonic* is the usual answer, a map of channels behind a mutex
(`benches/servers/naive.rs`). The servers take turns, and ratios are those of one round: median (lowest–highest).
"""


def markdown(results, picture):
    parts = ["# Side by side", table.conditions(results), NOTES]
    if picture:
        parts.append(f"![Server CPU per delivery, by load and server]({picture})")
    for metric in METRICS:
        parts += [f"## {metric.title}", table.comparison(results, CASES, metric)]
    parts += [
        "## Orders seen",
        "In how many different orders the receivers of one run heard the same messages.",
        table.orders(results, CASES),
        f"## What {table.MARK} marks",
        table.remarks(results, CASES),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def readme(results):
    """The README's block: a few loads, medians only."""
    parts = [
        table.summary(results, [(case, MEMORY if case.idle else CPU) for case in CASES if case.name in README_CASES]),
        table.conditions(results),
        "All loads, throughput, latency and what is marked: [docs/bench/results.md](docs/bench/results.md).",
    ]
    return "\n\n".join(parts)


def goals(results):
    """The block of docs/performance.md: each goal, and whether it is met."""
    return table.goals(results, [(case, metric) for metric in METRICS for case in CASES if case.goals.get(metric)])
