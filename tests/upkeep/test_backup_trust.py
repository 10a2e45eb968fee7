"""Backups rely on no copy that was not verified, on no clock, and on no name in their folder that is not theirs."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app import maintenance
from app.errors import StateroomError, StoreError
from app.settings import Settings
from app.store import LocalPackStore
from app.store.files import Buffer
from app.upkeep import checked_copy
from app.upkeep.backup import Progress, make_backup
from app.upkeep.backup_folder import MARK, Backup, BackupFolder
from app.upkeep.fsck import Fsck
from app.values.span import Span
from tests.ingest.workplace import Workplace, torch_file, weights
from tests.upkeep.backing_up import back_up, flip, upload_all
from tests.upkeep.sweeping import delete, sweep_now


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with closing(Workplace.at(tmp_path / "data", tmp_path / "catalog.sqlite3", durable=False)) as place:
        upload_all(place)
        yield place


@pytest.fixture
def folder(tmp_path: Path) -> BackupFolder:
    return BackupFolder(tmp_path / "backups", durable=False)


def first_pack(place: Workplace) -> str:
    return next(iter(place.pack_rows()))


def findings(place: Workplace, folder: BackupFolder) -> list[str]:
    with closing(LocalPackStore(folder.root, durable=False)) as store:
        return [each.kind for each in Fsck(place.catalog, store, True, False).findings()]


def test_a_copy_that_the_disk_garbled_is_not_trusted_by_the_next_backup(
    place: Workplace, folder: BackupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = first_pack(place)
    write = LocalPackStore.write

    def garbled(self: LocalPackStore, name: str, buffers: Iterator[Buffer]) -> int:
        return write(self, name, (bytes(memoryview(each).nbytes) if name == bad else each for each in buffers))

    with monkeypatch.context() as patch:
        patch.setattr(LocalPackStore, "write", garbled)
        with pytest.raises(StoreError, match=f"the copy of pack {bad} differs"):
            back_up(place, folder)
    assert [*folder.root.rglob(f"{bad}.*")] == []
    assert back_up(place, folder).backup.problems == {}
    assert findings(place, folder) == []


def test_a_copy_that_was_garbled_before_the_backup_was_killed_is_made_again(
    place: Workplace, folder: BackupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(place, folder)
    flip(folder.root, first_pack(place))
    made = back_up(place, folder).backup
    assert (made.problems, made.new_packs) == ({}, 1)
    assert findings(place, folder) == []


def interrupt(place: Workplace, folder: BackupFolder) -> None:
    """Make a backup, and leave it as one that was killed before its mark was written."""
    made = back_up(place, folder).backup
    (folder.catalog(made.id).parent / MARK).unlink()


def test_damage_that_an_interrupted_backup_copied_is_found_by_the_next_one(
    place: Workplace, folder: BackupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = first_pack(place)
    flip(place.folder, bad)
    interrupt(place, folder)
    for _ in range(2):
        made = back_up(place, folder).backup
        assert (set(made.problems), made.new_packs) == ({bad}, 0)


class WithBadSector(LocalPackStore):
    """A store on a disk that cannot read a few bytes of a pack."""

    bad = ""
    sector = Span(0, 0)

    def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
        if name == self.bad and span.start < self.sector.end and self.sector.start < span.end:
            raise StoreError("reading failed: Input/output error")
        return super().read(name, span, ahead=ahead)


def with_bad_sector(place: Workplace, bad: str) -> WithBadSector:
    store = WithBadSector(place.folder, durable=False)
    size = store.size(bad)
    store.bad, store.sector = bad, Span(size // 2, size // 2 + 512)
    return store


def test_a_pack_that_was_damaged_before_its_disk_failed_ends_no_backup(place: Workplace, folder: BackupFolder) -> None:
    bad = first_pack(place)
    flip(place.folder, bad)
    first = back_up(place, folder).backup
    second = make_backup(place.catalog, with_bad_sector(place, bad), folder, 1, Progress()).backup
    assert second.problems == first.problems
    assert second.problems.keys() == {bad}


def test_all_but_a_bad_sector_is_kept_of_a_pack(
    place: Workplace, folder: BackupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_copy, "SMALLEST", 4096)
    place.upload(torch_file({f"w{seed}": weights(seed, 0.1) for seed in range(10, 15)}))
    bad = [*place.pack_rows()][-1]
    made = make_backup(place.catalog, with_bad_sector(place, bad), folder, 1, Progress()).backup
    assert made.problems == {bad: "1 of its blobs are damaged, needed by vision/resnet@4"}
    source, copy = (next(each.rglob(f"{bad}.pack")).read_bytes() for each in (place.folder, folder.root))
    assert len(source) == len(copy)
    assert 0 < sum(a != b for a, b in zip(source, copy, strict=True)) <= 2 * 4096
    healed = back_up(place, folder).backup
    assert (healed.problems, healed.new_packs) == ({}, 1)
    assert findings(place, folder) == []


def test_a_pack_that_can_hardly_be_read_is_not_tried_in_ever_more_pieces(
    place: Workplace, folder: BackupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_copy, "SMALLEST", 512)
    monkeypatch.setattr(checked_copy, "MOST_LOST", 3)
    bad, tried = first_pack(place), 0

    class Failing(LocalPackStore):
        def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
            nonlocal tried
            if name == bad:
                tried += 1
                raise StoreError("reading failed: Input/output error")
            return super().read(name, span, ahead=ahead)

    made = make_backup(place.catalog, Failing(place.folder, durable=False), folder, 1, Progress()).backup
    assert made.problems == {bad: "reading failed: Input/output error, needed by vision/resnet@1"}
    assert tried < 40
    assert [*folder.root.rglob(f"{bad}.*")] == []


def test_a_copy_that_cannot_be_read_is_made_again(
    place: Workplace, folder: BackupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(place, folder)
    bad, read, failures = first_pack(place), LocalPackStore.read, [StoreError("reading failed: Input/output error")]

    def failing(self: LocalPackStore, name: str, span: Span, *, ahead: bool = False) -> memoryview:
        if self is not place.store and name == bad and failures:
            raise failures.pop()
        return read(self, name, span, ahead=ahead)

    monkeypatch.setattr(LocalPackStore, "read", failing)
    made = back_up(place, folder).backup
    assert (made.problems, made.new_packs) == ({}, 1)


def back_up_as(backup_id: str, place: Workplace, folder: BackupFolder) -> Path:
    """Make a backup as if at another time, and return its folder."""
    made = back_up(place, folder).backup
    mark = folder.catalog(made.id).with_name("backup.json")
    mark.write_text(json.dumps({**made.as_json(), "id": backup_id}))
    return mark.parent.rename(mark.parent.with_name(backup_id))


def test_a_backup_is_the_newest_although_the_clock_was_ahead(place: Workplace, folder: BackupFolder) -> None:
    future = "20990101T000000Z"
    back_up_as(future, place, folder)
    for number in (2, 3):
        made = back_up(place, folder).backup
        assert made.id == f"{future}-{number:04}"
        assert [each.id for each in folder.all()] == [made.id]
        assert folder.get(None) == made


def test_backups_of_one_second_have_ids_in_order_and_none_twice(folder: BackupFolder) -> None:
    folder.make()
    now = datetime(2026, 11, 30, 9, 15, tzinfo=UTC)
    ids = [folder.begin(now) for _ in range(12)]
    folder.remove(ids[:11])
    ids += [folder.begin(now), folder.begin(now)]
    assert ids == sorted(set(ids))
    assert folder.unfinished() == ids[11:]
    (folder.root / "backups" / "20261130T091500Z-9999").mkdir()
    ids = [folder.begin(now), folder.begin(now)]
    assert folder.unfinished()[-2:] == ids


def test_a_backup_whose_folder_was_renamed_loses_no_packs(place: Workplace, folder: BackupFolder) -> None:
    its_folder = back_up_as("20260101T000000Z", place, folder)
    renamed = its_folder.rename(its_folder.with_name("before-the-move"))
    delete(place, 1)
    sweep_now(place)
    second = back_up(place, folder)
    assert (second.removed_packs, second.strange) == (0, ["before-the-move"])
    renamed.rename(its_folder)
    third = back_up(place, folder)
    assert (third.removed_backups, third.removed_packs, third.strange) == (2, 1, [])


def test_the_id_in_a_mark_is_no_path(place: Workplace, folder: BackupFolder, tmp_path: Path) -> None:
    made = back_up(place, folder).backup
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    mark = folder.catalog(made.id).with_name("backup.json")
    mark.write_text(json.dumps({**made.as_json(), "id": "../../victim"}))
    works: list[Callable[[], object]] = [lambda: back_up(place, folder), lambda: folder.get(None)]
    for work in works:
        with pytest.raises(StateroomError, match=r"is of backup '\.\./\.\./victim'"):
            work()
    assert (victim / "file").exists()


def test_a_backup_is_made_although_the_catalog_of_an_older_one_is_damaged(
    place: Workplace, folder: BackupFolder
) -> None:
    first: Backup = back_up(place, folder).backup
    folder.catalog(first.id).write_bytes(b"no database")
    made = back_up(place, folder)
    assert (made.backup.problems, made.backup.new_packs, made.removed_backups) == ({}, 0, 1)


@pytest.mark.parametrize("inside", ["", "packs/ab"])
@pytest.mark.parametrize("work", ["backup", "restore"])
def test_a_store_in_the_folder_of_backups_is_refused(tmp_path: Path, inside: str, work: str) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    settings = Settings(data_dir=tmp_path / "data", store_url=f"file://{tmp_path}/link/{inside}")
    works: dict[str, Callable[[], object]] = {
        "backup": lambda: maintenance.backup(settings, folder, 1, Progress()),
        "restore": lambda: maintenance.restore(settings, folder, None, Progress()),
    }
    with pytest.raises(StateroomError, match="is in the folder of backups"):
        works[work]()
    assert [*folder.iterdir()] == []
