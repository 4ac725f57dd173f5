"""A chatroom client on grpcio: says each line of stdin, prints each line heard.

Usage: client.py ADDR NAME, with the room in CHATROOM_ROOM. When the call ends other than OK, the status goes to stderr
and the exit code is 64 + the gRPC code, as grpcurl does it.
"""

import os
import sys

import grpc
from hello import chat_pb2, chat_pb2_grpc


def main(addr, name):
    # Plain metadata is ASCII only.
    metadata = [("chatroom-name", name) if name.isascii() else ("chatroom-name-bin", name.encode())]
    if room := os.environ.get("CHATROOM_ROOM"):
        metadata.append(("chatroom-room", room))
    with grpc.insecure_channel(addr) as channel:
        try:
            for response in chat_pb2_grpc.ChatRoomStub(channel).Chat(lines_to_say(), metadata=metadata):
                print(response.message, flush=True)
        except grpc.RpcError as ended:
            print(f"{ended.code().name}: {ended.details()}", file=sys.stderr, flush=True)
            # Not sys.exit: grpcio's thread may still wait for stdin, and the interpreter would wait for it or abort.
            os._exit(64 + ended.code().value[0])


def lines_to_say():
    for line in sys.stdin.buffer:
        yield chat_pb2.ChatRequest(message=line.removesuffix(b"\n").decode())


if __name__ == "__main__":
    # Whatever the locale of the machine, the test speaks UTF-8 and ends lines with \n only.
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    main(*sys.argv[1:])
