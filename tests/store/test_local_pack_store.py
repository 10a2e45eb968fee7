"""Packs in a local folder: the conformance suite, and failures that only a folder can have."""

import mmap
import os
from pathlib import Path

import pytest

from app.errors import DamagedBlob, PackMissing, StorageFull, StoreError
from app.store import LocalPackStore, StoredPack, windows
from app.store.files import opened
from app.store.keys import joined_name, list_key, object_name
from app.values.span import Span
from tests.store.conformance import WORDS, PackStoreConformance, assert_is, file_with


class TestLocalPackStore(PackStoreConformance):
    @pytest.fixture(params=[True, False], ids=["durable", "not-durable"])
    def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> LocalPackStore:
        return LocalPackStore(tmp_path / "store", durable=request.param)


class TestLocalPackStoreAcrossDevices(PackStoreConformance):
    """The spool on one file system, the packs on another: no rename, and no copying inside the kernel."""

    @pytest.fixture
    def store(self, small_device: Path) -> LocalPackStore:
        return LocalPackStore(small_device, durable=True)


@pytest.fixture
def store(tmp_path: Path) -> LocalPackStore:
    return LocalPackStore(tmp_path / "store", durable=True)


def files_under(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_packs_lie_where_the_docstring_of_keys_says(store: LocalPackStore, tmp_path: Path):
    store.adopt("abcdef", file_with(tmp_path, b"x"))
    assert files_under(tmp_path / "store") == [Path("packs/ab/abcdef.pack")]


def test_packs_are_there_after_a_restart(store: LocalPackStore, tmp_path: Path):
    store.adopt("abcdef", file_with(tmp_path, b"x"))
    assert LocalPackStore(tmp_path / "store", durable=True).read("abcdef", Span(0, 1)) == b"x"


def test_deleting_a_pack_removes_what_an_interrupted_copy_left(store: LocalPackStore, tmp_path: Path):
    store.create("abcdef", file_with(tmp_path, WORDS), [Span(0, 5)])
    (tmp_path / "store/packs/ab/abcdef.part").write_bytes(b"half a pack")
    assert store.delete("abcdef") == 5 + 11
    assert files_under(tmp_path / "store") == []


def test_what_an_interrupted_write_left_is_listed_as_such_and_what_is_not_ours_is_not(
    store: LocalPackStore, tmp_path: Path
):
    store.create("abcdef", file_with(tmp_path, WORDS), [Span(0, 5)])
    for name in ("packs/ab/abxyz.part", "packs/ab/.abxyz.pack.Zk3", "packs/ab/ABC.pack", "packs/lost+found"):
        (tmp_path / "store" / name).write_bytes(b"half")
    found = sorted(store.walk(), key=lambda pack: pack.name)
    assert found == [StoredPack("abcdef", 5, whole=True), StoredPack("abxyz", 4, whole=False)]


def test_a_deleted_pack_cannot_come_back_after_a_power_cut(store: LocalPackStore, synced: list[Path], tmp_path: Path):
    store.create("abcdef", file_with(tmp_path, WORDS), [Span(0, 5)])
    synced.clear()
    store.delete("abcdef")
    assert synced == [tmp_path / "store/packs/ab"]


def test_a_written_pack_is_durable_before_it_has_its_name(store: LocalPackStore, synced: list[Path], tmp_path: Path):
    store.write("abxyz", [b"first"])  # makes the folder
    synced.clear()
    store.write("abcdef", [WORDS])
    folder = tmp_path / "store/packs/ab"
    assert synced == [folder / "abcdef.part", folder]


def test_a_store_that_has_to_be_there_is_not_made(tmp_path: Path):
    with pytest.raises(StoreError):
        LocalPackStore(tmp_path / "nowhere", durable=True, make=False)
    assert not (tmp_path / "nowhere").exists()


def test_a_pack_is_not_adopted_when_its_fsync_fails(store: LocalPackStore, tmp_path: Path):
    cannot_be_synced = tmp_path / "upload"
    cannot_be_synced.symlink_to("/dev/null")  # fsync answers EINVAL
    with pytest.raises(StoreError):
        store.adopt("abcdef", cannot_be_synced)
    with pytest.raises(PackMissing):
        store.read("abcdef", Span(0, 0))
    assert cannot_be_synced.is_symlink()


def test_a_pack_that_cannot_be_read_is_a_store_error_and_not_missing(store: LocalPackStore, tmp_path: Path):
    (tmp_path / "store/packs/ab").mkdir()
    (tmp_path / "store/packs/ab/abcdef.pack").mkdir()
    with pytest.raises(StoreError) as caught:
        store.read("abcdef", Span(0, 1))
    assert not isinstance(caught.value, PackMissing)
    assert str(tmp_path) not in caught.value.detail


def test_a_ping_of_a_store_whose_folder_has_gone_fails(store: LocalPackStore, tmp_path: Path):
    (tmp_path / "store/packs").rmdir()
    with pytest.raises(StoreError):
        store.ping()


def test_reading_windows_keeps_no_more_memory_mapped_than_is_looked_at(store: LocalPackStore, tmp_path: Path):
    store.adopt("abcdef", file_with(tmp_path, bytes(64 << 20)))

    def mapped() -> int:
        return sum("abcdef.pack" in line for line in Path("/proc/self/maps").read_text().splitlines())

    kept = store.read("abcdef", Span(0, 1 << 20))[5:6]
    for start in range(0, 64 << 20, 16 << 20):
        store.read("abcdef", Span(start, start + (16 << 20)))
    assert mapped() == 1
    del kept
    assert mapped() == 0


def test_an_error_of_the_disk_surfaces_while_a_window_is_populated(tmp_path: Path):
    with opened(file_with(tmp_path, WORDS), os.O_RDWR) as fd:
        window = mmap.mmap(fd, len(WORDS), access=mmap.ACCESS_COPY)
        os.ftruncate(fd, 0)  # its pages can no longer be read, as those of a bad sector; touching one would be SIGBUS
        with pytest.raises(OSError, match="Bad address"):
            windows._populate(window)


def test_reading_opens_no_file_for_longer_than_it_takes(store: LocalPackStore, tmp_path: Path):
    store.adopt("abcdef", file_with(tmp_path, WORDS))
    store.read("abcdef", Span(0, 1))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, and reads no path
    for _ in range(10):
        store.read("abcdef", Span(0, 1))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - counts, and reads no path


@pytest.mark.parametrize("durable", [True, False])
def test_a_full_device_is_storage_full_and_leaves_no_part_of_the_pack(
    small_device: Path, tmp_path: Path, durable: bool
):
    store = LocalPackStore(small_device, durable=durable)
    size = 16 << 20
    file = file_with(tmp_path, bytes(size))
    for attempt in (lambda: store.adopt("abcdef", file), lambda: store.create("abcdef", file, [Span(0, size)])):
        with pytest.raises(StorageFull):
            attempt()
        assert files_under(small_device) == []
        assert file.stat().st_size == size
    store.create("abcdef", file, [Span(0, 1 << 20)])
    assert_is(store, "abcdef", bytes(1 << 20))


def test_an_area_into_which_something_comes_while_it_is_deleted_stays_for_the_next_time(
    store: LocalPackStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    area, rmdir = "ab" * 16, Path.rmdir
    store.put(area, object_name(range(1)), b"one")

    def put_and_remove(folder: Path) -> None:
        monkeypatch.undo()
        store.put(area, object_name(range(1, 2)), b"late")
        rmdir(folder)

    monkeypatch.setattr(Path, "rmdir", put_and_remove)
    assert store.delete(area) == 3
    assert store.objects(area) == {"1-2": 4}
    assert store.delete(area) == 4
    assert files_under(tmp_path / "store") == []


@pytest.mark.parametrize("text", ["", "{}", "[[1]]", '[["0-1",0,1e9]]', f'[["0-1",0,{10**30}]]', "[" * 100_000])
def test_a_damaged_list_is_damage(store: LocalPackStore, tmp_path: Path, text: str):
    name = joined_name("ab" * 16)
    store.join(name, [])
    (tmp_path / "store" / list_key(name)).write_text(text)
    with pytest.raises(DamagedBlob):
        store.read(name, Span(0, 1))
