"""Results as Markdown."""

from .metrics import digits
from .plan import OURS

MARK = "⚠"


def table(heads, rows):
    lines = [heads, [":--"] + ["--:"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparison(results, cases, metric):
    """One line for each case that has the metric: all servers' medians, then ours to each, beside its goal."""
    others = [server for server in results.servers if server["name"] != OURS]
    heads = ["load", *(server["title"] for server in results.servers), *(f"÷ {server['title']}" for server in others)]
    rows = [
        [
            case.title,
            *(value_cell(results, case, server, metric) for server in results.servers),
            *(ratio_cell(results, case, server, metric) for server in others),
        ]
        for case in cases
        if case.has(metric)
    ]
    return table(heads, rows)


def summary(results, cases):
    """One line for each pair of case and metric: our median, and our share of each other server's."""
    others = [server for server in results.servers if server["name"] != OURS]
    heads = ["load", "chatroom", *(f"÷ {server['title']}" for server in others)]
    rows = []
    for case, metric in cases:
        spread = results.spread(case.name, OURS, metric)
        ratios = [results.ratio((case.name, OURS), (case.name, other["name"]), metric) for other in others]
        title = f"{case.title}, memory of each" if metric.of_idle else case.title
        ours = metric.written(spread.median) if spread else "no value"
        rows.append([title, ours, *(digits(ratio.median) if ratio else "–" for ratio in ratios)])
    return table(heads, rows)


def goals(results, cases):
    """One line for each pair of case and metric: our goals to each other server and for ourselves, and whether they are met."""
    heads = ["load", "metric", *(f"÷ {server['title']}" for server in results.servers if server["name"] != OURS), "chatroom"]

    def cell(case, metric, name):
        goal = case.goals[metric].get(name)
        if goal is None:
            return "–"
        if name == OURS:
            found = results.spread(case.name, OURS, metric)
            words = f"{'≤' if metric.low_is_good else '≥'} {metric.written(goal)}"
        else:
            found, words = results.ratio((case.name, OURS), (case.name, name), metric), metric.goal(goal)
        return f"{words} {'not measured' if found is None else '✓' if metric.meets(found.median, goal) else '✗'}"

    names = [*(server["name"] for server in results.servers if server["name"] != OURS), OURS]
    return table(heads, [[case.title, metric.title, *(cell(case, metric, n) for n in names)] for case, metric in cases])


def value_cell(results, case, server, metric):
    if (absent := absence(results, case, server)) is not None:
        return absent
    name = server["name"]
    spread = results.spread(case.name, name, metric)
    cell = metric.written(spread.median) if spread else "no value"
    if (goal := own_goal(case, metric)) is not None and name == OURS and spread:
        sign = "✓" if metric.meets(spread.median, goal) else "✗"
        cell += f"; goal {'≤' if metric.low_is_good else '≥'} {metric.written(goal)} {sign}"
    return marked(results, case, server, cell)


def own_goal(case, metric):
    return case.goals.get(metric, {}).get(OURS)


def ratio_cell(results, case, other, metric):
    ratio = results.ratio((case.name, OURS), (case.name, other["name"]), metric)
    goal = case.goals.get(metric, {}).get(other["name"])
    cell = ratio.written() if ratio else "–"
    if goal is None:
        return cell
    sign = "" if ratio is None else " ✓" if metric.meets(ratio.median, goal) else " ✗"
    return f"{cell}; goal {metric.goal(goal)}{sign}"


def orders(results, cases):
    """How many orders the receivers of one run saw."""
    def cell(case, server):
        if (absent := absence(results, case, server)) is not None:
            return absent
        spread = results.orders(case.name, server["name"])
        if spread is None:
            return marked(results, case, server, "no value")
        several = f"{spread.low:,}–{spread.high:,}" if spread.low < spread.high else f"{spread.high:,}"
        return marked(results, case, server, several)

    rows = [[case.title, *(cell(case, server) for server in results.servers)] for case in cases if not case.idle]
    return table(["load", *(server["title"] for server in results.servers)], rows)


def absence(results, case, server):
    """Why there is no run to tell of; None when there is one."""
    if server["missing"]:
        return server["missing"]
    return None if results.runs(case.name, server["name"]) else "not run"


def marked(results, case, server, cell):
    return f"{cell} {MARK}" if results.remarks(case.name, server["name"]) else cell


def remarks(results, cases):
    """What the marks stand for."""
    lines = [
        f"- {case.title}, {server['title']}: {'; '.join(found)}."
        for case in cases
        for server in results.servers
        if (found := results.remarks(case.name, server["name"]))
    ]
    return "\n".join(lines) if lines else "Nothing was lost, nothing came twice, nothing failed, and each run saw one order."


def conditions(results):
    """Where and when, in a line or two."""
    machine, settings = results.document["machine"], results.document["settings"]
    versions = [f"{server['title']} {server['version']}" for server in results.servers if server["version"]]
    return (
        f"{machine['cpu']}, {machine['cores']} cores for server and load together, Linux {machine['kernel']}, "
        f"{machine['rustc']}{''.join(f', {version}' for version in versions)}; commit {machine['commit']}, "
        f"{machine['date']}; {settings['rounds']} rounds of {settings['seconds']:g} s; load average before, of other work: "
        f"{machine['load_average']:g}."
    )
