"""Clients of chatroom.v1 behind a real HAProxy with deploy/haproxy.cfg: which calls must name their room in the metadata,
and that those who do, meet.

Does not know: what the foreign clients' steps are; they tell.
"""

import balancer_v1_judges as judges
from balancer_site import CHATROOM, PYTHON, Site, records
from facts import ok
from processes import wait_until
from stage import HERE, LINE_CLIENTS, TOOLS

ROOM_HEADER = {"grpcio": [*PYTHON, HERE / "python/room_header.py"], "grpc-go": [TOOLS / "bin/room_header"]}
METHODS = ["Join", "Subscribe", "Publish", "ListEvents", "ListMembers"]


def v1_calls_without_room_header_are_refused(stage):
    site = Site(stage)
    for client, command in ROOM_HEADER.items():
        process = stage.process(client, *command, site.address, "blue")
        process.ends(0)
        ends = {(end["method"], tuple(end["rooms"])): (end["code"], end["reason"], end["field"])
                for end in records(process)}
        body = {method: "hello.room" if method == "Join" else "room" for method in METHODS}
        for fact, rooms, expected in (
            ("without chatroom-room are refused with INVALID_ARGUMENT, ROOM_HEADER_REQUIRED", (),
             {method: ("INVALID_ARGUMENT", "ROOM_HEADER_REQUIRED", "chatroom-room") for method in METHODS}),
            ("with another room than their message's with INVALID_ARGUMENT, ROOM_MISMATCH", ("another",),
             {method: ("INVALID_ARGUMENT", "ROOM_MISMATCH", field) for method, field in body.items()}),
            ("with chatroom-room twice with INVALID_ARGUMENT", ("blue", "blue"),
             {method: ("INVALID_ARGUMENT", "", "chatroom-room") for method in METHODS}),
        ):
            found = {method: ends[method, rooms] for method in METHODS}
            ok(f"{client}: calls of chatroom.v1 {fact}", found == expected, f"{found}")
        ok("… and ListRooms needs none", ends["ListRooms", ()][0] == "OK", f"{ends}")
    ok("no refused call came to a room", not site.arrivals(), f"{site.arrivals()}")


def clients_without_room_meet_in_lobby(stage):
    site = Site(stage)
    clients = [stage.process(kind, *LINE_CLIENTS[kind], site.address, kind) for kind in ("go", "python")]
    # Two of each: HAProxy sends calls without the header to the instances in turn.
    chat = [CHATROOM, "chat", "--addr", site.address, "--name"]
    clients += [stage.process(name, *chat, name) for name in ("chat", "chat 2")]
    site.has_in(*(client.name for client in clients))
    lines = [f"hi from {client.name}" for client in clients]
    where = [(arrival.instance, arrival.room, arrival.member) for arrival in site.arrivals()]
    ok("clients of hello that name no room and chatroom chat without --room are in the lobby of one instance",
       len({instance for instance, *_ in where}) == 1 and {room for _, room, _ in where} == {"lobby"}, f"{where}")
    for client, line in zip(clients, lines):
        client.write(f"{line}\n")
    for client in clients:
        wait_until(f"{client.name} hears all", lambda: set(lines) <= set(client.out.splitlines()))
    ok("… and hear each other")
    for client in clients:
        client.close_stdin()
        client.ends(0)


class Terminal:
    """`chatroom chat`, with pipes, in a room where others are."""

    def __init__(self, stage, site, name, room):
        self._name, self._room, self._site = name, room, site
        command = [CHATROOM, "chat", "--json", "--addr", site.address, "--name", name, "--room", room]
        self._process = stage.process(name, *command)
        site.has_in(name)

    def receives(self, published):
        """Receives what others have published in its room, says something, and leaves."""
        expected = {line["published"] for line in published if line["room"] == self._room}
        self._process.write(f"{self._name} says hi\n")
        wait_until(f"{self._name} receives what others publish", lambda: expected <= set(self._texts()))
        self._process.close_stdin()
        self._process.ends(0)
        left = lambda: not any(self._name in instance.present() for instance in self._site.instances)
        wait_until(f"{self._name} has left", left)
        ok(f"chatroom chat receives the {len(expected)} lines that were published in its room meanwhile", expected)

    def call(self):
        """Its only call, as the member programs tell theirs."""
        told = [next(iter(record.items())) for record in records(self._process)]
        of = lambda kind: [fields for found, fields in told if found == kind]
        (welcome,), (goodbye,) = of("welcome"), of("goodbye")
        known = ("welcome", "event", "ack", "goodbye")
        return {
            "client": "chat", "member": self._name, "room": welcome["room"], "code": "OK", "reason": "", "message": "",
            "position": "", "retry": 0.0, "after": "", "welcome": welcome["position"], "gap": None,
            "heard": self._texts(), "positions": [event["position"] for event in of("event")],
            # It has one line to acknowledge.
            "acks": [[ack["position"], f"{self._name} says hi"] for ack in of("ack")],
            "goodbye": goodbye | {"retry": 0.0}, "others": [kind for kind, _ in told if kind not in known],
        }

    def _texts(self):
        return [record["event"]["body"]["text"] for record in records(self._process) if "event" in record]


def judge(calls, published):
    """What clients of chatroom.v1 have met in rooms that they shared with those of hello."""
    v1 = [call for call in calls if call["client"] != "hello"]
    found = judges.call_faults(v1)
    acks = sum(len(call["acks"]) for call in v1)
    ok(f"in each of {len(v1)} calls of chatroom.v1 each position followed the one before, {acks} acknowledgements were "
       "those of its own messages, a new epoch came with a gap, and the goodbye told what the status did",
       acks and not found, f"{found[:5]}")
    epochs = [call for call in v1 if call["gap"]]
    ok(f"… {len(epochs)} of them resumed in a new epoch", epochs)
    found = judges.publish_faults(published, calls)
    ok(f"{len(published)} lines said by Publish were received by all members of the room, and ListEvents and ListMembers "
       "agreed", published and not found, f"{found[:5]}")


SCENARIOS = [
    v1_calls_without_room_header_are_refused,
    clients_without_room_meet_in_lobby,
]
