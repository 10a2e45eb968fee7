"""The round-trip script, which runs on every supported Python and torch, run on this one."""

import subprocess
import sys
from pathlib import Path

from tests.support.server import Server

SCRIPT = Path(__file__).with_name("round_trip.py")


def test_the_round_trip_is_right_here(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, server.base_url], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("right on Python")
