"""Processes that talk through pipes, and waiting for what they do.

Promises: every wait has a deadline and no wait sleeps; a stopped process takes with it whatever it has started.
Does not know: chat, gRPC, the server.
"""

import codecs
import os
import pathlib
import signal
import subprocess
import threading
import time

# One for all: whoever writes or ends wakes every waiter. There are a few hundred events in a run.
_something_happened = threading.Condition()


class Failed(Exception):
    """A fact that should hold does not."""


def wait_until(fact, holds, seconds=30):
    """Returns what `holds()` returns as soon as that is true; seconds are generous, for a busy machine."""
    deadline = time.monotonic() + seconds
    with _something_happened:
        while not (result := holds()):
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(f"{fact}: not within {seconds} s")
            _something_happened.wait(left)
        return result


class Process:
    def __init__(self, name, command, env=()):
        self.name, self.out, self.err, self.exit_code = name, "", "", None
        # An own session, because some commands (npm's buf) are wrappers: stop() ends the group, not only the wrapper.
        self._child = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, **dict(env)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self._follow, daemon=True).start()

    def write(self, text):
        try:
            self._child.stdin.write(text.encode())
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended; its exit code and its stderr say why.

    def close_stdin(self):
        try:
            self._child.stdin.close()
        except BrokenPipeError:
            pass

    def terminate(self):
        self._child.send_signal(signal.SIGTERM)

    def ends(self, expected_code, seconds=30):
        wait_until(f"{self.name} ends", lambda: self.exit_code is not None, seconds)
        if self.exit_code != expected_code:
            raise Failed(f"{self.name} ended with {self.exit_code}, not {expected_code}")

    def stop(self):
        if self.exit_code is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            wait_until(f"{self.name} is dead", lambda: self.exit_code is not None)

    def resident(self):
        """Bytes of memory that it has, 0 once it has ended."""
        try:
            status = pathlib.Path(f"/proc/{self._child.pid}/status").read_text()
        except OSError:
            return 0
        return sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def report(self):
        """The end of what it wrote, for the reader of a failure."""
        state = "running" if self.exit_code is None else f"exit code {self.exit_code}"
        lines = [(word, line) for word in ("out", "err") for line in getattr(self, word).split("\n")[-12:] if line]
        return "\n".join([f"  {self.name} ({state})", *(f"    {word} {line[:300]}" for word, line in lines)])

    def _follow(self):
        readers = [
            threading.Thread(target=self._read, args=(word, pipe), daemon=True)
            for word, pipe in (("out", self._child.stdout), ("err", self._child.stderr))
        ]
        for reader in readers:
            reader.start()
        # An exit code is shown only after everything written before it.
        for reader in readers:
            reader.join()
        code = self._child.wait()
        with _something_happened:
            self.exit_code = code
            _something_happened.notify_all()

    def _read(self, word, pipe):
        # Bytes that are no UTF-8 become U+FFFD, and so a message that nobody said.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while block := os.read(pipe.fileno(), 65536):
            with _something_happened:
                setattr(self, word, getattr(self, word) + decoder.decode(block))
                _something_happened.notify_all()
