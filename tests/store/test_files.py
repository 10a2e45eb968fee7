"""Folders whose names survive a crash."""

from pathlib import Path

import pytest

from app.store.files import make_folder


def test_every_folder_made_is_synced_before_anything_is_made_in_it(tmp_path: Path, synced: list[Path]):
    make_folder(tmp_path / "a" / "b", durable=True)
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path.parent, tmp_path, tmp_path / "a"]


def test_a_folder_that_is_there_may_not_be_durable_yet(tmp_path: Path, synced: list[Path]):
    (tmp_path / "made-before-a-crash").mkdir()
    make_folder(tmp_path / "made-before-a-crash", durable=True)
    assert synced == [tmp_path]


def test_nothing_is_synced_that_need_not_last(tmp_path: Path, synced: list[Path]):
    make_folder(tmp_path / "a" / "b", durable=False)
    make_folder(tmp_path / "a" / "b", durable=False)
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == []


def test_a_folder_below_what_cannot_be_synced_is_as_good(synced: list[Path]):
    make_folder(Path("/proc/self"), durable=True)
    assert synced == []


def test_a_file_in_the_way_is_an_error(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError, match="a"):
        make_folder(tmp_path / "a" / "b", durable=True)
