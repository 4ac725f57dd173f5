"""The statistics: medians over rounds, ratios within them, and what is to be said of a run.

A round is the servers' turns at one case, one right after the other. Absolute values drift with whatever else the machine
does; within a round they drift together, so ratios are taken there and only then put together.
"""

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from .metrics import digits

# A paced run that delivers less of what was due says something else than its pace does.
PACE_MIN = 0.9


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        """None of nothing."""
        values = list(values)
        return cls(median(values), min(values), max(values)) if values else None

    def written(self, value=digits):
        return f"{value(self.median)} ({value(self.low)}–{value(self.high)})"


class Results:
    """What is in a results file."""

    def __init__(self, document):
        self.document = document
        self.servers = document["servers"]
        self._runs = defaultdict(list)
        for run in document["runs"]:
            self._runs[run["case"], run["server"]].append(run)

    def runs(self, case, server):
        return self._runs[case, server]

    def values(self, case, server, metric):
        """By round; rounds without the value are left out here, and have a remark."""
        read = ((run["round"], metric.read(run["tool"])) for run in self.runs(case, server))
        return {number: value for number, value in read if value is not None}

    def spread(self, case, server, metric):
        return Spread.of(self.values(case, server, metric).values())

    def ratio(self, own, other, metric):
        """Of one (case, server) to another, over the rounds in which both have a value."""
        own, other = self.values(*own, metric), self.values(*other, metric)
        return Spread.of(own[number] / other[number] for number in own if other.get(number))

    def orders(self, case, server):
        return Spread.of(orders for run in self.runs(case, server) if (orders := (run["tool"] or {}).get("orders")))

    def remarks(self, case, server):
        """What is wrong with the runs, each fault once with the runs that have it; empty when nothing is."""
        runs = self.runs(case, server)
        found = defaultdict(list)
        for run in runs:
            for fault, amount in faults(run):
                found[fault].append(amount)
        return [f"{worded(fault, amounts)} in {len(amounts)} of {len(runs)} runs" for fault, amounts in found.items()]


def faults(run):
    """Pairs of what is wrong with a run, and how much of it or None."""
    tool = run["tool"]
    found = [(run["failure"], None)] if run["failure"] else []
    if tool is None:
        return found
    found += [(what, tool[key]) for key, what in (("lost", "lost"), ("duplicates", "twice")) if tool[key]]
    if (tool["orders"] or 0) > 1:
        found.append(("orders", tool["orders"]))
    if (share := share_of_pace(tool)) is not None and share < PACE_MIN:
        found.append(("% of the pace", round(100 * share)))
    for reason, count in (tool["failed"] or {}).items():
        found.append((f"connections failed ({reason})", count))
    if run["exit"] and not found:
        found.append((f"exit code {run['exit']}", None))
    if run["scrapes_failed"]:
        found.append(("scrapes of /metrics failed", run["scrapes_failed"]))
    return found


def share_of_pace(tool):
    """How much was delivered of what was due; None in a closed loop, where nothing is due."""
    if not tool["rate"] or tool["deliveries_per_second"] is None:
        return None
    return tool["deliveries_per_second"] / (tool["rate"] * tool["connections"] / tool["rooms"])


def worded(fault, amounts):
    if amounts[0] is None:
        return fault
    low, high = min(amounts), max(amounts)
    return f"{low:,} {fault}" if low == high else f"{low:,}–{high:,} {fault}"
