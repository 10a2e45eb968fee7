"""Safetensors and casts from a real server: any range, the stock readers, checksums, and a server without torch."""

import io
import json
import zipfile
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import safetensors.torch
import torch
from blake3 import blake3

from tests.conftest import StartServer
from tests.functional.torch_files import saved
from tests.support.server import PYTHON_M_APP, Server
from tests.support.waiting import assert_soon

MiB = 1 << 20

QUERIES = {
    "safetensors": "format=safetensors",
    "cast": "dtype=bfloat16",
    "cast safetensors": "dtype=fp16&format=safetensors&dtype_exclude=*.bias",
    "optimizer": "component=optimizer&dtype=bf16&format=safetensors",
}


def checkpoint() -> dict:
    """Tensors of several blocks, views, small ones, and an optimizer."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(60, 50))
    net = net.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    adam.step()
    model = dict(net.state_dict())
    model["large.weight"] = torch.randn(5 * MiB)
    model["transposed.weight"] = torch.randn(2500, 2100).t()  # two blocks
    model["tied.weight"] = model["transposed.weight"]
    model["bytes"] = torch.arange(200_000).to(torch.uint8)
    return {"model": model, "optimizer": adam.state_dict()}


@pytest.fixture(scope="module")
def uploaded(server: Server) -> str:
    with server.client() as http:
        here = "/v1/models/formats/out/checkpoints"
        assert http.post(here, content=saved(checkpoint())).status_code == 201
    return f"{here}/1/state_dict"


def read(query: str, content: bytes) -> dict[str, torch.Tensor]:
    if "safetensors" in query:
        return safetensors.torch.load(content)
    return torch.load(io.BytesIO(content), weights_only=True)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_stock_readers_find_what_was_saved(http: httpx.Client, uploaded: str, query: str, tmp_path: Path) -> None:
    answer = http.get(f"{uploaded}?{query}")
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == int(answer.headers["Content-Length"])
    expected = checkpoint()["model"]
    if "optimizer" in query:
        state = checkpoint()["optimizer"]["state"]
        expected = {f"state.{i}.{key}": tensor for i in state for key, tensor in state[i].items()}
        assert "param_groups.0.lr" in answer.headers["Stateroom-Left-Out"]
    loaded = read(query, answer.content)
    assert set(loaded) == set(expected)
    for key, tensor in expected.items():
        dtype = torch.bfloat16 if "bf" in query else torch.float16 if "fp16" in query else tensor.dtype
        stays = (
            not tensor.is_floating_point() or key.endswith(".step") or ("exclude" in query and key.endswith(".bias"))
        )
        assert torch.equal(loaded[key], tensor if stays else tensor.to(dtype)), key
        assert loaded[key].dtype == (tensor.dtype if stays else dtype), key
    if "safetensors" in query:
        assert answer.headers["Content-Disposition"].endswith('.safetensors"')
        return
    path = tmp_path / "cast.pt"
    path.write_bytes(answer.content)
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert all(torch.equal(mapped[key], loaded[key]) for key in loaded)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_any_range_is_that_slice_of_the_whole(http: httpx.Client, uploaded: str, query: str) -> None:
    url = f"{uploaded}?{query}"
    whole = http.get(url)
    size = len(whole.content)
    assert http.get(url).content == whole.content
    assert http.head(url).headers["Content-Length"] == str(size)
    near = [1, 777, 64 * 1024 + 3, 4 * MiB - 1, 4 * MiB + 5, 16 * MiB - 3, 16 * MiB + 4097, size - 5001, size - 3]
    for start, end in pairwise([0, *sorted(cut for cut in near if 0 < cut < size), size]):
        part = http.get(url, headers={"Range": f"bytes={start}-{end - 1}", "If-Range": whole.headers["ETag"]})
        assert part.status_code == 206
        assert part.content == whole.content[start:end], (start, end)
    for start in range(size // 3, size // 3 + 9):  # within an element, and from each of its bytes on
        part = http.get(url, headers={"Range": f"bytes={start}-{start + 2}"})
        assert part.content == whole.content[start : start + 3]


def test_the_end_of_a_cast_file_can_be_read_before_the_rest(http: httpx.Client, uploaded: str) -> None:
    """Its directory holds checksums of bytes that nobody has made so far."""
    url = f"{uploaded}?dtype=fp16"
    tail = http.get(url, headers={"Range": "bytes=-4000"})
    whole = http.get(url)
    assert tail.content == whole.content[-4000:]
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_the_index_of_what_is_made_says_what_its_bytes_hash_to(http: httpx.Client, uploaded: str, query: str) -> None:
    layout = http.get(f"{uploaded}/index?{query}").json()
    file = http.get(layout["url"])
    assert (layout["size"], f'"{layout["etag"]}"') == (len(file.content), file.headers["ETag"])
    for storage in layout["storages"]:
        data = file.content[storage["start"] : storage["end"]]
        blocks = [data[i : i + 16 * MiB] for i in range(0, len(data), 16 * MiB)] or [b""]
        assert storage["blocks"] == [blake3(block).hexdigest() for block in blocks]


def test_checksums_are_learned_while_a_file_is_sent_and_survive_the_server(fresh_server: StartServer) -> None:
    server = fresh_server()
    here = "/v1/models/a/b/checkpoints"
    with server.client() as http:
        http.post(here, content=saved({"w": torch.randn(3 * MiB)}))
        whole = http.get(f"{here}/1/state_dict?dtype=bf16").content
    assert_soon(lambda: len(server.requests) == 2)  # the last byte is sent before the answer has ended
    server.restart()
    for pack in server.data_dir.rglob("*.pack"):  # the storage's bytes are damaged: whoever needs them would fail
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)
    with server.client() as http:
        tail = http.get(f"{here}/1/state_dict?dtype=bf16", headers={"Range": "bytes=-600"})
        assert tail.status_code == 206
        assert tail.content == whole[-600:]
        assert http.get(f"{here}/1/state_dict?dtype=bf16", headers={"Range": "bytes=9000-9009"}).status_code == 500


def test_a_server_without_torch_serves_all_but_casts(fresh_server: StartServer, tmp_path: Path) -> None:
    """``torch`` is a module that cannot be imported there, as where it was never installed."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    server = fresh_server(env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}, command=PYTHON_M_APP)
    here = "/v1/models/a/b/checkpoints"
    weight = torch.randn(40, 30)
    with server.client() as http:
        assert http.post(here, content=saved({"w": weight.t()})).status_code == 201
        for query in ("dtype=bf16", "dtype=bf16&format=safetensors"):
            for method in ("GET", "HEAD"):
                assert http.request(method, f"{here}/1/state_dict?{query}").status_code == 501
            problem = http.get(f"{here}/1/state_dict?{query}")
            assert problem.json()["code"] == "cast-unavailable"
            assert "stateroom-server[cast]" in problem.json()["detail"]
            assert http.get(f"{here}/1/state_dict/index?{query}").status_code == 501
        body = {"target": {"w": {"shape": [30, 40], "dtype": "float32"}}, "dtype": "bf16"}
        assert http.post(f"{here}/1/warmstart", json=body).status_code == 501
        loaded = safetensors.torch.load(http.get(f"{here}/1/state_dict?format=safetensors").content)
        assert torch.equal(loaded["w"], weight.t())
        assert http.get(f"{here}/1/state_dict").status_code == 200


def has_torch(server: Server) -> bool:
    return "libtorch" in Path(f"/proc/{server.pid}/maps").read_text()


def test_torch_is_imported_before_the_first_cast_and_a_stop_meanwhile_is_clean(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_PRELOAD_TORCH": "on"}, command=PYTHON_M_APP)
    assert_soon(lambda: has_torch(server))
    assert server.stop() == 0


def test_without_preloading_only_the_first_cast_imports_torch(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_PRELOAD_TORCH": "off"}, command=PYTHON_M_APP)
    here = "/v1/models/a/b/checkpoints"

    with server.client() as http:
        http.post(here, content=saved({"w": torch.randn(40, 30).t()}))
        for query in ("", "format=safetensors", "device=cuda"):
            assert http.get(f"{here}/1/state_dict?{query}").status_code == 200
        assert not has_torch(server)
        assert http.get(f"{here}/1/state_dict?dtype=bf16").status_code == 200
        assert has_torch(server)


def test_a_warm_start_of_another_dtype_and_format_says_so(http: httpx.Client, uploaded: str) -> None:
    body = {
        "target": {
            "2.weight": {"shape": [50, 60], "dtype": "bfloat16"},
            "2.bias": {"shape": [50], "dtype": "float32"},
        },
        "include": ["2.*"],
        "dtype": "bf16",
        "format": "safetensors",
    }
    report = http.post(f"{uploaded.removesuffix('/state_dict')}/warmstart", json=body).json()
    assert report["cast_keys"] == ["2.weight"]
    assert report["download"].partition("?")[0].endswith(".safetensors")
    loaded = safetensors.torch.load(http.get(report["download"]).content)
    assert {key: tensor.dtype for key, tensor in loaded.items()} == {
        "2.weight": torch.bfloat16,
        "2.bias": torch.bfloat16,
    }


def test_what_was_converted_is_a_checkpoint_like_any_other(http: httpx.Client, uploaded: str, model_name: str) -> None:
    content = http.get(f"{uploaded}?format=safetensors&dtype=bf16").content
    here = f"/v1/models/{model_name}/checkpoints"
    assert http.post(here, content=content).json()["format"] == "safetensors"
    metadata = http.get(f"{here}/1/tensors").json()["metadata"]
    assert json.loads(metadata["stateroom.shared"]) == [["transposed.weight", "tied.weight"]]
