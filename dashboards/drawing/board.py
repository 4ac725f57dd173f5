"""A board as Grafana reads it: its panels, and their queries with the variables filled in.

Promises: what is asked is what the board's JSON says, in the range, step and rate interval that Grafana would choose.
Does not know: what a panel looks like, and whether its query is a good one.
"""

import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass


@dataclass
class Panel:
    """One panel; a row is one, too, without targets."""

    json: dict

    @property
    def title(self):
        return self.json["title"]

    @property
    def kind(self):
        return self.json["type"]

    @property
    def defaults(self):
        return self.json.get("fieldConfig", {}).get("defaults", {})

    @property
    def custom(self):
        return self.defaults.get("custom", {})

    @property
    def unit(self):
        return self.defaults.get("unit", "")

    @property
    def targets(self):
        return self.json.get("targets", [])


@dataclass
class Range:
    """What Grafana calls the time range, with the step between the points of a graph. All in seconds."""

    begin: float
    end: float
    step: float
    scrape_interval: float = 15.0

    def rate_interval(self):
        # As in Grafana's documentation: grafana.com/docs, "Prometheus template variables".
        return max(self.step + self.scrape_interval, 4 * self.scrape_interval)


@dataclass
class Series:
    name: str
    labels: dict
    points: list  # of (time, value)

    def last(self):
        """The last value that is a number, as `lastNotNull` has it."""
        return next((value for _, value in reversed(self.points) if value == value), None)


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def panels(board):
    """All panels, those inside collapsed rows, too."""
    for panel in board["panels"]:
        yield Panel(panel)
        yield from map(Panel, panel.get("panels", []))


class Prometheus:
    """Answers queries, as the data source of a board."""

    def __init__(self, url):
        self._url = url.rstrip("/") + "/api/v1/"
        # Without the proxy that the machine may have.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path, **parameters):
        url = f"{self._url}{path}?{urllib.parse.urlencode(parameters)}"
        with self._opener.open(url, timeout=30) as response:
            return json.load(response)["data"]

    def values(self, label, metric):
        """Grafana's `label_values(metric, label)`."""
        return self.get(f"label/{label}/values", **{"match[]": metric})

    def variables(self):
        """What `job` and `instance` are when both are set to All."""
        return {name: self.values(name, "chatroom_build_info") for name in ("job", "instance")}

    def answer(self, target, variables, over):
        """The series that a target of a panel shows."""
        query = filled_in(target["expr"], variables, over)
        found = self.get("query_range", query=query, start=over.begin, end=over.end, step=over.step)["result"]
        return [
            Series(
                legend(target.get("legendFormat", ""), series["metric"]),
                series["metric"],
                [(float(when), float(value)) for when, value in series["values"]],
            )
            for series in found
        ]


def filled_in(query, variables, over):
    """A variable of several values becomes a regular expression for any of them."""
    for name, values in variables.items():
        # In a string of PromQL a backslash is written twice.
        any_of = "|".join(re.escape(value).replace("\\", "\\\\") for value in values)
        query = re.sub(rf"\${name}\b", lambda _: f"({any_of})", query)
    return query.replace("$__rate_interval", f"{over.rate_interval():.0f}s")


def legend(form, labels):
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda name: labels.get(name[1], ""), form)
