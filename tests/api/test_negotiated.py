"""Uploads in parts: announced, sent block by block, committed."""

import os
import threading
import zlib
from typing import Any

import httpx
import pytest
import torch
from blake3 import blake3

from tests.api.conftest import general, load, saved
from tests.conftest import StartServer
from tests.functional.torch_files import same
from tests.support.negotiating import InParts, missing

MIB = 1024 * 1024


def weights(seed: int, size: int = 400) -> torch.Tensor:
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def large() -> bytes:
    """A storage of three blocks, one of one block, and some in the frame; nobody has the like."""
    noise = torch.randint(0, 256, (36 * MIB + 400,), dtype=torch.uint8)
    tensors = {"large": noise, "small": noise[:400_000].clone(), "bias": torch.ones(3)}
    return saved({"epoch": 3, "loss": 0.5, "model_state_dict": tensors})


def test_a_file_that_came_in_parts_is_that_file(http: httpx.Client, model_name: str, large: bytes) -> None:
    file = InParts(large)
    assert len(file.blocks) == 1 + 3 + 1
    checkpoint = file.upload(http, model_name, loss=0.25)
    assert (checkpoint["epoch"], checkpoint["loss"], checkpoint["bytes"]) == (3, 0.25, len(large))
    assert (checkpoint["digest"], checkpoint["sha256"]) == (None, None)
    assert http.get(checkpoint["urls"]["original"]).content == large
    assert same(load(http.get(checkpoint["urls"]["file"]).content), load(large))


def test_only_what_the_namespace_does_not_hold_is_asked_for(http: httpx.Client, model_name: str, large: bytes) -> None:
    http.post(f"/v1/models/{model_name}/checkpoints", content=large)
    changed = load(large)
    assert isinstance(changed, dict)
    changed["model_state_dict"]["small"] += 1
    file = InParts(saved(changed))
    upload = file.announce(http, model_name)
    assert missing(upload) == [0, 4]
    assert upload["missing_bytes"] == len(file.blocks[0]) + len(file.blocks[4])
    file.send(http, upload)
    checkpoint = http.post(f"{upload['url']}/commit").json()
    assert same(load(http.get(checkpoint["urls"]["file"]).content), changed)
    assert checkpoint["new_bytes"] < upload["missing_bytes"] + 64 * 1024
    elsewhere = InParts(saved(changed)).announce(http, f"other-{model_name}")
    assert missing(elsewhere) == [0, 1, 2, 3, 4]


def test_a_number_in_a_storage_that_is_not_sent_is_read_all_the_same(http: httpx.Client, model_name: str) -> None:
    losses = torch.arange(5000.0)
    InParts(saved({"epoch": 1, "loss": losses[7], "w": weights(2)})).upload(http, model_name)
    file = InParts(saved({"epoch": 1, "loss": losses[9], "w": weights(2)}))
    assert missing(file.announce(http, model_name)) == [0]
    assert file.upload(http, model_name)["loss"] == 9.0


def test_equal_storages_are_sent_once(http: httpx.Client, model_name: str) -> None:
    tensors = {"a": weights(3), "b": weights(3), "loss": weights(3)[0, 0]}
    file = InParts(saved(tensors))
    assert len(file.blocks) == 4
    assert missing(file.announce(http, model_name)) == [0, 1]
    checkpoint = file.upload(http, model_name)
    assert same(load(http.get(checkpoint["urls"]["file"]).content), tensors)
    assert http.get(checkpoint["urls"]["original"]).content == file.data


def lying(length: int, known: bytes) -> tuple[InParts, dict[str, Any]]:
    """A file with a storage of ``length`` zeros, announced under the digest of ``known``."""
    file = InParts(saved({"w": torch.zeros(length // 4)}).replace(crc(bytes(length)), bytes(4)))
    announcement = file.announcement()
    announcement["blocks"][1] = blake3(known).hexdigest()
    return file, announcement


def crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


@pytest.mark.parametrize("length", [40_000, 8004, 7996, 4100])
def test_a_known_blob_of_another_length_has_to_be_sent_and_cannot_be(
    http: httpx.Client, model_name: str, length: int
) -> None:
    known = weights(11).view(-1)[:2000].clone()
    InParts(saved({"w": known})).upload(http, model_name)
    file, announcement = lying(length, known.numpy().tobytes())
    upload = http.post(f"/v1/uploads/{model_name}", json=announcement).json()
    assert missing(upload) == [0, 1]
    file.send(http, upload, [0])
    for body in (known.numpy().tobytes(), file.blocks[1]):
        refusal = http.put(f"{upload['url']}/blocks/1-2", content=body)
        assert refusal.status_code == 422
    refusal = http.post(f"{upload['url']}/commit")
    assert (refusal.status_code, refusal.json()["code"]) == (409, "missing-blobs")
    assert len(http.get(f"/v1/models/{model_name}/checkpoints").json()["items"]) == 1


def test_parts_may_come_in_any_order_and_more_than_once(http: httpx.Client, model_name: str, large: bytes) -> None:
    file = InParts(large)
    upload = file.announce(http, model_name)
    file.send(http, upload, [4, 2, 2, 0])
    answer = http.put(f"{upload['url']}/blocks/1-4", content=b"".join(file.blocks[1:4]))
    assert answer.status_code == 204, answer.text
    assert http.get(upload["url"]).json()["missing"] == []
    checkpoint = http.post(f"{upload['url']}/commit").json()
    assert http.get(checkpoint["urls"]["original"]).content == large


def test_whoever_announces_the_same_again_goes_on_where_it_stood(
    http: httpx.Client, model_name: str, large: bytes
) -> None:
    file = InParts(large)
    first = file.announce(http, model_name)
    file.send(http, first, [0, 3])
    again = file.announce(http, model_name)
    assert again["url"] == first["url"]
    assert missing(again) == [1, 2, 4]
    assert missing(file.announce(http, model_name, original=False)) == [0, 1, 2, 3, 4]  # that is another upload


def test_a_damaged_block_is_refused_and_may_be_sent_again(http: httpx.Client, model_name: str, large: bytes) -> None:
    file = InParts(large)
    upload = file.announce(http, model_name)
    damaged = bytearray(file.blocks[3])
    damaged[100] ^= 1
    refusal = http.put(f"{upload['url']}/blocks/3-4", content=bytes(damaged))
    assert (refusal.status_code, refusal.json()["code"]) == (422, "digest-mismatch")
    assert "block 3" in refusal.json()["detail"]
    assert missing(http.get(upload["url"]).json()) == [0, 1, 2, 3, 4]
    file.send(http, upload)
    checkpoint = http.post(f"{upload['url']}/commit").json()
    assert http.get(checkpoint["urls"]["original"]).content == large


def test_a_body_of_another_length_is_refused(http: httpx.Client, model_name: str) -> None:
    file = InParts(general(size=200))
    upload = file.announce(http, model_name)
    part = f"{upload['url']}/blocks/1-2"
    for body in (file.blocks[1][:-1], file.blocks[1] + b"x"):
        said = http.put(part, content=body)
        assert (said.status_code, said.json()["code"]) == (422, "bad-part")
        unsaid = http.put(part, content=iter([body]))
        assert (unsaid.status_code, unsaid.json()["code"]) == (400, "incomplete-upload")
    assert missing(http.get(upload["url"]).json()) == [0, 1]


@pytest.mark.parametrize("numbers", ["0-0", "1-9", "9-10", "3-2"])
def test_blocks_that_there_are_not_are_refused(http: httpx.Client, model_name: str, numbers: str) -> None:
    upload = InParts(general(size=200)).announce(http, model_name)
    refusal = http.put(f"{upload['url']}/blocks/{numbers}", content=b"x")
    assert refusal.status_code == 422


def test_a_part_has_a_largest_size(http: httpx.Client, model_name: str) -> None:
    size = 16 * MIB
    storages = [[1000 + i * size, 1000 + (i + 1) * size] for i in range(5)]
    announcement = {"size": 1000 + 5 * size, "storages": storages, "blocks": ["1" * 64, *["0" * 64] * 5]}
    upload = http.post(f"/v1/uploads/{model_name}", json=announcement).json()
    assert upload["part_size"] == 4 * size
    refusal = http.put(f"{upload['url']}/blocks/1-6", content=iter([b"x"]))
    assert (refusal.status_code, refusal.json()["code"]) == (413, "too-large")


def test_a_commit_names_what_has_not_arrived(http: httpx.Client, model_name: str, large: bytes) -> None:
    file = InParts(large)
    upload = file.announce(http, model_name)
    file.send(http, upload, [0, 1, 2, 4])
    refusal = http.post(f"{upload['url']}/commit")
    assert (refusal.status_code, refusal.json()["code"]) == (409, "missing-blobs")
    assert len(refusal.json()["digests"]) == 1
    assert refusal.json()["digests"][0].startswith("blake3-16m:")
    file.send(http, http.get(upload["url"]).json())
    assert http.post(f"{upload['url']}/commit").status_code == 201


def test_a_commit_that_is_sent_again_is_one(http: httpx.Client, model_name: str) -> None:
    file = InParts(general(size=200))
    upload = file.announce(http, model_name)
    file.send(http, upload)
    first = http.post(f"{upload['url']}/commit", params={"epoch": 9})
    again = http.post(f"{upload['url']}/commit", params={"epoch": 9})
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    for gone in (http.get(upload["url"]), http.put(f"{upload['url']}/blocks/0-1", content=file.blocks[0])):
        assert (gone.status_code, gone.json()["code"]) == (410, "upload-gone")
    other = http.post(f"{upload['url']}/commit", headers={"Idempotency-Key": "another"})
    assert other.status_code == 410


def test_an_upload_that_is_given_up_is_gone(http: httpx.Client, model_name: str) -> None:
    upload = InParts(general(size=200)).announce(http, model_name)
    assert http.delete(upload["url"]).status_code == 204
    assert http.delete(upload["url"]).status_code == 410
    assert http.post(f"{upload['url']}/commit").json()["code"] == "upload-gone"


def test_a_file_that_was_split_otherwise_than_announced_is_refused(http: httpx.Client, model_name: str) -> None:
    file = InParts(saved({"a": weights(4), "b": weights(5)}))
    file.storages = file.storages[:1]
    file.blocks = [file.data[: file.storages[0][0]] + file.data[file.storages[0][1] :], file.blocks[1]]
    upload = file.announce(http, model_name)
    file.send(http, upload)
    refusal = http.post(f"{upload['url']}/commit")
    assert (refusal.status_code, refusal.json()["code"]) == (422, "split-mismatch")
    assert http.get(f"/v1/models/{model_name}").status_code == 404


def test_what_is_no_checkpoint_is_refused_and_not_kept(http: httpx.Client, model_name: str) -> None:
    data = b"PK\3\4" + os.urandom(5000)
    announcement = {"size": len(data), "storages": [], "blocks": [blake3(data).hexdigest()]}
    upload = http.post(f"/v1/uploads/{model_name}", json=announcement).json()
    assert http.put(f"{upload['url']}/blocks/0-1", content=data).status_code == 204
    refusal = http.post(f"{upload['url']}/commit")
    assert (refusal.status_code, refusal.json()["code"]) == (422, "not-a-checkpoint")
    assert http.get(upload["url"]).status_code == 410


GOOD: dict[str, Any] = {
    "size": 20_000,
    "storages": [[100, 9000], [9000, 20_000]],
    "blocks": ["0" * 64, "1" * 64, "2" * 64],
}


@pytest.mark.parametrize(
    "change",
    [
        {"storages": [[9000, 20_000], [100, 9000]]},
        {"storages": [[100, 9000], [8000, 20_000]]},
        {"storages": [[100, 9000], [9000, 20_001]]},
        {"storages": [[100, 4196], [9000, 20_000]]},
        {"storages": [[-5000, 0], [9000, 20_000]]},
        {"blocks": ["0" * 64] * 2},
        {"blocks": ["0" * 64, "1" * 64, "2" * 64, "3" * 64]},
        {"blocks": ["0" * 64, "1" * 64, "1" * 64]},  # one digest for storages of two lengths
        {"blocks": ["0" * 64, "0" * 64, "1" * 64]},  # or for the frame and a storage
        {"blocks": ["0" * 64, "0" * 64, "0" * 63]},
        {"blocks": ["0" * 64, "0" * 64, "G" * 64]},
        {"size": 0, "storages": [], "blocks": ["0" * 64]},
        {"size": 2**63},
    ],
    ids=str,
)
def test_a_split_that_cannot_be_is_refused(http: httpx.Client, model_name: str, change: dict[str, Any]) -> None:
    assert http.post(f"/v1/uploads/{model_name}", json=GOOD).status_code == 201
    refusal = http.post(f"/v1/uploads/{model_name}", json={**GOOD, **change})
    assert (refusal.status_code, refusal.json()["code"]) == (422, "bad-split")


def test_what_was_saved_from_memory_is_no_file_to_ask_for(http: httpx.Client, model_name: str) -> None:
    file = InParts(general(size=200))
    upload = file.announce(http, model_name, original=False)
    file.send(http, upload)
    checkpoint = http.post(f"{upload['url']}/commit").json()
    assert checkpoint["urls"]["original"] is None
    refusal = http.get(f"{checkpoint['urls']['self']}/original")
    assert (refusal.status_code, refusal.json()["code"]) == (404, "no-original")


def test_an_upload_in_parts_is_counted_when_it_is_committed(fresh_server: StartServer) -> None:
    with fresh_server().client() as http:
        file = InParts(saved({"w": torch.ones(2000)}))
        upload = file.announce(http, "a/b")
        assert http.post(f"{upload['url']}/commit").status_code == 409
        file.send(http, upload)
        for _ in range(2):
            answer = http.post(f"{upload['url']}/commit", headers={"Idempotency-Key": "one"})
            assert answer.status_code == 201
        lines = http.get("/metrics").text.splitlines()
    counted = {line for line in lines if line.startswith("stateroom_uploads_total")}
    assert counted == {
        f'stateroom_uploads_total{{outcome="{outcome}"}} 1.0' for outcome in ("missing-blobs", "stored", "replayed")
    }


def test_parts_survive_a_server_that_is_killed(fresh_server: StartServer, large: bytes) -> None:
    server = fresh_server()
    file = InParts(large)
    with server.client() as http:
        upload = file.announce(http, "a/b")
        file.send(http, upload, [0, 2, 4])
        half = threading.Thread(target=_send_half, args=(server.base_url, upload["url"], file.blocks[1]))
        half.start()
        half.join()
    server.restart()
    with server.client() as http:
        again = file.announce(http, "a/b")
        assert again["url"] == upload["url"]
        assert missing(again) == [1, 3]
        file.send(http, again)
        checkpoint = http.post(f"{again['url']}/commit").json()
        assert http.get(checkpoint["urls"]["original"]).content == large


def _send_half(base_url: str, upload: str, block: bytes) -> None:
    def body() -> Any:
        yield block[: len(block) // 2]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        httpx.put(f"{base_url}{upload}/blocks/1-2", content=body(), timeout=60)
