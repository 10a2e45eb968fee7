"""A real catalog in a real SQLite file, brought up by its own migrations."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.catalog import Catalog


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file without rows; copy it."""
    path = tmp_path_factory.mktemp("catalog") / "empty.db"
    catalog = Catalog(f"sqlite:///{path}", durable=False)
    catalog.migrate()
    catalog.close()
    return path


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Path:
    """An empty catalog's file, this test's own."""
    return Path(shutil.copy(migrated, tmp_path / "catalog.db"))


@pytest.fixture
def catalog(database: Path) -> Iterator[Catalog]:
    catalog = Catalog(f"sqlite:///{database}", durable=False)
    yield catalog
    catalog.close()


@pytest.fixture(scope="session")
def shared_catalog(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """One for all examples of a property: each uses a model of its own."""
    database = shutil.copy(migrated, tmp_path_factory.mktemp("catalog") / "shared.db")
    catalog = Catalog(f"sqlite:///{database}", durable=False)
    yield catalog
    catalog.close()
