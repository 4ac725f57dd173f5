"""A real Prometheus scrapes the server each second while that is saturated.

Promises: what is judged is what Prometheus has stored, asked for in PromQL.
Does not know: what the metrics should be, except that deliveries are counted.
"""

import json
import os
import pathlib
import random
import shlex
import socket
import tempfile
import time
import urllib.parse
import urllib.request

from facts import ok
from processes import Failed, wait_until

CHATROOM = shlex.quote(os.environ["CHATROOM_BIN"])
RECEIVERS, SENDERS, SECONDS = 20, 2, 12
# How many names, rooms and paths clients choose meanwhile.
CHOICES = 50
DELIVERED = 'chatroom_messages_delivered_total{api="v1"}'
CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs: [{job_name: chatroom, static_configs: [{targets: [TARGET]}]}]
"""


def prometheus_misses_no_scrape_of_a_saturated_server(stage):
    # On few cores the senders overrun the receivers now and then. This is not about who is cut for being slow, and a
    # room that is empty for a second is not saturated.
    stage.serve("--lag-limit-bytes", "64MiB", "--retention-bytes", "64MiB", "--retention-messages", "1000000")
    with Prometheus(stage) as prometheus:
        saturate(stage)
        each_way_to_end(stage)
        prometheus.has_scraped()

        began = time.time()
        choose(stage, "new", CHOICES)
        lines, lint = linted(stage)
        time.sleep(max(0.0, began + SECONDS - time.time()))
        ended = time.time()
        prometheus.has_scraped()

        window = f"[{ended - began:.0f}s]"

        def over_time(series):
            return prometheus.samples(series + window, ended)

        times, up = zip(*over_time("up"))
        gap = max(b - a for a, b in zip(times, times[1:]))
        ok(f"Prometheus scraped the saturated server {len(up)} times in {window}, at most {gap:.2f} s apart, and found "
           "it up each time", set(up) == {1} and len(up) >= SECONDS - 1 and gap < 1.5, f"up: {up}, at {times}")
        slowest = max(seconds for _, seconds in over_time("scrape_duration_seconds"))
        ok(f"the slowest scrape took {slowest * 1000:.0f} ms")

        delivered = [count for _, count in over_time(DELIVERED)]
        grew = len(delivered) == len(up) and all(a < b for a, b in zip(delivered, delivered[1:]))
        ok(f"{DELIVERED} grew from each scrape to the next", grew, f"{delivered}")
        rate = prometheus.number(f"rate({DELIVERED}{window})", ended)
        ok(f"its rate is {rate:.0f} messages a second", rate > 0)

        series, added = (over_time(s) for s in ("scrape_samples_scraped", "scrape_series_added"))
        constant = len({count for _, count in series}) == 1 and not any(count for _, count in added)
        ok(f"each scrape has the same {series[-1][1]:.0f} series while clients choose {CHOICES} names, rooms and paths",
           constant, f"{series}, added: {added}")
    said = lint.out + lint.err
    ok(f"promtool check metrics has nothing to say of a scrape's {lines} lines", lint.exit_code == 0 and not said, said)
    cut = [record for record in stage.server.logged("user left") if record["reason"] == "slow_consumer"]
    complaints = stage.server.complaints()
    ok("nobody was cut, and the server logged no error", not cut and not complaints, f"{cut}, {complaints}")


def saturate(stage):
    # What they hear goes to /dev/null: a Python that reads it would be all that this measures.
    chat = f"{CHATROOM} chat --addr {stage.server.address()} >/dev/null --name"
    for number in range(RECEIVERS):
        stage.process(f"receiver {number}", "sh", "-c", f"exec {chat} receiver-{number}")
    stage.server.arrived(RECEIVERS)
    for number in range(SENDERS):
        text = f"sender {number} says a line of a usual length, again and again, as fast as it can"
        stage.process(f"sender {number}", "sh", "-c", f"yes '{text}' | {chat} sender-{number}")
    stage.server.arrived(RECEIVERS + SENDERS)


def each_way_to_end(stage):
    """A method's status has a series as soon as there was one: here is one of each that may come from now on."""
    choose(stage, "first", 1)
    large = "head -c 70000 /dev/zero | tr '\\0' x"
    stage.tool("sh", "-c", f"{large} | {CHATROOM} chat --addr ADDR --room too-large").ends(1)
    broken = stage.client("go", room="broken-off", name="broken-off")
    arrived = wait_until("it is in", lambda: [r for r in stage.server.logged("new user") if r["name"] == "broken-off"])
    broken.stop()
    stage.server.departed(arrived[0]["connection"])


def choose(stage, word, count):
    """Clients come with so many names, rooms and paths that begin with this word."""
    metrics = stage.server.address("metrics")
    # A curl for each: Debian 12's cannot use an HTTP/2 connection twice (github.com/curl/curl/issues/10634).
    grpc = "curl -sS -D - -o /dev/null --http2-prior-knowledge -H content-type:application/grpc -d ''"
    each = [
        f'echo hi | {CHATROOM} chat --addr ADDR --name "{word}-$i" --room "{word}-$i"',
        f"{grpc} http://ADDR/{word}.S$i/M | grep '^grpc-status: 12'",
        f"curl -sS -D - -o /dev/null http://{metrics}/{word}-$i | grep '^HTTP.* 404'",
    ]
    stage.tool("sh", "-c", f"for i in $(seq {count}); do {' && '.join(each)} || exit; done >/dev/null").ends(0)


def linted(stage):
    metrics = stage.server.address("metrics")
    with tempfile.NamedTemporaryFile() as scrape:
        stage.tool("curl", "-sS", "--fail", "-o", scrape.name, f"http://{metrics}/metrics").ends(0)
        return len(scrape.readlines()), stage.tool("sh", "-c", f"promtool check metrics <{scrape.name}")


class Prometheus:
    """Scrapes the server of a stage each second, from its start to its end."""

    def __init__(self, stage):
        self._stage, self._scratch = stage, tempfile.TemporaryDirectory()

    def __enter__(self):
        scratch = pathlib.Path(self._scratch.name)
        (scratch / "config.yml").write_text(CONFIG.replace("TARGET", json.dumps(self._stage.server.address("metrics"))))
        address = f"127.0.0.1:{free_port()}"
        self._url = f"http://{address}/api/v1/query?"
        self._process = self._stage.process(
            "prometheus",
            "prometheus",
            f"--config.file={scratch}/config.yml",
            f"--storage.tsdb.path={scratch}/data",
            f"--web.listen-address={address}",
        )
        wait_until("Prometheus is ready", lambda: "ready to receive web requests" in self._process.err)
        return self

    def __exit__(self, *_):
        # Before what it writes to is removed.
        self._process.stop()
        self._scratch.cleanup()

    def samples(self, query, at):
        """The (time, value) pairs of the one series that there is."""
        return [(when, float(value)) for when, value in self._one(query, at)["values"]]

    def number(self, query, at):
        return float(self._one(query, at)["value"][1])

    def has_scraped(self):
        """Waits until a scrape that began after now is stored; the first one is some 5 s after its start."""
        now = time.time()
        while not any(float(series["value"][1]) > now for series in self._ask("timestamp(up)", time.time())):
            if time.time() > now + 30:
                raise Failed("Prometheus scrapes: not within 30 s")
            time.sleep(0.2)

    def _one(self, query, at):
        result = self._ask(query, at)
        if len(result) != 1:
            raise Failed(f"{query} gives {len(result)} series: {result}")
        return result[0]

    def _ask(self, query, at):
        # Without the proxy that the machine may have.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._url + urllib.parse.urlencode({"query": query, "time": at}), timeout=30) as response:
            return json.load(response)["data"]["result"]


def free_port():
    """Below the ports that the system gives to whoever connects, so that it is still free a moment later."""
    for port in random.sample(range(20000, 32768), 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("none of 50 ports is free")


SCENARIOS = [prometheus_misses_no_scrape_of_a_saturated_server]
