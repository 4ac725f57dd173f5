"""Requests that are too long or never end, on every service of every listener."""

import contextlib
import os
import time

import http2
import services
from report import fact, figure, mib
from server import Server, serves
from transports import connection

LONG = bool(os.environ.get("LIMITS_LONG"))
CALLS = 100
# A length that tonic's default limit accepts, and the part of it that is sent.
DECLARED = 4 * 2**20 - 64
SENT = DECLARED if LONG else 2**20
# For the transports and streams of an attack, not for the bodies.
GROWTH_MAX = 8 * 2**20
GROWTH_PER_TRANSPORT_MAX = 128 * 1024
DEADLINE = 2
PATIENCE = DEADLINE + 8

CHAT_PATHS = (services.CHECK, services.WATCH, services.REFLECTION, services.REFLECTION_ALPHA, services.PUBLISH,
              services.LIST_EVENTS, services.LIST_ROOMS)
ADMIN_PATHS = (services.CHECK, services.REFLECTION, services.ADMIN + "ListConnections", services.ADMIN + "ListRooms")


def long_requests_are_refused_at_once():
    with Server(request_deadline=f"{DEADLINE}s") as server:
        listeners = [("chat", server.chat, CHAT_PATHS), ("admin", server.admin, ADMIN_PATHS)]
        for listener, address, paths in listeners:
            for path in paths:
                with http2.Transport(address) as transport:
                    stream = transport.open(path, end=False, extra=http2.message(b"x" * 5, length=DECLARED))
                    answer = transport.answers[stream]
                    transport.wait(lambda: answer.ended, 1)
                    fact(f"{listener}: a declared length of 4 MiB on {path} is RESOURCE_EXHAUSTED at once",
                         answer.status == http2.RESOURCE_EXHAUSTED, f"status {answer.status}")
        # 4 KiB for health and reflection, 64 KiB for the rest.
        for path, most in ((services.CHECK, 4 * 1024), (services.REFLECTION, 4 * 1024), (services.PUBLISH, 64 * 1024)):
            with http2.Transport(server.chat) as transport:
                stream = transport.open(path, end=False, extra=http2.message(b"x" * 5, length=most + 1024))
                transport.wait(lambda: transport.answers[stream].ended, 1)
                status = transport.answers[stream].status
                fact(f"a request of {most + 1024} bytes on {path} is RESOURCE_EXHAUSTED",
                     status == http2.RESOURCE_EXHAUSTED, f"status {status}")


def long_request_bodies_are_not_buffered():
    """Sends as much of each body as the server accepts."""
    attacks = [("chat", services.CHECK), ("admin", services.ADMIN + "ListConnections")]
    attacks += [("chat", services.REFLECTION), ("chat", services.PUBLISH)] * LONG
    for listener, path in attacks:
        with Server(request_deadline=f"{DEADLINE}s") as server:
            address = getattr(server, listener)
            # The admin listener has 64 transports.
            for transports in (1, CALLS if listener == "chat" else 60):
                for turn in ("", ", a second time"):
                    server.forget_peak()
                    pour(address, path, transports)
                    growth, most = server.growth(), GROWTH_MAX + transports * GROWTH_PER_TRANSPORT_MAX
                    fact(f"{listener}: {CALLS} bodies of {mib(SENT)} on {path}, {transports} transports, are not buffered{turn}",
                         growth <= most, f"grew by {mib(growth)}, at most {mib(most)}")
            fact(f"{listener}: a new client is served afterwards", serves(address))


def metrics_request_bodies_are_not_buffered():
    with Server() as server:
        head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n"
        for turn in ("", ", a second time"):
            server.forget_peak()
            with contextlib.ExitStack() as stack:
                for _ in range(60):
                    held = stack.enter_context(connection(server.metrics, head))
                    with contextlib.suppress(OSError):
                        held.settimeout(0.05)
                        held.sendall(b"x" * SENT)
                growth = server.growth()
                fact(f"metrics: 60 bodies are not buffered{turn}", growth <= GROWTH_MAX, f"grew by {mib(growth)}")
                fact(f"metrics: probes answer meanwhile{turn}", server.probes_answer())


def unfinished_requests_meet_the_deadline():
    with Server(request_deadline=f"{DEADLINE}s") as server:
        forms = [("no byte of it", b""), ("half a prefix", b"\0\0\0"), ("a part of the message", http2.message(b"x" * 9, 1000))]
        for turn in ("", ", a second time"):
            calls = []
            with http2.Transport(server.chat) as chat, http2.Transport(server.admin) as admin:
                for listener, transport, paths in (("chat", chat, CHAT_PATHS), ("admin", admin, ADMIN_PATHS)):
                    for form, sent in forms:
                        for path in paths:
                            calls.append((listener, form, transport, path, transport.open(path, end=False, extra=sent)))
                half = services.join(chat, "half")
                chat.data(half, http2.message(services.text("x" * 1000))[:100])
                silent = services.join(chat, "silent")
                # Valid requests without END_STREAM.
                endless = [(chat, chat.open(path, b"", end=False)) for path in (services.CHECK, services.LIST_ROOMS)]
                endless.append((admin, admin.open(services.ADMIN + "ListRooms", b"", end=False)))
                await_all([(transport, stream) for _, _, transport, _, stream in calls] + [(chat, half)] + endless)
                ends = [transport.answers[stream].status for transport, stream in endless]
                fact(f"whole requests without END_STREAM get OK or DEADLINE_EXCEEDED{turn}",
                     set(ends) <= {http2.OK, http2.DEADLINE_EXCEEDED}, f"{ends}")
                for listener, form, *_ in {call[:2]: call for call in calls}.values():
                    statuses = {path: transport.answers[stream].status for l, f, transport, path, stream in calls
                                if (l, f) == (listener, form)}
                    wrong = {path: s for path, s in statuses.items() if s != http2.DEADLINE_EXCEEDED}
                    fact(f"{listener}: {form}, on {len(statuses)} methods, is DEADLINE_EXCEEDED{turn}", not wrong, f"not: {wrong}"
                         if wrong else "")
                status = chat.answers[half].status
                fact(f"half a message on hello Chat is DEADLINE_EXCEEDED{turn}", status == http2.DEADLINE_EXCEEDED,
                     f"status {status}")
                fact(f"a Chat call that sends nothing stays open{turn}", services.is_in(chat.answers[silent]))
            gauge = server.settles("chatroom_transports", 0)
            fact(f"no transport is left{turn}", gauge == 0, f"{gauge:g}")


def await_all(calls):
    """Reads all transports until these calls have ended or PATIENCE is over."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and not all(t.answers[s].ended for t, s in calls):
        for transport in {t for t, _ in calls}:
            transport.receive(0.05)


def pour(address, path, transports):
    """Makes CALLS calls over so many transports; each sends SENT bytes of its body and does not end it."""
    body = http2.message(b"", length=DECLARED) + b"x" * SENT
    share, rest = divmod(CALLS, transports)
    with contextlib.ExitStack() as stack:
        held = []
        for number in range(transports):
            transport = stack.enter_context(http2.Transport(address))
            held.append((transport, [transport.open(path, end=False) for _ in range(share + (number < rest))]))
        sent, end = 0, time.monotonic() + 20
        for transport, streams in held:
            # The server may stop accepting bytes.
            with contextlib.suppress(http2.Closed, TimeoutError):
                sent += transport.pour(dict.fromkeys(streams, body), min(10 if transports == 1 else 0.5,
                                                                          max(0, end - time.monotonic())))
        time.sleep(0.1)
        ended = sum(transport.answers[s].ended for transport, streams in held for s in streams)
        figure(f"the server took {mib(sent)} of {mib(CALLS * SENT)}, and ended", f"{ended} of {CALLS} calls")


CHECKS = [
    long_requests_are_refused_at_once,
    long_request_bodies_are_not_buffered,
    metrics_request_bodies_are_not_buffered,
    unfinished_requests_meet_the_deadline,
]
