"""Slow readers on grpc-go, grpcio and grpc-js, with their default settings and the server's default limits.

Promises: each of so many runs per language, API and pace is judged by its own; what all of them met is one count.
Does not know: how the server finds out who is slow, and how large the clients' windows are.
"""

import itertools
import json
import random
from collections import Counter

import slow_consumer_judges as judges
from facts import ok
from processes import Failed, wait_until
from stage import HERE, TOOLS

RUNS = 20
PROGRAMS = {
    "grpc-go": [TOOLS / "bin/readers"],
    "grpcio": [TOOLS / "python/bin/python", "-B", HERE / "python/readers.py"],
    "grpc-js": ["node", HERE / "node/readers.js"],
}
# Gives its caller a status before messages that came before it, and drops those; see node/readers.js.
DROPS_UNREAD = ["grpc-js"]
APIS = {"hello": ["hello"], "chatroom.v1": ["join", "subscribe"]}
PACES = {"slow": "takes 1/20 of the rate", "pausing": "stops for 4 to 14 s"}
SECONDS = {"slow": (10, 10), "pausing": (4, 14), "steady": (0, 0)}
# Some clients' windows grow to 4 MiB while they do not read, and the lag limit is 1 MiB: so much must go out within
# the shortest pause. A publisher stops once all in its room are disconnected: what they resume from must still be
# retained, and 16 MiB of log, the default, hold some 5,000 of these messages.
RATE, BYTES, MOST = 2000, 1000, 7500
# How much a reader reads after it has resumed.
FURTHER, ALL = 500, 10 * MOST
LATE_MOST = 2


def the_slow_consumer_judges_find_planted_faults(_):
    for fault, verdict, said in judges.planted_faults():
        finds = verdict in said if verdict else not said
        ok(f"the judges of slow consumers, given {fault}, say: {verdict or 'nothing'}", finds, f"they say {said}")


def slow_consumers_get_their_position_and_resume(stage):
    """One publisher at a time; while the next one publishes, the readers before read what was published for them."""
    stage.serve()
    river = River(stage)
    for pace, language in itertools.product(PACES, PROGRAMS):
        river.flows(language, pace)
    river.ends()
    late = 0
    for (language, api, _), legs, last in river.readers("steady"):
        fault = judges.steady_fault(legs, last)
        ok(f"{language}, {api}: one that keeps up receives all {last} messages in order", not fault, fault)
        late += len(legs) > 1
    # A machine that is busy with other work makes readers late without a fault of anyone; but not many of them.
    ok(f"{late} of those that keep up were late and had to resume", late <= LATE_MOST)
    judge_slow({kind: [legs for _, legs, _ in readers]
                for kind, readers in itertools.groupby(river.readers(*PACES), key=lambda reader: reader[0])})
    ok("the server logged no error", not stage.server.complaints(), f"{stage.server.complaints()}")


def judge_slow(runs_of):
    """All counts are shown, whichever fail."""
    short = []
    for (language, api, pace), runs in runs_of.items():
        for judge, does in ((judges.status_fault, "receive RESOURCE_EXHAUSTED, SLOW_CONSUMER, position and RetryInfo"),
                            (judges.sequence_fault, "receive each message up to it once, resume, and read on without a "
                                                    "loss or a double")):
            faults = [fault for legs in runs if (fault := judge(legs, FURTHER, language in DROPS_UNREAD))]
            fact = f"{language} {PACES[pace]} ({api}): {len(runs) - len(faults)} of {RUNS} {does}"
            if len(runs) == RUNS and not faults:
                ok(fact)
            else:
                short.append(f"{fact}; else: {dict(Counter(faults).most_common(3))}")
    if short:
        raise Failed("\n  ".join(["not all runs passed:", *short]))


class River:
    """A room for each language and pace: a publisher, slow readers, and some that keep up."""

    def __init__(self, stage):
        self._stage, self._random = stage, random.Random(1)
        self._kinds, self._rooms, self._processes, self._published = {}, {}, [], {}

    def flows(self, language, pace):
        """Returns when all in that room have been disconnected, or never will be."""
        room, crowds = f"{language}-{pace}", self._crowds(language, pace)
        wait_until(f"all readers are in {room}", lambda: all(map(self._is_open, crowds)))
        publisher = self._stage.process(f"publisher in {room}", TOOLS / "bin/numbers", self._stage.server.address(), room,
                                        RATE, BYTES, MOST)
        self._published[room] = publisher
        wait_until(f"all that are {pace} are disconnected, or {MOST} messages are out",
                   lambda: publisher.exit_code is not None or self._disconnected(room) >= RUNS * len(APIS))
        publisher.close_stdin()
        publisher.ends(0)

    def ends(self):
        for process in self._processes:
            process.ends(0, seconds=60)

    def readers(self, *paces):
        """Of those: (language, api, pace), the calls of one, and the number of the last message in its room."""
        lines = [json.loads(line) for process in self._processes for line in process.out.splitlines()]
        for name, kind in self._kinds.items():
            if kind[-1] in paces:
                last = int(self._published[self._rooms[name]].out)
                yield kind, [line for line in lines if line.get("name") == name], last

    def _crowds(self, language, pace):
        """Two processes, so that those that keep up need not wait for the others; but some share their transport."""
        room, slow, steady = f"{language}-{pace}", [], []
        for api, methods in APIS.items():
            steady.append(self._reader(room, (language, api, "steady"), methods[0]))
            for run, method in zip(range(RUNS), itertools.cycle(methods)):
                shared = "shared" if language == "grpc-go" and run % 2 else ""
                slow.append(self._reader(room, (language, api, pace), method, shared))
        if language == "grpc-go":
            slow.append(self._reader(room, (language, "hello beside the slow", "steady"), "hello", "shared"))
        return [self._comes(language, readers) for readers in (slow, steady)]

    def _reader(self, room, kind, api, transport=""):
        name = str(len(self._kinds))
        self._kinds[name], self._rooms[name] = kind, room
        return {"name": name, "room": room, "api": api, "pace": kind[-1], "transport": transport,
                "further": ALL if kind[-1] == "steady" else FURTHER,
                "seconds": self._random.uniform(*SECONDS[kind[-1]])}

    def _comes(self, language, readers):
        command = [*PROGRAMS[language], self._stage.server.address(), json.dumps(readers)]
        process = self._stage.process(f"{len(readers)} readers on {language}", *command)
        self._processes.append(process)
        return process, len(readers)

    def _is_open(self, crowd):
        process, readers = crowd
        if process.exit_code is not None:
            raise Failed(f"{process.name} ended with {process.exit_code}")
        return process.out.count('{"open":') >= readers

    def _disconnected(self, room):
        left = [left for left in self._stage.server.logged("user left") if left["room"] == room]
        return sum(record["reason"] == "slow_consumer" for record in left)


def a_stopped_reader_holds_up_none_of_999_on_its_transport(stage):
    """One message almost fills the windows of the stream and of the transport."""
    streams, messages, size, code = 1000, 24, 60 * 1024, "RESOURCE_EXHAUSTED"
    crowd = stage.process("crowd", TOOLS / "bin/crowd", stage.server.address(), "crowd", streams, messages, size)
    crowd.ends(0, seconds=120)
    ok(f"{streams} streams on a transport, windows of 65,535 bytes, one reader stopped: {streams - 1} receive all "
       f"{messages} messages of {size} bytes, in order")
    end = json.loads(crowd.out)
    told = (end["Code"], end["Reason"]) == (code, "SLOW_CONSUMER") and end["Position"].endswith(f":{end['Received']}")
    ok(f"… and the stopped one receives {code}, SLOW_CONSUMER and its position after {end['Received']}", told, crowd.out)


SCENARIOS = [
    the_slow_consumer_judges_find_planted_faults,
    slow_consumers_get_their_position_and_resume,
    a_stopped_reader_holds_up_none_of_999_on_its_transport,
]
