"""Rules of retention, one by one, on checkpoints that a test describes in a line."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.values.duration import format_duration
from app.values.retention import Candidate, KeepBest, Rules, judge, rules_from_json, rules_to_json

NOW = datetime(2026, 5, 9, tzinfo=UTC)


def run(count: int, **fields: Any) -> list[Candidate]:
    """Checkpoints 1 to ``count`` of a run, a day apart, the newest a day old; ``fields`` are functions of a version."""
    return [
        Candidate(
            version=version,
            created_at=NOW - timedelta(days=count - version + 1),
            run="a",
            epoch=version,
            **{name: value(version) for name, value in fields.items()},
        )
        for version in range(1, count + 1)
    ]


def kept(candidates: list[Candidate], **rules: Any) -> list[int]:
    return sorted(judge(candidates, Rules(**rules), NOW).kept)


ACCURACY = {3: 0.9, 5: 0.9, 7: 0.2}


@pytest.mark.parametrize(
    ("rules", "stays"),
    [
        ({"keep_last": 3}, [7, 8, 9]),
        ({"keep_best": (KeepBest("max:acc", 1),)}, [5, 9]),  # of two with the same value the newer
        ({"keep_best": (KeepBest("min:acc", 2),)}, [5, 7, 9]),
        ({"keep_best": (KeepBest("max:acc", 9),)}, [3, 5, 7, 9]),
        ({"keep_every_epochs": 4}, [4, 8, 9]),
        ({"keep_for": timedelta(days=3)}, [8, 9]),
        ({"keep_last": 1, "keep_every_epochs": 3}, [3, 6, 9]),
        ({"thin_after": 2}, list(range(1, 10))),
        ({}, list(range(1, 10))),
    ],
)
def test_a_rule_keeps(rules: dict[str, Any], stays: list[int]) -> None:
    values = {"values": lambda version: {"acc": ACCURACY[version]} if version in ACCURACY else {}}
    assert kept(run(9, **values), **rules) == stays


def test_the_newest_of_each_run_always_stays() -> None:
    other = [Candidate(version=20, created_at=NOW - timedelta(days=99)), Candidate(version=21, created_at=NOW)]
    assert kept([*run(3), *other], keep_for=timedelta(seconds=1)) == [3, 21]


def test_an_alias_and_a_pin_hold_and_count_like_any_other() -> None:
    held = run(5, holders=lambda version: ("alias prod",) if version == 1 else ("pin",) if version == 5 else ())
    verdict = judge(held, Rules(keep_last=2), NOW)
    assert verdict.kept == {1: ("alias prod",), 4: ("keep_last",), 5: ("pin", "newest", "keep_last")}


def test_where_no_checkpoint_has_the_metric_nothing_is_removed() -> None:
    other = [Candidate(version=7, created_at=NOW, values={"acc": 1.0}), Candidate(version=8, created_at=NOW)]
    last = Candidate(version=9, created_at=NOW)
    verdict = judge([*run(4), *other, last], Rules(keep_best=(KeepBest("max:acc"),)), NOW)
    assert sorted(verdict.kept) == [1, 2, 3, 4, 7, 9]
    assert verdict.unknown == [("a", "acc")]


def test_a_slot_keeps_its_newest_and_only_that() -> None:
    slots = run(6, slot=lambda version: "last" if version % 2 else None)
    assert kept(slots, keep_last=2) == [4, 5, 6]
    verdict = judge(slots, Rules(), NOW)
    assert verdict.removed == {1: "replaced", 3: "replaced"}


def test_what_has_expired_goes_even_if_it_is_the_newest() -> None:
    expiring = run(3, expires_at=lambda version: NOW if version > 1 else None)
    verdict = judge(expiring, Rules(keep_last=3), NOW)
    assert verdict.removed == {2: "expired", 3: "expired"}
    assert verdict.kept[1] == ("newest", "keep_last")
    held = run(1, expires_at=lambda _: NOW, holders=lambda _: ("pin",))
    assert list(judge(held, Rules(), NOW).kept) == [1]


def test_thinning_takes_old_ones_that_have_optimizers_and_that_nothing_holds() -> None:
    old = run(
        6, optimizer_bytes=lambda version: 0 if version == 2 else 8, holders=lambda v: ("alias prod",) if v == 1 else ()
    )
    assert sorted(judge(old, Rules(thin_after=2), NOW).thinned) == [3, 4]
    assert sorted(judge(old, Rules(thin_after=1, keep_last=2), NOW).thinned) == [5]


def test_rules_survive_json() -> None:
    rules = Rules(3, (KeepBest("max:acc", 2),), 10, 500, timedelta(hours=36), 5)
    assert rules_from_json(rules_to_json(rules)) == rules
    assert rules_from_json(rules_to_json(Rules(keep_last=1))) == Rules(keep_last=1)
    assert rules_to_json(Rules()) == {}


@pytest.mark.parametrize("text", ["90s", "1m", "36h", "30d", "0s", "61s"])
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    assert format_duration(timedelta(seconds=int(text[:-1]) * units[text[-1]])) == text
