"""The environment that a run of the benchmarks had."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.memory import copy_rate, total, touch_rate, warm
from benchmarks.peers import PEERS, ROOT

GIB = 1 << 30
PROBED = 256 << 20
"""Bytes that are touched and copied to see how fast the memory is, unless the largest checkpoint is smaller."""

QUIET = 0.5
"""Load beyond which the machine has other work to do, and ratios alone mean something."""


def environment(probed: int = PROBED) -> dict[str, str]:
    """Return the facts that decide what is measured, in the order in which people read them. Takes some seconds.

    ``probed`` bytes of memory are touched and copied.
    """
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    fresh = " / ".join(f"{touch_rate(probed, huge=huge):.2f}" for huge in (False, True))
    warm(2 * probed)
    warmed = " / ".join(f"{touch_rate(probed, huge=huge):.2f}" for huge in (False, True))
    copies = " / ".join(f"{copy_rate(probed, threads):.1f}" for threads in (1, cores))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _said_by("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown",
        "machine": f"{cores} cores, {total() / GIB:.0f} GiB, {_processor()}",
        "load before": f"{load:.1f}" + ("" if load < QUIET else ": NOT QUIET, only ratios mean something"),
        "memory touched first": f"{fresh} GB/s in small / huge pages, {warmed} GB/s once warmed",
        "memory copied": f"{copies} GB/s with 1 / {cores} threads",
        "kernel": platform.release(),
        "python": f"{platform.python_version()}, torch {torch.__version__}",
        **{peer.name: peer.version or "not installed" for peer in PEERS},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said_by(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
