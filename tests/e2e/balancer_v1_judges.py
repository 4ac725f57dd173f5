"""What chatroom.v1 promises a client behind a balancer, as pure functions, and a test of these on planted faults.

Promises: every fault in the history that they are given is named.
Does not know: where the history comes from.
"""

import copy
from itertools import pairwise

from balancer_judges import end_of, span

GOODBYES = {"UNAVAILABLE": "shutdown", "OK": "left"}


def call_faults(calls):
    """What Join does not promise of these calls, each by itself."""
    return [f"{call['member']}'s call {fault}" for call in calls for fault in faults_of(call)]


def faults_of(call):
    if not call.get("welcome"):
        yield f"ended with {call['code']} {call['reason']!r} before a welcome: {call['message']}"
        return
    for before, after in pairwise([call["welcome"], *call["positions"]]):
        if after != next_to(before):
            yield f"has {after} after {before}"
    yield from start_faults(call)
    own = [[position, text] for position, text in zip(call["positions"], call["heard"])
           if text.startswith(f"{call['member']} ")]
    if call["acks"] != own:
        yield f"has acknowledgements {call['acks']}, and its own messages are {own}"
    yield from goodbye_faults(call)
    if call["others"]:
        yield f"has responses that nobody expects there: {call['others']}"


def start_faults(call):
    """It goes on after its position or, in another epoch, with what is retained, and then a gap comes first."""
    after, welcome = call["after"], call["welcome"]
    expected = None
    if after and epoch_of(after) != epoch_of(welcome):
        expected = {"reason": "REASON_EPOCH", "to": welcome}
    elif after and after != welcome:
        yield f"asks for what comes after {after}, and gets what comes after {welcome}"
    if call["gap"] != expected:
        yield f"asks for what comes after {after!r}, is welcomed at {welcome}, and its gap is {call['gap']}"


def goodbye_faults(call):
    goodbye = call["goodbye"]
    if not goodbye:
        yield "has no goodbye"
        return
    if goodbye["reason"] != GOODBYES.get(call["code"]):
        yield f"ends with {call['code']}, and its goodbye says {goodbye['reason']}"
    last = [call["welcome"], *call["positions"]][-1]
    if goodbye["position"] != last:
        yield f"ends at {last}, and its goodbye says {goodbye['position']}"
    if call["code"] != "OK" and (goodbye["position"], goodbye["retry"]) != (call["position"], call["retry"]):
        yield f"ends at {call['position']} with a retry in {call['retry']} s, and its goodbye says {goodbye}"


def publish_faults(published, calls):
    """What was said by Publish when all was quiet is in its place, and all members of its room have received it there."""
    return [f"{line['published']!r} {fault}" for line in published for fault in faults_of_publish(line, calls)]


def faults_of_publish(line, calls):
    if line["code"] != "OK":
        yield f"was refused with {line['code']} {line['reason']!r}: {line['message']}"
        return
    text, position = line["published"], line["position"]
    if line["listed"] != [[position, text]]:
        yield f"is at {position}, and ListEvents has {line['listed']} there"
    if sorted(line["members"]) != line["present"]:
        yield f"is said where ListMembers has {line['members']}, not {line['present']}"
    received = {}
    for call in (call for call in calls if call["room"] == line["room"] and end_of(call)):
        epoch, first, last = span(call)
        place = int(position.rpartition(":")[2])
        if epoch == epoch_of(position) and first <= place <= last:
            received[call["member"]] = call["heard"][place - first]
    if missing := sorted(set(line["present"]) - set(received)):
        yield f"at {position} was not received by {missing}"
    if other := {member: heard for member, heard in received.items() if heard != text}:
        yield f"is at {position}, and there was received: {other}"


def epoch_of(position):
    return position.rpartition(":")[0]


def next_to(position):
    epoch, _, offset = position.rpartition(":")
    return f"{epoch}:{int(offset) + 1}"


def planted_faults():
    """Yields (fault, what a judge must say of it, what they said)."""
    heard = ["ann 1", "bob 7", "aside", "ann 2"]
    positions = ["e:5", "e:6", "e:7", "e:8"]
    ann = {
        "member": "ann", "room": "blue", "code": "UNAVAILABLE", "reason": "SHUTDOWN", "message": "", "position": "e:8",
        "retry": 1.5, "after": "", "welcome": "e:4", "gap": None, "heard": heard, "positions": positions,
        "acks": [["e:5", "ann 1"], ["e:8", "ann 2"]], "others": [],
        "goodbye": {"reason": "shutdown", "position": "e:8", "retry": 1.5},
    }
    line = {"published": "aside", "room": "blue", "code": "OK", "reason": "", "message": "", "position": "e:7",
            "listed": [["e:7", "aside"]], "members": ["ann"], "present": ["ann"]}

    def tell(call=(), publish=()):
        call, publish = copy.deepcopy(ann) | dict(call), copy.deepcopy(line) | dict(publish)
        return call_faults([call]) + publish_faults([publish], [call])

    left = {"code": "OK", "reason": "", "position": "", "retry": 0.0,
            "goodbye": {"reason": "left", "position": "e:8", "retry": 0.0}}
    resumed = {"after": "d:9", "gap": {"reason": "REASON_EPOCH", "to": "e:4"}}
    yield "a call of chatroom.v1 without fault", None, tell()
    yield "one whose client leaves", None, tell(left)
    yield "one that resumes", None, tell({"after": "e:4"})
    yield "one that resumes in another epoch", None, tell(resumed)
    yield ("a Join that is refused", "before a welcome",
           tell({"welcome": "", "code": "INVALID_ARGUMENT", "heard": [], "position": ""}))
    yield "a position left out", "has e:8 after e:6", tell({"positions": ["e:5", "e:6", "e:8", "e:9"]})
    yield "a position twice", "has e:6 after e:6", tell({"positions": ["e:5", "e:6", "e:6", "e:7"]})
    yield "a position of another epoch", "has d:7 after e:6", tell({"positions": ["e:5", "e:6", "d:7", "e:8"]})
    yield "a first message that is not the next", "has e:5 after e:3", tell({"welcome": "e:3"})
    yield "a resume from elsewhere", "asks for what comes after e:3, and gets", tell({"after": "e:3"})
    yield "another epoch without a gap", "its gap is None", tell(resumed | {"gap": None})
    yield "a gap for nothing", "its gap is {", tell({"gap": resumed["gap"]})
    yield "an ack that is missing", "has acknowledgements", tell({"acks": [["e:5", "ann 1"]]})
    yield "an ack for another's message", "has acknowledgements", tell({"acks": [["e:6", "ann 1"], ["e:8", "ann 2"]]})
    yield "no goodbye", "has no goodbye", tell({"goodbye": None})
    for fault, verdict, goodbye in [
        ("of a client that leaves", "its goodbye says left", {"reason": "left"}),
        ("with another position than the last message's", "ends at e:8, and its goodbye", {"position": "e:7"}),
        ("with another retry than the status", "a retry in 1.5 s", {"retry": 0.5}),
    ]:
        yield f"a goodbye {fault}", verdict, tell({"goodbye": ann["goodbye"] | goodbye})
    yield "a second goodbye", "that nobody expects", tell({"others": ["goodbye"]})
    yield "a Publish that is refused", "'aside' was refused", tell(publish={"code": "UNAVAILABLE"})
    yield "one that ListEvents does not have", "ListEvents has []", tell(publish={"listed": []})
    yield "one in another room of that name", "ListMembers has [], not ['ann']", tell(publish={"members": []})
    yield "one that a member did not receive", "not received by ['bob']", tell(publish={"present": ["ann", "bob"]})
    yield ("one of another epoch than the members'", "not received by ['ann']",
           tell(publish={"position": "f:7", "listed": [["f:7", "aside"]]}))
    yield "one in whose place was another", "there was received", tell({"heard": ["ann 1", "bob 7", "cut", "ann 2"]})
