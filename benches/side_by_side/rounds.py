"""The order of the runs, and word of how far it is."""

import sys

from .metrics import CPU, MEMORY, P99, THROUGHPUT
from .results import faults, worded


def turns(cases, servers_of, rounds):
    """(round, case, server), a case's servers one right after the other, with another one first in each round."""
    for number in range(1, rounds + 1):
        for case in cases:
            servers = servers_of(case)
            shift = (number - 1) % max(1, len(servers))
            for server in servers[shift:] + servers[:shift]:
                yield number, case, server


def run_all(bench, plan, seconds):
    """The records of all runs; a line for each on stderr."""
    records = []
    for at, (number, case, server) in enumerate(plan, 1):
        record = bench.run(server, case, number, seconds)
        records.append(record)
        line = f"[{at:>{len(str(len(plan)))}}/{len(plan)}] round {number}  {case.title:<28} {server.title:<12} "
        print(line + said(record), file=sys.stderr, flush=True)
    return records


def said(record):
    """A run in a few words."""
    values = [
        f"{label} {metric.written(value)}"
        for label, metric in (("cpu", CPU), ("out", THROUGHPUT), ("p99", P99), ("mem", MEMORY))
        if (value := metric.read(record["tool"])) is not None and value > 0
    ]
    found = [f"⚠ {worded(fault, [amount])}" for fault, amount in faults(record)]
    return "  ".join(values + found)
