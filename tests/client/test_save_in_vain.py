"""Saving in parts to a server that loses them: the upload starts again, and finally goes in one piece."""

import io
import json
import os
from collections.abc import Callable

import pytest
import torch

from stateroom import Client, NotFound
from stateroom._upload.negotiated import ROUNDS_IN_VAIN
from stateroom._upload.pickled import Pickled
from tests.client.conftest import Answer, Seen, StartScripted, described, problem

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
GONE = problem(410, "upload-gone")


def weights() -> dict[str, torch.Tensor]:
    noise = torch.frombuffer(bytearray(os.urandom(6 * MIB)), dtype=torch.uint8)
    return {"a": noise[: 2 * MIB].clone(), "b": noise[2 * MIB :].clone()}


def server(part: Callable[[int], Answer], commit: Callable[[int], Answer]) -> Callable[[Seen], Answer]:
    """``part`` and ``commit`` answer the first such request, the second, ..."""
    counts = {"part": 0, "commit": 0}

    def script(request: Seen) -> Answer:
        if request.method == "DELETE":
            return Answer(204)
        if request.path.startswith("/v1/models/"):
            return described(digest=None, version=7)
        if "/blocks/" in request.path:
            counts["part"] += 1
            return part(counts["part"])
        if "/commit" in request.path:
            counts["commit"] += 1
            return commit(counts["commit"])
        blocks = len(json.loads(request.body)["blocks"])
        upload = {"url": "/v1/uploads/a/b/x", "part_size": MIB, "missing": [[0, blocks]], "missing_bytes": 6 * MIB}
        return Answer(201, json.dumps(upload).encode(), JSON)

    return script


def seen_as(requests: list[Seen]) -> list[str]:
    return [request.path.split("?")[0].split("/")[-1] if "uploads" in request.path else "plain" for request in requests]


def test_what_is_lost_again_and_again_goes_in_one_piece_under_the_same_key(scripted: StartScripted) -> None:
    obj = weights()
    running = scripted(server(lambda _: GONE, lambda _: GONE))
    with Client(running.url, connections=1, progress=False, retries=0) as client:
        assert client.model("a/b").save_async(obj).result().version == 7
    assert seen_as(running.seen) == [*["b", "0-1"] * ROUNDS_IN_VAIN, "x", "plain"]
    assert running.seen[-2].method == "DELETE"
    sent = torch.load(io.BytesIO(running.seen[-1].body))
    assert all(torch.equal(sent[name], tensor) for name, tensor in obj.items())
    assert int(running.seen[-1].headers["Content-Length"]) == len(running.seen[-1].body)


def test_a_commit_whose_outcome_nobody_knows_shares_its_key_with_the_plain_upload(scripted: StartScripted) -> None:
    running = scripted(server(lambda _: Answer(204), lambda _: GONE))
    with Client(running.url, connections=1, progress=False, retries=0) as client:
        client.model("a/b").save(weights())
    keys = [request.headers.get("Idempotency-Key") for request in running.seen if seen_as([request]) != ["b"]]
    assert len({key for key in keys if key}) == 1
    assert seen_as(running.seen)[-1] == "plain"


def test_a_server_that_forgets_again_and_again_gets_it_in_one_piece(scripted: StartScripted) -> None:
    running = scripted(server(lambda _: Answer(204), lambda _: problem(409, "missing-blobs")))
    with Client(running.url, connections=1, progress=False, retries=0) as client:
        client.model("a/b").save(weights())
    assert seen_as(running.seen).count("commit") == ROUNDS_IN_VAIN
    assert seen_as(running.seen)[-2:] == ["x", "plain"]


def test_what_is_gone_everywhere_is_announced_again_and_not_sent_again(scripted: StartScripted) -> None:
    running = scripted(server(lambda count: GONE if count == 1 else Answer(204), lambda _: described()))
    with Client(running.url, connections=1, progress=False, retries=0) as client:
        client.model("a/b").save(weights())
    assert seen_as(running.seen) == ["b", "0-1", "b", "0-1", "1-2", "2-3", "commit"]


def test_another_error_of_a_commit_is_raised(scripted: StartScripted) -> None:
    running = scripted(server(lambda _: Answer(204), lambda _: problem(404, "no-such-thing")))
    with Client(running.url, connections=1, progress=False, retries=0) as client, pytest.raises(NotFound):
        client.model("a/b").save(weights())


@pytest.mark.parametrize("step", [1, 7, 4096, 10 * MIB])
def test_an_object_is_read_as_the_file_that_it_is(step: int) -> None:
    pickled = Pickled({"a": torch.arange(3000.0), "none": torch.ones(0), "b": torch.ones(5)})
    memory = pickled.memory()
    file = pickled.file(memory)
    whole = file.read()
    assert len(whole) == pickled.split(memory).size
    assert torch.equal(torch.load(io.BytesIO(whole))["a"], torch.arange(3000.0))
    for start in (0, 100, len(whole) - 3, len(whole)):
        file.seek(start)
        pieces = iter(lambda: file.read(step), b"")
        assert b"".join(pieces) == whole[start:]
        assert file.tell() == file.seek(0, io.SEEK_END) == len(whole)
