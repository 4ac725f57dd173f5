"""What a board must be like, whatever it shows, and which metrics a query names.

Promises: each fault is one line that says where it is; no fault, and every query is of one job and instance, has its
counters under a rate, and names only metrics that there are.
Does not know: whether a query gives an answer.
"""

import copy
import itertools
import re
from collections import Counter

STRING = r'"(?:\\.|[^"\\])*"'
MATCHERS = rf"\{{(?:{STRING}|[^\"{{}}])*\}}"
# What a query is made of, as far as it matters here: lists of labels, functions, selectors, and everything that has
# letters in it and is none of these.
TOKENS = re.compile(
    rf"(?P<labels>\b(?:by|without|on|ignoring|group_left|group_right)\s*(?:\([^)]*\))?)"
    rf"|(?P<word>\b(?:and|or|unless|bool|offset|NaN|Inf)\b(?!\s*\{{))"
    rf"|(?P<call>\b[a-z_0-9]+\s*(?:\(|(?=(?:by|without)\b)))"
    rf"|(?P<name>[A-Za-z_:][\w:]*)\s*(?P<matchers>{MATCHERS})?"
    rf"|(?P<nameless>{MATCHERS})|{STRING}|\[[^\]]*\]|[0-9.]+(?:e-?[0-9]+|[a-z]+)?"
)
COUNTS = re.compile(r"_(total|bucket|sum|count)$")
OF_ONE_JOB = ('job=~"$job"', 'instance=~"$instance"')
VARIABLES = {"datasource": "datasource", "job": "query", "instance": "query"}


def selectors(query):
    """The (metric, matchers) of each selector in a query."""
    for token in TOKENS.finditer(query):
        if token["name"] or token["nameless"]:
            yield token["name"] or "", token["matchers"] or token["nameless"] or ""


def metrics(query):
    return {name for name, _ in selectors(query)}


def faults(board, exported, alerts):
    """All that is wrong with a board, given the metrics that are exported and the alerts that there are."""
    return [*of_the_board(board), *of_the_grid(board), *(
        f"{panel.get('title')!r}: {fault}"
        for panel in board["panels"] if panel["type"] != "row"
        for fault in of_a_panel(panel, exported, alerts)
    )]


def of_the_board(board):
    if not board.get("uid") or board.get("id", 0) is not None:
        yield "uid is to be fixed, and id to be null"
    if board.get("editable") is not False or "__inputs" in board:
        yield "it is to be provisioned: editable false, no __inputs"
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    if variables != VARIABLES:
        yield f"variables are {variables}"
    for what in ("id", "title"):
        twice = [value for value, times in Counter(panel[what] for panel in board["panels"]
                                                      if panel["type"] != "row" or what == "id").items() if times > 1]
        if twice:
            yield f"two panels have {what} {twice}"


def of_the_grid(board):
    places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    for title, grid in places:
        if grid["x"] < 0 or grid["x"] + grid["w"] > 24:
            yield f"{title!r} is beyond the 24 columns"
    for (one, a), (other, b) in itertools.combinations(places, 2):
        if all(a[at] < b[at] + b[size] and b[at] < a[at] + a[size] for at, size in (("x", "w"), ("y", "h"))):
            yield f"{one!r} and {other!r} overlap"


def of_a_panel(panel, exported, alerts):
    for what in ("title", "description"):
        if not panel.get(what):
            yield f"no {what}"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "no unit"
    if unknown := set(re.findall(r"\bChatroom\w+", panel.get("description", ""))) - alerts:
        yield f"there is no alert {sorted(unknown)}"
    if not panel["targets"]:
        yield "no query"
    for target in panel["targets"]:
        if {panel["datasource"]["uid"], target["datasource"]["uid"]} != {"${datasource}"}:
            yield "the data source is not the variable"
        yield from of_a_query(target["expr"], exported)


def of_a_query(query, exported):
    for metric, matchers in selectors(query):
        if not all(matcher in matchers for matcher in OF_ONE_JOB):
            yield f"{metric} is not of one job and instance: {query}"
        if metric not in exported:
            yield f"{metric} is not exported: {query}"
        under_rate = re.search(rf"\b(rate|increase)\({metric}{re.escape(matchers)}\[\$__rate_interval\]\)", query)
        if bool(COUNTS.search(metric)) != bool(under_rate):
            yield f"{metric} is a count without a rate over $__rate_interval, or a rate of what is none: {query}"


def planted_faults(board, exported, alerts):
    """(what was planted, what is to be said of it, the faults found)"""

    def replace(old, new):
        def plant(board, _):
            targets = (target for panel in board["panels"] for target in panel.get("targets", []))
            target = next(target for target in targets if old in target["expr"])
            target["expr"] = target["expr"].replace(old, new)
        return plant

    def drop(what):
        return lambda _, panel: (panel if what in panel else panel["fieldConfig"]["defaults"]).pop(what)

    planted = [
        ("nothing", "", lambda *_: None),
        ("a misspelt metric", "chatroom_conections is not exported",
         replace("chatroom_connections{", "chatroom_conections{")),
        ("a query of all jobs", "is not of one job", replace('job=~"$job", ', "")),
        ("a count without a rate", "is a count without a rate",
         replace("rate(chatroom_messages_published", "max_over_time(chatroom_messages_published")),
        ("a rate of what is none", "a rate of what is none", replace("_total{", "{")),
        ("a fixed range", "is a count without a rate over $__rate_interval", replace("$__rate_interval", "5m")),
        ("a panel without a unit", "no unit", drop("unit")),
        ("a panel without a description", "no description", drop("description")),
        ("an alert that there is not", "there is no alert", lambda _, panel: panel.update(description="ChatroomNever")),
        ("a panel on top of another", "overlap", lambda _, panel: panel["gridPos"].update(h=99)),
        ("a panel that is too wide", "beyond the 24 columns", lambda _, panel: panel["gridPos"].update(w=25)),
        ("one id twice", "two panels have id", lambda board, panel: panel.update(id=board["panels"][0]["id"])),
        ("one title twice", "two panels have title",
         lambda board, panel: panel.update(title=board["panels"][0]["title"])),
        ("an exported board", "no __inputs", lambda board, _: board.update(__inputs=[])),
        ("a board that is of one Grafana", "id to be null", lambda board, _: board.update(id=7)),
        ("no variable for the job", "variables are", lambda board, _: board["templating"]["list"].pop(1)),
        ("a data source by name", "data source is not the variable",
         lambda _, panel: panel["datasource"].update(uid="prometheus")),
    ]
    for what, expected, plant in planted:
        faulty = copy.deepcopy(board)
        plant(faulty, next(panel for panel in faulty["panels"] if panel["type"] == "timeseries"))
        yield what, expected, faults(faulty, exported, alerts)
