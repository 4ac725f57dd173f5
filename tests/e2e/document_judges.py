"""What the commands of the documents must do: one judge for each command, by its tool and its method or path.

Does not know: which documents there are, and how commands are found in them.
"""

import base64
import json
import re
from datetime import datetime, timedelta, timezone

from document_commands import documents
from document_tour import ADMIN, CHAT, CHATROOM, PERMISSION_DENIED, PLACES
from facts import exit_code, ok
from processes import wait_until


def hears_itself(tour, command):
    answer = tour.answers(command)
    ok(f"{command.subject} says {command.data['message']!r} and hears it", answer == command.data, f"{answer}")
    tour.everyone_hears(command.data["message"])
    ok("… and so do mallory, ann, bob and eve")
    if given := re.search(r"chatroom-name-bin: ([\w+/=]+)", command.line):
        name = base64.b64decode(given[1]).decode()
        names = [arrival["name"] for arrival in tour.server.logged("new user")]
        ok(f"… and it comes as {name}", names[-1] == name, f"{names}")
    tour.settles()


def joins_with_history(tour, command):
    hello, publish = command.data[0]["hello"], command.data[1]["publish"]
    history = tour.said[-int(hello["start"]["last"]):]
    responses = documents(tour.runs(command))
    kinds = [next(iter(response)) for response in responses]
    events = [response["event"] for response in responses if "event" in response]
    texts = [event["body"]["text"] for event in events]
    ok(f"Join answers with a welcome, {texts}, an acknowledgement and a goodbye",
       kinds == ["welcome", *["event"] * len(texts), "ack", "goodbye"]
       and texts == [*history, publish["body"]["text"]], f"{responses}")
    ack, goodbye = responses[-2]["ack"], responses[-1]["goodbye"]
    ok("… the acknowledgement has the position of its own message, where the goodbye says it ended",
       ack["position"] == events[-1]["position"] == goodbye["position"] and ack["reference"] == publish["reference"]
       and goodbye["reason"] == "left", f"{responses}")
    tour.everyone_hears(publish["body"]["text"])
    ok("… and mallory, ann, bob and eve hear it by hello.ChatRoom")
    tour.settles()


def publishes(tour, command):
    first = tour.answers(command)
    offset = first["position"]["offset"]
    ok(f"Publish returns its position, {offset}", offset == str(len(tour.said) + 1), f"{first}")
    tour.everyone_hears(command.data["body"]["text"])
    if command.data.get("kind") == "move":
        tour.moves.append(command.data["body"]["text"])
    if "idempotency_key" in command.data:
        again = tour.answers(command)
        ok("… and a second time publishes nothing, by its key",
           first["position"] == again["position"] and again.get("repeated") and not first.get("repeated"), f"{again}")


def lists_events(tour, command):
    events = tour.answers(command)["events"]
    ok(f"ListEvents shows {tour.moves} of kind {command.data['kinds']}",
       [(event["kind"], event["body"]["text"]) for event in events] == [("move", move) for move in tour.moves],
       f"{events}")


def lists_members(tour, command):
    answer = tour.answers(command)
    names = sorted(member["displayName"] for member in answer["members"])
    ok(f"ListMembers shows {names}", names == tour.names() and answer["totalSize"] == str(len(names)), f"{answer}")


def lists_rooms_of_v1(tour, command):
    rooms = [(room["name"], room["members"], room["lastPosition"]["offset"]) for room in tour.answers(command)["rooms"]]
    ok(f"ListRooms shows {rooms}", rooms == [("lobby", str(len(tour.present)), str(len(tour.said)))], f"{rooms}")


def lists_services(tour, command):
    services = tour.runs(command).split()
    ok(f"grpcurl list shows {ADMIN} and health", {ADMIN, "grpc.health.v1.Health"} <= set(services), f"{services}")


def describes_methods(tour, command):
    methods = re.findall(r"^\s*rpc (\w+) ", tour.runs(command), re.MULTILINE)
    called = {subject.split("/")[1] for subject in JUDGES if f"{ADMIN}/" in subject}
    ok(f"grpcurl describe shows its {len(methods)} methods, those called below among them",
       called <= set(methods), f"{methods}")


def lists_connections(tour, command):
    answer = tour.answers(command)
    names = sorted(connection["name"] for connection in answer.get("connections", []))
    as_asked = f" as asked by {json.dumps(command.data)}" if command.data else ""
    complete = names == tour.names() and answer["totalSize"] == str(len(names))
    ok(f"ListConnections shows {tour.names()}{as_asked}", complete, f"{answer}")
    if room := command.data.get("filter", {}).get("room"):
        ok(f"… all in {room}", {connection["room"] for connection in answer["connections"]} == {room}, f"{answer}")
    if "order" not in command.data:
        since = [moment(connection["since"]) for connection in answer["connections"]]
        ok("… the oldest first", since == sorted(since), f"{answer}")
        same = json.loads(tour.does(CHATROOM, "admin", "--addr", tour.server.address("admin"), "list", "--json"))
        ids, same_ids = ([connection["id"] for connection in a["connections"]] for a in (answer, same))
        ok("… and chatroom admin list --json shows the same", ids == same_ids, f"{same}")


def kicks(tour, command):
    name, rehearsal = command.data["filter"]["name"], command.data.get("dry_run", False)
    tour.rehearsals.append(rehearsal)
    answer = tour.answers(command)
    kicked = [connection["name"] for connection in answer.get("kicked", [])]
    ok(f"KickConnections{' as a rehearsal' * rehearsal} names {name} and nobody else",
       kicked == [name] and answer["kickedCount"] == "1", f"{answer}")
    if rehearsal:
        for client in tour.present:
            client.says(f"{client.name} is still here")
            tour.everyone_hears(client.said[-1])
        ok(f"… and kicks nobody: {', '.join(tour.names())} talk on")
        return

    tour.mallory.ends(exit_code(PERMISSION_DENIED))
    tour.mallory.hears(*tour.said)
    reason = command.data.get("reason", "")
    ok(f"… and her call ends with PERMISSION_DENIED and {reason!r}", reason in tour.mallory.err, tour.mallory.err)
    tour.present.remove(tour.mallory)
    tour.settles()
    left = [record["reason"] for record in tour.server.logged("user left")][-1]
    ok("… her departure is logged as kicked", left == "kicked", left)
    again = tour.stage.client("python", name=name)
    again.ends(exit_code(PERMISSION_DENIED))
    again.hears()
    ok(f"… when she comes back she is refused: {again.err.strip()}", answer["bans"] == 1, f"{answer}")
    for client in tour.present:
        client.says(f"{client.name} stays")
        tour.everyone_hears(client.said[-1])
    ok(f"… {', '.join(tour.names())} stay")
    tour.leaves_an_audit("kick")


def lists_bans(tour, command):
    bans = tour.answers(command)["bans"]
    ok("ListBans shows mallory's, with its reason and the one attempt that it refused",
       [(ban["name"], ban["refusedAttempts"]) for ban in bans] == [("mallory", "1")] and bans[0]["reason"], f"{bans}")
    same = json.loads(tour.does(CHATROOM, "admin", "--addr", tour.server.address("admin"), "bans", "--json"))
    ok("… and chatroom admin bans --json shows the same", same["bans"][0]["name"] == "mallory", f"{same}")


def removes_a_ban(tour, command):
    name = command.data["name"]
    answer = tour.answers(command)
    ok(f"RemoveBan ends the ban of {name}", answer["ban"]["name"] == name, f"{answer}")
    back = tour.stage.client("python", name=name)
    back.says(f"{name} is back")
    tour.everyone_hears(f"{name} is back")
    back.hangs_up()
    back.ends(0)
    ok(f"… and {name} may come in again")
    tour.settles()
    tour.leaves_an_audit("remove ban")


def lists_rooms(tour, command):
    rooms = tour.answers(command)["rooms"]
    expected = [("lobby", str(len(tour.present)), str(len(tour.said)))]
    ok(f"ListRooms shows the lobby with {len(tour.present)} members and the {len(tour.said)} messages said so far",
       [(room["name"], room["members"], room["messages"]) for room in rooms] == expected, f"{rooms}")


def announces(tour, command):
    answer = tour.answers(command)
    tour.everyone_hears(command.data["text"])
    ok(f"Announce says {command.data['text']!r} and {', '.join(tour.names())} hear it",
       answer == {"rooms": 1}, f"{answer}")
    tour.leaves_an_audit("announce")


def tells_what_it_is(tour, command):
    answer = tour.answers(command)
    version = tour.does(CHATROOM, "--version").split()[-1]
    listeners = {listener["name"]: listener["address"] for listener in answer["listeners"]}
    ok(f"GetServerInfo tells version {version}", answer["version"] == version, f"{answer}")
    ok("… the three listeners", listeners == {name: tour.server.address(name) for name in PLACES}, f"{answer}")
    counts = answer["connections"], answer["messagesPublished"]
    ok("… and who is here and what was said", counts == (str(len(tour.present)), str(len(tour.said))), f"{answer}")


def filters_the_log(tour, command):
    expiry = timedelta(seconds=float(command.data["expiry"].removesuffix("s")))
    before = datetime.now(timezone.utc)
    answer = tour.answers(command)
    after = datetime.now(timezone.utc)
    in_time = before + expiry <= moment(answer["expires"]) + timedelta(microseconds=1) <= after + expiry
    ok(f"SetLogFilter goes from {answer['previousFilter']} to {answer['filter']} for {expiry}",
       answer["filter"] == command.data["filter"] and in_time, f"{answer}")
    # Whatever DEBUG tells, a caller who comes and goes is among it: grpcurl does so to set the filter.
    wait_until("there are DEBUG lines in the log", lambda: '"level":"DEBUG"' in tour.server.err)
    ok("… and there are DEBUG lines in the log")
    tour.leaves_an_audit("set log filter")


def is_serving(tour, command):
    answer = tour.answers(command)
    ok("Health/Check says SERVING", answer == {"status": "SERVING"}, f"{answer}")


def is_healthy(tour, command):
    out = tour.runs(command)
    ok(f"chatroom health exits 0 with one line: {out.strip()}", out.count("\n") == 1 and "SERVING" in out, out)
    for path in sorted(set(re.findall(r"`(/[a-z]+z)`", tour.text))):
        answer = tour.does("curl", "-sS", "--fail", f"http://{tour.server.address('metrics')}{path}")
        ok(f"{path} answers {answer.strip()!r}")


def starts_a_drain(tour, command):
    drain = tour.answers(command)["drain"]
    here = str(len(tour.present))
    ok("StartDrain says that the notice has begun, with who is here and the deadline",
       (drain["phase"], drain["connections"]) == ("DRAIN_PHASE_NOTICE", here) and "deadline" in drain, f"{drain}")
    probes = {path: tour.status_of(path) for path in ("/readyz", "/livez")}
    ok("… /readyz says 503 and /livez 200", probes == {"/readyz": "503", "/livez": "200"}, f"{probes}")
    tour.leaves_an_audit("start drain")


def shows_the_drain(tour, command):
    drain = tour.answers(command)["drain"]
    ok(f"GetDrain says {drain['phase']}", drain["phase"] == "DRAIN_PHASE_NOTICE", f"{drain}")
    told = tour.does(CHATROOM, "admin", "--addr", tour.server.address("admin"), "drain", "status")
    ok("… and chatroom admin drain status the same", re.search(r"^phase +notice$", told, re.MULTILINE), told)


def cancels_the_drain(tour, command):
    drain = tour.answers(command)["drain"]
    ok("CancelDrain says that the server stays", drain["phase"] == "DRAIN_PHASE_SERVING", f"{drain}")
    for client in tour.present:
        client.says(f"{client.name} is still here after all")
        tour.everyone_hears(client.said[-1])
    ok(f"… and {', '.join(tour.names())} talk on")
    tour.leaves_an_audit("cancel drain")


def is_ready(tour, command):
    answer = tour.runs(command)
    path = command.subject.split()[-1]
    ok(f"{path} answers {answer.strip()!r}, with 200", tour.status_of(path) == "200", answer)


def shows_metrics(tour, command):
    text = tour.runs(command)
    helped, typed = (set(re.findall(rf"^# {word} (\S+) \S", text, re.MULTILINE)) for word in ("HELP", "TYPE"))
    ok(f"/metrics has {len(typed)} metrics, each with a help text", helped == typed and typed, f"{helped ^ typed}")
    named = set(re.findall(r"`(chatroom_[a-z_]+)`", tour.text))
    ok(f"… {', '.join(sorted(named))} among them", named and named <= typed, f"{typed}")
    expected = f'chatroom_connections{{api="hello"}} {len(tour.present)}'
    ok(f"… and {expected}", expected in text.split("\n"), text)


def explains_the_settings(tour, command):
    # One part for each flag, which begins with its name.
    parts = re.split(r"^ +(?:-\w, )?--(?=[a-z])", tour.runs(command), flags=re.MULTILINE)[1:]
    variables = {part.split()[0]: re.findall(r"\[env: (\w+)=", part) for part in parts}
    del variables["help"]
    wrong = {flag: found for flag, found in variables.items()
             if found != ["CHATROOM_" + flag.upper().replace("-", "_")]}
    ok(f"chatroom serve --help explains {len(variables)} settings, each a flag and a variable", not wrong, f"{wrong}")


def loads_the_server(tour, command):
    table = tour.runs(command)
    ok("chatroom bench exits 0: nothing was lost, repeated or in two orders", "deliveries" in table, table)
    ok("… and knows the server's process by --admin", re.search(r"^server .*CPU", table, re.MULTILINE), table)


def moment(timestamp):
    """Python takes at most microseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})?\d*Z$", r"\1+00:00", timestamp))


# What floods the lobby, so that nobody else can listen there.
ALONE = {"chatroom bench"}
JUDGES = {
    "chatroom serve": explains_the_settings,
    "chatroom bench": loads_the_server,
    "grpcurl hello.ChatRoom/Chat": hears_itself,
    "buf curl hello.ChatRoom/Chat": hears_itself,
    f"grpcurl {CHAT}/Join": joins_with_history,
    f"grpcurl {CHAT}/Publish": publishes,
    f"grpcurl {CHAT}/ListEvents": lists_events,
    f"grpcurl {CHAT}/ListMembers": lists_members,
    f"grpcurl {CHAT}/ListRooms": lists_rooms_of_v1,
    "grpcurl list": lists_services,
    "grpcurl describe": describes_methods,
    f"grpcurl {ADMIN}/ListConnections": lists_connections,
    f"grpcurl {ADMIN}/KickConnections": kicks,
    f"grpcurl {ADMIN}/ListBans": lists_bans,
    f"grpcurl {ADMIN}/RemoveBan": removes_a_ban,
    f"grpcurl {ADMIN}/ListRooms": lists_rooms,
    f"grpcurl {ADMIN}/Announce": announces,
    f"grpcurl {ADMIN}/GetServerInfo": tells_what_it_is,
    f"grpcurl {ADMIN}/SetLogFilter": filters_the_log,
    "grpcurl grpc.health.v1.Health/Check": is_serving,
    "chatroom health": is_healthy,
    "curl /metrics": shows_metrics,
    f"grpcurl {ADMIN}/StartDrain": starts_a_drain,
    f"grpcurl {ADMIN}/GetDrain": shows_the_drain,
    f"grpcurl {ADMIN}/CancelDrain": cancels_the_drain,
    "curl /readyz": is_ready,
    "curl /livez": is_ready,
}
