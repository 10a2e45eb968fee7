"""``Model.tensor``: one tensor, its rows and shards, as torch slices them, verified, and no byte more on the wire."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stateroom import (
    Client,
    ComponentAmbiguous,
    DigestMismatch,
    InvalidRequest,
    Model,
    SelectionError,
    ServerError,
    ServerUnavailable,
    TensorNotFound,
    UnexpectedAnswer,
    UnknownComponent,
)
from tests.client.conftest import Answer, StartScripted
from tests.conftest import StartServer
from tests.support.server import Server
from tests.support.waiting import assert_soon

SLACK = 64 * 1024


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(5000, 1024, generator=generator)  # two blocks
    return {
        "large": large,
        "tied": large,
        "columns": torch.randn(700, 900, generator=generator).t(),
        "a/b c%": torch.randn(40, 6, generator=generator).to(torch.bfloat16),
        "float8": torch.randn(24, 4, generator=generator).to(torch.float8_e5m2),
        "complex": torch.randn(30, 2, dtype=torch.complex128, generator=generator).conj(),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
    }


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    model = client.model(model_name)
    model.save({"model_state_dict": tensors(), "ema": {"x": torch.ones(2)}, "teacher": {"x": torch.zeros(2)}})
    return model


def sent(server: Server, model: Model, count: int) -> list[int]:
    """Return the sizes of the answers about single tensors, of which there are ``count``."""

    def found() -> list[int]:
        ours = [each for each in server.requests if "/tensors/{key}" in each["route"] and model.name in each["path"]]
        return [each["bytes_out"] for each in ours]

    assert_soon(lambda: len(found()) >= count)
    return found()


@pytest.mark.parametrize("key", tensors())
def test_a_tensor_is_the_one_that_was_saved(model: Model, key: str) -> None:
    tensor = tensors()[key]
    loaded = model.tensor("latest", key)
    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(loaded.to(torch.complex128), tensor.to(torch.complex128))
    if tensor.dim() and len(tensor):
        part = model.tensor(1, key, rows=slice(-9, -2), dim=-1, shard=(1, 2))
        assert torch.equal(part.to(torch.complex128), tensor[-9:-2].chunk(2, -1)[1].to(torch.complex128))


def test_shards_together_are_the_tensor_and_those_that_torch_does_not_make_are_empty(model: Model) -> None:
    tensor = tensors()["columns"]
    shards = [model.tensor("latest", "columns", dim=1, shard=(rank, 8)) for rank in range(8)]
    assert torch.equal(torch.cat(shards, dim=1), tensor)
    rows = [model.tensor("latest", "large", rows=slice(0, 5), shard=(rank, 4)) for rank in range(4)]
    assert [tuple(each.shape) for each in rows] == [(2, 1024), (2, 1024), (1, 1024), (0, 1024)]


def test_a_dtype_and_a_device_are_those_asked_for(model: Model) -> None:
    cast = model.tensor("latest", "large", rows=slice(10, 20), dtype=torch.bfloat16)
    assert torch.equal(cast, tensors()["large"][10:20].bfloat16())
    assert model.tensor("latest", "count", device="meta").is_meta


def test_only_the_bytes_of_the_part_travel(server: Server, model: Model) -> None:
    for number, (key, rows, shard, size) in enumerate(
        [
            ("large", slice(4000, 4500), None, 500 * 1024 * 4),
            ("large", None, (3, 8), 5000 * 128 * 4),
            ("columns", slice(0, 300), None, 300 * 700 * 4),
        ],
        1,
    ):
        part = model.tensor("latest", key, rows=rows, dim=None if shard is None else 1, shard=shard)
        assert part.nbytes == size
        assert sum(sent(server, model, 2 * number)[2 * number - 2 :]) <= 1.02 * size + SLACK


def test_a_part_becomes_a_safetensors_file(model: Model, tmp_path: Path) -> None:
    path = model.download_tensor("latest", "a/b c%", tmp_path, rows=slice(1, 3))
    assert path.name == f"{model.name.partition('/')[2]}-v1-tensor.safetensors"
    assert torch.equal(load_file(path)["a/b c%"], tensors()["a/b c%"][1:3])
    with pytest.raises(TensorNotFound):
        model.download_tensor("latest", "nothing", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("key", "options", "error"),
    [
        ("larg", {}, TensorNotFound),
        ("x", {}, ComponentAmbiguous),
        ("x", {"component": "nothing"}, UnknownComponent),
        ("large", {"rows": slice(0, 6000)}, SelectionError),
        ("large", {"rows": slice(0, 10, 2)}, InvalidRequest),
        ("large", {"rows": 3}, InvalidRequest),
        ("large", {"rows": slice(0.5, None)}, InvalidRequest),
        ("large", {"shard": (8, 8)}, SelectionError),
        ("large", {"shard": 3}, InvalidRequest),
        ("large", {"dim": 1}, SelectionError),
        ("large", {"dim": 5, "shard": (0, 2)}, SelectionError),
        ("large", {"dtype": torch.int8}, InvalidRequest),
        ("", {}, InvalidRequest),
        ("..", {}, InvalidRequest),
    ],
)
def test_what_is_not_there_is_an_error_that_says_why(
    model: Model, key: str, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        model.tensor("latest", key, **options)
    assert type(caught.value) is error
    if error is TensorNotFound:
        assert caught.value.near[0] == "large"


def index(**fields: object) -> Answer:
    layout = {
        "size": 8, "etag": "e", "url": "/file", "block_size": 16 * 1024 * 1024, "rest": None, "pickle": None,
        "byteorder": "little", "storages": [{"start": 0, "end": 8, "digest": "blake3:0", "blocks": ["00" * 32]}],
    }  # fmt: skip
    form = {"Stateroom-Dtype": "float32", "Stateroom-Shape": "2", "Content-Type": "application/json", **fields}
    return Answer(body=json.dumps(layout).encode(), headers={name: str(value) for name, value in form.items()})


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (index(**{"Stateroom-Dtype": "float99"}), UnexpectedAnswer),
        (index(**{"Stateroom-Dtype": "nn"}), UnexpectedAnswer),
        (index(**{"Stateroom-Shape": "3"}), UnexpectedAnswer),
        (index(**{"Stateroom-Shape": "-2"}), UnexpectedAnswer),
        (index(**{"Stateroom-Shape": "x"}), UnexpectedAnswer),
        (index(**{"Stateroom-Shape": "99999999999999"}), UnexpectedAnswer),
        (Answer(404, b"{}", {"Content-Type": "application/problem+json"}), ServerError),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_before_memory_is_taken(
    scripted: StartScripted, answer: Answer, error: type[Exception]
) -> None:
    server = scripted(lambda _: answer)
    with Client(server.url, retry_seconds=0) as client, pytest.raises(error):
        client.model("a/b").tensor(1, "w")
    assert len(server.seen) == 1


def test_bytes_that_are_not_those_of_the_digest_are_refused(scripted: StartScripted) -> None:
    def script(seen: Any) -> Answer:
        if "index" in seen.path:
            return index()
        return Answer(206, bytes(8), {"Content-Range": "bytes 0-7/8", "ETag": '"e"'})

    server = scripted(script)
    with Client(server.url, retry_seconds=0) as client, pytest.raises(DigestMismatch):
        client.model("a/b").tensor(1, "w")


def test_a_tensor_comes_from_the_cache_while_the_server_is_away(fresh_server: StartServer, tmp_path: Path) -> None:
    server = fresh_server()
    with Client(server.base_url, cache_dir=tmp_path, offline="fallback", retry_seconds=0) as client:
        model = client.model("a/b")
        model.save(tensors())
        part = tensors()["large"][3:900]
        assert torch.equal(model.tensor("latest", "large", rows=slice(3, 900)), part)
        server.stop()
        assert torch.equal(model.tensor("latest", "large", rows=slice(3, 900)), part)
        with pytest.raises(ServerUnavailable):
            model.tensor("latest", "large", rows=slice(4, 900))
