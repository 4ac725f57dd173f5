"""The server under attack: the binary in CHATROOM_BIN on free ports, its metrics, and its resources as seen from outside.

Guarantees: the process is dead when the `with` block ends. Flags that the binary does not know are left out with a note,
so that the figures of an older server can be taken.
"""

import functools
import http.client
import os
import pathlib
import re
import subprocess
import time

import http2
import services
from processes import Failed, Process, wait_until

LISTENERS = ("chat", "admin", "metrics")
TICKS = os.sysconf("SC_CLK_TCK")


@functools.cache
def known_flags():
    asked = subprocess.run([os.environ["CHATROOM_BIN"], "serve", "--help"], capture_output=True, text=True, check=True)
    return frozenset(re.findall(r"^\s+(--[a-z-]+)", asked.stdout, re.MULTILINE))


class Server(Process):
    def __init__(self, *options, open_files=None, **flags):
        """`flags` are options by name, like max_rooms=10; `open_files` sets `ulimit -n`."""
        command = [os.environ["CHATROOM_BIN"], "serve", "--log-filter", "error", "--workers", "2", *options]
        for listener in ("--listen", "--admin-listen", "--metrics-listen"):
            command += [listener, "127.0.0.1:0"]
        for name, value in flags.items():
            flag = "--" + name.replace("_", "-")
            if flag in known_flags():
                command += [flag, str(value)]
            else:
                print(f"note  the server has no {flag}", flush=True)
        if open_files:
            command = ["bash", "-c", f'ulimit -n {open_files}; exec "$@"', "server", *command]
        drain = {"CHATROOM_DRAIN_NOTICE": "0s", "CHATROOM_DRAIN_SPREAD": "0s", "CHATROOM_DRAIN_DEADLINE": "5s"}
        super().__init__("server", command, drain)
        self._idle_rss = None

    def __enter__(self):
        self.chat, self.admin, self.metrics = (self._address(listener) for listener in LISTENERS)
        return self

    def __exit__(self, *failure):
        if failure[0] is not None or self.exit_code is not None:
            print(self.report(), flush=True)
        self.stop()

    @property
    def pid(self):
        return self._child.pid

    def _address(self, listener):
        def listening():
            if self.exit_code is not None:
                raise Failed(f"the server ended with {self.exit_code}: {self.err[-300:]}")
            return re.search(rf"^listening on (\S+) \({listener}\)$", self.out, re.MULTILINE)

        return wait_until(f"the server listens ({listener})", listening)[1]

    def get(self, path, seconds=5):
        """Status and body from the metrics listener; status 0 if there is no response."""
        connection = http.client.HTTPConnection(self.metrics, timeout=seconds)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def probes_answer(self):
        return self.get("/livez")[0] == 200 and self.get("/readyz")[0] == 200

    def metric(self, name):
        """The sum over all labels; None if there is no such metric or no response."""
        _, text = self.get("/metrics")
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values)) if values else None

    def settles(self, name, value, seconds=15):
        """Waits until a metric has this value; returns the last value seen."""
        return eventually(lambda: self.metric(name), lambda found: found == value, seconds)

    def _status(self, field):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024

    def rss(self):
        return self._status("VmRSS")

    def forget_peak(self):
        """Resets the peak that `growth` reads."""
        if self._idle_rss is None:
            self.warm_up()
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def growth(self):
        """Peak resident memory since `forget_peak`, minus what was resident before the first attack. The base stays the same
        for later attacks: memory that the allocator kept must not hide a second growth."""
        return self._status("VmHWM") - self._idle_rss

    def warm_up(self):
        """Makes a first round of calls, whose lasting allocations are not part of an attack."""
        for address in (self.chat, self.admin):
            with http2.Transport(address) as transport:
                streams = [transport.open(services.CHECK, b"") for _ in range(100)]
                transport.wait(lambda: all(transport.answers[s].ended for s in streams))
        self.metric("chatroom_transports")
        self._idle_rss = self.rss()

    def cpu(self):
        """Seconds of CPU so far, kernel included."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def cores_used(self, seconds):
        """Average number of cores in use over that time."""
        before, began = self.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu() - before) / (time.monotonic() - began)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def eventually(look, fits, seconds=15):
    """Polls `look()` until `fits()` or the time is over; returns the last value."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if fits(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(0.05)


def serves(address, source=None, path=services.CHECK, seconds=5):
    """Whether a new client's unary call succeeds."""
    try:
        with http2.Transport(address, source, seconds=seconds) as transport:
            return transport.call(path).status == http2.OK
    except (OSError, http2.Closed):
        return False
