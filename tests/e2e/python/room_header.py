"""Calls each method of chatroom.v1 for one room, with metadata that names no room, another, or the room twice.

Usage: room_header.py ADDR ROOM. Prints how each call ended as a line of JSON.
"""

import sys

import grpc
from chatroom.v1 import chat_pb2 as v1
from chatroom.v1 import chat_pb2_grpc
from report import emit, status_of

PATIENCE_SECONDS = 4


def main(addr, room):
    with grpc.insecure_channel(addr) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        publish = v1.PublishRequest(room=room, body=v1.Body(text="hi"))
        calls = {
            "Join": (lambda hello, **how: stub.Join(iter([hello]), **how), v1.JoinRequest(hello=v1.Hello(room=room))),
            "Subscribe": (stub.Subscribe, v1.SubscribeRequest(room=room)),
            "Publish": (stub.Publish.future, publish),
            "ListEvents": (stub.ListEvents.future, v1.ListEventsRequest(room=room)),
            "ListMembers": (stub.ListMembers.future, v1.ListMembersRequest(room=room)),
            "ListRooms": (stub.ListRooms.future, v1.ListRoomsRequest()),
        }
        for method, (begin, request) in calls.items():
            for rooms in ([], ["another"], [room, room]):
                metadata = [("chatroom-room", named) for named in rooms]
                call = begin(request, metadata=metadata, timeout=PATIENCE_SECONDS)
                emit({"method": method, "rooms": rooms, **status_of(call)})


if __name__ == "__main__":
    main(*sys.argv[1:])
