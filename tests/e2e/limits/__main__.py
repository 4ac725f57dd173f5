"""Attacks on a release binary that its limits must withstand: one function per check, each with its own server.

Usage: python tests/e2e/limits [--long] [CHECK…], with the Python of target/e2e and CHATROOM_BIN in the environment.
Prints `ok` or `NOT` and the figure for each fact, and fails if one does not hold. `--long` runs each attack at full size
instead of the shortest one that shows the same.
"""

import argparse
import importlib
import os
import pathlib
import signal
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["PYTHONPATH"] = str(HERE / "../../../target/e2e/python/generated")
sys.path.append(os.environ["PYTHONPATH"])

import report  # noqa: E402

MODULES = ("canary", "transports", "requests", "responses", "rooms", "memory", "lists", "cheap_frames", "idle")


def main():
    # The modules read it as they are imported.
    os.environ["LIMITS_LONG"] = "1" if "--long" in sys.argv[1:] else ""
    checks = {check.__name__: check for name in MODULES for check in importlib.import_module(name).CHECKS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="run each attack at full size")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(checks)}")
    asked = parser.parse_args()
    if unknown := set(asked.checks) - set(checks):
        parser.error(f"no such check: {', '.join(unknown)}")
    # Settings in the environment must not reach the server.
    for name in [name for name in os.environ if name.startswith(("CHATROOM_", "OTEL_")) and name != "CHATROOM_BIN"]:
        del os.environ[name]
    # A stopped run stops the processes that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in asked.checks or checks:
        play(name, checks[name])
    print(f"limits: {len(report.held)} held, {len(report.failed)} failed")
    return 1 if report.failed else 0


def play(name, check):
    print(f"==  {name}", flush=True)
    began = time.monotonic()
    try:
        check()
    except Exception:
        # The server is gone, or sent something unexpected: the run fails, and the other checks still give their figures.
        traceback.print_exc(file=sys.stdout)
        report.fact(f"{name} completes", False)
    print(f"    {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
