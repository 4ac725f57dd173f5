"""Members that chat without end: each says a line now and then, and when its call ends, opens the next a moment later.

Usage: members.py ADDR NAME COUNT ROOM..., with so many members NAME-0, NAME-1… in each room. When stdin ends, each
half-closes and ends with its call. Each end of a call is a line of JSON on stdout.

Every other member has a TCP connection of its own; the rest share one, as if behind a gateway.
"""

import itertools
import json
import random
import sys
import threading
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hello import chat_pb2, chat_pb2_grpc

# Between two lines of one member; and before it comes back, whatever RetryInfo says: the balancer is to have work.
PAUSE_SECONDS, BACK_AFTER_SECONDS = (0.1, 0.3), (0.05, 0.15)
# grpcio gives channels to one address the same TCP connection otherwise.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def main(address, name, count, *rooms):
    stop = threading.Event()
    shared = grpc.insecure_channel(address, options=OWN_CONNECTION)
    members = []
    for number, room in enumerate(room for room in rooms for _ in range(int(count))):
        channel = grpc.insecure_channel(address, options=OWN_CONNECTION) if number % 2 else shared
        members.append(threading.Thread(target=chat, args=(channel, f"{name}-{number}", room, stop)))
    for member in members:
        member.start()
    sys.stdin.read()
    stop.set()
    for member in members:
        member.join()


def chat(channel, name, room, stop):
    stub, numbers = chat_pb2_grpc.ChatRoomStub(channel), itertools.count()
    metadata = [("chatroom-room", room), ("chatroom-name", name)]
    while not stop.is_set():
        call, heard = stub.Chat(lines(name, numbers, stop), metadata=metadata), []
        try:
            for response in call:
                heard.append(response.message)
        except grpc.RpcError:
            pass  # What it ended with, its status says.
        end = {"member": name, "room": room, "ended": time.time(), "heard": heard, **status_of(call)}
        # In one piece: the others write, too.
        sys.stdout.write(json.dumps(end) + "\n")
        sys.stdout.flush()
        stop.wait(random.uniform(*BACK_AFTER_SECONDS))


def lines(name, numbers, stop):
    while not stop.is_set():
        yield chat_pb2.ChatRequest(message=f"{name} {next(numbers)}")
        stop.wait(random.uniform(*PAUSE_SECONDS))


def status_of(call):
    """As a client sees it that reads the details with Google's own library."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        status = None  # They contradict the code: the call has ended otherwise.
    for detail in status.details if status else ():
        for kind in (info, retry):
            detail.Unpack(kind)
    return {
        "code": call.code().name,
        "message": call.details(),
        "reason": info.reason,
        "position": info.metadata.get("position"),
        "retry_seconds": retry.retry_delay.ToTimedelta().total_seconds(),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
