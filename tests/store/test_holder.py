"""The name of a data dir: made once, and unlike any other data dir's."""

from pathlib import Path

import pytest

from app.store.holder import Holder, holder_id, known_holder_id


def test_a_data_dir_keeps_the_name_that_it_got_first(tmp_path: Path):
    assert known_holder_id(tmp_path) is None
    name = holder_id(tmp_path, durable=True)
    assert holder_id(tmp_path, durable=True) == known_holder_id(tmp_path) == name
    assert [path.name for path in tmp_path.iterdir()] == ["server-id"]


def test_no_two_data_dirs_and_no_two_runs_have_one_name(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert holder_id(tmp_path / "a", durable=False) != holder_id(tmp_path / "b", durable=False)
    assert Holder("a").run != Holder("a").run


def test_its_file_is_the_owners_alone_and_durable(tmp_path: Path, synced: list[Path]):
    holder_id(tmp_path, durable=True)
    assert (tmp_path / "server-id").stat().st_mode & 0o777 == 0o600
    assert synced[-1] == tmp_path
    assert synced[-2].name.startswith("server-id.")  # before it has its name


@pytest.mark.parametrize("content", [b"", b"half a na", b"A" * 32, b"\xff" * 32])
def test_what_is_no_name_is_replaced(tmp_path: Path, content: bytes):
    (tmp_path / "server-id").write_bytes(content)
    assert known_holder_id(tmp_path) is None
    assert known_holder_id(tmp_path) != holder_id(tmp_path, durable=True)
    assert known_holder_id(tmp_path) is not None
