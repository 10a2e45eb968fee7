"""A catalog on each database, a store and a spool, for sweeps and checks."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import Catalog
from tests.ingest.workplace import Workplace


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file without rows; copy it."""
    path = tmp_path_factory.mktemp("catalog") / "empty.db"
    with closing(Catalog(f"sqlite:///{path}", durable=False)) as catalog:
        catalog.migrate()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty catalog's URL, this test's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{shutil.copy(request.getfixturevalue('migrated'), tmp_path / 'catalog.db')}"
        return
    postgres = request.getfixturevalue("postgres")
    url = postgres.database()
    yield url
    postgres.drop(url)


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Iterator[Workplace]:
    place = Workplace.of(tmp_path / "data", Catalog(database_url, durable=False), durable=False)
    yield place
    place.close()
