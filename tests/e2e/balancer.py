"""Two instances behind a real HAProxy with deploy/haproxy.cfg, under load: one after the other is restarted; one is
killed. In each room are clients of hello and of chatroom.v1.

Does not know: how the server drains, except what its flags promise.
"""

import itertools
import re
import time
from collections import Counter

import balancer_judges as judges
import balancer_v1
import balancer_v1_judges as v1_judges
from balancer_judges import Drain
from balancer_site import CHATROOM, CONFIG, DEADLINE, INTERVAL_SECONDS, NOTICE, SPREAD, Site
from facts import ok
from processes import wait_until

# For a busy machine. With it HAProxy's second is still within the notice.
MARGIN = 1


def the_balancer_judges_find_planted_faults(_):
    for fault, verdict, said in itertools.chain(judges.planted_faults(), v1_judges.planted_faults()):
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
    site.members("hello", "member", 2)
    site.members("grpcio", "grpcio", 1)
    site.members("grpc-go", "grpc-go", 1)
    first, second = site.instances
    published = site.publishes()
    drains = [restart(site, first, second)]
    # The first is there again, and empty: whoever comes now must still come to where the room is.
    site.members("hello", "latecomer", 1)
    terminal = balancer_v1.Terminal(stage, site, "terminal", "room-0")
    published += (lines := site.publishes())
    terminal.receives(lines)
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
    found = judges.delivery_faults([*calls, terminal.call()])
    heard = sum(len(call["heard"]) for call in cut)
    ok(f"… and each had got everything up to its position: {heard} messages in all", heard and not found, f"{found[:5]}")
    balancer_v1.judge([*calls, terminal.call()], published)
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
    site.members("hello", "member", 4)
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


SCENARIOS = [
    the_balancer_judges_find_planted_faults,
    haproxy_notices_within_the_default_notice,
    no_call_notices_a_rolling_restart,
    a_killed_instance_fails_no_new_call,
    *balancer_v1.SCENARIOS,
]
