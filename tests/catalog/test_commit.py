import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from math import inf, isnan, nan

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from app.catalog import Catalog, blobs, models, packs
from app.catalog import commit as commit_module
from app.catalog.commit import NewPack, commit
from app.catalog.tables import blobs as blobs_table
from app.catalog.tables import packs as packs_table
from app.catalog.trash import delete_checkpoint
from app.errors import InvalidRequest, MissingBlobs, NotFound, StoreError
from app.values.checkpoint import ModelName
from tests.catalog.make import MODEL, add, begin_pack, count, digest, new_checkpoint, resolve, statements

FEW = [digest(f"few {i}") for i in range(5)]
MANY = [digest(f"many {i}") for i in range(commit_module.BATCH + 1)]
EITHER = pytest.mark.parametrize("digests", [FEW, MANY], ids=["in one transaction", "in batches"])


def test_what_is_committed_is_what_is_found(catalog: Catalog):
    new = new_checkpoint(
        run="night", epoch=3, step=-1, loss=0.1, metrics={"b": 2.0, "a": 1e-300}, tags={"z": "é", "a": ""}, blobs=FEW
    )
    committed = commit(catalog, new, begin_pack(catalog, FEW))
    assert resolve(catalog, "latest") == committed
    assert (committed.version, committed.more_components, committed.aliases) == (1, 0, ())
    assert (committed.pin, committed.expires_at, committed.thinned_at, committed.removal) == (None, None, None, None)
    given = {field.name for field in dataclasses.fields(new)}
    for field in dataclasses.fields(committed):
        if field.name in given:
            assert getattr(committed, field.name) == getattr(new, field.name)


def test_numbers_that_are_not_finite_are_kept(catalog: Catalog):
    add(catalog, loss=nan, metrics={"up": inf, "down": -inf, "nan": nan})
    found = resolve(catalog, "1")
    assert found.loss is not None
    assert isnan(found.loss)
    assert (found.metrics["up"], found.metrics["down"], isnan(found.metrics["nan"])) == (inf, -inf, True)


def test_param_groups_stay_in_the_manifest(catalog: Catalog):
    (component,) = new_checkpoint().components
    add(catalog, components=(dataclasses.replace(component, kind="optimizer", param_groups="[]"),))
    assert resolve(catalog, "1").components[0].param_groups is None


@EITHER
def test_new_blobs_are_known_once_their_checkpoint_is_there(catalog: Catalog, digests: list):
    pack = begin_pack(catalog, digests)
    with catalog.read() as s:
        assert blobs.known(s, "vision", digests) == {}
    commit(catalog, new_checkpoint(blobs=digests), pack)
    with catalog.read() as s:
        assert blobs.known(s, "vision", [*digests, digest("other")]) == {blob.digest: blob for blob in pack.blobs}
        assert blobs.known(s, "text", digests) == {}
        assert packs.abandoned(s, datetime.max.replace(tzinfo=UTC)) == ()
    assert count(catalog, "checkpoint_blobs") == len(digests)


@EITHER
def test_a_blob_that_has_gone_is_named_and_nothing_is_left(catalog: Catalog, digests: list):
    gone = (digest("gone"), digest("gone too"))
    pack = begin_pack(catalog, digests)
    with pytest.raises(MissingBlobs) as missing:
        commit(catalog, new_checkpoint(blobs=(gone[0], *digests, gone[1])), pack)
    assert set(missing.value.digests) == set(gone)
    for table in ("models", "checkpoints", "checkpoint_blobs", "metrics", "tags"):
        assert count(catalog, table) == 0
    with pytest.raises(NotFound):
        resolve(catalog, "latest")
    again = begin_pack(catalog, [*digests, *gone])
    assert commit(catalog, new_checkpoint(blobs=(*digests, *gone)), again).version == 1


@EITHER
def test_a_commit_may_be_tried_again_with_the_same_pack(catalog: Catalog, digests: list):
    pack = begin_pack(catalog, digests)
    gone = digest("gone")
    with pytest.raises(MissingBlobs):
        commit(catalog, new_checkpoint(blobs=(*digests, gone)), pack)
    other = ModelName("vision", "other")
    commit(catalog, new_checkpoint(other, blobs=(gone,)), begin_pack(catalog, [gone]))
    assert commit(catalog, new_checkpoint(blobs=(*digests, gone)), pack).version == 1


@EITHER
@pytest.mark.parametrize("length", [99, 101, 0])
def test_a_blob_of_another_length_is_not_there(catalog: Catalog, digests: list, length: int):
    commit(catalog, new_checkpoint(blobs=digests), begin_pack(catalog, digests))
    lying = dataclasses.replace(new_checkpoint(), blobs={**dict.fromkeys(digests, 100), digests[1]: length})
    with pytest.raises(MissingBlobs) as missing:
        commit(catalog, lying, None)
    assert missing.value.digests == (digests[1],)
    assert count(catalog, "checkpoints") == 1
    with catalog.read() as s:
        assert set(blobs.stored(s, "vision", lying.blobs)) == {*digests} - {digests[1]}


def test_a_checkpoint_of_known_blobs_needs_no_pack_and_forgets_the_one_it_began(catalog: Catalog):
    commit(catalog, new_checkpoint(blobs=FEW), begin_pack(catalog, FEW))
    began = begin_pack(catalog, [])
    assert commit(catalog, new_checkpoint(blobs=FEW), None, forget_pack=began.name).version == 2
    assert count(catalog, "packs") == 1


def test_the_first_of_two_equal_blobs_wins_and_both_checkpoints_refer_to_it(catalog: Catalog):
    first, second = begin_pack(catalog, FEW), begin_pack(catalog, [*FEW, digest("more")])
    commit(catalog, new_checkpoint(blobs=FEW), first)
    commit(catalog, new_checkpoint(blobs=(*FEW, digest("more"))), second)
    with catalog.read() as s:
        known = blobs.known(s, "vision", [*FEW, digest("more")])
    assert [known[each].pack for each in FEW] == [first.name] * len(FEW)
    assert known[digest("more")].pack == second.name
    assert count(catalog, "checkpoint_blobs") == 2 * len(FEW) + 1


def test_namespaces_share_no_blobs(catalog: Catalog):
    commit(catalog, new_checkpoint(blobs=FEW), begin_pack(catalog, FEW))
    with pytest.raises(MissingBlobs):
        commit(catalog, new_checkpoint(ModelName("text", "bert"), blobs=FEW), None)


def test_the_database_keeps_a_blob_that_is_in_use(catalog: Catalog):
    commit(catalog, new_checkpoint(blobs=FEW), begin_pack(catalog, FEW))
    for table in (blobs_table, packs_table):
        with pytest.raises((IntegrityError, StoreError)), catalog.write() as w:
            w.execute(delete(table))


@EITHER
def test_a_pack_whose_lease_ran_out_cannot_be_committed(catalog: Catalog, digests: list):
    pack = begin_pack(catalog, digests, lease_seconds=-1)
    with pytest.raises(StoreError) as late:
        commit(catalog, new_checkpoint(blobs=digests), pack)
    assert late.value.code == "pack-lease-expired"
    assert count(catalog, "models") == count(catalog, "blobs") == 0


def test_a_pack_that_was_never_announced_cannot_be_committed(catalog: Catalog):
    with pytest.raises(StoreError):
        commit(catalog, new_checkpoint(blobs=FEW), NewPack("unheard-of", 0, ()))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"epoch": 2**63}, "bad-number"),
        ({"step": -(2**70)}, "bad-number"),
        ({"run": "a\0"}, "bad-text"),
        ({"metrics": {"\ud800": 1.0}}, "bad-text"),
        ({"metrics": {"": 1.0}}, "bad-metric"),
        ({"metrics": {"loss": 1.0}}, "bad-metric"),
        ({"tags": {"a": "\0"}}, "bad-text"),
        ({"tags": {"": "b"}}, "bad-tag"),
    ],
)
@EITHER
def test_what_no_database_keeps_is_refused_and_nothing_is_left(
    catalog: Catalog, digests: list, fields: dict, code: str
):
    with pytest.raises(InvalidRequest) as refused:
        commit(catalog, new_checkpoint(blobs=digests, **fields), begin_pack(catalog, digests))
    assert refused.value.code == code
    assert count(catalog, "models") == count(catalog, "checkpoints") == count(catalog, "blobs") == 0


def test_versions_are_never_used_again(catalog: Catalog):
    first, second = add(catalog), add(catalog)
    with catalog.write() as w:
        delete_checkpoint(w, MODEL, 2)
        delete_checkpoint(w, MODEL, 1)
    with pytest.raises(NotFound, match="has no checkpoints"):
        resolve(catalog, "latest")
    third = add(catalog)
    assert third.version == 3
    assert third.id not in {first.id, second.id}


def test_uploads_at_the_same_time_each_get_a_version_of_their_own(database_url: str):
    """Two processes' worth of catalogs on one database, several threads each, all of them uploading the same bytes."""
    catalogs = [Catalog(database_url, durable=False) for _ in range(2)]
    together = threading.Barrier(6)

    def upload(thread: int) -> list[int]:
        catalog = catalogs[thread % 2]
        together.wait()
        versions = []
        for i in range(10):
            digests = [*FEW, digest(f"{thread} {i}")]
            versions.append(
                commit(catalog, new_checkpoint(epoch=1, blobs=digests), begin_pack(catalog, digests)).version
            )
            resolve(catalog, "epoch:1")
        return versions

    with ThreadPoolExecutor(6) as pool:
        drawn = list(pool.map(upload, range(6)))
    assert all(versions == sorted(versions) for versions in drawn)
    assert sorted(version for versions in drawn for version in versions) == list(range(1, 61))
    assert count(catalogs[0], "blobs") == len(FEW) + 60
    assert count(catalogs[0], "checkpoint_blobs") == 60 * (len(FEW) + 1)
    with catalogs[1].read() as s:
        assert models.get_model(s, MODEL).checkpoints == 60
    for catalog in catalogs:
        catalog.close()


@EITHER
def test_a_pack_whose_blobs_were_all_stored_by_others_first_is_abandoned(catalog: Catalog, digests: list):
    commit(catalog, new_checkpoint(blobs=digests), begin_pack(catalog, digests))
    late = begin_pack(catalog, digests)
    committed = commit(catalog, new_checkpoint(blobs=digests), late)
    assert (committed.version, committed.new_bytes) == (2, 0)
    assert resolve(catalog, "latest") == committed
    with catalog.read() as s:
        assert packs.abandoned(s, datetime.now(UTC)) == (late.name,)


@EITHER
def test_a_pack_of_which_one_blob_was_needed_is_kept(catalog: Catalog, digests: list):
    commit(catalog, new_checkpoint(blobs=digests[1:]), begin_pack(catalog, digests[1:]))
    assert commit(catalog, new_checkpoint(blobs=digests), begin_pack(catalog, digests)).new_bytes == 400
    with catalog.read() as s:
        assert packs.abandoned(s, datetime.max.replace(tzinfo=UTC)) == ()


def test_a_checkpoint_of_many_blobs_is_invisible_until_it_is_whole(catalog: Catalog):
    pack = begin_pack(catalog, MANY)
    with catalog.write() as w:
        blobs.insert_new(w, "vision", packs.seal(w, pack.name, pack.size), pack.blobs)
        commit_module._insert(w, new_checkpoint(blobs=MANY))
    with catalog.read() as s:
        assert models.list_models(s).items == ()
    with pytest.raises(NotFound) as missing:
        resolve(catalog, "latest")
    assert missing.value.code == "model-not-found"
    add(catalog)
    assert resolve(catalog, "latest").version == 1


def test_commits_of_few_blobs_take_the_same_statements_however_many_they_are(catalog: Catalog):
    add(catalog)  # the first in a namespace inserts its row
    counts = []
    for size in (2, 500):
        digests = [digest(f"{size} {i}") for i in range(size)]
        pack = begin_pack(catalog, digests)
        metrics = {f"m{i}": 1.0 for i in range(size)}
        with statements(catalog) as seen:
            commit(catalog, new_checkpoint(blobs=digests, metrics=metrics, tags={"a": "b"}), pack)
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 13
