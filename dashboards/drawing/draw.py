#!/usr/bin/env python3
"""Draws a board as one SVG: asks a Prometheus each panel's queries, as Grafana would.

For where there is no Grafana, and for pictures in documents. It needs Python only:
    python3 dashboards/drawing/draw.py http://127.0.0.1:9090 --minutes 60 >board.svg
"""

import argparse
import math
import pathlib
import sys
import time

import board
import figures
import svg

OVERVIEW = pathlib.Path(__file__).resolve().parent.parent / "chatroom-overview.json"
WIDTH, UNIT, GAP, HEAD = 1200, 28, 6, 58


def draw(description, answer, over):
    """The SVG; `answer` gives the series of a target."""
    to = svg.Svg()
    column = (WIDTH - GAP) / 24
    height = HEAD
    for panel in board.panels(description):
        grid = panel.json["gridPos"]
        left, top = GAP + grid["x"] * column, HEAD + grid["y"] * UNIT
        box = figures.Box(left, top, grid["w"] * column - GAP, grid["h"] * UNIT - GAP)
        height = max(height, box.bottom + GAP)
        if panel.kind == "row":
            to.text(box.x + 4, box.y + 17, panel.title, size=14, weight=600)
        else:
            figures.draw(to, panel, box, [answer(target) for target in panel.targets], over)
    title = description["title"]
    minutes, seconds = divmod(round(over.end - over.begin), 60)
    note = (f"Drawn from the board's queries by dashboards/drawing/draw.py, not by Grafana: {minutes}:{seconds:02} "
            f"minutes, one point each {over.step:g} s, rates over {over.rate_interval():g} s.")
    to.text(GAP + 4, 26, title, size=18, weight=600)
    to.text(GAP + 4, 46, note, size=12, fill=svg.FAINT)
    return to.document(WIDTH, round(height), f"{title}. {note}")


def main():
    parser = argparse.ArgumentParser(description="Draws a board of a Prometheus as SVG, to stdout.")
    parser.add_argument("prometheus", help="like http://127.0.0.1:9090")
    parser.add_argument("--board", default=OVERVIEW, help="the board's JSON [default: chatroom-overview.json]")
    parser.add_argument("--minutes", type=float, default=60, help="up to now [default: 60]")
    parser.add_argument("--scrape-interval", type=float, default=15, help="of Prometheus, in seconds [default: 15]")
    arguments = parser.parse_args()

    end = time.time()
    begin = end - 60 * arguments.minutes
    step = max(arguments.scrape_interval, math.ceil((end - begin) / 120))
    over = board.Range(begin, end, step, arguments.scrape_interval)
    prometheus = board.Prometheus(arguments.prometheus)
    try:
        variables = prometheus.variables()
    except OSError as error:
        sys.exit(f"draw: cannot ask {arguments.prometheus}: {error}")
    if not variables["instance"]:
        sys.exit(f"draw: {arguments.prometheus} has no chatroom server")
    sys.stdout.write(draw(board.read(arguments.board), lambda t: prometheus.answer(t, variables, over), over))


if __name__ == "__main__":
    main()
