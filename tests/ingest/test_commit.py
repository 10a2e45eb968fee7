"""An upload becomes a checkpoint whose every byte can be read again, and each new byte is stored once."""

import asyncio
import functools
import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from sqlalchemy.exc import IntegrityError

from app.catalog import Catalog, WriteSession, checkpoints
from app.errors import HostileCheckpoint, InvalidRequest, NotACheckpoint, StateroomError, StorageFull
from app.ingest.body import Chunks
from app.ingest.receive import SpooledUpload
from app.store.digests import digest_of
from app.values.checkpoint import Fields, ModelName
from app.values.digest import BLOCK_SIZE
from tests.ingest.workplace import MIB, MODEL, Workplace, chunked, torch_file, weights


def general(epoch: int, **extra: object) -> bytes:
    return torch_file({"epoch": epoch, "loss": 0.5, "model_state_dict": {"w": weights(1), "b": torch.ones(3)}, **extra})


def test_a_checkpoint_says_what_the_file_says(place: Workplace):
    data = general(3)
    checkpoint = place.upload(data, run="first", metrics={"acc": 0.9}, tags={"who": "me"})
    assert (checkpoint.model, checkpoint.version, checkpoint.run) == (MODEL, 1, "first")
    assert (checkpoint.epoch, checkpoint.loss, checkpoint.step) == (3, 0.5, None)
    assert (checkpoint.metrics, checkpoint.tags) == ({"acc": 0.9}, {"who": "me"})
    assert (checkpoint.format, checkpoint.devices) == ("torch_zip", ("cpu",))
    assert [component.name for component in checkpoint.components] == ["model_state_dict"]
    assert checkpoint.nbytes == len(data)
    assert checkpoint.sha256 is None
    assert checkpoint.digest == digest_of(data)[0]
    with place.catalog.read() as s:
        assert checkpoints.resolve(s, MODEL, "latest") == checkpoint


def test_what_the_request_says_wins_over_what_the_file_says(place: Workplace):
    data = torch_file({"epoch": 3, "step": 5, "loss": 0.5, "acc": 0.1, "lr": 0.01, "w": weights(1)})
    checkpoint = place.upload(data, epoch=0, step=0, loss=math.inf, metrics={"acc": 0.9})
    assert (checkpoint.epoch, checkpoint.step, checkpoint.loss) == (0, 0, math.inf)
    assert checkpoint.metrics == {"acc": 0.9, "lr": 0.01}


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"w": torch.ones(3)},
        lambda: {"w": weights(1)},
        lambda: {"large": weights(1, 17), "small": torch.ones(3), "empty": torch.zeros(0), "medium": weights(2, 0.1)},
        lambda: {"same": weights(1), "again": weights(1), "tied": (tied := weights(2)), "tied_too": tied},
        lambda: {str(number): weights(number, 0.005) for number in range(300)},
    ],
    ids=["tiny", "one-storage", "many-sizes", "duplicates", "many-storages"],
)
def test_frame_and_blobs_are_the_upload_again_byte_for_byte(place: Workplace, make: Callable[[], dict]):
    data = torch_file(make())
    assert place.original(place.upload(data)) == data


def test_an_upload_of_new_bytes_is_kept_whole_and_is_the_pack(place: Workplace):
    data = torch_file({"w": weights(1, 8)})
    checkpoint = place.upload(data)
    ((name, size),) = place.files().items()
    assert name.startswith("packs/")
    assert size == checkpoint.new_bytes
    assert len(data) < size <= len(data) + 0.05 * len(data)
    assert list(place.pack_rows().values()) == ["sealed"]


def test_the_same_bytes_again_are_another_version_and_store_nothing(place: Workplace):
    data = general(3)
    place.upload(data)
    before = place.contents()
    again = place.upload(data)
    assert (again.version, again.new_bytes) == (2, 0)
    assert place.contents() == before
    assert place.original(again) == data


def test_of_an_upload_that_is_mostly_known_only_the_rest_is_stored(place: Workplace):
    backbone = weights(1, 8)
    place.upload(torch_file({"epoch": 1, "backbone": backbone, "head": weights(2, 1)}))
    before = place.bytes_stored()
    data = torch_file({"epoch": 2, "backbone": backbone, "head": weights(3, 1)})
    checkpoint = place.upload(data)
    assert place.bytes_stored() - before == checkpoint.new_bytes
    assert MIB <= checkpoint.new_bytes <= MIB + 65536
    assert set(place.pack_rows().values()) == {"sealed"}
    assert place.original(checkpoint) == data


def test_storages_that_are_equal_within_an_upload_are_stored_once(place: Workplace):
    data = torch_file({str(number): weights(1, 2) for number in range(5)})
    checkpoint = place.upload(data)
    assert checkpoint.new_bytes == place.bytes_stored() <= 3 * MIB
    assert place.original(checkpoint) == data


def test_namespaces_share_no_bytes(place: Workplace):
    data = torch_file({"w": weights(1, 4)})
    ours = place.upload(data)
    theirs = place.upload(data, ModelName("others", "resnet"))
    assert theirs.new_bytes == ours.new_bytes
    assert place.bytes_stored() == 2 * ours.new_bytes


def test_a_storage_of_several_blocks_keeps_all_their_digests(place: Workplace):
    checkpoint = place.upload(torch_file({"w": weights(1, 33)}))
    (storage,) = place.manifest(checkpoint).storages
    assert storage.digest is not None
    assert storage.span.length == 33 * MIB > 2 * BLOCK_SIZE
    assert storage.digest.startswith("blake3-16m:")
    assert len(place.blobs([storage.digest])[storage.digest].blocks) == 3 * 32
    assert len(place.blob(storage.digest)) == 33 * MIB


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


W = weights(7)
BROKEN_STORAGE = flipped(torch_file({"w": W}), torch_file({"w": W}).find(W.numpy().tobytes()) + 1000)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"this is no checkpoint" * 1000, NotACheckpoint),
        (torch_file({"w": W})[:-100], NotACheckpoint),
        (BROKEN_STORAGE, HostileCheckpoint),
    ],
    ids=["not-a-zip", "truncated", "wrong-crc"],
)
@pytest.mark.parametrize("first", [True, False], ids=["in-an-empty-store", "beside-a-checkpoint"])
def test_a_refused_upload_leaves_nothing_behind(
    place: Workplace, data: bytes, error: type[StateroomError], first: bool
):
    if not first:
        place.upload(torch_file({"w": W}))
    before = place.contents()
    with pytest.raises(error):
        place.upload(data)
    assert place.contents() == before


def test_what_the_catalog_refuses_leaves_nothing_behind(place: Workplace):
    with pytest.raises(InvalidRequest):
        place.upload(general(1), tags={"who": "nul\0"})
    assert place.contents() == ({}, {})


def test_a_disk_that_fills_up_while_the_pack_is_copied_keeps_nothing_of_the_upload(small_place: Workplace):
    shared = weights(1, 1.5)
    first = torch_file({"shared": shared})
    kept = small_place.upload(first)
    before = small_place.contents()
    with pytest.raises(StorageFull):  # 1.5 MiB stored, 4 spooled, and 2.5 of those to be copied
        small_place.upload(torch_file({"shared": shared, "new": weights(2, 2.75)}))
    assert small_place.contents() == before
    assert small_place.original(kept) == first


class RacingCatalog(Catalog):
    """A catalog in which garbage is collected at the worst moment: after an upload has found what is known."""

    collected: list[str]
    database: Path

    @contextmanager
    def write(self, namespace: str | None = None) -> Iterator[WriteSession]:
        if self.collected:
            with sqlite3.connect(self.database) as db:
                db.execute("PRAGMA foreign_keys=ON")
                digest = self.collected.pop()
                db.execute("DELETE FROM checkpoints")
                db.execute("DELETE FROM blobs WHERE digest = ?", [digest])
            db.close()
        with super().write(namespace) as w:
            yield w


@pytest.fixture
def racing(migrated: Path, tmp_path: Path) -> Iterator[tuple[Workplace, RacingCatalog]]:
    file = Path(shutil.copy(migrated, tmp_path / "catalog.sqlite3"))
    catalog = RacingCatalog(f"sqlite:///{file}")
    catalog.collected, catalog.database = [], file
    place = Workplace.of(tmp_path / "data", catalog)
    yield place, catalog
    place.close()


def shared() -> torch.Tensor:
    return weights(1, 1.25)


@pytest.mark.parametrize(
    "others",
    [
        lambda: {"new": weights(2, 2)},  # copied: more is known than is worth a rename
        lambda: {"new": weights(2, 26)},  # adopted: less is
        lambda: {"epoch": 5},  # next to nothing is new
        dict,  # nothing is new
        lambda: {"new": weights(2, 2), **{str(n): weights(n, 0.005) for n in range(2500)}},  # many batches
    ],
    ids=["copied", "adopted", "next-to-nothing", "nothing", "in-batches"],
)
def test_a_blob_that_goes_away_before_the_commit_is_stored_after_all(
    racing: tuple[Workplace, RacingCatalog], others: Callable[[], dict]
):
    place, catalog = racing
    place.upload(torch_file({"shared": shared()}))
    digest = digest_of(shared().numpy().tobytes())[0]
    data = torch_file({"shared": shared(), **others()})

    async def received() -> SpooledUpload:
        return await place.ingest.receive(Chunks(chunked(data)), len(data))

    upload = asyncio.run(received())
    catalog.collected = [digest]
    checkpoint = place.ingest.commit(upload, MODEL, Fields())
    assert catalog.collected == []
    assert place.original(checkpoint) == data
    assert set(place.pack_rows().values()) == {"sealed"}
    assert not any(name.startswith("spool/") for name in place.files())


class OvertakenCatalog(Catalog):
    """A catalog in which something else happens just before an upload's commit."""

    meanwhile: list[Callable[[], object]]

    @contextmanager
    def write(self, namespace: str | None = None) -> Iterator[WriteSession]:
        if self.meanwhile:
            self.meanwhile.pop()()
        with super().write(namespace) as w:
            yield w


@pytest.fixture
def overtaken(migrated: Path, tmp_path: Path) -> Iterator[tuple[Workplace, OvertakenCatalog]]:
    catalog = OvertakenCatalog(f"sqlite:///{shutil.copy(migrated, tmp_path / 'catalog.sqlite3')}")
    catalog.meanwhile = []
    place = Workplace.of(tmp_path / "data", catalog)
    yield place, catalog
    place.close()


@functools.cache
def two() -> dict[str, torch.Tensor]:
    return {"a": weights(1, 2), "b": weights(2, 2)}


@functools.cache
def many() -> dict[str, torch.Tensor]:
    """Enough storages for several batches."""
    return {str(n): weights(n, 0.005) for n in range(2500)}


@pytest.mark.parametrize(
    ("first", "second", "packs"),
    [(two, two, 1), (many, many, 1), (lambda: {"a": two()["a"]}, two, 2)],
    ids=["the-same", "the-same-in-batches", "a-part"],
)
def test_uploads_of_the_same_bytes_at_once_store_them_once(
    overtaken: tuple[Workplace, OvertakenCatalog], first: Callable[[], dict], second: Callable[[], dict], packs: int
):
    place, catalog = overtaken
    files = [torch_file(first()), torch_file(second())]

    async def received() -> list[SpooledUpload]:
        return [await place.ingest.receive(Chunks(chunked(data)), len(data)) for data in files]

    winner, loser = asyncio.run(received())
    won = []
    catalog.meanwhile = [lambda: won.append(place.ingest.commit(winner, MODEL, Fields()))]
    lost = place.ingest.commit(loser, MODEL, Fields())
    assert (won[0].version, lost.version) == (1, 2)
    assert list(place.pack_rows().values()) == ["sealed"] * packs
    assert place.bytes_stored() == won[0].new_bytes + lost.new_bytes
    assert (lost.new_bytes == 0) == (packs == 1)
    assert place.original(won[0]) == files[0]
    assert place.original(lost) == files[1]


@pytest.mark.parametrize("make", [two, many], ids=["in-one-transaction", "in-batches"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside-a-checkpoint", "in-an-empty-store"])
def test_a_commit_that_fails_at_its_last_step_leaves_nothing_behind(
    place: Workplace, tmp_path: Path, make: Callable[[], dict], beside: bool
):
    if beside:
        place.upload(torch_file({"a": two()["a"]}))
    before = place.contents()
    with sqlite3.connect(tmp_path / "catalog.sqlite3") as db:
        db.execute("CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END")
        blobs_before = db.execute("SELECT * FROM blobs").fetchall()
    with pytest.raises(IntegrityError):
        place.upload(torch_file(make()))
    assert place.contents() == before
    assert db.execute("SELECT * FROM blobs").fetchall() == blobs_before
    db.close()
