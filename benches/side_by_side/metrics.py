"""What is read out of a run, and how it is written."""

from dataclasses import dataclass
from typing import Callable


def time_of(nanoseconds):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{digits(nanoseconds / size)} {unit}"
    return f"{digits(nanoseconds)} ns"


def rate_of(per_second):
    for unit, size in (("M/s", 1e6), ("k/s", 1e3)):
        if per_second >= size:
            return f"{digits(per_second / size)} {unit}"
    return f"{digits(per_second)} /s"


def kibibytes_of(count):
    return f"{digits(count / 1024)} KiB"


def digits(value):
    """Three significant ones, where there are decimals at all."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


@dataclass(frozen=True)
class Metric:
    name: str
    title: str
    # Where it is in the tool's JSON.
    path: tuple[str, ...]
    written: Callable[[float], str]
    # Whether a smaller value is the better one.
    low_is_good: bool = True
    # Whether it is read from runs in which nobody speaks, or from the others.
    of_idle: bool = False

    def read(self, tool):
        """The value; None where the tool could not tell."""
        for key in self.path:
            tool = tool.get(key) if tool else None
        return tool

    def meets(self, value, goal):
        return value <= goal if self.low_is_good else value >= goal

    def goal(self, goal):
        return f"{'≤' if self.low_is_good else '≥'} {goal:g}"


CPU = Metric("cpu", "Server CPU per delivery", ("server", "cpu_ns_per_delivery"), time_of)
THROUGHPUT = Metric(
    "throughput", "Deliveries per second", ("deliveries_per_second",), rate_of, low_is_good=False
)
P50 = Metric("p50", "Latency, median", ("latency_us", "p50"), lambda us: time_of(us * 1e3))
P99 = Metric("p99", "Latency, 99th percentile", ("latency_us", "p99"), lambda us: time_of(us * 1e3))
MEMORY = Metric(
    "memory", "Memory per idle connection", ("server", "idle_bytes_per_connection"), kibibytes_of, of_idle=True
)
