"""What a room promises about order, as a pure function, and a test of that function on planted faults.

Promises: every fault in what the members of a room heard is named. Messages must be distinct; they need no other form.
Does not know: how the members said or heard it.
"""

import copy
from collections import Counter


def faults(said, heard):
    """`said` and `heard`: member -> list of messages. Everyone was in from before the first message to after the last."""
    sender = {message: who for who, messages in said.items() for message in messages}
    assert len(sender) == sum(map(len, said.values())), "the messages must be distinct"

    found = []
    for listener, messages in heard.items():
        times = Counter(messages)
        found += [f"{listener} lost {m!r}" for m in sender if m not in times]
        found += [f"{listener} heard {m!r} {n} times" for m, n in times.items() if n > 1]
        found += [f"{listener} heard what nobody said: {m!r}" for m in times if m not in sender]
        for who in said:
            of_sender = [m for m in messages if sender.get(m) == who]
            # Losses and repetitions are named above; here only the order counts.
            if list(dict.fromkeys(of_sender)) != [m for m in said[who] if m in times]:
                found.append(f"{listener} heard {who} in another order than {who} spoke")

    (first, expected), *others = heard.items()
    for listener, messages in others:
        if messages != expected:
            at = next((i for i, pair in enumerate(zip(expected, messages)) if len(set(pair)) > 1),
                      min(len(expected), len(messages)))
            found.append(f"{listener} and {first} differ from their message {at} on")
    return found


def planted_faults():
    """Yields (fault, what `faults` must say of it, what it said)."""
    said = {who: [f"{who} {i} ü" for i in range(4)] for who in ("ann", "bob", "eve")}
    order = [said[who][i] for i in range(4) for who in said]
    sound = {who: list(order) for who in said}

    def tell(spoil):
        heard = copy.deepcopy(sound)
        spoil(heard)
        return faults(said, heard)

    def swap(messages, i, j):
        messages[i], messages[j] = messages[j], messages[i]

    def everybody(spoil):
        return lambda heard: [spoil(messages) for messages in heard.values()]

    yield "no fault", None, tell(lambda heard: None)
    yield ("two senders swapped for one listener", "bob and ann differ from their message 4",
           tell(lambda heard: swap(heard["bob"], 4, 5)))
    yield ("one sender swapped for everybody", "eve heard ann in another order",
           tell(everybody(lambda messages: swap(messages, 0, 3))))
    yield ("a message lost for one listener", "eve lost 'bob 1 ü'",
           tell(lambda heard: heard["eve"].remove("bob 1 ü")))
    yield ("a message lost for everybody", "ann lost 'bob 1 ü'",
           tell(everybody(lambda messages: messages.remove("bob 1 ü"))))
    yield ("the last message lost", "eve lost 'eve 3 ü'",
           tell(lambda heard: heard["eve"].pop()))
    yield ("a message twice for one listener", "bob heard 'ann 2 ü' 2 times",
           tell(lambda heard: heard["bob"].append("ann 2 ü")))
    yield ("a message twice for everybody", "ann heard 'eve 0 ü' 2 times",
           tell(everybody(lambda messages: messages.insert(3, "eve 0 ü"))))
    yield ("a message spoilt", "ann heard what nobody said: 'bob 0 ?'",
           tell(lambda heard: heard["ann"].__setitem__(1, "bob 0 ?")))
    yield ("the sender left out", "ann lost 'ann 0 ü'",
           tell(lambda heard: heard.update(ann=[m for m in order if m not in said["ann"]])))
    yield ("nothing heard by anyone", "bob lost 'eve 3 ü'",
           tell(everybody(list.clear)))
