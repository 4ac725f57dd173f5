"""grpc-go sends short texts as fast as it can: it is slowed, never cut off, and those beside it notice nothing.

Does not know: how it is slowed.
"""

import json
from collections import Counter

from facts import ok
from processes import wait_until
from stage import TOOLS

TEXTS, RUNS = 20_000, 24
# Longest text in bytes. Processes that run at the same time, each with its part of the runs.
SHAPES = {"of 1 to 20 bytes": 20, "of 1 byte": 1}
PROCESSES = 2


def fast_senders_of_short_texts_are_slowed_and_not_cut(stage):
    address, floods = stage.server.address(), {}
    for shape, longest in SHAPES.items():
        floods[shape] = [stage.process(f"flood {shape} {part}", TOOLS / "bin/flood", address, f"flood-{longest}-{part}",
                                       TEXTS, RUNS // PROCESSES, longest) for part in range(PROCESSES)]
        wait_until(f"the floods {shape} end", lambda: all(flood.exit_code is not None for flood in floods[shape]), 180)
    short = []
    for shape, processes in floods.items():
        ends = [json.loads(line) for process in processes for line in process.out.splitlines()]
        faults = [end["fault"] for end in ends if end["fault"]]
        slowest, asides = max(end["seconds"] for end in ends), min(end["asides"] for end in ends)
        fact = (f"grpc-go sends {TEXTS} texts {shape} at once: in {len(ends) - len(faults)} of {RUNS} runs it and two others "
                "on its transport receive all in order, and one in another room goes on")
        if faults or len(ends) != RUNS:
            short.append(f"{fact}; else: {Counter(faults).most_common(5)}")
        else:
            ok(f"{fact} (slowest run {slowest:.1f} s; the other room heard {asides} words or more)")
    ok("all runs passed", not short, "\n  ".join(short))
    ok("the server logged no error", not stage.server.complaints(), f"{stage.server.complaints()}")


SCENARIOS = [fast_senders_of_short_texts_are_slowed_and_not_cut]
