"""Transports without a call, and calls that no limit counts."""

import contextlib
import time

import http2
import services
from report import fact, figure
from server import Server, eventually, serves

LIMIT = 2
PATIENCE = LIMIT + 6
TRANSPORTS = 50
CALLS_MAX = 200


def idle_transports_are_closed():
    with Server(transport_idle_limit=f"{LIMIT}s", max_transports=TRANSPORTS) as server:
        for listener, address in (("chat", server.chat), ("admin", server.admin)):
            for turn in ("", ", a second time"):
                with contextlib.ExitStack() as stack:
                    busy = stack.enter_context(http2.Transport(address))
                    watch = busy.open(services.WATCH, b"")
                    idle = [stack.enter_context(http2.Transport(address)) for _ in range(TRANSPORTS - 1)]
                    answered = sum(map(is_served, idle))
                    fact(f"{listener}: {TRANSPORTS - 1} transports carry one call each{turn}", answered == len(idle), answered)
                    began = time.monotonic()
                    # The idle time begins at the end of the last call.
                    drain(idle, lambda: any(transport.closed for transport in idle), LIMIT / 4)
                    fact(f"{listener}: none is closed in a quarter of the limit{turn}", not any(t.closed for t in idle))
                    drain(idle, lambda: all(transport.closed for transport in idle), PATIENCE)
                    closed = sum(transport.closed for transport in idle)
                    fact(f"{listener}: all are closed after {LIMIT} s without a call{turn}", closed == len(idle),
                         f"{closed} after {time.monotonic() - began:.1f} s")
                    told = sum(transport.goaway == 0 for transport in idle)
                    fact(f"{listener}: each receives GOAWAY NO_ERROR{turn}", told == len(idle), f"{told}")
                    busy.receive(0)
                    fact(f"{listener}: a transport with an open call stays open{turn}",
                         not busy.closed and busy.goaway is None and not busy.answers[watch].ended and busy.ping(5))
                    fact(f"{listener}: a new client is served{turn}", serves(address))
                    busy.send(http2.reset(watch))
                    drain([busy], lambda: busy.closed, PATIENCE)
                    fact(f"{listener}: it is closed after its last call{turn}", busy.closed)
                # Let the server see the closed sockets.
                eventually(lambda: serves(address), bool)
                time.sleep(0.3)
            gauge = server.settles("chatroom_transports", 0)
            fact("no transport is left", gauge == 0, f"{gauge:g}")


def is_served(transport):
    try:
        return transport.call(services.CHECK).status == http2.OK
    except http2.Closed:
        return False


def drain(transports, holds, seconds):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        for transport in transports:
            transport.receive(0)
        time.sleep(0.02)


def calls_of_all_kinds_are_counted():
    with Server(max_connections=CALLS_MAX) as server:
        for turn in ("", ", a second time"):
            with contextlib.ExitStack() as stack:
                watchers = [stack.enter_context(http2.Transport(server.chat)) for _ in range(3)]
                watches = [(transport, transport.open(services.WATCH, b"")) for transport in watchers for _ in range(100)]
                settle(watches)
                open_now = sum(transport.answers[s].opened and not transport.answers[s].ended for transport, s in watches)
                fact(f"of {len(watches)} health watches at most {CALLS_MAX} are open{turn}", open_now <= CALLS_MAX, open_now)
                refused = [transport.answers[s].status for transport, s in watches if transport.answers[s].ended]
                fact(f"the other watches get RESOURCE_EXHAUSTED{turn}", refused and set(refused) == {http2.RESOURCE_EXHAUSTED},
                     f"{len(refused)} ended, with {set(refused) or 'nothing'}")
                with http2.Transport(server.chat) as transport:
                    chat = services.join(transport, "lobby")
                    transport.wait(lambda: transport.answers[chat].ended, 0.5)
                    answer = transport.answers[chat]
                    fact(f"a Chat call gets RESOURCE_EXHAUSTED meanwhile{turn}", answer.status == http2.RESOURCE_EXHAUSTED,
                         f"status {answer.status}")
                    check = transport.call(services.CHECK).status
                    fact(f"a health Check succeeds meanwhile{turn}", check == http2.OK, f"status {check}")
                fact(f"probes and operators are served meanwhile{turn}", server.probes_answer() and serves(server.admin))
            gone = server.settles("chatroom_transports", 0)
            fact(f"no transport is left{turn}", gone == 0, f"{gone:g}")
            with http2.Transport(server.chat) as transport:
                calls = [services.join(transport, f"room-{n % 40}") for n in range(CALLS_MAX)]
                members = sum(services.is_in(transport.answers[call]) for call in calls)
                fact(f"{CALLS_MAX} members join after the watches have ended{turn}", members == CALLS_MAX, members)
                watch = transport.open(services.WATCH, b"")
                transport.wait(lambda: transport.answers[watch].ended, 0.5)
                status = transport.answers[watch].status
                fact(f"one more watch gets RESOURCE_EXHAUSTED{turn}", status == http2.RESOURCE_EXHAUSTED, f"status {status}")
            left = server.settles("chatroom_connections", 0)
            fact(f"chatroom_connections is 0 afterwards{turn}", left == 0, f"{left:g}")


def reflection_streams_and_admin_watches_are_counted():
    with Server(max_connections=CALLS_MAX, request_deadline="60s") as server:
        for listener, address in (("chat", server.chat), ("admin", server.admin)):
            for path, request in ((services.REFLECTION, b"\x3a\0"), (services.WATCH, b"")):
                with http2.Transport(address) as transport:
                    calls = [transport.open(path, request, end=path == services.WATCH) for _ in range(CALLS_MAX + 50)]
                    settle([(transport, call) for call in calls])
                    answers = [transport.answers[call] for call in calls]
                    still_open = sum(not answer.ended for answer in answers)
                    fact(f"{listener}: of {len(calls)} calls of {path} at most {CALLS_MAX} stay open",
                         still_open <= CALLS_MAX, still_open)
                    fact(f"{listener}: a health Check succeeds meanwhile", serves(address))
                served = eventually(lambda: serves(address), bool)
                fact(f"{listener}: a new client is served afterwards", served)
        figure("transports left", server.settles("chatroom_transports", 0))


def settle(calls):
    """Reads until each call has opened or ended."""
    end = time.monotonic() + 5
    while time.monotonic() < end and not all(t.answers[s].opened or t.answers[s].ended for t, s in calls):
        for transport in {t for t, _ in calls}:
            transport.receive(0.02)
    # A status may follow the headers.
    for transport in {t for t, _ in calls}:
        transport.wait(lambda: False, 0.3)


CHECKS = [idle_transports_are_closed, calls_of_all_kinds_are_counted, reflection_streams_and_admin_watches_are_counted]
