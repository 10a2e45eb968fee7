"""A model on the shared server, over plain HTTP and through the client library."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import torch

from stateroom import Client
from stateroom import Model as ClientModel
from tests.functional.audited import Audited
from tests.functional.classifier import make_net
from tests.functional.torch_files import FORMATS, Save, saved
from tests.support.server import Server


@dataclass(frozen=True, slots=True)
class HttpModel:
    """A model as any HTTP client sees it; every method asserts that the request was granted."""

    http: httpx.Client
    name: str

    def url(self, path: str = "") -> str:
        """``path`` is below the checkpoints, ``latest/state_dict`` say."""
        return f"/v1/models/{self.name}/checkpoints" + (f"/{path}" if path else "")

    def upload(self, data: bytes, **params: Any) -> dict[str, Any]:
        answer = self.http.post(self.url(), content=data, params=params)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def get(self, path: str, **params: Any) -> bytes:
        answer = self.http.get(self.url(path), params=params)
        assert answer.status_code == 200, answer.text
        return answer.content

    def json(self, path: str = "", **params: Any) -> Any:
        answer = self.http.get(self.url(path), params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refusal(self, path: str, **params: Any) -> dict[str, Any]:
        answer = self.http.get(self.url(path), params=params)
        assert answer.headers["Content-Type"] == "application/problem+json", answer.text
        return answer.json()


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small are trained faster by one thread than by two that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model(http: httpx.Client, model_name: str) -> HttpModel:
    return HttpModel(http, model_name)


@pytest.fixture(params=FORMATS)
def save(request: pytest.FixtureRequest) -> Save:
    """What ``torch.save`` writes, today and before 1.6: users have files of both."""
    return functools.partial(saved, **FORMATS[request.param])


@pytest.fixture
def client_model(server: Server, model_name: str) -> Iterator[ClientModel]:
    """The same model, through the client library."""
    with Client(server.base_url) as client:
        yield client.model(model_name)


@pytest.fixture(scope="package")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    """A server of its own, for bad input."""
    audited = Audited(tmp_path_factory.mktemp("audited"))
    try:
        warm_up(audited.server)
        yield audited
    finally:
        audited.server.kill()


def warm_up(server: Server) -> None:
    """One of everything, so that what is imported or made lazily is there before the bad input comes."""
    with server.client() as http:
        model = HttpModel(http, "tests/warm-up")
        model.upload(saved({"epoch": 1, "loss": 0.5, "model": make_net().state_dict()}))
        for path in ("latest/state_dict", "latest/file", "latest/original", "latest/tensors", "best"):
            model.get(path)
        http.post(model.url(), content=b"no checkpoint")
        http.get("/metrics")


@pytest.fixture
def target(audited: Audited, model_name: str) -> Iterator[HttpModel]:
    with audited.server.client() as http:
        yield HttpModel(http, model_name)
