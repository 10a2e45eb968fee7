"""Blobs that several clients send ahead of one checkpoint."""

import threading
from typing import Any

import httpx
import pytest
import torch

from tests.api.conftest import problem, saved
from tests.conftest import StartServer
from tests.support.negotiating import BLOCK, InParts, missing
from tests.support.staging import Blobs, blobs_of


def weights(seed: int, size: int = 400) -> torch.Tensor:
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed))


def file_of(*seeds: int) -> InParts:
    return InParts(saved({"epoch": 3, "model_state_dict": {f"w{seed}": weights(seed) for seed in seeds}}))


@pytest.fixture
def file(request: pytest.FixtureRequest) -> InParts:
    seed = sum(request.node.name.encode())
    return file_of(*(1000 * seed + number for number in range(4)))


def test_what_several_clients_have_sent_becomes_one_checkpoint(
    http: httpx.Client, model_name: str, file: InParts
) -> None:
    model = f"/v1/models/{model_name}"
    blobs = blobs_of(file)
    senders = [
        threading.Thread(target=Blobs(mine).stage, args=(http, model_name)) for mine in (blobs[::2], blobs[1::2])
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert problem(http.get(f"{model}/checkpoints")) == (404, "model-not-found")
    upload = file.announce(http, model_name)
    assert missing(upload) == [0]
    file.send(http, upload)
    checkpoint = http.post(f"{upload['url']}/commit").json()
    assert http.get(checkpoint["urls"]["original"]).content == file.data


def test_what_is_staged_is_not_sent_again_and_only_its_namespace_sees_it(
    http: httpx.Client, model_name: str, file: InParts
) -> None:
    staged = Blobs(blobs_of(file))
    staged.stage(http, model_name)
    again = staged.announce(http, model_name)
    assert (again["missing"], again["missing_bytes"]) == ([], 0)
    assert http.post(f"{again['url']}/stage").status_code == 204
    assert problem(http.post(f"{again['url']}/stage")) == (410, "upload-gone")
    elsewhere = staged.announce(http, f"other-{model_name}")
    assert missing(elsewhere) == [1, 2, 3, 4]


def test_blobs_of_several_blocks_and_equal_blobs_are_staged(http: httpx.Client, model_name: str) -> None:
    noise = torch.randint(0, 256, (BLOCK + 5000,), dtype=torch.uint8).numpy().tobytes()
    staged = Blobs([noise, noise[:5000], noise])
    upload = staged.announce(http, model_name)
    assert missing(upload) == [1, 2, 3]
    staged.send(http, upload)
    assert http.post(f"{upload['url']}/stage").status_code == 204
    assert missing(staged.announce(http, model_name)) == []


def test_an_upload_with_a_frame_is_not_staged_and_goes_on(http: httpx.Client, model_name: str, file: InParts) -> None:
    upload = file.announce(http, model_name)
    file.send(http, upload)
    refusal = http.post(f"{upload['url']}/stage")
    assert problem(refusal) == (422, "bad-split")
    assert "belong to no storage" in refusal.json()["detail"]
    assert http.post(f"{upload['url']}/commit").status_code == 201


def test_blobs_that_have_not_arrived_are_not_staged(http: httpx.Client, model_name: str, file: InParts) -> None:
    staged = Blobs(blobs_of(file))
    upload = staged.announce(http, model_name)
    refusal = http.post(f"{upload['url']}/stage")
    assert problem(refusal) == (409, "missing-blobs")
    assert len(refusal.json()["digests"]) == 4
    wrong = http.put(f"{upload['url']}/blocks/1-2", content=bytes(len(staged.blobs[0])))
    assert problem(wrong) == (422, "digest-mismatch")
    staged.send(http, upload)
    assert http.post(f"{upload['url']}/stage").status_code == 204


def test_blobs_alone_are_no_checkpoint(http: httpx.Client, model_name: str, file: InParts) -> None:
    staged = Blobs(blobs_of(file))
    upload = staged.announce(http, model_name)
    staged.send(http, upload)
    refusal = http.post(f"{upload['url']}/commit")
    assert problem(refusal) == (422, "not-a-checkpoint")
    assert problem(http.get(f"/v1/models/{model_name}/checkpoints")) == (404, "model-not-found")


def lie(change: str, announcement: dict[str, Any]) -> dict[str, Any]:
    first = announcement["storages"][0]
    match change:
        case "gap":
            announcement["size"] += 1
        case "small":
            announcement["storages"][0] = (first[0], first[0] + 4096)
        case "overlap":
            announcement["storages"].insert(0, first)
        case "no frame block":
            announcement["blocks"].pop(0)
    return announcement


@pytest.mark.parametrize("change", ["small", "overlap", "no frame block"])
def test_wrong_blobs_are_refused_when_they_are_announced(
    http: httpx.Client, model_name: str, file: InParts, change: str
) -> None:
    announcement = lie(change, Blobs(blobs_of(file)).announcement())
    assert problem(http.post(f"/v1/uploads/{model_name}", json=announcement)) == (422, "bad-split")


def test_a_byte_beside_the_blobs_is_a_frame(http: httpx.Client, model_name: str, file: InParts) -> None:
    announcement = lie("gap", Blobs(blobs_of(file)).announcement())
    upload = http.post(f"/v1/uploads/{model_name}", json=announcement).json()
    assert missing(upload)[0] == 0
    assert problem(http.post(f"{upload['url']}/stage")) == (422, "bad-split")


def test_the_upload_of_another_model_is_not_staged(http: httpx.Client, model_name: str, file: InParts) -> None:
    staged = Blobs(blobs_of(file))
    upload = staged.announce(http, model_name)
    staged.send(http, upload)
    other = upload["url"].replace(model_name, f"{model_name}-other")
    assert problem(http.post(f"{other}/stage")) == (410, "upload-gone")


def test_a_quota_counts_what_is_staged(fresh_server: StartServer, file: InParts) -> None:
    server = fresh_server()
    with server.client() as http:
        blobs = blobs_of(file)
        http.put("/v1/namespaces/small", json={"quota_bytes": 3 * len(blobs[0])})
        Blobs(blobs[:2]).stage(http, "small/net")
        assert http.get("/v1/namespaces/small").json()["stored_bytes"] == 2 * len(blobs[0])
        refusal = http.post("/v1/uploads/small/net", json=Blobs(blobs[2:]).announcement())
        assert problem(refusal) == (507, "quota-exceeded")
