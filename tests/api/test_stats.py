"""Statistics of tensors over HTTP."""

import math

import httpx
import pytest
import torch
from safetensors.torch import save as save_safetensors

from app.inside.views import PER_MESSAGE
from tests.api.conftest import Upload, saved
from tests.formats.torch_files import big_endian
from tests.support.server import Server


def stats(http: httpx.Client, url: str, **params: object) -> dict[str, dict]:
    """All statistics, by key, from as many pages as there are."""
    found: dict[str, dict] = {}
    while True:
        answer = http.get(f"{url}/stats", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found.update({item["key"]: item for item in page["items"]})
        if page["next"] is None:
            return found
        params["cursor"] = page["next"]


def test_statistics_are_of_the_elements_that_a_view_shows(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    base = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    many = torch.randn(3 * PER_MESSAGE + 5, generator=torch.Generator().manual_seed(2))
    views = {
        "whole": base,
        "transposed": base.t(),
        "column": base[:, 3],
        "part": base[10:20, 5:50],
        "repeated": base[:1].expand(500, 96),
        "few": torch.tensor([1.0, math.nan, -math.inf, 0.0]),
        "repeated few": torch.tensor(2.0).expand(70_000),
        "number": torch.tensor(3.5),
        "many": many,
        "every third": many[::3],
        "same": torch.full((5000,), 7, dtype=torch.int16),
    }
    upload(saved(views))
    found = stats(http, f"{checkpoints}/1")
    assert set(found) == set(views)
    for key, view in views.items():
        item, wide = found[key], view.to(torch.float64)
        fine = wide[wide.isfinite()]
        assert (item["shape"], item["count"]) == (list(view.shape), view.numel())
        assert (item["min"], item["max"]) == (float(fine.min()), float(fine.max()))
        assert item["mean"] == pytest.approx(float(fine.mean()), rel=1e-9, abs=1e-12)
        assert item["l2"] == pytest.approx(float(fine.norm()), rel=1e-9)
        assert item["std"] == (pytest.approx(float(fine.std()), rel=1e-9) if fine.numel() > 1 else None)
        assert sum(item["histogram"]["counts"]) == fine.numel()
        assert (item["histogram"]["low"], item["histogram"]["high"]) == (item["min"], item["max"])
        assert item["skipped"] is None
    assert [found["few"][name] for name in ("nan", "inf", "zeros")] == [1, 1, 1]


def test_a_tensor_without_numbers_says_why(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(
        saved(
            {
                "meta": torch.zeros(3, device="meta"),
                "empty": torch.zeros(0, 4),
                "pairs": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
                "endless": torch.zeros(1).expand(1 << 40),
                "there": torch.ones(2),
            }
        )
    )
    found = stats(http, f"{checkpoints}/1")
    assert found["meta"]["skipped"] == "on the meta device, without elements"
    assert "several numbers in a byte" in found["pairs"]["skipped"]
    assert "repeats its elements too often" in found["endless"]["skipped"]
    for key in ("meta", "pairs", "endless"):
        assert (found[key]["count"], found[key]["l2"], found[key]["histogram"]) == (None, None, None)
    assert found["empty"]["skipped"] is None
    assert [found["empty"][name] for name in ("count", "min", "mean", "l2", "nan")] == [0, None, None, 0.0, 0]
    assert found["there"]["l2"] == pytest.approx(math.sqrt(2))


def test_statistics_do_not_depend_on_the_format_and_the_byte_order(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    tensors = {
        "w": torch.randn(100, 70, generator=torch.Generator().manual_seed(1)),
        "b": torch.arange(9, dtype=torch.int32),
    }
    upload(saved(tensors))
    upload(save_safetensors(tensors))
    upload(big_endian(saved(tensors)))
    first, second, third = (stats(http, f"{checkpoints}/{version}") for version in (1, 2, 3))
    assert first == second == third


def test_pages_of_statistics_join_to_the_whole(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(saved({f"layer{i}.weight": torch.full((3,), float(i)) for i in range(7)}))
    url = f"{checkpoints}/1"
    whole = stats(http, url)
    assert stats(http, url, limit=3) == whole
    assert list(whole) == [f"layer{i}.weight" for i in range(7)]
    assert list(stats(http, url, include="layer[25]*")) == ["layer2.weight", "layer5.weight"]
    page = http.get(f"{url}/stats", params={"limit": 3}).json()
    for params in ({"cursor": "x"}, {"cursor": page["next"], "include": "layer*"}):
        answer = http.get(f"{url}/stats", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-cursor")
    missing = http.get(f"{url}/stats", params={"include": "nothing*"})
    assert (missing.status_code, missing.json()["code"]) == (422, "no-keys-matched")
    unknown = http.get(f"{url}/stats", params={"component": "nothing"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown-component")


def test_a_tensor_is_read_once_whatever_checkpoint_it_is_in(fresh_server) -> None:
    """Its bytes are damaged after the first look: statistics that were kept need none of them."""
    server: Server = fresh_server()
    frozen = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    with server.client() as http:
        url = "/v1/models/a/b/checkpoints"
        for epoch in (1, 2):
            file = saved({"frozen": frozen, "few": torch.ones(3), "head": torch.full((5000,), float(epoch))})
            assert http.post(url, content=file).status_code == 201
        first = stats(http, f"{url}/1")
        damage(server, frozen)
        answer = http.get(f"{url}/2/stats", params={"include": ["frozen", "few"]})
        assert answer.status_code == 200, answer.text
        for item in answer.json()["items"]:
            assert item == first[item["key"]]
        damage(server, torch.full((5000,), 2.0))
        answer = http.get(f"{url}/2/stats", params={"include": "head"})
        assert (answer.status_code, answer.json()["code"]) == (500, "damaged-blob")


def damage(server: Server, tensor: torch.Tensor) -> None:
    """Change the first byte of a tensor, wherever it is stored."""
    wanted = tensor.numpy().tobytes()
    places = 0
    for pack in (server.data_dir / "packs").rglob("*"):
        if pack.is_file() and (place := pack.read_bytes().find(wanted)) >= 0:
            with pack.open("r+b") as file:
                file.seek(place)
                file.write(bytes([wanted[0] ^ 1]))
            places += 1
    assert places
