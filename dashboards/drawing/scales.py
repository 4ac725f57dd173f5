"""Numbers for people: units as Grafana writes them, and round values for axes."""

import math

# Of each unit: what it is divided by, from that value on, and what is written after it. The largest that fits is used.
SCALES = {
    "s": [(1e-6, " µs"), (1e-3, " ms"), (1, " s"), (60, " min"), (3600, " h"), (86400, " d")],
    "bytes": [(1, " B"), (2**10, " KiB"), (2**20, " MiB"), (2**30, " GiB"), (2**40, " TiB")],
    "binBps": [(1, " B/s"), (2**10, " KiB/s"), (2**20, " MiB/s"), (2**30, " GiB/s")],
    "short": [(1, ""), (1e3, " K"), (1e6, " M"), (1e9, " G")],
    "none": [(1, "")],
    "percentunit": [(0.01, " %")],
    "cps": [(1, "/s"), (1e3, "K/s"), (1e6, "M/s")],
    "mps": [(1, " msg/s"), (1e3, "K msg/s"), (1e6, "M msg/s")],
}


def written(value, unit):
    """A value with its unit, to three digits."""
    if value is None or math.isnan(value):
        return "–"
    scale = SCALES[unit]
    if value == 0:
        return f"0{next(word for size, word in scale if size == 1) if unit != 'percentunit' else ' %'}"
    size, word = max((s for s in scale if abs(value) >= s[0] * 0.9995), default=scale[0])
    return f"{rounded(value / size)}{word}"


def rounded(number):
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(low, high, unit, count=4):
    """Round values from `low` to at least `high`, about so many."""
    if high <= low:
        high = low + 1
    base = (high - low) / count
    if unit in ("bytes", "binBps") and base >= 1:
        step = 2 ** math.ceil(math.log2(base))
    elif unit == "s" and base >= 30:
        step = next((s for s in (60, 120, 300, 600, 1800, 3600, 7200, 21600) if s >= base), 86400)
    else:
        power = 10 ** math.floor(math.log10(base))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= base * 0.999)
        if unit in ("short", "none"):
            step = max(step, 0.5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]
