"""What `make bench` says: the file of tables, and the README's part of it."""

from . import table
from .metrics import CPU, MEMORY
from .plan import CASES, METRICS

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


def readme(results, picture):
    """The README's block."""
    parts = [table.comparison(results, CASES, CPU), table.comparison(results, CASES, MEMORY)]
    if picture:
        parts.append(f"![Server CPU per delivery, by load and server](docs/bench/{picture})")
    parts.append(table.conditions(results))
    parts.append("Throughput, latency, orders, and what is marked: [docs/bench/results.md](docs/bench/results.md).")
    return "\n\n".join(parts)
