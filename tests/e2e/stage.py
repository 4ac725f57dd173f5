"""The stage of a scenario: one server, and the foreign clients that come to it.

Promises: whatever was started is dead when the stage is left.
Does not know: what a scenario wants to prove.
"""

import functools
import json
import os
import pathlib
import re

from processes import Failed, Process, wait_until

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE / "../../target/e2e"
GRPCURL = [TOOLS / "bin/grpcurl", "-plaintext"]
BUF_CURL = [TOOLS / "node/node_modules/.bin/buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
CHAT = "hello.ChatRoom/Chat"

# Three are programs on a gRPC library; two are tools that know the contract by reflection only.
LINE_CLIENTS = {
    "go": [TOOLS / "bin/go-client"],
    "python": [TOOLS / "python/bin/python", "-B", HERE / "python/client.py"],
    "node": ["node", HERE / "node/client.js"],
}
JSON_CLIENTS = {
    "grpcurl": lambda addr: [*GRPCURL, "-H", "chatroom-name: grpcurl", "-d", "@", addr, CHAT],
    "buf": lambda addr: [*BUF_CURL, "-H", "chatroom-name: buf", "-d", "@-", f"http://{addr}/{CHAT}"],
}
EVERY_KIND = [*LINE_CLIENTS, *JSON_CLIENTS]

ENVIRONMENT = {
    "PATH": os.pathsep.join([str(TOOLS / "bin"), str(TOOLS / "node/node_modules/.bin"), os.environ["PATH"]]),
    "PYTHONPATH": str(TOOLS / "python/generated"),
    "NODE_PATH": str(TOOLS / "node/node_modules"),
    # gRPC libraries send even loopback calls to a proxy if the machine has one.
    **dict.fromkeys(("NO_PROXY", "no_proxy", "no_grpc_proxy"), "127.0.0.1"),
}


# A scenario that only wants its server to end does not wait for balancers.
SHORT_DRAIN = {
    "CHATROOM_DRAIN_NOTICE": "0s",
    "CHATROOM_DRAIN_SPREAD": "0s",
    "CHATROOM_DRAIN_DEADLINE": "5s",
}


class Stage:
    def __init__(self):
        self._processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self._processes):
            process.stop()

    @functools.cached_property
    def server(self):
        return self._add(Server())

    def serve(self, *options, environment=()):
        """Starts the server with these options; without this call it starts with none when it is first needed."""
        self.server = self._add(Server(*options, environment=environment))

    def client(self, kind, room="", name=""):
        """The two tools in JSON_CLIENTS have names of their own."""
        return self._add(Client(kind, self.server.address(), room, name or kind))

    def process(self, name, *command):
        """Starts a command that goes on, with its stdin open."""
        return self._add(Process(name, command, ENVIRONMENT))

    def tool(self, *command):
        """Runs a command to its end and returns it; ADDR in it becomes the server's address."""
        command = [str(part).replace("ADDR", self.server.address()) for part in command]
        tool = self.process(pathlib.Path(command[0]).name, *command)
        tool.close_stdin()
        wait_until(f"{' '.join(command)} ends", lambda: tool.exit_code is not None)
        return tool

    def report(self):
        return "\n".join(process.report() for process in self._processes)

    def _add(self, process):
        self._processes.append(process)
        return process


class Server(Process):
    def __init__(self, *options, environment=()):
        command = [os.environ["CHATROOM_BIN"], "serve", "--log-format", "json", *options]
        for flag in ("--listen", "--admin-listen", "--metrics-listen"):
            command += [flag, "127.0.0.1:0"]
        super().__init__("server", command, {**SHORT_DRAIN, **dict(environment)})

    def address(self, listener="chat"):
        """Where it listens: for "chat", "admin" or "metrics"."""

        def listening():
            if self.exit_code is not None:
                raise Failed(f"the server ended with {self.exit_code}")
            return re.search(rf"^listening on (\S+) \({listener}\)$", self.out, re.MULTILINE)

        return wait_until(f"the server listens ({listener})", listening)[1]

    def logged(self, message):
        """The log records with this message, so far."""
        return [record for record in self._log() if record.get("message") == message]

    def arrived(self, count):
        wait_until(f"{count} arrivals are logged", lambda: len(self.logged("new user")) >= count)
        return self.logged("new user")

    def departed(self, connection):
        """The one record of this connection's departure."""

        def departures():
            return [record for record in self.logged("user left") if record["connection"] == connection]

        return wait_until(f"the departure of {connection} is logged", departures)[0]

    def complaints(self):
        """Panics and errors in the log."""
        panics = [line for line in self.err.split("\n") if "panicked at" in line]
        return panics + [str(record) for record in self._log() if record.get("level") == "ERROR"]

    def _log(self):
        return [json.loads(line) for line in self.err.split("\n")[:-1] if line.startswith("{")]


class Client(Process):
    """One foreign client with its call open; what it says and hears are messages, whatever it reads and writes."""

    def __init__(self, kind, addr, room, name):
        self._speaks_json = kind in JSON_CLIENTS
        command = JSON_CLIENTS[kind](addr) if self._speaks_json else [*LINE_CLIENTS[kind], addr, name]
        super().__init__(name, command, {**ENVIRONMENT, "CHATROOM_ROOM": room})
        self.said = []

    def says(self, message):
        self.said.append(message)
        self.write((json.dumps({"message": message}, ensure_ascii=False) if self._speaks_json else message) + "\n")

    def heard(self):
        return _messages_in_json(self.out) if self._speaks_json else self.out.split("\n")[:-1]

    def has_heard(self, count):
        """So many messages or, its call having ended, all it ever will."""
        return len(self.heard()) >= count or self.exit_code is not None

    def hears(self, *messages):
        """Waits for so many messages; they are exactly these, and all it has heard since it came."""
        wait_until(f"{self.name} hears {len(messages)} messages", lambda: self.has_heard(len(messages)))
        if self.heard() != list(messages):
            raise Failed(f"{self.name} heard {_short(self.heard())}, not {_short(messages)}")

    def hangs_up(self):
        self.close_stdin()


def _messages_in_json(text):
    decoder, messages, text = json.JSONDecoder(), [], text.lstrip()
    while text:
        try:
            response, end = decoder.raw_decode(text)
        except ValueError:
            break  # The rest of this one is still to come.
        messages.append(response.get("message", ""))
        text = text[end:].lstrip()
    return messages


def _short(messages):
    return [m if len(m) < 60 else f"{m[:20]}… ({len(m)} characters)" for m in messages]
