"""What no checkpoint refers to is let go of, and nothing that one does."""

import pytest

from app.catalog import Catalog, blobs, checkpoints, packs, unused
from app.catalog.commit import BATCH, NewPack, commit
from tests.catalog.make import MODEL, begin_pack, count, digest, new_checkpoint, statements

MANY = [digest(f"many {i}") for i in range(2 * BATCH + 1)]


def store(catalog: Catalog, digests: list) -> NewPack:
    """A sealed pack whose commit ended there."""
    pack = begin_pack(catalog, digests)
    with catalog.write() as w:
        blobs.insert_new(w, MODEL.namespace, packs.seal(w, pack.name, pack.size), pack.blobs)
    return pack


def abandoned(catalog: Catalog) -> tuple[str, ...]:
    with catalog.read() as s:
        return packs.abandoned(s)


@pytest.mark.parametrize("of_that_pack", [True, False])
def test_a_pack_that_nobody_refers_to_is_abandoned_in_short_transactions(catalog: Catalog, of_that_pack: bool):
    pack = store(catalog, MANY)
    with statements(catalog) as seen:
        unused.release(catalog, pack.name if of_that_pack else None)
    assert sum(statement.startswith("DELETE") for statement in seen) == 3
    assert count(catalog, "blobs") == 0
    assert abandoned(catalog) == (pack.name,)


def test_a_blob_in_use_stays_and_keeps_its_pack(catalog: Catalog):
    used, unneeded = digest("used"), digest("unneeded")
    pack = store(catalog, [used, unneeded])
    commit(catalog, new_checkpoint(blobs=[used]), None)
    unused.release(catalog, pack.name)
    unused.release(catalog)
    with catalog.read() as s:
        assert set(blobs.known(s, MODEL.namespace, [used, unneeded])) == {used}
    assert abandoned(catalog) == ()


def test_other_packs_are_left_alone_when_one_is_named(catalog: Catalog):
    ours, theirs = store(catalog, [digest("a")]), store(catalog, [digest("b")])
    unused.release(catalog, ours.name)
    assert abandoned(catalog) == (ours.name,)
    assert count(catalog, "blobs") == 1
    unused.release(catalog)
    assert abandoned(catalog) == (ours.name, theirs.name)


def test_a_deleted_checkpoint_takes_only_what_no_other_refers_to(catalog: Catalog):
    first, second = [digest("both"), digest("first")], [digest("both"), digest("second")]
    commit(catalog, new_checkpoint(blobs=first), begin_pack(catalog, first))
    commit(catalog, new_checkpoint(blobs=second), begin_pack(catalog, second))
    with catalog.write() as w:
        checkpoints.delete(w, MODEL, 1)
    unused.release(catalog)
    with catalog.read() as s:
        assert set(blobs.known(s, MODEL.namespace, [*first, *second])) == set(second)
