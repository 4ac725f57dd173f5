"""Scenarios of tracing: a collector that others wrote gets what the server exports, and one that is down costs nothing.

Does not know: how the server samples or batches; it waits for what must come.
"""

import json
import re
import socket
from collections import Counter

from facts import ok
from processes import wait_until
from stage import CHAT, GRPCURL, HERE, TOOLS

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ["-H", f"traceparent: 00-{TRACE}-{CALLER}-01"]
MESSAGES = 5


def environment(endpoint):
    # Not to wait five seconds for a batch to become old.
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}", "OTEL_BSP_SCHEDULE_DELAY": "100"}


class Spans:
    """What the collector was sent."""

    def __init__(self, stage):
        self._collector = stage.process("collector", TOOLS / "python/bin/python", "-B", HERE / "python/collector.py")
        found = wait_until("the collector listens", lambda: re.match(r"listening on (\S+)\n", self._collector.out))
        self.address = found[1]

    def so_far(self):
        return [json.loads(line) for line in self._collector.out.split("\n")[1:-1]]

    def named(self, name, count):
        def enough():
            spans = [span for span in self.so_far() if span["name"] == name]
            return spans if len(spans) >= count else None

        return wait_until(f"{count} spans {name} arrive", enough)


def a_collector_gets_the_spans_in_the_callers_trace(stage):
    spans = Spans(stage)
    stage.serve(environment=environment(spans.address))
    witness = stage.client("go", room="blue")
    arrival = stage.server.arrived(1)[0]
    said = "".join(json.dumps({"message": f"line {n}"}) for n in range(MESSAGES))
    call = stage.tool(*GRPCURL, *TRACEPARENT, "-H", "chatroom-room: blue", "-d", said, "ADDR", CHAT)
    call.ends(0)
    witness.hears(*(f"line {n}" for n in range(MESSAGES)))

    connection = next(span for span in spans.named(CHAT, 1) if span["trace"] == TRACE)
    ok("the connection's span is a child of the caller's, in its trace", connection["parent"] == CALLER, connection)
    told = connection["attributes"]
    ok("it has the room, the reason of its end, and the attributes of OpenTelemetry's conventions",
       told["chatroom.room"] == "blue" and told["chatroom.disconnect.reason"] == "left"
       and told["rpc.system.name"] == "grpc" and told["rpc.method"] == CHAT and told["rpc.response.status_code"] == "OK"
       and {"chatroom.connection.id", "client.address", "client.port"} <= set(told), told)
    resource = connection["resource"]
    ok("it comes from an instance of the service chatroom",
       resource["service.name"] == "chatroom" and resource["service.instance.id"], connection)

    messages = spans.named("publish", MESSAGES)
    ok(f"each of {MESSAGES} messages has one span, a child of the connection's",
       len(messages) == MESSAGES and {m["parent"] for m in messages} == {connection["id"]}, messages)
    facts = [m["attributes"] for m in messages]
    offsets = sorted(int(f["chatroom.position"].rpartition(":")[2]) for f in facts)
    ok("they say their positions in the room", offsets == list(range(1, MESSAGES + 1)), facts)
    ok("they say the size of their batch and the members woken",
       all(1 <= f["chatroom.batch.messages"] <= MESSAGES and f["chatroom.batch.members"] in (1, 2) for f in facts), facts)

    witness.hangs_up()
    witness.ends(0)
    other = next(s for s in spans.named(CHAT, 2) if s["attributes"]["chatroom.connection.id"] == arrival["connection"])
    ok("a call without a traceparent has a trace of its own, and its log line names it",
       other["trace"] == arrival["trace_id"] != TRACE and not other["parent"], f"{other} {arrival}")
    stage.server.terminate()
    stage.server.ends(0, seconds=10)
    # grpcurl asks reflection first.
    names = Counter(span["name"] for span in spans.so_far() if "ServerReflection" not in span["name"])
    ok("nothing else was traced: no delivery, and not the exporter itself",
       names == {CHAT: 2, "publish": MESSAGES}, names)


def a_dead_collector_costs_nothing_but_a_warning(stage):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = "%s:%d" % nobody.getsockname()
    stage.serve(environment=environment(closed))
    client = stage.client("go")
    client.says("hi")
    client.hears("hi")
    stage.tool(*GRPCURL, "-d", '{"message":"hello"}', "ADDR", CHAT).ends(0)
    wait_until("the warning is logged", lambda: stage.server.logged("traces cannot be exported"))
    client.says("still here")
    client.hears("hi", "hello", "still here")
    client.hangs_up()
    client.ends(0)
    ok("with a dead collector everyone is served")
    stage.server.terminate()
    stage.server.ends(0, seconds=10)
    warnings = stage.server.logged("traces cannot be exported")
    ok("it exits 0 in time, and has warned once", len(warnings) == 1, f"{warnings}")
    ok("the server logged no error", not stage.server.complaints(), f"{stage.server.complaints()}")


SCENARIOS = [a_collector_gets_the_spans_in_the_callers_trace, a_dead_collector_costs_nothing_but_a_warning]
