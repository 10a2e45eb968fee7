"""Checkpoints as torch writes them, and models that hold them."""

import io
from collections.abc import Callable
from http.client import HTTPConnection

import httpx
import pytest
import torch

from tests.catalog.conftest import catalog, database, database_url  # noqa: F401 - fixtures
from tests.support.server import Server

Upload = Callable[..., dict]


def saved(obj: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def load(content: bytes) -> object:
    """What torch reads, running nothing that the file names."""
    return torch.load(io.BytesIO(content), weights_only=True)


def state_dict(seed: int = 0, size: int = 64) -> dict[str, torch.Tensor]:
    """Three keys, two of which share a storage; ``size * size`` floats in the largest."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(size, size, generator=generator)
    return {"conv.weight": weight, "conv.bias": torch.randn(size, generator=generator), "tied.weight": weight}


def general(epoch: int = 3, loss: float = 0.5, seed: int = 0, size: int = 64) -> bytes:
    """A general checkpoint: a model, its optimizer, an epoch and a loss."""
    return saved(
        {
            "epoch": epoch,
            "loss": loss,
            "model_state_dict": state_dict(seed, size),
            "optimizer_state_dict": sgd_state_dict(size),
        }
    )


def sgd_state_dict(size: int) -> dict:
    """The state_dict of an SGD with momentum after its first step; torch's own imports its compiler, for a second."""
    defaults = {"dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False, "foreach": None}
    group = {"lr": 0.001, "momentum": 0.9, **defaults, "differentiable": False, "fused": None, "params": [0, 1]}
    buffers = torch.ones(2, size), torch.ones(2)
    state = {number: {"momentum_buffer": buffer} for number, buffer in enumerate(buffers)}
    return {"state": state, "param_groups": [group]}


@pytest.fixture
def checkpoints(model_name: str) -> str:
    """The URL of this test's own model's checkpoints."""
    return f"/v1/models/{model_name}/checkpoints"


@pytest.fixture
def upload(http: httpx.Client, checkpoints: str) -> Upload:
    """Uploads a file to this test's model, with its query; the checkpoint's JSON."""

    def send(file: bytes | None = None, **params: object) -> dict:
        answer = http.post(checkpoints, params=params, content=general() if file is None else file)
        assert answer.status_code == 201, answer.text
        return answer.json()

    return send


def exactly(server: Server, method: str, path: str, body: bytes = b"") -> httpx.Response:
    """Ask for ``path`` as it is written: httpx would tidy it up first."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, body or None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return httpx.Response(answer.status, headers=answer.getheaders(), content=content)


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that has to be a problem."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"].endswith(body["code"])
    assert body["title"]
    assert body["detail"]
    return answer.status_code, body["code"]
