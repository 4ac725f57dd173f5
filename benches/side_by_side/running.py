"""One run: a server is started, loaded by the tool, scraped if it can be, and stopped.

Promises: whatever goes wrong is the run's failure, in words, and no exception; the server is gone when the run is over.
"""

import itertools
import json
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager

HOST = "127.0.0.1"
# Below the ephemeral ones, which clients' ends take.
PORTS = range(21_000, 22_000)
READY_SECONDS = 10
# Beyond the time that the tool measures for: to connect 10,000 to a server that loses SYNs takes its time.
TOOL_SECONDS = 180


class Failure(Exception):
    """Why there is no result."""


class Bench:
    """The load tool, and where the servers' programs and logs are."""

    def __init__(self, tool, bin_dir, venv, logs):
        self.tool, self.bin_dir, self.venv, self.logs = tool, bin_dir, venv, logs
        # Each run has others, as those of the last may still be known to closed connections.
        self._ports = itertools.cycle(PORTS)
        logs.mkdir(parents=True, exist_ok=True)

    def run(self, server, case, number, seconds):
        """The run's record in the results file."""
        record = {
            "case": case.name, "server": server.name, "round": number, "arguments": case.arguments(seconds),
            "exit": None, "failure": None, "scrapes": 0, "scrapes_failed": 0, "tool": None,
        }  # fmt: skip
        try:
            with self.served(server, self.logs / f"{case.name}-{server.name}-{number}.log") as (process, port, metrics_port):
                with scraped(metrics_port if server.scraped else None, record):
                    self.load(record, server, process, port, seconds)
                if (code := process.poll()) is not None:
                    raise Failure(f"the server ended by itself with code {code}")
        except Failure as failure:
            record["failure"] = str(failure)
        return record

    @contextmanager
    def served(self, server, log_file):
        port, admin_port, metrics_port = self.free_ports(3)
        command = [
            part.format(bin=self.bin_dir, venv=self.venv, host=HOST, port=port, admin_port=admin_port,
                        metrics_port=metrics_port)
            for part in server.command
        ]  # fmt: skip
        with open(log_file, "wb") as log:
            try:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            except OSError as error:
                raise Failure(f"cannot start: {error.strerror}") from None
            try:
                wait_until_it_accepts(process, port)
                yield process, port, metrics_port
            finally:
                # Not a drain, which takes its time: nobody is there any more.
                process.kill()
                process.wait()

    def free_ports(self, count):
        free = filter(is_free, itertools.islice(self._ports, len(PORTS)))
        if len(found := list(itertools.islice(free, count))) < count:
            raise Failure(f"no {count} free ports from {PORTS.start} on")
        return found

    def load(self, record, server, process, port, seconds):
        command = [
            self.tool, "bench", "--addr", f"{HOST}:{port}", "--protocol", server.protocol, "--pid", str(process.pid),
            "--json", *record["arguments"],
        ]  # fmt: skip
        limit = TOOL_SECONDS + seconds
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            raise Failure(f"no result within {limit:g} s") from None
        record["exit"] = done.returncode
        try:
            record["tool"] = json.loads(done.stdout)
        except ValueError:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise Failure(f"the load tool ended with code {done.returncode} and no result: {last}") from None


def is_free(port):
    with socket.socket() as probe:
        # As the servers do, or a port would seem taken for a minute after each run.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def wait_until_it_accepts(process, port):
    deadline = time.monotonic() + READY_SECONDS
    while True:
        if (code := process.poll()) is not None:
            raise Failure(f"the server ended with code {code} before it accepted a connection")
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise Failure(f"the server accepts no connection within {READY_SECONDS} s") from None
            time.sleep(0.05)


@contextmanager
def scraped(port, record):
    """Asks for /metrics once per second, as Prometheus would at its most eager; without a port, does not."""
    over = threading.Event()

    def scrape():
        while not over.wait(1):
            try:
                with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
                    answer.read()
                record["scrapes"] += 1
            except OSError:
                record["scrapes_failed"] += 1

    thread = threading.Thread(target=scrape, daemon=True)
    if port is not None:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if port is not None:
            thread.join()
