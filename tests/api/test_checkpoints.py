"""Checkpoints and models as JSON."""

import httpx
import pytest
import torch

from tests.api.conftest import Upload, general, problem, saved, state_dict

FIELDS = [
    "model", "version", "run", "epoch", "step", "loss", "metrics", "tags", "aliases", "nonfinite", "format",
    "devices", "components", "more_components", "unsafe_globals", "bytes", "new_bytes", "digest", "sha256",
    "created_at", "parent", "warm_started_from", "merge", "pin", "slot", "expires_at", "thinned_at",
    "nonfinite_tensors", "deleted_at", "deleted_by", "deleted_reason", "purged_at", "urls",
]  # fmt: skip


def test_a_checkpoint_reads_as_the_contract_says(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    file = general(seed=2_026)  # which no other test has stored
    answer = upload(file, run="a")
    assert list(answer) == FIELDS
    assert answer == http.get(f"{checkpoints}/1").json()
    assert answer["format"] == "torch_zip"
    assert answer["devices"] == ["cpu"]
    assert [(c["name"], c["kind"], c["keys"]) for c in answer["components"]] == [
        ("model_state_dict", "state_dict", 3),
        ("optimizer_state_dict", "optimizer", 2),
    ]
    assert answer["bytes"] == len(file)
    assert answer["new_bytes"] > 0
    assert answer["digest"].startswith("blake3:")
    assert answer["created_at"].endswith("Z")


def test_every_url_in_a_checkpoint_works_and_ends_in_a_name_of_its_own(http: httpx.Client, upload: Upload) -> None:
    checkpoint = upload()
    urls = [*checkpoint["urls"].values(), *(component["url"] for component in checkpoint["components"])]
    for url in urls:
        assert http.get(url).status_code == 200, url
    names = [httpx.URL(url).path.rsplit("/", 1)[1] for url in urls if ".pt" in url]
    assert len(set(names)) == len(names) == 5


def test_an_ambiguous_default_has_no_url(upload: Upload) -> None:
    checkpoint = upload(saved({"modelA": state_dict(), "modelB": state_dict(1)}))
    assert checkpoint["urls"]["state_dict"] is None
    assert [c["name"] for c in checkpoint["components"]] == ["modelA", "modelB"]


def test_what_is_not_finite_reads_null_and_is_named(upload: Upload) -> None:
    checkpoint = upload(general(loss=float("nan")), **{"metric.acc": "inf", "metric.f1": "0.5"})
    assert checkpoint["loss"] is None
    assert checkpoint["metrics"] == {"acc": None, "f1": 0.5}
    assert checkpoint["nonfinite"] == ["loss", "metric.acc"]


def test_refs_pick_what_they_say_and_name_what_they_picked(
    http: httpx.Client, checkpoints: str, model_name: str, upload: Upload
) -> None:
    for epoch, loss, run in ((1, 0.5, "a"), (2, 0.1, "a"), (3, 0.9, "b")):
        upload(general(epoch=epoch, loss=loss, seed=epoch), run=run, **{"metric.val/acc": 1 - loss})
    picks = {
        "2": 2, "v3": 3, "latest": 3, "best": 2, "min:loss": 2, "max:loss": 3, "epoch:1": 1, "epoch%3A1": 1,
        "max:val%2Facc": 2, "min%3Aval%2facc": 3, "latest?run=a": 2, "best?run=b": 3,
    }  # fmt: skip
    for ref, version in picks.items():
        answer = http.get(f"{checkpoints}/{ref}")
        assert answer.json()["version"] == version, ref
        assert answer.headers["Stateroom-Checkpoint"] == f"{model_name}@{version}"
        assert answer.headers["Cache-Control"] == "no-cache"  # metrics and tags may change
        fixed = ref in {"2", "v3"}
        assert answer.headers.get("Content-Location") == (None if fixed else f"{checkpoints}/{version}")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/9", (404, "checkpoint-not-found")),
        ("/epoch:77", (404, "checkpoint-not-found")),
        ("/1?run=other", (404, "checkpoint-not-found")),
        ("/1!", (422, "bad-ref")),
        ("/min:", (422, "bad-ref")),
        ("/1/nothing", (404, "no-such-route")),
        ("/", (404, "no-such-route")),
    ],
)
def test_a_ref_that_picks_nothing_is_a_problem(
    http: httpx.Client, checkpoints: str, upload: Upload, path: str, expected: tuple[int, str]
) -> None:
    upload()
    assert problem(http.get(checkpoints + path)) == expected


def test_an_unchanged_checkpoint_is_not_sent_again(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    first = http.get(f"{checkpoints}/latest")
    etag = first.headers["ETag"]
    again = http.get(f"{checkpoints}/latest", headers={"If-None-Match": f'"x", {etag}'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    http.patch(f"{checkpoints}/1", json={"tags": {"a": "b"}})
    assert http.get(f"{checkpoints}/latest", headers={"If-None-Match": etag}).status_code == 200


def test_evaluation_comes_after_the_save(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(**{"metric.a": 1, "tag.x": "y"})
    answer = http.patch(f"{checkpoints}/latest", json={"metrics": {"acc": 0.9, "a": None}, "tags": {"z": "zoë"}})
    assert answer.status_code == 200
    assert answer.json()["metrics"] == {"acc": 0.9}
    assert answer.json()["tags"] == {"x": "y", "z": "zoë"}
    assert answer.headers["Stateroom-Checkpoint"].endswith("@1")
    assert http.get(f"{checkpoints}/max:acc").json()["version"] == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (400, "malformed-request")),
        (b"[]", (422, "invalid-value")),
        (b'{"metric": {"a": 1}}', (422, "invalid-value")),
        (b'{"metrics": {"a": "high"}}', (422, "invalid-value")),
        (b'{"tags": {"a": 1}}', (422, "invalid-value")),
        (b'{"metrics": {"": 1}}', (422, "bad-metric")),
        (b'{"metrics": {"loss": 1}}', (422, "bad-metric")),
        (b'{"tags": {"a\\u0000": "b"}}', (422, "bad-text")),
    ],
)
def test_a_wrong_change_is_refused(
    http: httpx.Client, checkpoints: str, upload: Upload, body: bytes, expected: tuple[int, str]
) -> None:
    before = upload()
    assert problem(http.patch(f"{checkpoints}/1", content=body)) == expected
    assert http.get(f"{checkpoints}/1").json() == before


def test_only_a_number_is_deleted(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    upload()
    for ref in ("latest", "best", "epoch:3", "min:loss", "prod"):
        assert problem(http.delete(f"{checkpoints}/{ref}")) == (422, "moving-ref")
    answer = http.delete(f"{checkpoints}/v2")
    assert (answer.status_code, answer.content) == (204, b"")
    assert problem(http.delete(f"{checkpoints}/2")) == (404, "checkpoint-not-found")
    assert problem(http.get(f"{checkpoints}/2")) == (404, "checkpoint-not-found")
    assert upload()["version"] == 3


def test_a_listing_is_filtered_ordered_and_paged(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    for epoch in range(1, 6):
        upload(general(epoch=epoch, loss=1 / epoch), run="ab"[epoch % 2], **{"metric.acc": epoch / 10, "tag.x": "y"})

    def versions(**params: object) -> list[int]:
        answer = http.get(checkpoints, params=params)
        assert answer.status_code == 200, answer.text
        return [item["version"] for item in answer.json()["items"]]

    assert versions() == [5, 4, 3, 2, 1]
    assert versions(order="loss") == [5, 4, 3, 2, 1]
    assert versions(order="-loss", limit=2) == [1, 2]
    assert versions(**{"epoch.ge": 3, "epoch.lt": 5}) == [4, 3]
    assert versions(**{"metric.acc.gt": 0.35}) == [5, 4]
    assert versions(epoch=2) == [2]
    assert versions(run="b") == [5, 3, 1]
    assert versions(**{"tag.x": "n"}) == []
    seen, cursor = [], None
    while True:
        page = http.get(
            checkpoints, params={"limit": 2, "order": "epoch", **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [item["epoch"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=0", (422, "invalid-value")),
        ("limit=x", (422, "invalid-value")),
        ("limit=1&limit=2", (422, "repeated-parameter")),
        ("cursor=%00", (422, "bad-cursor")),
        ("order=colour", (422, "bad-order")),
        ("epoch.ge=x", (422, "bad-filter")),
        ("epoch.gte=3", (422, "bad-filter")),
        ("ordr=epoch", (422, "unknown-parameter")),
    ],
)
def test_a_listing_that_cannot_be_is_a_problem(
    http: httpx.Client, checkpoints: str, upload: Upload, query: str, expected: tuple[int, str]
) -> None:
    upload()
    assert problem(http.get(f"{checkpoints}?{query}")) == expected


def test_tensors_are_listed_with_what_they_share(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    answer = http.get(f"{checkpoints}/1/tensors", params={"component": "model_state_dict"})
    weight, bias, tied = answer.json()["items"]
    assert weight == {
        "component": "model_state_dict",
        "key": "conv.weight",
        "dtype": "float32",
        "shape": [64, 64],
        "stride": [64, 1],
        "device": "cpu",
        "bytes": 64 * 64 * 4,
        "digest": tied["digest"],
        "shared_with": ["tied.weight"],
        "shared_count": 1,
    }
    assert weight["digest"].startswith("blake3:")
    assert (bias["digest"], bias["shared_with"]) == (None, [])
    assert tied["shared_with"] == ["conv.weight"]


def test_an_optimizers_param_groups_are_json(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    listing = http.get(f"{checkpoints}/1/tensors", params={"component": "optimizer_state_dict"}).json()
    (optimizer,) = listing["components"]
    assert optimizer["param_groups"][0]["lr"] == 0.001
    assert optimizer["param_groups"][0]["params"] == [0, 1]
    assert [item["key"] for item in listing["items"]] == ["state.0.momentum_buffer", "state.1.momentum_buffer"]


def test_tensors_come_in_pages(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    whole = http.get(f"{checkpoints}/1/tensors").json()
    assert whole["next"] is None
    keys, cursor = [], None
    for _ in range(10):
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = http.get(f"{checkpoints}/1/tensors", params=params).json()
        keys += [item["key"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert keys == [item["key"] for item in whole["items"]]
    assert problem(http.get(f"{checkpoints}/1/tensors", params={"cursor": "x"})) == (422, "bad-cursor")
    wrong = http.get(f"{checkpoints}/1/tensors", params={"component": "modle_state_dict"})
    assert problem(wrong) == (422, "unknown-component")
    assert wrong.json()["near"][0] == "model_state_dict"


def test_keys_that_are_no_unicode_are_shown_all_the_same(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    uploaded = upload(saved({"\ud800": {"w\udfff": torch.ones(2), "x": torch.ones(2)}}))
    assert [component["name"] for component in uploaded["components"]] == ["\\ud800"]
    assert [item["key"] for item in http.get(f"{checkpoints}/1/tensors").json()["items"]] == ["w\\udfff", "x"]
    assert http.get(checkpoints).json()["items"] == [uploaded]
    assert http.get(uploaded["urls"]["state_dict"]).status_code == 200
    report = http.post(f"{checkpoints}/1/warmstart", json={"target": {"x": {"shape": [2], "dtype": "float32"}}}).json()
    assert report["unexpected_keys"] == ["w\\udfff"]


def test_a_model_has_its_latest_and_its_best(
    http: httpx.Client, checkpoints: str, model_name: str, upload: Upload
) -> None:
    url = f"/v1/models/{model_name}"
    assert problem(http.get(url)) == (404, "model-not-found")
    upload(general(loss=0.1), **{"metric.acc": 0.1})
    upload(general(loss=0.9), **{"metric.acc": 0.9})
    model = http.get(url).json()
    assert (model["model"], model["best"], model["checkpoints"], model["url"]) == (model_name, "min:loss", 2, url)
    assert (model["latest_checkpoint"]["version"], model["best_checkpoint"]["version"]) == (2, 1)
    changed = http.patch(url, json={"best": "max:acc"})
    assert changed.json()["best_checkpoint"]["version"] == 2
    assert http.get(f"{checkpoints}/best").json()["version"] == 2
    assert problem(http.patch(url, json={"best": "acc"})) == (422, "bad-best")
    http.patch(url, json={"best": "max:nowhere"})
    assert http.get(url).json()["best_checkpoint"] is None


def test_models_are_listed_by_name(http: httpx.Client, model_name: str, upload: Upload) -> None:
    upload()
    names: list[str] = []
    cursor = None
    while True:
        page = http.get("/v1/models", params={"limit": 1, **({"cursor": cursor} if cursor else {})}).json()
        names += [item["model"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert model_name in names
    assert names == sorted(names)


def test_tensors_without_bytes_are_listed_and_share_nothing(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    tensors = {"a": torch.empty(2, 3, device="meta"), "b": torch.empty((), device="meta")}
    upload(saved({"model": {**tensors, "lazy": torch.nn.UninitializedParameter()}}))
    items = http.get(f"{checkpoints}/1/tensors").json()["items"]
    assert [(each["key"], each["shape"], each["device"], each["bytes"], each["digest"]) for each in items] == [
        ("a", [2, 3], "meta", 0, None), ("b", [], "meta", 0, None), ("lazy", None, "cpu", 0, None),
    ]  # fmt: skip
    assert [each["shared_count"] for each in items] == [0, 0, 0]


def test_where_the_model_could_not_be_read_nothing_is_served_in_its_place(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    answer = upload(saved({"model": {0: torch.ones(2)}, "ema": state_dict(), "epoch": 3}))
    assert answer["urls"]["state_dict"] is None
    assert http.get(f"{checkpoints}/1").json() == answer
    refusal = http.get(f"{checkpoints}/1/state_dict")
    assert problem(refusal) == (422, "component-ambiguous")
    assert refusal.json()["near"] == ["ema"]
    assert http.get(f"{checkpoints}/1/state_dict?component=ema").status_code == 200


def test_what_is_left_out_is_named_and_nothing_at_all_is_refused(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    upload(saved({"model": {**state_dict(), "odd": slice(1), "note": "row"}, "ema": state_dict()}))
    answer = http.get(f"{checkpoints}/1/state_dict")
    assert answer.headers["Stateroom-Left-Out"] == "odd"
    upload(saved({"model": {"w": torch.nn.UninitializedParameter(), "note": "row"}}))
    refusal = http.get(f"{checkpoints}/2/state_dict")
    assert problem(refusal) == (422, "component-empty")
    assert "UninitializedParameter" in refusal.json()["detail"]
