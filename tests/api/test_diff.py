"""Differences of checkpoints over HTTP."""

import math
from collections.abc import Callable
from urllib.parse import quote

import httpx
import pytest
import torch
from safetensors.torch import save as save_safetensors

from tests.api.conftest import Upload, general, saved
from tests.formats.torch_files import big_endian
from tests.support.server import Server
from tests.support.tokens import bearer, catalog_url, make_token

Diff = Callable[..., dict]


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def diff(http: httpx.Client, checkpoints: str) -> Diff:
    """Compares two versions; all pages of the answer as one."""

    def compare(base: object, other: object, **params: object) -> dict:
        whole: dict = {}
        while True:
            answer = http.get(f"{checkpoints}/{base}/diff/{quote(str(other), safe='')}", params=params)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            whole = {**page, "items": [*whole.get("items", ()), *page["items"]]}
            if page["next"] is None:
                return whole
            params["cursor"] = page["next"]

    return compare


def statuses(found: dict) -> dict[str, str]:
    return {item["key"]: item["status"] for item in found["items"]}


def test_each_key_is_the_same_or_changed_or_added_or_removed_or_moved(upload: Upload, diff: Diff) -> None:
    large, small = randn(64, 64, seed=1), randn(8, seed=2)
    old = {
        "same": large,
        "few": small,
        "changed": randn(64, 64, seed=3),
        "few changed": torch.ones(3),
        "gone": large[0],
    }
    new = {**old, "changed": randn(64, 64, seed=4), "few changed": torch.zeros(3), "new": randn(5, seed=5)}
    del new["gone"]
    old |= {"old name": randn(70, 70, seed=6), "few old": torch.arange(5), "cast": large, "shape": torch.zeros(4)}
    new |= {"new name": old["old name"], "few new": torch.arange(5), "cast": large.half(), "shape": torch.zeros(2, 2)}
    upload(saved(old))
    upload(saved(new))
    found = diff(1, 2)
    assert statuses(found) == {
        "same": "same",
        "few": "same",
        "changed": "changed",
        "few changed": "changed",
        "gone": "removed",
        "cast": "changed",
        "shape": "changed",
        "new": "added",
        "new name": "moved",
        "few new": "moved",
    }
    assert found["summary"] == {"same": 2, "changed": 4, "added": 1, "removed": 1, "moved": 2}
    by_key = {item["key"]: item for item in found["items"]}
    assert by_key["new name"]["moved_from"] == "old name"
    assert by_key["few new"]["moved_from"] == "few old"
    assert (by_key["cast"]["base"]["dtype"], by_key["cast"]["other"]["dtype"]) == ("float32", "float16")
    assert (by_key["shape"]["base"]["shape"], by_key["shape"]["other"]["shape"]) == ([4], [2, 2])
    assert (by_key["new"]["base"], by_key["gone"]["other"]) == (None, None)
    back = diff(2, 1)
    assert back["summary"] == {"same": 2, "changed": 4, "added": 1, "removed": 1, "moved": 2}
    assert statuses(back)["new"] == "removed"
    assert diff(1, 1)["summary"]["same"] == len(old)
    assert diff(1, 2, limit=2)["items"] == found["items"]


def test_values_are_compared_whatever_the_layout_and_the_format(upload: Upload, diff: Diff) -> None:
    w, table = randn(50, 60, seed=1), randn(400, 30, seed=2)
    views = {"w": w.t(), "part": table[100:300], "whole": table, "few": torch.arange(8)[::2], "bits": torch.ones(3) > 0}
    upload(saved({"model_state_dict": views, "epoch": 1}))
    upload(save_safetensors({key: view.contiguous().clone() for key, view in views.items()}))
    upload(big_endian(saved(views)))
    assert set(statuses(diff(1, 3)).values()) == {"same"}
    assert set(statuses(diff(1, 2)).values()) == {"same"}
    assert set(statuses(diff(2, 1)).values()) == {"same"}
    moved = {**views, "part": table[101:301], "w": w.t() + 1}
    upload(saved({"model_state_dict": moved}))
    assert statuses(diff(1, 4)) == {"w": "changed", "part": "changed", "whole": "same", "few": "same", "bits": "same"}
    assert diff(2, 4)["summary"] == diff(1, 4)["summary"]


def test_components_are_compared_by_name(upload: Upload, diff: Diff, http: httpx.Client, checkpoints: str) -> None:
    upload(general(epoch=1, seed=1))
    upload(general(epoch=2, seed=2))
    upload(saved({"other.weight": torch.ones(3)}))
    found = diff(1, 2)
    assert {item["component"] for item in found["items"]} == {"model_state_dict", "optimizer_state_dict"}
    assert found["summary"]["changed"] == 3
    model = diff(1, 2, component="model_state_dict")
    assert model["items"] == [item for item in found["items"] if item["component"] == "model_state_dict"]
    assert statuses(diff(1, 3, component="model_state_dict"))["other.weight"] == "added"
    unknown = http.get(f"{checkpoints}/1/diff/2", params={"component": "modle_state_dict"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown-component")
    assert unknown.json()["near"][0] == "model_state_dict"


def test_a_numeric_diff_measures_what_changed(upload: Upload, diff: Diff) -> None:
    a, b = randn(70, 90, seed=1), randn(70, 90, seed=2)
    infinite = a.clone()
    infinite[3, 4] = math.inf
    upload(saved({"w": a, "cast": a, "shape": a, "inf": a, "same": a[:2], "z": torch.zeros(3), "c": a[:3].cfloat()}))
    upload(
        saved(
            {
                "w": b,
                "cast": b.bfloat16().t().contiguous().t(),
                "shape": b[:3],
                "inf": infinite,
                "same": a[:2].clone(),
                "z": torch.ones(3),
                "c": b[:3].cfloat(),
            }
        )
    )
    found = {item["key"]: item for item in diff(1, 2, numeric=True)["items"]}
    for key, other in (("w", b), ("cast", b.bfloat16())):
        one, two = a.double().flatten(), other.double().flatten()
        assert found[key]["max_abs"] == pytest.approx(float((two - one).abs().max()))
        assert found[key]["l2"] == pytest.approx(float((two - one).norm()))
        assert found[key]["relative_l2"] == pytest.approx(float((two - one).norm() / one.norm()))
        assert found[key]["cosine"] == pytest.approx(float(one.dot(two) / one.norm() / two.norm()))
        assert found[key]["nonfinite"] == 0
    assert (found["inf"]["max_abs"], found["inf"]["nonfinite"]) == (0.0, 1)
    assert (found["z"]["l2"], found["z"]["relative_l2"]) == (pytest.approx(math.sqrt(3)), None)
    for key in ("shape", "same", "c"):
        assert (found[key]["max_abs"], found[key]["cosine"]) == (None, None)
    assert found["same"]["status"] == "same"
    assert {item["max_abs"] for item in diff(1, 2)["items"]} == {None}


def test_a_diff_without_numbers_reads_no_tensor(fresh_server) -> None:
    """All bytes but the frames' and the manifests' are gone."""
    server: Server = fresh_server()
    with server.client() as http:
        url = "/v1/models/a/b/checkpoints"
        for seed in (1, 2):
            file = saved({"w": randn(500, 500, seed=seed), "frozen": randn(400, 400, seed=9), "b": torch.ones(3)})
            assert http.post(url, content=file).status_code == 201
        zeroed = 0
        for pack in (server.data_dir / "packs").rglob("*"):
            if pack.is_file():
                data = pack.read_bytes()
                for tensor in (randn(500, 500, seed=1), randn(500, 500, seed=2), randn(400, 400, seed=9)):
                    raw = tensor.numpy().tobytes()
                    zeroed += data.count(raw)
                    data = data.replace(raw, bytes(len(raw)))
                pack.write_bytes(data)
        assert zeroed >= 3
        answer = http.get(f"{url}/1/diff/2")
        assert answer.json()["summary"] == {"same": 2, "changed": 1, "added": 0, "removed": 0, "moved": 0}
        answer = http.get(f"{url}/1/diff/2", params={"numeric": True})
        assert (answer.status_code, answer.json()["code"]) == (500, "damaged-blob")


def test_the_other_checkpoint_may_be_of_another_model_that_the_token_may_read(fresh_server) -> None:
    server: Server = fresh_server(env={"STATEROOM_SERVER_TOKEN": "x" * 40})
    admin = bearer("x" * 40)
    with server.client() as http:
        for model, value in (("a/m", 1.0), ("b/m", 2.0)):
            file = saved({"w": torch.full((2000,), value)})
            assert http.post(f"/v1/models/{model}/checkpoints", content=file, headers=admin).status_code == 201
        url = "/v1/models/a/m/checkpoints/1/diff/"
        found = http.get(url + quote("b/m@latest", safe=""), headers=admin).json()
        assert (found["base"], found["other"], found["summary"]["changed"]) == ("a/m@1", "b/m@1", 1)
        limited = bearer(make_token(catalog_url(server), "reader", "read", "a"))
        refused = http.get(url + quote("b/m@1", safe=""), headers=limited)
        missing = http.get(url + quote("c/m@1", safe=""), headers=limited)
        assert refused.status_code == missing.status_code == 404
        assert refused.json()["detail"].replace("b/m", "c/m") == missing.json()["detail"]
        assert missing.json()["detail"] == http.get(url + quote("c/m@1", safe=""), headers=admin).json()["detail"]
        assert http.get(url + "a%2Fm@1", headers=limited).json()["summary"]["same"] == 1
        assert http.get(url + "2", headers=limited).json()["code"] == "checkpoint-not-found"
