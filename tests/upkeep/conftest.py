"""A catalog on each database, a store and a spool, for sweeps and checks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.catalog import Catalog
from tests.catalog.conftest import database, database_url  # noqa: F401 - fixtures
from tests.ingest.workplace import Workplace


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Iterator[Workplace]:  # noqa: F811 - the fixture
    place = Workplace.of(tmp_path / "data", Catalog(database_url, durable=False), durable=False)
    yield place
    place.close()
