"""How each kind of panel is drawn.

Promises: what is drawn are the values that the panel's queries gave, all of them or with a word of what is left out.
Does not know: where they come from.
"""

import math
from dataclasses import dataclass
from itertools import count, groupby

import svg
from scales import ticks, written

TITLE, AXIS, LEFT, RIGHT, LINE = 30, 18, 46, 14, 15
LETTER = 6.2  # The mean width of one, in a font of 11 pixels.
ROUND_SECONDS = (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


@dataclass
class Box:
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self):
        return self.x + self.width

    @property
    def bottom(self):
        return self.y + self.height


def draw(to, panel, box, answers, over):
    """Draws a panel into a box; `answers` has the series of each of its targets."""
    to.group(panel.json.get("description", ""))
    to.rect(box.x, box.y, box.width, box.height, svg.CARD, stroke="#dcdfe4", radius=3)
    to.text(box.x + 10, box.y + 18, panel.title, size=12, weight=600)
    if not any(answers):
        words = panel.defaults.get("noValue", "No data")
        to.text(box.x + box.width / 2, box.y + box.height / 2 + 8, words, size=13, fill=svg.FAINT, anchor="middle")
    else:
        {"stat": stat, "timeseries": timeseries, "heatmap": heatmap, "state-timeline": timeline}[panel.kind](
            to, panel, box, answers, over)
    to.end()


def timeseries(to, panel, box, answers, over):
    series = [(s, refers) for refers, found in zip((t["refId"] for t in panel.targets), answers) for s in found]
    colours = coloured(panel, series)
    stacked = panel.custom.get("stacking", {}).get("mode") == "normal"
    values = [v for s, _ in series for _, v in s.points if math.isfinite(v)]
    if stacked:
        values = list(totals(s for s, _ in series).values())
    low, high = min([0, *values]), panel.defaults.get("max", max([0, *values]))
    marks = ticks(low, high, panel.unit)
    left = max(LEFT, max(len(written(mark, panel.unit)) for mark in marks) * LETTER + 14)
    plot = plot_above_legend(to, box, [(s.name, c) for (s, _), (c, _) in zip(series, colours)], left)
    y = value_axis(to, plot, marks, panel.unit)
    x = time_axis(to, plot, over)

    if stacked:
        below = {}
        bar = max(1.0, plot.width / (over.end - over.begin) * over.step * 0.85)
        for (s, _), (colour, _) in zip(series, colours):
            boxes = []
            for when, value in s.points:
                if math.isfinite(value) and value > 0:
                    base = below.get(when, 0)
                    below[when] = base + value
                    boxes.append((x(when) - bar / 2, y(base + value), bar, y(base) - y(base + value)))
            to.rects(boxes, colour, 0.85)
    else:
        floor = y(max(low, 0)) if len(series) < 4 else None
        for (s, _), (colour, dash) in zip(series, colours):
            for run in unbroken(s.points, over.step):
                to.curve([(x(when), y(value)) for when, value in run], colour, dash, floor=None if dash else floor)
    if panel.custom.get("thresholdsStyle"):
        for step in panel.defaults["thresholds"]["steps"]:
            if step["value"] is not None and plot.y <= y(step["value"]) <= plot.bottom:
                to.line(plot.x, y(step["value"]), plot.right, y(step["value"]), svg.NAMED[step["color"]], dash="6 4")


def heatmap(to, panel, box, answers, over):
    buckets = sorted(answers[0], key=lambda s: float(s.labels["le"]))
    cells, before = [], {}
    for bucket in buckets:
        at = dict(bucket.points)
        # The buckets of a histogram are cumulative; a cell shows what is in its bucket only.
        cells.append({when: max(0.0, value - before.get(when, 0.0)) for when, value in at.items()})
        before = at
    full = [row for row, cell in enumerate(cells) if any(value > 1e-9 for value in cell.values())] or [0]
    rows = range(max(0, full[0] - 1), min(len(cells), full[-1] + 2))
    most = max((value for row in rows for value in cells[row].values()), default=1) or 1

    plot = plot_above_legend(to, box, [], left=LEFT + 10)
    height = plot.height / len(rows)
    x = time_axis(to, plot, over)
    width = plot.width / (over.end - over.begin) * over.step
    shades = {}
    for place, row in enumerate(rows):
        top = plot.bottom - (place + 1) * height
        bound = float(buckets[row].labels["le"])
        # At the top of its row, as a bucket reaches up to its bound.
        if place % max(1, len(rows) // 8) == 0 and math.isfinite(bound):
            to.text(plot.x - 6, top + 4, written(bound, panel.unit), fill=svg.FAINT, anchor="end")
        for when, value in cells[row].items():
            if value > 1e-9:
                # As the panel's exponent of 0.5: what is rare is seen beside what is usual.
                shade = min(len(svg.HEAT) - 1, int(math.sqrt(value / most) * len(svg.HEAT)))
                shades.setdefault(shade, []).append((x(when) - width / 2, top + 0.5, width - 0.5, height - 1))
    for shade, boxes in sorted(shades.items()):
        to.rects(boxes, svg.HEAT[shade])
    side = 14
    for shade, colour in enumerate(svg.HEAT):
        to.rect(plot.x + 8 + shade * side, box.bottom - 17, side, 8, colour)
    to.text(plot.x, box.bottom - 9, "0", fill=svg.FAINT)
    to.text(plot.x + 14 + len(svg.HEAT) * side, box.bottom - 9, f"{written(most, 'short')}/s", fill=svg.FAINT)


def stat(to, panel, box, answers, over):
    names = panel.json["options"]["textMode"] == "name"
    series = answers[0]
    value = series[0].last()
    words = ", ".join(sorted(s.name for s in series if s.last())) if names else written(value, panel.unit)
    colour = svg.NAMED[next(s["color"] for s in reversed(panel.defaults["thresholds"]["steps"])
                            if s["value"] is None or (value is not None and value >= s["value"]))]
    if (mapped := mapping(panel, value)) is not None:
        words, colour = mapped
    if panel.json["options"]["graphMode"] == "area":
        low, high = bounds(series[0].points)
        for run in unbroken(series[0].points, over.step):
            place = [(box.x + 1 + (when - over.begin) / (over.end - over.begin) * (box.width - 2),
                      box.bottom - 2 - (value - low) / (high - low) * box.height * 0.3) for when, value in run]
            to.curve(place, colour, width=1, floor=box.bottom - 1, opacity=0.15)
    size = min(24, 1.7 * (box.width - 20) / max(1, len(words)))
    to.text(box.x + box.width / 2, box.y + box.height / 2 + 14, words, size=number(size), fill=colour, anchor="middle",
            weight=600)


def timeline(to, panel, box, answers, over):
    used = sorted({value for s in answers[0] for _, value in s.points})
    states = [mapping(panel, value) for value in used]
    plot = plot_above_legend(to, box, states, left=LEFT + 40)
    x = time_axis(to, plot, over)
    height = plot.height / len(answers[0])
    for row, s in enumerate(answers[0]):
        top = plot.y + row * height + 3
        to.text(plot.x - 6, top + height / 2, s.name, fill=svg.FAINT, anchor="end")
        for run in unbroken(s.points, over.step):
            for value, same in groupby(run, key=lambda point: point[1]):
                first, *_, last = [when for when, _ in same] * 2
                left, right = x(first), min(plot.right, x(last + over.step))
                words, colour = mapping(panel, value)
                to.rect(left, top, right - left, height - 6, colour, opacity=0.8)
                if len(words) * LETTER + 6 < right - left:
                    to.text((left + right) / 2, top + height / 2, words, fill="#fff", anchor="middle")


def mapping(panel, value):
    for options in (m["options"] for m in panel.defaults.get("mappings", [])):
        if value is not None and (found := options.get(f"{value:g}")):
            return found["text"], svg.NAMED[found["color"]]
    return None


def coloured(panel, series):
    """The colour and the dash of each series."""
    fixed = {}
    for override in panel.json["fieldConfig"]["overrides"]:
        properties = {p["id"]: p["value"] for p in override["properties"]}
        fixed[override["matcher"]["options"]] = (svg.NAMED[properties["color"]["fixedColor"]], "6 4")
    palette = (svg.SERIES[place % len(svg.SERIES)] for place in count())
    return [fixed[refers] if refers in fixed else (next(palette), None) for _, refers in series]


def plot_above_legend(to, box, entries, left=LEFT):
    """Writes the legend, and returns what is left of the box for the plot."""
    lines, room = [[]], box.width - 20
    for name, colour in entries:
        width = len(name) * LETTER + 24
        if lines[-1] and sum(w for *_, w in lines[-1]) + width > room:
            lines.append([])
        lines[-1].append((name, colour, width))
    # Half of the panel at most.
    most = max(1, int(box.height / 2 / LINE))
    if len(lines) > most:
        more = sum(map(len, lines[most - 1:]))
        lines = lines[:most - 1] + [[(f"and {more} more", svg.FAINT, 0)]]
    top = box.bottom - len(lines) * LINE - 2
    for row, line in enumerate(lines):
        x = box.x + 10
        for name, colour, width in line:
            to.rect(x, top + row * LINE + 4, 11, 3, colour)
            to.text(x + 15, top + row * LINE + 10, name, fill=svg.FAINT)
            x += width
    return Box(box.x + left, box.y + TITLE, box.width - left - RIGHT, top - AXIS - box.y - TITLE)


def value_axis(to, plot, marks, unit):
    low, high = marks[0], marks[-1]

    def y(value):
        return plot.bottom - (value - low) / (high - low) * plot.height

    for mark in marks:
        to.line(plot.x, y(mark), plot.right, y(mark), svg.GRID)
        to.text(plot.x - 6, y(mark) + 4, written(mark, unit), fill=svg.FAINT, anchor="end")
    return y


def time_axis(to, plot, over):
    length = over.end - over.begin

    def x(when):
        return plot.x + (when - over.begin) / length * plot.width

    each = next((seconds for seconds in ROUND_SECONDS if length / seconds * 44 <= plot.width), ROUND_SECONDS[-1])
    for number in range(int(length / each) + 1):
        at = over.begin + number * each
        to.line(x(at), plot.y, x(at), plot.bottom, svg.GRID)
        minutes, seconds = divmod(number * each, 60)
        words = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if length >= 3600 else f"{minutes}:{seconds:02}"
        # Inside of the plot: beside it are the values.
        anchor = "start" if number == 0 else "end" if x(at) + 16 > plot.right else "middle"
        to.text(x(at), plot.bottom + 14, words, fill=svg.FAINT, anchor=anchor)
    return x


def unbroken(points, step):
    """The points in runs, with nothing missing inside."""
    run = []
    for when, value in points:
        if run and (not math.isfinite(value) or when - run[-1][0] > 1.5 * step):
            yield run
            run = []
        if math.isfinite(value):
            run.append((when, value))
    if run:
        yield run


def totals(series):
    sums = {}
    for s in series:
        for when, value in s.points:
            if math.isfinite(value):
                sums[when] = sums.get(when, 0) + value
    return sums


def bounds(points):
    values = [value for _, value in points if math.isfinite(value)] or [0]
    low, high = min(0, *values, 0), max(values)
    return low, high if high > low else low + 1


def number(value):
    return f"{value:.1f}"
