"""More transports than a listener accepts, and the state after they have closed."""

import contextlib
import socket
import time

import http2
import services
from report import fact, figure
from server import Server, eventually, serves

CHAT_LIMIT, CHAT_CONNECTIONS = 50, 100
# Constants of the server.
ADMIN_LIMIT, ADMIN_CONNECTIONS = 64, 120
METRICS_LIMIT, METRICS_CONNECTIONS = 64, 120
OPEN_FILES = 256


def chat_listener_transport_limit():
    with Server(max_transports=CHAT_LIMIT) as server:
        for turn in ("", ", a second time"):
            with crowd(server.chat, CHAT_CONNECTIONS) as served:
                fact(f"of {CHAT_CONNECTIONS} connections at most {CHAT_LIMIT} are served{turn}",
                     served == CHAT_LIMIT, f"{served}")
                gauge = server.metric("chatroom_transports")
                fact(f"the gauge is the limit while the listener is full{turn}", gauge == CHAT_LIMIT, f"{gauge:g}")
                answers_elsewhere(server, f"the chat listener is full{turn}")
            emptied(server, turn)


def admin_listener_transport_limit():
    with Server() as server:
        for turn in ("", ", a second time"):
            with crowd(server.admin, ADMIN_CONNECTIONS) as served:
                fact(f"of {ADMIN_CONNECTIONS} admin connections at most {ADMIN_LIMIT} are served{turn}",
                     served == ADMIN_LIMIT, f"{served}")
                fact(f"clients and probes are served while the admin listener is full{turn}",
                     serves(server.chat) and server.probes_answer())
            answered = eventually(lambda: serves(server.admin), bool)
            fact(f"an operator is served afterwards{turn}", answered)


def metrics_listener_connection_limit():
    with Server() as server:
        # All threads have started after this.
        server.probes_answer()
        before = server.descriptors()
        for kind, head in (("idle", b""), ("half a head", b"GET /readyz HTTP/1.1\r\nHost: loc")):
            for turn in ("", ", a second time"):
                with contextlib.ExitStack() as stack:
                    held = [stack.enter_context(connection(server.metrics, head)) for _ in range(METRICS_CONNECTIONS)]
                    fact(f"probes answer beside {METRICS_CONNECTIONS} connections: {kind}{turn}", server.probes_answer())
                    still_open = sum(map(is_open, held))
                    fact(f"at most {METRICS_LIMIT} of them stay open{turn}", still_open <= METRICS_LIMIT, f"{still_open}")
                    fact(f"the newest stay open{turn}",
                         all(map(is_open, held[-METRICS_LIMIT // 2:])))
                    if not turn:
                        left = eventually(lambda: sum(map(is_open, held)), lambda count: count == 0, 10)
                        fact(f"{kind}: all are closed at the header deadline", left == 0, f"{left} open")
                left = eventually(server.descriptors, lambda count: count <= before + 2)
                fact(f"{kind}: no descriptor is leaked{turn}", left <= before + 2, f"{left}, before {before}")


def open_file_limit():
    """With few descriptors the transport limit is lower, and the rest are reserved for probes and operators."""
    with Server(open_files=OPEN_FILES) as server:
        limit = int(server.metric("chatroom_transports_limit"))
        figure(f"transports that ulimit -n {OPEN_FILES} leaves", limit)
        for turn in ("", ", a second time"):
            with crowd(server.chat, limit + 50) as served:
                fact(f"at most {limit} are served with {OPEN_FILES} descriptors{turn}", served == limit, f"{served}")
                answers_elsewhere(server, f"the descriptors are few and the chat listener is full{turn}")
                cores = server.cores_used(1)
                fact(f"no thread spins meanwhile{turn}", cores < 0.2, f"{cores:.2f} cores")
            emptied(server, turn)


@contextlib.contextmanager
def crowd(address, count):
    """Opens `count` transports and keeps them open; yields how many are served."""
    with contextlib.ExitStack() as stack:
        transports, served = [], 0
        for _ in range(count):
            with contextlib.suppress(OSError, http2.Closed):
                transports.append(stack.enter_context(http2.Transport(address)))
        calls = []
        for transport in transports:
            with contextlib.suppress(http2.Closed):
                calls.append((transport, transport.open(services.CHECK, b"")))
        for transport, stream in calls:
            transport.wait(lambda: transport.answers[stream].ended, 2)
            served += transport.answers[stream].status == http2.OK
        yield served


def answers_elsewhere(server, when):
    fact(f"probes answer while {when}", server.probes_answer())
    fact(f"the admin listener answers while {when}", serves(server.admin))


def emptied(server, turn):
    gauge = server.settles("chatroom_transports", 0)
    fact(f"the gauge is 0 after all have closed{turn}", gauge == 0, f"{gauge:g}" if gauge is not None else "no answer")
    answered = eventually(lambda: serves(server.chat), bool, 5)
    fact(f"a new client is served then{turn}", answered)
    server.settles("chatroom_transports", 0)


def connection(address, head):
    host, port = address.rsplit(":", 1)
    made = socket.create_connection((host, int(port)), 5)
    made.sendall(head)
    # Keeps the order of accepting.
    time.sleep(0.001)
    return made


def is_open(made):
    made.setblocking(False)
    try:
        return made.recv(4096, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


CHECKS = [
    chat_listener_transport_limit,
    admin_listener_transport_limit,
    metrics_listener_connection_limit,
    open_file_limit,
]
