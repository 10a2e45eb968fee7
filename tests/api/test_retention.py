"""Retention over HTTP: rules, their preview, slots, times of expiry, and thinned checkpoints."""

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import torch
from sqlalchemy import update

from app.catalog import Catalog, tables
from tests.api.conftest import general, load, problem, saved
from tests.conftest import StartServer
from tests.support.commands import run
from tests.support.negotiating import InParts
from tests.support.server import Server
from tests.support.tokens import catalog_url
from tests.support.waiting import assert_soon


def adam(seed: int, size: int = 64) -> bytes:
    """A model and its Adam optimizer, whose moments have twice the model's bytes, and are new at each step."""
    generator = torch.Generator().manual_seed(seed)
    weight, *moments = (torch.randn(size, size, generator=generator) for _ in range(3))
    state = {0: {"step": torch.tensor(float(seed)), "exp_avg": moments[0], "exp_avg_sq": moments[1]}}
    groups = [{"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-08, "weight_decay": 0, "amsgrad": False, "params": [0]}]
    return saved({"epoch": seed, "model": {"weight": weight}, "optimizer": {"state": state, "param_groups": groups}})


@pytest.fixture
def model(model_name: str) -> str:
    return f"/v1/models/{model_name}"


def versions(http: httpx.Client, model: str, **query: str) -> list[int]:
    return sorted(each["version"] for each in http.get(f"{model}/checkpoints", params=query).json()["items"])


def save(http: httpx.Client, model: str, file: bytes, **fields: object) -> dict:
    answer = http.post(f"{model}/checkpoints", content=file, params=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_preview_says_what_the_next_commit_does(http: httpx.Client, model: str) -> None:
    file = general()
    for version in range(1, 6):
        save(http, model, file, run="a", epoch=version, loss=abs(version - 3))
    save(http, model, file, run="b")
    http.put(f"{model}/aliases/prod", json={"ref": 1})
    http.put(f"{model}/checkpoints/2/pin", json={})
    rules = {"keep_last": 1, "keep_best": [{"by": "min:loss", "count": 1}]}
    preview = http.post(f"{model}/retention/preview", json={"retention": rules}).json()
    assert preview["trashed"] == [{"version": 4, "reason": "retention"}]
    assert preview["kept"] == [
        {"version": 1, "by": ["alias prod"]},
        {"version": 2, "by": ["pin"]},
        {"version": 3, "by": ["keep_best min:loss"]},
        {"version": 5, "by": ["newest", "keep_last"]},
        {"version": 6, "by": ["newest", "keep_last", "keep_best min:loss"]},
    ]
    assert (preview["trashed_count"], preview["kept_count"], preview["trash_bytes"]) == (1, 5, 0)  # the same bytes
    assert http.post(f"{model}/retention/preview", json={}).json()["trashed"] == []  # it has no rules yet
    assert versions(http, model) == [1, 2, 3, 4, 5, 6]

    changed = http.patch(model, json={"retention": rules}).json()
    assert changed["best"] == "min:loss"
    assert changed["retention"] == {**rules, "keep_every": None, "keep_for": None, "thin_after": None}
    assert http.post(f"{model}/retention/preview", json={}).json() == preview
    save(http, model, file, run="b")
    assert versions(http, model) == [1, 2, 3, 4, 5, 7]  # rules hold per run, and this was a commit to b
    save(http, model, file, run="a", loss=9)
    assert versions(http, model) == [1, 2, 3, 7, 8]
    assert versions(http, model, trash="true") == [4, 5, 6]
    assert http.patch(model, json={"best": "max:loss"}).json()["retention"]["keep_last"] == 1
    assert http.patch(model, json={"retention": None}).json()["retention"] is None
    save(http, model, file, run="a")
    assert versions(http, model) == [1, 2, 3, 7, 8, 9]


def test_the_parent_of_a_running_upload_stays_until_it_ends(
    server: Server, http: httpx.Client, model: str, model_name: str
) -> None:
    file, parent = general(), f"{model_name}@1"

    def keepers() -> list[str]:
        kept = http.post(f"{model}/retention/preview", json={}).json()["kept"]
        return next((each["by"] for each in kept if each["version"] == 1), [])

    def body() -> Iterator[bytes]:
        yield file[:100]
        assert_soon(lambda: keepers() == ["parent of a running upload"])
        save(http, model, file)
        assert versions(http, model) == [1, 3]
        yield file[100:]

    save(http, model, file, epoch=1)
    save(http, model, file, epoch=2)
    http.patch(model, json={"retention": {"keep_last": 1}}).raise_for_status()
    with server.client(timeout=120) as uploading:
        uploading.post(f"{model}/checkpoints", content=body(), params={"parent": parent}).raise_for_status()
    assert versions(http, model) == [4]

    http.post(f"{model}/checkpoints/1/restore").raise_for_status()
    http.delete(f"{model}/checkpoints/1/pin").raise_for_status()  # what a rule removed comes back pinned
    uploads, announced = model.replace("models", "uploads"), InParts(general()).announcement(parent=parent)
    running = http.post(uploads, json=announced).json()["url"]
    assert http.post(uploads, json={**announced, "parent": "v1"}).json()["code"] == "invalid-value"
    save(http, model, file)
    assert (versions(http, model), keepers()) == ([1, 5], ["parent of a running upload"])
    http.delete(running).raise_for_status()
    save(http, model, file)
    assert versions(http, model) == [6]

    elsewhere = http.post(uploads, json={**announced, "parent": f"elsewhere/{model_name.partition('/')[2]}@6"})
    assert elsewhere.status_code == 201
    assert http.post(f"{model}/retention/preview", json={}).json()["kept"][0]["by"] == ["newest", "keep_last"]


def test_a_metric_that_no_checkpoint_has_removes_nothing_and_warns(http: httpx.Client, model: str) -> None:
    http_rules = {"keep_best": [{"by": "max:acuracy"}]}
    for _ in range(2):
        save(http, model, general())
    preview = http.post(f"{model}/retention/preview", json={"retention": http_rules}).json()
    assert preview["warnings"] == ["no checkpoint without a run has a finite acuracy, so none of them is removed"]
    assert http.patch(model, json={"retention": http_rules}).status_code == 200
    save(http, model, general())
    assert versions(http, model) == [1, 2, 3]


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ({}, "bad-retention"),
        ({"keep_last": None}, "bad-retention"),
        ({"keep_every": {}}, "bad-retention"),
        ({"keep_last": 0}, "invalid-value"),
        ({"keep_last": -3}, "invalid-value"),
        ({"keep_last": "3"}, "invalid-value"),
        ({"keep_best": [{"by": "val_acc"}]}, "invalid-value"),
        ({"keep_best": [{"by": "max:acc", "count": 0}]}, "invalid-value"),
        ({"keep_best": [{"by": "max:acc"}] * 21}, "invalid-value"),
        ({"keep_for": "30"}, "invalid-value"),
        ({"keep_for": "0"}, "invalid-value"),
        ({"keep_newest": 3}, "invalid-value"),
        ({"thin_after": {"keep_last": 0}}, "invalid-value"),
        ([], "invalid-value"),
    ],
)
def test_wrong_rules_change_nothing(http: httpx.Client, model: str, rules: object, code: str) -> None:
    save(http, model, general())
    before = http.get(model).json()
    for answer in (
        http.patch(model, json={"retention": rules}),
        http.post(f"{model}/retention/preview", json={"retention": rules}),
    ):
        assert problem(answer) == (422, code)
    assert problem(http.patch(model, json={})) == (422, "invalid-value")
    assert http.get(model).json() == before


def test_a_slot_is_filled_again_by_each_save_of_its_run(http: httpx.Client, model: str) -> None:
    for name in ("a", "b"):
        assert save(http, model, general(), run=name, slot="last")["slot"] == "last"
    save(http, model, general(), run="a")
    save(http, model, general(), run="a", slot="last")
    assert versions(http, model) == [2, 3, 4]
    assert versions(http, model, trash="true") == [1]
    restored = http.post(f"{model}/checkpoints/1/restore").json()
    assert (restored["slot"], restored["pin"]["reason"]) == (None, "restored from the trash")
    refused = http.post(f"{model}/checkpoints", content=b"not a checkpoint", params={"slot": "last", "run": "b"})
    assert refused.status_code == 422
    assert versions(http, model) == [1, 2, 3, 4]


@pytest.mark.parametrize("fields", [{"ttl": "0"}, {"ttl": "soon"}, {"ttl": "-1d"}, {"slot": ""}, {"slot": "x" * 201}])
def test_a_wrong_ttl_or_slot_stores_nothing(http: httpx.Client, model: str, fields: dict[str, str]) -> None:
    refused = http.post(f"{model}/checkpoints", content=general(), params=fields)
    assert problem(refused)[0] == 422
    assert problem(http.get(model)) == (404, "model-not-found")


@pytest.fixture
def swept(fresh_server: StartServer) -> Server:
    """A server whose sweeps a test runs by hand."""
    return fresh_server("--sweep-interval", "0", env={"STATEROOM_DURABLE": "off"})


def sweep(server: Server, *options: str) -> None:
    done = run("sweep", "--grace", "0", "--data-dir", str(server.data_dir), *options)
    assert done.returncode == 0, done.stderr


def stored_bytes(server: Server) -> int:
    return sum(path.stat().st_size for path in Path(server.data_dir, "packs").rglob("*") if path.is_file())


def test_five_thinned_checkpoints_free_most_of_their_bytes(swept: Server, model: str) -> None:
    with swept.client() as http:
        files = [adam(seed, size=256) for seed in range(6)]
        for file in files:
            save(http, model, file)
        before = stored_bytes(swept)
        rules = {"thin_after": {"keep_last": 1}}
        preview = http.post(f"{model}/retention/preview", json={"retention": rules}).json()
        assert preview["thinned"] == [1, 2, 3, 4, 5]
        assert preview["thinned_bytes"] == 5 * 2 * 256 * 256 * 4
        http.patch(model, json={"retention": rules})
        sweep(swept)
        assert before - stored_bytes(swept) >= 0.6 * 5 * len(files[0])
        assert http.get(f"{model}/checkpoints/6/file").status_code == 200
        for version in (1, 5):
            one = f"{model}/checkpoints/{version}"
            told = http.get(one).json()
            assert told["thinned_at"] is not None
            assert told["urls"]["original"] is None
            for path in ("file", "original", "file/index", "original/index", "state_dict?component=optimizer"):
                gone = http.get(f"{one}/{path}")
                assert problem(gone) == (410, "thinned"), path
                assert "its state_dicts are still there: 'model'" in gone.json()["detail"]
            weights = load(http.get(f"{one}/state_dict").content)
            whole = torch.load(io.BytesIO(files[version - 1]), weights_only=True)
            assert torch.equal(weights["weight"], whole["model"]["weight"])
            assert http.get(f"{one}/tensors?component=optimizer").status_code == 200
        save(http, model, files[0])  # the bytes that are gone are stored again
        assert http.get(f"{model}/checkpoints/7/original").content == files[0]
        assert http.get(f"{model}/checkpoints/6").json()["thinned_at"] is not None  # right after the commit
        done = run("fsck", "--read-data", "--data-dir", str(swept.data_dir))
        assert done.returncode == 0, done.stdout


def test_what_has_expired_goes_to_the_trash_at_the_next_sweep(swept: Server, model: str) -> None:
    with swept.client() as http:
        expires = save(http, model, general(), ttl="30d")["expires_at"]
        save(http, model, general(), ttl="30d")
        http.put(f"{model}/aliases/prod", json={"ref": 2})
        assert expires is not None
        sweep(swept)
        assert versions(http, model) == [1, 2]
        with closing(Catalog(catalog_url(swept))) as catalog, catalog.write() as w:
            w.execute(update(tables.checkpoints).values(expires_at=0))
        sweep(swept)
        assert versions(http, model) == [2]
        assert versions(http, model, trash="true") == [1]
        sweep(swept, "--empty-trash")
        assert [entry["state"] for entry in http.get(f"{model}/history").json()["items"]] == ["purged", "live"]
