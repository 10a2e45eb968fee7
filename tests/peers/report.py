"""The results of a suite's run, read from the plugin's log and the server's."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

OUTCOMES = ("equal", "refused", "unjudged", "different")


@dataclass
class Tally:
    """Comparisons and tests of one suite, the requests that it took, and those that ended as the server's fault."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str, str], str] = field(default_factory=dict)
    tests: Counter[str] = field(default_factory=Counter)
    failed: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    """Tests that pass without Stateroom, and fail with it."""
    requests: int = 0
    faults: int = 0

    @property
    def wrong(self) -> bool:
        return bool(self.outcomes["different"] or self.faults)


def tally(log: Path, statuses: list[int]) -> Tally:
    """``statuses`` are the server's answers to the suite's requests."""
    count = Tally(requests=len(statuses), faults=sum(status >= 500 for status in statuses))
    for line in log.read_text().splitlines() if log.exists() else ():
        said = json.loads(line)
        if "passed" in said:
            count.tests[said["passed"]] += 1
            if said["passed"] == "failed":
                count.failed.add(said["test"])
            continue
        count.outcomes[said["outcome"]] += 1
        if said["outcome"] != "equal":
            reason = (said["outcome"], said["way"], said["why"])
            count.reasons[reason] += 1
            count.examples.setdefault(reason, said["test"])
    return count


HEAD = (
    f"{'suite':<24}{'tests':>7}{'failed':>8}{'broken':>8}{'equal':>9}{'refused':>9}{'unjudged':>10}{'different':>11}"
    f"{'requests':>10}{'5xx':>5}"
)


def row(name: str, count: Tally) -> str:
    outcomes = count.outcomes
    return (
        f"{name:<24}{count.tests.total():>7}{count.tests['failed']:>8}{len(count.broken):>8}{outcomes['equal']:>9,}{outcomes['refused']:>9,}"
        f"{outcomes['unjudged']:>10,}{outcomes['different']:>11,}{count.requests:>10,}{count.faults:>5}"
    )


def details(count: Tally) -> list[str]:
    """A line for each reason, the worst first, with a test that shows it."""
    lines = [f"         fails only with Stateroom: {test}" for test in sorted(count.broken)]
    order = sorted(count.reasons.items(), key=lambda item: (-OUTCOMES.index(item[0][0]), -item[1]))
    for reason, number in order:
        outcome, way, why = reason
        lines.append(f"  {number:>6,} {outcome}, {way}: {why}")
        if outcome == "different":
            lines.append(f"         in {count.examples[reason]}")
    return lines
