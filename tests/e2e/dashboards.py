"""The board and the rules in dashboards/, asked of a real Prometheus that scrapes two real servers under load.

Promises: every query of the board, with its variables filled in as Grafana does it, shows something that is not zero;
board and rules name only metrics that are exported; every alert has a test that it fires and one that it does not.
Does not know: what Grafana makes of the board beyond its queries.
"""

import math
import os
import pathlib
import re
import sys
import tempfile
import time
import urllib.request

import board_rules
from facts import ok
from load import Load
from processes import Failed, wait_until
from prometheus import free_port
from stage import HERE, TOOLS

DASHBOARDS = HERE.parent.parent / "dashboards"
sys.path.insert(0, str(DASHBOARDS / "drawing"))
import board as boards

BOARD = boards.read(DASHBOARDS / "chatroom-overview.json")
RULES = sorted((DASHBOARDS / "rules").glob("*.rules.yml"))
TESTS = sorted((DASHBOARDS / "rules/tests").glob("*.yml"))
# Made by Prometheus for each scrape, and not exported by anybody.
OF_THE_SCRAPE = {"up"}
# More of them for a picture that shows more (dashboards/README.md), with time for the drain that is the default.
SECONDS = int(os.environ.get("BOARD_SECONDS", "16"))
NOTICE, SPREAD, DEADLINE = ("5s", "10s", "25s") if SECONDS > 60 else ("2s", "4s", "8s")
# The limits are such that one sees how much of them is used.
OPTIONS = ["--max-connections", "250", "--max-transports", "300", "--max-rooms", "10"]
# What the busy room says in a few seconds.
OPTIONS += ["--retention-total-bytes", "4MiB"]
OPTIONS += ["--drain-notice", NOTICE, "--drain-spread", SPREAD, "--drain-deadline", DEADLINE]


def board_check_finds_planted_faults(_):
    exported = {metric for panel in boards.panels(BOARD) for target in panel.targets
                for metric in board_rules.metrics(target["expr"])}
    for fault, expected, found in board_rules.planted_faults(BOARD, exported, alert_names()):
        holds = any(expected in line for line in found) if expected else not found
        ok(f"the board check, given {fault}, says: {expected or 'nothing'}", holds, f"it says {found}")
    query = 'sum by (a, b) (rate(x_total{c="}y{"}[5m])) / on (d) group_left () n:z:sum > 0.5 and time() - w'
    names = board_rules.metrics(query)
    ok(f"the metrics in {query} are x_total, n:z:sum and w", names == {"x_total", "n:z:sum", "w"}, f"{names}")


def alerts_fire_and_do_not_fire(stage):
    config = DASHBOARDS / "prometheus.yml"
    for command in (("check", "rules", *RULES), ("check", "config", config), ("test", "rules", *TESTS)):
        tool = stage.tool("promtool", *command)
        ok(f"promtool {' '.join(command[:2])} is content", tool.exit_code == 0, tool.out + tool.err)
    cases = [case for path in TESTS for case in alert_tests(path)]
    for name in sorted(alert_names()):
        fires = {fires for alert, fires in cases if alert == name}
        ok(f"{name} is tested to fire, and not to fire", fires == {True, False}, f"fires: {fires}")


def alert_names():
    return {name for path in RULES for name in re.findall(r"^\s*- alert: (\w+)$", path.read_text(), re.MULTILINE)}


def alert_tests(path):
    """(alert, whether it is to fire) of each test. PyYAML is no part of Python, so the form of the files is fixed."""
    text = path.read_text()
    cases = re.findall(r"- alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:( \[\])?\n( +- exp_labels)?", text)
    if len(cases) != text.count("alertname:") or any(bool(none) == bool(some) for _, none, some in cases):
        raise Failed(f"{path} has tests of another form than alertname, eval_time, exp_alerts")
    return [(alert, bool(some)) for alert, _, some in cases]


def compose_names_what_is_there(_):
    compose = (DASHBOARDS / "compose.yaml").read_text()
    mounts = dict(re.findall(r"- \./(\S+?):(/\S+?):ro$", compose, re.MULTILINE))
    missing = [path for path in mounts if not (DASHBOARDS / path).exists()]
    ok(f"compose.yaml mounts {', '.join(mounts)}, which are there", mounts and not missing, f"missing: {missing}")
    images = re.findall(r"image: (\S+)", compose)
    ok(f"its images but our own have a version: {', '.join(images)}",
       all(image == "chatroom" or re.search(r":v?\d+\.\d+\.\d+$", image) for image in images))
    provider = (DASHBOARDS / "grafana/provisioning/dashboards/chatroom.yaml").read_text()
    folder = re.search(r"path: (\S+)", provider)[1]
    ok(f"Grafana looks for boards in {folder}, and the board is mounted there",
       mounts["chatroom-overview.json"] == f"{folder}/chatroom-overview.json", f"{mounts}")
    source = (DASHBOARDS / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    interval = re.search(r"timeInterval: (\w+)", source)[1]
    ok(f"Grafana's data source has the scrape interval of prometheus.yml, {interval}",
       f"scrape_interval: {interval}\n" in (DASHBOARDS / "prometheus.yml").read_text())


def each_panel_shows_servers_under_load(stage):
    with Load(stage, max(1, SECONDS // 60), *OPTIONS) as load, Scraper(stage, load.servers) as scraper:
        exported = exported_by(load.servers[0])
        load.goes_on(SECONDS)
        load.one_server_drains()
        load.goes_on(SECONDS // 5)
        over = scraper.so_far()
        prometheus, variables = scraper.prometheus, scraper.prometheus.variables()

        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
        named = set().union(*(board_rules.metrics(rule["query"]) for rule in rules))
        unknown = named - exported - recorded - OF_THE_SCRAPE
        ok(f"the {len(rules)} rules name only metrics that are exported or recorded",
           named and not unknown, f"{unknown}")
        unhealthy = [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
        ok("Prometheus evaluates all of them", not unhealthy, f"{unhealthy}")
        silent = [name for name in recorded if not prometheus.get("query", query=name)["result"]]
        ok(f"each of the {len(recorded)} recording rules gives a value", not silent, f"{silent}")
        titles = {panel.title for panel in boards.panels(BOARD)}
        descriptions = [rule["annotations"]["description"] for rule in rules if rule["type"] == "alerting"]
        quoted = {title for text in descriptions for title in re.findall(r'"([A-Z].*?)"', text)}
        ok(f"alerts send to panels that there are: {', '.join(sorted(quoted))}", quoted <= titles, f"{quoted - titles}")

        faults = board_rules.faults(BOARD, exported | OF_THE_SCRAPE, alert_names())
        ok("the board is as it must be, and names only metrics that are exported", not faults, "\n  ".join(faults))
        for panel in boards.panels(BOARD):
            shown = set()
            for target in panel.targets:
                series = prometheus.answer(target, variables, over)
                if not shows_something(series):
                    query = boards.filled_in(target["expr"], variables, over)
                    raise Failed(f"the panel {panel.title!r} shows nothing but zeros or nothing at all: {query} gives "
                                 f"{[(s.name, s.points[-3:]) for s in series]}")
                shown |= {s.name for s in series if s.name}
            if panel.targets:
                ok(f"{panel.title!r} shows {', '.join(sorted(shown)) or 'its value'}")
        misspelt = {"expr": 'sum(chatroom_conections{job=~"$job"})'}
        series = prometheus.answer(misspelt, variables, over)
        ok("… and a panel of a misspelt metric would not", not shows_something(series), f"{series}")

        options = ["--minutes", (over.end - over.begin) / 60, "--scrape-interval", over.scrape_interval]
        drawn = stage.tool("python3", "-B", DASHBOARDS / "drawing/draw.py", scraper.url, *options)
        drawn.ends(0)
        (TOOLS / "overview.svg").write_text(drawn.out)
        missing = {title for title in titles if f">{title}</text>" not in drawn.out}
        ok(f"draw.py draws all of it in {len(drawn.out) // 1024} KiB of SVG",
           not missing and "No data" not in drawn.out, f"missing: {missing}")
    complaints = [complaint for server in load.servers for complaint in server.complaints()]
    ok("the servers logged no error", not complaints, f"{complaints}")


def shows_something(series):
    return any(math.isfinite(value) and value for s in series for _, value in s.points)


def exported_by(server):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{server.address('metrics')}/metrics", timeout=10) as scrape:
        return set(re.findall(r"^([a-z_]\w*)", scrape.read().decode(), re.MULTILINE))


class Scraper:
    """A Prometheus as configured in dashboards/, but for where the servers are, and that it looks each second."""

    def __init__(self, stage, servers):
        self._stage, self._servers, self._scratch = stage, servers, tempfile.TemporaryDirectory()

    def __enter__(self):
        scratch = pathlib.Path(self._scratch.name)
        targets = "\n".join(
            f"      - targets: ['{server.address('metrics')}']\n        labels: {{instance: chatroom-{letter}}}"
            for letter, server in zip("abc", self._servers)
        )
        config = (DASHBOARDS / "prometheus.yml").read_text()
        for text, instead in (
            ("scrape_interval: 15s", "scrape_interval: 1s\n  scrape_timeout: 1s"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ("rules/*.rules.yml", str(DASHBOARDS / "rules/*.rules.yml")),
            ('      - targets: ["chatroom:9464"]', targets),
        ):
            if config.count(text) != 1:
                raise Failed(f"dashboards/prometheus.yml has lost {text!r}")
            config = config.replace(text, instead)
        (scratch / "prometheus.yml").write_text(config)
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self.prometheus = boards.Prometheus(self.url)
        self._process = self._stage.process(
            "prometheus", "prometheus", f"--config.file={scratch}/prometheus.yml",
            f"--storage.tsdb.path={scratch}/data", f"--web.listen-address={address}",
        )
        wait_until("Prometheus is ready", lambda: "ready to receive web requests" in self._process.err)
        self._has_scraped_all()
        self._began = time.time()
        return self

    def __exit__(self, *_):
        # Before what it writes to is removed.
        self._process.stop()
        self._scratch.cleanup()

    def so_far(self):
        """The time since the first scrape, in up to 100 steps of whole seconds."""
        end = time.time()
        step = max(1, round((end - self._began) / 100))
        return boards.Range(self._began, end, step, scrape_interval=step)

    def _has_scraped_all(self):
        """The first scrapes are some 5 s after its start, and nobody tells of them."""
        deadline = time.monotonic() + 30
        while len(self.prometheus.get("query", query="up == 1")["result"]) < len(self._servers):
            if time.monotonic() > deadline:
                raise Failed("Prometheus scrapes: not within 30 s")
            time.sleep(0.2)


SCENARIOS = [
    board_check_finds_planted_faults,
    alerts_fire_and_do_not_fire,
    compose_names_what_is_there,
    each_panel_shows_servers_under_load,
]
