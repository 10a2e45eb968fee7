"""What a server finds in its data dir when it starts, and what it makes there."""

from pathlib import Path

import pytest

from app.main import data_dir_held, migrate, open_services
from app.settings import Settings


@pytest.mark.parametrize("shared", [True, False], ids=["database-elsewhere", "embedded"])
def test_every_start_clears_the_spool(tmp_path: Path, shared: bool):
    url = f"sqlite:///{tmp_path / 'catalog.sqlite3'}" if shared else None
    settings = Settings(data_dir=tmp_path / "data", database_url=url)
    migrate(settings)
    left = settings.spool_folder / "abcdef"
    left.parent.mkdir()
    left.write_bytes(b"half an upload")
    with data_dir_held(settings), open_services(settings):
        assert list(settings.spool_folder.iterdir()) == []


def test_the_name_of_a_fresh_data_dir_is_durable(tmp_path: Path, synced: list[Path]):
    settings = Settings(data_dir=tmp_path / "new" / "data")
    with data_dir_held(settings):
        pass
    assert [tmp_path, tmp_path / "new"] == [path for path in synced if path.is_relative_to(tmp_path)][-2:]
