"""A real catalog on each database, created by its own migrations."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import Catalog


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Path:
    """An empty catalog's SQLite file, this test's own."""
    return Path(shutil.copy(migrated, tmp_path / "catalog.db"))


@pytest.fixture
def sqlite_catalog(database: Path) -> Iterator[Catalog]:
    """The catalog in ``database``, for what only SQLite does."""
    with closing(Catalog(f"sqlite:///{database}", durable=False)) as catalog:
        yield catalog


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty catalog's URL, this test's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{request.getfixturevalue('database')}"
    else:
        with request.getfixturevalue("postgres").borrowed() as url:
            yield url


@pytest.fixture
def catalog(database_url: str) -> Iterator[Catalog]:
    with closing(Catalog(database_url, durable=False)) as catalog:
        yield catalog


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_catalog(
    request: pytest.FixtureRequest, migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Catalog]:
    """One for all examples of a property: each uses a model of its own."""
    if request.param == "sqlite":
        url = f"sqlite:///{shutil.copy(migrated, tmp_path_factory.mktemp('catalog') / 'shared.db')}"
    else:
        url = request.getfixturevalue("postgres").database()
    with closing(Catalog(url, durable=False)) as catalog:
        yield catalog
