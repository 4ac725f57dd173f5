"""What a grpcio developer does with chatroom.v1, step by step, with stubs generated from the proto.

Usage: v1.py ADDR. Prints one line for each fact that holds, and fails with the first that does not. The server must
retain 50 messages.
"""

import queue
import sys

import grpc
from chatroom.v1 import chat_pb2 as v1
from chatroom.v1 import chat_pb2_grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

RETAINED = 50


class Client:
    """One Join call: `say` sends, `next` waits for a response."""

    def __init__(self, stub, **hello):
        self._requests = queue.SimpleQueue()
        self._requests.put(v1.JoinRequest(hello=v1.Hello(**hello)))
        self._responses = stub.Join(iter(self._requests.get, None), timeout=30)
        self.welcome = self.next("welcome")

    def next(self, kind):
        response = next(self._responses)
        assert response.WhichOneof("response") == kind, f"{kind} expected: {response}"
        return getattr(response, kind)

    def say(self, **publish):
        self._requests.put(v1.JoinRequest(publish=v1.Publish(**publish)))

    def hears(self, *texts):
        events = [self.next("event") for _ in texts]
        assert [event.body.text for event in events] == list(texts), f"{texts} expected: {events}"
        return events

    def half_closes(self):
        self._requests.put(None)

    def goes(self):
        self._responses.cancel()


def text(words):
    return v1.Body(text=words)


def fact(words):
    print(words, flush=True)


def joins_and_talks(stub):
    ann = Client(stub, room="py", display_name="ann")
    bob = Client(stub, room="py", display_name="bob")
    ann.say(reference="1", body=text("hi"))
    (event,) = ann.hears("hi")
    ack = ann.next("ack")
    (heard,) = bob.hears("hi")
    assert heard == event and ack.position == event.position and ack.reference == "1", f"{event} {ack}"
    assert (event.sender.display_name, event.kind) == ("ann", "chat"), f"{event}"
    fact("grpcio joins, says hi, hears it as everyone does, and gets its position")
    packed = any_pb2.Any()
    packed.Pack(duration_pb2.Duration(seconds=7))
    ann.say(kind="timer", body=v1.Body(any=packed))
    event = bob.next("event")
    unpacked = duration_pb2.Duration()
    assert event.kind == "timer" and event.body.any.Unpack(unpacked) and unpacked.seconds == 7, f"{event}"
    fact("an Any of kind timer arrives as it was packed")
    ann.next("event")
    ann.half_closes()
    goodbye = ann.next("goodbye")
    assert goodbye.reason == "left" and goodbye.position == event.position, f"{goodbye}"
    bob.goes()
    fact("who half-closes gets a goodbye, which says left and up to where it got everything")


def filters_by_kind(stub):
    moves = Client(stub, room="kinds", kinds=["move"])
    everything = Client(stub, room="kinds", suppress_echo=True)
    for kind, words in [("chat", "your turn"), ("move", "e2e4"), ("chat", "hm"), ("move", "e7e5")]:
        position = stub.Publish(v1.PublishRequest(room="kinds", kind=kind, body=text(words))).position
    first, last = moves.hears("e2e4", "e7e5")
    assert (first.position.offset, last.position) == (2, position), f"{first} {last}"
    everything.hears("your turn", "e2e4", "hm", "e7e5")
    moves.goes()
    everything.goes()
    fact("a filter by kind leaves two of four, at their positions in the one order")


def resumes_and_meets_a_gap(stub):
    say = lambda number: stub.Publish(v1.PublishRequest(room="long", body=text(str(number))))
    client = Client(stub, room="long")
    for number in range(1, 6):
        say(number)
    *_, last = client.hears("1", "2", "3", "4", "5")
    client.goes()
    for number in range(6, 11):
        say(number)
    client = Client(stub, room="long", start=v1.Start(after=last.position))
    *_, last = client.hears("6", "7", "8", "9", "10")
    client.goes()
    fact("who comes back with its last position gets what was said meanwhile, each once")
    for number in range(11, 111):
        say(number)
    client = Client(stub, room="long", start=v1.Start(after=last.position))
    gap = client.next("gap")
    assert gap.reason == v1.Gap.REASON_RETENTION and gap.count == 110 - RETAINED - 10, f"{gap}"
    assert (gap.to.offset, client.welcome.position.offset) == (110 - RETAINED,) * 2, f"{gap} {client.welcome}"
    client.hears(*(str(number) for number in range(111 - RETAINED, 111)))
    client.goes()
    fact(f"who was away for too long is told of {gap.count} messages that it missed, and gets the {RETAINED} that are left")
    try:
        Client(stub, room="long", start=v1.Start(after=last.position, strict=True))
        raise AssertionError("a strict start was not refused")
    except grpc.RpcError as refused:
        assert refused.code() == grpc.StatusCode.OUT_OF_RANGE, f"{refused}"
        info = error_details_pb2.ErrorInfo()
        (detail,) = rpc_status.from_call(refused).details
        assert detail.Unpack(info) and info.reason == "START_NOT_RETAINED", f"{detail}"
    fact("and refused with OUT_OF_RANGE, START_NOT_RETAINED, when it asks for all or nothing")


def says_things_once(stub):
    request = v1.PublishRequest(room="once", body=text("pay"), idempotency_key="k1")
    first, again = stub.Publish(request), stub.Publish(request)
    assert first.position == again.position and (first.repeated, again.repeated) == (False, True), f"{first} {again}"
    page = stub.ListEvents(v1.ListEventsRequest(room="once"))
    assert [event.body.text for event in page.events] == ["pay"], f"{page}"
    fact("what comes twice with one idempotency key is said once, and acknowledged twice with one position")


def main(addr):
    with grpc.insecure_channel(addr) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        for step in (joins_and_talks, filters_by_kind, resumes_and_meets_a_gap, says_things_once):
            step(stub)


if __name__ == "__main__":
    main(*sys.argv[1:])
