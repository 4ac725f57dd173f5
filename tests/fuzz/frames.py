"""A server under wrong HTTP/2 frames, beside canaries: grpc-go clients in one room that must notice nothing of it.

Promises: the same seed makes the same connections; what fails names the seed, and the connections that were open.
Does not know: what the frames are, and how the server answers them.
"""

import json
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request

import facts
from facts import ok
from processes import Failed, wait_until
from stage import TOOLS, Stage

SECONDS = int(os.environ.get("FUZZ_SECONDS", "120"))
SEED = int(os.environ.get("FUZZ_SEED") or random.randrange(1 << 32))
CONNECTIONS = os.environ.get("FUZZ_CONNECTIONS", "")
CANARIES = 8
# Rooms keep little, so that memory which grows is memory that is not given back.
FORGETFUL = ["--retention-bytes", "2MiB", "--retention-messages", "16384"]
MIB = 1 << 20
# Generous: the frames' sender alone takes a whole core, and a machine may be busy with other work.
LATE_MS_P99, LATE_MS_MAX, PROBE_SECONDS = 1000, 10_000, 5
RSS_MAX, SETTLE_SECONDS = 256 * MIB, 60
GAUGES = ("chatroom_transports", "chatroom_connections")


def canaries_notice_nothing_of_wrong_frames(stage):
    # In the server's log each connection would be a line or more.
    stage.serve("--log-filter", "warn,chatroom::server=info", *FORGETFUL)
    server = stage.server
    canaries = stage.process("canaries", TOOLS / "bin/canaries", server.address(), "canaries", CANARIES)
    wait_until("the canaries are in", lambda: "open" in canaries.out or canaries.exit_code is not None)
    before = gauges(server)
    ok(f"{CANARIES} canaries are in: {before}", before["chatroom_connections"] == CANARIES)
    command = [TOOLS / "bin/frames", server.address(), SEED, SECONDS, *([CONNECTIONS] if CONNECTIONS else [])]
    with Watch(server) as watch:
        frames = stage.process("frames", *command)
        wait_until("the frames end", lambda: frames.exit_code is not None or server.exit_code is not None, SECONDS + 60)
    ok("the server is there", server.exit_code is None and frames.exit_code == 0,
       f"it ended with {server.exit_code}; {frames.err}")
    sent = json.loads(frames.out)
    ok(f"{sent['connections']} connections sent {sent['frames']} frames, {sent['bytes'] // MIB} MiB, in {SECONDS} s")
    ok(f"/readyz was asked {watch.probes} times, and green each time, within {watch.slowest:.2f} s", watch.probes and not
       watch.red, f"{watch.red[:5]}")
    ok(f"the server's memory was at most {watch.peak // MIB} MiB", watch.peak <= RSS_MAX, f"allowed: {RSS_MAX // MIB}")

    calls = metrics(server, "chatroom_connections_opened_total") - CANARIES
    published = metrics(server, "chatroom_messages_published_total")
    ok(f"they opened {calls} calls of the chat services, and {published} messages were published", calls > SECONDS)
    settle(server, before)
    canaries.close_stdin()
    canaries.ends(0, seconds=60)
    seen = json.loads(canaries.out.splitlines()[-1])
    ok(f"each canary received the same {seen['messages']} messages in one order, without a loss or a double",
       not seen["faults"] and seen["messages"] > SECONDS, f"{seen['faults']}")
    ok(f"they came after {seen['p50_ms']:.1f} ms (median), {seen['p99_ms']:.0f} ms (p99), {seen['max_ms']:.0f} ms at most",
       seen["p99_ms"] <= LATE_MS_P99 and seen["max_ms"] <= LATE_MS_MAX)
    settle(server, dict.fromkeys(GAUGES, 0))
    server.terminate()
    server.ends(0, seconds=20)
    ok("the server ends with 0, and logged no error", not server.complaints(), f"{server.complaints()[:5]}")


def settle(server, wanted):
    deadline = time.monotonic() + SETTLE_SECONDS
    while (now := gauges(server)) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    ok(f"the gauges return to {list(wanted.values())}", now == wanted, f"after {SETTLE_SECONDS} s: {now}")


def gauges(server):
    return {name: metrics(server, name) for name in GAUGES}


def metrics(server, name):
    """The sum of all series of that name."""
    with urllib.request.urlopen(f"http://{server.address('metrics')}/metrics", timeout=PROBE_SECONDS) as answer:
        text = answer.read().decode()
    return int(sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))))


class Watch:
    """Looks all the time whether the server is ready, and how much memory it has."""

    def __init__(self, server):
        self.probes, self.red, self.slowest, self.peak = 0, [], 0.0, 0
        self._server, self._over = server, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _look(self):
        url = f"http://{self._server.address('metrics')}/readyz"
        while not self._over.is_set() and self._server.exit_code is None:
            began = time.monotonic()
            try:
                with urllib.request.urlopen(url, timeout=PROBE_SECONDS):
                    pass
            except (OSError, urllib.error.URLError) as red:
                self.red.append(str(red))
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.probes += 1
            self.peak = max(self.peak, self._server.resident())
            self._over.wait(0.25)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    again = f"FUZZ_SEED={SEED} FUZZ_SECONDS={SECONDS}" + (f" FUZZ_CONNECTIONS={CONNECTIONS}" if CONNECTIONS else "")
    print(again, flush=True)
    with Stage() as stage:
        try:
            canaries_notice_nothing_of_wrong_frames(stage)
        except Exception as failure:
            # Anything but Failed is a fault of the test or an answer of a form it does not know.
            words = str(failure) if isinstance(failure, Failed) else traceback.format_exc()
            print(f"FAILED: {words}\n{stage.report()}\nAgain: make fuzz-frames {again}", flush=True)
            return 1
    print(f"{facts.passed} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
