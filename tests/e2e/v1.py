"""Scenarios of chatroom.v1 with foreign clients, and of its proto file.

Does not know: what the clients' steps are; they tell.
"""

import json
import pathlib
import shutil
import tempfile

from facts import ok
from stage import GRPCURL, HERE, TOOLS

ROOT = HERE / "../.."
BUF = TOOLS / "node/node_modules/.bin/buf"
# What clients have been built from: a change that breaks it is refused.
BASELINE = HERE / "proto_baseline.binpb"
CHAT_SERVICE = "chatroom.v1.ChatService"


def grpcio_joins_filters_resumes_and_meets_a_gap(stage):
    stage.serve("--retention-messages", "50")
    client = stage.tool(TOOLS / "python/bin/python", "-B", HERE / "python/v1.py", "ADDR")
    client.ends(0)
    facts = client.out.splitlines()
    for fact in facts:
        ok(f"grpcio: {fact}")
    ok("all its steps were done", len(facts) == 8, f"{facts}")


def grpcurl_talks_to_hello_clients(stage):
    listener = stage.client("go", room="both", name="ann")
    stage.server.arrived(1)
    say = stage.tool(*GRPCURL, "-d", '{"room":"both","body":{"text":"hi from v1"}}', "ADDR", f"{CHAT_SERVICE}/Publish")
    say.ends(0)
    offset = json.loads(say.out)["position"]["offset"]
    ok(f"grpcurl Publish is told its position, {offset}", offset == "1", say.out)
    listener.hears("hi from v1")
    ok("… and a Go client of hello.ChatRoom hears it")
    rooms = stage.tool(*GRPCURL, "ADDR", f"{CHAT_SERVICE}/ListRooms")
    rooms.ends(0)
    ok("ListRooms shows the room", [room["name"] for room in json.loads(rooms.out)["rooms"]] == ["both"], rooms.out)


def protos_are_clean_and_break_nothing(stage):
    with tempfile.TemporaryDirectory() as folder:
        # The contract must stay byte for byte, and gRPC's own protocol is not ours: neither is formatted.
        copy = pathlib.Path(folder) / "proto"
        shutil.copytree(ROOT / "proto", copy)
        for foreign in ("hello", "grpc"):
            shutil.rmtree(copy / foreign)
        lint = stage.tool(BUF, "lint", ROOT)
        lint.ends(0)
        ok("buf lint (STANDARD, COMMENTS) finds nothing")
        formatted = stage.tool(BUF, "format", "--diff", "--exit-code", copy)
        formatted.ends(0)
        ok("buf format changes nothing")
    breaking = stage.tool(BUF, "breaking", ROOT, "--against", BASELINE)
    breaking.ends(0)
    ok("buf breaking finds nothing against the baseline")
    with tempfile.TemporaryDirectory() as folder:
        broken = pathlib.Path(folder)
        shutil.copytree(ROOT / "proto", broken / "proto")
        shutil.copy(ROOT / "buf.yaml", broken)
        proto = broken / "proto/chatroom/v1/chat.proto"
        text = proto.read_text()
        proto.write_text(text.replace("uint64 offset = 2;", "uint64 offset = 3;"))
        planted = stage.tool(BUF, "breaking", broken, "--against", BASELINE)
        ok("… and finds a number that is changed", planted.exit_code != 0 and "offset" in planted.out, planted.out)


SCENARIOS = [
    grpcio_joins_filters_resumes_and_meets_a_gap,
    grpcurl_talks_to_hello_clients,
    protos_are_clean_and_break_nothing,
]
