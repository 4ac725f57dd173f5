"""Two instances behind a real HAProxy with deploy/haproxy.cfg, under load: one after the other is restarted; one is
killed.

Promises: that file itself is played, with other addresses and a shorter interval and nothing else changed.
Does not know: how the server drains, except what its flags promise.
"""

import csv
import itertools
import json
import os
import pathlib
import re
import tempfile
import time
import urllib.request
from collections import Counter
from datetime import datetime

import balancer_judges as judges
from balancer_judges import Arrival, Drain
from facts import ok
from processes import Failed, wait_until
from prometheus import free_port
from stage import HERE, TOOLS

CONFIG = HERE / "../../deploy/haproxy.cfg"
CHATROOM = os.environ["CHATROOM_BIN"]
PYTHON = [TOOLS / "python/bin/python", "-B"]
NAMES = ["chatroom-1", "chatroom-2"]
ROOMS, MEMBERS = [f"room-{number}" for number in range(8)], 4
# HAProxy then needs 1 s to notice, and has it three times.
INTERVAL_SECONDS, NOTICE, SPREAD, DEADLINE = 0.5, 3, 3, 10
# For a busy machine. With it HAProxy's second is still within the notice.
MARGIN = 1


def the_balancer_judges_find_planted_faults(_):
    for fault, verdict, said in judges.planted_faults():
        finds = any(verdict in s for s in said) if verdict else not said
        ok(f"the balancer's judges, given {fault}, say: {verdict or 'nothing'}", finds, f"they say {said}")


def haproxy_notices_within_the_default_notice(stage):
    usage = stage.process("help", CHATROOM, "serve", "--help")
    usage.ends(0)
    notice = int(re.search(r"--drain-notice .*?default: (\d+)s\]", usage.out, re.DOTALL)[1])
    interval, fall = map(int, re.search(r" inter (\d+)s fall (\d+) ", CONFIG.read_text()).groups())
    ok(f"with deploy/haproxy.cfg as it is, HAProxy notices a stop within {fall} × {interval} s, and the server's default "
       f"notice is {notice} s", fall * interval < notice)


def no_call_notices_a_rolling_restart(stage):
    site = Site(stage)
    site.prober()
    site.members("member", MEMBERS)
    first, second = site.instances
    drains = [restart(site, first, second)]
    # The first is there again, and empty: whoever comes now must still come to where the room is.
    site.members("latecomer", 1)
    site.keeps_rooms_whole()
    drains.append(restart(site, second, first))
    site.keeps_rooms_whole()
    probes, calls = site.ends()
    judge_probes(probes)

    wait_until("all that came are logged", lambda: len(site.probed_rooms()) >= len(probes))
    logged_once = sorted(site.probed_rooms()) == sorted(probe["room"] for probe in probes)
    ok("… each of them is in the log of one instance, once", logged_once)
    arrivals, limit = site.arrivals(), INTERVAL_SECONDS * site.fall + MARGIN
    late = judges.late_arrivals(arrivals, drains, limit)
    ok(f"no call came to an instance later than {limit} s after its SIGTERM", not late, f"{late[:5]}")
    for drain in drains:
        times = [a.time - drain.began for a in arrivals if a.instance == drain.instance and a.time < drain.ended]
        ok(f"… the last one came to {drain.instance} {max(times):.2f} s after")

    cut = [call for call in calls if call["code"] != "OK"]
    found = judges.shutdown_faults(cut)
    ok(f"{len(cut)} calls of members were ended, each UNAVAILABLE with SHUTDOWN, a position and when to come back",
       cut and not found, f"{found[:5]}")
    found = judges.delivery_faults(cut)
    heard = sum(len(call["heard"]) for call in cut)
    ok(f"… and each had got everything up to its position: {heard} messages in all", heard and not found, f"{found[:5]}")
    ok("the servers logged no error", not site.complaints(), f"{site.complaints()}")


def judge_probes(probes):
    failed = [probe for probe in probes if not probe["passed"]]
    ok(f"of {len(probes)} calls that were opened meanwhile none failed", probes and not failed, f"{failed[:5]}")
    opened = sorted(probe["opened"] for probe in probes)
    gap = max(b - a for a, b in itertools.pairwise(opened))
    longest = max(probe["ended"] - probe["opened"] for probe in probes)
    ok(f"… they were opened at most {gap:.2f} s apart, and took at most {longest:.2f} s")


def restart(site, instance, other):
    """Stops it under load and starts it again; returns when it went."""
    name, present = instance.name, instance.present()
    ok(f"{len(present)} members are on {name}, and {len(other.present())} on {other.name}", present)
    began = instance.terminate()
    site.haproxy_says(f"Server chatroom/{name} is DOWN, reason: Layer7 wrong status, code: 503")
    noticed = time.time() - began
    instance.process.ends(0, seconds=DEADLINE + MARGIN)
    ended = time.time()
    ok(f"HAProxy says {noticed:.2f} s after SIGTERM that {name} is down, and that exits 0 after {ended - began:.2f} s",
       noticed < NOTICE and ended - began < DEADLINE + MARGIN)

    wait_until(f"they are back on {other.name}", lambda: present <= other.present())
    wait_until("the ends of their calls are known", lambda: len(site.ends_since(began)) >= len(present))
    ends = site.ends_since(began)
    in_time = NOTICE - 0.1 < ends[0] and SPREAD / 2 < ends[-1] - ends[0] < SPREAD + MARGIN
    ok(f"… it has ended {len(ends)} calls from {ends[0]:.2f} s to {ends[-1]:.2f} s after SIGTERM, and they are back, on "
       f"{other.name}", in_time and len(ends) == len(present), f"{ends}")

    instance.start()
    site.haproxy_says(f"Server chatroom/{name} is UP, reason: Layer7 check passed")
    wait_until(f"new calls come to {name}", instance.is_called)
    ok(f"… {name} is started again, HAProxy says that it is up, and new calls come to it")
    return Drain(name, began, ended)


def a_killed_instance_fails_no_new_call(stage):
    site = Site(stage)
    site.prober()
    site.members("member", MEMBERS)
    victim, other = site.instances
    present = victim.present()
    killed = time.time()
    victim.process.stop()
    site.haproxy_says(f"Server chatroom/{victim.name} is DOWN, reason: Layer4 connection problem")
    noticed = time.time()
    wait_until(f"its members are back on {other.name}", lambda: present <= other.present())
    site.keeps_rooms_whole()
    probes, calls = site.ends()
    cut = Counter(call["code"] for call in calls if call["code"] != "OK")
    ok(f"{victim.name} is killed: the calls of its {len(present)} members end, {dict(cut)}, and they are back, on "
       f"{other.name}", present and cut.total() == len(present))
    # Those that were open at that moment are among the lost.
    after = [probe for probe in probes if probe["opened"] > killed + 0.1]
    unnoticed = [probe for probe in after if probe["opened"] < noticed]
    ok(f"HAProxy notices after {noticed - killed:.2f} s; until then {len(unnoticed)} calls were opened", unnoticed)
    judge_probes(after)


class Site:
    """Two instances, and HAProxy before them."""

    def __init__(self, stage):
        self._stage, self._members = stage, []
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

    def members(self, name, count):
        """So many come to each room, and are in."""
        command = [*PYTHON, HERE / "python/members.py", self.address, name, count, *ROOMS]
        self._members.append(self._stage.process(f"{name}s", *command))
        expected = {f"{name}-{number}" for number in range(count * len(ROOMS))}
        wait_until(f"the {name}s are in", lambda: expected <= {a.member for a in self.arrivals()})

    def ends_since(self, moment):
        """How many seconds after it calls of members ended."""
        return sorted(call["ended"] - moment for call in self._calls() if call["ended"] > moment)

    def ends(self):
        """Prober and members end; returns all their calls."""
        for process in (self._prober, *self._members):
            process.close_stdin()
        for process in (self._prober, *self._members):
            process.ends(0)
        return records(self._prober), self._calls()

    def _calls(self):
        """Those of members that have ended."""
        return [call for process in self._members for call in records(process)]

    def keeps_rooms_whole(self):
        arrivals = self.arrivals()
        found = judges.split_rooms(arrivals)
        members = {arrival.member for arrival in arrivals if arrival.member}
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
        # All clients come from the balancer's address.
        command += ["--max-rooms-per-client=10000"]
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


SCENARIOS = [
    the_balancer_judges_find_planted_faults,
    haproxy_notices_within_the_default_notice,
    no_call_notices_a_rolling_restart,
    a_killed_instance_fails_no_new_call,
]
