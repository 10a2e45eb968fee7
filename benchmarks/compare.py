"""``python -m benchmarks.compare OLD NEW``: compare the results of two runs, and exit with 1 if a figure is worse.

A figure is worse, or better, if the spreads of the two runs do not overlap, that is if the worse quartile of one is
better than the better quartile of the other. A figure that was measured once has no spread: it has to change by a
tenth.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Key, Results
from benchmarks.rows import aligned, sample_of
from benchmarks.sample import Sample

ONCE = 0.1
"""Share by which a figure that was measured once has to change."""


@dataclass(frozen=True, slots=True)
class Change:
    key: Key
    old: Sample | None
    new: Sample | None

    @property
    def ratio(self) -> str:
        if self.old is None or self.new is None or not self.old.middle:
            return ""
        return f"{self.new.middle / self.old.middle:.2f}"

    @property
    def verdict(self) -> str:
        if self.old is None or self.new is None:
            return "new" if self.old is None else "gone"
        if is_worse(self.old, self.new):
            return "WORSE"
        return "better" if is_worse(self.new, self.old) else ""


def is_worse(old: Sample, new: Sample) -> bool:
    """Tell whether ``new`` is worse than ``old``, beyond the spread of both."""
    margin = abs(old.middle) * ONCE if len(old.values) == 1 or len(new.values) == 1 else 0.0
    (low, _, high), (new_low, _, new_high) = old.quartiles, new.quartiles
    return new_high < low - margin if old.better == "more" else new_low > high + margin


def changes(old: Results, new: Results) -> Iterator[Change]:
    for key in dict.fromkeys((*new.rows, *old.rows)):
        before, after = (sample_of(run.rows[key]) if key in run.rows else None for run in (old, new))
        if before is not None or after is not None:
            yield Change(key, before, after)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    old, new = Results.read(options.old), Results.read(options.new)
    for name in dict.fromkeys((*old.environment, *new.environment)):
        before, after = old.environment.get(name, "-"), new.environment.get(name, "-")
        print(f"{name}: {before}" + ("" if before == after else f" -> {after}"))
    found = list(changes(old, new))
    heading = ("#", "what", "old", "new", "new / old", "")
    cells = [(*each.key, _text(each.old), _text(each.new), each.ratio, each.verdict) for each in found]
    print(aligned([heading, *cells]))
    return int(any(each.verdict == "WORSE" for each in found))


def _text(sample: Sample | None) -> str:
    return "" if sample is None else sample.text


if __name__ == "__main__":
    sys.exit(main())
