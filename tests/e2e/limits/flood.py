"""Attackers in separate processes, and processes that only use CPU.

Guarantees: every attacker stops after its time, and is killed at the end of its `with` block.
Does not know: what an attacker sends; see `frames.py`.
"""

import contextlib
import multiprocessing
import os
import time

_spawn = multiprocessing.get_context("spawn")
# Real attackers run on other machines: here they must not take CPU from the server and the canary.
NICE = 5


@contextlib.contextmanager
def attackers(act, *arguments, processes=2, seconds=10):
    """Runs `act(deadline, report, *arguments)` in several processes; yields a function that returns the sum of their counts,
    a dict of numbers."""
    pipes, children = [], []
    deadline = time.monotonic() + seconds
    started = _spawn.Barrier(processes + 1)
    for _ in range(processes):
        ours, theirs = _spawn.Pipe(duplex=False)
        child = _spawn.Process(target=_attack, args=(started, theirs, act, seconds, arguments), daemon=True)
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    started.wait(20)
    latest = [{} for _ in pipes]

    def counted():
        for number, pipe in enumerate(pipes):
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll():
                    latest[number] = pipe.recv()
        total = {}
        for counts in latest:
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
        return total

    try:
        yield counted
    finally:
        counted()
        for child in children:
            child.kill()
            child.join(max(0.1, deadline - time.monotonic()))
        for pipe in pipes:
            pipe.close()


def _attack(started, pipe, act, seconds, arguments):
    os.nice(NICE)
    last = [0.0]

    def report(counts):
        if time.monotonic() - last[0] > 0.1:
            last[0] = time.monotonic()
            pipe.send(dict(counts))

    started.wait(20)
    act(time.monotonic() + seconds, report, *arguments)
    # Connections that are open stay open until the `with` block ends.
    time.sleep(seconds)


def busy_machine(processes=2, seconds=10):
    """Processes that only count, at an attacker's priority: the noise that CPU use alone causes."""
    return attackers(_count, processes=processes, seconds=seconds)


def _count(deadline, report):
    while time.monotonic() < deadline:
        for _ in range(10_000):
            pass
