from datetime import UTC, datetime, timedelta

import pytest

from app.catalog import Catalog, blobs, checksums, packs, tensor_stats, unused
from app.catalog.commit import BATCH, commit
from app.catalog.unused import Moment
from app.errors import StoreError
from app.values.checkpoint import ModelName
from tests.catalog.make import MODEL, begin_pack, count, digest, new_checkpoint, statements


def test_a_pack_is_abandoned_when_its_lease_has_run_out(catalog: Catalog):
    late, alive = begin_pack(catalog, [], lease_seconds=60), begin_pack(catalog, [], lease_seconds=3600)
    sealed = begin_pack(catalog, [digest("a")], lease_seconds=60)
    commit(catalog, new_checkpoint(blobs=[digest("a")]), sealed)
    now = datetime.now(UTC)
    with catalog.read() as s:
        assert packs.abandoned(s, now) == ()
        assert packs.abandoned(s, now + timedelta(minutes=2)) == (late.name,)
        assert packs.abandoned(s, now + timedelta(hours=2)) == (late.name, alive.name)


def test_a_pack_that_was_given_up_cannot_be_sealed_whatever_its_writer_s_clock_says(catalog: Catalog):
    pack = begin_pack(catalog, [digest("a")], lease_seconds=3600)
    with catalog.write() as w:
        assert packs.give_up(w, datetime.now(UTC) + timedelta(hours=2), [pack.name]) == (pack.name,)
    with pytest.raises(StoreError, match="lease"):
        commit(catalog, new_checkpoint(blobs=[digest("a")]), pack)


def test_a_pack_is_finished_when_its_commit_has_ended_and_not_before(catalog: Catalog):
    digests = [digest(str(i)) for i in range(BATCH + 1)]
    running, ended = begin_pack(catalog, digests), begin_pack(catalog, digests)
    with catalog.write() as w:
        packs.seal(w, running.name, running.size)
    commit(catalog, new_checkpoint(blobs=digests), ended)
    assert [use.name for use in unused.usage(catalog, Moment.at(datetime.now(UTC), 0))] == [ended.name]


def test_a_sealed_pack_is_not_forgotten(catalog: Catalog):
    pack, began = begin_pack(catalog, [digest("a")]), begin_pack(catalog, [])
    commit(catalog, new_checkpoint(blobs=[digest("a")]), pack)
    with catalog.write() as w:
        assert packs.forget(w, began.name)
        assert not packs.forget(w, began.name)
        assert not packs.forget(w, pack.name)
    with catalog.read() as s:
        assert digest("a") in blobs.known(s, "vision", [digest("a")])


def test_any_number_of_blobs_is_found_in_one_statement(catalog: Catalog):
    stored = [digest(str(i)) for i in range(3000)]
    pack = begin_pack(catalog, stored)
    commit(catalog, new_checkpoint(blobs=stored), pack)
    asked = [digest(str(i)) for i in range(100_000)]
    with statements(catalog) as seen, catalog.read() as s:
        assert blobs.known(s, "vision", asked) == {blob.digest: blob for blob in pack.blobs}
        assert blobs.known(s, "vision", []) == {}
    assert len(seen) == 2


def test_a_checksum_is_kept_for_its_namespace_and_the_first_stays(catalog: Catalog):
    blob = digest("blob")
    for model in (MODEL, ModelName("text", "bert")):
        commit(catalog, new_checkpoint(model, blobs=[blob]), begin_pack(catalog, [blob]))
    with catalog.write() as w:
        checksums.put(w, "vision", [derived("a", 2**32 - 1), derived("b", 2)])
        checksums.put(w, "vision", [derived("a", 3), derived("c", 4)])
        checksums.put(w, "text", [derived("a", 5)])
        checksums.put(w, "text", [])
    with statements(catalog) as seen, catalog.read() as s:
        assert checksums.get(s, "vision", ["a", "b", "c", "d"]) == {"a": 2**32 - 1, "b": 2, "c": 4}
        assert checksums.get(s, "text", ["a", "b"]) == {"a": 5}
    assert len(seen) == 2


def test_no_checksum_is_kept_of_a_blob_that_has_gone(catalog: Catalog):
    with catalog.write() as w:
        checksums.put(w, "vision", [derived("a", 1)])
    assert count(catalog, "checksums") == 0


def test_statistics_are_kept_for_their_namespace_while_their_blob_is_there_and_the_first_stay(catalog: Catalog):
    blob = digest("blob")
    commit(catalog, new_checkpoint(MODEL, blobs=[blob]), begin_pack(catalog, [blob]))
    with catalog.write() as w:
        kept = [
            tensor_stats.KeptStats(key, digest(of), key) for key, of in (("a", "blob"), ("b", "blob"), ("c", "gone"))
        ]
        tensor_stats.put(w, "vision", kept)
        tensor_stats.put(w, "vision", [tensor_stats.KeptStats("a", blob, "another")])
    with statements(catalog) as seen, catalog.read() as s:
        assert tensor_stats.get(s, "vision", ["a", "b", "c"]) == {"a": "a", "b": "b"}
        assert tensor_stats.get(s, "text", ["a"]) == {}
    assert len(seen) == 2


def derived(key: str, crc32: int) -> checksums.Checksum:
    return checksums.Checksum(key, digest("blob"), crc32)
