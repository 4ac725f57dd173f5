"""Members that chat without end: each says a line now and then, and when its call ends, opens the next a moment later.

Usage: members.py API ADDR NAME COUNT ROOM..., with so many members NAME-0, NAME-1… in each room; API is hello or join.
Each end of a call is a line of JSON on stdout. Those that join go on after the position that they have. For a line
`publish` on stdin each of them says a line by Publish, lists that and the members, and prints what it got as a line of
JSON. When stdin ends, all half-close and end with their calls.

Every other member has a TCP connection of its own; the rest share one, as if behind a gateway. What a call of chatroom.v1
does not say in its messages, its metadata does: every other member names the room in both.
"""

import itertools
import random
import sys
import threading
import time

import grpc
from chatroom.v1 import chat_pb2 as v1
from chatroom.v1 import chat_pb2_grpc as v1_grpc
from hello import chat_pb2, chat_pb2_grpc
from report import emit, status_of

# Between two lines of one member; and before it comes back, whatever RetryInfo says: the balancer is to have work.
PAUSE_SECONDS, BACK_AFTER_SECONDS = (0.1, 0.3), (0.05, 0.15)
# grpcio gives channels to one address the same TCP connection otherwise.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def main(api, address, name, count, *rooms):
    stop = threading.Event()
    shared = grpc.insecure_channel(address, options=OWN_CONNECTION)
    members = []
    for number, room in enumerate(room for room in rooms for _ in range(int(count))):
        channel = grpc.insecure_channel(address, options=OWN_CONNECTION) if number % 2 else shared
        members.append(APIS[api](channel, f"{name}-{number}", room, named_twice=bool(number % 2)))
    threads = [threading.Thread(target=member.chat, args=(stop,)) for member in members]
    for thread in threads:
        thread.start()
    for number, _ in enumerate(sys.stdin):
        for member in members:
            emit(member.publish(f"aside {number} of {member.name}"))
    stop.set()
    for thread in threads:
        thread.join()


class HelloMember:
    def __init__(self, channel, name, room, named_twice):
        self.name, self.room, self._numbers = name, room, itertools.count()
        self._stub = chat_pb2_grpc.ChatRoomStub(channel)

    def chat(self, stop):
        while not stop.is_set():
            end = {"member": self.name, "room": self.room, "heard": []}
            call = self.open(self._lines(stop))
            try:
                for response in call:
                    self.receive(response, end)
            except grpc.RpcError:
                pass  # What it ended with, its status says.
            end |= {"ended": time.time(), **status_of(call)}
            emit(end)
            stop.wait(random.uniform(*BACK_AFTER_SECONDS))

    def open(self, lines):
        metadata = [("chatroom-room", self.room), ("chatroom-name", self.name)]
        return self._stub.Chat((chat_pb2.ChatRequest(message=line) for line in lines), metadata=metadata)

    def receive(self, response, end):
        end["heard"].append(response.message)

    def _lines(self, stop):
        while not stop.is_set():
            yield f"{self.name} {next(self._numbers)}"
            stop.wait(random.uniform(*PAUSE_SECONDS))


class JoinMember(HelloMember):
    def __init__(self, channel, name, room, named_twice):
        super().__init__(channel, name, room, named_twice)
        self._stub, self._metadata = v1_grpc.ChatServiceStub(channel), [("chatroom-room", room)]
        self._in_body = room if named_twice else ""
        self._position = None

    def open(self, lines):
        start = v1.Start(after=self._position) if self._position else v1.Start()
        hello = v1.JoinRequest(hello=v1.Hello(room=self._in_body, display_name=self.name, start=start))
        publishes = (v1.JoinRequest(publish=v1.Publish(reference=line, body=v1.Body(text=line))) for line in lines)
        return self._stub.Join(itertools.chain([hello], publishes), metadata=self._metadata)

    def receive(self, response, end):
        kind = response.WhichOneof("response")
        told = getattr(response, kind)
        if kind == "welcome":
            end |= {"after": as_text(self._position), "welcome": as_text(told.position), "gap": None, "goodbye": None,
                    "positions": [], "acks": [], "others": []}
            self._position = told.position
        elif kind == "event":
            end["positions"].append(as_text(told.position))
            end["heard"].append(told.body.text)
            self._position = told.position
        elif kind == "ack":
            end["acks"].append([as_text(told.position), told.reference])
        elif kind == "gap" and not end["gap"] and not end["heard"]:
            end["gap"] = {"reason": v1.Gap.Reason.Name(told.reason), "to": as_text(told.to)}
        elif kind == "goodbye" and not end["goodbye"]:
            retry = told.retry_after.ToTimedelta().total_seconds()
            end["goodbye"] = {"reason": told.reason, "position": as_text(told.position), "retry": retry}
        else:
            end["others"].append(str(response))

    def publish(self, line):
        published = {"published": line, "member": self.name, "room": self.room}
        request = v1.PublishRequest(room=self._in_body, display_name=self.name, body=v1.Body(text=line))
        try:
            position = self._stub.Publish(request, metadata=self._metadata).position
            before = v1.Position(epoch=position.epoch, offset=position.offset - 1)
            request = v1.ListEventsRequest(room=self._in_body, start=v1.Start(after=before), page_size=1)
            events = self._stub.ListEvents(request, metadata=self._metadata).events
            members = self._stub.ListMembers(v1.ListMembersRequest(room=self._in_body), metadata=self._metadata).members
        except grpc.RpcError as failed:
            return published | status_of(failed)
        listed = [[as_text(event.position), event.body.text] for event in events]
        names = [member.display_name for member in members]
        return published | {"code": "OK", "position": as_text(position), "listed": listed, "members": names}


def as_text(position):
    return f"{position.epoch}:{position.offset}" if position else ""


APIS = {"hello": HelloMember, "join": JoinMember}

if __name__ == "__main__":
    main(*sys.argv[1:])
