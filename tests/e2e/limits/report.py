"""Facts and figures of a run. A check goes on after a fact that does not hold, so that all of its figures are printed."""

import statistics

held, failed = [], []


def fact(words, holds, figure=""):
    (held if holds else failed).append(words)
    seen = f" ({figure})" if figure != "" else ""
    print(f"{'ok' if holds else 'NOT'}  {words}{seen}", flush=True)
    return holds


def figure(words, value):
    print(f"..  {words}: {value}", flush=True)


def mib(count):
    return f"{count / 2**20:.1f} MiB"


def ms(seconds):
    return f"{seconds * 1e3:.2f} ms"


def median(values):
    return statistics.median(values)
