"""Selections over HTTP: parts of a checkpoint, their layout, and the match with a target model."""

import io
import pathlib
import zipfile

import httpx
import pytest
import torch
from blake3 import blake3
from safetensors.torch import save as save_safetensors

from tests.api.conftest import Upload, load, problem, saved, state_dict

BLOCK = 16 * 1024 * 1024


def test_every_selection_has_an_etag_of_its_own(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    urls = [
        f"{checkpoints}/1/{rest}"
        for rest in (
            "original", "file", "file?device=cuda:0", "state_dict", "state_dict?device=cpu", "state_dict?device=cuda:0",
            "state_dict?format=safetensors", "state_dict?dtype=bf16", "state_dict?dtype=fp16",
            "state_dict?dtype=bf16&dtype_exclude=*.bias", "state_dict?dtype=bf16&format=safetensors",
            "tensors/conv.weight", "tensors/conv.weight?format=raw", "tensors/conv.weight?rows=0:1",
            "tensors/conv.weight?rows=1:2", "tensors/conv.weight?shard=0/2", "tensors/conv.weight?dtype=bf16",
            "state_dict?include=conv.*", "state_dict?strip_prefix=conv.", "state_dict?component=optimizer_state_dict",
        )
    ]  # fmt: skip
    etags = [http.head(url).headers["ETag"] for url in urls]
    assert len(set(etags)) == len(etags)
    assert [http.head(url).headers["ETag"] for url in urls] == etags


def test_the_query_reaches_the_file(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(saved({f"module.{key}": tensor for key, tensor in state_dict().items()}))
    params = [
        ("strip_prefix", "module."), ("include", "conv.*"), ("include", "tied.*"), ("exclude", "*.bias"),
        ("rename", "conv.=>features."), ("add_prefix", "net."), ("device", "cpu"),
    ]  # fmt: skip
    loaded = load(http.get(f"{checkpoints}/1/state_dict", params=params).content)
    assert isinstance(loaded, dict)
    assert list(loaded) == ["net.features.weight", "net.tied.weight"]
    assert torch.equal(loaded["net.features.weight"], state_dict()["conv.weight"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tensors/conv.wieght", (404, "unknown-tensor")),
        ("tensors/conv.weight?row=0:1", (422, "unknown-parameter")),
        ("tensors/conv.weight?rows=0:1&rows=1:2", (422, "repeated-parameter")),
        ("tensors/conv.weight?rows=0:9:2", (422, "bad-slice")),
        ("tensors/conv.weight?rows=0:999", (422, "bad-slice")),
        ("tensors/conv.weight?shard=2/2", (422, "bad-slice")),
        ("tensors/conv.weight?dim=1", (422, "bad-slice")),
        ("tensors/conv.weight?dim=9&shard=0/2", (422, "bad-slice")),
        ("tensors/conv.weight?dim=99&shard=0/2", (422, "invalid-value")),
        ("tensors/conv.weight?dtype=int8", (422, "unknown-dtype")),
        ("tensors/conv.weight?format=pt", (422, "unknown-format")),
        ("tensors/conv.weight?component=nothing", (422, "unknown-component")),
        ("tensors/conv.weight/index?rows=0:999", (422, "bad-slice")),
        ("tensors/%00", (404, "unknown-tensor")),
        ("tensors/param_groups.0.lr?component=optimizer_state_dict", (422, "not-one-tensor")),
        ("state_dict?inclde=conv.*", (422, "unknown-parameter")),
        ("state_dict/x.pt?Include=conv.*", (422, "unknown-parameter")),
        ("state_dict?include=nothing", (422, "no-keys-matched")),
        ("state_dict?component=nothing", (422, "unknown-component")),
        ("state_dict?device=gpu", (422, "unknown-device")),
        ("state_dict?rename=ab", (422, "bad-rename")),
        ("state_dict?include=re:(", (422, "bad-pattern")),
        ("state_dict?device=cpu&device=cuda", (422, "repeated-parameter")),
        ("state_dict?dtype=float17", (422, "unknown-dtype")),
        ("state_dict?dtype_exclude=conv.*", (422, "unknown-dtype")),
        ("state_dict?dtype=bf16&dtype_exclude=re:(", (422, "bad-pattern")),
        ("state_dict?format=safetensors&device=cpu", (422, "device-and-safetensors")),
        ("state_dict?format=onnx", (422, "unknown-format")),
        ("state_dict?plan=0123", (410, "plan-expired")),
        ("state_dict?plan=0123&device=cpu", (422, "plan-and-selection")),
        ("state_dict/index?include=nothing", (422, "no-keys-matched")),
        ("file?device=gpu", (422, "unknown-device")),
        ("file?component=a", (422, "unknown-parameter")),
        ("file?weights_only=maybe", (422, "invalid-value")),
        ("original?device=cpu", (422, "unknown-parameter")),
    ],
)
def test_a_selection_that_cannot_be_is_a_problem(
    http: httpx.Client, checkpoints: str, upload: Upload, path: str, expected: tuple[int, str]
) -> None:
    upload()
    assert problem(http.get(f"{checkpoints}/1/{path}")) == expected


def test_a_typo_is_told_what_was_near(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    answer = http.get(f"{checkpoints}/1/state_dict?inclde=conv.*").json()
    assert answer["near"][0] == "include"
    assert "did you mean 'include'?" in answer["detail"]


def test_an_object_of_unknown_classes_has_to_be_asked_for(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    assert upload(saved({"model": state_dict(), "where": pathlib.PurePosixPath("x")}))["unsafe_globals"]
    assert problem(http.get(f"{checkpoints}/1/file")) == (409, "unsafe-globals")
    assert http.get(f"{checkpoints}/1/file?weights_only=false").status_code == 200
    assert load(http.get(f"{checkpoints}/1/state_dict").content)


def test_the_index_says_where_each_storage_lies(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    answer = http.get(f"{checkpoints}/latest/state_dict/index", params={"include": "conv.*"})
    layout = answer.json()
    assert layout["url"] == f"{checkpoints}/1/state_dict?include=conv.%2A"
    file = http.get(layout["url"])
    assert (layout["size"], f'"{layout["etag"]}"') == (len(file.content), file.headers["ETag"])
    assert len(layout["storages"]) == 2
    for storage in layout["storages"]:
        data = file.content[storage["start"] : storage["end"]]
        assert storage["digest"] == f"blake3:{blake3(data).hexdigest()}"
        assert storage["blocks"] == [blake3(data).hexdigest()]


def test_the_whole_file_and_a_plan_have_an_index_too(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    target = {"conv.weight": {"shape": [64, 64], "dtype": "float32"}}
    plan = http.post(f"{checkpoints}/1/warmstart", json={"target": target}).json()["download"].partition("plan=")[2]
    for route, query in (("state_dict", {"plan": plan}), ("file", {"device": "cuda:1"})):
        layout = http.get(f"{checkpoints}/latest/{route}/index", params={**query, "derived": "false"}).json()
        file = http.get(layout["url"])
        assert (layout["size"], f'"{layout["etag"]}"') == (len(file.content), file.headers["ETag"])
        for storage in layout["storages"]:
            data = file.content[storage["start"] : storage["end"]]
            assert storage["blocks"] == [blake3(data).hexdigest()]
            assert storage["plain"]
        ends = [0, *(storage["end"] for storage in layout["storages"])]
        starts = [*(storage["start"] for storage in layout["storages"]), layout["size"]]
        between = b"".join(file.content[end:start] for end, start in zip(ends, starts, strict=True))
        assert layout["rest"] == f"blake3:{blake3(between).hexdigest()}"
        pickle = file.content[layout["pickle"]["start"] : layout["pickle"]["end"]]
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            assert pickle == archive.read("archive/data.pkl")
        assert layout["pickle"]["blocks"] == [blake3(pickle).hexdigest()]
    assert problem(http.get(f"{checkpoints}/1/state_dict/index?plan={'0' * 64}")) == (410, "plan-expired")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_the_upload_has_an_index_too(kind: str, http: httpx.Client, checkpoints: str) -> None:
    state = {"wide": torch.rand(5_000_000), "w": torch.rand(2000), "small": torch.rand(3), "again": torch.rand(2000)}
    if kind == "safetensors":
        data = save_safetensors(state)
    else:
        buffer = io.BytesIO()
        torch.save({"epoch": 3, "model": state}, buffer, _use_new_zipfile_serialization=kind == "zip")
        data = buffer.getvalue()
    http.post(checkpoints, content=data).raise_for_status()
    layout = http.get(f"{checkpoints}/latest/original/index").json()
    file = http.get(layout["url"])
    assert (layout["size"], f'"{layout["etag"]}"', file.content) == (len(data), file.headers["ETag"], data)
    assert layout["pickle"] is None
    between, end = b"", 0
    for storage in layout["storages"]:
        between += data[end : storage["start"]]
        end = storage["end"]
        stored = data[storage["start"] : end]
        blocks = [blake3(stored[at : at + BLOCK]).hexdigest() for at in range(0, len(stored), BLOCK)]
        assert storage["blocks"] == blocks
    assert layout["rest"] == f"blake3:{blake3(between + data[end:]).hexdigest()}"
    assert sorted(storage["end"] - storage["start"] for storage in layout["storages"]) == [8000, 8000, 20_000_000]


def test_an_index_without_derived_digests_makes_nothing(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    here, query = f"{checkpoints}/1/state_dict", {"dtype": "float16"}
    layout = http.get(f"{here}/index", params={**query, "derived": "false"}).json()
    assert {storage["digest"] for storage in layout["storages"]} == {None}
    assert layout["rest"] is None
    assert http.get(layout["url"]).status_code == 200
    assert http.get(f"{here}/index", params={**query, "derived": "false"}).json()["rest"].startswith("blake3:")
    assert None not in {storage["digest"] for storage in http.get(f"{here}/index", params=query).json()["storages"]}


def test_the_index_says_which_storages_torch_looks_at(http: httpx.Client, checkpoints: str) -> None:
    dense, shared = torch.rand(5000), torch.rand(5000)
    obj = {
        "dense": dense,
        "parameter": torch.nn.Parameter(dense),
        "shared": shared,
        "sparse": torch.sparse_coo_tensor(torch.arange(5000)[None], shared, (6000,), check_invariants=True),
    }
    http.post(checkpoints, content=saved(obj)).raise_for_status()
    layout = http.get(f"{checkpoints}/1/file/index").json()
    assert [storage["plain"] for storage in layout["storages"]] == [True, False, False]


def test_the_index_of_a_model_that_is_named_like_its_route_has_the_right_address(http: httpx.Client) -> None:
    here = "/v1/models/state_dict/index/checkpoints"
    version = http.post(here, content=saved(state_dict())).json()["version"]
    layout = http.get(f"{here}/latest/state_dict/index", params={"device": "cuda:0"}).json()
    assert layout["url"] == f"{here}/{version}/state_dict?device=cuda%3A0"
    assert http.head(layout["url"]).headers["ETag"] == f'"{layout["etag"]}"'


@pytest.mark.parametrize("route", ["tensors", "state_dict/index"])
@pytest.mark.parametrize("ref", ["1", "latest"])
def test_what_is_said_about_a_file_has_to_be_asked_for_again(
    http: httpx.Client, checkpoints: str, upload: Upload, route: str, ref: str
) -> None:
    upload()
    answer = http.get(f"{checkpoints}/{ref}/{route}")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = http.get(f"{checkpoints}/{ref}/{route}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_warm_start_is_known_before_a_byte_moves(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    body = {
        "target": {
            "conv.weight": {"shape": [64, 64], "dtype": "float32"},
            "conv.bias": {"shape": [32], "dtype": "torch.float32"},
            "head.weight": {"shape": [64, 64], "dtype": "float16"},
            "fc.weight": {"shape": [2], "dtype": "float32"},
        },
        "rename": [["tied.", "head."]],
    }
    report = http.post(f"{checkpoints}/latest/warmstart", json=body)
    assert report.status_code == 200, report.text
    answer = report.json()
    download = answer.pop("download")
    assert answer == {
        "matched_keys": ["conv.weight", "head.weight"],
        "missing_keys": ["fc.weight"],
        "unexpected_keys": [],
        "mismatched_keys": [{"key": "conv.bias", "have": [64], "want": [32]}],
        "resized_keys": [],
        "cast_keys": ["head.weight"],
        "bytes": 64 * 64 * 4,
    }
    loaded = load(http.get(download).content)
    assert isinstance(loaded, dict)
    assert list(loaded) == ["conv.weight", "head.weight"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "invalid-value")),
        ({"target": {"a": {"shape": [-1], "dtype": "float32"}}}, (422, "invalid-value")),
        ({"target": {}, "includ": ["a"]}, (422, "invalid-value")),
        ({"target": {}, "rename": [["a"]]}, (422, "invalid-value")),
        ({"target": {}, "device": "gpu"}, (422, "unknown-device")),
        ({"target": {}, "dtype": "int8"}, (422, "unknown-dtype")),
        ({"target": {}, "include": ["nothing"]}, (422, "no-keys-matched")),
        ({"target": {}, "component": "optimizer_state_dict"}, (422, "not-a-state-dict")),
    ],
)
def test_a_wrong_warm_start_is_a_problem(
    http: httpx.Client, checkpoints: str, upload: Upload, body: dict, expected: tuple[int, str]
) -> None:
    upload()
    assert problem(http.post(f"{checkpoints}/1/warmstart", json=body)) == expected


def test_a_warm_start_without_a_match_has_nothing_to_download(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    upload()
    answer = http.post(f"{checkpoints}/1/warmstart", json={"target": {}}).json()
    assert (answer["matched_keys"], answer["download"]) == ([], None)


def test_a_warm_start_sends_the_corner_of_a_tensor_of_another_shape(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    upload()
    weight = state_dict()["conv.weight"]
    target = {
        "conv.weight": {"shape": [10, 80], "dtype": "bfloat16"},
        "tied.weight": {"shape": [64, 3], "dtype": "float32"},
        "conv.bias": {"shape": [64], "dtype": "float64"},
    }
    body = {"target": target, "resize": "slice", "dtype": "target"}
    report = http.post(f"{checkpoints}/1/warmstart", json=body).json()
    assert report["resized_keys"] == [
        {"key": "conv.weight", "have": [64, 64], "want": [10, 80]},
        {"key": "tied.weight", "have": [64, 64], "want": [64, 3]},
    ]
    assert (report["matched_keys"], report["mismatched_keys"], report["cast_keys"]) == (
        ["conv.bias"],
        [],
        ["conv.bias"],
    )
    assert report["bytes"] == 4 * (10 * 64 + 64 * 3 + 64)
    answer = http.get(report["download"])
    loaded = load(answer.content)
    assert isinstance(loaded, dict)
    assert torch.equal(loaded["conv.weight"], weight[:10].bfloat16())
    assert torch.equal(loaded["tied.weight"], weight[:, :3])
    assert torch.equal(loaded["conv.bias"], state_dict()["conv.bias"])
    assert loaded["tied.weight"].untyped_storage().nbytes() == 64 * 3 * 4
    plain = http.post(f"{checkpoints}/1/warmstart", json={"target": target}).json()
    assert plain["resized_keys"] == []
    assert [each["key"] for each in plain["mismatched_keys"]] == ["conv.weight", "tied.weight"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"resize": "grow"}, "invalid-value"),
        ({"resize": None}, "invalid-value"),
        ({"dtype": "targets"}, "unknown-dtype"),
        ({"dtype": "target", "dtype_exclude": ["*"]}, "unknown-dtype"),
    ],
)
def test_a_warm_start_that_cannot_be_is_a_problem(
    http: httpx.Client, checkpoints: str, upload: Upload, more: dict, code: str
) -> None:
    upload()
    assert problem(http.post(f"{checkpoints}/1/warmstart", json={"target": {}, **more})) == (422, code)
