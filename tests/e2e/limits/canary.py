"""Healthy clients whose latency, loss and order are measured. `Canary` runs this file as a separate program, because
threads of one Python process would delay each other.

One member publishes and all members receive, each on its own transport, so that every worker serves some. Latency counts
from just before a message is sent until one member has received it. Each member must receive every message once, in order.

Does not know: the attack.
"""

import json
import os
import pathlib
import select
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import http2  # noqa: E402
import report  # noqa: E402
import services  # noqa: E402
from flood import busy_machine  # noqa: E402
from processes import Process, wait_until  # noqa: E402

MEMBERS = 6
INTERVAL = 0.005
# Latencies below this are scheduler noise. It only bounds the divisor of a ratio.
NOISE_FLOOR = 0.003


class Canary(Process):
    """Use: `with Canary(server) as canary: quiet = canary.window(1.0)`."""

    def __init__(self, server, room="canary"):
        super().__init__("canary", [sys.executable, "-B", __file__, server.chat, room])
        self.noise = None

    def __enter__(self):
        self._answers(1)
        return self

    def __exit__(self, *_):
        self.stop()

    def _answers(self, count):
        wait_until("the canary answers", lambda: self.out.count("\n") >= count or self.exit_code is not None, 60)
        if self.out.count("\n") < count:
            raise RuntimeError(f"the canary ended: {self.err[-500:]}")
        return json.loads(self.out.split("\n")[count - 1])

    def window(self, seconds):
        """p50 and p99 in seconds, the number of deliveries, and all faults so far, measured over the next `seconds`."""
        return self._ask(seconds)

    def finish(self):
        """Stops publishing and waits for what is outstanding; returns all losses, repetitions and reorderings, as text."""
        return self._ask("finish")["faults"]

    def _ask(self, command):
        count = self.out.count("\n")
        self.write(f"{command}\n")
        return self._answers(count + 1)


def compare(canary, under_attack, seconds=0.8, rounds=3):
    """Measures quiet windows and windows inside the context manager `under_attack` in turn; and, once per canary, windows with
    processes that only use CPU. Prints the medians of p50 and p99 and returns them by name."""
    if canary.noise is None:
        with busy_machine(seconds=3 * seconds + 3):
            canary.noise = [canary.window(seconds) for _ in range(3)]
    quiet, attacked = [], []
    for _ in range(rounds):
        quiet.append(canary.window(seconds))
        with under_attack():
            attacked.append(canary.window(seconds))
        recovers(canary, quiet[0])
    medians = {}
    for name in ("p50", "p99"):
        medians[name] = [report.median(w[name] for w in windows) for windows in (quiet, canary.noise, attacked)]
        words = ("quiet", "busy machine", "attack")
        report.figure(f"canary {name}", ", ".join(f"{w} {report.ms(v)}" for w, v in zip(words, medians[name])))
    return medians


def recovers(canary, quiet, seconds=10):
    """Waits until the latency is normal again: frames in socket buffers outlive the attackers, and are part of the attack."""
    deadline = time.monotonic() + seconds
    while (now := canary.window(0.2)["p50"]) > 2 * max(quiet["p50"], NOISE_FLOOR):
        if time.monotonic() > deadline:
            report.fact("the canary's latency is normal again after the attack", False, f"p50 {report.ms(now)}")
            return


def at_most_doubled(words, medians):
    """Judges p99, and p50, which a busy machine disturbs less."""
    for name, (quiet, noise, attacked) in medians.items():
        base = max(quiet, noise, NOISE_FLOOR)
        report.fact(f"{words}: the canary's {name} is at most doubled", attacked <= 2 * base,
                    f"{report.ms(attacked)} is {attacked / base:.1f} times {report.ms(base)}")


def probe_waits(server, count=40):
    """Seconds that each of `count` probes takes, one after the other; 5 s without a response."""
    waits = []
    for _ in range(count):
        began = time.monotonic()
        answered = server.get("/readyz")[0] == 200
        waits.append(time.monotonic() - began if answered else 5.0)
    return waits


def probes_at_most_doubled(words, quiet, attacked):
    base, seen = max(report.median(quiet), NOISE_FLOOR), report.median(attacked)
    report.fact(f"{words}: the probes' median is at most doubled", seen <= 2 * base,
                f"{report.ms(seen)}, quiet {report.ms(report.median(quiet))}, most {report.ms(max(attacked))}")


class Sequence:
    """What one member must receive: the numbers from its first one on, each once, in order."""

    def __init__(self):
        # The first number may be any.
        self.next = None
        self.faults = []

    def take(self, number):
        if self.next is not None and number != self.next:
            self.faults.append(f"received {number}, not {self.next}")
        self.next = number + 1

    def end(self, number):
        """Every number below this one has been sent."""
        if self.next != number:
            self.faults.append(f"received up to {self.next}, not {number}")


def canary_finds_planted_faults():
    planted = {"nothing wrong": [3, 4, 5, 6], "a loss": [3, 5, 6], "a loss at the end": [3, 4, 5],
               "a repetition": [3, 4, 4, 5, 6], "a swap": [3, 5, 4, 6], "nothing at all": []}
    for words, numbers in planted.items():
        sequence = Sequence()
        for number in numbers:
            sequence.take(number)
        sequence.end(7)
        report.fact(f"the canary's check, given {words}, fails or passes as it must",
                    bool(sequence.faults) == (words != "nothing wrong"), sequence.faults)


class _Member:
    def __init__(self, address, room, number):
        self.transport = http2.Transport(address)
        self.stream = services.join(self.transport, room, f"canary-{number}")
        self.sequence = Sequence()

    @property
    def answer(self):
        return self.transport.answers[self.stream]

    def receive(self):
        """Numbers of the messages that have arrived."""
        self.transport.receive(0)
        data, at, numbers = self.answer.data, 0, []
        while len(data) - at >= 5:
            length = struct.unpack_from(">I", data, at + 1)[0]
            if len(data) - at - 5 < length:
                break
            # Behind the prefix of 5 bytes are the field's tag and length.
            numbers.append(int(data[at + 7:at + 5 + length]))
            at += 5 + length
        del data[:at]
        return numbers

    def has_gone(self):
        return self.transport.closed or self.answer.ended


class _Program:
    """Publishes all the time, and measures when it is asked to by a line on stdin: the seconds, or `finish`."""

    def __init__(self, address, room):
        self.members = [_Member(address, room, number) for number in range(MEMBERS)]
        self.by_descriptor = {member.transport.socket.fileno(): member for member in self.members}
        self.poll = select.poll()
        for descriptor in (0, *self.by_descriptor):
            self.poll.register(descriptor, select.POLLIN)
        # When each message was sent, by its number.
        self.sent = []
        self.latencies, self.faults = [], []

    def run(self):
        print(json.dumps("ready"), flush=True)
        due, began, until = time.monotonic(), 0, None
        while True:
            now = time.monotonic()
            if now >= due:
                due = max(due + INTERVAL, now)
                self.publish()
            asked = self.take_events(max(0, due - now))
            if asked == "":
                return
            if asked == "finish":
                self.finish()
                return
            if asked:
                self.latencies, began, until = [], now, now + float(asked)
            if until is not None and now >= until:
                until = None
                self.tell(self.latencies + self.overdue(began))

    def publish(self):
        speaker = self.members[0]
        self.sent.append(time.monotonic())
        speaker.transport.data(speaker.stream, http2.message(services.text(str(len(self.sent) - 1))))

    def take_events(self, seconds):
        """Takes what has arrived; returns what stdin asks for, None if nothing."""
        asked = None
        for descriptor, _ in self.poll.poll(seconds * 1000):
            if descriptor == 0:
                asked = os.read(0, 100).decode().strip()
                continue
            member = self.by_descriptor[descriptor]
            now = time.monotonic()
            for number in member.receive():
                member.sequence.take(number)
                self.latencies.append(now - self.sent[number])
            if member.has_gone():
                answer = member.answer
                self.faults.append(f"a call ended: {answer.headers}, reset {answer.reset}")
                self.poll.unregister(descriptor)
        return asked

    def overdue(self, began):
        """So late, at least, are the messages since `began` that a member has not received."""
        now, found = time.monotonic(), []
        for member in self.members:
            missing = self.sent[member.sequence.next or 0:]
            found += [now - sent for sent in missing if sent >= began]
        return found

    def finish(self):
        end = time.monotonic() + 10
        while time.monotonic() < end and any(m.sequence.next != len(self.sent) for m in self.members):
            self.take_events(0.05)
        for member in self.members:
            member.sequence.end(len(self.sent))
        self.tell(self.latencies)

    def tell(self, latencies):
        ordered = sorted(latencies) or [0.0]
        pick = lambda share: ordered[min(len(ordered) - 1, int(len(ordered) * share))]
        faults = self.faults + [fault for member in self.members for fault in member.sequence.faults]
        print(json.dumps({"p50": pick(0.5), "p99": pick(0.99), "received": len(latencies), "faults": faults[:10]}), flush=True)


CHECKS = [canary_finds_planted_faults]

if __name__ == "__main__":
    try:
        os.nice(-10)
    except OSError:
        pass  # Needs root, and only reduces noise.
    _Program(*sys.argv[1:]).run()
