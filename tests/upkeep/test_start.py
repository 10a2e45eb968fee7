"""The contents of a server's data dir when it starts, and the files that it creates."""

import threading
from pathlib import Path

import pytest

from app.api.metrics import Metrics
from app.data_dir import held
from app.main import open_services
from app.maintenance import migrate, prepare
from app.settings import Settings
from app.store.keys import new_name


@pytest.mark.parametrize("shared", [True, False], ids=["database-elsewhere", "embedded"])
def test_every_start_clears_the_spool(tmp_path: Path, shared: bool):
    url = f"sqlite:///{tmp_path / 'catalog.sqlite3'}" if shared else None
    settings = Settings(data_dir=tmp_path / "data", database_url=url)
    migrate(settings)
    left = settings.spool_folder / new_name()
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half an upload")
    with held(settings.data_dir, durable=settings.durable):
        prepare(settings)
        assert list(settings.spool_folder.iterdir()) == []


@pytest.mark.parametrize(("interval", "sweepers"), [(0, 0), (5000, 1)])
def test_a_server_has_a_thread_that_sweeps_unless_it_never_does_and_stops_it_at_once(
    tmp_path: Path, interval: float, sweepers: int
):
    settings = Settings(data_dir=tmp_path / "data", sweep_interval=interval)

    def sweeping() -> int:
        return sum(thread.name == "sweep" for thread in threading.enumerate())

    with held(settings.data_dir, durable=settings.durable):
        prepare(settings)
        with open_services(settings, Metrics()):
            assert sweeping() == sweepers
        assert sweeping() == 0


def test_the_name_of_a_fresh_data_dir_is_durable(tmp_path: Path, synced: list[Path]):
    settings = Settings(data_dir=tmp_path / "new" / "data")
    with held(settings.data_dir, durable=settings.durable):
        pass
    assert [tmp_path, tmp_path / "new"] == [path for path in synced if path.is_relative_to(tmp_path)][-2:]
