"""Readers on grpcio, all in one room: steady ones, slow ones, and ones that stop for a while.

Usage: readers.py ADDR PLAN, with the plan as JSON (see ../slow_consumers.py). Prints one line of JSON when a call is
open, and one when it has ended. A reader that was disconnected with a position opens the next call from there.
"""

import json
import queue
import sys
import threading
import time

import grpc
from chatroom.v1 import chat_pb2 as v1
from chatroom.v1 import chat_pb2_grpc as v1_grpc
from hello import chat_pb2_grpc as hello_grpc
from report import emit, status_of

SLOW_GAP_SECONDS = 0.01  # 100 messages a second
PAUSE_AFTER = 20  # messages
# grpcio gives channels to one address the same TCP connection otherwise.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def main(address, plan):
    plan, channels = json.loads(plan), {}
    threads = []
    for reader in plan:
        name = reader["transport"] or f"of {reader['name']}"
        if name not in channels:
            channels[name] = grpc.insecure_channel(address, options=OWN_CONNECTION)
        threads.append(threading.Thread(target=run, args=(channels[name], reader)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(channel, reader):
    position = ""
    while True:
        leg = {"name": reader["name"], "code": "", "message": "", "reason": "", "position": "", "retry": 0.0,
               "ranges": [], "end": False, "notes": []}
        call = None
        try:
            call, texts = OPEN[reader["api"]](channel, reader["room"], reader["name"], position, leg["notes"])
            emit({"open": reader["name"]})
            read(texts, leg, reader, bool(position))
            call.cancel()
        except grpc.RpcError as ended:
            leg |= status_of(call or ended)
        emit(leg)
        if leg["reason"] != "SLOW_CONSUMER" or not leg["position"]:
            return
        position = leg["position"]
        time.sleep(leg["retry"])


def read(texts, leg, reader, resumed):
    """Returns when the reader has what it wanted."""
    began, ranges = None, leg["ranges"]
    for count, text in enumerate(texts, start=1):
        began = began or time.monotonic()
        number, rest = text.split(" ", 1)
        number = int(number)
        if ranges and ranges[-1][1] + 1 == number:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
        leg["end"] = rest == "end"
        if leg["end"] or (resumed and count == reader["further"]):
            return
        if resumed:
            continue
        if reader["pace"] == "slow" and time.monotonic() - began < reader["seconds"]:
            time.sleep(SLOW_GAP_SECONDS)
        elif reader["pace"] == "pausing" and count == PAUSE_AFTER:
            time.sleep(reader["seconds"])


def open_hello(channel, room, name, position, _):
    metadata = [("chatroom-room", room), ("chatroom-name", name)]
    if position:
        metadata.append(("chatroom-resume", position))
    # Nothing to say, and the request stays open.
    call = hello_grpc.ChatRoomStub(channel).Chat(iter(queue.SimpleQueue().get, None), metadata=metadata)
    call.initial_metadata()
    return call, (response.message for response in call)


def open_join(channel, room, name, position, notes):
    requests = queue.SimpleQueue()
    requests.put(v1.JoinRequest(hello=v1.Hello(room=room, display_name=name, start=start_after(position))))
    call = v1_grpc.ChatServiceStub(channel).Join(iter(requests.get, None))
    return call, v1_texts(call, notes)


def open_subscribe(channel, room, name, position, notes):
    request = v1.SubscribeRequest(room=room, display_name=name, start=start_after(position))
    call = v1_grpc.ChatServiceStub(channel).Subscribe(request)
    return call, v1_texts(call, notes)


OPEN = {"hello": open_hello, "join": open_join, "subscribe": open_subscribe}


def start_after(position):
    if not position:
        return v1.Start()
    epoch, offset = position.split(":")
    return v1.Start(after=v1.Position(epoch=epoch, offset=int(offset)))


def v1_texts(call, notes):
    """Waits for the welcome, and returns the texts that follow."""
    welcome = next(call)
    assert welcome.HasField("welcome"), f"the first response is no welcome: {welcome}"

    def texts():
        for response in call:
            if response.HasField("event"):
                yield response.event.body.text
            elif response.HasField("goodbye"):
                at = response.goodbye.position
                notes.append(f"goodbye {response.goodbye.reason} {at.epoch}:{at.offset}")
            else:
                notes.append(str(response))

    return texts()


if __name__ == "__main__":
    main(*sys.argv[1:])
