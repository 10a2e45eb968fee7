"""One tensor over HTTP: its rows and shards, as safetensors or raw, from any file, and no more bytes than that."""

import io
from urllib.parse import quote

import httpx
import pytest
import safetensors.torch
import torch
from blake3 import blake3

from tests.api.conftest import Upload, problem, saved
from tests.support.folders import form, shards
from tests.support.measure import long, some

MiB = 1 << 20
RAW = {"Accept": "application/octet-stream"}


def tensors() -> dict[str, torch.Tensor]:
    """Several blocks; views; tensors that share a storage."""
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(5000, 1024, generator=generator)  # 20 MB: two blocks
    base = torch.randn(600, 70, generator=generator)
    return {
        "large": large,
        "transposed": base.t(),
        "offset": base[100:200, 3:40],
        "shared": base[150:],
        "expanded": torch.randn(1, 8, generator=generator).expand(50, 8),
        "a/b.w": torch.arange(6, dtype=torch.int16).view(3, 2),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.empty(0, 7),
        "flags": torch.arange(20) % 3 == 0,
        "float8": torch.randn(24, 4, generator=generator).to(torch.float8_e4m3fn),
    }


def legacy(obj: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def in_safetensors(obj: dict[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save({key: tensor.clone().contiguous() for key, tensor in obj.items()})


FILES = {"zip": saved, "legacy": legacy, "safetensors": in_safetensors}
SLICES = {
    "": lambda tensor: tensor,
    "rows=3:": lambda tensor: tensor[3:],
    "rows=-2:-1": lambda tensor: tensor[-2:-1],
    "dim=-1&shard=1/3": lambda tensor: tensor.chunk(3, -1)[1],
    "rows=1:20&shard=2/4": lambda tensor: tensor[1:20].chunk(4)[2],
}


def of_raw(answer: httpx.Response) -> torch.Tensor:
    assert answer.status_code == 200, answer.text
    dtype = getattr(torch, answer.headers["Stateroom-Dtype"])
    shape = [int(size) for size in answer.headers["Stateroom-Shape"].split(",") if size]
    data = bytearray(answer.content)
    return torch.frombuffer(data, dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)


@long
@pytest.mark.parametrize("kind", FILES)
def test_a_slice_is_that_of_torch_and_nothing_else_is_sent(
    http: httpx.Client, checkpoints: str, upload: Upload, kind: str
) -> None:
    upload(FILES[kind](tensors()))
    for key, tensor in tensors().items():
        url = f"{checkpoints}/1/tensors/{quote(key, safe='')}"
        for query, slice_ in some(SLICES.items(), 1 if kind == "zip" else 2):
            if query and (tensor.dim() == 0 or len(tensor) < 9):
                continue
            expected = slice_(tensor)
            got = of_raw(http.get(f"{url}?{query}", headers=RAW))
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape), (key, query)
            assert torch.equal(got.float(), expected.float()), (key, query)
            answer = http.get(f"{url}?{query}")
            (name, one), *others = safetensors.torch.load(answer.content).items()
            assert (name, others) == (key, [])
            assert torch.equal(one.float(), expected.float()), (key, query)
            assert len(answer.content) <= 1.02 * expected.nbytes + 64 * 1024


def test_a_tensor_is_a_download_like_any_other(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(saved({"w": torch.arange(4000.0).view(100, 40)}))
    url = f"{checkpoints}/latest/tensors/w?rows=10:20"
    whole = http.get(url, headers=RAW)
    assert whole.headers["Content-Type"] == "application/octet-stream"
    assert whole.headers["Content-Length"] == "1600"
    assert whole.headers["Vary"] == "Accept"
    assert (whole.headers["Stateroom-Dtype"], whole.headers["Stateroom-Shape"]) == ("float32", "10, 40")
    assert whole.headers["Content-Location"] == f"{checkpoints}/1/tensors/w?rows=10%3A20"

    head = http.head(url, headers=RAW)
    assert (head.content, head.headers["Content-Length"]) == (b"", "1600")
    part = http.get(url, headers={**RAW, "Range": "bytes=100-199", "If-Range": whole.headers["ETag"]})
    assert (part.status_code, part.headers["Content-Range"]) == (206, "bytes 100-199/1600")
    assert part.content == whole.content[100:200]
    assert http.get(url, headers={**RAW, "Range": "bytes=1600-"}).status_code == 416
    assert http.get(url, headers={**RAW, "If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert http.get(url, headers={**RAW, "If-Match": '"other"'}).status_code == 412

    file = http.get(url)
    assert file.headers["Content-Type"] == "application/x-safetensors"
    assert file.headers["ETag"] != whole.headers["ETag"]
    assert http.get(f"{url}&format=raw").headers["ETag"] == whole.headers["ETag"]
    assert http.get(f"{url}&format=safetensors", headers=RAW).content == file.content
    both = {"Accept": "application/x-safetensors, application/octet-stream;q=0.5"}
    assert http.get(url, headers=both).content == file.content


@pytest.mark.parametrize("form", ["raw", "safetensors"])
def test_the_index_tells_where_the_elements_lie_and_their_digest(
    http: httpx.Client, checkpoints: str, upload: Upload, form: str
) -> None:
    large = tensors()["large"]
    upload(saved({"w": large, "a/b": large.t()}))
    for query in ("rows=4000:4100", "rows=:", "dim=1&shard=0/4", "rows=5:5"):
        for key in ("w", "a%2Fb"):
            if key != "w" and query.startswith("rows=4000"):
                continue
            answer = http.get(f"{checkpoints}/latest/tensors/{key}/index?{query}&format={form}")
            index = answer.json()
            file = http.get(index["url"])
            (storage,) = index["storages"]
            assert (len(file.content), f'"{index["etag"]}"') == (index["size"], file.headers["ETag"])
            assert answer.headers["Stateroom-Shape"] == file.headers["Stateroom-Shape"]
            body = file.content[storage["start"] : storage["end"]]
            assert storage["end"] == index["size"]
            assert blake3(body[: 16 * MiB]).hexdigest() == storage["blocks"][0]
            lazy = http.get(f"{checkpoints}/latest/tensors/{key}/index?{query}&format={form}&derived=false").json()
            assert lazy["storages"][0]["digest"] in {None, storage["digest"]}


def test_an_optimizers_tensor_and_one_that_several_components_have(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    upload()
    url = f"{checkpoints}/1/tensors"
    momentum = of_raw(http.get(f"{url}/state.0.momentum_buffer", headers=RAW))
    assert torch.equal(momentum, torch.ones(2, 64))
    upload(saved({"a": {"w": torch.ones(1)}, "b": {"w": torch.zeros(1)}}))
    answer = http.get(f"{checkpoints}/2/tensors/w")
    assert problem(answer) == (422, "tensor-ambiguous")
    assert answer.json()["near"] == ["a", "b"]
    assert of_raw(http.get(f"{checkpoints}/2/tensors/w?component=b", headers=RAW)).item() == 0


def test_a_key_that_is_not_there_is_told_what_was_near(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    answer = http.get(f"{checkpoints}/1/tensors/conv.wieght")
    assert problem(answer) == (404, "unknown-tensor")
    assert answer.json()["near"][0] == "conv.weight"
    answer = http.get(f"{checkpoints}/1/tensors/conv.weight?rows=60:65")
    assert "has shape [64, 64]" in answer.json()["detail"]
    assert http.head(f"{checkpoints}/1/tensors/conv.wieght").status_code == 404


def test_a_tensor_without_elements_is_refused_with_the_reason(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    upload(saved({"w": torch.ones(1), "meta": torch.empty(2, 3, device="meta"), "s": torch.eye(3).to_sparse_coo()}))
    for key, why in (("meta", "on the meta device"), ("s", "sparse")):
        answer = http.get(f"{checkpoints}/1/tensors/{key}")
        assert problem(answer) == (422, "not-one-tensor")
        assert why in answer.json()["detail"]


def test_a_tensor_of_a_folder_of_shards_is_found_in_its_shard(http: httpx.Client, checkpoints: str) -> None:
    assert http.post(checkpoints, files=form(shards())).status_code == 201
    assert torch.equal(of_raw(http.get(f"{checkpoints}/1/tensors/a?rows=-3:", headers=RAW)), torch.arange(4_000.0)[-3:])
    assert torch.equal(of_raw(http.get(f"{checkpoints}/1/tensors/b", headers=RAW)), torch.ones(3))
