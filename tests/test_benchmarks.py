"""``make bench`` runs: what it finds is for people to read, on a quiet machine."""

import subprocess
import sys
from pathlib import Path

from tests.docs import ROOT
from tests.server import server_environment

QUESTIONS = ("P1", "P3", "P6", "P7", "P8")
SMALL = ("--size", "64MB", "--big", "128MiB", "--rounds", "1")


def test_the_benchmarks_print_a_row_for_every_bar(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            "--size",
            "64MB",
            "--big",
            "128MiB",
            "--rounds",
            "1",
            "--folder",
            tmp_path,
        ],
        cwd=ROOT,
        env=server_environment({"PATH": ""}),  # no peers: they take their time
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in {0, 1}, result.stderr
    rows = result.stdout.splitlines()[2:]
    assert {row.split()[0] for row in rows} == set(QUESTIONS), result.stderr
    assert all(row.endswith(("ok", "short", "info", "skipped", "not yet built")) for row in rows)
    assert list(tmp_path.iterdir()) == []
