"""Where and of what a run was made."""

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from .install import ROOT


def facts():
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "rustc": said("rustc", "--version"),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": said("git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"),
        # Over a minute, before anything was run: what else the machine had to do.
        "load_average": round(os.getloadavg()[0], 2),
    }


def cpu_model():
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def said(*command):
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
