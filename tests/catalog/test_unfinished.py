"""Rows of checkpoints that are none are dropped in short transactions, whatever interrupts them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from app.catalog import Catalog, trash, unfinished, unused
from app.catalog import commit as commit_module
from app.catalog.commit import commit
from app.catalog.tables import checkpoint_blobs, checkpoints
from app.catalog.unused import Moment
from app.errors import StoreError
from tests.catalog.make import MODEL, add, begin_pack, count, digest, new_checkpoint, resolve, statements

MANY = [digest(f"blob {number}") for number in range(unfinished.AT_ONCE + 500)]


def large(catalog: Catalog) -> int:
    """Commit a checkpoint with more references than one transaction drops, and return its version."""
    return commit(catalog, new_checkpoint(blobs=MANY), begin_pack(catalog, MANY)).version


def purge(catalog: Catalog, *versions: int) -> None:
    for version in versions:
        with catalog.write() as w:
            trash.delete_checkpoint(w, MODEL, version)


class Stop(Exception):
    pass


def test_a_purged_checkpoint_with_many_blobs_is_gone_at_once_and_its_references_go_in_steps(catalog: Catalog):
    add(catalog)
    purge(catalog, large(catalog))
    assert resolve(catalog, "latest").version == 1
    assert count(catalog, "checkpoint_blobs") == len(MANY)
    with catalog.read() as s:
        assert unfinished.count(s, datetime.now(UTC)) == 0
    steps = []
    assert unfinished.drop(catalog, datetime.now(UTC) - timedelta(days=1), lambda: steps.append(1)) == 0
    assert len(steps) > 2
    assert (count(catalog, "checkpoint_blobs"), count(catalog, "checkpoints")) == (0, 1)


def test_a_checkpoint_that_is_purged_during_a_sweep_waits_for_the_next(catalog: Catalog):
    first, second = large(catalog), large(catalog)
    purge(catalog, first)
    steps = []

    def go_on() -> None:
        steps.append(count(catalog, "checkpoint_blobs"))
        if steps[-1] == len(MANY) and count(catalog, "checkpoints") == 2:
            purge(catalog, second)

    unfinished.drop(catalog, datetime.now(UTC) - timedelta(days=1), go_on)
    assert count(catalog, "checkpoint_blobs") == len(MANY)
    unfinished.drop(catalog, datetime.now(UTC) - timedelta(days=1), lambda: None)
    assert (count(catalog, "checkpoint_blobs"), count(catalog, "checkpoints")) == (0, 0)


def test_a_dry_run_counts_the_blobs_of_what_is_set_aside(catalog: Catalog):
    purge(catalog, large(catalog))
    with catalog.read() as s:
        moment = replace(Moment.at(datetime.now(UTC) + timedelta(days=2), 0), purged=datetime.now(UTC))
        assert unused.count(s, moment) == len(MANY)


@pytest.mark.parametrize("after", [1, 2, 4])
def test_what_was_dropped_in_part_is_dropped_by_the_next_sweep(catalog: Catalog, after: int):
    kept = add(catalog)
    purge(catalog, large(catalog))
    left = iter(range(after))

    def go_on() -> None:
        if next(left, None) is None:
            raise Stop

    with pytest.raises(Stop):
        unfinished.drop(catalog, datetime.now(UTC) - timedelta(days=1), go_on)
    assert count(catalog, "checkpoints") == 2
    unfinished.drop(catalog, datetime.now(UTC) - timedelta(days=1), lambda: None)
    assert (count(catalog, "checkpoint_blobs"), count(catalog, "checkpoints")) == (0, 1)
    assert resolve(catalog, "latest") == kept


def test_a_commit_whose_row_was_set_aside_does_not_become_visible(catalog: Catalog):
    """It took longer than anybody would believe."""
    new = new_checkpoint()
    with catalog.write() as w:
        checkpoint_id = commit_module._insert(w, new)
        w.execute(update(checkpoints).values(created_at=0))
    with catalog.write() as w:
        drawn, version = commit_module._draw_version(w, new)
        with pytest.raises(StoreError, match="removed the commit as interrupted"):
            commit_module._make_visible(w, checkpoint_id, drawn, version)
    assert count(catalog, "checkpoints") == 1


def test_what_is_in_the_trash_is_not_set_aside(catalog: Catalog):
    version = large(catalog)
    with catalog.write() as w:
        trash.delete_checkpoint(w, MODEL, version, kept=timedelta(days=7))
    assert unfinished.drop(catalog, None, lambda: None) == 0
    with catalog.write() as w:
        trash.restore(w, MODEL, version)
    with catalog.read() as s:
        assert s.select(select(func.count()).select_from(checkpoint_blobs)).scalar() == len(MANY)


def test_purging_many_takes_the_statements_of_one(catalog: Catalog):
    seen = []
    for number in (1, 10):
        for _ in range(number):
            version = add(catalog, metrics={"acc": 1.0}, tags={"a": "b"}).version
            with catalog.write() as w:
                trash.delete_checkpoint(w, MODEL, version, kept=timedelta(microseconds=1))
        with statements(catalog) as now:
            assert trash.purge(catalog, datetime.now(UTC) + timedelta(days=1), lambda: None) == number
        seen.append(len(now))
    assert seen[0] == seen[1]
