"""Results as SVG: `python -m side_by_side.plot results|scale FILE.json FILE.svg`, by the Python that has matplotlib.

The background is transparent, and all colours stand out against white and against near-black.
"""

import json
import math
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot  # noqa: E402, the backend comes first
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator, NullFormatter, NullLocator  # noqa: E402

from . import plan, scale  # noqa: E402
from .metrics import CPU, MEMORY  # noqa: E402
from .results import Results  # noqa: E402

INK, FAINT = "#7d8590", "#7d859055"
COLOURS = {plan.OURS: "#2f81f7", plan.FLOOR: "#8b949e", plan.NATS: "#2da44e", plan.NAIVE: "#db6d28"}
STYLE = {
    "font.family": "sans-serif", "axes.facecolor": "none", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT,
    "xtick.color": INK, "ytick.color": INK, "grid.color": FAINT, "axes.titlesize": 9.5, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "chatroom",
}  # fmt: skip


def side_by_side(results):
    """One panel for each case: its metric by server. All that show CPU time have one scale, so they compare, too."""
    columns = 4
    figure, panels = pyplot.subplots(-(-len(plan.CASES) // columns), columns, figsize=(11, 4.8), layout="constrained")
    panels = list(panels.flat)
    for panel, case in zip(panels, plan.CASES):
        points(panel, results, case, metric_of(case))
    for panel in panels[len(plan.CASES) :]:
        panel.set_axis_off()
    figure.suptitle("Median of the rounds, with the lowest and the highest; further left is better", fontsize=9)
    return figure


def metric_of(case):
    return MEMORY if case.idle else CPU


def points(panel, results, case, metric):
    low, high = limits(results, metric)
    for at, server in enumerate(results.servers):
        spread = results.spread(case.name, server["name"], metric)
        if spread is None:
            panel.text(low * 1.2, at, server["missing"] or "no value", va="center", fontsize=8)
            continue
        error = [[spread.median - spread.low], [spread.high - spread.median]]
        panel.errorbar(spread.median, at, xerr=error, color=COLOURS[server["name"]], marker="o", capsize=3)
        panel.annotate(metric.written(spread.median), (spread.median, at), (0, 5), textcoords="offset points",
                       ha="center", va="bottom", fontsize=8)  # fmt: skip
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    panel.set_ylim(len(results.servers) - 0.4, -0.8)
    panel.set_yticks(range(len(results.servers)), [server["title"] for server in results.servers])
    panel.set_title(case.title)
    panel.xaxis.set_major_locator(FixedLocator(decades(low, high, metric)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(tick(metric))
    panel.set_xlabel(metric.title)
    panel.grid()
    panel.set_axisbelow(True)


def limits(results, metric):
    """Of the logarithmic scale that all cases with this metric share, with room for the words at the points."""
    spreads = [
        spread
        for case in plan.CASES
        for server in results.servers
        if metric_of(case) is metric and (spread := results.spread(case.name, server["name"], metric))
    ]
    lows = [spread.low for spread in spreads if spread.low > 0]
    return (min(lows) / 3, max(spread.high for spread in spreads) * 3) if lows else (1, 100)


def decades(low, high, metric):
    unit = 1024 if metric is MEMORY else 1
    steps = range(math.ceil(math.log10(low / unit)), math.floor(math.log10(high / unit)) + 1)
    return [unit * 10.0**step for step in steps]


def tick(metric):
    """A round value without its zeros."""
    return FuncFormatter(lambda value, _: re.sub(r"\.0+(?= )", "", metric.written(value)))


def over_scale(results):
    figure, (of_connections, of_rooms, of_memory) = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    lines(of_connections, results, results.servers, scale.CONNECTIONS, "connections", CPU)
    lines(of_rooms, results, results.servers[:1], scale.ROOMS, "rooms", CPU)
    of_rooms.set_xlabel(f"rooms, for {scale.ROOM_CONNECTIONS:,} connections")
    lines(of_memory, results, results.servers, scale.CONNECTIONS[2:], "connections", MEMORY)
    return figure


def lines(panel, results, servers, cases, over, metric):
    for server in servers:
        points = [
            (getattr(case, over), spread)
            for case in cases
            if (spread := results.spread(case.name, server["name"], metric))
        ]
        places, medians = [place for place, _ in points], [spread.median for _, spread in points]
        error = [
            [spread.median - spread.low for _, spread in points],
            [spread.high - spread.median for _, spread in points],
        ]
        panel.errorbar(places, medians, yerr=error, color=COLOURS[server["name"]], marker="o", markersize=4,
                       capsize=2, label=server["title"])  # fmt: skip
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_ylim(bottom=0)
    if metric is MEMORY:
        panel.yaxis.set_major_locator(MultipleLocator(10 * 1024))
    panel.yaxis.set_major_formatter(tick(metric))
    panel.set_xlabel(over)
    panel.set_ylabel(metric.title)
    panel.grid()
    panel.legend()


def main(study, document, picture):
    results = Results(json.loads(Path(document).read_text()))
    with pyplot.rc_context(STYLE):
        figure = {"results": side_by_side, "scale": over_scale}[study](results)
        # No date: the same results are the same file.
        figure.savefig(picture, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
