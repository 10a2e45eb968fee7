"""Other dtypes and formats through the client: the user reads exactly what the server casts and converts."""

import json
import urllib.request
from pathlib import Path

import pytest
import safetensors.torch
import torch

from stateroom import Checkpoint, Client, InvalidRequest, Model, StateroomWarning
from tests.support.commands import run_program
from tests.support.server import Server, server_environment


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


@pytest.fixture
def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)


@pytest.fixture
def saved(model: Model, net: torch.nn.Module) -> Checkpoint:
    optimizer = torch.optim.Adam(net.parameters())
    return model.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict()})


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bf16", "torch.bfloat16"], ids=str)
def test_a_state_dict_comes_in_the_dtype_that_is_asked_for(model, saved, net, dtype):
    state = net.state_dict()
    expected = {key: tensor.bfloat16() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    for found in (model.state_dict(saved, dtype=dtype), dict(model.iter_tensors(saved, dtype=dtype))):
        assert list(found) == list(expected)
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype
            assert torch.equal(found[key], tensor)


def test_what_is_excluded_keeps_its_dtype(model, saved, net):
    found = model.state_dict(saved, dtype=torch.float16, dtype_exclude=["norm.*"], rename={"1.": "norm."})
    assert {key for key, tensor in found.items() if tensor.dtype == torch.float16} == {"0.weight", "0.bias"}
    assert torch.equal(found["norm.weight"], net[1].weight)
    with pytest.raises(InvalidRequest, match="float32, float16, bfloat16"):
        model.state_dict(saved, dtype=torch.int8)


def test_half_the_bytes_travel(saved, server):
    seen: list[int] = []
    with Client(server.base_url, progress=lambda _label, done, _total: seen.append(done)) as quiet:
        model = quiet.model(saved.model)
        model.save({"w": torch.randn(1_000_000)})
        seen.clear()
        assert model.state_dict("latest", dtype="half")["w"].dtype == torch.float16
    assert 2_000_000 < max(seen) < 2_010_000


def test_a_state_dict_is_downloaded_as_safetensors(model, saved, net, tmp_path):
    path = model.download_state_dict(saved, tmp_path, format="safetensors")
    assert path == tmp_path / f"{saved.model.partition('/')[2]}-v1-state_dict.safetensors"
    loaded = safetensors.torch.load_file(path)
    assert set(loaded) == set(net.state_dict())
    assert all(torch.equal(loaded[key], tensor) for key, tensor in net.state_dict().items())
    with pytest.raises(InvalidRequest, match="stores no device"):
        model.download_state_dict(saved, tmp_path, format="safetensors", map_location="cpu")
    with pytest.raises(InvalidRequest, match="onnx"):
        model.download_state_dict(saved, tmp_path / "o", format="onnx")
    with pytest.warns(StateroomWarning, match=r"param_groups.0.lr.* cannot be stored in a safetensors file"):
        model.download_state_dict(saved, tmp_path / "o", component="optimizer_state_dict", format="safetensors")


def test_a_url_carries_dtype_and_format(saved, net, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    url = saved.url(dtype=torch.bfloat16, dtype_exclude="1.*", format="safetensors")
    assert url.partition("?")[0].endswith(".safetensors")
    with urllib.request.urlopen(url, timeout=60) as answer:
        loaded = safetensors.torch.load(answer.read())
    assert torch.equal(loaded["0.weight"], net[0].weight.to(torch.bfloat16))
    assert loaded["1.weight"].dtype == torch.float32


def test_pull_takes_a_dtype_and_a_format(
    saved: Checkpoint, net: torch.nn.Module, server: Server, tmp_path: Path
) -> None:
    def pull(*options: str) -> Path:
        arguments = ["--json", "pull", saved.model, "-o", ".", *options]
        env = server_environment({"STATEROOM_URL": server.base_url, "NO_PROXY": "*"})
        done = run_program("stateroom._cli.main", arguments, env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return tmp_path / json.loads(done.stdout)["path"]

    cast = torch.load(pull("--dtype", "bfloat16", "--dtype-exclude", "1.*"), weights_only=True)
    assert torch.equal(cast["0.weight"], net[0].weight.to(torch.bfloat16))
    assert cast["1.weight"].dtype == torch.float32
    loaded = safetensors.torch.load_file(pull("--format", "safetensors"))
    assert torch.equal(loaded["0.weight"], net[0].weight)
