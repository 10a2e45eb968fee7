"""Damage is marked when it is found, and repaired for all who share the bytes by the next upload of them."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from app.catalog import damage, namespaces
from app.catalog.checkpoints import resolve
from app.catalog.tables import blobs
from app.deliver.service import Deliver
from app.errors import DamagedBlob, PackMissing, StoreError
from app.ingest.body import Chunks
from app.ingest.receive import SpooledUpload
from app.store import LocalPackStore
from app.upkeep.fsck import Fsck
from app.values.checkpoint import Blob, Checkpoint, Fields, ModelName
from app.values.digest import Digest
from app.values.span import Span
from tests.ingest.workplace import MIB, MODEL, Workplace, chunked, torch_file, weights
from tests.upkeep.sweeping import check, delete, sweep_now

SHARED = weights(1, 2)
FIRST = torch_file({"epoch": 1, "shared": SHARED, "own": weights(2, 1.5)})
SECOND = torch_file({"epoch": 2, "shared": SHARED, "own": weights(3, 1.5)})


def file_of(place: Workplace, blob: Blob) -> Path:
    (file,) = place.folder.rglob(f"{blob.pack}.pack")
    return file


def flip(place: Workplace, blob: Blob) -> None:
    with file_of(place, blob).open("r+b") as opened:
        opened.seek(blob.offset + blob.length // 2)
        byte = opened.read(1)[0]
        opened.seek(blob.offset + blob.length // 2)
        opened.write(bytes([byte ^ 8]))


def cut_off(place: Workplace, blob: Blob) -> None:
    with file_of(place, blob).open("r+b") as opened:
        opened.truncate(blob.offset + blob.length // 2)


def lose(place: Workplace, blob: Blob) -> None:
    file_of(place, blob).unlink()


def storage(place: Workplace, checkpoint: Checkpoint) -> Digest:
    digest = place.manifest(checkpoint).storages[0].digest
    assert digest is not None
    return digest


def frame(_: Workplace, checkpoint: Checkpoint) -> Digest:
    return checkpoint.frame


def manifest(_: Workplace, checkpoint: Checkpoint) -> Digest:
    return checkpoint.manifest


def read(place: Workplace, version: int, model: ModelName = MODEL) -> bytes:
    """What a download of the upload is, of a server that has nothing at hand."""
    deliver = Deliver(place.catalog, place.store)
    with place.catalog.read() as s:
        download = deliver.original(resolve(s, model, str(version)))
    received = bytearray()

    async def receive() -> None:
        async for views in download.windows(0, download.size):
            received.extend(b"".join(views))

    try:
        asyncio.run(receive())
    finally:
        deliver.close()
    return bytes(received)


def marked(place: Workplace) -> int:
    with place.catalog.read() as s:
        return damage.count(s)


def blob_of(place: Workplace, digest: Digest, namespace: str = MODEL.namespace) -> Blob:
    return place.blobs([digest], namespace)[digest]


@pytest.mark.parametrize("hurt", [flip, cut_off, lose])
@pytest.mark.parametrize("part", [storage, frame, manifest])
def test_an_upload_of_the_good_bytes_heals_what_a_read_found_damaged_for_all_who_share_it(
    place: Workplace,
    part: Callable[[Workplace, Checkpoint], Digest],
    hurt: Callable[[Workplace, Blob], None],
):
    first = place.upload(FIRST)
    place.upload(SECOND)
    blob = blob_of(place, part(place, first))
    hurt(place, blob)
    with pytest.raises((DamagedBlob, PackMissing)):
        read(place, 1)
    assert marked(place) >= 1
    again = place.upload(FIRST)
    assert again.new_bytes > 0
    assert [read(place, version) for version in (1, 2, 3)] == [FIRST, SECOND, FIRST]
    assert blob_of(place, blob.digest).pack != blob.pack
    assert marked(place) == 0
    fsck = Fsck(place.catalog, place.store, read_data=True)
    left = {finding.kind for finding in fsck.findings()}
    assert left <= {"pack-missing", "pack-size"}  # nobody needs what was there: the next sweep takes it
    assert any(blob.digest in healed for healed in fsck.checked.healed)


def test_only_what_is_damaged_is_stored_again(place: Workplace):
    first = place.upload(FIRST)
    flip(place, blob_of(place, storage(place, first)))
    with pytest.raises(DamagedBlob):
        read(place, 1)
    assert marked(place) == 1
    assert 2 * MIB <= place.upload(FIRST).new_bytes < 2.1 * MIB
    assert place.upload(FIRST).new_bytes == 0


def test_a_marked_blob_is_still_found_and_fails_with_what_is_wrong(place: Workplace):
    first = place.upload(FIRST)
    flip(place, blob_of(place, storage(place, first)))
    for _ in range(3):
        with pytest.raises(DamagedBlob, match="no longer matches"):
            read(place, 1)
    assert [finding.kind for finding in check(place, read_data=False)] == ["blob-damaged"]
    assert [finding.kind for finding in check(place)] == ["blob-damaged"]


@pytest.mark.parametrize("hurt", [cut_off, lose])
def test_bytes_that_are_not_there_are_stored_again_even_if_nobody_missed_them_yet(
    place: Workplace, hurt: Callable[[Workplace, Blob], None]
):
    first = place.upload(FIRST)
    hurt(place, blob_of(place, storage(place, first)))
    place.upload(FIRST)
    assert [read(place, version) for version in (1, 2)] == [FIRST, FIRST]


def test_what_another_namespace_lost_is_not_healed_by_ours(place: Workplace):
    theirs = ModelName("others", "resnet")
    first = place.upload(FIRST, theirs)
    place.upload(FIRST)
    (digest,) = {storage(place, replace(first, model=MODEL))}
    flip(place, blob_of(place, digest, "others"))
    with pytest.raises(DamagedBlob):
        read(place, 1, theirs)
    assert place.upload(FIRST).new_bytes == 0
    assert marked(place) == 1
    place.upload(FIRST, theirs)
    assert read(place, 1, theirs) == FIRST


def test_an_error_that_does_not_come_again_marks_nothing(place: Workplace):
    place.upload(FIRST)

    class Failing(LocalPackStore):
        times = 2

        def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
            data = super().read(name, span)
            if self.times and span.length > MIB:
                self.times -= 1
                return memoryview(bytes(len(data)))
            return data

    failing = replace(place, store=Failing(place.folder, durable=False))
    with pytest.raises(DamagedBlob):
        read(failing, 1)
    assert marked(place) == 0
    assert read(failing, 1) == FIRST


def test_a_store_that_is_not_mounted_has_lost_nothing(place: Workplace, caplog: pytest.LogCaptureFixture):
    place.upload(FIRST)
    packs = place.folder / "packs"
    packs.rename(place.folder / "elsewhere")
    with caplog.at_level(logging.ERROR), pytest.raises(PackMissing):
        read(place, 1)
    assert "could not be marked" in caplog.text
    assert marked(place) == 0
    with pytest.raises(StoreError):
        check(place, mark=True)
    assert marked(place) == 0
    (place.folder / "elsewhere").rename(packs)
    assert read(place, 1) == FIRST


def test_the_pack_of_what_was_healed_goes_like_any_other(place: Workplace):
    first = place.upload(FIRST)
    blob = blob_of(place, storage(place, first))
    lose(place, blob)
    with pytest.raises(PackMissing):
        read(place, 1)
    place.upload(FIRST)
    sweep_now(place)
    assert blob.pack not in place.pack_rows()
    assert check(place) == []
    assert [read(place, version) for version in (1, 2)] == [FIRST, FIRST]


def test_damage_that_nobody_needs_any_more_keeps_no_pack(place: Workplace):
    first = place.upload(FIRST)
    flip(place, blob_of(place, storage(place, first)))
    with pytest.raises(DamagedBlob):
        read(place, 1)
    delete(place, 1)
    sweep_now(place)
    assert place.pack_rows() == {}
    assert marked(place) == 0


def test_compaction_marks_the_damage_it_meets_and_takes_the_pack_once_it_is_healed(place: Workplace):
    place.upload(torch_file({"shared": SHARED, "own": weights(2, 5)}))
    data = torch_file({"shared": SHARED})
    kept = place.upload(data)
    delete(place, 1)
    blob = blob_of(place, storage(place, kept))
    flip(place, blob)
    assert sweep_now(place).damaged == (blob.pack,)
    assert marked(place) == 1
    place.upload(data)
    assert sweep_now(place).damaged == ()
    assert blob.pack not in place.pack_rows()
    assert check(place) == []
    assert [read(place, version) for version in (2, 3)] == [data, data]


def test_of_two_uploads_that_heal_at_once_the_first_does_and_both_are_whole(place: Workplace):
    first = place.upload(FIRST)
    flip(place, blob_of(place, storage(place, first)))
    with pytest.raises(DamagedBlob):
        read(place, 1)

    async def received() -> list[SpooledUpload]:
        return [await place.ingest.receive(Chunks(chunked(FIRST)), len(FIRST)) for _ in range(2)]

    one, two = asyncio.run(received())

    async def committed() -> list[Checkpoint]:
        commits = (asyncio.to_thread(place.ingest.commit, each, MODEL, Fields()) for each in (one, two))
        return list(await asyncio.gather(*commits))

    made = asyncio.run(committed())
    assert sorted(each.new_bytes > 0 for each in made) == [False, True]
    assert [read(place, version) for version in (1, 2, 3)] == [FIRST] * 3
    sweep_now(place)
    assert check(place) == []


def test_a_commit_in_batches_heals_too(place: Workplace):
    data = torch_file({"shared": SHARED, **{str(n): weights(n, 0.005) for n in range(2100)}})
    first = place.upload(data)
    for digest in (storage(place, first), place.manifest(first).storages[-1].digest, first.frame):
        assert digest is not None
        flip(place, blob_of(place, digest))
    check(place, mark=True)
    assert marked(place) == 3
    place.upload(data)
    assert [read(place, version) for version in (1, 2)] == [data, data]
    assert check(place) == []


def test_fsck_marks_only_if_asked_and_takes_marks_from_what_was_restored(place: Workplace):
    first = place.upload(FIRST)
    blob = blob_of(place, storage(place, first))
    backup = file_of(place, blob).read_bytes()
    flip(place, blob)
    assert [finding.kind for finding in check(place)] == ["blob-damaged"]
    assert marked(place) == 0
    assert [finding.kind for finding in check(place, mark=True)] == ["blob-damaged"]
    assert marked(place) == 1
    file_of(place, blob).write_bytes(backup)
    assert [finding.kind for finding in check(place)] == ["blob-marked"]
    assert check(place, mark=True) == []
    assert marked(place) == 0
    assert place.upload(FIRST).new_bytes == 0
    fsck = Fsck(place.catalog, place.store, read_data=False)
    assert list(fsck.findings()) == []
    assert fsck.checked.healed == []  # by no upload


def test_a_reader_that_looked_a_blob_up_before_it_was_healed_reads_the_good_bytes(place: Workplace):
    first = place.upload(FIRST)
    deliver = Deliver(place.catalog, place.store)
    download = deliver.original(first)
    digest = storage(place, first)
    download.stored.reader.locate([digest])
    flip(place, blob_of(place, digest))
    check(place, mark=True)
    place.upload(FIRST)
    assert download.stored.reader.whole(digest) == SHARED.numpy().tobytes()
    deliver.close()


def test_a_row_of_a_wrong_length_is_healed(place: Workplace):
    first = place.upload(FIRST)
    digest = storage(place, first)
    with place.catalog.write() as w:
        w.execute(update(blobs).where(blobs.c.digest == digest).values(length=blobs.c.length - 4))
        namespaces.count(w, MODEL.namespace, stored_bytes=-4)
    with pytest.raises(DamagedBlob):
        read(place, 1)
    place.upload(FIRST)
    assert [read(place, version) for version in (1, 2)] == [FIRST, FIRST]
    assert check(place) == []
