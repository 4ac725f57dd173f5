"""Foreign gRPC clients, all together in one room: one function per scenario, each with a server of its own.

`./run` installs the clients and starts this. Each fact that holds is one line `ok <fact>`; a scenario ends at its first
fact that does not, with the last words of everyone on its stage.
"""

import itertools
import json
import signal
import sys
import traceback

import balancer
import dashboards
import documents
import facts
import fast_senders
import h2spec
import generated
import health
import prometheus
import slow_consumers
import traces
import v1
from facts import exit_code, ok
from processes import Failed, wait_until
from room_order import faults, planted_faults
from stage import BUF_CURL, CHAT, EVERY_KIND, GRPCURL, HERE, LINE_CLIENTS, Stage

# How many lines each of the five says at once, before it waits for all the others: first one, so that they compete for
# each place in the order, then many, so that the server meets batches.
TURNS = [1] * 20 + [20]
MESSAGE_BYTES_MAX = 64 * 1024
INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = 3, 5, 8, 12, 14
# Letters of two, three and four bytes, a joined emoji, right to left, what JSON and HTML escape, a line separator that
# is no \n, spaces at the end.
TEXTS = ["grüße", "你好", "🦀👩‍🚀", "שלום", '"\\ {"message": 1} </b> &', "\u2028 \t \u00a0 "]


def the_order_check_finds_planted_faults(_):
    for fault, verdict, said in planted_faults():
        finds = any(s.startswith(verdict) for s in said) if verdict else not said
        ok(f"the order check, given {fault}, says: {verdict or 'nothing'}", finds, f"it says {said}")


def five_foreign_clients_hear_the_same(stage):
    server = stage.server
    *silent, buf = clients = [stage.client(kind) for kind in EVERY_KIND]
    server.arrived(len(silent))
    ok(f"{', '.join(c.name for c in silent)} are in as soon as their calls are open, before anyone spoke")
    # buf opens its call with its first message, not before.
    buf.says("buf comes in")
    arrivals = server.arrived(len(clients))
    names, ids = {a["name"] for a in arrivals}, {a["connection"] for a in arrivals}
    ok("five clients are in the lobby, by name", names == set(EVERY_KIND), f"names are {names}")
    ok("each has an id of its own", len(ids) == len(arrivals) == 5, f"{len(arrivals)} arrivals, ids are {ids}")
    ok("the room is the lobby", {a["room"] for a in arrivals} == {"lobby"}, f"{arrivals}")

    talk(clients)

    # One after the other, so that each leaves while the others are still there.
    connection_of = {a["name"]: a["connection"] for a in arrivals}
    for client in clients:
        client.hangs_up()
        client.ends(0)
        reason = server.departed(connection_of[client.name])["reason"]
        ok(f"{client.name} half-closes, its call ends OK and its departure is logged as left", reason == "left", reason)
    left = [d["connection"] for d in server.logged("user left")]
    ok("each departure is logged once", sorted(left) == sorted(ids), f"{left}")

    # Only now, so that nothing can come after what is checked.
    found = order_faults(clients)
    ok(f"all five heard the same {len(buf.heard())} messages in the same order, each once and intact, their own among "
       "them, those of one sender as it spoke", not found, listed(found))
    speakers = [message.split()[0] for message in buf.heard()]
    changes = sum(a != b for a, b in itertools.pairwise(speakers))
    ok(f"the senders were mixed: the speaker changed {changes} times", changes >= 4 * TURNS.count(1), f"{speakers}")
    ok("the server logged no error", not server.complaints(), f"{server.complaints()}")


def talk(clients):
    texts = itertools.cycle(TEXTS)
    for turn, lines in enumerate(TURNS):
        for line, text in zip(range(lines), texts):
            for client in clients:
                client.says(f"{client.name} {turn}.{line} {text}")
        total = sum(len(client.said) for client in clients)
        try:
            wait_until(f"all hear {total} messages", lambda: all(client.has_heard(total) for client in clients))
        except Failed as late:
            raise Failed(f"{late}; {listed(order_faults(clients))}") from None


def order_faults(clients):
    return faults({client.name: client.said for client in clients}, {client.name: client.heard() for client in clients})


def listed(found):
    return "\n  ".join([f"{len(found)} faults", *found[:20]])


def who_half_closes_at_once_hears_itself(stage):
    for kind in LINE_CLIENTS:
        client = stage.client(kind, room=f"{kind}-alone")
        client.says("hi")
        client.says("")
        client.hangs_up()
        client.ends(0)
        client.hears("hi", "")
        ok(f"{kind} says hi and an empty message, half-closes at once, hears both and ends OK")
    for name, command in (("grpcurl", [*GRPCURL, "-d", '{"message":"hi"}', "ADDR", CHAT]),
                          ("buf curl", [*BUF_CURL, "-d", '{"message":"hi"}', f"http://ADDR/{CHAT}"])):
        tool = stage.tool(*command)
        tool.ends(0)
        ok(f"{name} -d hears its own hi and exits 0", json.loads(tool.out) == {"message": "hi"}, tool.out)


def operators_tools_find_their_way(stage):
    for what, tool in (("grpcurl list", [*GRPCURL, "ADDR", "list"]),
                       ("buf curl --list-services", [*BUF_CURL, "--list-services", "http://ADDR"])):
        listing = stage.tool(*tool)
        listing.ends(0)
        services = listing.out.split()
        ok(f"{what} shows hello.ChatRoom and grpc.health.v1.Health",
           {"hello.ChatRoom", "grpc.health.v1.Health"} <= set(services), f"{services}")

    described = stage.tool(*GRPCURL, "ADDR", "describe", "hello.ChatRoom")
    described.ends(0)
    method = "rpc Chat ( stream .hello.ChatRequest ) returns ( stream .hello.ChatResponse );"
    ok("grpcurl describe shows the method with both its streams", method in described.out, described.out)

    refused = stage.tool(*GRPCURL, "-d", '{"room":"nowhere"}', "ADDR", "chatroom.v1.ChatService/ListMembers")
    refused.ends(exit_code(NOT_FOUND))
    ok("grpcurl shows the reason in a status's details, by reflection of google/rpc/error_details.proto",
       '"reason":"ROOM_NOT_FOUND"' in refused.err.replace(" ", "") and "not recognized" not in refused.err, refused.err)

    for service in ("", "hello.ChatRoom"):
        health = stage.tool(*GRPCURL, "-d", json.dumps({"service": service}), "ADDR", "grpc.health.v1.Health/Check")
        health.ends(0)
        ok(f"health of {service or 'the server'} is SERVING", json.loads(health.out) == {"status": "SERVING"}, health.out)


def rooms_are_apart(stage):
    ann = stage.client("python", room="blue")
    bob = stage.client("python", room="red")
    eve = stage.client("node", room="blue")
    rooms = sorted(a["room"] for a in stage.server.arrived(3))
    ok("the metadata chatroom-room names the room", rooms == ["blue", "blue", "red"], f"{rooms}")
    ann.says("only blue")
    eve.hears("only blue")
    bob.says("only red")
    bob.hears("only red")
    eve.says("blue again")
    blue, red = ["only blue", "blue again"], ["only red"]
    expected = ((ann, blue), (bob, red), (eve, blue))
    for client, messages in expected:
        client.hears(*messages)
    for client, messages in expected:
        client.hangs_up()
        client.ends(0)
        client.hears(*messages)
    ok("each room hears its own members and no other")
    lost = stage.client("go", room="no such name")
    lost.ends(exit_code(INVALID_ARGUMENT))
    ok("a name that cannot be a room's is INVALID_ARGUMENT")


def names_outside_ascii_come_as_binary_metadata(stage):
    for count, kind in enumerate(LINE_CLIENTS, start=1):
        stage.client(kind, name=f"Änne 😂 {kind}")
        stage.server.arrived(count)
    names = {arrival["name"] for arrival in stage.server.arrived(len(LINE_CLIENTS))}
    ok("foreign clients give names outside ASCII in chatroom-name-bin",
       names == {f"Änne 😂 {kind}" for kind in LINE_CLIENTS}, f"{names}")


def a_message_over_the_limit_ends_only_its_sender(stage):
    witness = stage.client("node")
    stage.server.arrived(1)
    for count, kind in enumerate(("python", "go"), start=2):
        loud = stage.client(kind)
        connection = stage.server.arrived(count)[-1]["connection"]
        loud.says("x" * (MESSAGE_BYTES_MAX + 1))
        loud.ends(exit_code(RESOURCE_EXHAUSTED))
        loud.hears()
        reason = stage.server.departed(connection)["reason"]
        ok(f"{kind} says {MESSAGE_BYTES_MAX + 1} bytes and its call ends with RESOURCE_EXHAUSTED (departure: {reason})")
    large = "ü" * (MESSAGE_BYTES_MAX // 2 - 16)
    witness.says(large)
    witness.hangs_up()
    witness.ends(0)
    witness.hears(large)
    ok(f"another client heard nothing of it, and its own {len(large.encode())} bytes came back intact")


def who_is_killed_leaves_alone(stage):
    node, go = stage.client("node"), stage.client("go")
    connection_of = {a["name"]: a["connection"] for a in stage.server.arrived(2)}
    node.says("still here")
    go.hears("still here")
    node.stop()
    reason = stage.server.departed(connection_of["node"])["reason"]
    ok(f"a client that is killed has left, and not by half-close (departure: {reason})", reason != "left")
    go.says("so am I")
    go.hangs_up()
    go.ends(0)
    go.hears("still here", "so am I")
    ok("the one who stays notices nothing")


def what_does_not_exist_is_unimplemented(stage):
    # Reflection does not show these, so grpcurl needs a proto of its own to call them.
    proto = ["-import-path", HERE, "-proto", "unknown.proto", "-d", '{"message":"hi"}']
    for method in ("hello.ChatRoom/Whisper", "hello.Nowhere/Chat"):
        call = stage.tool(*GRPCURL, *proto, "ADDR", method)
        call.ends(exit_code(UNIMPLEMENTED))
        ok(f"{method} is UNIMPLEMENTED")


def sigterm_ends_the_server_with_clients_connected(stage):
    go, node = clients = [stage.client("go"), stage.client("node")]
    stage.server.arrived(2)
    go.says("last words")
    for client in clients:
        client.hears("last words")
    stage.server.terminate()
    stage.server.ends(0, seconds=10)
    ok("SIGTERM with two clients connected: the server exits 0 within 10 s")
    for client in clients:
        client.ends(exit_code(UNAVAILABLE))
        client.hears("last words")
        ok(f"{client.name} had heard everything, and its call ended with UNAVAILABLE")
    ok("the server logged no error", not stage.server.complaints(), f"{stage.server.complaints()}")


def play(scenario):
    with Stage() as stage:
        try:
            scenario(stage)
            return True
        except Exception as failure:
            # Anything but Failed is a fault of the test or an answer of a form it does not know.
            words = str(failure) if isinstance(failure, Failed) else traceback.format_exc()
            print(f"FAILED {scenario.__name__}: {words}\n{stage.report()}", flush=True)
            return False


SCENARIOS = [
    the_order_check_finds_planted_faults,
    five_foreign_clients_hear_the_same,
    who_half_closes_at_once_hears_itself,
    operators_tools_find_their_way,
    rooms_are_apart,
    names_outside_ascii_come_as_binary_metadata,
    a_message_over_the_limit_ends_only_its_sender,
    who_is_killed_leaves_alone,
    what_does_not_exist_is_unimplemented,
    sigterm_ends_the_server_with_clients_connected,
    *health.SCENARIOS,
    *documents.SCENARIOS,
    *prometheus.SCENARIOS,
    *dashboards.SCENARIOS,
    *traces.SCENARIOS,
    *balancer.SCENARIOS,
    *v1.SCENARIOS,
    *slow_consumers.SCENARIOS,
    *fast_senders.SCENARIOS,
    *h2spec.SCENARIOS,
    *generated.SCENARIOS,
]


def main():
    # So that stopping the run stops what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    by_name = {scenario.__name__: scenario for scenario in SCENARIOS}
    if unknown := set(sys.argv[1:]) - set(by_name):
        sys.exit(f"e2e: no such scenario: {', '.join(unknown)}; there are: {', '.join(by_name)}")
    chosen = [by_name[name] for name in sys.argv[1:]] or SCENARIOS
    failed = [play(scenario) for scenario in chosen].count(False)
    print(f"{facts.passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
