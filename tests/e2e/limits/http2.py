"""HTTP/2 and gRPC over a raw socket, for frames that no proper client sends.

Guarantees: the frames are sent as given; every wait has a deadline.
Does not know: how a server should respond to them.
"""

import base64
import collections
import select
import socket
import struct
import time

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
CANCEL = 8
FRAME_BYTES_MAX = 16 * 1024
WINDOW_MAX = 2**31 - 1

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 3, 4, 8


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values):
    """A SETTINGS frame; the names are those of this module in lower case."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", globals()[k.upper()], v) for k, v in values.items()))


def window_update(stream, more):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def message(payload, length=None):
    """A gRPC message. `length` overrides the length in the prefix."""
    return struct.pack(">BI", 0, len(payload) if length is None else length) + payload


def header_block(path, more=()):
    """HPACK literals, neither indexed nor Huffman coded: the same bytes on every transport."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
               ("content-type", "application/grpc"), ("te", "trailers"), *more]
    block = bytearray()
    for name, value in headers:
        block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return bytes(block)


class Closed(Exception):
    """The peer has closed the transport."""


class Answer:
    """What one stream has received so far."""

    def __init__(self):
        self.headers, self.data, self.bytes, self.reset = {}, bytearray(), 0, None

    @property
    def status(self):
        """The gRPC status, once received."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def opened(self):
        return ":status" in self.headers

    @property
    def ended(self):
        return self.status is not None or self.reset is not None

    def has_reason(self, reason):
        """Whether the status details contain this ErrorInfo reason."""
        details = self.headers.get("grpc-status-details-bin", "")
        return reason.encode() in base64.b64decode(details + "=" * (-len(details) % 4))

    def messages(self):
        """The payloads of all complete messages."""
        found, at = [], 0
        while at + 5 <= len(self.data):
            length = struct.unpack_from(">I", self.data, at + 1)[0]
            if at + 5 + length > len(self.data):
                break
            found.append(bytes(self.data[at + 5:at + 5 + length]))
            at += 5 + length
        return found


class Transport:
    """One TCP connection that speaks HTTP/2. `window` is the receive window of each stream, `transport_window` that of the
    connection; with `keep=False` response bytes are counted and dropped."""

    def __init__(self, address, source=None, window=WINDOW_MAX, transport_window=WINDOW_MAX, seconds=10, keep=True):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), seconds, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = collections.defaultdict(Answer)
        self.goaway, self.closed, self.pongs = None, False, 0
        self._keep, self._decoder, self._unread = keep, hpack.Decoder(), bytearray()
        self._next, self._initial, self._window = 1, 65535, 65535
        self._windows = {}
        self._seconds = seconds
        more = window_update(0, transport_window - 65535) if transport_window > 65535 else b""
        self.send(PREFACE + settings(initial_window_size=window) + more)

    def send(self, frames):
        """Sends bytes, and reads meanwhile to avoid a deadlock of two full sockets."""
        if self.closed:
            raise Closed
        self.socket.setblocking(False)
        view, deadline = memoryview(frames), time.monotonic() + self._seconds
        while view:
            try:
                view = view[self.socket.send(view):]
            except BlockingIOError:
                readable, _, _ = select.select([self.socket], [self.socket], [], 0.2)
                if readable:
                    self._receive()
                if time.monotonic() > deadline:
                    raise TimeoutError("the peer does not read") from None
            except OSError as error:
                self.closed = True
                raise Closed from error

    def open(self, path, payload=None, more=(), end=True, extra=b""):
        """Opens a call, sends the request if there is one and then the raw bytes `extra`; returns the stream id."""
        stream, self._next = self._next, self._next + 2
        self._windows[stream] = self._initial
        frames = frame(HEADERS, END_HEADERS | (END_STREAM if payload is None and end else 0), stream,
                       header_block(path, more))
        if payload is None and extra:
            frames += self._data(stream, extra, 0)
        if payload is not None:
            frames += self._data(stream, message(payload) + extra, END_STREAM if end else 0)
        self.send(frames)
        return stream

    def _data(self, stream, body, flags):
        """DATA frames for a body that fits into the windows."""
        self._window -= len(body)
        self._windows[stream] -= len(body)
        parts = [body[at:at + FRAME_BYTES_MAX] for at in range(0, len(body), FRAME_BYTES_MAX)] or [b""]
        last = len(parts) - 1
        return b"".join(frame(DATA, flags if i == last else 0, stream, part) for i, part in enumerate(parts))

    def single_bytes(self, stream, count):
        """So many DATA frames of one byte."""
        self._window -= count
        self._windows[stream] -= count
        return frame(DATA, 0, stream, b"x") * count

    def pour(self, bodies, seconds):
        """Sends each stream its body as the windows allow, until all are sent or ended or the time is over. `bodies` maps
        streams to bytes. Returns the number of bytes sent."""
        at, began, sent = dict.fromkeys(bodies, 0), time.monotonic(), 0
        while at and not self.closed and time.monotonic() < began + seconds:
            self.receive(0)
            idle = True
            for stream in list(at):
                body = bodies[stream]
                if at[stream] >= len(body) or self.answers[stream].ended:
                    del at[stream]
                    continue
                size = min(FRAME_BYTES_MAX, self._window, self._windows[stream], len(body) - at[stream])
                if size > 0:
                    self.send(self._data(stream, body[at[stream]:at[stream] + size], 0))
                    at[stream], sent, idle = at[stream] + size, sent + size, False
            if idle and at:
                self.receive(0.05)
        return sent

    def room_to_send(self, stream):
        """Bytes that the windows allow on a stream now."""
        return min(self._window, self._windows[stream])

    def data(self, stream, body, end=False):
        """Sends a body as soon as the windows allow."""
        if not self.wait(lambda: self.room_to_send(stream) >= len(body) or self.answers[stream].ended):
            raise TimeoutError("no credit")
        if not self.answers[stream].ended:
            self.send(self._data(stream, body, END_STREAM if end else 0))

    def call(self, path, payload=b"", more=(), seconds=None):
        """Makes a unary call; returns its answer, which has not ended if the time ran out."""
        stream = self.open(path, payload, more)
        answer = self.answers[stream]
        self.wait(lambda: answer.ended, seconds)
        return answer

    def ping(self, seconds=None):
        """Whether a PING is acknowledged in time."""
        before = self.pongs
        self.send(frame(PING, 0, 0, b"limits!!"))
        return self.wait(lambda: self.pongs > before, seconds)

    def wait(self, holds, seconds=None):
        """Reads until `holds()`; False if the time runs out or the transport closes first."""
        deadline = time.monotonic() + (self._seconds if seconds is None else seconds)
        while not holds():
            left = deadline - time.monotonic()
            if left <= 0 or self.closed:
                return False
            self.receive(left)
        return True

    def receive(self, seconds):
        """Reads at most one block within the time. Sets `closed` when the peer has closed."""
        if not self.closed and select.select([self.socket], [], [], max(0, seconds))[0]:
            self._receive()

    def _receive(self):
        self.socket.setblocking(False)
        try:
            block = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        if not block:
            self.closed = True
            return
        self._unread += block
        at, replies = 0, bytearray()
        while len(self._unread) - at >= 9:
            length = int.from_bytes(self._unread[at:at + 3], "big")
            if len(self._unread) - at - 9 < length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._unread, at + 3)
            self._take(kind, flags, stream, bytes(self._unread[at + 9:at + 9 + length]), replies)
            at += 9 + length
        del self._unread[:at]
        if replies:
            try:
                # If the socket has no space for a few bytes, the peer has stopped reading.
                self.socket.send(replies)
            except BlockingIOError:
                pass
            except OSError:
                self.closed = True

    def _take(self, kind, flags, stream, payload, replies):
        if kind == DATA:
            answer = self.answers[stream]
            answer.bytes += len(payload)
            if self._keep:
                answer.data += payload
        elif kind == HEADERS:
            block = self._decoder.decode(payload, raw=True)
            headers = {name.decode(): value.decode("latin-1") for name, value in block}
            self.answers[stream].headers.update(headers)
        elif kind == RST_STREAM:
            self.answers[stream].reset = struct.unpack(">I", payload)[0]
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == INITIAL_WINDOW_SIZE:
                    grown, self._initial = value - self._initial, value
                    self._windows = {s: window + grown for s, window in self._windows.items()}
            replies += frame(SETTINGS, ACK, 0)
        elif kind == PING:
            if flags & ACK:
                self.pongs += 1
            else:
                replies += frame(PING, ACK, 0, payload)
        elif kind == GOAWAY:
            self.goaway = struct.unpack_from(">I", payload, 4)[0]
        elif kind == WINDOW_UPDATE:
            more = struct.unpack(">I", payload)[0]
            if stream == 0:
                self._window += more
            elif stream in self._windows:
                self._windows[stream] += more

    def close(self):
        self.closed = True
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
