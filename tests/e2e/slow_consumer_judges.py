"""What a slow reader must meet, as pure functions, and a test of them on planted faults.

A reader's calls ("legs") are as its program tells them. Messages are numbered from 1 in a room of their own, so that a
message's number is the offset of its position.
Does not know: how slow the reader was.
"""

import copy


def status_fault(legs, *_):
    """What is wrong with how its first call ended, or nothing."""
    return leg_fault(legs[0]) if legs and legs[0]["code"] else "it was not disconnected"


def leg_fault(leg):
    if leg["code"] != "RESOURCE_EXHAUSTED":
        return f"it ended with {leg['code']}: {leg['message']}"
    if leg["reason"] != "SLOW_CONSUMER":
        return f"the reason is {leg['reason'] or 'missing'}"
    if offset(leg) is None:
        return "the position is missing"
    if not leg["retry"] > 0:
        return "RetryInfo is missing"
    goodbyes = [note for note in leg["notes"] if note.startswith("goodbye ")]
    if goodbyes not in ([], [f"goodbye slow_consumer {leg['position']}"]):
        return "its goodbye and its status differ"
    return ""


def sequence_fault(legs, further, drops_unread=False):
    """What is wrong with what it received, or nothing. Some clients drop what came before the status and was not read yet."""
    received = 0
    for number, leg in enumerate(legs):
        if fault := run_fault(leg, received + 1):
            return fault
        if leg["ranges"]:
            received = leg["ranges"][0][1]
        if number and not leg["code"]:
            read = sum(b - a + 1 for a, b in leg["ranges"])
            return "" if read >= further or leg["end"] else "it did not read on"
        if number and (fault := leg_fault(leg)):
            return f"after it resumed, {fault}"
        if offset(leg) is None:
            return "it does not know its position"
        if offset(leg) < received or (offset(leg) > received and not drops_unread):
            return "its position is not that of the last message that it received"
    return "it did not resume"


def steady_fault(legs, last):
    """What is wrong with what one received that kept up, or was late and resumed; or nothing."""
    if not legs or not legs[-1]["ranges"]:
        return "it received nothing"
    if legs[0]["code"]:
        return leg_fault(legs[0]) or sequence_fault(legs, last, drops_unread=True) or last_fault(legs, last)
    return run_fault(legs[0], 1) or last_fault(legs, last)


def last_fault(legs, last):
    return "" if legs[-1]["ranges"][-1][1] == last else "it did not receive all"


def run_fault(leg, first):
    """What is wrong with the numbers of one call, which must be one run from `first` on, if any."""
    unexpected = [note for note in leg["notes"] if not note.startswith("goodbye ")]
    if unexpected:
        return f"it received what is no event: {unexpected[0]}"
    if len(leg["ranges"]) > 1:
        (_, end), (begin, _) = leg["ranges"][:2]
        return "it lost messages" if begin > end else "it received messages twice"
    if leg["ranges"] and leg["ranges"][0][0] != first:
        return "it lost messages" if leg["ranges"][0][0] > first else "it received messages twice"
    return ""


def offset(leg):
    epoch, colon, number = leg["position"].partition(":")
    return int(number) if epoch and colon and number.isdigit() else None


def planted_faults():
    """Yields (fault, what the judges must say of it, what they said)."""
    slow = {"name": "1", "code": "RESOURCE_EXHAUSTED", "message": "", "reason": "SLOW_CONSUMER", "position": "e:50",
            "retry": 1.5, "ranges": [[1, 50]], "notes": [], "end": False}
    done = slow | {"code": "", "reason": "", "position": "", "retry": 0, "ranges": [[51, 150]]}

    def judged(*legs, drops_unread=False):
        legs = copy.deepcopy(legs)
        return status_fault(legs) + sequence_fault(legs, 100, drops_unread)

    yield "a faultless reader", "", judged(slow, done)
    yield "one that is disconnected twice", "", judged(slow, slow | {"position": "e:50", "ranges": []}, done)
    yield "one with a goodbye", "", judged(slow | {"notes": ["goodbye slow_consumer e:50"]}, done)
    yield "one that goes on to the last message", "", judged(slow, done | {"ranges": [[51, 60]], "end": True})
    yield "one that stops too early", "it did not read on", judged(slow, done | {"ranges": [[51, 60]]})
    yield "a reset", "it ended with CANCELLED", judged(slow | {"code": "CANCELLED", "reason": "", "position": ""}, done)
    yield "a reset after it resumed", "after it resumed, it ended with", judged(slow, done | {"code": "CANCELLED"})
    yield "another reason", "the reason is KICKED", judged(slow | {"reason": "KICKED"}, done)
    yield "a status without details", "the reason is missing", judged(slow | {"reason": ""}, done)
    yield "no position", "the position is missing", judged(slow | {"position": ""}, done)
    yield "no RetryInfo", "RetryInfo is missing", judged(slow | {"retry": 0}, done)
    yield "a goodbye of elsewhere", "differ", judged(slow | {"notes": ["goodbye slow_consumer e:49"]}, done)
    yield "a gap", "no event", judged(slow, done | {"notes": ["gap"]})
    yield "a lost message", "it lost messages", judged(slow | {"ranges": [[1, 20], [22, 50]]}, done)
    yield "a lost first message", "it lost messages", judged(slow | {"ranges": [[2, 50]]}, done)
    yield "a double", "twice", judged(slow | {"ranges": [[1, 20], [20, 50]]}, done)
    yield "a position that is too far", "its position is not", judged(slow | {"position": "e:51"}, done)
    far, near = slow | {"position": "e:51"}, slow | {"position": "e:49"}
    yield "… of a client that drops what it has not read", "", judged(far, done, drops_unread=True)
    yield "… and one that is too near", "its position is not", judged(near, done, drops_unread=True)
    yield "a loss at the seam", "it lost messages", judged(slow, done | {"ranges": [[52, 150]]})
    yield "a double at the seam", "twice", judged(slow, done | {"ranges": [[50, 150]]})
    yield "one that never comes back", "it did not resume", judged(slow)
    yield "one that is never disconnected", "it was not disconnected", judged(done | {"ranges": [[1, 1000]]})
    yield "a steady one that was cut", "it ended with CANCELLED", steady_fault([slow | {"code": "CANCELLED"}], 1000)
    yield "… and that never came back", "it did not resume", steady_fault([slow], 1000)
    rest = done | {"ranges": [[51, 1000]], "end": True}
    yield "… and that resumed", "", steady_fault([slow, rest], 1000)
    lossy = rest | {"ranges": [[52, 1000]]}
    yield "… and lost something", "it lost messages", steady_fault([slow, lossy], 1000)
    yield "a steady one that lacks the last", "not receive all", steady_fault([done | {"ranges": [[1, 999]]}], 1000)
