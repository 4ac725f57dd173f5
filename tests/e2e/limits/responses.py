"""Responses that nobody reads."""

import contextlib
import time

import http2
import services
from report import fact, figure, mib
from server import Server, eventually, serves
from transports import connection

EVENTS, EVENT_BYTES = 1100, 1024
CALLS = 400
STALL = 2
# Calls that wait for their turn, because the unwritten bytes are at their limit, end at this.
DEADLINE = 4
PATIENCE = DEADLINE + 8
# Unwritten bytes of one transport: 1 MiB and one page of 1,000 events, and the cost of the transport and its calls. The
# list calls that run at a time may hold one page each.
UNWRITTEN_MAX = 2 * 2**20 + 400 * 1024
LIST_CALLS_AT_A_TIME = 16
GROWTH_MAX = 4 * 2**20 + LIST_CALLS_AT_A_TIME * EVENTS * EVENT_BYTES
PAGE = services.list_events("long")
# chatroom.admin.v1.ListConnectionsRequest{page_size: 1000}
CONNECTIONS_PAGE = b"\x08\xe8\x07"


def unread_responses_are_reset():
    with Server(response_stall_limit=f"{STALL}s", request_deadline=f"{DEADLINE}s") as server:
        services.fill(server.chat, "long", EVENTS, EVENT_BYTES)
        for turn in ("", ", a second time"):
            unread(server, 1, turn)
        unread(server, 50, "")


def unread(server, transports, turn):
    words = f"{CALLS} unread responses on {transports} transports{turn}"
    server.forget_peak()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(http2.Transport(server.chat, window=0)) for _ in range(transports)]
        calls = [(transport, transport.open(services.LIST_EVENTS, PAGE)) for transport in held
                 for _ in range(CALLS // transports)]
        time.sleep(0.5)
        fact(f"{words}: PINGs are acknowledged", all(transport.ping(5) for transport in held))
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not all(t.answers[s].ended or t.closed for t, s in calls):
            for transport in held:
                transport.receive(0 if transports > 1 else 0.1)
            time.sleep(0.01)
        growth, most = server.growth(), GROWTH_MAX + transports * UNWRITTEN_MAX
        fact(f"{words}: memory is bounded", growth <= most, f"grew by {mib(growth)}, at most {mib(most)}")
        ended = sum(t.answers[s].ended for t, s in calls)
        fact(f"{words}: every call ends by the stall limit or the deadline", ended == len(calls), f"{ended}")
        fact(f"{words}: the transports stay open", not any(t.closed for t in held))
        transport = held[0]
        transport.send(http2.settings(initial_window_size=65535))
        fact(f"{words}: the next call on the same transport succeeds",
             transport.call(services.CHECK).status == http2.OK)
    gauge = server.settles("chatroom_transports", 0)
    fact(f"{words}: no transport is left afterwards", gauge == 0, f"{gauge:g}")


def slow_readers_get_whole_responses():
    """A reader that takes some bytes within the limit is not stalled, however long the whole response takes."""
    with Server(response_stall_limit=f"{STALL}s") as server:
        services.fill(server.chat, "long", EVENTS, EVENT_BYTES)
        with http2.Transport(server.chat, window=0) as transport:
            stream = transport.open(services.LIST_EVENTS, PAGE)
            answer = transport.answers[stream]
            for _ in range(2 * STALL):
                transport.send(http2.window_update(stream, 1000))
                transport.wait(lambda: answer.ended, 1)
            fact("a page that is read at 1,000 bytes/s is not reset", not answer.ended, f"reset {answer.reset}")
            transport.send(http2.window_update(stream, 2**24))
            transport.wait(lambda: answer.ended)
            fact("and arrives complete", answer.status == http2.OK and len(answer.messages()) == 1,
                 f"status {answer.status}, {answer.bytes} bytes")


def unread_admin_and_metrics_responses():
    with Server(response_stall_limit=f"{STALL}s", request_deadline=f"{DEADLINE}s") as server:
        with http2.Transport(server.chat) as members:
            for number in range(200):
                members.open(services.CHAT, more=[("chatroom-room", f"r{number % 50}")], end=False)
            eventually(lambda: server.metric("chatroom_connections"), lambda count: count == 200)
            for turn in ("", ", a second time"):
                with http2.Transport(server.admin, window=0) as transport:
                    streams = [transport.open(services.ADMIN + "ListConnections", CONNECTIONS_PAGE) for _ in range(100)]
                    transport.wait(lambda: all(transport.answers[s].ended for s in streams), PATIENCE)
                    ended = sum(transport.answers[s].ended for s in streams)
                    fact(f"admin: 100 unread responses end by the stall limit{turn}", ended == 100, f"{ended}")
                fact(f"admin: another operator is served{turn}", serves(server.admin))
        unread_scrapes(server)


def unread_scrapes(server):
    """Scrapers that pipeline requests and read nothing."""
    for turn in ("", ", a second time"):
        server.forget_peak()
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(connection(server.metrics, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50))
            time.sleep(1)
            growth = server.growth()
            figure("the metrics' length", mib(len(server.get("/metrics")[1])))
            fact(f"metrics: memory is bounded with 100 scrapers that read nothing{turn}", growth <= 16 * 2**20,
                 f"grew by {mib(growth)}")
            fact(f"metrics: probes answer meanwhile{turn}", server.probes_answer())


CHECKS = [
    unread_responses_are_reset,
    slow_readers_get_whole_responses,
    unread_admin_and_metrics_responses,
]
