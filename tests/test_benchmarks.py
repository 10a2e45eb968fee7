"""``make bench`` runs; its figures are for people to read, on a quiet machine."""

import subprocess
import sys
from pathlib import Path

from tests.support.docs import ROOT
from tests.support.measure import long, measure
from tests.support.server import server_environment

BARS = measure(
    {"plain_download": "P1", "plain_upload": "P3"},
    {
        "plain_download": "P1",
        "plain_upload": "P3",
        "warm_start": "P6",
        "follow": "P14",
        "inside": "P15",
        "derived_downloads": "P7 P11",
        "many_clients": "P10",
    },
)
"""All but server_memory, which test_memory.py runs."""


@long
def test_the_benchmarks_run_and_print_a_row_for_every_bar(tmp_path: Path) -> None:
    options = ["--size", "16MB", "--big", "16MB", "--rounds", "1", "--folder", str(tmp_path), "--only", *BARS]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        env=server_environment({"PATH": ""}),  # no peers: they take their time
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in {0, 1}, result.stderr
    rows = result.stdout.splitlines()[2:]
    assert {row.split()[0] for row in rows} == set(" ".join(BARS.values()).split()), result.stderr
    assert all(row.endswith(("ok", "short", "info", "skipped", "not yet built")) for row in rows)
    assert list(tmp_path.iterdir()) == []
