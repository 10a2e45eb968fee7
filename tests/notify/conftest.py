from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalog.conftest import catalog, database, database_url  # noqa: F401 - fixtures
from tests.support.ports import held_port
from tests.support.receiver import Receiver


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A running receiver of webhooks."""
    with held_port() as port:
        running = Receiver(tmp_path / "received", port)
        running.start()
        yield running
        running.kill()
