"""Merges over HTTP: a new checkpoint that equals what torch computes from the others."""

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from tests.api.conftest import Upload, general, load, problem, saved
from tests.formats import torch_files
from tests.formats.torch_files import big_endian
from tests.support.measure import long, some

Merged = Callable[..., dict[str, Any]]


@pytest.fixture
def merge(http: httpx.Client, model_name: str) -> Callable[..., httpx.Response]:
    def ask(of: Sequence[object], params: dict[str, object] | None = None, **body: object) -> httpx.Response:
        return http.post(f"/v1/models/{model_name}/merge", params=params, json={"of": of, **body})

    return ask


@pytest.fixture
def merged(http: httpx.Client, checkpoints: str, merge: Callable[..., httpx.Response]) -> Merged:
    """The state_dict of a merge, as torch loads it."""

    def ask(of: Sequence[object], **body: object) -> dict[str, Any]:
        answer = merge(of, **body)
        assert answer.status_code == 201, answer.text
        made = http.get(f"{checkpoints}/{answer.json()['version']}/state_dict")
        assert made.status_code == 200, made.text
        loaded = load(made.content)
        assert isinstance(loaded, dict)
        return loaded

    return ask


def a_state_dict(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors in the frame and blobs, views, ties, a buffer of integers, and numbers that are not finite."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    weight, table = randn(300, 200), randn(64, 64)
    odd = randn(7)
    odd[1], odd[2], odd[3] = float("nan"), float("inf"), -0.0
    return {
        "weight": weight,
        "transposed": randn(90, 120).t(),
        "tied": weight,
        "rows": table[10:20],
        "small": randn(5),
        "odd": odd,
        "scalar": randn(1)[0],
        "none": randn(0, 3),
        "expanded": randn(1, 6).expand(4, 6),
        "num_batches_tracked": torch.tensor(seed),
        "mask": torch.arange(4) == seed,
    }


def checked(made: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    assert list(made) == list(expected)
    for key, tensor in expected.items():
        assert made[key].dtype == tensor.dtype, key
        assert torch.equal(made[key].isnan(), tensor.isnan()), key
        assert torch.equal(made[key].nan_to_num(7.5), tensor.nan_to_num(7.5)), key


def combined(
    dicts: Sequence[dict[str, torch.Tensor]], compute: Callable[[list[torch.Tensor]], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The result of torch: in float32 or float64, in order, rounded once."""
    result = {}
    for key, first in dicts[0].items():
        if not first.is_floating_point():
            result[key] = dicts[-1][key]
            continue
        wide = torch.float64 if first.dtype == torch.float64 else torch.float32
        result[key] = compute([each[key].to(wide) for each in dicts]).to(first.dtype)
    return result


@long
@pytest.mark.parametrize("dtype", some([torch.float32, torch.float64, torch.bfloat16, torch.float16], 2), ids=str)
def test_an_average_is_that_of_torch_bit_for_bit(upload: Upload, merged: Merged, dtype: torch.dtype) -> None:
    dicts = [a_state_dict(seed, dtype) for seed in range(3)]
    for each in dicts:
        upload(saved(each))
    made = merged(["1", "2", "3"])
    checked(made, combined(dicts, lambda x: (x[0] + x[1] + x[2]) / 3))
    assert made["tied"].data_ptr() == made["weight"].data_ptr()
    weights = [{"ref": "1", "weight": 1}, {"ref": "2", "weight": 2}, {"ref": "3", "weight": 5}]
    checked(merged(weights), combined(dicts, lambda x: x[0] * (1 / 8) + x[1] * (2 / 8) + x[2] * (5 / 8)))


def test_linear_ema_and_slerp_are_those_of_torch(upload: Upload, merged: Merged) -> None:
    dicts = [a_state_dict(seed) for seed in range(3)]
    for each in dicts:
        upload(saved({"epoch": 1, "model_state_dict": each}))
    task = [{"ref": "1", "weight": 1}, {"ref": "2", "weight": 0.7}, {"ref": "3", "weight": -0.2}]
    made = merged(task, method="linear", normalize=False)
    checked(made, combined(dicts, lambda x: x[0] + x[1] * 0.7 + x[2] * -0.2))
    made = merged(task, method="linear", normalize=True)
    checked(made, combined(dicts, lambda x: x[0] * (1 / 1.5) + x[1] * (0.7 / 1.5) + x[2] * (-0.2 / 1.5)))
    made = merged(["1", "2", "3"], method="ema", decay=0.9)
    checked(made, combined(dicts, lambda x: 0.9 * (0.9 * x[0] + (1 - 0.9) * x[1]) + (1 - 0.9) * x[2]))

    def slerp(x: list[torch.Tensor]) -> torch.Tensor:
        one, two = (each.double().flatten() for each in x)
        fine = one.isfinite() & two.isfinite()
        cosine = torch.dot(one[fine], two[fine]) / one[fine].norm() / two[fine].norm()
        if not cosine.abs() <= 0.9995:
            return x[0] * 0.75 + x[1] * 0.25
        angle = torch.acos(cosine)
        factors = [float(torch.sin(part * angle) / torch.sin(angle)) for part in (0.75, 0.25)]
        return x[0] * factors[0] + x[1] * factors[1]

    made = merged([{"ref": "1", "weight": 3}, {"ref": "2", "weight": 1}], method="slerp")
    for key, expected in combined(dicts[:2], slerp).items():
        torch.testing.assert_close(made[key], expected, rtol=1e-6, atol=1e-7, equal_nan=True)
    assert torch.equal(made["scalar"], dicts[0]["scalar"] * 0.75 + dicts[1]["scalar"] * 0.25)


def test_sources_of_any_dtype_layout_and_format_are_merged(upload: Upload, merged: Merged) -> None:
    dicts = [a_state_dict(0, torch.bfloat16), a_state_dict(1), a_state_dict(2, torch.float64), a_state_dict(3)]
    upload(saved({"model": dicts[0], "optimizer": {"state": {}, "param_groups": []}}))
    upload(save_safetensors({key: tensor.contiguous().clone() for key, tensor in dicts[1].items() if key != "tied"}))
    loose = {key: tensor for key, tensor in dicts[0].items() if key != "tied"}
    upload(saved(loose))
    upload(big_endian(saved({key: tensor for key, tensor in dicts[2].items() if key != "tied"})))
    old = {key: tensor for key, tensor in dicts[3].items() if key != "tied"}
    upload(torch_files.saved(old, _use_new_zipfile_serialization=False))
    used = [loose, *({key: each[key] for key in loose} for each in dicts[1:])]
    made = merged(["3", "2", "4", "5"])
    checked(made, combined(used, lambda x: (x[0] + x[1] + x[2] + x[3]) / 4))
    made = merged(["4", "2"])  # the file of the first is big-endian
    checked(made, combined([used[2], used[1]], lambda x: (x[0] + x[1]) / 2))


def test_complex_numbers_are_merged(upload: Upload, merged: Merged) -> None:
    numbers = [torch.view_as_complex(torch.randn(50, 60, 2)) for _ in range(2)]
    for each in numbers:
        upload(saved({"w": each}))
    assert torch.equal(merged(["1", "2"])["w"], (numbers[0] + numbers[1]) / 2)


def test_a_merge_is_a_checkpoint_like_any_other(
    http: httpx.Client, model_name: str, checkpoints: str, upload: Upload, merge: Callable[..., httpx.Response]
) -> None:
    for seed in range(2):
        upload(general(seed=seed, epoch=seed), run="a")
    params = {"epoch": 7, "metric.acc": 0.5, "run": "soup", "tag.why": "better", "parent": f"{model_name}@2"}
    answer = merge(["1", "latest"], params, component="model_state_dict")
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{checkpoints}/3"
    made = answer.json()
    assert http.get(f"{checkpoints}/3").json() == made
    assert (made["epoch"], made["metrics"], made["run"], made["tags"]) == (7, {"acc": 0.5}, "soup", {"why": "better"})
    assert [(each["name"], each["kind"]) for each in made["components"]] == [("model_state_dict", "state_dict")]
    assert made["merge"] == {
        "method": "average",
        "component": "model_state_dict",
        "decay": None,
        "of": [{"checkpoint": f"{model_name}@{version}", "weight": 0.5} for version in (1, 2)],
    }
    whole = load(http.get(f"{checkpoints}/3/file").content)
    assert list(whole) == ["model_state_dict"]
    tensors = load_safetensors(http.get(f"{checkpoints}/3/state_dict", params={"format": "safetensors"}).content)
    assert torch.equal(tensors["conv.weight"], whole["model_state_dict"]["conv.weight"])
    lineage = http.get(f"{checkpoints}/3/lineage").json()
    assert [(each["version"], each["relation"], each["weight"]) for each in lineage["ancestors"]] == [
        (1, "merged_from", 0.5),
        (2, "merged_from", 0.5),
    ]
    descendants = http.get(f"{checkpoints}/1/lineage").json()["descendants"]
    assert [(each["version"], each["relation"], each["weight"]) for each in descendants] == [(3, "merged_from", 0.5)]
    kinds = [each["kind"] for each in http.get(f"/v1/models/{model_name}/events").json()["items"]]
    assert kinds == ["checkpoint-created"] * 3


def test_a_retry_with_the_same_key_makes_one_merge(
    http: httpx.Client, model_name: str, upload: Upload, checkpoints: str
) -> None:
    for seed in range(2):
        upload(general(seed=seed))
    url, key = f"/v1/models/{model_name}/merge", {"Idempotency-Key": "k"}
    first, second = (http.post(url, json={"of": ["1", "2"]}, headers=key) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    other = http.post(url, json={"of": ["1", "2"], "method": "ema", "decay": 0.5}, headers=key)
    assert problem(other) == (422, "idempotency-key-reused")
    assert len(http.get(checkpoints).json()["items"]) == 3


def test_state_dicts_that_do_not_fit_are_refused_with_the_keys(
    http: httpx.Client, model_name: str, upload: Upload, checkpoints: str, merge: Callable[..., httpx.Response]
) -> None:
    base = {"a": torch.ones(3), "b": torch.ones(2, 2), "n": torch.tensor(1)}
    upload(saved(base))
    upload(saved({"a": torch.ones(4), "c": torch.ones(1), "n": torch.tensor(1.0)}))
    answer = merge(["1", "2"])
    assert problem(answer) == (422, "not-mergeable")
    assert sorted(answer.json()["mismatched"], key=lambda each: each["key"]) == [
        {"checkpoint": f"{model_name}@2", "key": "a", "have": "float32[4]", "want": "float32[3]"},
        {"checkpoint": f"{model_name}@2", "key": "b", "have": None, "want": "float32[2, 2]"},
        {"checkpoint": f"{model_name}@2", "key": "c", "have": "float32[1]", "want": None},
        {"checkpoint": f"{model_name}@2", "key": "n", "have": "float32[]", "want": "int64[]"},
    ]
    assert "a: float32[4], not float32[3]" in answer.json()["detail"]
    upload(saved({"w": torch.ones(3).to(torch.float8_e4m3fn)}))
    assert problem(merge(["3", "3"])) == (422, "invalid-value")
    assert "float8_e4m3fn" in merge(["3"]).json()["detail"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated
        upload(saved({"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}))
    assert merge(["4"]).status_code == 422
    weight = torch.randn(40, 40)
    upload(saved({"a": weight, "b": weight}))
    upload(saved({"a": weight, "b": weight + 1}))
    upload(saved({"a": weight, "b": weight.clone()}))
    assert problem(merge(["5", "6"])) == (422, "not-mergeable")
    assert merge(["6", "5"]).status_code == 201
    assert merge(["5", "7"]).status_code == 201
    upload(general())
    assert problem(merge(["10"], component="optimizer_state_dict")) == (422, "not-a-state-dict")
    assert problem(merge(["10"], component="nothing")) == (422, "unknown-component")
    assert len(http.get(checkpoints).json()["items"]) == 10


@pytest.mark.parametrize(
    "body",
    [
        {"of": []},
        {"of": ["1"] * 1000},
        {"of": ["1", "1"]},
        {"of": ["1", "latest"]},
        {"of": [{"ref": "1", "weight": 1}, "2"]},
        {"of": [{"ref": "1", "weight": 1e308}, {"ref": "2", "weight": 1e308}]},
        {"of": [{"ref": "1", "weight": -1}, {"ref": "2", "weight": 1}]},
        {"of": [{"ref": "1", "weight": 0}, {"ref": "2", "weight": 0}]},
        {"of": ["1", "2"], "method": "linear"},
        {"of": [{"ref": "1", "weight": 1}, {"ref": "2", "weight": 1}], "method": "linear"},
        {"of": [{"ref": "1", "weight": 1}, {"ref": "2", "weight": -1}], "method": "linear", "normalize": True},
        {"of": ["1"], "method": "slerp"},
        {"of": ["1", "2"], "method": "ema"},
        {"of": ["1", "2"], "method": "ema", "decay": 1},
        {"of": ["1", "2"], "decay": 0.5},
        {"of": ["1", "2"], "normalize": False},
        {"of": ["1", "2"], "method": "mean"},
        {"of": ["1", "2"], "methods": "average"},
        {"of": "1"},
        {"of": [1]},
    ],
)
def test_a_merge_that_makes_no_sense_is_refused(
    http: httpx.Client, model_name: str, upload: Upload, checkpoints: str, body: dict[str, object]
) -> None:
    upload(general())
    if body["of"] != ["1", "latest"]:
        upload(general(seed=1))
    answer = http.post(f"/v1/models/{model_name}/merge", json=body)
    assert problem(answer) == (422, "invalid-value")
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        text = json.dumps({"of": [{"ref": "1", "weight": 0}]}).replace("0", number)
        refused = http.post(f"/v1/models/{model_name}/merge", content=text)
        assert refused.status_code in {400, 422}
    assert problem(http.post(f"/v1/models/{model_name}/merge", json={"of": ["99"]})) == (404, "checkpoint-not-found")
    assert all(each["merge"] is None for each in http.get(checkpoints).json()["items"])


def test_what_all_sources_share_is_kept_and_takes_no_space(
    http: httpx.Client, upload: Upload, checkpoints: str, merge: Callable[..., httpx.Response]
) -> None:
    frozen = torch.randn(700, 700)
    heads = [torch.randn(20, 20) for _ in range(5)]
    for head in heads:
        upload(saved({"frozen": frozen, "head": head}))
    made = merge(["1", "2", "3", "4", "5"]).json()
    assert made["new_bytes"] < 100_000
    loaded = load(http.get(f"{checkpoints}/6/state_dict").content)
    assert torch.equal(loaded["frozen"], frozen)
    assert torch.equal(loaded["head"], (heads[0] + heads[1] + heads[2] + heads[3] + heads[4]) / 5)
    weights = [{"ref": str(version), "weight": 1} for version in (1, 2)]
    assert merge(weights, method="linear", normalize=False).status_code == 201
    loaded = load(http.get(f"{checkpoints}/7/state_dict").content)
    assert torch.equal(loaded["frozen"], frozen + frozen)


def test_tensors_of_several_units_are_merged(http: httpx.Client, upload: Upload, merged: Merged) -> None:
    """The results are made 16 MiB at a time; views are read where they lie."""
    ones = [
        {"w": torch.randn(2301, 2003, generator=torch.Generator().manual_seed(seed)), "few": torch.randn(300)[::2]}
        for seed in range(2)
    ]
    upload(saved(ones[0]))
    upload(saved({**ones[1], "w": ones[1]["w"].t().contiguous().t()}))
    made = merged(["1", "2"], method="slerp")
    cosine = torch.nn.functional.cosine_similarity(ones[0]["w"].double().flatten(), ones[1]["w"].double().flatten(), 0)
    factor = float(torch.sin(torch.acos(cosine) / 2) / torch.sin(torch.acos(cosine)))
    torch.testing.assert_close(made["w"], ones[0]["w"] * factor + ones[1]["w"] * factor, rtol=1e-6, atol=1e-7)
    assert torch.equal(merged(["2", "1"])["w"], (ones[1]["w"] + ones[0]["w"]) / 2)


def test_shards_of_a_folder_are_merged(http: httpx.Client, checkpoints: str, upload: Upload, merged: Merged) -> None:
    dicts = [{f"{name}.weight": torch.randn(60, 60) for name in "ab"} for _ in range(2)]
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for each in dicts:
        shards = [{key: tensor} for key, tensor in each.items()]
        index = {"metadata": {}, "weight_map": dict(zip(each, names, strict=True))}
        files = [("file", (name, save_safetensors(shard))) for name, shard in zip(names, shards, strict=True)]
        files += [("file", ("model.safetensors.index.json", json.dumps(index).encode())), ("file", ("c.json", b"{}"))]
        assert http.post(checkpoints, files=files).status_code == 201
    checked(merged(["1", "2"]), combined(dicts, lambda x: (x[0] + x[1]) / 2))


def test_values_that_are_not_tensors_are_those_of_the_first(upload: Upload, merged: Merged) -> None:
    for seed in range(2):
        upload(saved({"w": torch.ones(3) * seed, "_extra_state": {"scale": torch.ones(2) * seed, "name": f"n{seed}"}}))
    made = merged(["1", "2"])
    assert torch.equal(made["w"], torch.ones(3) / 2)
    assert made["_extra_state"]["name"] == "n0"
    assert torch.equal(made["_extra_state"]["scale"], torch.zeros(2))
