from datetime import UTC, datetime, timedelta

from app.catalog import Catalog, blobs, checksums, packs
from app.catalog.commit import commit
from tests.catalog.make import begin_pack, digest, new_checkpoint, statements


def test_a_pack_is_abandoned_when_its_lease_has_run_out(catalog: Catalog):
    late, alive = begin_pack(catalog, [], lease_seconds=60), begin_pack(catalog, [], lease_seconds=3600)
    sealed = begin_pack(catalog, [digest("a")], lease_seconds=60)
    commit(catalog, new_checkpoint(blobs=[digest("a")]), sealed)
    now = datetime.now(UTC)
    with catalog.read() as s:
        assert packs.abandoned(s, now) == ()
        assert packs.abandoned(s, now + timedelta(minutes=2)) == (late.name,)
        assert packs.abandoned(s) == (late.name, alive.name)


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
    assert len(seen) == 3  # begin, and one each


def test_a_checksum_is_kept_for_its_namespace_and_the_first_stays(catalog: Catalog):
    with catalog.write() as w:
        checksums.put(w, "vision", {"a": 2**32 - 1, "b": 2})
        checksums.put(w, "vision", {"a": 3, "c": 4})
        checksums.put(w, "text", {"a": 5})
        checksums.put(w, "text", {})
    with statements(catalog) as seen, catalog.read() as s:
        assert checksums.get(s, "vision", ["a", "b", "c", "d"]) == {"a": 2**32 - 1, "b": 2, "c": 4}
        assert checksums.get(s, "text", ["a", "b"]) == {"a": 5}
    assert len(seen) == 3
