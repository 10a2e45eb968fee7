"""``python -m benchmarks.page RESULTS``: write the table of bars of docs/performance.md from the results of a run."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import ROOT
from benchmarks.results import Results
from benchmarks.rows import sample_of

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- table of bars: python -m benchmarks.page -->", "<!-- end of the table -->"


def written(page: str, results: Results) -> str:
    """Return ``page`` with the table of ``results`` between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"the page has no lines {BEGIN} and {END}")
    return "\n".join([before + BEGIN, "", *_lines(results), "", END + after])


def _lines(results: Results) -> Iterator[str]:
    yield "| measured on | |"
    yield "| --- | --- |"
    for name, fact in results.environment.items():
        yield f"| {name} | {_cell(fact)} |"
    yield ""
    yield "| # | what | Stateroom | peer or limit | median (quartiles) | bar | met |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for (question, what), row in results.rows.items():
        if not re.fullmatch(r"P\d+", question):
            continue
        sample = sample_of(row)
        measured = "" if sample is None else sample.text
        met = {"ok": "yes", "short": "no", "skipped": "skipped", "info": ""}[row["verdict"]]
        cells = (question, what, row["ours"], row["peer"], measured, row["bar"], met)
        yield f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("results", type=Path, help="the JSON of a run, build/bench/DATE.json")
    options = parser.parse_args()
    PAGE.write_text(written(PAGE.read_text(), Results.read(options.results)))


if __name__ == "__main__":
    main()
