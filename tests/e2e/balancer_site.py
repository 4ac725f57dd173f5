"""Two instances behind a real HAProxy, and the clients that come to them.

Promises: deploy/haproxy.cfg is played, with other addresses and a shorter interval and nothing else changed.
Does not know: what the balancer and the instances promise.
"""

import csv
import json
import os
import pathlib
import re
import tempfile
import time
import urllib.request
from collections import defaultdict
from datetime import datetime

import balancer_judges as judges
from balancer_judges import Arrival
from facts import ok
from processes import Failed, wait_until
from prometheus import free_port
from stage import HERE, TOOLS

CONFIG = HERE / "../../deploy/haproxy.cfg"
CHATROOM = os.environ["CHATROOM_BIN"]
PYTHON = [TOOLS / "python/bin/python", "-B"]
MEMBERS = {
    "hello": [*PYTHON, HERE / "python/members.py", "hello"],
    "grpcio": [*PYTHON, HERE / "python/members.py", "join"],
    "grpc-go": [TOOLS / "bin/members"],
}
NAMES = ["chatroom-1", "chatroom-2"]
ROOMS = [f"room-{number}" for number in range(8)]
# HAProxy then needs 1 s to notice, and has it three times.
INTERVAL_SECONDS, NOTICE, SPREAD, DEADLINE = 0.5, 3, 3, 10


class Site:
    """Two instances, and HAProxy before them."""

    def __init__(self, stage):
        self._stage, self._members = stage, []  # Each with its kind of client.
        front, stats, *ports = free_ports(8)
        self.address, self._stats = f"127.0.0.1:{front}", f"127.0.0.1:{stats}"
        self.instances = [Instance(stage, NAMES[0], ports[:3]), Instance(stage, NAMES[1], ports[3:])]
        config = self._config()
        self.fall = int(re.search(r" fall (\d+) ", config)[1])
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch) / "haproxy.cfg"
            path.write_text(config)
            self._haproxy = stage.process("haproxy", "haproxy", "-f", path)
            poll("HAProxy has found both instances up", self._all_up)

    def _config(self):
        one, two = (f"127.0.0.1:{i.ports['listen']} port {i.ports['metrics-listen']}" for i in self.instances)
        text = CONFIG.read_text()
        for written, here in {
            "bind :50051 ": f"bind {self.address} ",
            "bind 127.0.0.1:8404\n": f"bind {self._stats}\n",
            " inter 1s ": f" inter {INTERVAL_SECONDS * 1000:.0f}ms ",
            "192.0.2.11:50051 port 9464": one,
            "192.0.2.12:50051 port 9464": two,
        }.items():
            if text.count(written) != 1:
                raise Failed(f"deploy/haproxy.cfg has {written!r} {text.count(written)} times, not once")
            text = text.replace(written, here)
        return text

    def _all_up(self):
        # Without the proxy that the machine may have.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{self._stats}/;csv", timeout=30) as answer:
                lines = answer.read().decode().removeprefix("# ").splitlines()
        except OSError:
            return False
        servers = {row["svname"]: row for row in csv.DictReader(lines)}
        return all(servers[name]["status"] == "UP" and servers[name]["check_status"] == "L7OK" for name in NAMES)

    def prober(self):
        self._prober = self._stage.process("prober", *PYTHON, HERE / "python/prober.py", self.address)

    def members(self, kind, name, count):
        """So many clients of this kind come to each room, and are in."""
        command = [*MEMBERS[kind], self.address, name, count, *ROOMS]
        self._members.append((kind, self._stage.process(f"{name}s", *command)))
        self.has_in(*(f"{name}-{number}" for number in range(count * len(ROOMS))))

    def has_in(self, *names):
        wait_until(f"{names[0]} and the like are in", lambda: set(names) <= {a.member for a in self.arrivals()})

    def publishes(self):
        """Each member of chatroom.v1 says something by Publish; returns what they were told."""
        present = defaultdict(set)
        for arrival in self.arrivals():
            present[arrival.room].add(arrival.member)
        speakers = [process for kind, process in self._members if kind != "hello"]
        told = lambda: [record for process in speakers for record in records(process) if "published" in record]
        known = {record["published"] for record in told()}
        for speaker in speakers:
            speaker.write("publish\n")
        # Each kind has one member in each room.
        wait_until("all have published", lambda: len(told()) == len(known) + len(speakers) * len(ROOMS))
        return [record | {"present": sorted(present[record["room"]])} for record in told() if record["published"] not in known]

    def ends_since(self, moment):
        """How many seconds after it calls of members ended."""
        return sorted(call["ended"] - moment for call in self._calls() if call["ended"] > moment)

    def ends(self):
        """Prober and members end; returns all their calls."""
        processes = [self._prober, *(process for _, process in self._members)]
        for process in processes:
            process.close_stdin()
        for process in processes:
            process.ends(0)
        return records(self._prober), self._calls()

    def _calls(self):
        """Those of members that have ended, each with its kind of client."""
        return [call | {"client": kind} for kind, process in self._members for call in records(process) if "heard" in call]

    def keeps_rooms_whole(self):
        members = set().union(*(instance.present() for instance in self.instances))
        found = judges.split_rooms([arrival for arrival in self.arrivals() if arrival.member in members])
        ok(f"each of {len(members)} members is on the same instance as the others in its room", not found, f"{found}")

    def haproxy_says(self, words):
        wait_until(f"HAProxy says {words}", lambda: words in self._haproxy.out)

    def arrivals(self):
        return [arrival for instance in self.instances for arrival in instance.arrivals()]

    def probed_rooms(self):
        return [arrival.room for arrival in self.arrivals() if not arrival.member]

    def complaints(self):
        return [line for instance in self.instances for line in instance.complaints()]


class Instance:
    """One of them, in all its lives."""

    def __init__(self, stage, name, ports):
        self.name, self._stage, self._lives = name, stage, []
        self.ports = dict(zip(("listen", "admin-listen", "metrics-listen"), ports))
        self.start()

    @property
    def process(self):
        return self._lives[-1]

    def start(self):
        command = [CHATROOM, "serve", "--log-format", "json"]
        command += [f"--{flag}=127.0.0.1:{port}" for flag, port in self.ports.items()]
        # All clients come from the balancer's address, and by the header it knows where they belong.
        command += ["--max-rooms-per-client=10000", "--require-room-header"]
        command += [f"--drain-notice={NOTICE}s", f"--drain-spread={SPREAD}s", f"--drain-deadline={DEADLINE}s"]
        process = self._stage.process(self.name, *command)
        self._lives.append(process)
        wait_until(f"{self.name} listens", lambda: process.out.count("listening on") == len(self.ports))

    def terminate(self):
        """Sends SIGTERM, and returns when that was."""
        now = time.time()
        self.process.terminate()
        return now

    def arrivals(self):
        """The calls that it has taken in all its lives."""
        return [arrival for life in self._lives for arrival in self._arrivals(life)]

    def is_called(self):
        """Whether it has taken any call in this life."""
        return bool(self._arrivals(self.process))

    def present(self):
        """The members that are in now."""
        left = {record["connection"] for record in logged(self.process, "user left")}
        here = {record["name"] for record in logged(self.process, "new user") if record["connection"] not in left}
        return here - {""}

    def complaints(self):
        """Panics and errors in its log."""
        lines = [line for life in self._lives for line in life.err.split("\n")]
        return [line for line in lines if "panicked at" in line or '"level":"ERROR"' in line]

    def _arrivals(self, life):
        return [Arrival(self.name, datetime.fromisoformat(record["timestamp"]).timestamp(), record["room"], record["name"])
                for record in logged(life, "new user")]


def logged(process, message):
    return [record for record in records(process, "err") if record.get("message") == message]


def records(process, pipe="out"):
    """The lines of JSON that it has written so far."""
    return [json.loads(line) for line in getattr(process, pipe).split("\n")[:-1] if line.startswith("{")]


def free_ports(count):
    ports = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def poll(fact, holds, seconds=30):
    """For what no process of ours tells by itself."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"{fact}: not within {seconds} s")
        time.sleep(0.05)
