"""``make bench`` runs; its figures are for people to read, on a quiet machine."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.page import BEGIN, END, PAGE, written
from benchmarks.results import Results
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, Sample
from tests.support.docs import ROOT
from tests.support.measure import long, measure
from tests.support.scripts import run_script

BARS = measure(
    {"plain_download": "P1"},
    {
        "plain_download": "P1",
        "plain_upload": "P3",
        "warm_start": "P6",
        "follow": "P14",
        "inside": "inside",
        "small_checkpoints": "P13",
        "derived_downloads": "P7 P11",
        "many_clients": "P10",
    },
)
"""All but server_memory, whose transfers test_memory.py makes."""


@long
def test_the_benchmarks_run_and_print_a_row_for_every_bar(tmp_path: Path) -> None:
    options = [
        "--size",
        "16MB",
        "--big",
        "16MB",
        "--rounds",
        "1",
        "--no-peers",
        "--folder",
        str(tmp_path),
        "--only",
        *BARS,
    ]
    into = tmp_path / "results" / "one.json"
    result = run_script("from benchmarks.__main__ import main\nraise SystemExit(main())", *options, "--json", into)
    assert result.returncode in {0, 1}, result.stderr
    rows = result.stdout.splitlines()[2:]
    assert {row.split()[0] for row in rows} == set(" ".join(BARS.values()).split()), result.stderr
    assert all(row.endswith(("ok", "short", "info", "skipped")) for row in rows)
    results = Results.read(into)
    assert len(results.rows) == len(rows)
    assert {"machine", "memory touched first", "memory copied", "kernel", "load before"} < set(results.environment)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def run_of(path: Path, **figures: Sample | None) -> Path:
    """Write the results of a run with a row for each figure."""
    rows = [Row("P1", what, "ours", "a | b", sample, Bar(1)) for what, sample in figures.items()]
    path.write_text(json.dumps({"environment": {"machine": path.stem}, "rows": [row.to_json() for row in rows]}))
    return path


def compared(old: Path, new: Path) -> tuple[int, dict[str, str]]:
    """Return the exit status of a comparison, and the verdict on each figure."""
    command = [sys.executable, "-m", "benchmarks.compare", str(old), str(new)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("P1")]
    verdicts = {"WORSE", "better", "new", "gone"}
    assert "machine: old -> new" in result.stdout, result.stderr
    return result.returncode, {row[1]: row[-1] if row[-1] in verdicts else "same" for row in rows}


def test_a_figure_is_worse_where_the_spreads_of_two_runs_do_not_overlap(tmp_path: Path) -> None:
    old = run_of(
        tmp_path / "old.json",
        slower=Sample((1.0, 1.1, 1.2)),
        faster=Sample((1.0, 1.1, 1.2)),
        later=Sample((10, 11, 12), "less", "ms"),
        noisy=Sample((1.0, 1.5, 2.0)),
        counted=Sample((100,), "less", "B"),
        larger=Sample((100,), "less", "B"),
        gone=Sample((1,)),
    )
    new = run_of(
        tmp_path / "new.json",
        slower=Sample((0.8, 0.9, 1.0)),
        faster=Sample((1.3, 1.4, 1.5)),
        later=Sample((13, 14, 15), "less", "ms"),
        noisy=Sample((0.9, 1.2, 1.8)),
        counted=Sample((105,), "less", "B"),
        larger=Sample((120,), "less", "B"),
        new=Sample((1,)),
    )
    assert compared(old, new) == (
        1,
        {
            "slower": "WORSE",
            "faster": "better",
            "later": "WORSE",
            "noisy": "same",
            "counted": "same",
            "larger": "WORSE",
            "new": "new",
            "gone": "gone",
        },
    )
    old.rename(tmp_path / "first.json")
    assert compared(run_of(old, figure=Sample((1, 2))), run_of(new, figure=Sample((1, 2)))) == (0, {"figure": "same"})


def test_a_bar_is_met_where_the_worse_half_of_the_spread_meets_it() -> None:
    steady, lucky = Sample((0.99, 1.0, 1.01, 1.02, 1.03)), Sample((0.7, 0.8, 1.01, 1.2, 1.3))
    assert (steady.middle, lucky.middle) == (1.01, 1.01)
    assert [Row("P1", "", measured=each, bar=Bar(1)).verdict for each in (steady, lucky)] == ["ok", "short"]
    waits = Sample((10, 20, 30, 60, 70), "less", "ms")
    assert [Row("P1", "", measured=waits, bar=Bar(limit)).verdict for limit in (60, 59)] == ["ok", "short"]
    assert Row("P1", "").verdict == "info"
    assert skipped("P1", "", "there is no nginx").verdict == "skipped"


def test_the_page_has_the_table_of_the_last_run(tmp_path: Path) -> None:
    before = PAGE.read_text()
    results = Results.read(run_of(tmp_path / "run.json", speed=Sample((1.0, 1.5, 2.0)), none=None))
    after = written(before, results)
    assert "| P1 | speed | ours | a \\| b | 1.50 (1.25 to 1.75) | >= 1 | yes |" in after.splitlines()
    assert "| machine | run |" in after.splitlines()
    assert "That run was older" not in after
    assert written(after, results) == after
    begin, end = before.index(BEGIN), before.index(END)
    assert (after[:begin], after[after.index(END) :]) == (before[:begin], before[end:])
