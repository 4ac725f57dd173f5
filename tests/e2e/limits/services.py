"""The methods that the checks call, their requests, and calls that several checks make."""

import http2
from chatroom.v1 import chat_pb2 as v1

CHAT = "/hello.ChatRoom/Chat"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
REFLECTION_ALPHA = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
PUBLISH = "/chatroom.v1.ChatService/Publish"
LIST_EVENTS = "/chatroom.v1.ChatService/ListEvents"
LIST_ROOMS = "/chatroom.v1.ChatService/ListRooms"
ADMIN = "/chatroom.admin.v1.AdminService/"


def text(words):
    """A hello.ChatRequest."""
    body = words.encode() if isinstance(words, str) else words
    length, prefix = len(body), bytearray([0x0a])
    while length >= 0x80:
        prefix.append(length & 0x7f | 0x80)
        length >>= 7
    return bytes(prefix) + bytes([length]) + body


def publish(room, words, kind=""):
    return v1.PublishRequest(room=room, kind=kind, body=v1.Body(text=words)).SerializeToString()


def list_events(room, kinds=(), page_size=1000):
    start = v1.Start(earliest=v1.Start.Earliest())
    return v1.ListEventsRequest(room=room, kinds=kinds, page_size=page_size, start=start).SerializeToString()


def list_rooms(page_size=1000, page_token=""):
    return v1.ListRoomsRequest(page_size=page_size, page_token=page_token).SerializeToString()


def join(transport, room, name="limits"):
    """Opens a Chat call in a room; returns its stream once the response headers or a status have arrived."""
    stream = transport.open(CHAT, more=[("chatroom-room", room), ("chatroom-name", name)], end=False)
    transport.wait(lambda: transport.answers[stream].opened or transport.answers[stream].ended)
    return stream


def is_in(answer):
    """Whether a Chat call is open."""
    return answer.opened and not answer.ended


def fill(address, room, count, size, source=None):
    """Publishes `count` messages of `size` bytes to a room over one Chat call, and waits until its sender has received them."""
    body = http2.message(text("x" * size))
    per_frame = max(1, http2.FRAME_BYTES_MAX // len(body))
    with http2.Transport(address, source, keep=False) as transport:
        stream = join(transport, room, "filler")
        for at in range(0, count, per_frame):
            transport.data(stream, body * min(per_frame, count - at))
        expected = count * len(body)
        if not transport.wait(lambda: transport.answers[stream].bytes >= expected, 30):
            got, answer = transport.answers[stream].bytes, transport.answers[stream]
            raise TimeoutError(f"the room {room} got {got} of {expected} bytes; {answer.headers} {answer.reset}")


def publish_all(transport, requests, ahead=64, seconds=60):
    """Makes unary publishes, `ahead` of them at a time; returns their answers in order."""
    streams, waiting = [], set()
    for request in requests:
        if len(waiting) >= ahead:
            transport.wait(lambda: any(transport.answers[s].ended for s in waiting), seconds)
            waiting = {s for s in waiting if not transport.answers[s].ended}
        if transport.closed:
            break
        streams.append(transport.open(PUBLISH, end=False))
        transport.data(streams[-1], http2.message(request), end=True)
        waiting.add(streams[-1])
    transport.wait(lambda: all(transport.answers[s].ended for s in waiting), seconds)
    return [transport.answers[s] for s in streams]
