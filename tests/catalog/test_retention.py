"""Retention in the catalog: random histories against a simple model, and what it costs."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from app.catalog import Catalog, aliases, checkpoints, history, namespaces, packs, retention, tables, trash
from app.catalog.listing import Listing, list_checkpoints
from app.catalog.models import get_model
from app.store.keys import new_name
from app.values.checkpoint import CheckpointName, ModelName
from app.values.retention import KeepBest, Rules
from tests.catalog.make import add, resolve, statements
from tests.support.measure import examples

HOUR = timedelta(hours=1)
_names = (ModelName("retention", f"m{number}") for number in itertools.count())
_counts = st.none() | st.integers(1, 3)
_best = st.builds(KeepBest, st.sampled_from(["max:acc", "min:loss"]), st.integers(1, 2))
_rules = st.builds(
    Rules,
    keep_last=_counts,
    keep_best=st.lists(
        st.builds(KeepBest, st.sampled_from(["max:acc", "min:loss"]), st.integers(1, 2)), max_size=2
    ).map(tuple),
    keep_every_epochs=st.none() | st.integers(2, 3),
    keep_for=st.none() | st.integers(1, 30).map(lambda hours: hours * HOUR),
)
_runs = st.sampled_from([None, "a"])
_numbers = st.none() | st.integers(0, 3).map(float)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), _runs, _numbers, st.none() | st.just("last"), st.none() | st.integers(1, 40)),
        st.tuples(st.just("save"), _runs, _numbers, st.none(), st.none()),
        st.tuples(st.just("metric"), st.integers(1, 9), _numbers),
        st.tuples(st.sampled_from(["pin", "unpin", "alias", "restore", "upload", "end"]), st.integers(1, 9)),
        st.tuples(st.just("rules"), st.none() | _rules),
        st.tuples(st.just("jump"), st.integers(1, 20)),
    ),
    min_size=3,
    max_size=30,
)


class Simple:
    """The same in sets: a row for each checkpoint, and what is live."""

    def __init__(self) -> None:
        self.rows: dict[int, dict] = {}
        self.live: set[int] = set()
        self.pinned: set[int] = set()
        self.uploads: dict[int, str] = {}
        self.alias: int | None = None
        self.rules = Rules()
        self.hours = 0

    def tidy(self, now: int) -> None:
        for run in (None, "a"):
            mine = sorted(version for version in self.live if self.rows[version]["run"] == run)
            held = {version for version in mine if version in {*self.pinned, *self.uploads, self.alias}}
            over = {v for v in mine if (ends := self.rows[v]["ends"]) is not None and ends <= now} - held
            mine = [version for version in mine if version not in over]
            slotted = [version for version in mine if self.rows[version]["slot"]]
            replaced = set(slotted[:-1]) - held
            left = [version for version in mine if version not in replaced]
            ruled = [version for version in left if version not in slotted]
            stays = held | set(slotted[-1:]) | set(left[-1:]) | self.kept(ruled, now)
            self.live -= over | replaced | (set(left) - stays)

    def kept(self, ruled: list[int], now: int) -> set[int]:
        rules, stays = self.rules, set()
        if not rules.removes:
            return set(ruled)
        for best in rules.keep_best:
            name, worst = best.metric, 1 if best.is_min else -1
            ranked = [version for version in ruled if self.rows[version][name] is not None]
            if not ranked:
                return set(ruled)
            stays |= set(sorted(ranked, key=lambda v: (worst * self.rows[v][name], -v))[: best.count])
        if rules.keep_last is not None:
            stays |= set(ruled[-rules.keep_last :])
        if rules.keep_every_epochs is not None:
            stays |= {version for version in ruled if version % rules.keep_every_epochs == 0}
        if rules.keep_for is not None:
            stays |= {version for version in ruled if now - self.rows[version]["at"] < rules.keep_for // HOUR}
        return stays


def jump(catalog: Catalog, model: ModelName, hours: int) -> None:
    """Let time go by, by making all that is there older."""
    c, by = tables.checkpoints.c, hours * HOUR // timedelta(microseconds=1)
    with catalog.write() as w:
        this = update(tables.checkpoints).where(c.model_id == get_model(w, model).id)
        w.execute(this.values(created_at=c.created_at - by, expires_at=c.expires_at - by))


def do(catalog: Catalog, model: ModelName, simple: Simple, what: str, *given_: Any) -> None:
    """Do a step in both."""
    if what == "save":
        run, number, slot, hours = given_
        version = len(simple.rows) + 1
        ttl = None if hours is None else hours * HOUR
        add(catalog, model, run=run, epoch=version, loss=number, metrics={}, slot=slot, ttl=ttl)
        ends = None if hours is None else simple.hours + hours
        simple.rows[version] = {
            "run": run, "at": simple.hours, "loss": number, "acc": None, "slot": slot, "ends": ends,
        }  # fmt: skip
        simple.live.add(version)
        return
    if what == "jump":
        simple.hours += given_[0]
        jump(catalog, model, given_[0])
        return
    with catalog.write() as w:
        if what == "rules":
            retention.set_rules(w, model, given_[0])
            simple.rules = given_[0] or Rules()
            return
        version = given_[0]
        if what == "restore" and version in simple.rows and version not in simple.live:
            trash.restore(w, model, version)
            simple.live.add(version)
            simple.pinned.add(version)
            simple.rows[version] |= {"slot": None, "ends": None}
        elif version in simple.live:
            match what:
                case "metric":
                    checkpoints.update(w, model, version, {"acc": given_[1]}, {})
                    simple.rows[version]["acc"] = given_[1]
                case "upload" if version not in simple.uploads:
                    simple.uploads[version] = new_name()
                    packs.begin(w, simple.uploads[version], 3600, CheckpointName(model, version))
                case "end" if version in simple.uploads:
                    packs.finish(w, simple.uploads.pop(version))
                case "pin":
                    checkpoints.pin(w, model, version, None)
                    simple.pinned.add(version)
                case "unpin":
                    checkpoints.unpin(w, model, version)
                    simple.pinned.discard(version)
                case "alias":
                    aliases.move(w, model, "prod", version, None, None)
                    simple.alias = version


@given(steps=STEPS)
@examples(60)
def test_any_history_keeps_what_a_simple_model_keeps(shared_catalog: Catalog, steps: list) -> None:
    """After each step, everything is tidied as a sweep does. A preview right before says what then happens."""
    catalog, model, simple = shared_catalog, next(_names), Simple()
    for step in [("save", None, None, None, None), *steps]:
        do(catalog, model, simple, *step)
        with catalog.read() as s:
            rules = retention.rules_of(s, model)
            foreseen = retention.verdict_of(s, model, rules, datetime.now(UTC))
        retention.remove_unkept(catalog, model, timedelta(days=7), lambda: None)
        simple.tidy(simple.hours)
        with catalog.read() as s:
            there = {one.version for one in list_checkpoints(s, model, Listing(limit=1000)).items}
            ever = {entry.version: entry.state for entry in history.history(s, model, limit=1000).items}
        assert there == simple.live == set(foreseen.kept)
        assert ever == {version: "live" if version in there else "trashed" for version in simple.rows}


@pytest.fixture
def line(catalog: Catalog) -> ModelName:
    model = ModelName("retention", "line")
    for version in range(1, 4):
        add(catalog, model, run="a", loss=float(version))
    return model


def test_without_rules_and_slots_a_commit_asks_two_questions(catalog: Catalog, line: ModelName) -> None:
    with statements(catalog) as seen, catalog.read() as s:
        assert retention.rules_of(s, line) is None
    assert len(seen) == 2


def test_what_is_held_meanwhile_is_not_removed(catalog: Catalog, line: ModelName) -> None:
    """The look that finds what to remove is not the transaction that removes it."""
    with catalog.write() as w:
        retention.set_rules(w, line, Rules(keep_last=1))

    def hold() -> None:
        with catalog.write() as w:
            checkpoints.pin(w, line, 1, None)
            aliases.move(w, line, "prod", 2, None, None)

    assert retention.remove_unkept(catalog, line, timedelta(days=7), hold) == (0, [])
    assert resolve(catalog, "1", model=line).pin is not None


def test_a_namespace_has_rules_for_models_without_their_own(catalog: Catalog, line: ModelName) -> None:
    other = ModelName(line.namespace, "other")
    for _ in range(2):
        add(catalog, other)
    with catalog.write() as w:
        namespaces.set_retention(w, line.namespace, Rules(keep_last=1))
        retention.set_rules(w, other, Rules(keep_last=5))
    with catalog.read() as s:
        assert retention.rules_of(s, line) == Rules(keep_last=1)
        assert retention.models_to_tidy(s, datetime.now(UTC)) == [line, other]
    for model in (line, other):
        retention.remove_unkept(catalog, model, timedelta(days=7), lambda: None)
    with catalog.write() as w:
        assert [one.version for one in list_checkpoints(w, line, Listing()).items] == [3]
        assert [one.version for one in list_checkpoints(w, other, Listing()).items] == [2, 1]
        assert namespaces.set_retention(w, line.namespace, None).retention is None
        assert retention.rules_of(w, line) is None


def test_what_has_become_the_newest_meanwhile_stays(catalog: Catalog, line: ModelName) -> None:
    with catalog.write() as w:
        retention.set_rules(w, line, Rules(keep_last=1))

    def delete_the_newest() -> None:
        with catalog.write() as w:
            trash.delete_checkpoint(w, line, 3)

    assert retention.remove_unkept(catalog, line, timedelta(days=7), delete_the_newest) == (1, [])
    assert resolve(catalog, "latest", model=line).version == 2
