"""`python3 -m side_by_side bench|scale`, as `make bench` and `make bench-scale` do.

BENCH_ROUNDS (3) and BENCH_SECONDS (3) say how often and how long; BENCH_ONLY names loads, like "100-saturated 10000-idle".
A run of some loads only writes below target/bench and leaves the published files and documents alone. BENCH_TOOL is the
chatroom binary that loads, if not the one that is measured.

Exit code 1 when a run of chatroom or of the floor has a fault, or there is no picture.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from . import blocks, install, machine, plan, report, rounds, scale
from .results import Results
from .running import Bench


@dataclass(frozen=True)
class Study:
    # Of its files.
    name: str
    cases: tuple
    servers: tuple
    servers_of: Callable
    markdown: Callable
    # By document, the block that it has there.
    blocks: dict[str, Callable] = field(default_factory=dict)


STUDIES = {
    "bench": Study("results", plan.CASES, plan.SERVERS, lambda _: plan.SERVERS, report.markdown,
                   {"README.md": report.readme, "docs/performance.md": report.goals}),
    "scale": Study("scale", scale.CASES, scale.SERVERS, scale.servers_of, scale.markdown),
}


def main(arguments):
    if len(arguments) != 1 or arguments[0] not in STUDIES:
        sys.exit(f"usage: python3 -m side_by_side {'|'.join(STUDIES)}")
    study = STUDIES[arguments[0]]
    # As Ctrl-C does: so that a server that runs is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    count, seconds = number("BENCH_ROUNDS", int), number("BENCH_SECONDS", float)
    cases = chosen(study, os.environ.get("BENCH_ONLY", "").split())
    results = measured(study, cases, count, seconds)
    complete = len(cases) == len(study.cases)
    picture = published(study, results, complete)
    sys.exit(0 if picture and not at_fault(results, cases) else 1)


def number(name, kind):
    text = os.environ.get(name) or "3"
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if value <= 0:
        sys.exit(f"bench: {name} must be a number above 0, not {text!r}")
    return value


def chosen(study, names):
    """The cases of the loads, or all; a name may be that of a load or of one of its cases."""
    known = {name for case in study.cases for name in (case.load, case.name)}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"bench: BENCH_ONLY names {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return [case for case in study.cases if not names or case.load in names or case.name in names]


def measured(study, cases, count, seconds):
    facts = machine.facts()
    install.open_files()
    install.build()
    missing, versions = {}, {}
    if plan.NATS in (server.name for server in study.servers):
        missing[plan.NATS] = install.package(install.NATS_PACKAGE)
        versions[plan.NATS] = install.NATS_PACKAGE.rpartition("=")[2]
    tool = Path(os.environ.get("BENCH_TOOL", install.RELEASE / "chatroom"))
    bench = Bench(tool, install.RELEASE, install.VENV, install.HOME / "logs")
    turns = list(rounds.turns(cases, study.servers_of, count))
    runs = rounds.run_all(bench, [turn for turn in turns if not missing.get(turn[2].name)], seconds)
    servers = [
        {
            "name": server.name, "title": server.title, "missing": missing.get(server.name),
            "version": None if missing.get(server.name) else versions.get(server.name),
        }
        for server in study.servers
    ]  # fmt: skip
    settings = {"rounds": count, "seconds": seconds}
    return Results({"machine": facts, "settings": settings, "servers": servers, "runs": runs})


def published(study, results, complete):
    """Writes the files; returns the picture's name, if it could be drawn."""
    folder = install.ROOT / "docs/bench" if complete else install.HOME
    folder.mkdir(parents=True, exist_ok=True)
    document = folder / f"{study.name}.json"
    document.write_text(json.dumps(results.document, indent=1, ensure_ascii=False) + "\n")
    picture = drawn(study, document)
    text = study.markdown(results, picture)
    (folder / f"{study.name}.md").write_text(text)
    print(text)
    if complete:
        for document, block in study.blocks.items():
            path = install.ROOT / document
            path.write_text(blocks.updated(path.read_text(), block(results)))
    print(f"bench: written to {folder / study.name}.json, .md and .svg", file=sys.stderr)
    if not complete:
        print("bench: not all loads were run, so docs/bench and the documents stay as they are", file=sys.stderr)
    return picture


def drawn(study, document):
    picture = document.with_suffix(".svg")
    # A picture of another run would be worse than none.
    picture.unlink(missing_ok=True)
    if install.package(install.PLOT_PACKAGE):
        return None
    command = [install.VENV / "bin/python", "-B", "-m", f"{__package__}.plot", study.name, document, picture]
    done = subprocess.run(command, cwd=install.ROOT / "benches", check=False)
    if done.returncode:
        print("bench: THE PICTURE COULD NOT BE DRAWN; see above", file=sys.stderr)
        return None
    return picture.name


def at_fault(results, cases):
    """Whether ours or the floor did anything that it promises not to do. The others are as they are."""
    return any(results.remarks(case.name, name) for case in cases for name in (plan.OURS, plan.FLOOR))


if __name__ == "__main__":
    main(sys.argv[1:])
