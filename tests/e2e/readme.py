"""The README's text is the script: each command in it that speaks to a server is run as written, in its order.

Promises: a command that nobody here can judge is a failure, and so is a judge whose command the README has lost. Only
the addresses of the listeners and the path of `chatroom` are put in. `make`, `cargo` and `docker` lines are proved
elsewhere.
"""

import json
import os
import re
import shlex
from collections import namedtuple
from datetime import datetime, timedelta, timezone

from facts import exit_code, ok
from processes import Failed, wait_until
from stage import HERE

README = HERE / "../../README.md"
CHATROOM = os.environ["CHATROOM_BIN"]
ADMIN = "chatroom.admin.v1.AdminService"
CHAT = "chatroom.v1.ChatService"
PERMISSION_DENIED = 7
# Where the README's commands take the listeners to be.
PLACES = {"chat": "127.0.0.1:50051", "admin": "127.0.0.1:50052", "metrics": "127.0.0.1:9464"}

# So that there is time to take a drain back.
LONG_NOTICE = {"CHATROOM_DRAIN_NOTICE": "60s", "CHATROOM_DRAIN_DEADLINE": "90s"}

# What is run (the tool, and the method or path that it is for), the line itself, and the object after -d.
Command = namedtuple("Command", "subject line data")


def readme_check_finds_what_nobody_can_judge(_):
    planted = {
        "```sh\nfrobnicate --all\n```": "nobody can judge `frobnicate --all`",
        f"```sh\ngrpcurl -plaintext ADDR {ADMIN}/Frob\n```": f"nobody can judge `grpcurl {ADMIN}/Frob`",
        "```sh\nmake run\ncurl http://ADDR/frobs\n```": "nobody can judge `curl /frobs`",
        "```sh\nchatroom admin --json frobnicate\n```": "nobody can judge `chatroom admin frobnicate`",
        "```console\n$ make run\n```": "a block is `console`, not `sh`",
        "```sh\nmake run   # build\ncargo run -- chat \\\n  --name ann\n```": "the README has lost",
    }
    for text, expected in planted.items():
        try:
            said = str(script(text))
        except Failed as fault:
            said = str(fault)
        block = text.strip("`\n").replace("\n", " ⏎ ")
        ok(f"the README check, given {block!r}, says: {expected}", expected in said, f"it says {said}")


def readme_does_what_it_says(stage):
    text = README.read_text()
    commands = script(text)
    stage.serve(environment=LONG_NOTICE)
    tour = Tour(stage, text)
    tour.defaults_are_as_written()
    tour.chatroom_admin_is_as_written()
    for command in commands:
        JUDGES[command.subject](tour, command)
    tour.ends()


def script(text):
    """The commands to run, in order."""
    found = [command for line in lines_of_sh(text) if (command := parsed(line))]
    for command in found:
        if command.subject not in JUDGES:
            raise Failed(f"nobody can judge `{command.subject}` (`{command.line}`): tests/e2e/readme.py has no judge")
    if lost := set(JUDGES) - {command.subject for command in found}:
        raise Failed(f"the README has lost {sorted(lost)}")
    return found


def lines_of_sh(text):
    """The logical lines of all blocks that are for a shell."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language in ("", "bash", "shell", "console", "zsh"):
            raise Failed(f"a block is `{language}`, not `sh`, and would not be run: {block}")
        if language == "sh":
            yield from filter(None, block.replace("\\\n", " ").split("\n"))


def parsed(line):
    """The command in a line; None if there is none, or it is proved elsewhere."""
    words = shlex.split(line, comments=True)
    if not words or words[0] in ("make", "cargo", "docker"):
        return None
    match words:
        case ["grpcurl", *_, "describe", _]:
            subject = "grpcurl describe"
        case ["grpcurl", *_, method]:
            subject = f"grpcurl {method}"
        case ["buf", "curl", *_, url]:
            subject = f"buf curl {path_of(url)[1:]}"
        case ["curl", *_, url]:
            subject = f"curl {path_of(url)}"
        case ["chatroom", "admin", *rest]:
            subject = f"chatroom admin {next((word for word in rest if not word.startswith('-')), '')}"
        case ["chatroom", command, *_]:
            subject = f"chatroom {command}"
        case _:
            subject = line
    return Command(subject, line, documents(words[words.index("-d") + 1]) if "-d" in words else {})


def documents(text):
    """The JSON document in a text, or the list of those that are there one after the other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found if len(found) > 1 else found[0]


def path_of(url):
    return re.sub(r"^https?://[^/]+", "", url)


class Tour:
    """One server with mallory and three others in its lobby, and what was said and done there so far."""

    def __init__(self, stage, text):
        self.stage, self.text, self.server = stage, text, stage.server
        self.mallory = stage.client("go", name="mallory")
        self.others = [stage.client(kind, name=n) for kind, n in (("python", "ann"), ("go", "bob"), ("node", "eve"))]
        self.present = [self.mallory, *self.others]
        self.said, self.moves, self.rehearsals = [], [], []
        self.server.arrived(len(self.present))

    def names(self):
        return sorted(client.name for client in self.present)

    def runs(self, command):
        """Runs it as written, and returns what it wrote to stdout."""
        line = command.line
        for listener, address in PLACES.items():
            line = line.replace(address, self.server.address(listener))
        line = re.sub(r"^chatroom\b", lambda _: shlex.quote(CHATROOM), line)
        return self.does("bash", "-c", line)

    def answers(self, command):
        """Runs it; what it answers is JSON."""
        return json.loads(self.runs(command))

    def does(self, *command):
        """Runs a command that is not the README's."""
        tool = self.stage.tool(*command)
        tool.ends(0)
        return tool.out

    def everyone_hears(self, message):
        self.said.append(message)
        for client in self.present:
            client.hears(*self.said)

    def settles(self):
        """Waits until those only are in who stay: a call has ended for its client a moment before it is taken out."""

        def all_but_the_present_have_left():
            arrivals, departures = (len(self.server.logged(message)) for message in ("new user", "user left"))
            return arrivals - departures == len(self.present)

        wait_until("all visitors have left", all_but_the_present_have_left)

    def status_of(self, path):
        address = self.server.address("metrics")
        return self.does("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}{path}")

    def leaves_an_audit(self, action):
        def records():
            return [record for record in self.server.logged("audit") if record.get("action") == action]

        record = wait_until(f"an audit line of {action}", records)[-1]
        complete = all(record.get(word) for word in ("who", "whom", "result"))
        ok(f"… and that is an audit line with who, what, whom, result: {action}", complete, f"{record}")

    def defaults_are_as_written(self):
        options = self.does(CHATROOM, "serve", "--help")
        for listener, address in PLACES.items():
            flag = "--listen" if listener == "chat" else f"--{listener}-listen"
            default = re.search(rf"{flag} .*?default: (\S+)\]", options, re.DOTALL)[1]
            as_written = f"`{default}`" in self.text and default.split(":")[1] == address.split(":")[1]
            ok(f"the {listener} listener that the README tells of is the default one, {default}", as_written)

    def chatroom_admin_is_as_written(self):
        written = re.search(r"`chatroom admin` \((.*?)\)", self.text, re.DOTALL)[1]
        written = set(re.findall(r"`(.*?)`", written))
        there = set(re.findall(r"^  ([a-z-]+)  ", self.does(CHATROOM, "admin", "--help"), re.MULTILINE)) - {"help"}
        ok(f"the README tells of all commands of chatroom admin: {', '.join(sorted(there))}",
           written == there, f"{written}")

    def ends(self):
        ok("a kick is shown as a rehearsal, then for real", self.rehearsals == [True, False], f"{self.rehearsals}")
        for client in self.others:
            client.hangs_up()
            client.ends(0)
            client.hears(*self.said)
        ok(f"ann, bob and eve heard all {len(self.said)} messages of it and nothing else, and end OK")
        ok("the server logged no error", not self.server.complaints(), f"{self.server.complaints()}")


def hears_itself(tour, command):
    answer = tour.answers(command)
    ok(f"{command.subject} says {command.data['message']!r} and hears it", answer == command.data, f"{answer}")
    tour.everyone_hears(command.data["message"])
    ok("… and so do mallory, ann, bob and eve")
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


def publishes_once(tour, command):
    first, again = tour.answers(command), tour.answers(command)
    ok(f"Publish says it at {first['position']['offset']}, and a second time not again",
       first["position"] == again["position"] and again.get("repeated") and not first.get("repeated"), f"{again}")
    tour.everyone_hears(command.data["body"]["text"])
    tour.moves.append(command.data["body"]["text"])


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


def moment(timestamp):
    """Python takes at most microseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})?\d*Z$", r"\1+00:00", timestamp))


JUDGES = {
    "grpcurl hello.ChatRoom/Chat": hears_itself,
    "buf curl hello.ChatRoom/Chat": hears_itself,
    f"grpcurl {CHAT}/Join": joins_with_history,
    f"grpcurl {CHAT}/Publish": publishes_once,
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
SCENARIOS = [readme_check_finds_what_nobody_can_judge, readme_does_what_it_says]
