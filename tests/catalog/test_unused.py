"""Blobs and packs without a reference are dropped when their grace is over, and no others."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from app.catalog import Catalog, WriteSession, blobs, checksums, packs, tensor_stats, unfinished, unused
from app.catalog.commit import BATCH, FIRST, NewPack, commit
from app.catalog.pace import Pace
from app.catalog.trash import delete_checkpoint
from app.catalog.unused import Moment
from app.errors import MissingBlobs
from tests.catalog.make import MODEL, begin_pack, count, digest, new_checkpoint, statements

MANY = [digest(f"many {i}") for i in range(2 * BATCH + 1)]
NOW = datetime.now(UTC)
HOUR = 3600


def store(catalog: Catalog, digests: list, *, finished: bool = False) -> NewPack:
    """A sealed pack whose commit ended there."""
    pack = begin_pack(catalog, digests)
    with catalog.write() as w:
        blobs.insert_new(w, MODEL.namespace, packs.seal(w, pack.name, pack.size), pack.blobs)
        if finished:
            packs.finish(w, pack.name)
    return pack


def abandoned(catalog: Catalog) -> tuple[str, ...]:
    with catalog.read() as s:
        return packs.abandoned(s, NOW)


def known(catalog: Catalog, digests: list) -> set:
    with catalog.read() as s:
        return set(blobs.known(s, MODEL.namespace, digests))


def go_on() -> None:
    pass


def mark(catalog: Catalog, now: datetime = NOW) -> int:
    return unused.mark(catalog, Moment.at(now, 0), go_on)


def drop(catalog: Catalog, grace: float, now: datetime = NOW) -> int:
    return unused.drop(catalog, Moment.at(now, grace), go_on)


def delete(catalog: Catalog, version: int) -> None:
    with catalog.write() as w:
        delete_checkpoint(w, MODEL, version)


def test_a_pack_whose_upload_gave_up_is_abandoned_in_short_transactions(catalog: Catalog):
    pack = store(catalog, MANY)
    with statements(catalog) as seen:
        unused.release(catalog, pack.name)
    assert sum(statement.startswith("DELETE") for statement in seen) >= 3
    assert count(catalog, "blobs") == 0
    assert abandoned(catalog) == (pack.name,)


def test_a_blob_in_use_stays_and_keeps_its_pack(catalog: Catalog):
    used, unneeded = digest("used"), digest("unneeded")
    pack = store(catalog, [used, unneeded])
    commit(catalog, new_checkpoint(blobs=[used]), None)
    unused.release(catalog, pack.name)
    assert known(catalog, [used, unneeded]) == {used}
    assert abandoned(catalog) == ()
    assert mark(catalog) == drop(catalog, 0) == 0


def test_other_packs_are_left_alone(catalog: Catalog):
    ours, _ = store(catalog, [digest("a")]), store(catalog, [digest("b")])
    unused.release(catalog, ours.name)
    assert abandoned(catalog) == (ours.name,)
    assert count(catalog, "blobs") == 1


def test_a_deleted_checkpoint_takes_only_what_no_other_refers_to(catalog: Catalog):
    first, second = [digest("both"), digest("first")], [digest("both"), digest("second")]
    commit(catalog, new_checkpoint(blobs=first), begin_pack(catalog, first))
    commit(catalog, new_checkpoint(blobs=second), begin_pack(catalog, second))
    delete(catalog, 1)
    assert mark(catalog) == 1
    assert drop(catalog, 0) == 1
    assert known(catalog, [*first, *second]) == set(second)


def test_a_blob_goes_when_its_grace_is_over_and_not_before(catalog: Catalog):
    commit(catalog, new_checkpoint(blobs=[digest("a")]), begin_pack(catalog, [digest("a")]))
    delete(catalog, 1)
    assert mark(catalog) == 1
    assert mark(catalog, NOW + timedelta(seconds=HOUR)) == 0
    assert drop(catalog, HOUR, NOW + timedelta(seconds=HOUR - 1)) == 0
    assert drop(catalog, HOUR, NOW + timedelta(seconds=HOUR)) == 1


def test_the_grace_begins_anew_when_a_blob_was_used_in_between(catalog: Catalog):
    commit(catalog, new_checkpoint(blobs=[digest("a")]), begin_pack(catalog, [digest("a")]))
    delete(catalog, 1)
    mark(catalog)
    commit(catalog, new_checkpoint(blobs=[digest("a")]), None)
    delete(catalog, 2)
    assert drop(catalog, HOUR, NOW + timedelta(seconds=HOUR)) == 0
    assert mark(catalog, NOW + timedelta(seconds=HOUR)) == 1


def test_many_blobs_go_in_short_transactions_with_their_checksums_and_statistics(catalog: Catalog):
    commit(catalog, new_checkpoint(blobs=MANY), begin_pack(catalog, MANY))
    kept = digest("kept")
    commit(catalog, new_checkpoint(blobs=[kept]), begin_pack(catalog, [kept]))
    with catalog.write() as w:
        checksums.put(w, MODEL.namespace, [checksums.Checksum(f"{each}[0:1]", each, 1) for each in [*MANY, kept]])
        tensor_stats.put(w, MODEL.namespace, [tensor_stats.KeptStats(each, each, "{}") for each in [MANY[0], kept]])
    delete(catalog, 1)
    unfinished.drop(catalog, None, go_on)
    with statements(catalog) as seen:
        assert mark(catalog) == drop(catalog, 0) == len(MANY)
    assert sum(statement.startswith("DELETE FROM blobs") for statement in seen) >= 3
    with catalog.read() as s:
        assert set(checksums.get(s, MODEL.namespace, [f"{each}[0:1]" for each in [*MANY, kept]])) == {f"{kept}[0:1]"}
        assert set(tensor_stats.get(s, MODEL.namespace, [MANY[0], kept])) == {kept}
    assert count(catalog, "blobs") == 1


def test_blobs_whose_commit_may_run_still_are_not_looked_at(catalog: Catalog):
    store(catalog, [digest("running")])
    store(catalog, [digest("ended")], finished=True)
    assert mark(catalog) == drop(catalog, 0) == 1
    assert known(catalog, [digest("running"), digest("ended")]) == {digest("running")}


def test_a_commit_that_relied_on_a_blob_that_went_hears_of_it_and_is_not_there(catalog: Catalog):
    store(catalog, [digest("a")], finished=True)
    mark(catalog)
    drop(catalog, 0)
    with pytest.raises(MissingBlobs) as missing:
        commit(catalog, new_checkpoint(blobs=[digest("a")]), None)
    assert missing.value.digests == (digest("a"),)
    assert count(catalog, "checkpoints") == 0


class Interrupted(Catalog):
    """After each of its batches, a sweep without a grace runs elsewhere."""

    @contextmanager
    def turn(self, namespace: str | None = None, pace: Pace | None = None) -> Iterator[WriteSession]:
        with super().turn(namespace, pace) as w:
            yield w
        with closing(Catalog(self.url, durable=False)) as elsewhere:
            mark(elsewhere)
            drop(elsewhere, 0)

    def __init__(self, url: str) -> None:
        super().__init__(url, durable=False)
        self.url = url


def test_a_sweep_between_the_batches_of_a_commit_takes_nothing_of_it(database_url: str):
    with closing(Interrupted(database_url)) as catalog:
        commit(catalog, new_checkpoint(blobs=MANY), begin_pack(catalog, MANY))
        assert known(catalog, MANY) == set(MANY)
        assert count(catalog, "checkpoint_blobs") == len(MANY)


def test_a_sweep_between_batches_takes_what_is_not_referred_to_yet_and_the_commit_names_it(database_url: str):
    with closing(Interrupted(database_url)) as catalog:
        store(catalog, MANY, finished=True)
        with pytest.raises(MissingBlobs) as missing:
            commit(catalog, new_checkpoint(blobs=MANY), None)
        assert missing.value.digests == tuple(sorted(MANY)[FIRST:])
        assert count(catalog, "checkpoints") == 0


def test_what_would_be_dropped_is_counted_without_marking_it(catalog: Catalog):
    store(catalog, [digest("a"), digest("b")], finished=True)
    store(catalog, [digest("c")])
    with catalog.read() as s:
        assert unused.count(s, Moment.at(NOW, 0)) == 2
        assert unused.count(s, Moment.at(NOW, HOUR)) == 0
    assert [use.live for use in unused.usage(catalog, Moment.at(NOW, 0))] == [0]
    assert [use.live for use in unused.usage(catalog, Moment.at(NOW, HOUR))] == [200]
    mark(catalog, NOW - timedelta(seconds=HOUR))
    with catalog.read() as s:
        assert unused.count(s, Moment.at(NOW, HOUR)) == 2
