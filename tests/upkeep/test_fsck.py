"""fsck finds and names each thing that can be wrong, changes nothing, and raises no false alarm."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete as delete_rows
from sqlalchemy import insert, select, update

from app.catalog import packs as catalog_packs
from app.catalog.checkpoints import resolve
from app.catalog.tables import blobs, checkpoint_blobs, checkpoints, models, namespaces, packs, runs
from app.upkeep.fsck import Fsck
from app.values.checkpoint import ModelName
from tests.ingest.workplace import MODEL, Workplace, torch_file, weights
from tests.upkeep.sweeping import check, delete, sweep_now


@pytest.fixture
def filled(place: Workplace) -> Workplace:
    """Two checkpoints of one model that share a storage, and one of another model."""
    shared = weights(1)
    place.upload(torch_file({"shared": shared, "own": weights(2)}))
    place.upload(torch_file({"shared": shared, "own": weights(3)}))
    place.upload(torch_file({"w": weights(4)}), ModelName("text", "bert"))
    return place


def kinds(place: Workplace, *, read_data: bool = True) -> list[str]:
    return [finding.kind for finding in check(place, read_data=read_data)]


def pack_files(place: Workplace) -> list[Path]:
    return sorted(place.folder.rglob("*.pack"))


def rewrite(place: Workplace, *statements) -> None:
    with place.catalog.write() as w:
        for statement in statements:
            w.execute(statement)


def test_what_is_whole_is_found_whole_and_all_of_it_is_looked_at(filled: Workplace):
    before = filled.contents()
    fsck = Fsck(filled.catalog, filled.store, read_data=True)
    assert list(fsck.findings()) == []
    assert (fsck.checked.packs, fsck.checked.checkpoints, fsck.checked.blobs) == (3, 3, 4 + 3 * 2)
    assert 4 * 2**20 < fsck.checked.read_bytes <= filled.bytes_stored()
    assert filled.contents() == before


def test_an_empty_place_is_well(place: Workplace):
    assert check(place) == []


def test_without_reading_data_no_more_than_the_manifests_is_read(filled: Workplace):
    fsck = Fsck(filled.catalog, filled.store, read_data=False)
    assert list(fsck.findings()) == []
    assert fsck.checked.read_bytes == 0


def test_a_lost_pack_is_named_with_the_checkpoints_whose_manifests_went(filled: Workplace):
    lost = pack_files(filled)[0]
    lost.unlink()
    found = check(filled, read_data=False)
    assert ("pack-missing", lost.stem) in {(finding.kind, finding.what) for finding in found}
    assert [finding.kind for finding in found].count("checkpoint-broken") == 1


@pytest.mark.parametrize("change", [-1, 1])
def test_a_pack_of_another_size_is_named(filled: Workplace, change: int):
    file = pack_files(filled)[0]
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size + change)
    assert "pack-size" in kinds(filled, read_data=False)


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_bit_of_a_blob_is_found_when_data_is_read_and_its_users_are_named(filled: Workplace, where: str):
    digest = filled.manifest(resolved(filled, MODEL, 1)).storages[0].digest
    blob = filled.blobs([digest])[digest]
    at = {"first": 0, "middle": blob.length // 2, "last": blob.length - 1}[where]
    (file,) = filled.folder.rglob(f"{blob.pack}.pack")
    with file.open("r+b") as opened:
        opened.seek(blob.offset + at)
        byte = opened.read(1)
        opened.seek(blob.offset + at)
        opened.write(bytes([byte[0] ^ 16]))
    assert kinds(filled, read_data=False) == []
    (finding,) = check(filled)
    assert (finding.kind, finding.what) == ("blob-damaged", f"vision {digest}")
    assert "vision/resnet@1, vision/resnet@2" in finding.detail


def resolved(place: Workplace, model: ModelName, version: int):
    with place.catalog.read() as s:
        return resolve(s, model, str(version))


def test_packs_and_parts_that_the_catalog_does_not_know_are_named_and_stay(filled: Workplace):
    filled.store.write("unknown1", [b"x" * 10])
    part = filled.folder / "packs" / "un" / "unknown2.part"
    part.write_bytes(b"half")
    sealed = pack_files(filled)[0]
    (beside := sealed.with_suffix(".part")).write_bytes(b"half")
    found = {(finding.kind, finding.what) for finding in check(filled)}
    assert found == {("pack-unknown", "unknown1"), ("part-unknown", "unknown2"), ("part-unknown", sealed.stem)}
    sweep_now(filled)
    assert filled.store.size("unknown1") == 10
    assert part.exists()
    assert beside.exists()


def test_what_is_being_written_is_no_alarm(filled: Workplace):
    with filled.catalog.write() as w:
        for name in ("writing1", "writing2"):
            catalog_packs.begin(w, name, 60)
    filled.store.write("writing1", [b"x"])
    (filled.folder / "packs" / "wr" / "writing2.part").write_bytes(b"half")
    assert check(filled) == []


ONE_BLOB = select(blobs.c.id).order_by(blobs.c.id).limit(1).scalar_subquery()
ONE_CHECKPOINT = select(checkpoints.c.id).order_by(checkpoints.c.id).limit(1).scalar_subquery()


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("blob-misplaced", update(blobs).where(blobs.c.id == ONE_BLOB).values(offset=2**40)),
        ("blob-misplaced", update(blobs).where(blobs.c.id == ONE_BLOB).values(offset=-1)),
        ("blob-misplaced", update(packs).where(packs.c.id == select(blobs.c.pack_id).where(blobs.c.id == ONE_BLOB)
                                               .scalar_subquery()).values(state="writing")),
        ("blob-digests", update(blobs).where(blobs.c.id == ONE_BLOB).values(blocks=bytes(32))),
        ("blob-digests", update(blobs).where(blobs.c.id == ONE_BLOB).values(blocks=b"")),
        ("blob-damaged", update(blobs).where(blobs.c.id == ONE_BLOB).values(crc32=7)),
        ("wrong-model", update(models).where(models.c.name == "bert").values(checkpoints=7)),
        ("wrong-model", update(models).where(models.c.name == "bert").values(next_version=1)),
        ("wrong-model", update(models).where(models.c.name == "bert").values(nbytes=7)),
        ("wrong-model", update(models).where(models.c.name == "bert").values(new_bytes=7)),
        ("wrong-model", update(runs).values(live=7)),
        ("wrong-model", update(runs).values(run="another")),
        ("wrong-model", delete_rows(runs)),
        ("wrong-namespace", update(namespaces).where(namespaces.c.namespace == "text").values(stored_bytes=7)),
        ("wrong-namespace", delete_rows(namespaces).where(namespaces.c.namespace == "text")),
        ("checkpoint-broken", update(checkpoints).where(checkpoints.c.id == ONE_CHECKPOINT).values(nbytes=7)),
        ("checkpoint-broken", update(checkpoints).where(checkpoints.c.id == ONE_CHECKPOINT).values(frame="blake3:0")),
        ("checkpoint-broken", update(checkpoints).where(checkpoints.c.id == ONE_CHECKPOINT).values(manifest="blake3")),
        ("checkpoint-broken", update(checkpoints).where(checkpoints.c.id == ONE_CHECKPOINT)
                              .values(manifest=checkpoints.c.frame)),
    ],
)  # fmt: skip
def test_a_row_that_says_what_is_not_so_is_found(filled: Workplace, kind: str, statement):
    rewrite(filled, statement)
    assert kind in kinds(filled)


def test_every_reference_that_lacks_is_found_and_every_one_too_many(filled: Workplace):
    with filled.catalog.read() as s:
        references = s.select(select(checkpoint_blobs)).all()
        ours = {row.blob_id for row in references if row.checkpoint_id == references[0].checkpoint_id}
        foreign = next(row.blob_id for row in references if row.blob_id not in ours)
    for row in references:
        one = checkpoint_blobs.c.checkpoint_id == row.checkpoint_id, checkpoint_blobs.c.blob_id == row.blob_id
        rewrite(filled, delete_rows(checkpoint_blobs).where(*one))
        assert kinds(filled, read_data=False) == ["checkpoint-broken"]
        rewrite(filled, insert(checkpoint_blobs).values(row._mapping))
    assert check(filled) == []
    rewrite(filled, insert(checkpoint_blobs).values(checkpoint_id=references[0].checkpoint_id, blob_id=foreign))
    assert kinds(filled) == ["checkpoint-broken"]


def test_it_raises_no_alarm_while_others_upload_delete_and_sweep(filled: Workplace):
    failures: list[BaseException] = []
    stop = threading.Event()

    def until_stopped(step: Callable[[int], None]) -> threading.Thread:
        def run() -> None:
            try:
                number = 0
                while not stop.is_set():
                    step(number)
                    number += 1
            except Exception as error:  # noqa: BLE001 - told below, in the test's own thread
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def come_and_go(number: int) -> None:
        shared = weights(number % 5, 0.5)
        made = filled.upload(torch_file({"shared": shared, "own": weights(1000 + number, 1.5)}))
        made = [made, filled.upload(torch_file({"shared": shared, "small": weights(2000 + number, 0.1)}))]
        delete(filled, made[number % 2].version)
        if number > 5:
            delete(filled, made[1 - number % 2].version)

    threads = [until_stopped(come_and_go), until_stopped(lambda _: sweep_now(filled))]
    try:
        found = [finding for _ in range(15) for finding in check(filled)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert found == []
    assert check(filled) == []
