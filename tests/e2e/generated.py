"""The clients that buf.gen.yaml generates from a clone: for each language there are files, and they are usable.

Go's are compiled and Python's speak to the server. Java's and TypeScript's are looked at, not compiled: that takes the
libraries that they import.
"""

import pathlib
import shutil
import tempfile

from facts import ok
from stage import HERE

ROOT = HERE / "../.."
EXPECTED = {
    "go": ["hello/chat_grpc.pb.go", "chatroom/v1/chat_grpc.pb.go", "chatroom/admin/v1/admin_grpc.pb.go"],
    "python": ["hello/chat_pb2_grpc.py", "chatroom/v1/chat_pb2_grpc.py", "chatroom/admin/v1/admin_pb2_grpc.py"],
    "java": ["chatroom/hello/ChatRoomGrpc.java", "chatroom/v1/ChatServiceGrpc.java", "chatroom/v1/PublishRequest.java",
             "chatroom/admin/v1/AdminServiceGrpc.java"],
    "ts": ["hello/chat_pb.ts", "chatroom/v1/chat_pb.ts", "chatroom/admin/v1/admin_pb.ts"],
}
SPEAKS = """
import sys, grpc
from hello import chat_pb2, chat_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    for said in chat_pb2_grpc.ChatRoomStub(channel).Chat(iter([chat_pb2.ChatRequest(message="generated")])):
        print(said.message)
"""


def clients_are_generated_from_a_clone(stage):
    # The first time it installs the plugins.
    stage.process("proto/generate", str(ROOT / "proto/generate")).ends(0, seconds=600)
    gen = ROOT / "target/gen"
    for language, files in EXPECTED.items():
        missing = [name for name in files if not (gen / language / name).is_file()]
        ok(f"proto/generate makes clients for {language}", not missing, f"no {missing}")
    with tempfile.TemporaryDirectory() as folder:
        module = pathlib.Path(folder)
        for name in ("go.mod", "go.sum"):
            shutil.copy(HERE / "go" / name, module)
        shutil.copytree(gen / "go", module / "gen")
        built = stage.process("go build", "go", "-C", str(module), "build", "-mod=readonly", "./gen/...")
        built.ends(0, seconds=120)
        ok("… those for Go compile")
    python = ROOT / "target/plugins/python/bin/python"
    speaks = stage.tool("env", f"PYTHONPATH={gen / 'python'}", python, "-B", "-c", SPEAKS, "ADDR")
    speaks.ends(0)
    ok("… and those for Python speak to the server", speaks.out == "generated\n", speaks.out)


SCENARIOS = [clients_are_generated_from_a_clone]
