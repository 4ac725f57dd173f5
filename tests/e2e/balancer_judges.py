"""What a balancer and the instances behind it promise, as pure functions, and a test of these on planted faults.

Promises: every fault in the history that they are given is named.
Does not know: where the history comes from.
"""

import copy
from collections import defaultdict, namedtuple

# A call that an instance has taken, by its log: `member` is the client's name, empty if it gave none.
Arrival = namedtuple("Arrival", "instance time room member")
# An instance's way out, from SIGTERM to the end of the process.
Drain = namedtuple("Drain", "instance began ended")


def late_arrivals(arrivals, drains, limit_seconds):
    """The calls that came to an instance when its balancer should have known for long that it goes."""
    return [
        f"{arrival.room} came to {arrival.instance} {arrival.time - drain.began:.2f} s after SIGTERM"
        for drain in drains
        for arrival in arrivals
        if arrival.instance == drain.instance and drain.began + limit_seconds < arrival.time <= drain.ended
    ]


def split_rooms(arrivals):
    """The rooms whose members, each where it came last, are not all on one instance."""
    last = {arrival.member: arrival for arrival in sorted(arrivals, key=lambda a: a.time) if arrival.member}
    where = defaultdict(lambda: defaultdict(list))
    for member, arrival in last.items():
        where[arrival.room][arrival.instance].append(member)
    return [f"{room} is split: {dict(instances)}" for room, instances in where.items() if len(instances) > 1]


def shutdown_faults(calls):
    """The calls that did not end as an instance that goes promises it."""
    return [
        f"{call['member']}'s call ended with {call['code']} {call['reason']!r} at {call['position']!r}, come back "
        f"after {call['retry']} s: {call['message']}"
        for call in calls
        if (call["code"], call["reason"]) != ("UNAVAILABLE", "SHUTDOWN")
        or not call["position"] or call["retry"] <= 0
    ]


def delivery_faults(calls):
    """All calls in a room must agree on who is in which place."""
    places, found = {}, []
    for call in (call for call in calls if end_of(call)):
        epoch, first, last = span(call)
        if first < 1:
            found.append(f"{call['member']} heard {len(call['heard'])} messages up to place {last}")
        for place, message in enumerate(call["heard"], start=first):
            expected, witness = places.setdefault((call["room"], epoch, place), (message, call["member"]))
            if message != expected:
                found.append(f"{call['member']} has {message!r} in place {place} of {call['room']}, "
                             f"{witness} has {expected!r}")
                break
    return found


def span(call):
    """The epoch and the first and last place that it heard: a call has got everything up to its position, without a gap,
    so counting back from there gives the place of each message."""
    epoch, _, last = end_of(call).rpartition(":")
    return epoch, int(last) - len(call["heard"]) + 1, int(last)


def end_of(call):
    """Its position by its status or, where that is OK, by its goodbye; empty if it has neither."""
    return call["position"] or (call.get("goodbye") or {}).get("position", "")


def planted_faults():
    """Yields (fault, what a judge must say of it, what they said)."""
    arrivals = [Arrival("one", second, "blue", "ann") for second in (1.0, 10.5)]
    arrivals += [Arrival("two", second, "blue", "ann") for second in (12.0, 13.0)] + [Arrival("one", 30.0, "red", "")]
    calls = [ended(member, heard, 12 + len(heard)) for member, heard in (("ann", "abcd"), ("bob", "abcdef"))]

    def tell(spoil=lambda arrivals, calls: None):
        here, there = copy.deepcopy((arrivals, calls))
        spoil(here, there)
        drains = [Drain("one", 10.0, 20.0), Drain("two", 40.0, 50.0)]
        return late_arrivals(here, drains, 2) + split_rooms(here) + shutdown_faults(there) + delivery_faults(there)

    def comes(*arrival):
        return lambda arrivals, calls: arrivals.append(Arrival(*arrival))

    def bobs(**fields):
        return lambda arrivals, calls: calls[1].update(fields)

    yield "no fault", None, tell()
    yield ("a call that comes to a stopping instance late", "green came to one 2.50 s after SIGTERM",
           tell(comes("one", 12.5, "green", "")))
    yield ("one that comes at its very end", "green came to two 10.00 s", tell(comes("two", 50.0, "green", "")))
    yield "one that comes when the instance is there again", None, tell(comes("one", 20.5, "green", ""))
    yield "a member elsewhere than its room", "blue is split", tell(comes("one", 25.0, "blue", "bob"))
    yield "a call that was reset", "bob's call ended with CANCELLED", tell(bobs(code="CANCELLED", reason=""))
    yield "an end without a position", "at '', come back after 1.5 s", tell(bobs(position=""))
    yield "an end that says not when to come back", "come back after 0.0 s", tell(bobs(retry=0.0))
    yield "the last message lost", "bob has 'a' in place 14", tell(bobs(heard=list("abcde")))
    yield "a message lost in the middle", "bob has 'a' in place 14", tell(bobs(heard=list("abdef")))
    yield "a message twice", "bob has 'b' in place 13", tell(bobs(heard=list("abccdef")))
    yield "two messages swapped", "bob has 'c' in place 14", tell(bobs(heard=list("acbdef")))
    yield "another life of the room", None, tell(bobs(heard=list("xyz"), position="f:3"))


def ended(member, heard, position):
    return {"member": member, "room": "blue", "heard": list(heard), "code": "UNAVAILABLE", "reason": "SHUTDOWN",
            "message": "the server is stopping", "position": f"e:{position}", "retry": 1.5}
