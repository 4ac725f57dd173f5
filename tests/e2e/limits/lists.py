"""List calls that cost their caller nothing and the server a lot."""

import contextlib
import os
import time

import http2
import services
from canary import Canary, at_most_doubled, compare, probe_waits, probes_at_most_doubled
from flood import attackers
from report import fact, figure
from server import Server

LONG = bool(os.environ.get("LIMITS_LONG"))
EVENTS = 60_000
ROOMS = 9_900
CONCURRENT, TRANSPORTS = 50, 2
WINDOW, ROUNDS = (2.0, 5) if LONG else (0.8, 3)


def list_calls_leave_latency_alone():
    with Server(max_rooms_per_client=100_000, retention_bytes="64MiB", lag_limit_bytes="64MiB") as server:
        services.fill(server.chat, "long", EVENTS, 16)
        messages = server.metric("chatroom_log_messages")
        fact(f"the room keeps {EVENTS} messages", messages == EVENTS, f"{messages:g}")
        request = services.list_events("long", ["nobody-uses-this"])
        for turn in ("", ", a second time"):
            attack(server, f"{TRANSPORTS} × {CONCURRENT} ListEvents for a kind that nobody uses{turn}",
                   server.chat, services.LIST_EVENTS, request)
        with http2.Transport(server.chat) as transport:
            made = services.publish_all(transport, (services.publish(f"room-{n}", "x") for n in range(ROOMS)))
            fact(f"{ROOMS} rooms are made", all(answer.status == http2.OK for answer in made))
        attack(server, f"{TRANSPORTS} × {CONCURRENT} ListRooms of {ROOMS}", server.chat, services.LIST_ROOMS,
               services.list_rooms())
        probes_beside(server, f"{TRANSPORTS} × {CONCURRENT} admin ListRooms of {ROOMS}", server.admin,
                      services.ADMIN + "ListRooms", services.list_rooms())


def attack(server, words, address, path, request):
    counted = {}

    @contextlib.contextmanager
    def under_attack():
        with attackers(list_again_and_again, address, path, request, processes=TRANSPORTS, seconds=WINDOW + 3) as counts:
            yield
            for name, count in counts().items():
                counted[name] = counted.get(name, 0) + count

    print(f"..  {words}", flush=True)
    with Canary(server) as canary:
        medians = compare(canary, under_attack, WINDOW, ROUNDS)
        figure("calls answered", counted)
        at_most_doubled(words, medians)
        faults = canary.finish()
        fact(f"{words}: nothing is lost, repeated or reordered", not faults, faults or "")
    fact(f"{words}: calls succeed or are refused, and none fails", counted.get("failed", 0) == 0 < counted.get("OK", 0), counted)


def probes_beside(server, words, address, path, request):
    """The admin listener and the probes share a thread."""
    quiet = probe_waits(server)
    with attackers(list_again_and_again, address, path, request, processes=TRANSPORTS, seconds=10):
        time.sleep(0.3)
        attacked = probe_waits(server)
    probes_at_most_doubled(words, quiet, attacked)


def list_again_and_again(deadline, report, address, path, request):
    counts = {"OK": 0, "refused": 0, "failed": 0}
    with http2.Transport(address, seconds=30, keep=False) as transport:
        open_calls = set()
        while time.monotonic() < deadline and not transport.closed:
            while len(open_calls) < CONCURRENT:
                open_calls.add(transport.open(path, request))
            transport.receive(0.1)
            for stream in [stream for stream in open_calls if transport.answers[stream].ended]:
                status = transport.answers.pop(stream).status
                known = {http2.OK: "OK", http2.RESOURCE_EXHAUSTED: "refused"}
                counts[known.get(status, "failed")] += 1
                open_calls.remove(stream)
            report(counts)


CHECKS = [list_calls_leave_latency_alone]
