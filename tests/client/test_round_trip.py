"""The round-trip script, which runs on every supported Python and torch, run on this one."""

from pathlib import Path

from tests.support.scripts import run_script
from tests.support.server import Server

SCRIPT = Path(__file__).with_name("round_trip.py").read_text()


def test_the_round_trip_is_right_here(server: Server) -> None:
    done = run_script(SCRIPT, server.base_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("right on Python")
