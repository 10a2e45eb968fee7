from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ingest.workplace import Workplace
from tests.store.devices import mounted_tmpfs


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """A catalog, a store and a spool of their own, durable as in production."""
    place = Workplace.at(tmp_path / "data", tmp_path / "catalog.sqlite3")
    yield place
    place.close()


@pytest.fixture
def small_place(tmp_path: Path) -> Iterator[Workplace]:
    """The same, but the spool and the store have 8 MiB together."""
    with mounted_tmpfs(tmp_path / "small", 8) as folder:
        place = Workplace.at(folder, tmp_path / "catalog.sqlite3")
        yield place
        place.close()
