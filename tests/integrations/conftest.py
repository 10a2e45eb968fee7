"""Frameworks that are installed by ``make integrations``; elsewhere these tests are skipped."""

from collections.abc import Iterator

import pytest

from stateroom import Client, Model
from stateroom.integrations.fsspec import StateroomFileSystem
from tests.support.server import Server


@pytest.fixture(autouse=True)
def _url(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clients and file systems that are not told a server use the shared one."""
    for name in ("STATEROOM_TOKEN", "STATEROOM_RUN", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STATEROOM_URL", server.base_url)
    monkeypatch.setenv("NO_PROXY", "*")
    StateroomFileSystem.clear_instance_cache()
    yield
    StateroomFileSystem.clear_instance_cache()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.base_url) as client:
        yield client


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name, run="first")
