"""Opens a new call every 50 ms, each in a room of its own: says one line and half-closes, must hear it and end OK.

Usage: prober.py ADDR, until stdin ends. Each call is a line of JSON on stdout, when it has ended. By turns the calls
are on one TCP connection that is kept, and on new ones.
"""

import itertools
import sys
import threading
import time

import grpc
from hello import chat_pb2, chat_pb2_grpc
from report import emit

EVERY_SECONDS, PATIENCE_SECONDS = 0.05, 10
# grpcio gives channels to one address the same TCP connection otherwise.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def main(address):
    stop = threading.Event()
    threading.Thread(target=lambda: [sys.stdin.read(), stop.set()]).start()
    kept = grpc.insecure_channel(address, options=OWN_CONNECTION)
    probes = []
    for number in itertools.count():
        if stop.wait(EVERY_SECONDS):
            break
        probe = probe_on_new_connection if number % 2 else probe_on
        probes.append(threading.Thread(target=probe, args=(address if number % 2 else kept, number)))
        probes[-1].start()
    for probe in probes:
        probe.join()


def probe_on_new_connection(address, number):
    with grpc.insecure_channel(address, options=OWN_CONNECTION) as channel:
        probe_on(channel, number)


def probe_on(channel, number):
    room, line, heard = f"probe-{number}", f"line {number}", []
    opened = time.time()
    said = iter([chat_pb2.ChatRequest(message=line)])
    stub = chat_pb2_grpc.ChatRoomStub(channel)
    call = stub.Chat(said, metadata=[("chatroom-room", room)], timeout=PATIENCE_SECONDS)
    try:
        for response in call:
            heard.append(response.message)
    except grpc.RpcError:
        pass  # What it ended with, its status says.
    ended, code = time.time(), call.code().name
    emit({"room": room, "opened": opened, "ended": ended, "passed": code == "OK" and heard == [line],
          "code": code, "message": call.details(), "heard": heard})


if __name__ == "__main__":
    main(*sys.argv[1:])
